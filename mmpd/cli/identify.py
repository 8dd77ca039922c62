"""Which A made these LR images? Rank every known one, and fit a free kernel.

    mmpd-identify --lr LR_DIR --gt GT_DIR
    mmpd-identify --lr LR_DIR --sr SR_DIR      (any method's results: figures are lower bounds)

Every kernel (average pooling, bicubic, bilinear, Lanczos, nearest; antialias and alias), border
and library is applied to the HR images and compared with the LR.  A free kernel is fitted by least
squares.  At the end stand the options for mmpd-make-consistent and the lines for a config.
Nothing is written but what --csv and --kernel-out name.
"""
import argparse
import csv
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from ..datasets.resampling import default_library
from ..errors import InputError
from ..postprocess.block_grid import block_grid
from ..postprocess.free_kernel import fit_kernel
from ..postprocess.identify import absent_libraries, check_pair, errors_of, identify
from ..postprocess.kernel_picture import draw_kernels
from ..postprocess.verdict import give_verdict
from ..utils.files import csv_text, folder_fault, in_the_way, write_atomically
from ..utils.images import find_pictures, read_8bit
from . import run_tool

SHOWN = 12


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--lr', type=Path, required=True, help='folder of LR images')
    hr = parser.add_mutually_exclusive_group(required=True)
    hr.add_argument('--gt', type=Path, help='folder of the HR images that they were made from')
    hr.add_argument('--sr', type=Path, help="folder of any method's results, where there is no GT")
    parser.add_argument('--lr-suffix', default='', help="end of the LR files' stems that the HR "
                        "files' lack, e.g. x4")
    parser.add_argument('--hr-suffix', default='', help="end of the HR files' stems that the LR "
                        "files' lack, e.g. _out")
    parser.add_argument('--pairs', type=int, default=20, help='how many pairs to use, evenly '
                        'spread over the names; 0 for all; default 20')
    parser.add_argument('--no-kernel', action='store_true', help='fit no free kernel')
    parser.add_argument('--kernel-out', type=Path, help='PNG file: the free kernel as a picture')
    parser.add_argument('--csv', type=Path, help='CSV file: every A that was tried')
    parser.add_argument('--overwrite', action='store_true', help='replace existing output')
    args = parser.parse_args(argv)
    if args.pairs < 0:
        parser.error(f'--pairs: expected an integer of at least 0, got {args.pairs}')
    if args.kernel_out and args.no_kernel:
        parser.error('--kernel-out: there is no kernel with --no-kernel')
    if args.kernel_out and args.kernel_out.suffix.lower() != '.png':
        parser.error(f'--kernel-out: expected a name that ends in .png, got {args.kernel_out}')
    return args


def _check_target(path, option, overwrite, inputs):
    if path.is_dir():
        raise InputError(f'{option} {path}: is a folder, expected a file name')
    if not path.absolute().parent.is_dir():
        raise InputError(f'{option} {path}: there is no folder {path.parent}')
    if not path.exists() or path.is_file():  # a device or pipe is written to
        fault = folder_fault(path.parent)
        if fault:
            raise InputError(f'{option} {path}: {fault}')
    if path.resolve() in inputs:
        raise InputError(f'{option} {path}: is an input image')
    if path.exists() and not overwrite:
        raise InputError(f'{option} {path}: exists (--overwrite replaces it)')


def _by_stem(folder, option, suffix):
    """Stem without suffix -> path."""
    if not folder.is_dir():
        raise InputError(f'{option} {folder}: expected a folder of images')
    try:
        found, others = find_pictures(folder)
    except ValueError as error:
        raise InputError(f'{option} {error}') from error
    if others:
        print(f'{option} {folder}: {others} other files are no images by their names: left out')
    files, found = [path for path, _ in found], {}
    for path in files:
        if not path.stem.endswith(suffix):
            raise InputError(f'{path}: expected a stem that ends in {suffix!r}')
        stem = path.stem[:len(path.stem) - len(suffix)]
        if stem in found:
            raise InputError(f'{option}: expected one file for {stem!r}, got {found[stem].name} '
                             f'and {path.name}')
        found[stem] = path
    return found


def _suffix_hint(lr, hr):
    """The option that would make the names fit, if one would."""
    first = min(lr)
    for name in sorted(hr):
        suffix = name[len(first):]
        if suffix and all(stem + suffix in hr for stem in lr):
            return f'; did you mean --hr-suffix={suffix}?'
        suffix = first[len(name):]
        if suffix and all(stem.endswith(suffix) and stem[:-len(suffix)] in hr for stem in lr):
            return f'; did you mean --lr-suffix={suffix}?'
    return ''


def find_pairs(args):
    """[(stem, LR path, HR path)] of the pairs to use, and how many there are."""
    option = '--gt' if args.gt else '--sr'
    lr = _by_stem(args.lr, '--lr', args.lr_suffix)
    hr = _by_stem(args.gt or args.sr, option, args.hr_suffix)
    missing = sorted(lr.keys() - hr.keys())
    if missing:
        names = ', '.join(missing[:3]) + (' …' if len(missing) > 3 else '')
        raise InputError(f'{option} {args.gt or args.sr}: expected an image for each of the '
                         f'{len(lr)} of --lr, got none for {len(missing)} ({names})'
                         f'{_suffix_hint(lr, hr)}')
    stems = sorted(lr)
    if 0 < args.pairs < len(stems):
        stems = [stems[index * len(stems) // args.pairs] for index in range(args.pairs)]
    return [(stem, lr[stem], hr[stem]) for stem in stems], len(lr)


class Pairs(Sequence):
    """Pairs of images, read when they are asked for; all read and checked once beforehand."""

    def __init__(self, files):
        self.files, self.shape, self.tables = files, None, []
        for stem, lr_path, hr_path in files:
            lr, hr = self._read(lr_path), self._read(hr_path)
            scale = check_pair(lr, hr, stem)
            if self.shape and scale != self.shape[0]:
                raise InputError(f'{stem}: expected the scale of {files[0][0]}, {self.shape[0]}, '
                                 f'got {scale}')
            self.shape = self.shape or (scale, lr.shape, hr.shape)
            with Image.open(lr_path) as image:
                jpeg = image.format in ('JPEG', 'MPO')
                self.tables.append(dict(qtables=image.quantization, subsampling=get_sampling(
                    image)) if jpeg else None)

    @property
    def jpegs(self):
        """How many LR files are JPEG files."""
        return sum(table is not None for table in self.tables)

    def compress(self, number, image):
        """An image as the LR file of that number was compressed."""
        if self.tables[number] is None:
            return image
        options, file = self.tables[number], io.BytesIO()
        if options['subsampling'] < 0:  # of a grey or unusual file
            options = dict(qtables=options['qtables'])
        Image.fromarray(image).save(file, 'JPEG', **options)
        return np.asarray(Image.open(file))

    @staticmethod
    def _read(path):
        try:
            return read_8bit(path)
        except ValueError as error:
            raise InputError(str(error)) from error

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        _, lr, hr = self.files[index]
        return self._read(lr), self._read(hr)


def _figure(value):
    return 'exact' if math.isinf(value) else f'{value:.2f}'


def _table(results, what):
    rows = [(str(rank), one.operator_name, one.made_by, _figure(one.psnr),
             f'{one.equal / sum(one.values):.2%}')
            for rank, one in enumerate(results[:SHOWN], 1)]
    rows.insert(0, ('', 'A', 'made by', f'PSNR({what}, LR)', 'equal LR values'))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join('  '.join((cell.rjust if column in (0, 3, 4) else cell.ljust)(width)
                               for column, (cell, width) in enumerate(zip(row, widths,
                                                                          strict=True)))
                     .rstrip() for row in rows)


def _write_csv(results, path):
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(('rank', 'operator', 'antialias', 'border', 'made_by', 'scale', 'psnr',
                     'lr_values', 'lr_values_equal'))
    for rank, one in enumerate(results, 1):
        writer.writerow((rank, csv_text(one.kernel), one.antialias, one.border, one.made_by,
                         one.operator_cfg['scale'], f'{one.psnr:.4f}', sum(one.values), one.equal))
    write_atomically(path, file.getvalue().encode())


def _advice(best, verdict):
    """The options and config lines that follow."""
    options = [f'--operator {best.kernel}']
    options += ['--alias'] * (not best.antialias) + ['--border mirror'] * (best.border == 'mirror')
    options.append(f'--made-by {best.made_by}')
    noise = None
    if verdict.noise_std is not None:
        noise = f'{verdict.noise_std:.1f}'
        options.append(f'--noise-std {noise}')
    operator = ', '.join(f'{key}={value!r}' for key, value in best.operator_cfg.items())
    extra = f', noise_std={noise}' if noise else ''
    data = dict(scale=best.operator_cfg['scale'], kernel=best.kernel, antialias=best.antialias,
                border=best.border)
    if best.made_by != default_library(best.kernel, best.antialias, best.border):
        data['made_by'] = best.made_by
    data = ', '.join(f'{key}={value!r}' for key, value in data.items())
    lines = [f'  mmpd-make-consistent {" ".join(options)} --lr … --sr … --out …',
             f'  model: pd_head=dict(operator=dict({operator}){extra})',
             f"  data:  dict(type='LRSynthesis', {data})"]
    if noise:
        lines.append(f'--noise-std sets the strength for each image: about 1 - ({noise} / e)², '
                     'where e is the RMS of LR - A(SR), in grey levels; 0 where e is less.')
    elif verdict.kind != 'bound':
        lines.append('The LR can be trusted: strength 1, the default.')
    return lines


def _check_targets(args, files):
    inputs = {path.resolve() for _, *paths in files for path in paths}
    for path, option in ((args.csv, '--csv'), (args.kernel_out, '--kernel-out')):
        if path:
            _check_target(path, option, args.overwrite, inputs)
    if args.csv and args.kernel_out and in_the_way(args.csv, [args.kernel_out]):
        raise InputError(f'--csv {args.csv}: is --kernel-out too')


def _announce(pairs, total, hr):
    """Say what is compared, before it takes its time."""
    scale, lr_shape, hr_shape = pairs.shape
    of = f' of {total}' if len(pairs) < total else ''
    print(f'{len(pairs)}{of} pairs, scale {scale}; the first: LR {lr_shape[1]}x{lr_shape[0]}, '
          f'{hr} {hr_shape[1]}x{hr_shape[0]}', flush=True)
    for library, reason in absent_libraries().items():
        print(f'{library} is not installed ({reason}): its resizings were not tried')


def _write_files(args, results, fitted):
    if args.csv:
        _write_csv(results, args.csv)
    if args.kernel_out and fitted is None:
        raise InputError(f'--kernel-out {args.kernel_out}: not written, no kernel could be fitted')
    if args.kernel_out:
        file = io.BytesIO()
        draw_kernels(fitted, results[0]).save(file, 'PNG')
        write_atomically(args.kernel_out, file.getvalue())
    written = [os.fspath(path) for path in (args.csv, args.kernel_out) if path]
    if written:
        print(f'written: {", ".join(written)}')


def _main(argv=None):
    args = parse_args(argv)
    files, total = find_pairs(args)
    _check_targets(args, files)
    pairs, hr = Pairs(files), 'GT' if args.gt else 'SR'
    _announce(pairs, total, hr)
    results = identify(pairs, afterwards=pairs.compress if pairs.jpegs else None,
                       recolour=not args.gt)
    best = results[0]
    print(_table(results, f'JPEG(A({hr}))' if pairs.jpegs else f'A({hr})'))
    if len(results) > SHOWN:
        print(f'… and {len(results) - SHOWN} more{"" if args.csv else " (--csv lists them)"}')
    fitted = None if args.no_kernel else fit_kernel(pairs)
    error = np.sqrt(sum((part**2).sum() for part in errors_of(best, pairs)) / sum(best.values)) \
        if pairs.jpegs else None
    verdict = give_verdict(results, fitted, _jpeg(pairs, best, hr), bool(args.gt), error)
    print('\n' + '\n'.join(verdict.lines))
    if not args.no_kernel and fitted is None:
        print('Too few LR pixels to fit a free kernel: give more or larger images.')
    print('\nUse')
    print('\n'.join(_advice(best, verdict)))
    _write_files(args, results, fitted)
    return 0


def _jpeg(pairs, best, hr):
    """How it is known that the LR was compressed, or False."""
    if pairs.jpegs:
        return f'{pairs.jpegs} of {len(pairs)} LR files are JPEG files'
    grid = None if math.isinf(best.psnr) else block_grid(errors_of(best, pairs))
    if grid is None:
        return False
    cut = '' if grid == (0, 0) else f', cut at ({grid[0]}, {grid[1]}) afterwards'
    return f'8x8 blocks show in LR - A({hr}){cut}'


def main(argv=None):
    return run_tool(_main, argv)
