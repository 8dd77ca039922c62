"""Checkpoints of separately wrapped models, with and without the cure (one gloo process)."""
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from mmagic.models.editors.srgan import SRGAN
from mmagic.registry import HOOKS
from mmengine.model import MMSeparateDistributedDataParallel
from mmengine.runner import Runner
from torch import nn

from mmpd.engine.hooks import CleanCheckpointHook
from mmpd.models.editors import PDGLEAN
from mmpd.utils.model import unwrap

GLEAN = dict(type='GLEANNet', in_size=8, out_size=32, style_channels=8, num_mlps=1,
             rrdb_channels=4, num_rrdbs=1, channels={4: 8, 8: 8, 16: 8, 32: 8},
             freeze_prior=False)
SRRESNET = dict(type='MSRResNet', in_channels=3, out_channels=3, mid_channels=4, num_blocks=1,
                upscale_factor=4)


@pytest.fixture
def process_group(tmp_path):
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def build(kind, seed):
    torch.manual_seed(seed)
    return dict(PDGLEAN=PDGLEAN, SRGAN=SRGAN)[kind](
        generator=GLEAN if kind == 'PDGLEAN' else SRRESNET,
        discriminator=dict(type='UNetDiscriminatorWithSpectralNorm', in_channels=3, mid_channels=2),
        pixel_loss=dict(type='L1Loss'), gan_loss=dict(type='GANLoss', gan_type='vanilla'),
        train_cfg=dict(), test_cfg=dict(), data_preprocessor=dict(type='DataPreprocessor'))


def runner_of(model, folder, *hooks):
    """A Runner of mmengine for saving and loading alone."""
    return Runner(model=model, work_dir=str(folder), default_scope='mmagic',
                  experiment_name=f'{folder.name}-{id(model)}', default_hooks=dict(timer=None),
                  custom_hooks=list(hooks), log_level='ERROR')


def wrapped_weights(folder, kind, *hooks):
    """Save from a wrapped model as mmengine does; return the file and what is in it."""
    model = MMSeparateDistributedDataParallel(build(kind, seed=1))
    runner = runner_of(model, folder, *hooks)
    checkpoint = dict(state_dict=runner.model.module.state_dict())
    runner.call_hook('before_save_checkpoint', checkpoint=checkpoint)
    torch.save(checkpoint, folder / 'ddp.pth')
    return str(folder / 'ddp.pth'), checkpoint['state_dict']


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_fault_wrapped_checkpoints_load_nothing(tmp_path, process_group):
    path, state = wrapped_weights(tmp_path, 'SRGAN')
    assert any(key.startswith('generator.module.') for key in state)
    for wrap in (False, True):
        model = build('SRGAN', seed=2)
        target = MMSeparateDistributedDataParallel(model) if wrap else model
        runner_of(target, tmp_path).load_checkpoint(path)  # no error
        assert same(model, build('SRGAN', seed=2))


@pytest.mark.parametrize('wrap', [False, True], ids=['one process', 'DDP'])
@pytest.mark.parametrize('kind, saving, loading', [
    ('SRGAN', True, False), ('SRGAN', False, True), ('SRGAN', True, True),
    ('PDGLEAN', False, False), ('PDGLEAN', True, True)])
def test_the_cure(tmp_path, process_group, kind, saving, loading, wrap):
    """The hook at either end, or a model type of mmpd without it, loads everything."""
    hook = dict(type='CleanCheckpointHook')
    path, state = wrapped_weights(tmp_path, kind, *[hook] * saving)
    assert saving is False or not any('module.' in key for key in state)
    model = build(kind, seed=2)
    target = MMSeparateDistributedDataParallel(model) if wrap else model
    runner_of(target, tmp_path, *[hook] * loading).load_checkpoint(path)
    expected = build(kind, seed=1)
    assert same(model.generator, expected.generator)
    assert same(model.discriminator, expected.discriminator)


def test_old_wrapped_checkpoints_load_into_mmpds_models(tmp_path, process_group):
    """A checkpoint that MMagic's GLEAN wrote under DDP, before mmpd was there."""
    source = build('PDGLEAN', seed=1)
    dirty = {key.replace('generator.', 'generator.module.', 1)
             if key.startswith('generator.') else key: value
             for key, value in source.state_dict().items()}
    torch.save(dict(state_dict=dirty), tmp_path / 'old.pth')
    model = build('PDGLEAN', seed=2)
    runner_of(model, tmp_path).load_checkpoint(str(tmp_path / 'old.pth'), strict=True)
    assert same(model, source)


@pytest.mark.parametrize('kind', ['SRGAN', 'PDGLEAN'])
@pytest.mark.parametrize('wrapped, wrap', [(True, False), (True, True), (False, False)],
                         ids=['DDP to one process', 'DDP', 'one process'])
def test_averaged_weights_resume(tmp_path, process_group, kind, wrapped, wrap):
    """mmengine's EMAHook: both sets of weights come back, however source and target are wrapped."""
    hooks = dict(type='EMAHook'), dict(type='CleanCheckpointHook')
    source = build(kind, seed=1)
    runner = runner_of(MMSeparateDistributedDataParallel(source) if wrapped else source, tmp_path,
                       *hooks)
    averaged_hook(runner).before_run(runner)
    with torch.no_grad():
        for parameter in averaged_hook(runner).ema_model.parameters():
            parameter.add_(0.5)
    checkpoint = dict(state_dict=unwrap(runner.model).state_dict())
    runner.call_hook('before_save_checkpoint', checkpoint=checkpoint)
    assert set(checkpoint['ema_state_dict']) == {'steps'} | {
        f'module.{key}' for key in checkpoint['state_dict']}
    torch.save(checkpoint, tmp_path / 'ema.pth')

    model = build(kind, seed=2)
    again = runner_of(MMSeparateDistributedDataParallel(model) if wrap else model, tmp_path, *hooks)
    averaged_hook(again).before_run(again)
    again.load_checkpoint(str(tmp_path / 'ema.pth'))  # a new training begins at the average
    assert same(averaged_hook(again).ema_model, averaged_hook(runner).ema_model)
    again._resume = True
    again.load_checkpoint(str(tmp_path / 'ema.pth'))
    assert same(model, build(kind, seed=1))
    assert same(averaged_hook(again).ema_model, averaged_hook(runner).ema_model)


def test_averages_of_mmpds_models_resume_without_the_hook(tmp_path):
    """mmengine's EMAHook alone restored 12 of 162 averaged tensors of a PDGLEAN."""
    runner = runner_of(build('PDGLEAN', seed=1), tmp_path, dict(type='EMAHook', strict_load=True))
    averaged_hook(runner).before_run(runner)
    with torch.no_grad():
        for parameter in averaged_hook(runner).ema_model.parameters():
            parameter.add_(0.5)
    checkpoint = dict(state_dict=runner.model.state_dict())
    runner.call_hook('before_save_checkpoint', checkpoint=checkpoint)
    torch.save(checkpoint, tmp_path / 'ema.pth')
    again = runner_of(build('PDGLEAN', seed=2), tmp_path, dict(type='EMAHook', strict_load=True))
    averaged_hook(again).before_run(again)
    again._resume = True
    again.load_checkpoint(str(tmp_path / 'ema.pth'))
    assert same(averaged_hook(again).ema_model, averaged_hook(runner).ema_model)


def test_an_averaged_model_reloads_itself():
    from torch.optim.swa_utils import AveragedModel
    averaged, other = (AveragedModel(build('PDGLEAN', seed)) for seed in (1, 2))
    assert all(key.startswith('module.') or key == 'n_averaged' for key in averaged.state_dict())
    other.load_state_dict(averaged.state_dict(), strict=True)
    assert same(averaged, other)


class Restorer(nn.Module):
    """A generator whose child is *named* ``module``, which no wrapper put there."""

    def __init__(self):
        super().__init__()
        self.module = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.module(x).repeat(1, 1, 4, 4)


@pytest.mark.parametrize('wrapped', [False, True], ids=['one process', 'DDP'])
@pytest.mark.parametrize('hooks', [[], [dict(type='CleanCheckpointHook')]], ids=['plain', 'hook'])
def test_a_child_named_module_keeps_its_name(tmp_path, process_group, wrapped, hooks):
    def built(seed):
        torch.manual_seed(seed)
        model = build('PDGLEAN', seed)
        model.generator = Restorer()
        return model

    source = built(1)
    runner = runner_of(MMSeparateDistributedDataParallel(source) if wrapped else source, tmp_path,
                       *hooks)
    checkpoint = dict(state_dict=unwrap(runner.model).state_dict())
    runner.call_hook('before_save_checkpoint', checkpoint=checkpoint)
    assert {'generator.module.weight', 'generator.module.bias'} <= set(checkpoint['state_dict'])
    torch.save(checkpoint, tmp_path / 'a.pth')
    model = built(2)
    runner_of(model, tmp_path, *hooks).load_checkpoint(str(tmp_path / 'a.pth'), strict=True)
    assert same(model.generator, built(1).generator)


def averaged_hook(runner):
    return next(hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook')


def test_hook_is_registered_and_leaves_clean_files_alone():
    assert HOOKS.get('CleanCheckpointHook') is CleanCheckpointHook
    hook, state = CleanCheckpointHook(), {'generator.w': torch.ones(1)}
    checkpoint = dict(state_dict=state)
    runner = SimpleNamespace(model=nn.ModuleDict(dict(generator=nn.Conv2d(1, 1, 1))), hooks=[])
    hook.before_save_checkpoint(runner, checkpoint)
    hook.after_load_checkpoint(runner, checkpoint)
    assert checkpoint['state_dict'] is state
    hook.after_load_checkpoint(runner, weights := {'w': 1})  # weights without a 'state_dict'
    assert weights == {'w': 1}
