"""Trainings killed at the worst moments end as if they had not been; memory stays flat."""
import json
import subprocess
import sys

import pytest
from conftest import ROOT

# One process imports everything once; each training is a fork of it, killed from within.
SCRIPT = '''
import json, os, signal, sys
from pathlib import Path
import numpy as np
import torch
torch.set_num_threads(1)
from PIL import Image
from mmengine.hooks import Hook
from mmagic.registry import HOOKS, MODELS
from mmpd.cli.train import train
from mmpd.utils import files

MODELS.get('PDGLEAN')
folder, config, soak = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
(folder / 'data' / 'GT').mkdir(parents=True)
rng = np.random.default_rng(0)
for index in range(6):
    picture = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(picture).save(folder / f'data/GT/{index}.png')
memory = []


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at(event, number):
    """Kill at the number-th writing, moving or iteration."""
    counts = {}

    def watch(name, function=lambda *args: None, after=False):
        def watched(*args):
            counts[name] = counts.get(name, 0) + 1
            if not after and (name, counts[name]) == (event, number):
                kill()
            result = function(*args)
            if after and (name, counts[name]) == (event, number):
                kill()
            return result
        return watched

    files.os.fsync = watch('half-written', os.fsync)
    files.os.replace = watch('moved', watch('written', os.replace), after=True)
    return watch('iteration')


@HOOKS.register_module()
class Tell(Hook):
    def after_train_iter(self, runner, *args, **kwargs):
        self.told(runner.iter)
        if soak:
            with open('/proc/self/statm') as file:
                memory.append(int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE'))


def run(name, number, resume, told):
    child = os.fork()
    if not child:
        try:
            Tell.told = staticmethod(killed_at(*told) if told else lambda *args: None)
            train([config, '--work-dir', str(folder / name), *['--resume'] * resume,
                   '--cfg-options', f'experiment_name={name}{number}',
                   f'train_dataloader.dataset.data_root={folder}/data',
                   f'train_cfg.max_iters={soak or 6}'])
            if soak:
                (folder / 'memory.json').write_text(json.dumps(memory))
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


codes = [run('whole', 0, False, None)]
# each checkpoint is two files: itself and the note
kills = [('iteration', 1), ('half-written', 1), ('written', 3), ('iteration', 1), ('moved', 1),
         ('half-written', 2)] if not soak else []
for number, told in enumerate(kills):
    codes.append(run('killed', number, True, told))
if kills:
    codes.append(run('killed', len(kills), True, None))
    one, other = (torch.load(folder / name / 'iter_6.pth') for name in ('whole', 'killed'))
    different = [key for key, value in one['state_dict'].items()
                 if not torch.equal(value, other['state_dict'][key])]
    moments = [key for part in ('generator', 'discriminator')
               for key, value in one['optimizer'][part]['state'].items()
               if not torch.equal(value['exp_avg'],
                                  other['optimizer'][part]['state'][key]['exp_avg'])]
    left = [name for name in os.listdir(folder / 'killed') if name.startswith('.')]
    print(json.dumps(dict(codes=codes, different=different, moments=moments, left=left)))
else:
    print(json.dumps(dict(codes=codes)))
'''
CONFIG = """
_base_ = {base!r}
model = dict(generator=dict(
    style_channels=8, num_mlps=1, rrdb_channels=4, num_rrdbs=1,
    channels={{4: 8, 8: 8, 16: 8, 32: 8, 64: 8}}), discriminator=dict(mid_channels=2))
train_dataloader = dict(batch_size=2)
val_cfg = val_dataloader = val_evaluator = None
default_hooks = dict(checkpoint=dict(interval=2, save_best=None), logger=dict(interval=1))
custom_hooks = [dict(type='Tell')]
"""


def results(folder, soak=0):
    base, = (ROOT / 'configs' / 'pdn').glob('*_demo.py')
    config = folder / 'tiny.py'
    config.write_text(CONFIG.format(base=str(base)))
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT, str(folder), str(config), str(soak)],
        capture_output=True, text=True, cwd=ROOT, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.skipif(not hasattr(__import__('os'), 'fork'), reason='needs fork')
def test_six_kills_change_nothing(tmp_path):
    """In an iteration, with half a checkpoint written, before and after it is moved into place."""
    found, errors = results(tmp_path)
    assert found['codes'] == [0, *[-9] * 6, 0], errors[-3000:]
    assert found['different'] == [] and found['moments'] == [] and found['left'] == []


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='reads /proc')
def test_memory_stays_flat(tmp_path):
    found, errors = results(tmp_path, soak=240)
    assert found['codes'] == [0], errors[-3000:]
    memory = json.loads((tmp_path / 'memory.json').read_text())
    growth = sum(memory[-20:]) / 20 - sum(memory[80:100]) / 20
    assert growth < 20e6, f'{growth / 1e6:.1f} MB in {len(memory) - 110} iterations'
