"""tools/test_matrix.py: which cells there are, what a row says, where the table goes."""
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = 'before\n<!-- table of tools/test_matrix.py -->\nold\n<!-- end of table -->\nafter\n'


@pytest.fixture
def matrix(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location('matrix_under_test',
                                                  ROOT / 'tools/test_matrix.py')
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def row(**changes):
    return {**dict(stack='lock.txt', python='3.13', torch='2.15.0', numpy='2.5.5', suite='fast',
                   tests=10, failures=0, errors=0, skipped=2, exit=0, date='2026-11-24',
                   **{'opencv-python': '5.0.0'}), **changes}


@pytest.mark.parametrize('found, expected', [
    (['3.10', '3.11', '3.12', '3.13'],
     ['3.10 lock.txt', '3.11 lock.txt', '3.12 lock.txt', '3.13 lock.txt', '3.10 PyTorch 2.11',
      '3.10 oldest PyTorch', '3.11 lock-mmagic.txt']),
    (['3.12', '3.14'],
     ['3.12 lock.txt', '3.14 lock.txt', '3.12 PyTorch 2.11', '3.12 lock-mmagic.txt']), ([], [])])
def test_cells(matrix, found, expected):
    rows = matrix.cells({version: f'/python{version}' for version in found})
    assert [item.name for item in rows] == expected
    assert all(item.python == f'/python{item.version}' for item in rows)


def test_the_pythons_here_are_found(matrix):
    version = '{}.{}'.format(*sys.version_info)
    found = matrix.find_pythons()
    assert list(found) == sorted(found, key=lambda item: int(item[2:]))
    for name, python in found.items():
        assert matrix.version_of(python) == tuple(map(int, name.split('.')))
    assert version in found or not found  # an interpreter that is on no path


@pytest.mark.parametrize('changes, text', [
    ({}, '8 passed, 2 skipped'), (dict(failures=1, errors=1, exit=1), '6 passed, 2 failed, 2 sk'),
    (dict(exit=3), '8 passed, pytest ended with 3, 2 skipped')])
def test_results_in_words(matrix, changes, text):
    assert matrix.result_text(row(**changes)).startswith(text)
    assert matrix.passed(row(**changes)) is ('exit' not in changes)


def test_the_table_replaces_the_old_one_and_keeps_other_cells(matrix, tmp_path):
    readme, results = tmp_path / 'README.md', tmp_path / 'results.json'
    readme.write_text(README)
    matrix.write([row(), row(stack='oldest PyTorch', python='3.10', torch='2.1.2')],
                 readme, results)
    matrix.write([row(python='3.9', exit=1, failures=1), row(torch='2.16.0')], readme, results)
    text = readme.read_text()
    assert text.startswith('before\n<!--') and text.endswith('-->\nafter\n') and 'old\n' not in text
    lines = [line for line in text.splitlines() if line.startswith('| 3')]
    assert [line.split(' | ')[:2] for line in lines] == [
        ['| 3.9', '2.15.0'], ['| 3.13', '2.16.0'], ['| 3.10', '2.1.2']]
    assert '7 passed, 1 failed' in lines[0] and len(json.loads(results.read_text())) == 3


def test_a_readme_without_the_marks_is_not_touched(matrix, tmp_path):
    readme, results = tmp_path / 'README.md', tmp_path / 'results.json'
    readme.write_text('nothing')
    with pytest.raises(SystemExit, match='once each'):
        matrix.write([row()], readme, results)
    assert readme.read_text() == 'nothing' and not results.exists()


def test_the_readme_holds_the_table_of_the_results(matrix):
    table = matrix.table(json.loads(matrix.RESULTS.read_text()))
    assert matrix.BEGIN + table + matrix.END in matrix.README.read_text()


REPORT = ('<testsuites><testsuite tests="5" failures="1" errors="0" skipped="2"/></testsuites>')


@pytest.mark.parametrize('broken', [False, True])
def test_a_cell_leaves_no_environment(matrix, monkeypatch, tmp_path, broken):
    commands, folder = [], tmp_path / 'cell'

    def run(command, **kwargs):
        command = [str(part) for part in command]
        commands.append(command)
        if 'venv' in command:
            folder.mkdir()
        if broken and 'install' in command:
            raise subprocess.CalledProcessError(1, command)
        if 'pytest' in command:
            (folder / 'report.xml').write_text(REPORT)
        listed = json.dumps([dict(name='torch', version='2.15.0')])
        return subprocess.CompletedProcess(command, 1, stdout=listed)

    monkeypatch.setattr(matrix.subprocess, 'run', run)
    cell = matrix.Cell('lock.txt', '3.13', '/python3.13', '-r lock')
    if broken:
        with pytest.raises(subprocess.CalledProcessError):
            matrix.run_cell(cell, matrix.FAST, folder)
    else:
        got = matrix.run_cell(cell, matrix.FAST, folder)
        assert (got['tests'], got['failures'], got['skipped'], got['exit']) == (5, 1, 2, 1)
        assert got['torch'] == '2.15.0' and got['numpy'] is None and got['suite'] == 'fast'
        assert commands[-1][-len(matrix.FAST):] == list(matrix.FAST)
    assert not folder.exists()


def test_the_suites_name_files_that_exist(matrix):
    for path in (*matrix.SMOKE, *matrix.FAST):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize('argv, chosen', [
    (['--smoke'], ['3.10 lock.txt', '3.13 lock.txt']),
    (['--only', '3.11 lock-mmagic.txt'], ['3.11 lock-mmagic.txt'])])
def test_which_cells_run(matrix, monkeypatch, argv, chosen):
    ran, written = [], []
    monkeypatch.setattr(matrix, 'find_pythons', lambda: {
        version: version for version in ('3.10', '3.11', '3.13')})
    monkeypatch.setattr(matrix, 'run_cell', lambda cell, *_: ran.append(cell.name) or row())
    monkeypatch.setattr(matrix, 'write', written.append)
    assert matrix.main(argv) == 0
    assert ran == chosen and len(written) == (0 if '--smoke' in argv else 1)
    monkeypatch.setattr(matrix, 'run_cell', lambda *_: row(exit=1, failures=1))
    assert matrix.main(argv) == 1


def test_an_unknown_cell_is_refused(matrix):
    with pytest.raises(SystemExit, match="no cell 4.0 x; there are: "):
        matrix.main(['--only', '4.0 x'])
