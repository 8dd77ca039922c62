"""Run the tests on every Python found here and on older PyTorch; write the table of the README.

Each cell gets an environment of its own under ``work_dirs/matrix``, removed afterwards
(6 GB each).  Results are kept in ``docs/test_matrix.json``, so that single cells can be
run anew (``--only``).
"""
import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from setup_env import PYTHONS, version_of  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'docs' / 'test_matrix.json'
README = ROOT / 'README.md'
BEGIN, END = '<!-- table of tools/test_matrix.py -->\n', '<!-- end of table -->\n'
SMOKE = ('tests/test_smoke.py', )
FAST = (*SMOKE, 'tests/test_compat', 'tests/test_models/test_pd_head.py',
        'tests/test_models/test_pd_models.py', 'tests/test_models/test_gan_prior_sr.py',
        'tests/test_engine/test_checkpoint_hooks.py',
        'tests/test_tools/test_train_test_tools.py', 'tests/test_tools/test_make_consistent.py',
        'tests/test_operators/test_average_pooling.py', 'tests/test_operators/test_quantize.py')
LOCKED = '--no-deps --require-hashes -r requirements/{}'
FREE = '--override requirements/overrides.txt -r requirements/lock.in -r requirements/tests.txt {}'
# name of the stack: (Pythons it is for, oldest first; what "uv pip install" is given)
OLDER = {
    'PyTorch 2.11': ('3.10 3.11 3.12 3.13', FREE.format('torch==2.11.0 torchvision==0.26.0')),
    'oldest PyTorch': ('3.10 3.11', FREE.format(
        'torch==2.1.2 torchvision==0.16.2 numpy==1.26.4 opencv-python==4.11.0.86')),
    'lock-mmagic.txt': ('3.11 3.10 3.12', LOCKED.format('lock-mmagic.txt')),
}
VERSIONS = ('torch', 'torchvision', 'numpy', 'opencv-python', 'mmcv-lite', 'mmagic')


@dataclass
class Cell:
    """One row of the table: a stack on a Python."""

    stack: str
    version: str
    python: str
    install: str

    @property
    def name(self):
        return f'{self.version} {self.stack}'


def find_pythons():
    """{version, as '3.13': interpreter} of what is on PATH and in pyenv, oldest first."""
    found = {}
    pyenv = Path(os.environ.get('PYENV_ROOT', Path.home() / '.pyenv')) / 'versions'
    for version in reversed(PYTHONS):
        name = '{}.{}'.format(*version)
        paths = [shutil.which(f'python{name}'), *sorted(pyenv.glob(f'{name}.*/bin/python'))]
        for path in filter(None, paths):
            if version_of(path) == version:
                found[name] = str(path)
                break
    return found


def cells(pythons):
    """All cells: the lock on every Python, each older stack on the first that it is for."""
    rows = [Cell('lock.txt', version, python, LOCKED.format('lock-tests.txt'))
            for version, python in pythons.items()]
    for stack, (versions, install) in OLDER.items():
        version = next((item for item in versions.split() if item in pythons), None)
        if version:
            rows.append(Cell(stack, version, pythons[version], install))
    return rows


def run_cell(cell, tests, folder):
    """Build the environment, run the tests, remove it.

    Returns:
        dict: versions, counts, seconds and date, a row of ``docs/test_matrix.json``.
    """
    shutil.rmtree(folder, ignore_errors=True)
    python = folder / 'bin' / 'python'
    report = folder / 'report.xml'
    uv = [sys.executable, '-m', 'uv']
    try:
        begin = time.monotonic()
        subprocess.run([*uv, 'venv', '-q', '--python', cell.python, folder], check=True)
        subprocess.run([*uv, 'pip', 'install', '-q', '--python', python, *cell.install.split()],
                       check=True, cwd=ROOT)
        installed = time.monotonic()
        listed = json.loads(subprocess.run(
            [*uv, 'pip', 'list', '-q', '--format', 'json', '--python', python],
            check=True, capture_output=True, text=True).stdout)
        code = subprocess.run(
            [python, '-m', 'pytest', '-p', 'no:cacheprovider', f'--junitxml={report}', *tests],
            cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(ROOT)}).returncode
        suite = ElementTree.parse(report).getroot().find('testsuite').attrib
        counts = {key: int(suite[key]) for key in ('tests', 'failures', 'errors', 'skipped')}
        versions = {item['name']: item['version'] for item in listed}
        return dict(
            stack=cell.stack, python=cell.version, packages=len(listed),
            **{name: versions.get(name) for name in VERSIONS}, suite=suite_name(tests), **counts,
            exit=code, install_s=round(installed - begin),
            test_s=round(time.monotonic() - installed), date=datetime.date.today().isoformat())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def suite_name(tests):
    return 'smoke' if tests == SMOKE else 'fast' if tests == FAST else 'whole'


def passed(row):
    return row['exit'] == 0


def result_text(row):
    good = row['tests'] - row['failures'] - row['errors'] - row['skipped']
    bad = row['failures'] + row['errors']
    text = f'{good} passed' + (f', {bad} failed' if bad else '')
    if not passed(row) and not bad:
        text += f', pytest ended with {row["exit"]}'
    return f'{text}, {row["skipped"]} skipped'


def table(rows):
    """The rows as a Markdown table."""
    lines = ['| Python | PyTorch | NumPy | OpenCV | installed from | suite | result | date |',
             '| :-- | :-- | :-- | :-- | :-- | :-- | :-- | :-- |']
    for row in rows:
        lines.append('| {python} | {torch} | {numpy} | {opencv-python} | {stack} | {suite} | '
                     '{result} | {date} |'.format(result=result_text(row), **row))
    return '\n'.join(lines) + '\n'


def write(rows, readme=README, results=RESULTS):
    """Merge ``rows`` into the results and write the table between its marks in the README."""
    kept = json.loads(results.read_text()) if results.exists() else []
    by_cell = {(row['stack'], row['python']): row for row in [*kept, *rows]}
    order = ['lock.txt', *OLDER]
    merged = sorted(by_cell.values(), key=lambda row: (
        order.index(row['stack']) if row['stack'] in order else len(order),
        [int(part) for part in row['python'].split('.')]))
    text = readme.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f'test_matrix: {readme} must hold the lines {BEGIN.strip()} and '
                         f'{END.strip()} once each.')
    head, rest = text.split(BEGIN)
    results.write_text(json.dumps(merged, indent=1) + '\n')
    readme.write_text(head + BEGIN + table(merged) + END + rest.split(END)[1])


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', nargs='+', metavar='CELL',
                        help='run these cells, named as in --list ("3.13 lock.txt")')
    parser.add_argument('--whole', action='store_true', help='the whole suite in each cell')
    parser.add_argument('--smoke', action='store_true',
                        help='three smoke tests; without --only on the newest and the oldest '
                        'Python, and no table')
    parser.add_argument('--list', action='store_true', help='list the cells')
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    rows = cells(find_pythons())
    if not rows:
        raise SystemExit('test_matrix: no Python 3.10 to 3.14 found on PATH or in pyenv.')
    if args.list:
        print('\n'.join(row.name for row in rows))
        return 0
    if args.only:
        unknown = set(args.only) - {row.name for row in rows}
        if unknown:
            raise SystemExit(f'test_matrix: no cell {", ".join(sorted(unknown))}; there are: '
                             + ', '.join(row.name for row in rows))
        rows = [row for row in rows if row.name in args.only]
    elif args.smoke:
        locked = [row for row in rows if row.stack == 'lock.txt']
        rows = [locked[0], locked[-1]] if len(locked) > 1 else locked
    tests = ('tests', ) if args.whole else SMOKE if args.smoke else FAST
    good = True
    for cell in rows:
        print(f'test_matrix: {cell.name}', flush=True)
        try:
            row = run_cell(cell, tests, ROOT / 'work_dirs' / 'matrix' / cell.name.replace(' ', '-'))
        except (subprocess.CalledProcessError, OSError, ElementTree.ParseError) as error:
            print(f'test_matrix: {cell.name} could not be run: {error}', file=sys.stderr)
            good = False
            continue
        print(f'test_matrix: {cell.name}: {result_text(row)}', flush=True)
        good = good and passed(row)
        if args.only or not args.smoke:
            write([row])  # at once: the next cell may not be reached
    return 0 if good else 1


if __name__ == '__main__':
    sys.exit(main())
