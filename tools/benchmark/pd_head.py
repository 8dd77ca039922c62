"""Time of the pooling-based decomposition and of what it is compared with.

    python tools/benchmark/pd_head.py --out docs/benchmark_pd_head

All methods run in one process, interleaved in a new random order in every round, so that
all meet the same state of caches and the same neighbours.  Reported are the median and
the least time; the ratios are of least times, which a busy machine disturbs less.  On a
machine that is shared use --threads 1: every parallel operation waits for the slowest
thread.  Peak memory is what one call allocates beyond its input, relative to the image,
counted by torch's profiler and, for NumPy's arrays, tracemalloc.  Writes OUT.json and
OUT.md.
"""
import argparse
import datetime
import json
import platform
import random
import statistics
import sys
import time
import tracemalloc
from pathlib import Path

import torch
import torch.nn.functional as F

import mmpd.operators.pooling_pass as pooling
from mmpd.operators import CEM, AveragePooling, SeparableResize


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', choices=('cpu', 'cuda'),
                        default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--sizes', type=int, nargs='+', default=[256, 512, 1024, 2048])
    parser.add_argument('--scales', type=int, nargs='+', default=[8, 16])
    parser.add_argument('--batches', type=int, nargs='+', default=[1, 4])
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--seconds', type=float, default=20,
                        help='stop a case after this time, but not before 3 rounds')
    parser.add_argument('--blocks', type=int, nargs='+', metavar='KIB',
                        help='compare bounds of the temporaries of the CPU pass instead of methods')
    parser.add_argument('--machine', default=platform.processor() or platform.machine(),
                        help='words for the report')
    parser.add_argument('--out', type=Path, help='without suffix; default: print only')
    args = parser.parse_args(argv)
    for name in ('sizes', 'scales', 'batches', 'rounds', 'blocks', 'threads'):
        values = getattr(args, name)
        if values is not None and min([values] if isinstance(values, int) else values) < 1:
            parser.error(f'--{name}: expected positive integers, got {values}')
    if min(args.scales) < 2:
        parser.error(f'--scales: expected at least 2, got {min(args.scales)}')
    if any(size % scale for size in args.sizes for scale in args.scales):
        parser.error(f'--sizes {args.sizes}: expected multiples of --scales {args.scales}')
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch finds no CUDA device')
    if args.out and not args.out.parent.is_dir():
        parser.error(f'--out {args.out}: its folder does not exist')
    return args


def paper_formula(x, y, scale):
    """Eq. (9) in plain PyTorch."""
    pooled = F.adaptive_avg_pool2d(x, (x.shape[2] // scale, x.shape[3] // scale))
    return (F.interpolate(y, scale_factor=scale) + x - F.interpolate(pooled, scale_factor=scale))


def readme_formula(x, y, scale):
    """Eq. (9) with P↑ by adding to zeros, as in the authors' listing (appendix D)."""

    def up(z):
        n, c, h, w = z.shape
        patches = z.new_zeros(n, c, h, scale, w, scale) + z.view(n, c, h, 1, w, 1)
        return patches.view(n, c, h * scale, w * scale)

    return up(y) + x - up(F.adaptive_avg_pool2d(x, (x.shape[2] // scale, x.shape[3] // scale)))


def forward_backward(operator, x, y, weight, **options):
    leaf = x.detach().requires_grad_()
    operator.project(leaf, y, **options).backward(weight)
    return leaf.grad


def methods(x, y, scale):
    """name -> function without arguments."""
    operator, cem, bicubic = AveragePooling(scale), CEM(scale), SeparableResize(scale)
    scratch, weight = x.clone(), torch.rand_like(x)
    # of random pixels all patches would leave the range: 1 in 100 does
    mild = operator.A(x)
    mild.view(-1)[::100] = 0.8
    return {
        'clone': x.clone,
        'ours': lambda: operator.project(x, y),
        'ours, no check': lambda: operator.project(x, y, check=False),
        'ours in place': lambda: operator.project(scratch, y, check=False, inplace=True),
        'ours forward + backward': lambda: forward_backward(operator, x, y, weight),
        'ours in 0..1': lambda: operator.project(x, mild, bounds=(0, 1)),
        'ours in 0..1 forward + backward': lambda: forward_backward(operator, x, mild, weight,
                                                                    bounds=(0, 1)),
        'paper formula': lambda: paper_formula(x, y, scale),
        'README formula': lambda: readme_formula(x, y, scale),
        'SeparableResize bicubic': lambda: bicubic.project(x, y),
        'CEM': lambda: cem.project(x, y),
    }


def block_methods(x, y, scale, blocks):
    operator = AveragePooling(scale)

    def with_block(kib):
        pooling.TEMPORARY_BYTES = kib << 10
        return operator.project(x, y)

    return {'clone': x.clone, **{f'{kib} KiB': lambda kib=kib: with_block(kib) for kib in blocks}}


def timed(function, device):
    if device == 'cuda':
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device == 'cuda':
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3


def peak_memory(function, device):
    """Bytes allocated at the most at one time during a call."""
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        function()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == '[memory]':
            held += event.nbytes()
            peak = max(peak, held)
    tracemalloc.start()
    function()
    peak += tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def measure(functions, args):
    """name -> times in ms, interleaved."""
    for function in functions.values():  # filters, pseudo-inverses and kernels are made here
        function()
    times = {name: [] for name in functions}
    order, rng, start = list(functions), random.Random(0), time.perf_counter()
    for done in range(args.rounds):
        if done >= 3 and time.perf_counter() - start > args.seconds:
            break
        rng.shuffle(order)
        for name in order:
            times[name].append(timed(functions[name], args.device))
    return times


def run_case(batch, size, scale, args):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, 3, size, size, generator=generator).to(args.device)
    y = torch.rand(batch, 3, size // scale, size // scale, generator=generator).to(args.device)
    functions = block_methods(x, y, scale, args.blocks) if args.blocks else methods(x, y, scale)
    rows = {}
    for name, times in measure(functions, args).items():
        rows[name] = dict(median_ms=statistics.median(times), least_ms=min(times),
                          rounds=len(times),
                          memory_images=peak_memory(functions[name], args.device) /
                          (x.numel() * x.element_size()))
    for row in rows.values():
        row['times_clone'] = row['least_ms'] / rows['clone']['least_ms']
    return dict(batch=batch, size=size, scale=scale, methods=rows)


def markdown(report):
    lines = ['# Time of the pooling-based decomposition', '',
             f"{report['machine']}, {report['device']}, {report['threads']} threads, torch "
             f"{report['torch']}, {report['date']}. Made by `{report['command']}`.", '']
    lines += [' '.join(' '.join(__doc__.split('\n\n')[2].split()).split()), '']
    for case in report['cases']:
        rows = case['methods']
        lines += [f"## {case['scale']}×, {case['size']}², batch {case['batch']}", '',
                  '| method | median ms | least ms | × clone | memory (images) |',
                  '| --- | ---: | ---: | ---: | ---: |']
        lines += [f"| {name} | {row['median_ms']:.3f} | {row['least_ms']:.3f} | "
                  f"{row['times_clone']:.2f} | {row['memory_images']:.2f} |"
                  for name, row in rows.items()]
        if 'CEM' in rows:
            ours, median = (rows['ours'][key] for key in ('least_ms', 'median_ms'))
            lines += ['', f"CEM / ours: {rows['CEM']['least_ms'] / ours:.1f}, of the medians "
                      f"{rows['CEM']['median_ms'] / median:.1f} (paper: 46.8). "
                      f"Paper formula / ours: {rows['paper formula']['least_ms'] / ours:.1f}."]
        lines.append('')
    return '\n'.join(lines)


def main(argv=None):
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    report = dict(machine=args.machine, device=args.device, threads=args.threads,
                  torch=torch.__version__, date=datetime.date.today().isoformat(),
                  command='python tools/benchmark/pd_head.py ' +
                  ' '.join(argv if argv is not None else sys.argv[1:]), cases=[])
    if args.device == 'cuda':
        report['machine'] = torch.cuda.get_device_name()
    for batch in args.batches:
        for size in args.sizes:
            for scale in args.scales:
                report['cases'].append(run_case(batch, size, scale, args))
                print(f'batch {batch}, {size}², {scale}× done', file=sys.stderr)
    text = markdown(report)
    print(text)
    if args.out:
        args.out.with_name(args.out.name + '.json').write_text(json.dumps(report, indent=1) + '\n')
        args.out.with_name(args.out.name + '.md').write_text(text)
    return 0


if __name__ == '__main__':
    sys.exit(main())
