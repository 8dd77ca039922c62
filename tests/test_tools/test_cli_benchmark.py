"""What benchmarks share: machine and versions, times, pictures, reports."""
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

benchmark = pytest.importorskip('mmpd.cli.benchmark')


def test_where_and_of_what_a_benchmark_is(monkeypatch):
    monkeypatch.setattr(benchmark, 'Path', lambda path: SimpleNamespace(
        read_text=lambda: 'model name\t: A: 2 GHz\nmodel name: B\n'))
    monkeypatch.setattr(os, 'getloadavg', lambda: (1.26, 7, 9))
    asked = []

    def run(command, **options):
        asked.append((command, options['cwd']))
        return SimpleNamespace(stdout='abc-dirty\n')
    monkeypatch.setattr(subprocess, 'run', run)
    report = benchmark.provenance('numpy', 'none-of-this-name', 'torch')
    assert report['machine'] == 'A: 2 GHz' and report['load'] == 1.3
    assert report['commit'] == 'abc-dirty' and asked[0][1] == Path(__file__).parents[2]
    assert list(report['versions']) == ['python', 'numpy', 'torch']
    assert report['cores'] == os.cpu_count() and len(report['date']) == 10

    def absent(*args, **options):
        raise FileNotFoundError
    for name, place in (('Path', benchmark), ('run', subprocess)):
        monkeypatch.setattr(place, name, absent)
    report = benchmark.provenance()
    assert report['machine'] and report['commit'] == 'not under git'


def test_times_of_calls(monkeypatch):
    clock = iter((10., 12.5))
    used = iter(SimpleNamespace(ru_utime=user, ru_stime=system)
                for user, system in ((1, 2), (3, 4), (2, 4), (6, 8)))  # own, of children; twice
    monkeypatch.setattr(benchmark.time, 'perf_counter', lambda: next(clock))
    monkeypatch.setattr(benchmark.resource, 'getrusage', lambda who: next(used))
    called = []
    assert benchmark.measured(lambda: called.append(1)) == (2.5, 10) and called == [1]


def test_a_warm_up_is_not_counted():
    numbers = iter(range(100))
    times = benchmark.interleaved(dict(a=None, b=None), rounds=3, warm_up=2,
                                  measure=lambda function: next(numbers))
    assert sorted(times['a'] + times['b']) == list(range(4, 10))
    once = benchmark.interleaved(dict(a=None), rounds=1, measure=lambda function: 1)
    assert once == dict(a=[1])
    assert benchmark.ratios([3., 8.], [1., 2.])['median'] == 3.5
    with pytest.raises(ValueError, match='zip'):
        benchmark.ratios([1.], [1., 2.])


def test_pictures_of_a_natural_weight():
    first, again = (list(benchmark.photographs(4, 40, 30)) for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert all(one.shape == (30, 40, 3) and one.dtype == np.uint8 for one in first)
    rough = first[0].astype(float) - first[3]  # the same motif, with noise of its own
    assert 1 < rough.std() < 5 and abs(first[1].astype(float) - first[0]).mean() > 20
    from skimage import data
    small = data.astronaut()[..., ::-1].reshape(-1, 3).mean(0)  # BGR
    assert abs(first[0].reshape(-1, 3).mean(0) - small).max() < 4


@pytest.mark.parametrize('level, low, high', [(0, 0, 12), (128, 110, 146), (255, 243, 255)])
def test_noise_of_pictures_stays_in_the_range(monkeypatch, level, low, high):
    from skimage import data
    for name in ('astronaut', 'coffee', 'chelsea'):
        monkeypatch.setattr(data, name, lambda: np.full((500, 600, 3), level, np.uint8))
    picture, = benchmark.photographs(1, 64, 64)
    assert low <= picture.min() < picture.max() <= high
    if level == 128:
        assert abs(picture.mean() + 0.5 - level) < 0.3 and 1.5 < picture.std() < 2.5
    else:
        assert (picture == level).mean() > 0.2


def test_reports_are_two_files(tmp_path):
    benchmark.write_report(tmp_path / 'a.b', dict(x=[1]), 'text\n\n')
    assert (tmp_path / 'a.b.md').read_text() == 'text\n'
    assert (tmp_path / 'a.b.json').read_text() == '{\n "x": [\n  1\n ]\n}\n'
    benchmark.write_report(None, {}, '')
    assert len(list(tmp_path.iterdir())) == 2
