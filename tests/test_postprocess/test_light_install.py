"""mmpd.consistent and mmpd-make-consistent with torch, NumPy, Pillow and tqdm, and nothing else."""
import csv
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

# of the environment, what "pip install mmpd" would bring (torch's own needs with it)
CORE = ('torch', 'numpy', 'Pillow', 'tqdm')

SCRIPT = """
import importlib.util
import sys
for name in ('mmagic', 'mmengine', 'mmcv', 'cv2', 'scipy', 'torchvision', 'tifffile', 'yaml'):
    assert importlib.util.find_spec(name) is None, name
import mmpd
assert 'torch' not in sys.modules
import numpy as np
from PIL import Image
lr = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
sr = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), np.uint8)
result = mmpd.consistent(sr, lr, 'average_pooling')
assert (result.reshape(2, 4, 4, 4, 4, 3).sum((2, 4), int) == lr * 16.).all()
Image.fromarray(sr[0]).save('sr/x_out.png')
Image.fromarray(lr[0]).save('lr/x.png')
from mmpd.cli.make_consistent import main
sys.exit(main('--lr lr --sr sr --out out --sr-suffix _out'.split()))
"""


def dependencies(name, found):
    """Distributions that pip would install for one, from what is installed here."""
    from packaging.requirements import Requirement
    name = name.lower().replace('_', '-')
    if name in found:
        return
    distribution = importlib.metadata.distribution(name)
    found[name] = distribution
    for line in distribution.requires or ():
        item = Requirement(line)
        if item.marker is None or item.marker.evaluate(dict(extra='')):
            try:
                dependencies(item.name, found)
            except importlib.metadata.PackageNotFoundError:
                pytest.skip(f'{name} needs {item.name}, which is not installed')


@pytest.fixture
def site(tmp_path):
    """A folder with links to the files of those distributions alone."""
    found, folder = {}, tmp_path / 'site'
    folder.mkdir()
    for name in CORE:
        dependencies(name, found)
    for distribution in found.values():
        for file in distribution.files:
            top = file.parts[0]
            if top in ('..', '__pycache__') or (folder / top).exists():
                continue
            (folder / top).symlink_to(distribution.locate_file(top))
    for name in ('mmpd', 'mmpd_startup.py'):
        (folder / name).symlink_to(ROOT / name)
    return folder


def test_in_an_environment_of_four_packages(site, tmp_path):
    for name in ('lr', 'sr'):
        (tmp_path / name).mkdir()
    done = subprocess.run(
        [sys.executable, '-S', '-c', SCRIPT], cwd=tmp_path, capture_output=True, text=True,
        timeout=200, env={**{key: value for key, value in os.environ.items()
                             if not key.startswith('PYTHON')}, 'PYTHONPATH': str(site),
                          'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stderr[-2000:]
    assert '1 images, A = average_pooling' in done.stdout and '-> inf dB' in done.stdout
    lr, out = (np.asarray(Image.open(tmp_path / name / 'x.png')) for name in ('lr', 'out'))
    assert (out.reshape(4, 4, 4, 4, 3).sum((1, 3), int) == lr * 16.).all()
    with (tmp_path / 'out' / 'consistency.csv').open() as file:
        assert next(csv.DictReader(file))['lr_values_unmatched'] == '0'


@pytest.mark.parametrize('name, package', [('train', 'mmengine'), ('test', 'mmengine'),
                                           ('infer', 'yaml')])
def test_commands_that_need_mmagic_say_so_in_one_line(site, tmp_path, name, package):
    code = f'import sys; from mmpd.cli import commands; sys.exit(commands.{name}())'
    done = subprocess.run(
        [sys.executable, '-S', '-c', code, 'x', '-i', 'lr', '-o', 'sr'], cwd=tmp_path, text=True,
        capture_output=True, timeout=200, env={'PYTHONPATH': str(site), 'PATH': os.environ['PATH']})
    assert (done.returncode, done.stderr.count('\n')) == (2, 1), done.stderr
    assert f'mmpd-{name} needs {package}, which is not installed: pip' in done.stderr


def test_the_requirements_of_mmagic_include_those_of_the_core():
    lines = {name: set((ROOT / 'requirements' / f'{name}.txt').read_text().splitlines())
             for name in ('core', 'runtime')}
    core = {line for line in lines['core'] if not line.startswith('#')}
    assert core < lines['runtime'] and len(core) == len(CORE)
    assert Path(ROOT / 'setup.py').read_text().count("install_requires=requirements('core')") == 1
