"""What GANPriorSR adds to SRGAN: checkpoints, the prior, R1, the averaged generator."""
import runpy

import pytest
import torch
from conftest import ROOT, TINY, gan_parts, lr_batch, tiny_model, train_steps
from mmagic.registry import MODELS
from mmengine.runner.checkpoint import load_checkpoint, load_state_dict


def test_fp16_generator_on_cpu_says_what_it_needs():
    model = tiny_model()
    model.generator.generator.fp16_enabled = True
    with pytest.raises(RuntimeError, match='needs a CUDA GPU'):
        model(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize('type', ['PDGLEAN', 'PDPanini'])
def test_plain_checkpoint_loads_strictly(tmp_path, type):
    plain = tiny_model('SRGAN')
    torch.save(dict(state_dict=plain.state_dict()), tmp_path / 'plain.pth')
    model = tiny_model(type)
    for parameter in model.parameters():
        parameter.data.zero_()
    load_checkpoint(model, str(tmp_path / 'plain.pth'), strict=True)
    assert list(model.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(model.state_dict(), plain.state_dict())


def test_checkpoint_of_separate_ddp_loads_and_is_not_written():
    model = tiny_model()
    clean = {key: value.clone() for key, value in model.state_dict().items()}
    wrapped = {key.replace('generator.', 'generator.module.', 1): value
               for key, value in clean.items()}
    other = tiny_model()
    for parameter in other.parameters():
        parameter.data.zero_()
    load_state_dict(other, wrapped, strict=True)
    torch.testing.assert_close(dict(other.state_dict()), clean)
    model.generator = torch.nn.DataParallel(model.generator)
    assert list(model.state_dict()) == list(clean)
    outer = torch.nn.ModuleDict(dict(inner=model)).state_dict()
    assert list(outer) == [f'inner.{key}' for key in clean] and 'inner' in outer._metadata
    into = {}
    assert model.state_dict(into, 'x.', True) is into  # as torch takes them too
    assert list(into) == [f'x.{key}' for key in clean]
    assert any(value.requires_grad for value in into.values())
    assert not any(value.requires_grad for value in model.state_dict().values())


def upstream_generator():
    return dict(type='GLEANStyleGANv2', in_size=4, out_size=8, style_channels=8, num_mlps=1,
                rrdb_channels=4, num_rrdbs=1)


@pytest.fixture(scope='module')
def prior_file(tmp_path_factory):
    torch.manual_seed(1)
    prior = MODELS.build(dict(type='StyleGANv2Generator', out_size=8, style_channels=8, num_mlps=1))
    state = {f'generator_ema.{key}': value for key, value in prior.state_dict().items()}
    path = tmp_path_factory.mktemp('prior') / 'stylegan2.pth'
    torch.save(dict(state_dict=state, meta=dict()), path)
    return path


def init_cfg(path, prefix='generator_ema'):
    return dict(type='Pretrained', checkpoint=str(path), prefix=prefix)


def test_prior_of_upstream_generator_loads(prior_file):
    wanted = {key.removeprefix('generator_ema.'): value
              for key, value in torch.load(prior_file)['state_dict'].items()}
    generator = dict(upstream_generator(), init_cfg=init_cfg(prior_file))

    plain = tiny_model('SRGAN', generator)  # the fault: MMagic loads nothing and says nothing
    plain.init_weights()
    state = plain.generator.generator.state_dict()
    assert not any(torch.equal(state[key], value) for key, value in wanted.items()
                   if value.std() > 0 and value.numel() > 16 and 'kernel' not in key)

    model = tiny_model('PDGLEAN', generator)
    model.init_weights()
    state = model.generator.generator.state_dict()
    assert list(state) == list(wanted)
    assert all(torch.equal(state[key], value) for key, value in wanted.items())


@pytest.mark.parametrize('how', ['class', 'scope', 'list'])
def test_prior_loads_however_the_config_is_written(prior_file, how):
    from mmagic.models.editors.glean import GLEANStyleGANv2
    generator = dict(upstream_generator(), init_cfg=init_cfg(prior_file))
    if how == 'list':
        generator['init_cfg'] = [init_cfg(prior_file)]
    else:
        generator['type'] = GLEANStyleGANv2 if how == 'class' else 'mmagic.GLEANStyleGANv2'
    for cfg in (generator, dict(generator, type='GLEANNet') if how == 'list' else generator):
        model = tiny_model('PDGLEAN', cfg)
        model.init_weights()
        state = model.generator.generator.state_dict()
        assert all(torch.equal(state[key.removeprefix('generator_ema.')], value)
                   for key, value in torch.load(prior_file)['state_dict'].items())
        next(model.generator.generator.parameters()).data.add_(1)
        changed = next(model.generator.generator.parameters()).clone()
        model.init_weights()  # once only
        assert torch.equal(next(model.generator.generator.parameters()), changed)


def test_prior_that_does_not_match_is_an_error(prior_file):
    for prefix, found in (('generator', 'generator_ema'), ('discriminator', 'generator_ema')):
        model = tiny_model('PDGLEAN', dict(upstream_generator(),
                                           init_cfg=init_cfg(prior_file, prefix)))
        with pytest.raises(RuntimeError, match=found):
            model.init_weights()
    other = dict(upstream_generator(), style_channels=16, init_cfg=init_cfg(prior_file))
    with pytest.raises(RuntimeError, match='style'):
        tiny_model('PDGLEAN', other).init_weights()


def test_missing_prior_file_is_named(tmp_path):
    missing = tmp_path / 'nowhere.pth'
    model = tiny_model('PDGLEAN', dict(upstream_generator(), init_cfg=init_cfg(missing)))
    with pytest.raises(FileNotFoundError, match='nowhere.pth'):
        model.init_weights()


def test_discriminator_must_load_completely(tmp_path):
    cfg = dict(type='UNetDiscriminatorWithSpectralNorm', in_channels=3, mid_channels=4)
    torch.manual_seed(2)
    state = {f'discriminator.{k}': v for k, v in MODELS.build(cfg).state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'd.pth')
    gan_loss = dict(type='GANLoss', gan_type='vanilla', loss_weight=1e-2)
    model = tiny_model(discriminator=dict(cfg, init_cfg=init_cfg(tmp_path / 'd.pth',
                                                                 'discriminator')),
                       gan_loss=gan_loss)
    model.init_weights()
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    wider = dict(cfg, mid_channels=8,
                 init_cfg=init_cfg(tmp_path / 'd.pth', 'discriminator'))
    with pytest.raises(RuntimeError, match='discriminator'):
        tiny_model(discriminator=wider, gan_loss=gan_loss).init_weights()


def test_training_without_pixel_loss_and_with_r1():
    log = train_steps(tiny_model(pixel_loss=None, **gan_parts()))[-1]
    assert set(log) == {'loss_gan', 'loss_d_real', 'loss_d_fake'}
    plain = train_steps(tiny_model(**gan_parts()))[0]
    r1 = train_steps(tiny_model(train_cfg=dict(r1_weight=5.0), **gan_parts()))[0]
    assert 'loss_pix' in plain and r1['loss_d_real'] > plain['loss_d_real']
    none, double = (train_steps(tiny_model(train_cfg=dict(r1_weight=weight), **gan_parts()))[0]
                    for weight in (0, 10.0))
    assert none['loss_d_real'] == plain['loss_d_real']
    first, second = ((log['loss_d_real'] - none['loss_d_real']).item() for log in (r1, double))
    assert second == pytest.approx(2 * first, rel=1e-3)


def test_averaged_generator_is_used_outside_training():
    model = tiny_model(use_ema=True)
    lr = (lr_batch() - 127.5) / 127.5
    for parameter in model.generator_ema.decoder.parameters():
        parameter.data.zero_()
    assert not torch.equal(model(lr), model.forward_train(lr))


@pytest.mark.parametrize('type', ['GLEANNet', 'GLEANStyleGANv2'])
def test_the_averaged_generator_begins_with_the_prior(prior_file, type):
    generator = dict(upstream_generator(), type=type, init_cfg=init_cfg(prior_file))
    model = tiny_model('PDGLEAN', generator, use_ema=True)
    model.init_weights()
    averaged = model.generator_ema.state_dict()
    assert all(torch.equal(averaged[key], value)
               for key, value in model.generator.state_dict().items())
    wanted = torch.load(prior_file)['state_dict']
    assert all(torch.equal(averaged[key.replace('generator_ema', 'generator')], value)
               for key, value in wanted.items())


@pytest.mark.parametrize('load', [load_state_dict, torch.nn.Module.load_state_dict],
                         ids=['mmengine', 'torch'])
def test_a_plain_checkpoint_fills_the_averaged_generator_too(load):
    plain, model = tiny_model(), tiny_model(use_ema=True)
    for parameter in plain.parameters():
        parameter.data.add_(0.01)
    load(model, plain.state_dict())
    lr = (lr_batch() - 127.5) / 127.5
    assert torch.equal(model.eval()(lr), plain.eval()(lr))
    state = model.state_dict()
    for key, value in state.items():
        if key.startswith('generator_ema.'):
            value.add_(1)
    other = tiny_model(use_ema=True)
    load(other, state)  # one that has its own is not overwritten
    assert torch.equal(other.eval()(lr), model.eval()(lr))
    assert not torch.equal(other.eval()(lr), plain.eval()(lr))


def test_a_plain_checkpoint_fills_it_inside_another_module():
    """Averages of a whole model hold it under a name; the keys begin with that."""
    plain, model = tiny_model(), tiny_model(use_ema=True)
    for parameter in plain.parameters():
        parameter.data.add_(0.01)
    outer = torch.nn.ModuleDict(dict(inner=model))
    outer.load_state_dict({f'inner.{key}': value for key, value in plain.state_dict().items()})
    lr = (lr_batch() - 127.5) / 127.5
    assert torch.equal(model.eval()(lr), plain.eval()(lr))


def test_averaging_by_mmagics_hook_and_publishing(tmp_path):
    """What a user configures: the hook averages, the published average tests the same."""
    from mmagic.engine.hooks import ExponentialMovingAverageHook

    class Runner:
        def __init__(self, model):
            self.model, self.iter = model, 0

    model = tiny_model(use_ema=True, **gan_parts())
    hook = ExponentialMovingAverageHook(
        module_keys='generator_ema', interval=1, interp_cfg=dict(momentum=0.5))
    runner = Runner(model)
    hook.before_run(runner)
    start = next(model.generator_ema.decoder.parameters()).clone()
    train_steps(model, 1)
    hook.after_train_iter(runner, 0)
    trained, averaged = (next(network.decoder.parameters())
                         for network in (model.generator, model.generator_ema))
    assert not torch.equal(trained, start)
    torch.testing.assert_close(averaged, (trained + start) / 2)

    tool = ROOT / 'tools' / 'model_converters' / 'publish_model.py'
    publish = runpy.run_path(str(tool))['main']
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'iter_1.pth')
    assert publish([str(tmp_path / 'iter_1.pth'), str(tmp_path / 'zoo' / 'x'), '--ema']) == 0
    published, = (tmp_path / 'zoo').iterdir()
    lr = (lr_batch() - 127.5) / 127.5
    for options in (dict(use_ema=True), dict()):
        other = tiny_model(**options, **gan_parts())
        load_checkpoint(other, str(published))
        assert torch.equal(other.eval()(lr), model.eval()(lr))


@pytest.mark.parametrize('how, frozen, warned', [
    ('random', True, True), ('random', False, False), ('pretrained', True, False),
    ('loaded', True, False)])
def test_a_frozen_random_prior_is_said_once(tmp_path, monkeypatch, how, frozen, warned):
    said = []
    monkeypatch.setattr('mmpd.models.editors.gan_prior_sr.print_log',
                        lambda text, **_: said.append(text))
    generator = dict(TINY, freeze_prior=frozen)
    if how == 'pretrained':
        torch.save(tiny_model().generator.generator.state_dict(), tmp_path / 'prior.pth')
        generator['init_cfg'] = dict(type='Pretrained', checkpoint=str(tmp_path / 'prior.pth'))
    model = tiny_model(generator=generator, **gan_parts())
    model.init_weights()
    if how == 'loaded':
        load_state_dict(model, tiny_model().state_dict())
    train_steps(model, 2)
    assert len(said) == warned
    assert not warned or 'frozen and random' in said[0]
