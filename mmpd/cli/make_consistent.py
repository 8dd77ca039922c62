"""Exact colour fix: make the SR images of any method consistent with their LR images.

    mmpd-make-consistent --lr LR_DIR --sr SR_DIR --out OUT_DIR

No network and no MMagic are needed.  Images are matched by file stem and the scale is read from
their sizes.  The range-space part of each SR image, its colours above all, is replaced by that of
its LR image (x̂ = x + A†(y - A x)) and rounded so that degrading the written file, by the
arithmetic of the library that made the LR (--made-by), gives the LR file back.  A CSV lists how
many LR values it does not, PSNR(LR) before and after, and PSNR against GT with --gt.
docs/make_consistent.md says more.
"""
import argparse
import re
import sys
from collections import Counter
from concurrent.futures.process import BrokenProcessPool

from ..errors import InputError
from ..operators.library_resize import LIBRARIES
from ..operators.resolve import prepare_operator, resolve_operator
from ..postprocess.consistent import MOST_PAIRS, identified
from ..postprocess.correction import NAMES, Correction, named_operator
from ..utils.files import disk_full, is_full, plain
from ..utils.rasters import read_raster
from . import path_argument, run_tool
from .consistent_files import Run
from .consistent_pairs import check
from .processes import open_pool


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        prog='mmpd-make-consistent', description=__doc__.splitlines()[0],
        epilog='A "colour shift" of super-resolution is low-frequency inconsistency with the LR '
        'image; here it is removed exactly, not filtered. See docs/make_consistent.md.')
    group = parser.add_argument_group('files (8 and 16 bits, floating point, any bands: PNG, '
                                      'TIFF, .npy; 8 bits also JPEG, BMP, WebP)')
    group.add_argument('--lr', type=path_argument, required=True, help='folder of LR images')
    group.add_argument('--sr', type=path_argument, required=True,
                       help='folder of SR images, any method')
    group.add_argument('--out', type=path_argument, required=True,
                       help='folder for the results: PNG; TIFF and .npy stay what they are')
    group.add_argument('--gt', type=path_argument, help='folder of GT images, for PSNR in the CSV')
    group.add_argument('--sr-suffix', default='', metavar='TEXT',
                       help='what the SR names have besides the LR names: _out for x_out.png')
    group.add_argument('--resize-sr', action='store_true',
                       help='resize (bicubic) SR images that are no integer multiple of the LR')
    group.add_argument('--csv', type=path_argument, help='default OUT/consistency.csv')
    modes = group.add_mutually_exclusive_group()
    modes.add_argument('--overwrite', action='store_true', help='replace existing output')
    modes.add_argument('--resume', action='store_true',
                       help='go on after a stop: keep the files that the CSV has as complete')
    group = parser.add_argument_group('degradation A')
    group.add_argument('--operator', choices=('auto', *NAMES), default='average_pooling',
                       help='how the LR images were made, default average_pooling; auto: find out')
    group.add_argument('--alias', action='store_true',
                       help='the kernel was not widened by the scale (OpenCV INTER_CUBIC …)')
    group.add_argument('--border', choices=('library', 'mirror'), default='library',
                       help="border rule of the LR: 'library' (PIL, torch, cv2) or 'mirror' "
                       '(MATLAB)')
    group.add_argument('--made-by', choices=LIBRARIES,
                       help='library whose resize made the LR and gives it back; float: A x '
                       'rounded once. Default: float for average_pooling and box --alias, '
                       'opencv for the other kernels with --alias, matlab with --border mirror, '
                       'else pil (16 bits: float)')
    group = parser.add_argument_group('correction')
    group.add_argument('--strength', type=float, default=1.0,
                       help='1 (default): consistent; less for noisy LR, 0: the SR colours')
    group.add_argument('--noise-std', type=float, metavar='SIGMA',
                       help='noise of the LR in units of its file (grey levels), instead of '
                       '--strength')
    group.add_argument('--bounds', type=float, nargs=2, metavar=('LOW', 'HIGH'),
                       help='range of the results; default 0 to 255 or 65535, none for floats')
    group.add_argument('--workers', type=int, default=1, metavar='N',
                       help='images at once, in processes of one thread each; the results do not '
                       'depend on it')
    args = parser.parse_args(argv)
    args.csv = args.csv or args.out / 'consistency.csv'
    plain = args.operator in ('average_pooling', 'auto')
    if args.alias and plain:
        parser.error(f'--alias: {args.operator} has no such variant')
    if args.border != 'library' and plain:
        parser.error(f'--border: {args.operator} has no such variant')
    if args.workers < 1:
        parser.error(f'--workers: expected at least 1, got {args.workers}')
    try:
        args.correction = Correction(args.strength, args.noise_std, args.bounds, args.made_by)
        args.degradation = None
        if args.operator != 'auto':
            args.degradation = named_operator(args.operator, not args.alias, args.border)
            args.correction.library(resolve_operator(args.degradation, (2, 2), (1, 1)),
                                    65535 if args.made_by in ('torch', 'opencv') else 255)
    except ValueError as error:
        parser.error(re.sub(r'^\w+', lambda name: f'--{name[0].replace("_", "-")}', str(error)))
    return args


def find_operator(args, pairs):
    """``--operator auto``: look at some pairs of the commonest scale, evenly chosen.

    Raises:
        InputError: There are none.
    """
    kind = 'gt' if args.gt else 'sr'
    usable = [pair for pair in pairs if pair.scale > 1 and (kind == 'gt' or not pair.resize)]
    if not usable:
        raise InputError('--operator auto: expected pairs of a scale of 2 or more whose sizes fit '
                         'without --resize-sr')
    scale = Counter(pair.scale for pair in usable).most_common(1)[0][0]
    usable = [pair for pair in usable if pair.scale == scale]
    some = usable[::-(-len(usable) // MOST_PAIRS)]  # of which no more are read
    images = [tuple(read_raster(pair.paths[name]).pixels for name in ('lr', kind))
              for pair in some]
    cfg, made_by, psnr, doubt = identified(images, kind == 'sr', args.made_by)
    prepare_operator(cfg)
    print(f'--operator auto: A = {cfg}, made by {made_by or "the likeliest"}, '
          f'PSNR(A({kind.upper()}), LR) {psnr:.2f} dB over {len(images)} pairs')
    if doubt:
        print(f'warning: {doubt}', file=sys.stderr)
    return cfg, made_by


def make_consistent(argv=None):
    args = parse_args(argv)
    with open_pool(args.workers) as run_jobs:
        return _make_consistent(args, run_jobs)


def _make_consistent(args, run_jobs):
    try:
        pairs, problems, warnings = check(args, run_jobs)
    except BrokenProcessPool:
        raise InputError('a process of --workers died, for want of memory perhaps: expected fewer '
                         f'than {args.workers}; nothing was written') from None
    for warning in warnings:
        print(f'warning: {plain(warning)}', file=sys.stderr)
    if not problems and args.degradation is None:
        args.degradation, made_by = find_operator(args, pairs)
        args.correction = Correction(args.strength, args.noise_std, args.bounds, made_by)
    run = Run(args, pairs)
    problems = problems or run.resume_problems()
    if problems:
        print('\n'.join(f'error: {plain(problem)}' for problem in problems), file=sys.stderr)
        print(f'error: nothing was written ({len(problems)} problems)', file=sys.stderr)
        return 2
    try:
        rows, failure = run(run_jobs)
    except OSError as error:
        if isinstance(error, InputError) or error.errno is None:  # said already, or of the code
            raise
        path = error.filename or args.csv  # which is flushed without its name
        raise disk_full(error, path) if is_full(error) else InputError(
            f'{plain(path)}: cannot be written: {error.strerror}') from error
    if failure:
        print(f'error: {plain(failure)} ({len(rows)} images were written before)', file=sys.stderr)
        return 2
    summarise(args, rows, run.kept)
    return 0


def summarise(args, rows, kept):
    def mean(key):
        return sum(float(row[key]) for row in rows) / len(rows)

    unmatched, total = (sum(int(row[key]) for row in rows)
                        for key in ('lr_values_unmatched', 'lr_values'))
    variant = ' without antialias' if args.alias else ''
    variant += ', mirrored at the border' if args.border == 'mirror' else ''
    libraries = sorted({row['made_by'] for row in rows})
    rounding = 'one rounding' if libraries == ['float'] else (
        f'{", ".join(libraries)}, as installed,')
    name = args.degradation if args.operator == 'auto' else args.operator
    done = f' ({kept} were complete)' if kept else ''
    print(f'{len(rows)} images{done}, A = {name}{variant}: mean PSNR(LR) '
          f'{mean("psnr_lr_before"):.2f} -> {mean("psnr_lr_after"):.2f} dB, '
          f'{unmatched} of {total} LR values not given back by {rounding}')
    for row in rows:
        if int(row['lr_values_unmatched']):
            print(f'{plain(row["name"])}: {row["lr_values_unmatched"]} of {row["lr_values"]}')
    if args.gt:
        print(f'mean PSNR against GT {mean("psnr_gt_before"):.3f} -> '
              f'{mean("psnr_gt_after"):.3f} dB')
    print(f'written to {args.out}, figures in {args.csv}')


def main(argv=None):
    return run_tool(make_consistent, argv)
