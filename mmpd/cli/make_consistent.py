"""Make the SR images of any method consistent with their LR images, exactly, in 8 bits.

    mmpd-make-consistent --lr LR_DIR --sr SR_DIR --out OUT_DIR

No network is needed.  Images are matched by file stem and the scale is read from
their sizes.  The range-space part of each SR image is replaced by that of its LR
image (x̂ = x + A†(y - A x)) and rounded so that degrading the written PNG, by the 8-bit
arithmetic of the library that made the LR (--made-by), gives the LR file back.  A CSV
lists how many LR values it does not, PSNR(LR) before and after, and PSNR against GT with
--gt.
"""
import argparse
import csv
import io
import math
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ..evaluation.functional import errors, psnr
from ..operators import AveragePooling, SeparableResize, consistent_uint8
from ..operators.library_resize import LIBRARIES, LibraryResize
from ..operators.resolve import infer_scale
from ..utils.files import csv_text, write_atomically
from ..utils.images import SUFFIXES, read_8bit

OPERATORS = ('average_pooling', 'bicubic', 'bilinear', 'lanczos', 'box')


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--lr', type=Path, required=True, help='folder of LR images')
    parser.add_argument('--sr', type=Path, required=True, help='folder of SR images, any method')
    parser.add_argument('--out', type=Path, required=True, help='folder for the PNG files')
    parser.add_argument('--gt', type=Path, help='folder of GT images, for PSNR in the CSV')
    parser.add_argument('--operator', choices=OPERATORS, default='average_pooling',
                        help='how the LR images were made, default average_pooling')
    parser.add_argument('--alias', action='store_true',
                        help='the kernel was not widened by the scale (OpenCV INTER_CUBIC …)')
    parser.add_argument('--border', choices=('library', 'mirror'), default='library',
                        help="border rule of the LR: 'library' (PIL, torch, cv2) or 'mirror' "
                        '(MATLAB)')
    parser.add_argument('--made-by', choices=LIBRARIES,
                        help='library whose 8-bit resize made the LR and gives it back; float: '
                        'A x rounded once. Default: float for average_pooling and box --alias, '
                        'opencv for the other kernels with --alias, matlab with --border mirror, '
                        'else pil')
    parser.add_argument('--csv', type=Path, help='default OUT/consistency.csv')
    parser.add_argument('--overwrite', action='store_true', help='replace existing output')
    args = parser.parse_args(argv)
    args.csv = args.csv or args.out / 'consistency.csv'
    if args.alias and args.operator == 'average_pooling':
        parser.error('--alias: average pooling has no such variant')
    if args.border != 'library' and args.operator == 'average_pooling':
        parser.error('--border: average pooling does not look beyond the image')
    args.made_by = args.made_by or likeliest_library(args)
    if args.made_by != 'float':
        try:
            LibraryResize(make_operator(args, 2), args.made_by)
        except ValueError as error:
            parser.error(f'--made-by: {error}')
    return args


def likeliest_library(args):
    """What most LR files of that kind were made by."""
    if args.operator == 'average_pooling' or (args.operator == 'box' and args.alias):
        return 'float'
    if args.alias:
        return 'float' if args.border == 'mirror' else 'opencv'
    return 'matlab' if args.border == 'mirror' else 'pil'


def make_operator(args, scale):
    if args.operator == 'average_pooling':
        return AveragePooling(scale)
    return SeparableResize(scale, args.operator, not args.alias, args.border)


def find_images(folder, name, problems):
    """stem -> path of the images of a folder; what is wrong goes to ``problems``."""
    if not folder.is_dir():
        problems.append(f'--{name} {folder}: expected a folder of images')
        return {}
    found = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES):
        if path.stem in found:
            problems.append(f'{path.stem}: --{name} has both {found[path.stem].name} and '
                            f'{path.name}')
        found[path.stem] = path
    if not found:
        problems.append(f'--{name} {folder}: expected images ({", ".join(SUFFIXES)}), found none')
    return found


def read_header(path, problems):
    """Size and mode after reading the whole file; None if it is not usable."""
    try:
        image = read_8bit(path)
    except ValueError as error:
        problems.append(str(error))
        return None
    return image.shape[1::-1], 'L' if image.ndim == 2 else 'RGB'


def check(args):
    """All that can be wrong, found before anything is written: (pairs, problems)."""
    problems = []
    folders = {name: getattr(args, name) for name in ('lr', 'sr', 'gt') if getattr(args, name)}
    images = {name: find_images(folder, name, problems) for name, folder in folders.items()}
    for name, folder in folders.items():
        if folder.resolve() == args.out.resolve():
            problems.append(f'--out {args.out}: is also the folder of --{name}')
    if all(images.values()):
        for name in images:
            for other in images:
                # GT may hold more than is needed
                missing = images[other].keys() - images[name].keys() if other != 'gt' else ()
                problems += [f'{stem}: in --{other} but not in --{name}' for stem in
                             sorted(missing)]
    pairs = []
    for stem in sorted(set.intersection(*(set(found) for found in images.values()))):
        paths = {name: images[name][stem] for name in images}
        headers = {name: read_header(path, problems) for name, path in paths.items()}
        if None in headers.values():
            continue
        scale = check_sizes(stem, headers, problems)
        target = args.out / f'{stem}.png'
        check_target(target, args, problems)
        if scale:
            pairs.append((stem, paths, scale, target))
    check_target(args.csv, args, problems)
    inputs = {path.resolve() for found in images.values() for path in found.values()}
    if args.csv.resolve() in inputs:
        problems.append(f'--csv {args.csv}: is an input image')
    for folder in (args.out, args.csv.parent):
        upper = next(path for path in (folder.absolute(), *folder.absolute().parents)
                     if path.exists())
        if not upper.is_dir():
            problems.append(f'{folder}: {upper} is not a folder')
    return pairs, problems


def check_target(path, args, problems):
    """A file may be written, or replaced if the user says so."""
    if path.is_dir():
        problems.append(f'{path}: is a folder, expected a file name')
    elif path.exists() and not args.overwrite:
        problems.append(f'{path}: exists (--overwrite replaces it)')


def check_sizes(stem, headers, problems):
    """The scale, or None after saying what does not fit."""
    (lr_size, lr_mode), (sr_size, sr_mode) = headers['lr'], headers['sr']
    scale, fits = None, True
    try:
        scale = infer_scale(sr_size[::-1], lr_size[::-1])
    except ValueError:
        problems.append('{}: expected an SR size that is one multiple of the LR size {}x{}, '
                        'got {}x{}'.format(stem, *lr_size, *sr_size))
        fits = False
    if lr_mode != sr_mode:
        problems.append(f'{stem}: LR is {lr_mode} but SR is {sr_mode}')
        fits = False
    if 'gt' in headers and headers['gt'] != headers['sr']:
        (width, height), mode = headers['gt']
        problems.append('{}: expected a GT like SR, {}x{} {}, got {}x{} {}'.format(
            stem, *sr_size, sr_mode, width, height, mode))
        fits = False
    return scale if fits else None


def load(path):
    """float64 (1, C, H, W) in 0..255."""
    array = read_8bit(path)
    array = array.reshape(*array.shape[:2], -1).transpose(2, 0, 1)
    return torch.from_numpy(array.astype(np.float64))[None]


def save(image, path):
    """Write a uint8 (1, C, H, W) image as PNG."""
    array, file = image[0].permute(1, 2, 0).numpy(), io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(file, 'PNG')
    write_atomically(path, file.getvalue())


def _psnr(image, reference):
    return psnr(errors(image, reference)['MSE'], cap=math.inf)


def make_consistent(paths, operator, made_by):
    """One image: (uint8 tensor, row of figures)."""
    lr, sr = load(paths['lr']), load(paths['sr'])
    projected = operator.project(sr, lr)
    result, unmatched = consistent_uint8(projected, lr, operator, return_unmatched=True,
                                         made_by=made_by)
    row = dict(psnr_lr_before=_psnr(operator.A(sr), lr),
               psnr_lr_after=_psnr(operator.A(result.double()), lr), lr_values=lr.numel(),
               lr_values_unmatched=unmatched)
    if 'gt' in paths:
        gt = load(paths['gt'])
        row.update(psnr_gt_before=_psnr(sr, gt), psnr_gt_after=_psnr(result, gt))
    return result, row


def main(argv=None):
    args = parse_args(argv)
    pairs, problems = check(args)
    if problems:
        print('\n'.join(f'error: {problem}' for problem in problems), file=sys.stderr)
        print(f'error: nothing was written ({len(problems)} problems)', file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    args.csv.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    with args.csv.open('w', newline='') as file:
        writer = None
        for stem, paths, scale, target in tqdm(pairs, unit='image'):
            operator = make_operator(args, scale)
            try:
                result, row = make_consistent(paths, operator, args.made_by)
            except (OSError, ValueError) as error:  # the file has changed since
                print(f'error: {stem}: {error} ({len(rows)} images were written before)',
                      file=sys.stderr)
                return 2
            save(result, target)
            row = dict(name=csv_text(stem), scale=scale, made_by=args.made_by, **row)
            if writer is None:
                writer = csv.DictWriter(file, row)
                writer.writeheader()
            writer.writerow({k: f'{v:.4f}' if isinstance(v, float) else v for k, v in row.items()})
            rows.append(row)
    summarise(args, rows)
    return 0


def summarise(args, rows):
    def mean(key):
        return sum(row[key] for row in rows) / len(rows)

    unmatched, total = (sum(row[key] for row in rows)
                        for key in ('lr_values_unmatched', 'lr_values'))
    variant = ' without antialias' if args.alias else ''
    variant += ', mirrored at the border' if args.border == 'mirror' else ''
    rounding = 'one rounding' if args.made_by == 'float' else f'{args.made_by}, as installed,'
    print(f'{len(rows)} images, A = {args.operator}{variant}: mean PSNR(LR) '
          f'{mean("psnr_lr_before"):.2f} -> {mean("psnr_lr_after"):.2f} dB, '
          f'{unmatched} of {total} LR values not given back by {rounding}')
    for row in rows:
        if row['lr_values_unmatched']:
            print(f'{row["name"]}: {row["lr_values_unmatched"]} of {row["lr_values"]}')
    if args.gt:
        print(f'mean PSNR against GT {mean("psnr_gt_before"):.3f} -> '
              f'{mean("psnr_gt_after"):.3f} dB')
    print(f'written to {args.out}, figures in {args.csv}')
