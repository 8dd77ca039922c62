"""Two CPU processes through ``tools/dist_train.sh``: gradients, resuming, checkpoints.

One launch, which imports MMagic twice; everything else runs in this process. SGD,
because Adam's first steps are signs and would blow rounding up.
"""
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import write_gt

from mmpd.cli.test import test as run_test
from mmpd.cli.train import train as run_train

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['mmpd', 'rank_log'], allow_failed_imports=False)
model = dict(generator=dict(
    style_channels=8, num_mlps=1, rrdb_channels=4, num_rrdbs=1,
    channels={{4: 8, 8: 8, 16: 8, 32: 8, 64: 8}}), discriminator=dict(mid_channels=2))
train_pipeline = [
    dict(type='LoadImageFromFile', key='gt', color_type='color', channel_order='rgb'),
    dict(type='LRSynthesis', scale=8, kernel='bicubic', antialias=True),
    dict(type='PackInputs')]
train_dataloader = dict(batch_size=2, dataset=dict(data_root={data!r}, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root={data!r}))
test_dataloader = val_dataloader
sgd = dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9))
optim_wrapper = dict(generator=sgd, discriminator=sgd)
train_cfg = dict(max_iters=4, val_interval=4)
default_hooks = dict(checkpoint=dict(interval=2, max_keep_ckpts=-1, save_best=None))
custom_hooks = [dict(type='RankLogHook')]
"""
# the config is read in this process too, so the hook lives in a module of its own
RANK_LOG = '''
import json
import os
import signal
from pathlib import Path
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module(force=True)
class RankLogHook(Hook):
    """Every rank's own losses, one line per iteration, as exact as floats get."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        line = {key: value.item() for key, value in outputs.items()}
        with open(Path(runner.work_dir) / f'rank{get_rank()}.jsonl', 'a') as file:
            file.write(json.dumps(dict(iter=runner.iter, **line)) + chr(10))

    def after_val_epoch(self, runner, metrics=None):
        metrics = {key: float(value) for key, value in metrics.items()}
        (Path(runner.work_dir) / f'val{get_rank()}.json').write_text(json.dumps(metrics))


@HOOKS.register_module(force=True)
class FixedStatistics(Hook):
    """Batch normalisation that does not look at the batch, which is another on each rank."""

    def before_train_iter(self, runner, *args, **kwargs):
        for module in runner.model.modules():
            if 'BatchNorm' in type(module).__name__:
                module.eval()


@HOOKS.register_module(force=True)
class KillRank(Hook):
    """The second process is killed after an iteration that saves nothing."""

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter == 0 and get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
'''


def launch(script, *arguments, folder, check=True):
    """Run a shell script as a user with an activated environment does."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    paths = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    environment = dict(os.environ, PATH=paths, PORT=str(port), OMP_NUM_THREADS='1',
                       PYTHONPATH=f'{folder}{os.pathsep}{ROOT}', CUDA_VISIBLE_DEVICES='',
                       PYTHONWARNINGS='ignore')
    for name in ('LOCAL_RANK', 'RANK', 'WORLD_SIZE'):
        environment.pop(name, None)
    command = ['bash', str(ROOT / 'tools' / script)] if script.endswith('.sh') else [
        sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2',
        f'--master_port={port}', str(script)]
    result = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True,
                            env=environment, timeout=280)
    assert not check or result.returncode == 0, result.stderr[-3000:]
    return result


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Four iterations on two processes."""
    folder = tmp_path_factory.mktemp('ddp')
    write_gt(folder / 'data', 6)
    base = ROOT / 'configs' / 'pd_glean' / 'pd_glean_in8out64-tiny_1xb8-400_demo.py'
    (folder / 'rank_log.py').write_text(RANK_LOG)
    config = folder / 'tiny_ddp.py'
    config.write_text(CONFIG.format(base=str(base), data=str(folder / 'data')))
    launch('dist_train.sh', config, 2, '--work-dir', folder / 'whole', folder=folder)
    return folder


PROCESSES = """
import sys
from mmpd.cli.train import train

config, folder, only = sys.argv[1:4]
for method in only.split(','):
    for name, more in (('two', []), ('two-of-one', ['--resume'])):
        train([config.format(method), '--launcher', 'pytorch', '--work-dir',
               f'{folder}/{method}-{name}', *more, '--cfg-options',
               f'experiment_name={method}-{name}'])
"""
METHODS = ('pdn', 'pd_panini', 'moco')
MOCO = """
custom_imports = dict(imports=['mmpd', 'rank_log'], allow_failed_imports=False)
default_scope = 'mmagic'
model = dict(
    type='DegradationMoCo', projection_channels=4, queue_size=16, momentum=0.9,
    encoder=dict(type='DegradationEncoder', channels=(4, 8)), data_preprocessor=dict(
        type='DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, data_keys=[]))
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='BasicImageDataset', data_root={data!r}, data_prefix=dict(img='GT'),
                 metainfo=dict(dataset_type='x', task_name='x'), pipeline=[
        dict(type='LoadImageFromFile', key='img', color_type='color', channel_order='rgb'),
        dict(type='CopyValues', src_keys=['img'], dst_keys=['key_img']),
        dict(type='PackInputs', keys=['img', 'key_img'])]))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=4)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False))
custom_hooks = [dict(type='FixedStatistics')]
randomness = dict(seed=3)
"""
NO_VALIDATION = """
val_cfg = val_dataloader = val_evaluator = None
custom_hooks = [dict(type='FixedStatistics')]
"""


def run_alone(runs, method, name, *more):
    """The double batch in this process."""
    sys.path.insert(0, str(runs))
    try:
        run_train([str(runs / f'{method}.py'), '--work-dir', str(runs / f'{method}-{name}'), *more,
                   '--cfg-options', 'train_dataloader.batch_size=4',
                   f'experiment_name={method}-{name}'])
    finally:
        sys.path.remove(str(runs))


@pytest.fixture(scope='module')
def methods(runs):
    """Each method on one process and on two, and both resumed after two iterations by the other.

    All that needs two processes is done in one launch.
    """
    for method in METHODS:
        text = MOCO
        if method != 'moco':
            base, = (ROOT / 'configs' / method).glob('*_demo.py')
            text = CONFIG.replace("val_dataloader = dict(dataset=dict(data_root={data!r}))\n", '')
            text = text.replace('test_dataloader = val_dataloader\n', '').replace(
                ', val_interval=4', '').format(base=str(base), data=str(runs / 'data'))
            text += NO_VALIDATION
        else:
            text = text.format(data=str(runs / 'data'))
        (runs / f'{method}.py').write_text(text)
        run_alone(runs, method, 'one')
        (runs / f'{method}-two-of-one').mkdir()
        shutil.copy(runs / f'{method}-one' / 'iter_2.pth', runs / f'{method}-two-of-one')
    (runs / 'processes.py').write_text(PROCESSES)
    launch(str(runs / 'processes.py'), runs / '{}.py', runs, ','.join(METHODS), folder=runs)
    for method in METHODS:
        (runs / f'{method}-one-of-two').mkdir()
        shutil.copy(runs / f'{method}-two' / 'iter_2.pth', runs / f'{method}-one-of-two')
        run_alone(runs, method, 'one-of-two', '--resume')
    return runs


@pytest.fixture(scope='module')
def single(runs):
    """The same four iterations in one process with the double batch."""
    sys.path.insert(0, str(runs))
    try:
        run_train([str(runs / 'tiny_ddp.py'), '--work-dir', str(runs / 'single'),
                            '--cfg-options', 'train_dataloader.batch_size=4',
                            'experiment_name=ddp_single'])
    finally:
        sys.path.remove(str(runs))
    return runs / 'single'


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('name', ['two', 'two-of-one', 'one-of-two'])
def test_a_run_does_not_depend_on_the_number_of_processes(methods, method, name):
    """Not even when it changes on the way: what is drawn belongs to the image, not to the rank."""
    one, other = (weights(methods / f'{method}-{run}' / 'iter_4.pth') for run in ('one', name))
    torch.testing.assert_close(dict(other), dict(one), rtol=2e-4, atol=2e-5)
    before = weights(methods / f'{method}-one' / 'iter_2.pth')
    moved = [key for key in one if not torch.allclose(before[key], one[key], atol=1e-4)]
    assert len(moved) > 4 and (method != 'moco' or {'queue', 'queue_ptr'} <= {*moved})


def losses(folder, rank):
    lines = [json.loads(line) for line in (folder / f'rank{rank}.jsonl').read_text().splitlines()]
    return {line.pop('iter'): line for line in lines}


def weights(path):
    return torch.load(path)['state_dict']


def test_keys_carry_no_wrapper_names(runs, single):
    state = weights(runs / 'whole' / 'iter_4.pth')
    assert list(state) == list(weights(single / 'iter_4.pth'))
    assert not any('module.' in key for key in state)


def test_losses_averaged_over_ranks_are_those_of_the_double_batch(runs, single):
    first, second, one = (losses(folder, rank) for folder, rank in
                          ((runs / 'whole', 0), (runs / 'whole', 1), (single, 0)))
    assert sorted(one) == [0, 1, 2, 3]
    for iteration, expected in one.items():
        assert first[iteration] != second[iteration]  # the ranks saw different images
        for key, value in expected.items():
            mean = (first[iteration][key] + second[iteration][key]) / 2
            assert mean == pytest.approx(value, rel=2e-5), (iteration, key)


def test_weights_after_four_steps_are_those_of_the_double_batch(runs, single):
    one, two = weights(single / 'iter_4.pth'), weights(runs / 'whole' / 'iter_4.pth')
    torch.testing.assert_close(dict(two), dict(one), rtol=1e-4, atol=1e-5)
    moved = weights(single / 'iter_2.pth')
    assert any(not torch.equal(one[key], moved[key]) for key in one if 'fusion' in key)


@pytest.mark.slow
def test_resuming_is_exact_on_both_ranks(runs):
    shutil.copytree(runs / 'whole', runs / 'resumed', ignore=shutil.ignore_patterns('iter_4*'))
    for log in (runs / 'resumed').glob('rank*.jsonl'):
        log.unlink()
    (runs / 'resumed' / 'last_checkpoint').write_text(str(runs / 'resumed' / 'iter_2.pth'))
    launch('dist_train.sh', runs / 'tiny_ddp.py', 2, '--work-dir', runs / 'resumed', '--resume',
           folder=runs)
    for rank in (0, 1):
        whole, resumed = losses(runs / 'whole', rank), losses(runs / 'resumed', rank)
        assert resumed == {2: whole[2], 3: whole[3]}  # to the last digit
    whole, resumed = (weights(runs / name / 'iter_4.pth') for name in ('whole', 'resumed'))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_one_process_tests_what_two_trained(runs, single):
    """The metrics of the validation during training come out again."""
    out = runs / 'metrics.json'
    sys.path.insert(0, str(runs))
    try:
        run_test([str(runs / 'tiny_ddp.py'), str(runs / 'whole' / 'iter_4.pth'),
                           '--work-dir', str(runs / 'test'), '--out', str(out),
                           '--cfg-options', 'experiment_name=ddp_test'])
    finally:
        sys.path.remove(str(runs))
    validated = json.loads((runs / 'whole' / 'val0.json').read_text())
    tested = json.loads(out.read_text())
    for key in ('PSNR', 'SSIM', 'MAE'):
        assert tested[key] == pytest.approx(validated[key], rel=1e-5), key
    assert min(tested['PSNR_LR'], validated['PSNR_LR']) > 120


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_process_ends_the_job(runs):
    """The other one would wait for its gradients for ever."""
    config = runs / 'killed.py'
    config.write_text((runs / 'tiny_ddp.py').read_text().replace('RankLogHook', 'KillRank'))
    result = launch('dist_train.sh', config, 2, '--work-dir', runs / 'killed', folder=runs,
                    check=False)  # in less than the timeout of launch
    assert result.returncode != 0 and 'SIGKILL' in result.stderr
    assert not list((runs / 'killed').glob('*.pth'))


@pytest.fixture
def recorder(tmp_path):
    """A folder with stand-ins for python and srun that print their arguments, one a line."""
    for name in ('python', 'srun'):
        script = tmp_path / name
        script.write_text('#!/bin/sh\nprintf "%s\\n" "$PYTHONPATH" "$@"\n')
        script.chmod(0o755)
    return tmp_path


SCRIPTS = {
    'dist_train.sh': ['c.py', '2'],
    'dist_test.sh': ['c.py', 'x.pth', '2'],
    'slurm_train.sh': ['gpu', 'job', 'c.py', 'dir'],
    'slurm_test.sh': ['gpu', 'job', 'c.py', 'x.pth'],
}


@pytest.mark.parametrize('script, arguments', SCRIPTS.items(), ids=SCRIPTS)
def test_scripts_pass_every_argument_on_whole(recorder, script, arguments):
    extra = ['--cfg-options', 'key=[1, 2]', "name='two words'"]
    result = subprocess.run(
        ['bash', str(ROOT / 'tools' / script), *arguments, *extra], capture_output=True, text=True,
        env=dict(os.environ, PATH=f'{recorder}{os.pathsep}{os.environ["PATH"]}'), check=True)
    lines = result.stdout.splitlines()
    tool = 'train.py' if 'train' in script else 'test.py'
    assert lines[-3:] == extra
    assert str(ROOT / 'tools' / tool) in lines and 'c.py' in lines
    assert lines[0].split(os.pathsep)[0] == str(ROOT / 'tools' / '..')
    kind = 'slurm' if 'slurm' in script else 'pytorch'
    assert f'--launcher={kind}' in lines or lines[lines.index('--launcher') + 1] == kind


@pytest.mark.parametrize('script, arguments', SCRIPTS.items(), ids=SCRIPTS)
def test_scripts_say_how_to_call_them(recorder, script, arguments):
    result = subprocess.run(['bash', str(ROOT / 'tools' / script), *arguments[:-1]],
                            capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.startswith(f'usage: bash tools/{script}')
