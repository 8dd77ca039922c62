"""The commands of a regular install, run outside the repository."""
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import PREPROCESSOR, ROOT, TINY, tiny_model
from PIL import Image

pytestmark = pytest.mark.slow  # a build and five starts


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """A folder with the package as pip installs it, without its dependencies."""
    home = tmp_path_factory.mktemp('install')
    clone = home / 'clone'
    clone.mkdir()
    for name in ('mmpd', 'configs', 'tools', 'requirements', 'setup.py', 'pyproject.toml',
                 'MANIFEST.in', 'README.md', 'model-index.yml', 'LICENSE'):
        subprocess.run(['cp', '-r', str(ROOT / name), str(clone)], check=True)
    subprocess.run(
        [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-index',
         '--no-build-isolation', '--target', str(home / 'site'), str(clone)],
        check=True, capture_output=True, text=True, timeout=280,
        env={key: value for key, value in os.environ.items() if key != 'PYTHONPATH'})
    subprocess.run(['rm', '-r', str(clone)], check=True)
    return home / 'site'


def call(installed, folder, name, *args):
    return subprocess.run(
        [str(installed / 'bin' / name), *map(str, args)], cwd=folder, timeout=280,
        env={**os.environ, 'PYTHONPATH': str(installed), 'OMP_NUM_THREADS': '1'},
        capture_output=True, text=True)


def test_lr_images_become_consistent_pictures(installed, tmp_path):
    model = tiny_model()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'tiny.pth')
    (tmp_path / 'tiny.py').write_text(
        "custom_imports = dict(imports=['mmpd'], allow_failed_imports=False)\n"
        f"model = dict(type='PDGLEAN', generator={TINY!r}, pixel_loss=dict(type='L1Loss'), "
        f'data_preprocessor={PREPROCESSOR!r})\n')
    (tmp_path / 'lr').mkdir()
    lr = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(lr).save(tmp_path / 'lr' / 'x.png')
    done = call(installed, tmp_path, 'mmpd-infer', 'tiny.py', 'tiny.pth', '-i', 'lr', '-o', 'sr',
                '--strength', 0)
    assert done.returncode == 0, done.stderr
    assert '1 of 1 images in sr: A = AveragePooling(scale=4), strength 0' in done.stdout

    # and those of any method afterwards
    done = call(installed, tmp_path, 'mmpd-make-consistent', '--lr', 'lr', '--sr', 'sr', '--out',
                'out')
    assert done.returncode == 0, done.stderr
    image = np.asarray(Image.open(tmp_path / 'out' / 'x.png')).astype(float)
    assert np.array_equal(image.reshape(8, 4, 8, 4, 3).mean((1, 3)), lr)


def test_configs_and_names_are_those_of_the_install(installed, tmp_path):
    done = call(installed, tmp_path, 'mmpd-infer', 'pd_glean_x8_2xb8_kat', '-i', '.', '-o', 'out')
    assert done.returncode == 2 and 'did you mean pd_glean_x8_2xb8_cat' in done.stderr
    assert 'Traceback' not in done.stderr
    done = call(installed, tmp_path, 'mmpd-train', 'pd_glean_x8_1xb4-100k_fhq.py')
    assert done.returncode == 2 and f'{installed}/mmpd/.mim/configs/pd_glean/' in done.stderr
    assert call(installed, tmp_path, 'mmpd-test', '--help').stdout.startswith('usage: mmpd-test')


def test_every_command_of_the_package_is_installed(installed):
    names = {path.name for path in (installed / 'bin').iterdir() if path.name.startswith('mmpd-')}
    commands = {f'mmpd-{path.stem.replace("_", "-")}' for path in (ROOT / 'mmpd/cli').glob('*.py')
                if '\ndef main(argv=None)' in path.read_text()}
    assert names == commands >= {'mmpd-infer', 'mmpd-make-consistent', 'mmpd-train', 'mmpd-test'}
    for name in commands:
        assert (ROOT / 'tools' / f'{name[5:].replace("-", "_")}.py').is_file()
