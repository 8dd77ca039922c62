"""The benchmarks of speed run at tiny sizes, and the page about them says what they found."""
import mmpd  # noqa: F401  isort: skip  (its stand-ins come before mmagic's models)
import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, load_script


def script(name):
    return load_script(f'tools/benchmark/{name}.py')


@pytest.fixture(scope='module')
def measuring():
    return script('measuring')


@pytest.fixture(scope='module')
def overview():
    return script('overview')


def results(out):
    return json.loads(out.with_suffix('.json').read_text()), out.with_suffix('.md').read_text()


def test_functions_take_turns(measuring):
    calls = []
    times = measuring.interleaved({name: lambda n=name: calls.append(n) for name in 'abc'}, 8, 60)
    rounds = [calls[start:start + 3] for start in range(3, len(calls), 3)]
    assert [sorted(one) for one in rounds] == [list('abc')] * 8 and len(set(map(tuple, rounds))) > 1
    assert {name: len(values) for name, values in times.items()} == dict.fromkeys('abc', 8)
    assert measuring.interleaved({'a': lambda: time.sleep(0.01)}, 99, 0, least_rounds=2)['a'][1:]


def test_statistics_and_ratios(measuring):
    row = measuring.summary([4., 1., 2., 3., 5.])
    assert row == dict(median=3, low=2, high=4, least=1, rounds=5)
    assert measuring.summary([2.]) == dict(median=2, low=2, high=2, least=2, rounds=1)
    assert measuring.ratio([2., 9., 4.], [1., 3., 1.])['median'] == 3  # pairs: 2, 3, 4
    assert measuring.spread(row) == '3.00 (2.00 to 4.00)'


def test_where_and_of_what_a_benchmark_is(measuring, monkeypatch):
    path = SimpleNamespace(is_file=lambda: True,
                           read_text=lambda: 'model name\t: A: 2 GHz\nmodel name: B\n')
    monkeypatch.setattr(measuring, 'Path', lambda name: path)
    monkeypatch.setattr(os, 'getloadavg', lambda: (1.26, 7, 9))
    answers, asked = iter(('abc', ' M file')), []

    def run(command, **options):
        if command[0] != 'git':  # Python's own platform module
            return SimpleNamespace(stdout='')
        asked.append(command)
        return SimpleNamespace(stdout=next(answers) + '\n')
    monkeypatch.setattr(subprocess, 'run', run)
    report = measuring.environment(['--x', 1], 'tool.py')
    assert report['machine'] == f'A: 2 GHz, {os.cpu_count()} cores' and report['load'] == 1.26
    assert report['commit'] == 'abc-dirty' and asked[0][:3] == ['git', '-C', str(measuring.ROOT)]
    assert report['versions']['numpy'] == np.__version__ and len(report['date']) == 10
    assert report['command'] == 'python tool.py --x 1' and report['device'] == 'cpu'

    def absent(*args, **options):
        raise FileNotFoundError
    monkeypatch.setattr(subprocess, 'run', absent)
    path.is_file = lambda: False
    report = measuring.environment(None, 'tool.py', machine='mine')
    assert report['machine'] == 'mine' and report['commit'] is None
    assert measuring.processor().endswith(f', {os.cpu_count()} cores')


def test_times_of_calls(measuring, monkeypatch):
    clock = iter((10., 12.5))
    used = iter(SimpleNamespace(ru_utime=user, ru_stime=system)
                for user, system in ((1, 2), (3, 4), (2, 4), (6, 8)))  # own, of children; twice
    monkeypatch.setattr(measuring.time, 'perf_counter', lambda: next(clock))
    monkeypatch.setattr(measuring.resource, 'getrusage', lambda who: next(used))
    called = []
    assert measuring.measured(lambda: called.append(1)) == (2.5, 10) and called == [1]


def test_a_warm_up_is_not_counted(measuring):
    numbers = iter(range(100))
    times = measuring.interleaved(dict(a=None, b=None), rounds=3, warm_up=2,
                                  measure=lambda function: next(numbers))
    assert sorted(times['a'] + times['b']) == list(range(4, 10))
    once = measuring.interleaved(dict(a=None), rounds=1, measure=lambda function: 1)
    assert once == dict(a=[1])
    assert measuring.ratio([3., 8.], [1., 2.])['median'] == 3.5
    with pytest.raises(ValueError, match='zip'):
        measuring.ratio([1.], [1., 2.])


def test_pictures_of_a_natural_weight(measuring):
    first, again = (list(measuring.photographs(4, 40, 30)) for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert all(one.shape == (30, 40, 3) and one.dtype == np.uint8 for one in first)
    rough = first[0].astype(float) - first[3]  # the same motif, with noise of its own
    assert 1 < rough.std() < 5 and abs(first[1].astype(float) - first[0]).mean() > 20
    from skimage import data
    small = data.astronaut()[..., ::-1].reshape(-1, 3).mean(0)  # BGR
    assert abs(first[0].reshape(-1, 3).mean(0) - small).max() < 4


@pytest.mark.parametrize('level, low, high', [(0, 0, 12), (128, 110, 146), (255, 243, 255)])
def test_noise_of_pictures_stays_in_the_range(measuring, monkeypatch, level, low, high):
    from skimage import data
    for name in ('astronaut', 'coffee', 'chelsea'):
        monkeypatch.setattr(data, name, lambda: np.full((500, 600, 3), level, np.uint8))
    picture, = measuring.photographs(1, 64, 64)
    assert low <= picture.min() < picture.max() <= high
    if level == 128:
        assert abs(picture.mean() + 0.5 - level) < 0.3 and 1.5 < picture.std() < 2.5
    else:
        assert (picture == level).mean() > 0.2


def test_reports_are_two_files(measuring, tmp_path, capsys):
    assert measuring.publish(dict(x=[1]), 'text\n\n', tmp_path / 'a.b') == 0
    assert (tmp_path / 'a.b.md').read_text() == 'text\n'
    assert (tmp_path / 'a.b.json').read_text() == '{\n "x": [\n  1\n ]\n}\n'
    assert measuring.publish({}, 'more') == 0 and len(list(tmp_path.iterdir())) == 2
    assert capsys.readouterr().out == 'text\n\n\nmore\n'


def test_busy_processes_end_with_the_block_and_with_the_benchmark(measuring):
    def running(pid):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        with open(f'/proc/{pid}/stat') as file:
            return file.read().split()[2] != 'Z'

    def gone(child):
        deadline = time.monotonic() + 20
        while running(child) and time.monotonic() < deadline:
            time.sleep(0.05)
        return not running(child)

    with measuring.busy(1) as (process, ):
        assert running(process.pid)
    assert gone(process.pid)
    code = ('import sys, time; sys.path.insert(0, "tools/benchmark"); import measuring\n'
            'with measuring.busy(1) as processes:\n'
            '    print(processes[0].pid, flush=True)\n    time.sleep(60)')
    benchmark = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, text=True,
                                 stdout=subprocess.PIPE)
    child = int(benchmark.stdout.readline())
    assert running(child)
    benchmark.kill()
    benchmark.wait()
    assert gone(child)


def test_pd_under_load(tmp_path):
    tool = script('pd_load')
    out, before = tmp_path / 'load', torch.get_num_threads()
    assert tool.main([
        '--sizes', '32', '--batches', '1', '--threads', '1', '2', '--busy', '0', '--rounds', '2',
        '--out', str(out)]) == 0
    report, text = results(out)
    assert torch.get_num_threads() == before
    assert [(case['threads'], case['busy']) for case in report['cases']] == [(1, 0), (2, 0)]
    for case in report['cases']:
        assert set(case['methods']) == {'clone', *(name for pair in tool.PAIRS for name in pair)}
        assert len(case['gain']) == 2 and case['clones']['median'] > 1
    assert '## 2 threads, 0 busy processes' in text and report['versions']['torch'] in text


def test_what_is_compared_under_load_is_the_same():
    tool = script('pd_load')
    x, y = torch.rand(2, 3, 32, 48), torch.rand(2, 3, 4, 6)
    found = {name: function() for name, function in tool.methods(x, y, 8).items()}
    for peer, ours in tool.PAIRS:
        torch.testing.assert_close(found[ours], found[peer], rtol=0, atol=1e-6)


def test_rounding(tmp_path):
    out = tmp_path / 'rounding'
    assert script('rounding').main([
        '--size', '64', '--scales', '4', '--kernels', 'bicubic', '--libraries', 'float', 'pil',
        '--rounds', '1', '--out', str(out)]) == 0
    report, text = results(out)
    assert [(case['kind'], case['library']) for case in report['cases']] == [
        ('pooling', 'float'), ('separable', 'float'), ('separable', 'pil'), ('separable', 'float')]
    assert all(case['ms']['median'] > 0 for case in report['cases'])
    assert [case['unmatched'] for case in report['cases'][:3]] == [0, 0, 0]
    assert "kernel='bicubic', antialias=True)` | pil |" in text


def test_imports_by_package(tmp_path):
    tool = script('imports')
    assert tool.by_package('import time:      1500 |       2000 |   torch.nn\n'
                           'import time: self [us] | cumulative | imported package\n'
                           'import time:       500 |       3000 | torch\n') == {'torch': 0.002}
    out = tmp_path / 'imports'
    # a module that nothing has loaded before, coverage's start included
    assert tool.main(['--statement', 'import pydoc_data.topics', '--runs', '2', '--no-step',
                      '--out', str(out)]) == 0
    report, text = results(out)
    assert report['imports']['pydoc_data']['rounds'] == 2 and '| `pydoc_data` |' in text
    assert report['imports']['all']['median'] >= report['imports']['pydoc_data']['median']


@pytest.mark.slow
def test_inference_of_narrow_networks(tmp_path):
    out = tmp_path / 'inference'
    arguments = ['--in-size', '4', '--out-size', '8', '--tiny', '--work-dir', str(tmp_path)]
    assert script('inference').main([*arguments, '--prepare']) == 0
    graph, = tmp_path.glob('*.onnx')
    made = graph.stat().st_mtime_ns
    assert script('inference').main([*arguments, '--rounds', '2', '--out', str(out)]) == 0
    assert graph.stat().st_mtime_ns == made
    report, text = results(out)
    rows = report['rows']
    assert set(rows) == {'MMagic', 'ours', 'convolutions alone', 'ours, as built',
                         'ours, bfloat16', 'ours, ONNX Runtime'}
    assert rows['ours, ONNX Runtime']['decibels'] > 80
    assert report['convolutions'] > 20 and 'no result' in text
    assert rows['ours']['decibels'] is None or rows['ours']['decibels'] > 80
    assert 20 < rows['ours, bfloat16']['decibels'] < 80


def test_convolutions_alone_are_those_of_the_network():
    tool = script('inference')
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2), torch.nn.ReLU(),
                                  torch.nn.ConvTranspose2d(4, 2, 2), torch.nn.Conv2d(2, 2, 1))
    run, count = tool.convolutions_alone(network, torch.rand(1, 3, 9, 9))
    assert count == 3
    with tool.Convolutions() as seen:
        run()
    assert sum(seen.found.values()) == 3
    shapes = [key[0][0] for key in seen.found]
    assert (1, 3, 9, 9) in shapes and (1, 4, 4, 4) in shapes


@pytest.mark.parametrize('sections', [
    ('pd', 'rounding', 'ops'),
    pytest.param(('inference', 'training', 'several'), marks=pytest.mark.slow)], ids='-'.join)
def test_the_gpu_script_on_a_cpu(sections, tmp_path):
    out = tmp_path / 'gpu'
    assert script('gpu').main(['--device', 'cpu', '--quick', '--sections', *sections, '--out',
                               str(out)]) == 0
    report, text = results(out)
    assert list(report['sections']) == list(sections)
    for name, found in report['sections'].items():
        assert 'failed' not in found, (name, found)
    assert '**Tiny sizes, to try the script out: no result.**' in text


def test_where_the_triton_kernels_win_is_told(tmp_path, monkeypatch):
    """With stand-ins for the kernels: one of them slower than plain, the other failing."""
    from mmpd.compat import triton_ops
    from mmpd.utils.triton_trust import Trust
    tool, on = script('gpu'), []

    def activate(plain, *arguments):
        on.append(triton_ops.switched_on())
        plain(*arguments)
        return plain(*arguments) * (1 + 2**-10)

    def resample(*_):
        triton_ops.RESAMPLING.failures[torch.device('cpu')] = RuntimeError('no compiler')

    monkeypatch.setenv('MMPD_TRITON_OPS', '0')
    for name, value in dict(RESAMPLING=Trust('its kernel'), activate=activate, resample=resample,
                            can_activate=lambda *_: True, can_resample=lambda *_: True).items():
        monkeypatch.setattr(triton_ops, name, value)
    out = tmp_path / 'gpu'
    assert tool.main(['--device', 'cpu', '--quick', '--sections', 'ops', '--out', str(out)]) == 0
    assert on and all(on) and os.environ['MMPD_TRITON_OPS'] == '0' and not triton_ops.switched_on()
    report, text = results(out)
    rows = report['sections']['ops']['result']
    uses = ('blur', '2 x up', '2 x down', 'bias, leaky ReLU', 'its gradient')
    assert [(row['dtype'], row['use']) for row in rows] == [
        (dtype, use) for dtype in ('float32', 'bfloat16') for use in uses]
    for row in rows:
        activated = row['use'] in uses[3:]
        assert set(row['share']) == ({'plain', 'Triton'} if activated else {'plain'})
        assert (row['gain'] is not None) == activated
        assert row['failed'] == (None if activated else 'RuntimeError: no compiler')
        if activated and row['dtype'] == 'float32':
            assert row['apart'] == pytest.approx(2**-10, rel=1e-3) and row['gain']['median'] < 1
    assert 'blur: no Triton kernel ran' in text and 'Not measured: RuntimeError: no comp' in text
    assert 'its gradient: Triton is the faster in 0 of 2 cases' in text


def test_bytes_of_the_copy_are_those_of_the_op():
    from mmpd.compat import ext_ops
    for op, arguments, moved in script('gpu').uses_of_ops(
            (2, 3, 8, 8), torch.float32, 'cpu').values():
        out = getattr(ext_ops, op)(*arguments)
        images = [one for one in arguments if getattr(one, 'ndim', 0) == 4]
        assert moved == out.numel() + sum(image.numel() for image in images)


def test_the_gpu_script_goes_on_after_a_failure_and_stops_in_time(tmp_path, monkeypatch):
    tool = script('gpu')

    def fails(args, setting):
        """Fails."""
        raise RuntimeError('no kernel image\nis available')

    monkeypatch.setitem(tool.SECTIONS, 'pd', fails)
    out = tmp_path / 'gpu'
    arguments = ['--device', 'cpu', '--quick', '--sections', 'pd', 'ops', '--out', str(out)]
    assert tool.main(arguments) == 0
    report, text = results(out)
    assert report['sections']['pd'] == dict(failed='RuntimeError: no kernel image')
    assert 'result' in report['sections']['ops'] and 'Not measured: RuntimeError' in text
    assert tool.main([*arguments, '--minutes', '0']) == 0
    assert 'Not measured: more than 0 minutes' in results(out)[1]


@pytest.mark.parametrize('name, arguments, message', [
    pytest.param('gpu', [], 'torch finds no CUDA device', marks=pytest.mark.skipif(
        torch.cuda.is_available(), reason='there is one')),
    ('gpu', ['--device', 'cpu'], 'expected --quick as well'),
    ('gpu', ['--device', 'cpu', '--quick', '--out', 'nowhere/x'], 'does not exist'),
    ('pd_load', ['--sizes', '100'], 'expected multiples of --scales'),
    ('pd_load', ['--threads', '0'], 'positive integers'),
    ('pd_load', ['--busy', '-1'], 'no negative number'),
    ('rounding', ['--size', '100'], 'expected a multiple of --scales'),
    ('rounding', ['--image', 'nosuch.png'], 'no such file'),
    ('inference', ['--rounds', '0'], 'positive integers'),
    ('inference', ['--work-dir', 'nowhere'], 'no such folder'),
    ('inference', ['--prepare'], 'expected --work-dir as well'),
    ('imports', ['--runs', '0'], 'a positive integer'),
])
def test_bad_arguments(name, arguments, message, capsys):
    with pytest.raises(SystemExit) as info:
        script(name).main(arguments)
    error = capsys.readouterr().err
    assert info.value.code == 2 and message in error and 'Traceback' not in error


def test_the_page_is_what_the_results_give(overview):
    assert overview.main(['--check']) == 0


def test_what_is_said_of_inference_was_measured():
    rows = json.loads((ROOT / 'docs/benchmark_inference.json').read_text())['rows']
    text = ' '.join((ROOT / 'docs/inference.md').read_text().split())
    fast, usual, onnx = (f'{rows[name]["against_mmagic"]["median"]:.1f} times' for name in (
        'ours, bfloat16', 'ours', 'ours, ONNX Runtime'))
    assert f"is {fast} as fast as MMagic's (in float32 {usual})" in text
    assert f'raw output {rows["ours, bfloat16"]["decibels"]:.0f} dB from' in text
    assert f"{onnx} MMagic's speed" in text


def test_what_theory_says_of_time_was_measured():
    report = json.loads((ROOT / 'docs/benchmark_pd_head.json').read_text())
    names = ('clone', 'ours', 'ours in place', 'paper formula', 'CEM')
    rows = ['| ' + ' | '.join([f'{case["size"]}²', *(
        f'{case["methods"][name]["least_ms"]:.3g} ms' for name in names)]) + ' |'
        for case in report['cases'] if (case['scale'], case['batch']) == (8, 1)]
    text = (ROOT / 'docs/theory.md').read_text()
    table = text.partition('| 8×, batch 1 | bare copy |')[2].partition('\n\n')[0]
    assert rows and table.splitlines()[2:] == rows
    assert f'one thread, {report["date"]}' in text and report['threads'] == 1


def test_the_page_states_ratios_and_what_is_missing(overview, measuring, tmp_path, monkeypatch):
    found = measuring.environment([], 'tools/benchmark/pd_load.py')
    row = measuring.summary([1., 2., 3.])
    found['clock'] = 'wall'
    found['cases'] = [dict(batch=1, size=512, scale=8, threads=2, busy=2, gain=[row, row],
                           clones=row, methods={'ours': row, 'plain formula': row})]
    text = overview.page(dict(benchmark_pd_load=found, benchmark_gpu=dict(quick=True)))
    assert '| 512², 8×, batch 1 | 2, 2 |' in text and '2.00 (1.50 to 2.50)' in text
    assert f'commit {found["commit"]}; {found["date"]}' in text
    missing = text.partition('## Not measured')[2].partition('## ')[0]
    assert 'tools/benchmark/gpu.py --out docs/benchmark_gpu' in missing  # a rehearsal is no result
    assert 'On a GPU' in missing and 'CPU inference' in missing and 'PD under load' not in missing
    monkeypatch.setattr(overview, 'DOCS', tmp_path)
    assert overview.main(['--check', '--out', str(tmp_path / 'benchmarks.md')]) == 1
