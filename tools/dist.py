"""Build sdist and wheel of the committed state, check them, try the wheel (``make dist``).

The wheel is made of the sdist, so that both are tried. It is installed into a fresh environment for
each Python found of 3.10, 3.11 and 3.12, with what it asks for in the versions of
``requirements/lock.txt``; there the package is imported, the command's help is asked for and one
image is made consistent. Nothing is uploaded. Needs uv, which ``make setup`` installs.
"""
import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'tools'))

from test_matrix import find_pythons  # noqa: E402

PYTHONS = ('3.10', '3.11', '3.12')
UV = (sys.executable, '-m', 'uv')
TWINE = 'twine==6.2.0'
TRY = """
import os, subprocess, sys
from pathlib import Path
import numpy as np
from PIL import Image
import mmpd, mmpd.operators
assert Path(mmpd.__file__).is_relative_to(sys.prefix), mmpd.__file__
assert mmpd.__version__ == sys.argv[1], mmpd.__version__
carried = Path(mmpd.__file__).parent / '.mim'
assert len(list(carried.glob('configs/*/*.py'))) > 20, 'the wheel has no configs'
rng = np.random.default_rng(0)
sizes = dict(lr=8, sr=32)
for name, size in sizes.items():
    Path(name).mkdir()
    pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(f'{name}/a.png')
command = str(Path(sys.executable).parent / 'mmpd-make-consistent')
subprocess.run([command, '--help'], check=True, stdout=subprocess.DEVNULL)
subprocess.run([command, '--lr', 'lr', '--sr', 'sr', '--out', 'out'], check=True,
               stdout=subprocess.DEVNULL, env={**os.environ, 'TQDM_DISABLE': '1'})
made = np.asarray(Image.open('out/a.png'), np.int64)
lr = np.asarray(Image.open('lr/a.png'), np.int64)
assert (made.reshape(8, 4, 8, 4, 3).sum((1, 3)) == 16 * lr).all(), 'not consistent'
"""


def run(*command, **kwargs):
    subprocess.run([str(part) for part in command], check=True, **kwargs)


def export(folder):
    """The committed files. A release is made of nothing else."""
    changed = subprocess.run(['git', 'status', '--porcelain', '--untracked-files=no'], cwd=ROOT,
                             check=True, capture_output=True, text=True).stdout.strip()
    if changed:
        raise SystemExit('dist: there are changes that are not committed, and a release is made of '
                         'commits:\n' + changed)
    archive = subprocess.run(['git', 'archive', 'HEAD'], cwd=ROOT, check=True,
                             capture_output=True).stdout
    run('tar', '-x', '-C', folder, input=archive)


def build(source, out):
    """sdist and wheel in ``out``, checked by twine."""
    for old in (*out.glob('mmpd-*.whl'), *out.glob('mmpd-*.tar.gz')):
        old.unlink()
    run(*UV, 'build', '--quiet', '--out-dir', out, source)
    wheel, = out.glob('mmpd-*.whl')
    sdist, = out.glob('mmpd-*.tar.gz')
    run(*UV, 'tool', 'run', '--quiet', '--from', TWINE, 'twine', 'check', '--strict', wheel, sdist)
    return wheel, sdist


def try_wheel(wheel, python, folder):
    """Install the wheel into an environment of its own and use it."""
    inside = folder / 'venv' / 'bin' / 'python'
    run(*UV, 'venv', '--quiet', '--python', python, folder / 'venv')
    run(*UV, 'pip', 'install', '--quiet', '--python', inside, wheel,
        '--constraint', ROOT / 'requirements' / 'lock.txt')
    (folder / 'try.py').write_text(TRY)
    run(inside, '-I', '-W', 'ignore', 'try.py', wheel.name.split('-')[1], cwd=folder)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=ROOT / 'dist', help='folder, default dist')
    args = parser.parse_args(argv)
    found = find_pythons()
    pythons = {version: found[version] for version in PYTHONS if version in found}
    if not pythons:
        raise SystemExit('dist: expected Python 3.10, 3.11 or 3.12 on PATH or in pyenv, found none')
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / 'source'
        source.mkdir()
        export(source)
        wheel, sdist = build(source, args.out)
        for version, python in pythons.items():
            (Path(folder) / version).mkdir()
            try_wheel(wheel, python, Path(folder) / version)
            print(f'dist: Python {version}: installed, one image made consistent', flush=True)
    missing = [version for version in PYTHONS if version not in pythons]
    if missing:
        print(f'dist: not tried, for there is no Python {", ".join(missing)} here')
    print(f'dist: {wheel} and {sdist.name}')
    return 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as failed:
        sys.exit(f'dist: "{" ".join(map(str, failed.cmd))[:200]}" ended with {failed.returncode}')
