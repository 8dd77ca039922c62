"""docs/add_operator.md: its operator and its test are run as printed."""
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / 'docs' / 'add_operator.md').read_text()
BLOCKS = re.findall(r'```python\n(.*?)```', TEXT, re.S)


def write_operator(folder, name):
    """The page's operator; outside the package its imports are absolute, nothing else changes."""
    operator = next(block for block in BLOCKS if 'class Binning' in block)
    (folder / f'{name}.py').write_text(operator.replace('from .', 'from mmpd.operators.'))


def test_the_page_works_as_printed(tmp_path):
    test = next(b for b in BLOCKS if 'class TestBinning' in b)
    write_operator(tmp_path, 'binning')
    (tmp_path / 'test_binning.py').write_text(
        test.replace('from mmpd.operators import Binning', 'from binning import Binning'))
    run = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider',
                          '--rootdir', str(tmp_path), str(tmp_path)], capture_output=True,
                         text=True, cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(tmp_path)})
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    assert int(re.search(r'(\d+) passed', run.stdout).group(1)) > 50
    assert 'skipped' not in run.stdout


@pytest.mark.slow
def test_the_page_trains_against_the_operator(tmp_path, monkeypatch):
    from mmpd.cli.test import test
    from mmpd.cli.train import train
    from mmpd.operators import OPERATORS
    write_operator(tmp_path, 'binning_for_training')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(OPERATORS.module_dict, 'Binning', raising=False)
    config = next(block for block in BLOCKS if '_base_ =' in block)
    path = tmp_path / 'binned.py'
    path.write_text(config.replace("'configs/", f"'{ROOT}/configs/") + (
        "custom_imports = dict(imports=['mmpd', 'binning_for_training'], "
        'allow_failed_imports=False)\n'))
    (tmp_path / 'GT').mkdir()
    rng = np.random.default_rng(0)
    for index in range(2):
        pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'GT/{index}.png')
    options = ['--cfg-options', 'train_cfg.max_iters=1', 'train_dataloader.batch_size=2', *(
        f'{split}_dataloader.dataset.data_root={tmp_path}' for split in ('train', 'val', 'test'))]
    work = tmp_path / 'work'
    train([str(path), '--work-dir', str(work), *options, 'experiment_name=binned_train',
           'default_hooks.checkpoint.save_best=None'])
    out = tmp_path / 'metrics.json'
    test([str(path), str(work / 'iter_1.pth'), '--work-dir', str(tmp_path / 'tested'), '--out',
          str(out), *options, 'experiment_name=binned_test'])
    assert json.loads(out.read_text())['PSNR_LR'] > 100
    log = next(work.glob('*/*.log')).read_text()
    assert 'they differ by' not in log
    assert Config.fromfile(path).model.pd_head.operator.type == 'Binning'

    # with the config's own LR the same run says that it is against another A
    plain = tmp_path / 'plain.py'
    plain.write_text(path.read_text().replace(
        "dict(type='LRSynthesis', operator=operator, quantize=False)",
        "dict(type='LRSynthesis', scale=8)"))
    train([str(plain), '--work-dir', str(tmp_path / 'plain'), *options,
           'experiment_name=binned_plain', 'default_hooks.checkpoint.save_best=None'])
    said = re.findall(r'the LR is made by LRSynthesis.* the PD head has A = Binning\(scale=8\); on '
                      r'the first image they differ', next(
                          (tmp_path / 'plain').glob('*/*.log')).read_text())
    assert len(said) == 1
