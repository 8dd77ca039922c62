"""What the benchmarks share: two things timed in one run, and where and of what that was."""
import datetime
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..utils.files import write_atomically

__all__ = ['describe', 'interleaved', 'measured', 'photographs', 'provenance', 'ratios', 'spread',
           'write_report']

ROOT = Path(__file__).resolve().parents[2]


def _cpu_name():
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()


def _commit():
    try:
        run = subprocess.run(['git', 'describe', '--always', '--dirty'], cwd=ROOT, check=True,
                             capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return 'not under git'
    return run.stdout.strip()


def provenance(*packages):
    """Machine, its load, date, commit and versions, for a report.

    Args:
        packages (str): Names of distributions; those not installed are left out.

    Returns:
        dict: ``machine``, ``cores``, ``load`` (mean number of running processes in the last
        minute, this one included), ``date``, ``commit``, ``versions``.

    Example:
        >>> from mmpd.cli.benchmark import provenance
        >>> sorted(provenance('numpy'))
        ['commit', 'cores', 'date', 'load', 'machine', 'versions']
    """
    versions = dict(python=platform.python_version())
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return dict(machine=_cpu_name(), cores=os.cpu_count(), load=round(os.getloadavg()[0], 1),
                date=datetime.date.today().isoformat(), commit=_commit(), versions=versions)


def describe(report):
    """:func:`provenance` in a sentence.

    Example:
        >>> from mmpd.cli.benchmark import describe
        >>> describe(dict(machine='CPU', cores=2, load=1.5, date='2026-12-01', commit='abc',
        ...               versions=dict(python='3.12')))
        'CPU, 2 cores, load 1.5, 2026-12-01, commit abc; python 3.12.'
    """
    versions = ', '.join(f'{name} {number}' for name, number in report['versions'].items())
    return (f"{report['machine']}, {report['cores']} cores, load {report['load']}, "
            f"{report['date']}, commit {report['commit']}; {versions}.")


def measured(function):
    """(wall seconds, CPU seconds) of a call, with the processes that it starts and ends.

    Example:
        >>> from mmpd.cli.benchmark import measured
        >>> len(measured(lambda: sum(range(10))))
        2
    """
    def cpu():
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in used)
    before, start = cpu(), time.perf_counter()
    function()
    return time.perf_counter() - start, cpu() - before


def interleaved(functions, rounds, warm_up=1, measure=measured):
    """Time several functions in one process, in a new random order in every round.

    All of them meet the same state of caches and the same neighbours, so the ratio within a round
    says more than that of two runs.

    Args:
        functions (dict[str, Callable]): By name, without arguments.
        rounds (int): How many.
        warm_up (int): Rounds before, not counted.
        measure (Callable): Makes a measurement of a function.

    Returns:
        dict[str, list]: The measurements of all rounds by name.

    Example:
        >>> from mmpd.cli.benchmark import interleaved
        >>> times = interleaved(dict(ours=lambda: 1, peer=lambda: 2), rounds=3)
        >>> {name: len(values) for name, values in times.items()}
        {'ours': 3, 'peer': 3}
    """
    times, order, rng = {name: [] for name in functions}, list(functions), random.Random(0)
    for done in range(rounds + warm_up):
        rng.shuffle(order)
        for name in order:
            value = measure(functions[name])
            if done >= warm_up:
                times[name].append(value)
    return times


def spread(values):
    """Median and quartiles.

    Example:
        >>> from mmpd.cli.benchmark import spread
        >>> spread([1., 2., 3., 4., 5.])
        {'median': 3.0, 'q1': 2.0, 'q3': 4.0}
    """
    if len(values) < 2:
        return dict(median=values[0], q1=values[0], q3=values[0])
    q1, _, q3 = statistics.quantiles(values, n=4, method='inclusive')
    return dict(median=statistics.median(values), q1=q1, q3=q3)


def ratios(above, below):
    """:func:`spread` of the quotients of two measurements, round by round.

    Example:
        >>> from mmpd.cli.benchmark import ratios
        >>> ratios([2., 4.], [1., 2.])['median']
        2.0
    """
    return spread([a / b for a, b in zip(above, below, strict=True)])


def photographs(count, width, height):
    """Pictures of a natural weight as files: scikit-image's, resized, with noise as of a sensor.

    Yields:
        ndarray: uint8, (height, width, 3), BGR.

    Example:
        >>> from mmpd.cli.benchmark import photographs
        >>> [picture.shape for picture in photographs(2, 32, 24)]
        [(24, 32, 3), (24, 32, 3)]
    """
    import cv2
    import numpy as np
    from skimage import data
    rng = np.random.default_rng(0)
    photos = [data.astronaut(), data.coffee()[:, 100:500], data.chelsea()[:, 50:350]]
    for index in range(count):
        picture = cv2.resize(photos[index % len(photos)][..., ::-1], (width, height),
                             interpolation=cv2.INTER_CUBIC)
        yield (picture + rng.normal(0, 2, picture.shape)).clip(0, 255).astype(np.uint8)


def write_report(out, report, text):
    """OUT.json and OUT.md; ``text`` is Markdown.

    Args:
        out (Path | None): Without suffix; None writes nothing.

    Example:
        >>> from pathlib import Path
        >>> from mmpd.cli.benchmark import write_report
        >>> write_report(Path('speed'), dict(ratio=1.0), '# Speed')
        >>> Path('speed.md').read_text()
        '# Speed\\n'
    """
    if out is None:
        return
    for suffix, content in (('.json', json.dumps(report, indent=1)), ('.md', text.rstrip())):
        write_atomically(out.with_name(out.name + suffix), f'{content}\n'.encode())
