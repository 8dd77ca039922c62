"""Models from configs and checkpoints: names, fingerprints, what is overridden, what is said."""
import hashlib

import ncnn_writer
import pytest
import torch
from conftest import PREPROCESSOR, TINY
from mmagic.registry import MODELS
from mmengine.config import Config

from mmpd.apis import loading
from mmpd.apis.loading import load_model
from mmpd.errors import InputError, WeightsMismatch

RRDB = dict(type='RRDBNet', in_channels=3, out_channels=3, mid_channels=4, num_blocks=1,
            growth_channels=4)
PLAIN = dict(type='BaseEditModel', generator=RRDB, pixel_loss=dict(type='L1Loss'),
             data_preprocessor=PREPROCESSOR)


def save(cfg, path, **more):
    torch.manual_seed(0)
    torch.save(dict(state_dict=dict(MODELS.build(cfg).state_dict(), **more)), path)
    return str(path)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save(PLAIN, tmp_path_factory.mktemp('loading') / 'x.pth')


def config(**changes):
    return Config(dict(model=dict(PLAIN, **changes)))


def test_weights_are_known_by_their_hash(tmp_path, checkpoint):
    large = tmp_path / 'large.bin'
    large.write_bytes(bytes(range(256)) * 10_000)  # more than is read at once
    (tmp_path / 'large.param').touch()
    digest = hashlib.sha256(large.read_bytes()).hexdigest()[:8]
    assert loading._fingerprint(large) == loading._fingerprint(tmp_path / 'large.param') == digest
    url = 'https://example.org/glean_x8_20260101-0123abcd.pth'
    assert loading._fingerprint(url) == '0123abcd'
    assert loading._fingerprint('https://example.org/glean-0123456789.pth') == '01234567'
    loaded = load_model(config(), checkpoint)
    with open(checkpoint, 'rb') as file:
        assert loaded.weights == hashlib.sha256(file.read()).hexdigest()[:8]
    assert loaded.name == 'config' and not loaded.model.training


def test_a_config_may_name_its_checkpoint_itself(checkpoint, tmp_path):
    cfg = config()
    cfg.load_from = checkpoint
    assert load_model(cfg).weights == loading._fingerprint(checkpoint)
    with pytest.raises(InputError, match='config: a config needs a checkpoint as well'):
        load_model(config())
    spandrel = pytest.importorskip('spandrel')
    assert spandrel
    from spandrel.architectures.Compact import Compact
    path = tmp_path / 'compact.pth'
    torch.save(Compact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=2, upscale=2).state_dict(),
               path)
    loaded = load_model(config(generator=dict(type='SpandrelGenerator', checkpoint=str(path))))
    assert loaded.weights == loading._fingerprint(path) and not loaded.model.training


def test_what_is_trained_only_is_not_built(checkpoint):
    gan = dict(discriminator=dict(type='NoSuchDiscriminator'), gan_loss=dict(type='None'),
               perceptual_loss=dict(type='None'))
    cfg = config(**gan)
    loaded = load_model(cfg, checkpoint)
    assert type(loaded.model).__name__ == 'PDEdit' and cfg.model.type == 'BaseEditModel'
    assert cfg.model.discriminator.type == 'NoSuchDiscriminator'  # the caller's is left alone


@pytest.mark.parametrize('kind', ['PDEdit', 'PDModel', 'class', 'plain class'])
def test_models_with_pd_stay_what_they_are(checkpoint, kind):
    from mmagic.models.base_models import BaseEditModel

    from mmpd.models.editors import PDEdit
    cfg = config(type={'class': PDEdit, 'plain class': BaseEditModel}.get(kind, kind))
    assert type(load_model(cfg, checkpoint).model) is PDEdit


def test_overrides_are_put_above_the_configs(checkpoint):
    cfg = config(type='PDEdit', pd_head=dict(strength=0.5, bounds=(0, 255)),
                 test_cfg=dict(keep_raw=True))
    model = load_model(cfg, checkpoint).model
    assert (model.pd_head.strength, model.quantize) == (0.5, 'clip')
    model = load_model(cfg, checkpoint, pd_head=dict(strength=1), test_cfg=dict(quantize='none'),
                       cfg_options={'model.pd_head.bounds': [10, 200]}).model
    assert model.pd_head.strength == 1 and model.pd_head.bounds == (10, 200)
    assert model.quantize == 'none' and model.test_cfg['keep_raw'] is True
    assert cfg.model.pd_head == dict(strength=0.5, bounds=(0, 255))


@pytest.mark.parametrize('options, message', [
    ({'modell.x': 1}, "modell.x: the config of config has no 'modell'"),
    ({'model.generator.mid_channels': -1}, 'config: the model cannot be built: '),
    ({'model.pd_head': dict(strenght=1)}, 'pd_head.strenght')])
def test_options_that_do_not_fit(checkpoint, options, message):
    with pytest.raises(InputError, match=message) as caught:
        load_model(config(), checkpoint, options)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('text, message', [
    ('raise KeyError()', 'KeyError: '), ("raise ValueError('one\\ntwo')", 'ValueError: one'),
    ('raise RuntimeError()', 'RuntimeError: RuntimeError$'),
    ('model = dict(', 'config .*net.py: ')])
def test_configs_that_cannot_be_read(tmp_path, checkpoint, text, message):
    path = tmp_path / 'net.py'
    path.write_text(text + '\n')
    with pytest.raises(InputError, match=f'config .*net.py: .*{message}|{message}') as caught:
        load_model(str(path), checkpoint)
    assert '\n' not in str(caught.value)


def test_checkpoints_of_other_models_are_refused(tmp_path, checkpoint):
    wide = save(dict(PLAIN, generator=dict(RRDB, mid_channels=6)), tmp_path / 'wide.pth')
    with pytest.raises(WeightsMismatch, match=r'checkpoint .*wide.pth is not one of config: of \d+ '
                                              r'tensors \d+ differ: "generator.*\(6, 3, 3, 3\)'):
        load_model(config(), wide)
    # what training leaves beside the weights does not matter
    more = save(PLAIN, tmp_path / 'more.pth', step_counter=torch.tensor(3))
    for path in (more, checkpoint):
        state = load_model(config(), path).model.state_dict()
        wanted = torch.load(checkpoint)['state_dict']
        assert all(torch.equal(state[key], value) for key, value in wanted.items())
    wrapped = torch.load(checkpoint)['state_dict']
    torch.save(dict(state_dict={f'module.{key}': value for key, value in wrapped.items()}),
               tmp_path / 'ddp.pth')
    assert torch.equal(load_model(config(), tmp_path / 'ddp.pth').model.generator.conv_last.weight,
                       wrapped['generator.conv_last.weight'])


def test_a_checkpoint_alone(tmp_path, checkpoint):
    loaded = load_model(checkpoint, pd_head=dict(strength=0.25), test_cfg=dict(quantize='none'))
    assert (loaded.name, loaded.weights) == ('x', loading._fingerprint(checkpoint))
    assert loaded.model.pd_head.strength == 0.25 and loaded.model.quantize == 'none'
    assert not loaded.model.training
    with pytest.raises(InputError, match='x.pth: a checkpoint has no config that options could'):
        load_model(checkpoint, cfg_options={'model.x': 1})
    cfg = Config(dict(default_scope='mmagic', model=dict(
        PLAIN, type='PDEdit', pd_head=dict(strength=0.5), test_cfg=dict(quantize='clip'))))
    state = MODELS.build(cfg.model).state_dict()
    torch.save(dict(state_dict=state, meta=dict(cfg=cfg.pretty_text)), tmp_path / 'run.pth')
    model = load_model(tmp_path / 'run.pth').model
    assert (model.pd_head.strength, model.quantize) == (0.5, 'clip')
    model = load_model(tmp_path / 'run.pth', pd_head=dict(strength=0.1)).model
    assert (model.pd_head.strength, model.quantize) == (0.1, 'clip')
    net = ncnn_writer.network()
    (tmp_path / 'x.param').write_text(ncnn_writer.write_param(net))
    (tmp_path / 'x.bin').write_bytes(ncnn_writer.write_bin(net))
    assert load_model(tmp_path / 'x.param').weights == loading._fingerprint(tmp_path / 'x.bin')


def test_a_model_for_one_size_is_loaded_by_the_names_of_mmagic(tmp_path):
    cfg = dict(type='GANPriorSR', generator=TINY, pixel_loss=dict(type='L1Loss'),
               data_preprocessor=PREPROCESSOR)
    (tmp_path / 'net.py').write_text(f"default_scope = 'mmagic'\nmodel = {cfg!r}\n")
    loaded = load_model(tmp_path / 'net.py', save(cfg, tmp_path / 'net.pth'))
    assert loaded.name == 'net' and loaded.model.pd_head.operator.scale == 4
