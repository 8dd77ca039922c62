"""The list of mutants fits the code, so that ``make mutants`` tests what it says."""
import ast
import importlib
import json
import os
import subprocess
import sys
import weakref

import mutation
import pytest
from mutants import MUTANTS, ROOT

from mmpd.operators import pooling_pass


@pytest.mark.parametrize('mutant', MUTANTS, ids=lambda mutant: mutant[0])
def test_every_mutant_changes_one_place(mutant):
    _, file, old, new, path, _ = mutant
    source = (ROOT / file).read_text()
    assert source.count(old) == 1, f'{file}: expected once {old!r}'
    ast.parse(source.replace(old, new))
    assert (ROOT / path).is_file()


def test_names_differ():
    assert len({mutant[0] for mutant in MUTANTS}) == len(MUTANTS) >= 17


SOURCE = '''"""Words: 1 < 2."""
LIMIT = 3


def outer(value, least=1):
    """More words, 4 + 5."""
    if value < least and not value == 7:
        raise ValueError(f'{value + 1} is too small')
    print(8 * 9)
    total = [value - 1, *zip([True], strict=True)]
    total.append(
        least)
    return total, lambda x: x * 2
'''


def drawn(tmp_path, source=SOURCE):
    (tmp_path / 'mmpd').mkdir(exist_ok=True)
    path = tmp_path / 'mmpd' / f'module_{len(source)}.py'
    path.write_text(source)
    return path, mutation.faults_of(path, tmp_path)


def test_faults_are_inside_functions_and_no_words(tmp_path):
    _, faults = drawn(tmp_path)
    assert sorted((fault.kind, fault.line, fault.old, fault.new) for fault in faults) == sorted([
        ('condition', 7, 'value < least and not value == 7',
         'not (value < least and not value == 7)'),
        ('comparison', 7, '<', '<='), ('boolean', 7, 'and', 'or'), ('boolean', 7, 'not', ''),
        ('comparison', 7, '==', '!='), ('constant', 7, '7', '8'),
        ('raise', 8, "raise ValueError(f'{value + 1} is too small')", 'pass'),
        ('arithmetic', 10, '-', '+'), ('constant', 10, '1', '2'), ('constant', 10, 'True', 'False'),
        ('statement', 11, 'total.append( least)', 'pass'),
        ('return', 13, 'total, lambda x: x * 2', 'None'),
        ('arithmetic', 13, '*', '/'), ('constant', 13, '2', '3')])
    for fault in faults:
        assert fault.new_source.count('\n') == SOURCE.count('\n')  # lines stay where they are
        assert fault.lines[0] <= fault.line <= fault.lines[1]


def test_a_fault_is_put_into_living_functions(tmp_path, monkeypatch):
    path, faults = drawn(tmp_path)
    monkeypatch.syspath_prepend(path.parent)
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)
    outer = importlib.import_module(path.stem).outer
    assert outer(3)[0] == [2, (True, ), 1]
    fault, = (fault for fault in faults if (fault.kind, fault.line) == ('arithmetic', 10))
    dead = weakref.proxy(type('Gone', (), {})())  # some library leaves such a thing behind
    assert mutation.put_in(fault, tmp_path)
    assert type(dead) is weakref.ProxyType  # it was there all the time
    assert outer(3)[0] == [4, (True, ), 1] and outer(3)[1](4) == 8
    with pytest.raises(ValueError, match='1 is too small'):
        outer(0)


def test_what_a_function_around_it_would_have_to_know_is_left_out(tmp_path, monkeypatch):
    path, faults = drawn(tmp_path, '''def outer(value):
    def inner():
        return value
    return inner


one = outer(1)
''')
    monkeypatch.syspath_prepend(path.parent)
    module = importlib.import_module(path.stem)
    fault, = (fault for fault in faults if fault.line == 3)
    assert not mutation.put_in(fault, tmp_path) and module.one() == 1


def test_results_that_are_kept_are_found_beside_what_is_dead():
    dead = weakref.proxy(type('Gone', (), {})())
    assert pooling_pass._weights in mutation.kept_results()
    assert type(dead) is weakref.ProxyType


@pytest.mark.parametrize('function, expected', [
    (lambda: 3, 3), (lambda: 1 / 0, 70), (lambda: os.kill(os.getpid(), 9), -1)])
def test_a_fork_tells_its_code(tmp_path, function, expected):
    assert mutation.child(function, tmp_path / 'log') == expected


def test_a_fork_has_so_much_time(tmp_path):
    def forever():
        while True:
            pass

    # of the processor, or on a very busy machine of the clock
    assert mutation.child(forever, tmp_path / 'log', seconds=0.5) in (-1, -2)


def test_the_quick_tests_come_first_and_three_at_least():
    times = dict(a=5, b=1, c=9, d=2, e=30)
    assert mutation.chosen_tests({'a', 'b', 'd'}, times, 100) == (['b', 'd', 'a'], 8)
    assert mutation.chosen_tests(times, times, 9) == (['b', 'd', 'a'], 8)
    assert mutation.chosen_tests({'c', 'e'}, times, 1) == (['c', 'e'], 39)


def test_every_package_has_tests_and_the_known_faults_are_there():
    packages = {path.name for path in (ROOT / 'mmpd').iterdir() if (path / '__init__.py').exists()}
    assert packages == {*mutation.PACKAGES}
    assert all((ROOT / test).exists() for tests in mutation.PACKAGES.values() for test in tests)
    known = json.loads((ROOT / 'tests/data/equivalent_mutants.json').read_text())
    keys = {}
    for key, reason in known.items():
        file = key.split(': ')[0]
        if file not in keys:
            keys[file] = {fault.key for fault in mutation.candidates(ROOT / file, ROOT)}
        assert key in keys[file] and len(reason) > 10


def test_a_file_with_a_kernel_is_under_the_tests_of_its_name(tmp_path):
    source = 'def call(x):\n    @triton.jit\n    def kernel(y):\n        return y + 1\n'
    times = {'tests/test_module_1.py::test_a': 1,
             f'tests/test_module_{len(source)}.py::test_b': 1}
    _, faults = drawn(tmp_path, source)
    lines = {faults[0].file: {4: {'other'}}}
    assert mutation.tests_of(faults[0], lines, times, tmp_path) == {'other', [*times][1]}
    _, faults = drawn(tmp_path, SOURCE)
    assert mutation.tests_of(faults[0], lines, {'tests/test_x.py::test': 1}, tmp_path) == set()


def test_random_faults_from_end_to_end(tmp_path):
    """A package of three functions, of which the tests look at two."""
    pytest.importorskip('coverage')
    (tmp_path / 'mmpd/small').mkdir(parents=True)
    (tmp_path / 'tests/data').mkdir(parents=True)
    (tmp_path / 'mmpd/__init__.py').touch()
    (tmp_path / 'mmpd/small/__init__.py').write_text(
        'from functools import lru_cache\n\n\ndef double(x):\n    return x + x\n\n\n'
        'def loose(x):\n    y = x - 1\n    return y or 0\n\n\n'
        '@lru_cache\ndef kept(x):\n    return x - 1\n')
    (tmp_path / 'tests/test_small.py').write_text(
        'from mmpd.small import double, kept, loose\n\n\n'
        'def test_double():\n    assert double(3) == 6\n\n\n'
        'def test_loose():\n    loose(3)\n    kept(3)\n\n\n'
        'def test_kept():\n    assert kept(3) == 2\n')
    (tmp_path / 'pyproject.toml').write_text(
        '[tool.coverage.run]\nsource_pkgs = ["mmpd"]\nbranch = true\n')
    code = (f'import sys; sys.path.insert(0, {str(ROOT / "tests")!r}); import mutation, pathlib; '
            'root = pathlib.Path.cwd(); files = [root / "mmpd/small/__init__.py"]; '
            'print(mutation.run(root, files, ["tests/test_small.py"], 99, 0, 5, root / "d", {}))')
    run = subprocess.run([sys.executable, '-B', '-c', code], cwd=tmp_path, capture_output=True,
                         text=True, env={**os.environ, 'PYTHONPATH': str(tmp_path)})
    assert run.returncode == 0, run.stderr
    *survivors, total = run.stdout.splitlines()
    # x + x, x - 1, which the test before has had kept, and their returns
    assert total == '(5, 10, 0)'
    assert all('SURVIVED (seen by 1 tests, 1 run): mmpd/small/__init__.py:' in line
               for line in survivors) and len(survivors) == 5
    assert (tmp_path / 'mmpd/small/__init__.py').read_text().count('x + x') == 1
