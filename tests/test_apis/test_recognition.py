"""A checkpoint file is enough: what network it holds is found out."""
import ast
import importlib.util
import sys

import ncnn_writer
import numpy as np
import pytest
import torch
from mmagic.registry import MODELS
from mmengine.config import Config

from mmpd.apis.recognition import _literal, _mmengine_checkpoint, recognise, rrdbnet_config
from mmpd.errors import InputError, WeightsMismatch, WeightsNotFound

RRDB = dict(type='RRDBNet', in_channels=3, out_channels=3, mid_channels=8, num_blocks=2,
            growth_channels=4)
GLEAN = dict(
    type='PDGLEAN',
    generator=dict(
        type='GLEANNet', in_size=8, out_size=32, style_channels=16, num_mlps=1, rrdb_channels=8,
        num_rrdbs=1, growth_channels=4, channels={4: 8, 8: 8, 16: 8, 32: 8}),
    discriminator=dict(type='UNetDiscriminatorWithSpectralNorm', in_channels=3, mid_channels=4),
    gan_loss=dict(type='GANLoss', gan_type='vanilla', loss_weight=1e-2),
    pixel_loss=dict(type='L1Loss'),
    data_preprocessor=dict(type='DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3))


def build(cfg, seed=0):
    torch.manual_seed(seed)
    net = MODELS.build(cfg)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return net.eval()


def predict(model, lr):
    data = model.data_preprocessor(dict(inputs=lr))
    with torch.no_grad():
        return model.forward_tensor(data['inputs'])


@pytest.mark.parametrize('factor', [4, 2])
@pytest.mark.parametrize('container', ['params_ema', 'generator.'])
def test_real_esrgan_files_need_no_spandrel(factor, container, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'spandrel', None)
    net = build(dict(RRDB, upscale_factor=factor))
    state = net.state_dict()
    torch.save({container: state} if container == 'params_ema' else dict(
        state_dict={container + key: value for key, value in state.items()}), tmp_path / 'x.pth')
    found = recognise(tmp_path / 'x.pth')
    assert (found.kind, found.scale) == ('RRDBNet', factor)
    model = found.build(pd_head=dict(strength=0))  # the network alone
    lr = torch.randint(0, 256, (1, 3, 8, 8))
    wanted = net(lr / 255)
    assert (predict(model, list(lr)) - wanted).abs().max() < 1e-5
    exact = predict(recognise(tmp_path / 'x.pth').build(), list(lr))
    assert (torch.nn.functional.avg_pool2d(exact, factor) - lr / 255).abs().max() < 1e-5
    found.weights['generator.conv_hr.bias'] = torch.ones(8, dtype=torch.int8)
    with pytest.raises(WeightsMismatch, match='"generator.conv_hr.bias" is torch.int8 in the file'):
        found.build()


def test_only_exact_rrdb_networks_are_taken_for_one():
    state = build(dict(RRDB, upscale_factor=4)).state_dict()
    assert rrdbnet_config(state) == dict(RRDB, upscale_factor=4)
    for change in (lambda s: s.pop('conv_hr.bias'), lambda s: s.update(extra=torch.ones(1)),
                   lambda s: s.update({'conv_up1.weight': torch.ones(8, 8, 5, 5)}),
                   lambda s: s.pop('conv_first.weight'),
                   lambda s: s.update({'conv_first.weight': torch.ones(8, 5, 3, 3)})):
        changed = dict(state)
        change(changed)
        assert rrdbnet_config(changed) is None


def test_other_networks_go_to_spandrel(tmp_path):
    pytest.importorskip('spandrel')
    from spandrel.architectures.Compact import Compact
    net = Compact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=2, upscale=2).eval()
    torch.save(net.state_dict(), tmp_path / 'x.pth')
    found = recognise(tmp_path / 'x.pth')
    assert found.kind == 'spandrel' and found.scale == 2 and found.weights is None
    model = found.build(pd_head=dict(strength=0))
    lr = torch.randint(0, 256, (1, 3, 8, 8))
    with torch.no_grad():
        assert (predict(model, list(lr)) / 2 + 0.5 - net(lr / 255)).abs().max() < 1e-5


def checkpoint(model_cfg, path, text=None):
    """As mmengine's runner writes them: the config is in it as text."""
    cfg = Config(dict(default_scope='mmagic', model=model_cfg, optim_wrapper=dict(lr=1e-4)))
    model = build(model_cfg)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(
        cfg=cfg.pretty_text if text is None else text), message_hub=dict(), optimizer=dict()), path)
    return model


def test_a_checkpoint_of_a_run_brings_its_config(tmp_path):
    model = checkpoint(GLEAN, tmp_path / 'iter_1.pth').eval()
    found = recognise(tmp_path / 'iter_1.pth')
    assert found.kind == 'mmpd' and found.architecture == 'GLEANNet'
    lr = torch.randint(0, 256, (1, 3, 8, 8))
    built = found.build()
    assert not hasattr(built, 'discriminator') or built.discriminator is None
    assert torch.equal(predict(built, list(lr)), predict(model, list(lr)))


def test_a_run_of_mmagics_own_model_gains_pd(tmp_path):
    cfg = dict(type='BaseEditModel', generator=dict(RRDB, upscale_factor=4),
               pixel_loss=dict(type='L1Loss'), data_preprocessor=dict(
                   type='DataPreprocessor', mean=[0.] * 3, std=[255.] * 3))
    model = checkpoint(cfg, tmp_path / 'x.pth')
    found = recognise(tmp_path / 'x.pth')
    assert found.model['type'] == 'PDModel' and found.model['base'] == 'BaseEditModel'
    lr = torch.randint(0, 256, (1, 3, 8, 8))
    plain, pd = predict(model, list(lr)), predict(found.build(), list(lr))
    assert (torch.nn.functional.avg_pool2d(pd, 4) - lr / 255).abs().max() < 1e-5
    assert (torch.nn.functional.avg_pool2d(plain, 4) - lr / 255).abs().max() > 0.1


@pytest.mark.parametrize('text', [
    'model = __import__("os").system("touch broken")', 'model = dict(type=exit())',
    'model = [', 'model = dict(*[1])', 'model = 3', 'import os', "model = dict(type='Unknown')",
    'model = ' + '(' * 3000])
def test_configs_in_checkpoints_are_not_run(text, tmp_path, monkeypatch):
    """The weights are still recognised; the config beside them is left alone."""
    monkeypatch.chdir(tmp_path)
    cfg = dict(type='BaseEditModel', generator=dict(RRDB, upscale_factor=4),
               pixel_loss=dict(type='L1Loss'))
    checkpoint(cfg, tmp_path / 'x.pth', text)
    assert recognise('x.pth').kind == 'RRDBNet'
    assert not (tmp_path / 'broken').exists()


@pytest.mark.parametrize('text, value', [
    ("dict(a=[1, (2, 'x')], b={4: None})", dict(a=[1, (2, 'x')], b={4: None})),
    ('dict({4: 8}, c=-1.5)', {4: 8, 'c': -1.5}), ('(True, [])', (True, []))])
def test_constants_in_configs(text, value):
    found = _literal(ast.parse(text, mode='eval').body)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize('text', ['list(a=1)', 'dict(3)', 'dict(**{1: 2})', 'x.dict(a=1)', 'a'])
def test_what_is_no_constant(text):
    with pytest.raises(ValueError, match='constant|malformed'):
        _literal(ast.parse(text, mode='eval').body)


@pytest.mark.parametrize('content', [
    dict(meta=None), dict(meta='x'), dict(meta=dict(cfg=3)), dict(),
    dict(meta=dict(cfg='a.model=1')),
    dict(meta=dict(cfg='model = 3')), dict(meta=dict(cfg='model = dict(a=1)')),
    dict(meta=dict(cfg="model = dict(type='PDEdit')")),
    dict(meta=dict(cfg="model = dict(type='PDEdit')"), state_dict=[1])])
def test_checkpoints_without_a_config_of_use(content):
    assert _mmengine_checkpoint(content, 'x.pth') is None


def test_what_only_training_needs_is_left_out():
    text = """default_scope = 'mmagic'
model = dict(type='SRGAN', generator=dict(type='X'), gan_loss=dict(a=1), discriminator=dict(b=1))"""
    tensors = {key: torch.ones(1) for key in ('generator.a', 'discriminator.a', 'step_counter')}
    found = _mmengine_checkpoint(dict(meta=dict(cfg=text), state_dict=tensors), 'x.pth')
    assert found.model == dict(type='PDModel', base='SRGAN', generator=dict(type='X'))
    assert list(found.weights) == ['generator.a'] and found.architecture == 'X'
    assert found.scale is None and 'weights' not in repr(found)


def test_ncnn_files(tmp_path):
    net = ncnn_writer.network()
    (tmp_path / 'x.param').write_text(ncnn_writer.write_param(net))
    (tmp_path / 'x.bin').write_bytes(ncnn_writer.write_bin(net))
    for suffix in ('param', 'bin'):
        found = recognise(tmp_path / f'x.{suffix}')
        assert (found.kind, found.scale) == ('RRDBNet', 4)
        assert torch.equal(found.build().generator.conv_first.bias, net.conv_first.bias)


def test_what_is_not_recognised(tmp_path):
    with pytest.raises(WeightsNotFound, match='none.pth'):
        recognise(tmp_path / 'none.pth')
    np.save(tmp_path / 'x.npy', np.ones(3))
    with pytest.raises(WeightsMismatch, match='x.npy cannot be read'):
        recognise(tmp_path / 'x.npy')
    with pytest.raises(InputError, match='none.param: no such file'):
        recognise(tmp_path / 'none.bin')
    model = checkpoint(GLEAN, tmp_path / 'iter_1.pth')
    state = dict(model.state_dict())
    state.pop(next(key for key in state if key.startswith('generator.encoder')))
    content = torch.load(tmp_path / 'iter_1.pth')
    content['state_dict'] = state
    torch.save(content, tmp_path / 'iter_1.pth')
    with pytest.raises(WeightsMismatch, match='Missing key'):
        recognise(tmp_path / 'iter_1.pth').build()
    if importlib.util.find_spec('spandrel'):
        torch.save({'a.weight': torch.ones(2, 2)}, tmp_path / 'x.pth')
        with pytest.raises(WeightsMismatch, match='x.pth: of no architecture that spandrel'):
            recognise(tmp_path / 'x.pth')
        torch.save(build(dict(RRDB, upscale_factor=1)).state_dict(), tmp_path / 'x1.pth')
        with pytest.raises(WeightsMismatch, match='x1.pth: '):
            recognise(tmp_path / 'x1.pth')
        checkpoint(GLEAN, tmp_path / 'iter_1.pth', text='')
        with pytest.raises(WeightsMismatch, match='without a usable config.*name its config too'):
            recognise(tmp_path / 'iter_1.pth')
