"""A training through tools/train.py that meets damaged checkpoints, full disks and NaN."""
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_gt
from mmagic.registry import TRANSFORMS
from mmcv.transforms import BaseTransform
from mmengine.config import Config

from mmpd.cli import run_tool
from mmpd.cli.train import resume
from mmpd.cli.train import train as run_train
from mmpd.errors import InputError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
GENERATOR = """
    style_channels=8, num_mlps=1, rrdb_channels=4, num_rrdbs=1,
    channels={4: 8, 8: 8, 16: 8, 32: 8, 64: 8}"""
TINY = """
_base_ = {base!r}
model = dict(generator=dict({generator}), discriminator=dict(mid_channels=2))
train_dataloader = dict(batch_size=2, dataset=dict(data_root={data!r}))
default_hooks = dict(checkpoint=dict(interval=2, max_keep_ckpts=3, save_best=None))
train_cfg = dict(max_iters=4, val_interval=100)
val_cfg = val_dataloader = val_evaluator = None
"""


@TRANSFORMS.register_module(force=True)
class SpoilOne(BaseTransform):
    """The fourth GT that is loaded becomes NaN; the order of a folder is the file system's."""

    seen = []

    def transform(self, results):
        self.seen.append(results['gt_path'])
        if len(self.seen) == 4:
            results['gt'] = results['gt'] * np.float32('nan')
        return results


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    write_gt(folder, 6)
    return folder


def config_of(data, folder, method='pd_glean', more=''):
    base, = (CONFIGS / method).glob('*_demo.py')
    path = folder / f'{method}.py'
    path.write_text(TINY.format(base=str(base), data=str(data), generator=GENERATOR) + more)
    return path


def train(config, work_dir, *options, resume=False, tool=run_train):
    arguments = [str(config), '--work-dir', str(work_dir), *['--resume'] * resume]
    options = [*options, f'experiment_name={work_dir.name}-{len(os.listdir(work_dir.parent))}-'
               f'{len(list(work_dir.glob("*")))}']
    return tool([*arguments, '--cfg-options', *options])


def refused(config, work_dir, *options, capsys, resume=False):
    with pytest.raises(SystemExit) as stop:
        train(config, work_dir, *options, resume=resume,
              tool=lambda argv: run_tool(run_train, argv))
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def state(work_dir, iteration=4):
    return torch.load(work_dir / f'iter_{iteration}.pth')['state_dict']


def same(one, other):
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope='module')
def whole(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    config = config_of(data, folder)
    train(config, folder / 'run')
    return config, folder / 'run'


def damage(path, how):
    content = path.read_bytes()
    if how == 'deleted':
        path.unlink()
    elif how == 'truncated':
        path.write_bytes(content[:len(content) // 2])
    elif how == 'empty':
        path.write_bytes(b'')
    else:  # one bit of a weight, of which torch says nothing
        at = len(content) // 2
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1:])


def test_resuming_falls_back_and_ends_as_if_nothing_had_happened(whole, tmp_path):
    config, run = whole
    copy = tmp_path / 'copy'
    shutil.copytree(run, copy)
    damage(copy / 'iter_4.pth', 'truncated')
    train(config, copy, resume=True)
    log = ''.join(path.read_text() for path in sorted(copy.glob('*/*.log')))
    assert f'Load checkpoint from {copy}/iter_2.pth' in log
    assert re.search(f'{copy}/iter_4.pth.* cannot be read: it is truncated or damaged.*The run '
                     f'goes on from {copy}/iter_2.pth instead', log)
    assert same(state(copy), state(run))
    assert (copy / 'last_checkpoint').read_text() == 'iter_4.pth'


@pytest.mark.parametrize('how', ['deleted', 'truncated', 'empty', 'one bit'])
@pytest.mark.parametrize('note', ['iter_4.pth', '{run}/iter_4.pth', None])
def test_the_newest_sound_checkpoint_is_taken(whole, tmp_path, how, note):
    _, run = whole
    copy = tmp_path / 'copy'
    shutil.copytree(run, copy)
    damage(copy / 'iter_4.pth', how)
    (copy / 'last_checkpoint').unlink()
    if note:
        (copy / 'last_checkpoint').write_text(note.format(run=copy))
    cfg = Config(dict(work_dir=str(copy)))
    found, said = resume(cfg, 'auto')
    assert list(found) == list(state(run, 2))
    assert cfg.resume and cfg.load_from == f'{copy}/iter_2.pth'
    if note or how != 'deleted':
        assert f'{copy}/iter_4.pth' in said and f'goes on from {copy}/iter_2.pth' in said
    damage(copy / 'iter_2.pth', 'truncated')
    with pytest.raises(InputError, match='iter_4.pth' if note or how != 'deleted' else 'iter_2'):
        resume(cfg, 'auto')
    with pytest.raises(InputError, match='iter_2.pth cannot be read'):
        resume(cfg, str(copy / 'iter_2.pth'))  # one asked for by name is that or none


def test_a_copied_folder_goes_on_with_its_own_file(whole, tmp_path):
    """Though its note names the original, as those of mmengine do."""
    config, run = whole
    copy = tmp_path / 'copy'
    shutil.copytree(run, copy)
    (copy / 'last_checkpoint').write_text(str(run / 'iter_4.pth'))
    before = {path.name: path.stat().st_mtime_ns for path in run.glob('*.pth')}
    train(config, copy, 'train_cfg.max_iters=5', resume=True)
    assert f'Load checkpoint from {copy}/iter_4.pth' in ''.join(
        path.read_text() for path in copy.glob('*/*.log'))
    assert before == {path.name: path.stat().st_mtime_ns for path in run.glob('*.pth')}


def test_a_limit_of_files_ends_the_training_in_one_line(data, tmp_path, capsys):
    resource = pytest.importorskip('resource')
    config = config_of(data, tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        said = refused(config, tmp_path / 'run', capsys=capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f'{tmp_path}/run/iter_2.pth: cannot be written: File too large; ' in said
    assert 'bytes needed, the limit of this process is 100,000' in said
    assert not [name for name in os.listdir(tmp_path / 'run') if 'iter_' in name]


SPOILED = """
train_pipeline = [
    dict(type='LoadImageFromFile', key='gt', color_type='color', channel_order='rgb'),
    dict(type='LRSynthesis', scale=8, kernel='bicubic', antialias=True),
    dict(type='SpoilOne'), dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=2, sampler=dict(shuffle=False),
    dataset=dict(data_root={data!r}, pipeline=train_pipeline))
"""
PLAIN = """
model = dict(
    _delete_=True, type='SRGAN', pixel_loss=dict(type='MSELoss'), train_cfg=dict(),
    test_cfg=dict(), generator=dict(
        type='GLEANNet', in_size=8, out_size=64, freeze_prior=False, {generator}),
    data_preprocessor=dict(type='DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3))
optim_wrapper = dict(_delete_=True, constructor='MultiOptimWrapperConstructor', generator=dict(
    type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3)))
default_hooks = dict(
    _delete_=True, checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=False))
"""


@pytest.mark.parametrize('method, more, loss', [
    ('pd_glean', '', 'loss_pix is nan, loss_d_real is nan'), ('pdn', '', 'loss_d_real is nan'),
    ('pd_panini', '', 'loss_pix is nan, loss_d_real is nan'),
    ('glean', PLAIN.format(generator=GENERATOR), 'loss_pix is nan')],
    ids=['PDGLEAN', 'PDN', 'PDPanini', "MMagic's type"])
def test_nan_ends_the_training_before_it_is_saved(data, tmp_path, capsys, method, more, loss):
    """The fourth picture is in the second batch."""
    SpoilOne.seen.clear()
    config = config_of(data, tmp_path, method, SPOILED.format(data=str(data)) + more)
    said = refused(config, tmp_path / 'run', 'default_hooks.checkpoint.interval=1',
                   capsys=capsys)
    assert f'iteration 2: {loss}' in said
    named = said.split('the batch: ')[1].split('. The training')[0].split(', ')
    assert len(named) == 2 and SpoilOne.seen[3] in named
    assert f'the last good checkpoint is {tmp_path}/run/iter_1.pth' in said
    assert [path.name for path in (tmp_path / 'run').glob('*.pth')] == ['iter_1.pth']
    assert all(torch.isfinite(value).all() for value in state(tmp_path / 'run', 1).values())


def test_skipping_goes_on_with_finite_weights(data, tmp_path):
    SpoilOne.seen.clear()
    config = config_of(data, tmp_path, 'pdn', SPOILED.format(data=str(data)))
    train(config, tmp_path / 'run', 'default_hooks.nan.on_nan=skip',
          'default_hooks.checkpoint.interval=1', 'train_cfg.max_iters=3')
    first, spoiled, third = (state(tmp_path / 'run', number) for number in (1, 2, 3))
    discriminator = [key for key in first if key.startswith('discriminator.')]
    assert all(torch.equal(first[key], spoiled[key]) for key in discriminator
               if not key.endswith(('_u', '_v')))  # spectral normalisation's power iteration
    assert not all(torch.equal(first[key], third[key]) for key in discriminator)
    assert all(torch.isfinite(value).all() for value in third.values())


EVERYTHING = """
custom_hooks = [
    dict(type='CleanCheckpointHook'),
    dict(type='ExponentialMovingAverageHook', module_keys='generator_ema', interval=1,
         interp_cfg=dict(momentum=0.1))]
train_dataloader = dict(
    num_workers=3, persistent_workers=True, batch_size=2, dataset=dict(data_root={data!r}))
randomness = dict(seed=7)
"""


@pytest.mark.slow
def test_two_runs_and_a_resumed_one_are_the_same_to_the_last_bit(data, tmp_path):
    """Random flips in three workers, an averaged generator, random latents, bfloat16."""
    config = config_of(data, tmp_path, 'pdn', EVERYTHING.format(data=str(data)))
    for name in ('one', 'other'):
        run_train([str(config), '--work-dir', str(tmp_path / name), '--amp', '--cfg-options',
                   f'experiment_name=same-{name}', 'model.use_ema=True'])
    assert same(state(tmp_path / 'one'), state(tmp_path / 'other'))
    (tmp_path / 'other/iter_4.pth').unlink()
    run_train([str(config), '--work-dir', str(tmp_path / 'other'), '--amp', '--resume',
               '--cfg-options', 'experiment_name=same-resumed', 'model.use_ema=True'])
    one, other = state(tmp_path / 'one'), state(tmp_path / 'other')
    assert same(one, other)
    averaged = [key for key in one if key.startswith('generator_ema.')]
    assert not all(torch.equal(one[key], one[key.replace('_ema', '')]) for key in averaged)


def test_bfloat16_is_really_used(data, tmp_path):
    config = config_of(data, tmp_path)
    for name, option in (('full', []), ('half', ['--amp'])):
        run_train([str(config), '--work-dir', str(tmp_path / name), *option, '--cfg-options',
                   f'experiment_name=half-{name}', 'train_cfg.max_iters=1'])
    full, half = state(tmp_path / 'full', 1), state(tmp_path / 'half', 1)
    assert not same(full, half) and all(value.dtype == torch.float32 for value in half.values())
