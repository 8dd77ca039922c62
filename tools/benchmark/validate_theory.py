"""Validation of the theory: the paper's Table 1 again, and the same for every operator.

    python tools/benchmark/validate_theory.py --out docs/validate_theory

PSNR(LR) follows the paper: LR images y = A(GT), an untrained Panini gives the raw
prediction (--network panini-full at full width), its range-space part is replaced, and y
is compared with A of the result (network range [-1, 1], peak 2, float32 throughout,
squared errors added in float64).  Time follows the paper too: random noise as raw
prediction, PD and CEM alternating; the median is reported.  GT are smooth random pictures
unless --images names a folder.  Writes OUT.json and OUT.md.
"""
import argparse
import datetime
import json
import math
import platform
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tqdm import tqdm

from mmpd.evaluation.functional import psnr
from mmpd.operators import (
    CEM,
    AveragePooling,
    BlockCompressedSensing,
    Compose,
    Grayscale,
    Masking,
    SeparableResize,
)
from mmpd.utils.images import SUFFIXES

PAPER = dict(PD=dict(psnr_lr=145.7, ms=0.68), CEM=dict(psnr_lr=42.2, ms=31.8))
NETWORKS = ('panini', 'panini-full', 'glean', 'glean-full', 'noise')
# Widths of the small networks by resolution; the code is that of the full one
SMALL = {4: 32, 8: 32, 16: 32, 32: 32, 64: 16, 128: 8, 256: 4, 512: 4, 1024: 2, 2048: 2}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=Path, help='folder of GT images of --size')
    parser.add_argument('--network', choices=NETWORKS, default='panini',
                        help='untrained, with few channels or of full width; or white noise')
    parser.add_argument('--count', type=int, default=100)
    parser.add_argument('--size', type=int, default=1024)
    parser.add_argument('--scale', type=int, default=8)
    parser.add_argument('--device', choices=('cpu', 'cuda'),
                        default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--timings', type=int, default=100, help='inferences, as in the paper')
    parser.add_argument('--machine', default=platform.processor() or platform.machine(),
                        help='words for the report')
    parser.add_argument('--out', type=Path, help='without suffix; default: print only')
    args = parser.parse_args(argv)
    if min(args.count, args.size, args.timings) < 1:
        parser.error('--count, --size, --timings: expected positive integers')
    if args.scale < 2:
        parser.error(f'--scale: expected at least 2, got {args.scale}')
    if args.size % args.scale:
        parser.error(f'--size {args.size}: expected a multiple of --scale {args.scale}')
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch finds no CUDA device')
    if args.out and not args.out.parent.is_dir():
        parser.error(f'--out {args.out}: its folder does not exist')
    if args.images:
        args.files = list_images(parser, args)
    return args


def list_images(parser, args):
    """The first --count images, all of --size; every misfit is named."""
    if not args.images.is_dir():
        parser.error(f'--images {args.images}: expected a folder')
    files = sorted(p for p in args.images.iterdir() if p.suffix.lower() in SUFFIXES)[:args.count]
    if not files:
        parser.error(f'--images {args.images}: found none ({", ".join(SUFFIXES)})')
    wrong = []
    for path in files:
        with Image.open(path) as image:
            if image.size != (args.size, args.size):
                wrong.append('{} is {}x{}'.format(path.name, *image.size))
    if wrong:
        parser.error(f'--images: expected {args.size}x{args.size}: ' + ', '.join(wrong))
    return files


def ground_truths(args):
    """Yield float32 (1, 3, size, size) in [-1, 1]."""
    if args.images:
        for path in args.files:
            with Image.open(path) as image:
                array = np.asarray(image.convert('RGB'), dtype=np.float32)
            yield torch.from_numpy(array).permute(2, 0, 1)[None] / 127.5 - 1
        return
    generator = torch.Generator().manual_seed(0)
    for _ in range(args.count):
        picture = sum(F.interpolate(torch.randn(1, 3, side, side, generator=generator) / side**0.5,
                                    (args.size, args.size), mode='bicubic')
                      for side in (4, 8, 16, 32, 64))
        yield picture.clamp(-1, 1)


def make_network(args):
    """LR (1, 3, h, w) -> raw prediction (1, 3, size, size)."""
    if args.network == 'noise':
        generator = torch.Generator().manual_seed(1)
        return lambda lr: torch.rand(1, 3, args.size, args.size, generator=generator) * 2 - 1
    from mmpd.models.generators import GLEANNet, PaniniNet  # MMagic: 15 s
    torch.manual_seed(1)
    options = {}
    if not args.network.endswith('-full'):
        options = dict(style_channels=64, num_mlps=2, rrdb_channels=8, num_rrdbs=1,
                       growth_channels=4,
                       channels={k: v for k, v in SMALL.items() if k <= args.size})
    build = PaniniNet if args.network.startswith('panini') else GLEANNet
    network = build(args.size // args.scale, args.size, **options).to(args.device).eval()
    return lambda lr: network(lr.to(args.device)).cpu()


def network_psnr(error):
    """PSNR of an error in the network's range [-1, 1], infinity where there is none."""
    return psnr(error.double().square().mean().item() / 4, cap=math.inf)


def degrade(operator, image):
    """A of an image in [-1, 1], the measurement normalised like it."""
    return operator.A((image + 1) / 2) * 2 - 1 if operator.unit_range else operator.A(image)


def consistency(args, operators):
    """name -> PSNR(LR) of each image."""
    from mmpd.models.heads import PDHead  # MMagic: 15 s
    network = make_network(args)
    values = {name: [] for name in operators}
    raw_values = {name: [] for name in operators}
    count = len(args.files) if args.images else args.count
    with torch.no_grad():
        for truth in tqdm(ground_truths(args), total=count, unit='image'):
            # one raw prediction, from the pooled LR, serves all operators: PSNR(LR) hardly
            # depends on it, and an untrained network takes most of the time
            raw = network(operators['PD'].A(truth)).to(args.device)
            truth = truth.to(args.device)
            for name, operator in operators.items():
                head = PDHead(operator).eval()  # goes to [0, 1] and back where A needs it
                lr = degrade(operator, truth)
                raw_values[name].append(network_psnr(degrade(operator, raw) - lr))
                values[name].append(network_psnr(degrade(operator, head(raw, lr)) - lr))
    return values, raw_values


def timings(args, operators):
    """name -> median ms, the methods taking turns."""
    shape = (1, 3, args.size, args.size)
    raw, truth = torch.rand(2, *shape).to(args.device)
    times, lrs = {name: [] for name in operators}, {}
    for index in range(args.timings + 1):
        for name, operator in operators.items():
            if not index:  # the first makes filters and pseudo-inverses
                lrs[name] = operator.A(truth)
            synchronise(args.device)
            start = time.perf_counter()
            operator.project(raw, lrs[name])
            synchronise(args.device)
            if index:
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def synchronise(device):
    if device == 'cuda':
        torch.cuda.synchronize()


def make_operators(scale, size):
    operators = {'PD': AveragePooling(scale), 'CEM': CEM(scale)}
    for kernel in ('bicubic', 'bilinear', 'lanczos', 'box'):
        for antialias in (True, False):
            name = f'{kernel} ({"antialias" if antialias else "alias"})'
            operators[name] = SeparableResize(scale, kernel, antialias)
    operators['grey'] = Grayscale()
    block = math.gcd(size, 32)
    operators[f'compressed sensing (25 %, block {block})'] = BlockCompressedSensing(0.25, block)
    generator = torch.Generator().manual_seed(2)
    operators['masking (half)'] = Masking(torch.rand(size, size, generator=generator) < 0.5)
    operators['grey, then pooling'] = Compose([Grayscale(), AveragePooling(scale)])
    return operators


def gains(operator, size):
    """‖A†‖ and condition number, where they are known in closed form."""
    if isinstance(operator, SeparableResize):
        return operator.gains(size, size)[1:]
    # a mask has singular values 0 and 1, of which only the second counts
    condition = 1.0 if operator.tight or isinstance(operator, Masking) else None
    return operator.noise_gain, condition


def markdown(report):
    rows = report['operators']
    name, _, full = report['network'].partition('-')
    network = 'white noise' if name == 'noise' else (
        f"untrained {'PaniniNet' if name == 'panini' else 'GLEANNet'}"
        f"{'' if full else ' with few channels'}")
    lines = ['# Validation of the theory', '',
             f"{report['machine']}, {report['device']}, {report['threads']} threads, torch "
             f"{report['torch']}, {report['date']}. Made by `{report['command']}`.", '',
             f"{report['scale']}×, {report['size']}², {report['count']} GT "
             f"({report['images']}), raw predictions: {network}.", '',
             '## Table 1', '',
             '| method | PSNR(LR) dB | paper | time ms | paper |',
             '| --- | ---: | ---: | ---: | ---: |']
    for name in ('PD', 'CEM'):
        lines.append(f"| {name} | {rows[name]['psnr_lr']:.1f} | {PAPER[name]['psnr_lr']} | "
                     f"{rows[name]['ms']:.2f} | {PAPER[name]['ms']} |")
    lines += ['', 'Medians of one run, the methods taking turns; how many times faster PD is '
              'than CEM is measured in [benchmark_pd_head.md](benchmark_pd_head.md).', '',
              '## Every operator', '',
              '| A | PSNR(LR) of the raw image | after | least | time ms | ‖A†‖ | condition |',
              '| --- | ---: | ---: | ---: | ---: | ---: | ---: |']
    for name, row in rows.items():
        gain = ['–' if row[key] is None else f'{row[key]:.2f}' for key in ('gain', 'condition')]
        lines.append(f"| {name} | {row['psnr_lr_raw']:.1f} | {row['psnr_lr']:.1f} | "
                     f"{row['psnr_lr_least']:.1f} | {row['ms']:.2f} | {gain[0]} | {gain[1]} |")
    lines += ['', 'PSNR(LR) are means over the images; inf: no error in any LR pixel.', '']
    return '\n'.join(lines)


def main(argv=None):
    args = parse_args(argv)
    operators = make_operators(args.scale, args.size)
    for operator in operators.values():
        operator.to(args.device)
    after, before = consistency(args, operators)
    times = timings(args, operators)
    report = dict(machine=args.machine, device=args.device, threads=torch.get_num_threads(),
                  torch=torch.__version__, date=datetime.date.today().isoformat(),
                  command='python tools/benchmark/validate_theory.py ' +
                  ' '.join(argv if argv is not None else sys.argv[1:]),
                  scale=args.scale, size=args.size, network=args.network,
                  count=len(after['PD']),
                  images='--images' if args.images else 'smooth random pictures',
                  paper=PAPER, operators={})
    if args.device == 'cuda':
        report['machine'] = torch.cuda.get_device_name()
    for name, operator in operators.items():
        gain, condition = gains(operator, args.size)
        report['operators'][name] = dict(
            psnr_lr=statistics.fmean(after[name]), psnr_lr_least=min(after[name]),
            psnr_lr_raw=statistics.fmean(before[name]), ms=times[name], gain=gain,
            condition=condition)
    text = markdown(report)
    print(text)
    if args.out:
        for row in report['operators'].values():  # JSON has no infinity
            row.update({k: str(v) for k, v in row.items() if v == math.inf})
        text_json = json.dumps(report, indent=1, allow_nan=False)
        args.out.with_name(args.out.name + '.json').write_text(text_json + '\n')
        args.out.with_name(args.out.name + '.md').write_text(text)
    return 0


if __name__ == '__main__':
    sys.exit(main())
