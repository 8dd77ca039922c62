"""tools/fast_suite_coverage.py: sums by package, the verdict, and that processes of tests count."""
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT, load_script

tool = load_script('tools/fast_suite_coverage.py')


def report(lines, branches):
    return dict(summary=dict(covered_lines=lines[0], num_statements=lines[1],
                             covered_branches=branches[0], num_branches=branches[1]))


FILES = {'mmpd/__init__.py': report((1, 2), (0, 0)),
         'mmpd/utils/files.py': report((90, 100), (8, 10)),
         '/a/copy/mmpd/utils/deep/x.py': report((10, 10), (2, 2))}


def test_sums_by_package():
    found = tool.by_package(FILES)
    assert list(found) == ['(top)', 'utils', 'all']
    assert found['utils'] == dict(lines=[100, 110], branches=[10, 12])
    assert found['all'] == dict(lines=[101, 112], branches=[10, 12])
    assert tool.share([0, 0]) == 100  # a file without branches lacks none
    lines = tool.table(found).splitlines()
    assert lines[1].split() == ['(top)', '50.0', '%', 'of', '2', '100.0', '%', 'of', '0']
    assert lines[2].split() == ['utils', '90.9', '%', 'of', '110', '83.3', '%', 'of', '12']


@pytest.mark.parametrize('lines, branches, lacking', [
    (92, 85, []), (91.9, 85, ['lines']), (92, 84.9, ['branches']),
    (10, 10, ['lines', 'branches'])])
def test_the_verdict(lines, branches, lacking):
    found = tool.shortfalls(dict(lines=[lines * 10, 1000], branches=[branches * 10, 1000]))
    assert [text.split(' of the ')[1].split()[0] for text in found] == lacking


@pytest.mark.parametrize('argv, measured, suite, expected', [
    ([], (95, 90), 0, 0), ([], (91, 90), 0, 1), ([], (95, 84), 0, 1), ([], (95, 90), 1, 1),
    (['tests/test_utils'], (5, 5), 0, 0), (['--report'], (95, 90), 1, 0),
    (['--report'], (91, 90), 0, 1)])
def test_what_the_command_ends_with(tmp_path, monkeypatch, capsys, argv, measured, suite, expected):
    called = []

    def call(*arguments):
        called.append(arguments[0])
        if arguments[0] == 'json':
            files = {'mmpd/x.py': report((measured[0], 100), (measured[1], 100))}
            (tmp_path / 'c.json').write_text(json.dumps(dict(files=files)))
        return suite if arguments[0] == 'run' else 0

    monkeypatch.setattr(tool, 'call', call)
    assert tool.main([*argv, '--json', str(tmp_path / 'c.json')]) == expected
    assert called == (['json'] if argv == ['--report'] else ['erase', 'run', 'combine', 'json'])
    assert f'all{measured[0]:19.1f} %' in capsys.readouterr().out


def test_nothing_measured_is_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, 'call', lambda *arguments: 1)
    assert tool.main(['--report', '--json', str(tmp_path / 'c.json')]) == 2
    assert 'nothing was measured' in capsys.readouterr().err


def test_processes_and_forks_count(tmp_path):
    """With the settings of pyproject.toml, of a package of the same name with three functions."""
    pytest.importorskip('coverage')
    (tmp_path / 'mmpd').mkdir()
    (tmp_path / 'mmpd/__init__.py').write_text('\n'.join(
        f'def {name}():\n    return 1\n' for name in ('process', 'fork', 'nobody')))
    (tmp_path / 'run.py').write_text(
        'import os, subprocess, sys, mmpd\n'
        'subprocess.run([sys.executable, "-c", "import mmpd; mmpd.process()"], check=True)\n'
        'pid = os.fork()\n'
        'if not pid:\n'
        '    mmpd.fork()\n'
        '    os._exit(0)\n'
        'os.waitpid(pid, 0)\n')
    path = os.pathsep.join([str(tmp_path), *sys.path[1:]])  # of coverage too, wherever it lies
    options = dict(cwd=tmp_path, check=True, env={
        'PYTHONPATH': path, 'PATH': '', 'COVERAGE_RCFILE': str(ROOT / 'pyproject.toml')})
    for command in (['run', 'run.py'], ['combine', '--quiet'], ['json', '--quiet', '-o', 'c.json']):
        subprocess.run([sys.executable, '-m', 'coverage', *command], **options)
    report, = json.loads((tmp_path / 'c.json').read_text())['files'].values()
    assert report['missing_lines'] == [8]  # nobody's
