"""Random faults in a package, each run against the tests that reach its line.

    python tests/mutants.py --package utils --sample 30 --seed 1

starts this in a copy of the repository.  The tests of the package run once, unchanged, under
coverage, which says for each line the tests that come by and for each test its time.  Then faults
are drawn among all places inside functions: a comparison, a constant, a sum or product, a boolean
operator, a condition, a ``return``, a ``raise`` or a call exchanged or left out.  A fault is
written into the copy, for processes that the tests start, and into the functions of this process,
of which a fork runs the tests: so MMagic is imported once and not once for each fault.  What is
computed while tests are collected is therefore not under test.

What functions keep between calls (``lru_cache``) is forgotten before each test of the first run,
so that a line counts as reached by every test that needs it and not by the first one alone.
A file with a kernel (``jit``) is also under the tests of the file of its name, whose interpreter
runs it in a process of its own, where coverage does not look.
"""
import ast
import functools
import gc
import json
import os
import random
import re
import resource
import signal
import sys
import time
from pathlib import Path
from types import CodeType, FunctionType

import pytest

COMPARED = {ast.Lt: '<=', ast.LtE: '<', ast.Gt: '>=', ast.GtE: '>', ast.Eq: '!=', ast.NotEq: '==',
            ast.Is: 'is not', ast.IsNot: 'is', ast.In: 'not in', ast.NotIn: 'in'}
COMPUTED = {ast.Add: '-', ast.Sub: '+', ast.Mult: '/', ast.Div: '*', ast.FloorDiv: '*',
            ast.Mod: '*', ast.Pow: '*', ast.BitOr: '&', ast.BitAnd: '|', ast.LShift: '>>',
            ast.RShift: '<<', ast.MatMult: '+'}
QUIET = ('print', 'print_log', 'warn', 'debug')  # calls whose loss is a matter of words


class Fault:
    """One exchange of text in a file, which keeps the number of lines."""

    def __init__(self, file, source, start, end, new, kind, lines):
        self.file, self.kind, self.lines = file, kind, lines
        old = source[start:end]
        self.new_source = source[:start] + new + '\n' * (old.count('\n') - new.count('\n')) \
            + source[end:]
        self.line = source.count('\n', 0, start) + 1
        self.old, self.new = ' '.join(old.split()), ' '.join(new.split())
        self.text = ' '.join(source.splitlines()[self.line - 1].split())

    @property
    def key(self):
        """What names the fault as long as its line stays as it is."""
        return f'{self.file}: {self.text}: {self.old} -> {self.new}'

    def __str__(self):
        return f'{self.file}:{self.line}: {self.text}: {self.old} -> {self.new} ({self.kind})'


class _Finder(ast.NodeVisitor):
    """All faults of a file; only what is inside functions, and no docstrings or messages."""

    def __init__(self, file, source):
        self.file, self.source, self.found, self.depth, self.statement = file, source, [], 0, None
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.bytes = [line.encode() for line in source.splitlines()]
        self.visit(ast.parse(source))

    def at(self, line, column):
        return self.starts[line - 1] + len(self.bytes[line - 1][:column].decode())

    def span(self, node):
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)

    def add(self, start, end, new, kind):
        if self.depth:
            self.found.append(Fault(self.file, self.source, start, end, new, kind, self.statement))

    def between(self, left, right, old, new, kind):
        """Exchange the operator that stands between two operands."""
        start, end = self.span(left)[1], self.span(right)[0]
        text = self.source[start:end]
        if text.count(old) == 1 and '#' not in text:
            start += text.index(old)
            self.add(start, start + len(old), new, kind)

    def visit(self, node):
        if isinstance(node, ast.stmt):
            before = self.statement
            body = getattr(node, 'body', None)
            last = body[0].lineno - 1 if isinstance(body, list) and body else node.end_lineno
            self.statement = (node.lineno, max(last, node.lineno))
            super().visit(node)
            self.statement = before
        else:
            super().visit(node)

    def visit_FunctionDef(self, node):
        for decorator in (*node.decorator_list, node.args):
            depth, self.depth = self.depth, 0
            self.visit(decorator)
            self.depth = depth
        self.depth += 1
        body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
        for statement in body:
            self.visit(statement)
        self.depth -= 1

    def visit_ClassDef(self, node):
        depth, self.depth = self.depth, 0
        self.generic_visit(node)
        self.depth = depth

    def visit_JoinedStr(self, node):
        """Messages: their words are no behaviour, and columns inside them are not to be had."""

    def visit_Raise(self, node):
        self.add(*self.span(node), 'pass', 'raise')

    def visit_Assert(self, node):
        self.add(*self.span(node), 'pass', 'assert')

    def visit_Expr(self, node):
        call = node.value
        if isinstance(call, ast.Call):
            name = getattr(call.func, 'attr', getattr(call.func, 'id', ''))
            if name in QUIET:
                return
            self.add(*self.span(node), 'pass', 'statement')
        self.generic_visit(node)

    def visit_AugAssign(self, node):
        self.add(*self.span(node), 'pass', 'statement')
        self.generic_visit(node)

    def visit_Return(self, node):
        if node.value is not None and not (
                isinstance(node.value, ast.Constant) and node.value.value is None):
            self.add(*self.span(node.value), 'None', 'return')
        self.generic_visit(node)

    def visit_If(self, node):
        start, end = self.span(node.test)
        self.add(start, end, f'not ({self.source[start:end]})', 'condition')
        self.generic_visit(node)

    visit_While = visit_IfExp = visit_If

    def visit_Compare(self, node):
        left = node.left
        names = {ast.Lt: '<', ast.LtE: '<=', ast.Gt: '>', ast.GtE: '>=', ast.Eq: '==',
                 ast.NotEq: '!=', ast.Is: 'is', ast.IsNot: 'is not', ast.In: 'in',
                 ast.NotIn: 'not in'}
        for operator, right in zip(node.ops, node.comparators, strict=True):
            self.between(left, right, names[type(operator)], COMPARED[type(operator)],
                         'comparison')
            left = right
        self.generic_visit(node)

    def visit_BinOp(self, node):
        names = {ast.Add: '+', ast.Sub: '-', ast.Mult: '*', ast.Div: '/', ast.FloorDiv: '//',
                 ast.Mod: '%', ast.Pow: '**', ast.BitOr: '|', ast.BitAnd: '&', ast.LShift: '<<',
                 ast.RShift: '>>', ast.MatMult: '@'}
        words = any(isinstance(side, (ast.JoinedStr, ast.Constant))
                    and isinstance(getattr(side, 'value', ''), str)
                    for side in (node.left, node.right))
        if type(node.op) in COMPUTED and not words:
            self.between(node.left, node.right, names[type(node.op)], COMPUTED[type(node.op)],
                         'arithmetic')
        self.generic_visit(node)

    def visit_BoolOp(self, node):
        old, new = ('and', 'or') if isinstance(node.op, ast.And) else ('or', 'and')
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.between(left, right, old, new, 'boolean')
        self.generic_visit(node)

    def visit_UnaryOp(self, node):
        start = self.span(node)[0]
        if isinstance(node.op, ast.Not):
            self.add(start, start + 3, '   ', 'boolean')
        self.generic_visit(node)

    def visit_keyword(self, node):
        if node.arg != 'strict':  # of zip: an assertion, which holds
            self.generic_visit(node)

    def visit_Constant(self, node):
        value = node.value
        if isinstance(value, bool):
            self.add(*self.span(node), str(not value), 'constant')
        elif isinstance(value, (int, float)):
            self.add(*self.span(node), repr(value + 1), 'constant')


def candidates(path, root):
    """All faults of a file, also those that cannot be compiled."""
    return _Finder(path.relative_to(root).as_posix(), path.read_text()).found


def faults_of(path, root):
    """All faults of a file that can be compiled."""
    found = []
    for fault in candidates(path, root):
        try:
            compile(fault.new_source, path, 'exec')
        except SyntaxError:
            continue
        found.append(fault)
    return found


def codes(code):
    """(name, first line) -> code of all functions in a module's code; None where two are alike."""
    found, todo = {}, [code]
    while todo:
        for const in todo.pop().co_consts:
            if isinstance(const, CodeType):
                todo.append(const)
                key = const.co_name, const.co_firstlineno
                found[key] = None if key in found else const
    return found


def put_in(fault, root):
    """Give the functions of this process the code of a changed file; False if that cannot be."""
    path = str(root / fault.file)
    new = codes(compile(fault.new_source, path, 'exec'))
    changed = 0
    for function in [one for one in gc.get_objects() if type(one) is FunctionType]:
        code = function.__code__
        if code.co_filename != path:
            continue
        wanted = new.get((code.co_name, code.co_firstlineno))
        if wanted is None or wanted == code:
            continue
        try:
            function.__code__ = wanted
        except ValueError:  # of other variables of the function around it
            return False
        changed += 1
    return changed > 0


def processor_time():
    return sum(os.times()[:4])


def kept_results():
    """The caches of the package's functions that are there by now."""
    return [one for one in gc.get_objects() if type(one) is functools._lru_cache_wrapper
            and isinstance(one.__wrapped__, FunctionType)
            and '/mmpd/' in one.__wrapped__.__code__.co_filename]


class Watch:
    """Times of the tests, those that fail, and which test is running, for coverage."""

    def __init__(self, measured):
        self.measured, self.times, self.failed, self.caches = measured, {}, [], []

    def pytest_collection_finish(self):
        self.caches = kept_results()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        for cache in self.caches:
            cache.cache_clear()
        self.measured.switch_context(item.nodeid)
        begin = processor_time()
        result = yield
        self.times[item.nodeid] = processor_time() - begin
        return result

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.append(report.nodeid)


def child(function, output, seconds=None):
    """Run ``function`` in a fork, at most ``seconds`` of processor time.

    Returns:
        int: its exit code; -1 if it ran out of time or died, -2 if it did neither in thirty times
        as many seconds of the clock.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        if seconds:
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1,) * 2)
        code = 70
        try:
            code = int(function())
        except BaseException as error:
            print(repr(error), flush=True)
        finally:
            sys.stdout.flush()
            os._exit(code)
    end = time.monotonic() + (30 * seconds if seconds else 7200)  # of waiting, on a busy machine
    status = None
    while status is None and time.monotonic() < end:
        done, state = os.waitpid(pid, os.WNOHANG)
        status = state if done else time.sleep(0.02)
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    if status is None:
        os.waitpid(pid, 0)
        return -2
    return os.waitstatus_to_exitcode(status) if not os.WIFSIGNALED(status) else -1


def measure(tests, data, log):
    """Run the tests once under coverage; their data and times go to ``data``."""
    import coverage

    def run():
        measured = coverage.Coverage(data_file=str(data), config_file='pyproject.toml')
        measured.set_option('run:parallel', False)
        measured.set_option('run:branch', False)  # it takes its time
        measured.set_option('run:core', 'ctrace')  # Python 3.14's default tells of one test a line
        measured.set_option('run:patch', [])
        watch = Watch(measured)
        measured.start()
        code = pytest.main(['-q', '-p', 'no:cacheprovider', '-p', 'no:xdist', *tests],
                           plugins=[watch])
        measured.stop()
        measured.save()
        Path(f'{data}.json').write_text(json.dumps(dict(times=watch.times, failed=watch.failed)))
        return code
    return child(run, log)


def reaching(data, root):
    """file -> line -> tests, and the time of each test; without those that fail."""
    import coverage
    noted = json.loads(Path(f'{data}.json').read_text())
    stored = coverage.CoverageData(str(data))
    stored.read()
    lines = {}
    for name in stored.measured_files():
        at = name.rfind('/mmpd/')
        lines[name[at + 1:]] = {
            line: {test for test in tests if test and test in noted['times']} - {*noted['failed']}
            for line, tests in stored.contexts_by_lineno(name).items()}
    return lines, noted['times'], noted['failed']


def tests_of(fault, lines, times, root):
    """The tests that reach the statement of a fault, see above for kernels."""
    found = set().union(*(lines.get(fault.file, {}).get(line, ())
                          for line in range(fault.lines[0], fault.lines[1] + 1)))
    if re.search(r'^ *@\w*\.?jit\b', (root / fault.file).read_text(), re.MULTILINE):
        found |= {test for test in times if f'/test_{Path(fault.file).name}::' in test}
    return found


def try_out(fault, tests, root, log, seconds):
    """What the tests say of a fault: 'killed', 'survived', or None if it cannot be put in.

    Tests that die or use up their time have noticed it too. 'hung' is printed: they wait for
    something, or for the machine.
    """
    path = root / fault.file
    source = path.read_text()

    def run():
        if not put_in(fault, root):
            return 90
        # not a time of the clock, of which a busy machine may take any
        return pytest.main(['-x', '-q', '-p', 'no:cacheprovider', '-p', 'no:xdist', '-p',
                            'no:timeout', *tests])

    path.write_text(fault.new_source)
    try:
        code = child(run, log, seconds)
    finally:
        path.write_text(source)
    if code not in (0, 1, 90, -1, -2):  # no verdict of a test
        raise SystemExit(f'error: pytest ends with {code} at {fault}; its last words:\n'
                         + log.read_text()[-3000:])
    return {0: 'survived', 90: None, -2: 'hung'}.get(code, 'killed')


def chosen_tests(tests, times, budget):
    """The quick ones first, as many as ``budget`` seconds take, but three at least."""
    ordered, spent = [], 0
    for test in sorted(tests, key=lambda test: (times[test], test)):
        if len(ordered) >= 3 and spent + times[test] > budget:
            break
        spent += times[test]
        ordered.append(test)
    return ordered, spent


def run(root, files, tests, sample, seed, budget, data, known, only=()):
    """Draw faults and try them; prints each, and the share killed.

    Args:
        root (Path): The copy.
        files (list[Path]): Where to draw.
        tests (list[str]): What runs without a fault.
        sample (int): How many faults.
        seed (int): Of the draw.
        budget (float): Seconds of processor time for the tests of one fault.
        data (Path): Coverage of the run without a fault; made if it is not there.
        known (dict): key of a fault -> reason why it changes nothing.
        only (Sequence[str]): Keys of faults to try instead of drawing.

    Returns:
        tuple[int, int, int]: killed, tried, and drawn among ``known``.
    """
    root, data = Path(root), Path(data)
    log = root / 'mutant.log'
    sys.path.insert(0, str(root))
    sys.path.insert(0, str(root / 'tests'))
    quiet = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    code = pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider', '-p', 'no:xdist',
                        *tests])
    sys.stdout.flush()
    os.dup2(quiet, 1)
    if code:
        raise SystemExit(f'error: pytest --collect-only {" ".join(tests)} ends with {code}')
    if not Path(f'{data}.json').exists():
        measure(tests, data, log)
    lines, times, failed = reaching(data, root)
    for test in failed:
        print(f'left out, for it fails without a fault: {test}')
        times.pop(test, None)
    faults = [fault for path in files for fault in faults_of(path, root)]
    random.Random(seed).shuffle(faults)
    if only:
        faults = [fault for fault in faults if any(one in str(fault) for one in only)]
    killed, tried, equivalent = 0, 0, 0
    for fault in faults:
        if tried + equivalent == sample:
            break
        if fault.key in known:
            equivalent += 1
            continue
        reached_by = tests_of(fault, lines, times, root)
        picked, spent = chosen_tests(reached_by, times, budget)
        verdict = 'not reached' if not picked else try_out(
            fault, picked, root, log, 20 + 10 * spent)
        if verdict is None:
            continue
        tried += 1
        killed += verdict in ('killed', 'hung')
        if verdict != 'killed':
            print(f'{verdict.upper()} (seen by {len(reached_by)} tests, {len(picked)} run): '
                  f'{fault}', flush=True)
    return killed, tried, equivalent


TOOLS = 'tests/test_tools/'
# package -> tests that mirror it
PACKAGES = dict(
    apis=['tests/test_apis', TOOLS + 'test_infer.py'],
    cli=['tests/test_cli'] + [TOOLS + f'test_{name}.py' for name in (
        'train_test_tools', 'wrong_configs', 'checkpoint_matching', 'make_consistent',
        'make_consistent_more', 'identify_tool', 'dataset_converters', 'infer', 'processes',
        'console_scripts', 'web_command', 'model_converters', 'survival')] + [
            'tests/test_apis/test_export.py', 'tests/test_datasets/test_preparation'],
    compat=['tests/test_compat'],
    datasets=['tests/test_datasets', TOOLS + 'test_dataset_converters.py'],
    engine=['tests/test_engine', TOOLS + 'test_train_test_tools.py'],
    evaluation=['tests/test_evaluation'],
    models=['tests/test_models'],
    operators=['tests/test_operators'],
    postprocess=['tests/test_postprocess'],
    testing=['tests/test_testing', 'tests/test_operators/test_operator_suite.py'],
    utils=['tests/test_utils'],
    visualization=['tests/test_visualization'],
    web=['tests/test_web'],
)


def main(argv):
    """In a copy of the repository: its folder, the package, sample, seed, budget, baseline, keys.
    """
    root, package, sample, seed, budget, data, *only = argv
    root = Path(root)
    known = json.loads((root / 'tests/data/equivalent_mutants.json').read_text())
    files = sorted((root / 'mmpd' / package).rglob('*.py'))
    begin = time.monotonic()
    killed, tried, equivalent = run(
        root, files, PACKAGES[package], int(sample), int(seed), float(budget), data, known, only)
    print(f'mmpd/{package}: {killed} of {tried} faults found'
          + (f', {killed / tried:.0%}' if tried else '')
          + f'; {equivalent} more drawn that change nothing; {time.monotonic() - begin:.0f} s')
    return 0 if tried and killed >= 0.9 * tried else 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
