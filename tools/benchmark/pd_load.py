"""Time of PD against the plain formula: one thread and several, idle and beside busy processes.

    python tools/benchmark/pd_load.py --out docs/benchmark_pd_load

The plain formula is x + up(y - pool(x)) with torch's avg_pool2d and interpolate, which checks
nothing; ours looks for NaN and infinity as it does by default. All run in one process, in a new
random order in every round; a ratio is the median of the rounds' ratios, with its quartiles, and
above 1 ours is faster. "Busy" are other processes that compute without end: a parallel operation
then waits for whichever of its threads has lost its core. With --clock cpu processor time of all
threads is taken instead, which other programs disturb less. Writes OUT.json and OUT.md.
"""
import argparse
import itertools
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from mmpd.operators import AveragePooling

sys.path.insert(0, str(Path(__file__).parent))
import measuring  # noqa: E402

PAIRS = (('plain formula', 'ours'), ('plain formula, forward + backward',
                                     'ours, forward + backward'))


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sizes', type=int, nargs='+',
                        default=[32, 64, 128, 256, 512, 1024, 2048])
    parser.add_argument('--scales', type=int, nargs='+', default=[8])
    parser.add_argument('--batches', type=int, nargs='+', default=[1, 4])
    parser.add_argument('--threads', type=int, nargs='+', default=[1, torch.get_num_threads()])
    parser.add_argument('--busy', type=int, nargs='+', default=[0, 2],
                        help='numbers of busy processes beside')
    parser.add_argument('--rounds', type=int, default=400)
    parser.add_argument('--seconds', type=float, default=2,
                        help='stop a case after this time, but not before 5 rounds')
    parser.add_argument('--clock', choices=('wall', 'cpu'), default='wall')
    parser.add_argument('--machine', help='words for the report; default: the processor')
    parser.add_argument('--out', type=Path, help='without suffix; default: print only')
    args = parser.parse_args(argv)
    for name in ('sizes', 'scales', 'batches', 'threads'):
        if min(getattr(args, name)) < 1:
            parser.error(f'--{name}: expected positive integers, got {getattr(args, name)}')
    if min(args.busy) < 0 or args.rounds < 1:
        parser.error('--busy, --rounds: expected no negative number, and one round or more, got '
                     f'{args.busy}, {args.rounds}')
    if any(size % scale for size in args.sizes for scale in args.scales):
        parser.error(f'--sizes {args.sizes}: expected multiples of --scales {args.scales}')
    if args.out and not args.out.parent.is_dir():
        parser.error(f'--out {args.out}: its folder does not exist')
    args.threads = list(dict.fromkeys(args.threads))
    return args


def plain_formula(x, y, scale):
    """Eq. (9) with the fewest of torch's operations."""
    return x + F.interpolate(y - F.avg_pool2d(x, scale), scale_factor=scale)


def methods(x, y, scale):
    """name -> function without arguments."""
    operator, weight = AveragePooling(scale), torch.rand_like(x)

    def trained(function):
        leaf = x.detach().requires_grad_()
        function(leaf).backward(weight)
        return leaf.grad

    return {
        'clone': x.clone,
        'ours': lambda: operator.project(x, y),
        'plain formula': lambda: plain_formula(x, y, scale),
        'ours, forward + backward': lambda: trained(lambda leaf: operator.project(leaf, y)),
        'plain formula, forward + backward':
            lambda: trained(lambda leaf: plain_formula(leaf, y, scale)),
    }


def run_case(batch, size, scale, args):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, 3, size, size, generator=generator)
    y = torch.rand(batch, 3, size // scale, size // scale, generator=generator)
    clock = time.process_time if args.clock == 'cpu' else time.perf_counter
    times = measuring.interleaved(methods(x, y, scale), args.rounds, args.seconds, clock=clock,
                                  least_rounds=5)
    return dict(batch=batch, size=size, scale=scale,
                methods={name: measuring.summary(values) for name, values in times.items()},
                gain=[measuring.ratio(times[peer], times[ours]) for peer, ours in PAIRS],
                clones=measuring.ratio(times['ours'], times['clone']))


def markdown(report):
    lines = ['# PD against the plain formula, under load', '', measuring.stated(report), '',
             ' '.join(__doc__.split('\n\n')[2].split()), '']
    for (threads, busy) in dict.fromkeys((c['threads'], c['busy']) for c in report['cases']):
        rows = []
        for case in report['cases']:
            if (case['threads'], case['busy']) != (threads, busy):
                continue
            found = case['methods']
            rows.append([f'{case["size"]}², {case["scale"]}×, batch {case["batch"]}',
                         *(f'{found[name]["median"]:.3f}'
                           for name in ('clone', 'ours', 'plain formula')),
                         f'{case["clones"]["median"]:.1f}',
                         *map(measuring.spread, case['gain']), found['ours']['rounds']])
        lines += [f'## {threads} thread{"s" * (threads > 1)}, {busy} busy processes', '',
                  measuring.table(['image', 'clone ms', 'ours ms', 'plain ms', 'ours / clone',
                                   'plain / ours', 'forward + backward', 'rounds'], rows), '']
    return '\n'.join(lines)


def main(argv=None):
    args = parse_args(argv)
    report = measuring.environment(argv, 'tools/benchmark/pd_load.py', machine=args.machine)
    report.update(clock=args.clock, cases=[])
    before = torch.get_num_threads()
    try:
        for threads in args.threads:
            torch.set_num_threads(threads)
            for count in args.busy:
                with measuring.busy(count):
                    report['cases'] += [
                        dict(run_case(*case, args), threads=threads, busy=count)
                        for case in itertools.product(args.batches, args.sizes, args.scales)]
                print(f'{threads} threads, {count} busy done', file=sys.stderr)
    finally:
        torch.set_num_threads(before)
    return measuring.publish(report, markdown(report), args.out)


if __name__ == '__main__':
    sys.exit(main())
