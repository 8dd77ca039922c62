"""Time of the exact 8-bit rounding, operator by operator and library by library.

    python tools/benchmark/rounding.py --out docs/benchmark_rounding

A smooth random picture, or --image, is degraded by each operator, as floating point (A x, rounded
once) and as the libraries do it that have such a resizing; the picture with noise of 12 grey levels
is what a network might have made of it. Timed is `consistent_uint8`: projection, rounding, and the
proof that every LR value comes back, by that library. "Differ" is the number of LR values that do
not. Times are processor time of one call (--clock wall: of the clock), with the matrices of the
operator already made; the limits are those of issue 17. Writes OUT.json and OUT.md.
"""
import argparse
import itertools
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from mmpd.cli import run_tool
from mmpd.errors import InputError
from mmpd.operators import AveragePooling, SeparableResize, clip_uint8, consistent_uint8
from mmpd.operators.library_resize import METHODS, LibraryResize

sys.path.insert(0, str(Path(__file__).parent))
import measuring  # noqa: E402

LIMITS = dict(pooling=300, separable=500)  # ms at 1024²


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--image', type=Path, help='a picture to take instead, its middle')
    parser.add_argument('--size', type=int, default=1024)
    parser.add_argument('--scales', type=int, nargs='+', default=[2, 4, 8, 16])
    parser.add_argument('--kernels', nargs='+', default=['bicubic', 'bilinear', 'lanczos', 'box'],
                        choices=('bicubic', 'bilinear', 'lanczos', 'box'))
    parser.add_argument('--libraries', nargs='+', default=['float', 'pil'],
                        choices=('float', *METHODS))
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--clock', choices=('wall', 'cpu'), default='cpu')
    parser.add_argument('--machine', help='words for the report; default: the processor or GPU')
    parser.add_argument('--out', type=Path, help='without suffix; default: print only')
    args = parser.parse_args(argv)
    if min(*args.scales, args.threads, args.rounds, args.size) < 1:
        parser.error('--size, --scales, --threads, --rounds: expected positive integers')
    if any(args.size % scale for scale in args.scales):
        parser.error(f'--size {args.size}: expected a multiple of --scales {args.scales}')
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch finds no CUDA device')
    if args.image and not args.image.is_file():
        parser.error(f'--image {args.image}: no such file')
    if args.out and not args.out.parent.is_dir():
        parser.error(f'--out {args.out}: its folder does not exist')
    return args


def picture(size, device='cpu', path=None):
    """A picture (1, 3, size, size) in 0..255, and the same with noise.

    The generated one has 2 % of its values at 0 or 255.
    """
    generator = torch.Generator().manual_seed(0)
    if path is None:
        side = max(size // 8, 4)
        smooth = F.interpolate(torch.rand(1, 3, side, side, generator=generator) + 0.1,
                               (size, size), mode='bicubic') * 213
    else:
        pixels = np.asarray(Image.open(path).convert('RGB'))
        top, left = ((length - size) // 2 for length in pixels.shape[:2])
        if min(top, left) < 0:
            raise InputError(f'{path}: expected at least {size}x{size} pixels, got '
                             f'{pixels.shape[1]}x{pixels.shape[0]}')
        smooth = torch.from_numpy(pixels[top:top + size, left:left + size].copy())
        smooth = smooth.permute(2, 0, 1)[None].float()
    smooth = smooth.clamp(0, 255)
    noise = 12 * torch.randn(smooth.shape, generator=generator)
    return smooth.to(device), (smooth + noise).to(device)


def operators(args):
    """(kind, operator, library) of every row."""
    for scale in args.scales:
        yield 'pooling', AveragePooling(scale), 'float'
        for kernel, antialias, library in itertools.product(
                args.kernels, (True, False), args.libraries):
            if library == 'matlab':  # has its own border
                continue
            if library == 'float' or (kernel, antialias) in METHODS[library]:
                yield 'separable', SeparableResize(scale, kernel, antialias), library


def run_case(kind, operator, library, args):
    smooth, guess = picture(args.size, args.device, args.image)
    if library == 'float':
        lr = operator.A(smooth).clamp(0, 255).round()
    else:
        lr = LibraryResize(operator, library)(clip_uint8(smooth)).float()
    raw = operator.project(guess, lr)
    found = []

    def rounded():
        found[:] = consistent_uint8(raw, lr, operator, return_unmatched=True,
                                    made_by=None if library == 'float' else library)

    clock = time.process_time if args.clock == 'cpu' else time.perf_counter
    times = measuring.interleaved({'ours': rounded}, args.rounds, float('inf'), args.device, clock)
    return dict(kind=kind, operator=repr(operator), library=library, lr_values=lr.numel(),
                ms=measuring.summary(times['ours']), unmatched=found[1])


def markdown(report):
    rows = [[f'`{case["operator"]}`', case['library'], measuring.spread(case['ms'], 0),
             LIMITS[case['kind']] if report['size'] == 1024 else '-',
             f'{case["unmatched"]} of {case["lr_values"]:,}'] for case in report['cases']]
    return '\n'.join([f'# Exact 8-bit rounding of {report["size"]}² pictures', '',
                      f'Picture: {report["picture"]}; {report["threads"]} thread(s), '
                      f'{report["clock"]} time. '
                      + measuring.stated(report), '', ' '.join(__doc__.split('\n\n')[2].split()),
                      '', measuring.table(['operator', 'LR made by', 'ms', 'limit', 'differ'],
                                          rows)])


def run(argv=None):
    """Measure, print and write."""
    args = parse_args(argv)
    report = measuring.environment(argv, 'tools/benchmark/rounding.py', args.device, args.machine)
    report.update(threads=args.threads, clock=args.clock, size=args.size,
                  picture=args.image.name if args.image else 'generated', cases=[])
    with measuring.threads(args.threads):
        for case in operators(args):
            report['cases'].append(run_case(*case, args))
            print(*case, f'{report["cases"][-1]["ms"]["median"]:.0f} ms', file=sys.stderr)
    return measuring.publish(report, markdown(report), args.out)


def main(argv=None):
    return run_tool(run, argv)


if __name__ == '__main__':
    sys.exit(main())
