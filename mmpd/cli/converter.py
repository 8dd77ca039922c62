"""Command line of the data set converters in ``tools/dataset_converters``."""
import argparse
import os
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from ..datasets.preparation import FolderSource, Recipe, open_source, prepare
from ..datasets.preparation.recipe import RESIZERS
from ..datasets.resampling import BORDERS, KERNELS, LIBRARIES
from ..errors import InputError
from ..utils.files import plain
from . import path_argument


def parse_shard(text):
    """(i, n) of 'i/n'.

    Raises:
        argparse.ArgumentTypeError: In one line, for anything else.
    """
    parts = text.split('/')
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts) or \
            not 1 <= int(parts[0]) <= int(parts[1]):
        raise argparse.ArgumentTypeError(
            f'expected I/N with 1 <= I <= N, e.g. 2/16, got {text!r}')
    return int(parts[0]), int(parts[1])


def parse_args(argv, description, out, size, test_count):
    """Arguments common to all converters."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('source', type=path_argument, help='folder of images, zip file or LMDB')
    parser.add_argument('--out', type=path_argument, default=out, required=out is None,
                        help='output folder')
    parser.add_argument('--size', type=int, default=size, help='side of the square GT images')
    parser.add_argument('--scale', type=int, nargs='+', default=[],
                        help='write an LR folder for each of these scales; without, the configs '
                        'make the LRs on the fly')
    parser.add_argument('--kernel', choices=KERNELS, default='bicubic', help='kernel of the LRs')
    parser.add_argument('--antialias', action=argparse.BooleanOptionalAction, default=True,
                        help='antialiasing of the LRs')
    parser.add_argument('--border', choices=BORDERS, default='library',
                        help="border rule of the LRs: 'library' (PIL, torch, cv2) or 'mirror' "
                        '(MATLAB)')
    parser.add_argument('--made-by', choices=LIBRARIES,
                        help='whose 8-bit arithmetic makes the LRs; without, as LRSynthesis: '
                        'torch_uint8 for bicubic and bilinear with antialias and library border, '
                        'float (A x rounded once) for the others')
    parser.add_argument('--resized-by', choices=RESIZERS, help='whose Lanczos filter resizes GTs; '
                        'without, torch_uint8 if the installed torch has it (2.15 does), else pil')
    parser.add_argument('--lr-only', action='store_true', help='write no GT: SOURCE is a flat '
                        'folder of PNG files of --size and stays the GT folder')
    parser.add_argument('--shard', type=parse_shard, metavar='I/N', help='make the I-th of N '
                        'parts, 1 <= I <= N, e.g. in the I-th of N jobs of a Slurm array; the '
                        'one that ends last writes the lists and the manifest of all')
    parser.add_argument('--test-count', type=int, default=test_count,
                        help='list the last N images in meta_info_test.txt, the others in '
                        'meta_info_train.txt; -1: all')
    parser.add_argument('--limit', type=int, help='use the first N images only')
    parser.add_argument('--link', action='store_true',
                        help='hard-link PNG files that need no change instead of copying them')
    parser.add_argument('--workers', type=int, help='processes (default: one per core)')
    parser.add_argument('--quiet', action='store_true', help='no progress bar')
    args = parser.parse_args(argv)
    for name, least in (('limit', 1), ('workers', 1), ('test_count', -1)):
        value = getattr(args, name)
        if value is not None and value < least:
            parser.error(f'--{name.replace("_", "-")} must be at least {least}, got {value}')
    of_lrs, of_gts = ('kernel', 'antialias', 'border', 'made_by'), ('link', 'resized_by')
    for names, unused, reason in (
            (of_lrs, not args.scale, 'is about LR folders, which need --scale'),
            (of_gts, args.lr_only, 'is about the GT, of which --lr-only writes none')):
        for name in names if unused else ():
            if getattr(args, name) != parser.get_default(name):
                parser.error(f'--{"no-" * (name == "antialias")}{name.replace("_", "-")}: {reason}')
    return args


def main(argv, description, out, size, test_count=0, check=None):
    """Run a converter.

    Args:
        argv (list[str] | None): Arguments; None for those of the process.
        description (str): What it does.
        out (str | None): Default output folder, as the configs expect it; None: it must be given.
        size (int): Default GT size.
        test_count (int): Default of ``--test-count``.
        check (Callable[[Source], None], optional): Refuses an unsuitable source by ValueError.

    Returns:
        int: 0, 1 if images were bad (see the report), 2 for bad arguments or a full disk, 130 if
        interrupted.
    """
    args = parse_args(argv, description, out, size, test_count)
    start = time.perf_counter()
    try:
        recipe = Recipe(args.size, args.scale, args.kernel, args.antialias, args.link,
                        args.border, args.made_by, args.resized_by, not args.lr_only)
        source = open_source(args.source)
        if check is not None:
            check(source)
        manifest = prepare(source, args.out, recipe, args.workers, args.limit, args.test_count,
                           progress=not args.quiet and sys.stderr.isatty(), shard=args.shard)
    except (ValueError, OSError, ImportError, InputError) as error:
        said = isinstance(error, InputError) or not getattr(error, 'filename', None)
        print('error: ' + (str(error) if said else f'{plain(error.filename)}: {error.strerror}'),
              file=sys.stderr)
        return 2
    except BrokenProcessPool as error:
        print(f'error: a worker process was killed {error} (out of memory?): run the same command '
              'again to continue, with fewer --workers', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted: run the same command again to continue', file=sys.stderr)
        return 130
    seconds = time.perf_counter() - start
    if 'missing' in manifest:
        print(f'shard {args.shard[0]}/{args.shard[1]}: {manifest["images"]} images, '
              f'{manifest["bad"]} of them bad, {seconds:.1f} s; {manifest["missing"]} of other '
              f'shards are missing in {args.out}')
        return 1 if manifest['bad'] else 0
    print(f'{manifest["images"]} images in {args.out} ({manifest["train"]} train, '
          f'{manifest["test"]} test), {seconds:.1f} s')
    for note, count in manifest['converted'].items():
        print(f'{count} images: {note} (docs/images.md)')
    if manifest['bad']:
        report = os.path.join(args.out, 'report.txt')
        print(f'{manifest["bad"]} images are corrupt or undersized: see {report}', file=sys.stderr)
        return 1
    return 0


def refuse_deltas(source):
    """CelebA-HQ's deltas are no images: say what to do with them."""
    deltas = isinstance(source, FolderSource) and any(Path(source.path).glob('delta*.zip'))
    if deltas and not source.keys():
        raise ValueError(f'{source.path} holds the deltas of the official release, not images: '
                         'make imgHQ*.npy files of them with the release\'s own script, then give '
                         'that folder')
