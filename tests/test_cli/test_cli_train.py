"""mmpd-train: mixed precision, learning rates, which checkpoint is resumed."""
import pytest
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from refusals import refused

from mmpd.cli import settings, weights
from mmpd.cli import train as train_tool
from mmpd.errors import InputError


def test_amp_goes_to_every_optimiser():
    optimizer = dict(type='Adam', lr=1e-3)
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper', optimizer=optimizer)))
    train_tool.enable_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper' and cfg.optim_wrapper.loss_scale == 'dynamic'
    cfg = Config(dict(optim_wrapper=dict(
        constructor='MultiOptimWrapperConstructor', generator=dict(optimizer=optimizer),
        discriminator=dict(type='AmpOptimWrapper', loss_scale=512., optimizer=optimizer))))
    train_tool.enable_amp(cfg)
    assert {cfg.optim_wrapper[part].type for part in ('generator', 'discriminator')} == {
        'AmpOptimWrapper'}
    assert cfg.optim_wrapper.generator.loss_scale == 'dynamic'
    assert cfg.optim_wrapper.discriminator.loss_scale == 512
    assert cfg.optim_wrapper.constructor == 'MultiOptimWrapperConstructor'
    for kind in ('mmengine.OptimWrapper', OptimWrapper):  # with its scope, as a class
        cfg = Config(dict(optim_wrapper=dict(type=kind, optimizer=optimizer)))
        train_tool.enable_amp(cfg)
        assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    cfg = Config(dict(optim_wrapper=dict(type='ApexOptimWrapper', optimizer=optimizer)))
    refused(train_tool.enable_amp, cfg, match='--amp works with OptimWrapper only, .* ApexOptim')


def test_the_learning_rate_follows_the_batch_size_where_there_is_one():
    cfg = Config(dict(auto_scale_lr=dict(base_batch_size=8)))
    train_tool.enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr == dict(base_batch_size=8, enable=True)
    for wrong in ({}, dict(auto_scale_lr=None), dict(auto_scale_lr=dict(enable=True))):
        refused(train_tool.enable_auto_scale_lr, Config(wrong), match='--auto-scale-lr needs')


def test_where_there_is_nothing_to_resume_the_run_starts_anew(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path)))
    assert train_tool.resume(cfg, 'auto') == (None, None)
    assert 'resume' not in cfg and 'load_from' not in cfg


def test_where_no_checkpoint_is_sound_the_newest_is_named(tmp_path):
    for index in (1, 2):
        (tmp_path / f'iter_{index}.pth').write_bytes(b'damaged')
    (tmp_path / 'last_checkpoint').write_text('iter_2.pth')
    refused(train_tool.resume, Config(dict(work_dir=str(tmp_path))), 'auto', match='iter_2.pth')


@pytest.mark.parametrize('steps, kept', [((2, 1), ['2']), ((1,), ['1'])])
def test_the_first_sound_checkpoint_is_resumed(tmp_path, monkeypatch, steps, kept):
    def check(path, option, resume):
        assert resume and option.startswith('last of')
        if path == '3':
            raise InputError('3 is cut')
        return {'weight': path}
    monkeypatch.setattr(train_tool, 'resumable', lambda folder: map(str, (3, *steps)))
    monkeypatch.setattr(weights, 'check_checkpoint', check)
    cfg = Config(dict(work_dir=str(tmp_path)))
    state, said = train_tool.resume(cfg, 'auto')
    assert state == {'weight': kept[0]} and cfg.load_from == kept[0] and cfg.resume is True
    assert said == f'3 is cut. The run goes on from {kept[0]} instead.'


def test_a_checkpoint_that_was_named_is_resumed_or_refused(monkeypatch):
    asked = []
    monkeypatch.setattr(weights, 'check_checkpoint',
                        lambda *args, **kwargs: asked.append((args, kwargs)) or 'state')
    cfg = Config(dict(load_from='other.pth'))
    assert train_tool.resume(cfg, 'x.pth') == ('state', None)
    assert (cfg.resume, cfg.load_from) == (True, 'x.pth')
    assert asked == [(('x.pth', '--resume'), dict(resume=True))]


def test_learning_rates_are_scaled_where_it_is_asked_for(tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def check(*args):
        raise Stop
    (tmp_path / 'a.py').write_text(
        "model = dict(type='A')\ntrain_dataloader = dict()\ntrain_cfg = dict()\n"
        "optim_wrapper = dict(optimizer=dict())\nauto_scale_lr = dict(base_batch_size=4)\n")
    seen = []
    load = settings.load_config
    monkeypatch.setattr(settings, 'load_config', lambda args: seen.append(load(args)) or seen[-1])
    monkeypatch.setattr(settings, 'prepare_distributed', check)
    for argv in ([], ['--auto-scale-lr']):
        with pytest.raises(Stop):
            train_tool.train([str(tmp_path / 'a.py'), '--work-dir', str(tmp_path / 'w'), *argv])
        assert ('enable' in seen[-1].auto_scale_lr) == bool(argv)
