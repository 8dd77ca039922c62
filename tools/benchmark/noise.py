"""PSNR of noisy LR images made consistent: strength 1, the best strength by hand, and noise_std.

    python tools/benchmark/noise.py --out docs/noise.md

The raw prediction stands for a network's: the LR, blurred and enlarged, with and without its
noise.  Without, it has an error of its own in the range space, independent of the noise, as the
model of noise_std has it; with, part of the noise is in both and that model does not hold.  The
best strength is chosen by hand, from a scan, for each sigma (one for all pictures) and with the
ground truth at hand.  noise_std is only told sigma.  Rows for JPEG and for the rounding to 8 bits take as sigma the root
mean square of what they did to the LR.  The range of images is kept by clipping; nothing is
rounded.
"""
import argparse
import io
import math
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from mmpd.errors import InputError
from mmpd.operators import AveragePooling, SeparableResize, replace_range
from mmpd.utils.files import write_atomically
from mmpd.utils.images import SUFFIXES, read_8bit

SAMPLES = ('astronaut', 'chelsea', 'coffee', 'rocket')  # of scikit-image, public domain or CC0
STRENGTHS = [k / 20 for k in range(21)]
PREDICTIONS = ('from the LR without noise', 'from the noisy LR')
OPERATORS = {'average pooling': AveragePooling, 'bicubic (antialias)': SeparableResize}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--gt', type=Path, help='folder of pictures; default: four samples of '
                        'scikit-image')
    parser.add_argument('--scale', type=int, default=4)
    parser.add_argument('--sigmas', type=float, nargs='+', default=[0, 2, 5, 10, 25],
                        help='of the noise, in grey levels')
    parser.add_argument('--jpeg', type=int, nargs='*', default=[95, 75, 50], help='qualities')
    parser.add_argument('--size', type=int, default=384, help='middle square that is used, at most')
    parser.add_argument('--out', type=Path, help='Markdown file; default: print only')
    args = parser.parse_args(argv)
    for name, wrong in (
            ('scale', args.scale < 2), ('size', args.size < 4 * args.scale),
            ('sigmas', not all(0 <= sigma <= 255 for sigma in args.sigmas)),
            ('jpeg', not all(1 <= quality <= 100 for quality in args.jpeg))):
        if wrong:
            parser.error(f'--{name}: not possible, got {getattr(args, name)}')
    if args.gt and not args.gt.is_dir():
        parser.error(f'--gt {args.gt}: expected a folder')
    if args.out and not args.out.parent.is_dir():
        parser.error(f'--out {args.out}: its folder does not exist')
    return args


def pictures(args):
    """name -> float64 (1, 3, H, W) in 0..255, sides multiples of the scale."""
    if args.gt:
        files = sorted(path for path in args.gt.iterdir() if path.suffix.lower() in SUFFIXES)
        if not files:
            raise InputError(f'--gt {args.gt}: expected pictures ({", ".join(sorted(SUFFIXES))})')
    else:
        import skimage
        folder = Path(skimage.__file__).parent / 'data'
        files = [next(folder.glob(f'{name}.*')) for name in SAMPLES]
    found = {}
    for path in files:
        array = read_8bit(path)
        array = array.reshape(*array.shape[:2], -1)[:, :, :3]
        height, width = (min(side, args.size) // args.scale * args.scale
                         for side in array.shape[:2])
        if not height or not width:
            raise InputError(f'{path}: expected at least {args.scale}x{args.scale}, got '
                             f'{array.shape[0]}x{array.shape[1]}')
        top, left = (array.shape[0] - height) // 2, (array.shape[1] - width) // 2
        array = array[top:top + height, left:left + width].transpose(2, 0, 1)
        found[path.stem] = torch.from_numpy(array.astype(np.float64))[None]
    return found


def jpeg(lr, quality):
    """The LR after 8 bits and JPEG."""
    array = lr.clamp(0, 255).round()[0].permute(1, 2, 0).numpy().astype(np.uint8)
    image = Image.fromarray(array if array.shape[2] == 3 else array[:, :, 0])
    file = io.BytesIO()
    image.save(file, 'JPEG', quality=quality)
    with Image.open(file) as image:
        array = np.asarray(image, np.float64)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1).transpose(2, 0, 1).copy())[None]


def degradations(args):
    """name -> function of a clean LR that returns the LR and the sigma of its noise."""
    def gaussian(sigma):
        def degrade(lr):
            noise = torch.randn(lr.shape, generator=torch.Generator().manual_seed(0),
                                dtype=lr.dtype)
            return lr + sigma * noise, sigma
        return degrade

    def compressed(quality):
        def degrade(lr):
            result = jpeg(lr, quality)
            return result, (result - lr).square().mean().sqrt().item()
        return degrade

    return {**{f'σ = {sigma:g}': gaussian(sigma) for sigma in args.sigmas},
            'rounded to 8 bits': lambda lr: (lr.round(), 12**-0.5),
            **{f'JPEG, quality {quality}': compressed(quality) for quality in args.jpeg}}


def prediction(lr, size):
    """What a network might make of the clean LR: smoothed, enlarged."""
    blurred = F.avg_pool2d(F.pad(lr, (1, 1, 1, 1), mode='replicate'), 3, 1)
    return F.interpolate((lr + blurred) / 2, size, mode='bicubic', align_corners=False)


def psnr(image, truth):
    error = (image.clamp(0, 255) - truth).square().mean().item()
    return -10 * math.log10(error / 255**2) if error else math.inf


def measure(kind, degrade, images, scale, noisy):
    """A row of the table: means over the pictures. noisy: the prediction is from the noisy LR."""
    operator, rows, sigmas = kind(scale), [], []
    for truth in images.values():
        clean = operator.A(truth)
        lr, sigma = degrade(clean)
        raw = prediction(lr if noisy else clean, truth.shape[-2:])
        sigmas.append(sigma)
        rows.append([psnr(raw, truth), psnr(replace_range(raw, lr, operator, noise_std=sigma),
                                            truth),
                     *(psnr(replace_range(raw, lr, operator, strength), truth)
                       for strength in STRENGTHS)])
    before, ours, *scan = np.mean(rows, 0)
    best = int(np.argmax(scan))
    return dict(sigma=float(np.mean(sigmas)), raw=before, full=scan[-1], best=scan[best],
                strength=STRENGTHS[best], ours=ours)


def markdown(args, images, tables, command):
    lines = ['# Noisy LR images: what `noise_std` gives', '',
             f'{args.scale}×, mean PSNR in dB over {len(images)} pictures ({", ".join(images)}). '
             f'Made by `{command}`.', '', ' '.join(__doc__.split('\n\n')[2].split()), '',
             '`noise_std` chooses for each picture (and singular value), so that it can be better '
             'than the best single strength. The error of JPEG is no white noise: it is smooth, '
             'and a prediction made from the same file shares it, so that `noise_std` believes '
             'such a file too little.', '']
    for name, rows in tables.items():
        lines += [f'## {name}', '',
                  '| LR | σ | raw prediction | strength 1 | best strength by hand | noise_std |',
                  '| --- | ---: | ---: | ---: | ---: | ---: |']
        lines += [f"| {noise} | {row['sigma']:.2f} | {row['raw']:.2f} | {row['full']:.2f} | "
                  f"{row['best']:.2f} ({row['strength']:g}) | {row['ours']:.2f} |"
                  for noise, row in rows.items()]
        lines.append('')
    return '\n'.join(lines)


def main(argv=None):
    args = parse_args(argv)
    try:
        images = pictures(args)
    except (InputError, ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    tables = {f'{name}, prediction {source}': {
        noise: measure(kind, degrade, images, args.scale, source == PREDICTIONS[1])
        for noise, degrade in degradations(args).items()}
        for name, kind in OPERATORS.items() for source in PREDICTIONS}
    given = ' '.join(argv if argv is not None else sys.argv[1:])
    text = markdown(args, images, tables, f'python tools/benchmark/noise.py {given}'.strip())
    print(text)
    if args.out:
        write_atomically(args.out, text.encode())
    return 0


if __name__ == '__main__':
    sys.exit(main())
