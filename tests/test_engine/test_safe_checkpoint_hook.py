"""CheckpointHook in MMagic's scope: full disks, copied folders, NaN, what is kept."""
import errno
import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_model
from mmagic.registry import HOOKS, MODELS
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.runner import Runner
from torch import nn

from mmpd.engine.hooks import NaNHook, SafeCheckpointHook
from mmpd.engine.hooks import safe_checkpoint_hook as room
from mmpd.engine.hooks.nan_hook import describe
from mmpd.errors import ArgumentError, DiskFull, TrainingDiverged
from mmpd.utils import files


@MODELS.register_module(force=True)
class Line(BaseModel):
    """y = w x + b, fitted to x; ``bad`` iterations have something that is not finite."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(1, 1)
        self.register_buffer('mean', torch.zeros(1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = torch.stack(inputs)
        self.mean.lerp_(x.mean(), 0.1)
        if mode == 'predict':
            return []
        return dict(loss_fit=(self.layer(x) - x).square().mean())


class Numbers(torch.utils.data.Dataset):
    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return dict(inputs=torch.tensor([self.values[index]]),
                    data_samples=SimpleNamespace(
                        gt_path=f'{index}.png', get=lambda key: f'{index}.png',
                        all_keys=lambda: ['gt_path']))


def runner_of(folder, values=(1., 2., 3., 4.), iters=6, hooks=(), nan=None, seed=0, **checkpoint):
    loader = dict(
        batch_size=1, num_workers=0, dataset=Numbers(values),
        sampler=dict(type='InfiniteSampler', shuffle=False),
        collate_fn=dict(type='pseudo_collate'))
    return Runner(
        model=dict(type='Line'), work_dir=str(folder), train_dataloader=loader,
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iters),
        optim_wrapper=dict(type='OptimWrapper',
                           optimizer=dict(type='SGD', lr=0.02, momentum=0.9)),
        default_scope='mmagic', log_level='WARNING', randomness=dict(seed=seed),
        experiment_name=f'{folder.name}-{id(checkpoint)}',
        default_hooks=dict(
            checkpoint={'type': 'CheckpointHook', 'interval': 1, 'by_epoch': False, **checkpoint},
            **{'nan': nan} if nan else {}, timer=None, logger=None),
        custom_hooks=list(hooks))


def checkpoints(folder):
    return sorted(name for name in os.listdir(folder) if 'iter_' in name)


class FullAfter:
    """Stands for os.fsync of a disk that takes ``writes`` checkpoints, then fails ``times``."""

    def __init__(self, monkeypatch, writes, times=99, number=errno.ENOSPC):
        self.left, self.times, self.number = writes, times, number
        self.fsync = os.fsync
        monkeypatch.setattr(files.os, 'fsync', self)

    def __call__(self, handle):
        if os.fstat(handle).st_size < 100:  # the note
            return self.fsync(handle)
        self.left -= 1
        if -self.times <= self.left < 0:
            raise OSError(self.number, os.strerror(self.number))
        return self.fsync(handle)


def test_mmagics_scope_means_this_hook(tmp_path):
    assert HOOKS.get('CheckpointHook') is SafeCheckpointHook
    assert ROOT_HOOKS.get('CheckpointHook') is not SafeCheckpointHook
    hook = next(hook for hook in runner_of(tmp_path).hooks if isinstance(hook, SafeCheckpointHook))
    assert hook.on_full_disk == 'stop'
    with pytest.raises(ValueError, match="on_full_disk: expected .*got 'wait'"):
        SafeCheckpointHook(on_full_disk='wait')


@pytest.mark.parametrize('keep', [1, 2])
def test_a_full_disk_stops_the_training_and_leaves_what_was_there(tmp_path, monkeypatch, keep):
    FullAfter(monkeypatch, writes=3)
    with pytest.raises(DiskFull, match=(
            r'iter_4\.pth: cannot be written: No space left on device; [\d,]+ bytes needed, '
            r'[\d,]+ free$')):
        runner_of(tmp_path, max_keep_ckpts=keep).train()
    assert checkpoints(tmp_path) == ['iter_2.pth', 'iter_3.pth'][-keep:]
    assert (tmp_path / 'last_checkpoint').read_text() == 'iter_3.pth'
    for name in checkpoints(tmp_path):
        assert torch.load(tmp_path / name)['meta']['iter'] == int(name[5])
    assert not [name for name in os.listdir(tmp_path) if name.startswith('.')]


def test_mmengines_hook_deletes_the_only_checkpoint_first(tmp_path, monkeypatch):
    """The fault."""
    FullAfter(monkeypatch, writes=3)
    with pytest.raises(OSError):
        runner_of(tmp_path, type='mmengine.CheckpointHook', max_keep_ckpts=1).train()
    assert checkpoints(tmp_path) == []


def test_retry_goes_on_and_saves_at_the_next_interval(tmp_path, monkeypatch):
    FullAfter(monkeypatch, writes=2, times=2, number=errno.EDQUOT)
    runner_of(tmp_path, max_keep_ckpts=2, on_full_disk='retry').train()
    assert checkpoints(tmp_path) == ['iter_5.pth', 'iter_6.pth']
    log = ''.join(path.read_text() for path in tmp_path.glob('*/*.log'))
    assert 'iter_3.pth: cannot be written' in log and 'iter_4.pth: cannot be written' in log
    assert torch.load(tmp_path / 'iter_6.pth')['message_hub']['runtime_info'][
        'keep_ckpt_ids'] == [5, 6]


def test_a_checkpoint_that_was_not_written_takes_no_place(tmp_path, monkeypatch):
    FullAfter(monkeypatch, writes=1, times=1)
    runner = runner_of(tmp_path, iters=3, max_keep_ckpts=3, on_full_disk='retry')
    runner.train()
    assert checkpoints(tmp_path) == ['iter_1.pth', 'iter_3.pth']
    assert runner.message_hub.runtime_info['keep_ckpt_ids'] == [1, 3]


def test_retry_does_not_end_without_the_last_checkpoint(tmp_path, monkeypatch):
    FullAfter(monkeypatch, writes=4)
    runner = runner_of(tmp_path, max_keep_ckpts=2, on_full_disk='retry')
    with pytest.raises(DiskFull, match='iter_6.pth'):
        runner.train()
    assert checkpoints(tmp_path) == ['iter_3.pth', 'iter_4.pth']
    info = runner.message_hub.runtime_info  # what the next checkpoint would say
    assert info['keep_ckpt_ids'] == [3, 4] and info['last_ckpt'] == str(tmp_path / 'iter_4.pth')


@pytest.mark.parametrize('by_epoch, steps', [(True, (2, 3)), (False, (8, 9))])
def test_the_last_checkpoint_is_that_of_the_last_epoch_or_iteration(by_epoch, steps):
    told = []
    runner = SimpleNamespace(max_epochs=3, max_iters=9, logger=SimpleNamespace(error=told.append))
    hook = SafeCheckpointHook(by_epoch=by_epoch, on_full_disk='retry')
    hook._do_without(runner, OSError(errno.ENOSPC, 'No space left on device', 'a.pth'), steps[0])
    assert len(told) == 1 and told[0].startswith('a.pth: cannot be written: No space left')
    for error in (OSError(errno.ENOSPC, 'No space left', 'a.pth'), DiskFull('a.pth: full')):
        with pytest.raises(DiskFull, match='^a.pth: '):
            hook._do_without(runner, error, steps[1])


@pytest.mark.parametrize('kwargs, kept', [
    (dict(max_keep_ckpts=0), ['iter_1.pth', 'iter_2.pth', 'iter_3.pth']),
    (dict(max_keep_ckpts=1, filename_tmpl='iter_last.pth'), ['iter_last.pth'])])  # one name for all
def test_which_are_kept(tmp_path, kwargs, kept):
    runner_of(tmp_path, iters=3, **kwargs).train()
    assert checkpoints(tmp_path) == kept
    assert torch.load(tmp_path / kept[-1])['meta']['iter'] == 3


def test_other_errors_are_not_for_retrying(tmp_path, monkeypatch):
    FullAfter(monkeypatch, writes=2, times=1, number=errno.EIO)
    with pytest.raises(OSError, match='Input/output error'):
        runner_of(tmp_path, on_full_disk='retry').train()


def best_hook(runner, out):
    hook = next(hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook))
    runner.train_loop, runner.optim_wrapper  # noqa: B018  built
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    hook.before_train(runner)
    return hook


@pytest.mark.parametrize('keys', [['PSNR'], ['PSNR', 'MAE']], ids=len)
def test_the_best_checkpoint_goes_once_the_better_one_is_there(tmp_path, monkeypatch, keys):
    runner = runner_of(tmp_path, save_best=keys, rule=['greater', 'less'][:len(keys)],
                       on_full_disk='retry')
    hook, loop = best_hook(runner, tmp_path), runner.train_loop

    def best(iteration, psnr):
        loop._iter = iteration
        hook.after_val_epoch(runner, dict(PSNR=psnr, MAE=-psnr))
        return [name for name in checkpoints(tmp_path) if name.startswith('best_')]

    named = [[f'best_{key}_iter_{step}.pth' for key in sorted(keys)] for step in range(7)]
    assert best(1, 20.) == named[1] and best(2, 19.) == named[1] and best(3, 21.) == named[3]
    FullAfter(monkeypatch, writes=0, times=1)
    assert set(named[3]) & set(best(4, 22.))  # there is no room for a better one
    monkeypatch.undo()
    assert best(5, 20.) == named[3]  # the score to beat is that of what is there
    assert best(6, 22.) == named[6]
    assert runner.message_hub.get_info('best_score' if len(keys) == 1 else 'best_score_PSNR') == 22
    FullAfter(monkeypatch, writes=0, times=1)
    hook.on_full_disk = 'stop'
    with pytest.raises(DiskFull):
        best(7, 23.)


@pytest.mark.parametrize('keys', [['PSNR'], ['PSNR', 'MAE']], ids=len)
def test_a_copied_run_leaves_the_best_one_of_the_original(tmp_path, keys):
    """mmengine's path in the checkpoint is that of the original, whose file it would delete."""
    options = dict(save_best=keys, rule=['greater', 'less'][:len(keys)])
    runner = runner_of(tmp_path / 'run', **options)
    hook = best_hook(runner, tmp_path)
    runner.train_loop._iter = 1
    hook.after_val_epoch(runner, dict(PSNR=20., MAE=9.))
    hook._save_checkpoint_with_step(runner, 1, dict(epoch=0, iter=1))
    shutil.copytree(tmp_path / 'run', tmp_path / 'copy')
    runner = runner_of(tmp_path / 'copy', **options)
    runner.train_loop, runner.optim_wrapper  # noqa: B018
    runner.resume(str(tmp_path / 'copy' / 'iter_1.pth'))
    hook = best_hook(runner, tmp_path)
    runner.train_loop._iter = 2
    hook.after_val_epoch(runner, dict(PSNR=21., MAE=8.))
    first, second = ([f'best_{key}_iter_{step}.pth' for key in sorted(keys)] for step in (1, 2))
    assert checkpoints(tmp_path / 'run') == [*first, 'iter_1.pth']
    assert checkpoints(tmp_path / 'copy') == [*second, 'iter_1.pth']


def test_resuming_goes_on_with_the_step_counter(tmp_path):
    """It is not in the checkpoint, and the first steps of a discriminator would come again."""
    runner = runner_of(tmp_path, iters=1)
    model = runner.model = tiny_model(train_cfg=dict(disc_init_steps=3))
    hook = next(hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook))
    runner.train_loop  # noqa: B018  built
    hook.before_train(runner)
    assert model.step_counter == 0 and not model.if_run_g()
    runner.train_loop._iter = 7  # as after runner.resume
    hook.before_train(runner)
    assert model.step_counter == 7 and model.if_run_g()


@pytest.mark.parametrize('out', [None, 'there', 'not yet there'])
def test_leftovers_of_killed_runs_are_removed_at_the_start(tmp_path, out):
    folders = [tmp_path / 'run'] + ([tmp_path / out / 'run'] if out == 'there' else [])
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / '.iter_9.pth.abcdefgh.partial').write_text('x')
        (folder / '.mine.abcdefgh').write_text('x')
    runner, told = runner_of(folders[0], iters=1, out_dir=out and str(tmp_path / out)), []
    runner.logger.info = told.append
    runner.train()
    for folder in folders:
        assert [name for name in os.listdir(folder) if name[0] == '.'] == ['.mine.abcdefgh']
        assert (f'Removed from {folder}, left half-written by a killed run: '
                '.iter_9.pth.abcdefgh.partial') in told


def test_where_nothing_was_left_nothing_is_said(tmp_path):
    runner, told = runner_of(tmp_path, iters=1), []
    runner.logger.info = told.append
    runner.train()
    assert not [text for text in told if 'Removed' in text]


@pytest.mark.parametrize('bad', ['weight', 'mean'])
def test_weights_with_nan_are_never_written(tmp_path, bad):
    class Poison(Hook):
        priority = 'HIGH'

        def after_train_iter(self, runner, *args, **kwargs):
            if runner.iter == 3:
                tensor = runner.model.layer.weight if bad == 'weight' else runner.model.mean
                tensor.data.fill_(float('nan'))

    with pytest.raises(TrainingDiverged, match=(
            rf'the model: 1 of 1 values of ".*{bad}" are NaN: no checkpoint of it is written; the '
            rf'last good one is {tmp_path}/iter_3.pth')):
        runner_of(tmp_path, hooks=[Poison()], max_keep_ckpts=2).train()
    assert checkpoints(tmp_path) == ['iter_2.pth', 'iter_3.pth']


def test_infinite_buffers_are_masks_and_infinite_weights_are_not(tmp_path):
    runner = runner_of(tmp_path, iters=1)
    hook = SafeCheckpointHook()
    state = {'layer.weight': torch.ones(1), 'mean': torch.tensor([float('-inf')])}
    hook.before_save_checkpoint(runner, dict(state_dict=state))
    state = {'layer.weight': torch.tensor([float('inf')])}
    with pytest.raises(TrainingDiverged, match='"layer.weight" are infinite'):
        hook.before_save_checkpoint(runner, dict(state_dict=state))
    with pytest.raises(TrainingDiverged, match='the averaged model'):
        hook.before_save_checkpoint(runner, dict(ema_state_dict=dict(a=torch.tensor(torch.nan))))


def test_the_oldest_checkpoint_may_be_a_folder(tmp_path, monkeypatch):
    """deepspeed's are."""
    runner = runner_of(tmp_path)
    hook = next(hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook))
    hook.before_train(runner)
    for name in ('iter_1.pth', 'iter_2.pth'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'part').touch()
    (tmp_path / 'iter_3.pth').touch()
    monkeypatch.setattr(room, 'is_main_process', lambda: False)
    hook._remove(str(tmp_path / 'iter_1.pth'))  # of another process
    monkeypatch.undo()
    assert checkpoints(tmp_path) == ['iter_1.pth', 'iter_2.pth', 'iter_3.pth']
    for name in ('iter_1.pth', 'iter_3.pth', 'gone.pth'):
        hook._remove(str(tmp_path / name))
    assert checkpoints(tmp_path) == ['iter_2.pth']


def test_files_of_a_batch_in_words():
    def sample(**info):
        return SimpleNamespace(all_keys=info.keys, get=info.get)

    samples = [sample(gt_path='g.png', img_path='i.png'), sample(img_path='i.png', gt=1),
               sample(mask_path='m.png'), sample(gt=1)]
    assert describe(dict(data_samples=samples)) == 'g.png, i.png, m.png, no file'
    assert describe(dict(data_samples=samples[:1] * 8)) == ', '.join(['g.png'] * 8)
    assert describe(dict(data_samples=samples[:1] * 10)).endswith('g.png and 2 more')
    for nothing in (None, {}, dict(data_samples=[]), dict(data_samples=sample(gt_path='g.png'))):
        assert describe(nothing) == 'its samples name no files'


STOP = dict(type='NaNHook')
SKIP = dict(type='NaNHook', on_nan='skip', max_skips=2)
INF, NAN = float('inf'), float('nan')


@pytest.mark.parametrize('value, loss', [(NAN, 'nan'), (1e30, 'inf')])
def test_nan_stops_at_its_iteration_with_loss_and_file(tmp_path, value, loss):
    with pytest.raises(TrainingDiverged) as caught:
        runner_of(tmp_path, (1., 2., 3., value), nan=STOP, max_keep_ckpts=2).train()
    said = str(caught.value)
    assert said == (
        f'iteration 4: loss_fit is {loss}; the batch: 3.png. The training ends '
        f'here, with nothing written; the last good checkpoint is {tmp_path}/iter_3.pth')
    assert checkpoints(tmp_path) == ['iter_2.pth', 'iter_3.pth']
    assert said in ''.join(path.read_text() for path in tmp_path.glob('*/*.log'))


def test_skipping_a_batch_changes_nothing(tmp_path):
    """As if the bad image had not been there, momentum and statistics included."""
    runner = runner_of(tmp_path / 'bad', (1., NAN, 3., 1e30), iters=8, nan=SKIP)
    runner.train()
    good = runner_of(tmp_path / 'good', (1., 3.), iters=4)
    good.train()
    for key, value in good.model.state_dict().items():
        torch.testing.assert_close(runner.model.state_dict()[key], value)
    log = ''.join(path.read_text() for path in (tmp_path / 'bad').glob('*/*.log'))
    assert log.count('It is skipped') == 4 and 'the batch: 1.png. It is skipped' in log
    assert runner.message_hub.get_scalar('train/loss').mean() < 100
    assert not runner.optim_wrapper.optimizer._optimizer_step_pre_hooks


def test_skipping_has_a_limit(tmp_path):
    with pytest.raises(TrainingDiverged, match=r'iteration 4.*3\.png.*2 batches before it'):
        runner_of(tmp_path, (1., NAN, NAN, NAN), iters=8, nan=SKIP).train()
    assert runner_of(tmp_path / 'b', (1., NAN, NAN, 3.), iters=8, nan=SKIP).train()  # not in a row


def test_gradients_alone_are_looked_at_when_skipping(tmp_path):
    runner = runner_of(tmp_path, iters=4, nan=SKIP)
    gradients = []
    runner.model.layer.weight.register_hook(
        lambda grad: gradients.append(1) or (grad * NAN if len(gradients) == 2 else grad))
    runner.train()
    assert torch.isfinite(runner.model.layer.weight).all()
    log = ''.join(path.read_text() for path in tmp_path.glob('*/*.log'))
    assert 'iteration 2: gradients of the model are not finite; the batch: 1.png' in log


class Watched(nn.Module):
    """Has what NaNHook touches: a head that checks, statistics, a counter."""

    def __init__(self):
        super().__init__()
        self.head, self.layer = nn.Identity(), nn.Linear(1, 1)
        self.head.check_in_training = True
        self.register_buffer('mean', torch.zeros(1))
        self.register_buffer('step_counter', torch.zeros(1))


def watching(tmp_path, wrappers=1, scaler=None, **kwargs):
    """A hook that has begun, and its runner."""
    model, told = Watched(), []
    wraps = [OptimWrapper(torch.optim.SGD(model.layer.parameters(), lr=1)) for _ in range(wrappers)]
    wraps[-1].loss_scaler = scaler
    runner = SimpleNamespace(
        model=model, work_dir=str(tmp_path), iter=6, told=told, logger=SimpleNamespace(
            error=told.append, warning=told.append), optim_wrapper=wraps[0] if wrappers == 1
        else OptimWrapperDict(generator=wraps[0], discriminator=wraps[1]))
    hook = NaNHook(**kwargs)
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    return hook, runner


def test_the_checks_of_heads_are_left_to_the_hook_and_given_back(tmp_path):
    hook, runner = watching(tmp_path)
    assert runner.model.head.check_in_training is False
    hook.after_train(runner)
    assert runner.model.head.check_in_training is True
    assert not hasattr(runner.model.layer, 'check_in_training')


@pytest.mark.parametrize('outputs', [
    None, {}, dict(loss=1, text='nan', vector=torch.tensor([NAN, NAN]), one=torch.ones(1, 1))])
def test_only_single_numbers_are_losses(tmp_path, outputs):
    hook, runner = watching(tmp_path)
    hook.after_train_iter(runner, 0, outputs=outputs)
    assert runner.told == []


@pytest.mark.parametrize('outputs, text', [
    (dict(loss=NAN), 'loss is nan'), (dict(loss=torch.tensor(INF), a=1.), 'loss is inf'),
    (dict(loss=NAN, a=NAN, b=torch.tensor([[-INF]])), 'a is nan, b is -inf')])
def test_the_parts_are_named_rather_than_their_sum(tmp_path, outputs, text):
    hook, runner = watching(tmp_path)
    with pytest.raises(TrainingDiverged, match=(
            f'^iteration 7: {text}; the batch: its samples name no files. The training ends here, '
            'before its first checkpoint$')):
        hook.after_train_iter(runner, 0, outputs=outputs)


@pytest.mark.parametrize('skips', [dict(scaler=object()), dict(on_nan='skip')],
                         ids=['scaler', 'on_nan'])
def test_what_is_skipped_leaves_statistics_and_not_the_counter(tmp_path, skips):
    """A GradScaler skips on its own."""
    hook, runner = watching(tmp_path, max_skips=1, **skips)
    for buffer in runner.model.buffers():
        buffer.fill_(5)
    outputs = dict(loss=NAN, fine=1.)
    hook.after_train_iter(runner, 0, outputs=outputs)
    assert outputs == dict(fine=1.) and len(runner.told) == 1
    assert runner.model.mean == 0 and runner.model.step_counter == 5
    with pytest.raises(TrainingDiverged, match='1 batches before it were skipped too'):
        hook.after_train_iter(runner, 0, outputs=dict(loss=NAN))
    hook.before_train(runner)  # another training begins to count anew
    hook.before_train_iter(runner, 0)
    hook.after_train_iter(runner, 0, outputs=dict(loss=NAN))


def test_gradients_are_told_apart_by_their_optimiser(tmp_path):
    hook, runner = watching(tmp_path, wrappers=2, on_nan='skip')
    step = runner.optim_wrapper['discriminator'].optimizer.step
    step()  # without any gradient
    hook.after_train_iter(runner, 0, outputs={})
    assert runner.told == []
    runner.model.layer.weight.grad = torch.tensor([[INF]])
    before = runner.model.layer.weight.clone()
    step()
    assert torch.equal(before, runner.model.layer.weight)
    hook.after_train_iter(runner, 0, outputs={})
    assert 'iteration 7: gradients of the discriminator are not finite; ' in runner.told[0]
    hook.after_train(runner)
    runner.model.layer.weight.grad = torch.tensor([[INF]])
    step()
    assert not torch.isfinite(runner.model.layer.weight)  # watched no longer


@pytest.mark.parametrize('kwargs', [dict(on_nan='ignore'), dict(max_skips=0)])
def test_wrong_arguments(kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        NaNHook(**kwargs)


@pytest.mark.parametrize('kwargs, message', [
    (dict(filename_tmpl='{}_{}.pth'), "filename_tmpl: expected a name with one '{}'.*'{}_{}.pth'"),
    (dict(filename_tmpl='{:q}.pth'), "filename_tmpl: expected .*got '{:q}.pth'"),
    (dict(filename_tmpl=3), 'filename_tmpl: expected .*got 3'),
    (dict(max_keep_ckpts=-2), 'max_keep_ckpts: expected an integer of at least -1, got -2'),
    (dict(max_keep_ckpts='2.'), "max_keep_ckpts: expected an integer .* got '2.'"),
    (dict(save_begin='abc'), "save_begin: expected an integer .* got 'abc'"),
    (dict(save_best='L1_LR', rule='greater'), "rule: expected the other one for .*, got 'greater'"),
    (dict(save_best=['PSNR', 'a/SSIM'], rule='less'), "other one for save_best='PSNR', whose wor"),
    (dict(save_best=['a/LPIPS_vgg', 'SSIM'], rule='greater'), "rule: .*='a/LPIPS_vgg'")])
def test_checkpoints_that_would_be_lost_or_the_worst(kwargs, message):
    with pytest.raises(ArgumentError, match=message):
        HOOKS.build(dict(type='CheckpointHook', **kwargs))


@pytest.mark.parametrize('best, rule', [
    ('MAE', 'less'), ('FID', 'less'), ('LPIPS_alex', 'less'), ('PSNR_LR_8bit_rounded', 'greater'),
    ('L1_LR_8bit', 'less'), ('MaxErr_LR_8bit', 'less'), ('MS_SSIM', 'greater'), ('NIQE', 'less'),
    ('set5/PSNR', 'greater'), ('accuracy', 'greater')])
def test_which_checkpoint_is_the_best_is_known_from_the_metric(best, rule):
    assert HOOKS.build(dict(type='CheckpointHook', save_best=best)).rules == [rule]
    # the rule is one's own for what only begins alike, and a number has any form
    hook = HOOKS.build(dict(type='CheckpointHook', save_best='MAEX', rule='greater',
                            filename_tmpl='{:06d}.pth'))
    assert hook.rules == ['greater'] and hook.filename_tmpl == '{:06d}.pth'
    # and mmengine's arguments say so of others
    assert HOOKS.build(dict(type='CheckpointHook', save_best='mine', less_keys='mine')).rules == [
        'less']
