"""What the benchmarks share: functions timed in turns, statistics, and what was measured where.

Imported by the scripts of this folder and by tools/analysis_tools/benchmark_converter.py, which add
it to the path; it needs torch alone, :func:`photographs` OpenCV and scikit-image.
"""
import datetime
import importlib.metadata
import json
import math
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ('mmpd', 'torch', 'torchvision', 'numpy', 'mmengine', 'mmcv', 'mmcv-lite', 'mmagic',
             'pillow', 'opencv-python', 'onnxruntime', 'triton')


def synchronize(device):
    """Wait for what is queued on a CUDA device."""
    if str(device).startswith('cuda'):
        torch.cuda.synchronize()


def measured(function):
    """(wall seconds, CPU seconds) of a call, with the processes that it starts and ends."""
    def cpu():
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in used)
    before, start = cpu(), time.perf_counter()
    function()
    return time.perf_counter() - start, cpu() - before


def interleaved(functions, rounds, seconds=math.inf, device='cpu', clock=time.perf_counter,
                least_rounds=3, warm_up=1, measure=None):
    """Times of functions in ms, each round in a new random order.

    So all meet the same state of caches and the same neighbours, and the times of one round can be
    compared in pairs.

    Args:
        functions (dict[str, Callable]): By name.
        rounds (int): At most so many.
        seconds (float): Stop after this time, but not before ``least_rounds``.
        device (str): Waited for before and after each call.
        clock (Callable): Seconds; ``time.process_time`` for processor time.
        least_rounds (int): See ``seconds``.
        warm_up (int): Rounds before, not counted.
        measure (Callable, optional): Makes another measurement of a function than its ms.

    Returns:
        dict[str, list]: By name, in the order of the rounds.
    """
    def milliseconds(function):
        synchronize(device)
        begin = clock()
        function()
        synchronize(device)
        return (clock() - begin) * 1e3

    measure = measure or milliseconds
    times = {name: [] for name in functions}
    order, rng, start = list(functions), random.Random(0), time.perf_counter()
    for done in range(-warm_up, rounds):
        if done == 0:
            start = time.perf_counter()
        if done >= least_rounds and time.perf_counter() - start > seconds:
            break
        rng.shuffle(order)
        for name in order:
            value = measure(functions[name])
            if done >= 0:
                times[name].append(value)
    return times


@contextmanager
def threads(count):
    """So many threads of PyTorch for as long as the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def summary(values):
    """dict of ``median``, the quartiles ``low`` and ``high``, ``least`` and ``rounds``."""
    low, median, high = (statistics.quantiles(values, n=4, method='inclusive')
                         if len(values) > 1 else values * 3)
    return dict(median=median, low=low, high=high, least=min(values), rounds=len(values))


def ratio(peer, ours):
    """:func:`summary` of peer / ours, pair by pair: above 1 ours is faster."""
    return summary([a / b for a, b in zip(peer, ours, strict=True)])


def spread(row, digits=2):
    """'median (low to high)' of a :func:`summary`."""
    return f'{row["median"]:.{digits}f} ({row["low"]:.{digits}f} to {row["high"]:.{digits}f})'


@contextmanager
def busy(count):
    """``count`` other processes that compute without end, for as long as the block runs."""
    processes = [subprocess.Popen([sys.executable, '-c', BUSY, str(os.getpid())])
                 for _ in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


# ends by itself where the benchmark was killed
BUSY = 'import os, sys\nwhile os.getppid() == int(sys.argv[1]):\n    sum(range(100000))'


def photographs(count, width, height):
    """Pictures of a natural weight as files: scikit-image's, resized, with noise as of a sensor.

    Yields:
        ndarray: uint8, (height, width, 3), BGR.
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


def processor():
    """The processor's name and number of cores, in words."""
    name = platform.processor() or platform.machine()
    path = Path('/proc/cpuinfo')
    if path.is_file():
        lines = [line for line in path.read_text().splitlines() if line.startswith('model name')]
        name = lines[0].partition(':')[2].strip() if lines else name
    return f'{name}, {os.cpu_count()} cores'


def commit():
    """The commit that is checked out, '-dirty' where files were changed; None outside git."""
    def git(*arguments):
        return subprocess.run(['git', '-C', str(ROOT), *arguments], capture_output=True, text=True,
                              check=True).stdout.strip()

    try:
        return git('rev-parse', '--short=10', 'HEAD') + (
            '-dirty' if git('status', '--porcelain', '--untracked-files=no') else '')
    except (OSError, subprocess.CalledProcessError):
        return None


def versions():
    """Installed versions of what a benchmark may depend on."""
    found = dict(python=platform.python_version())
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def environment(argv, script, device='cpu', machine=None):
    """What a result depends on besides the code.

    Args:
        argv (list[str] | None): The script's arguments; None for those of the process.
        script (str): Its path from the root.
        device (str): 'cpu' or 'cuda'.
        machine (str, optional): Words for the report; default: the processor or GPU.
    """
    if machine is None:
        machine = torch.cuda.get_device_name() if device == 'cuda' else processor()
    load = os.getloadavg()[0] if hasattr(os, 'getloadavg') else None
    arguments = ' '.join(map(str, argv if argv is not None else sys.argv[1:]))
    return dict(machine=machine, device=device, load=load, versions=versions(), commit=commit(),
                date=datetime.date.today().isoformat(),
                command=f'python {script} {arguments}'.strip())


def stated(report):
    """One line of Markdown about :func:`environment`."""
    numbers = ', '.join(f'{name} {version}' for name, version in report['versions'].items())
    load = '' if report['load'] is None else f', load average at the start {report["load"]:.1f}'
    return (f'{report["machine"]}, {report["device"]}{load}; {numbers}; commit '
            f'{report["commit"]}; {report["date"]}. Made by `{report["command"]}`.')


def table(header, rows):
    """A Markdown table; all columns but the first are aligned to the right."""
    lines = [header, [':--', *['--:'] * (len(header) - 1)], *rows]
    return '\n'.join('| ' + ' | '.join(map(str, line)) + ' |' for line in lines)


def write(out, report, text):
    """OUT.json and OUT.md."""
    out = Path(out)
    out.with_name(out.name + '.json').write_text(json.dumps(report, indent=1) + '\n')
    out.with_name(out.name + '.md').write_text(text.rstrip() + '\n')


def publish(report, text, out=None):
    """How a benchmark ends: print the text, write both where ``out`` is given; exit code 0."""
    print(text)
    if out:
        write(out, report, text)
    return 0
