"""The run of ``mmpd-make-consistent``: files and their CSV, which a kill leaves sound.

A row is on the disk before its file is put into place, and holds the file's hash and that of what
it was made of: what exists without a row is not ours, and what has one is known to be complete.
"""
import csv
import hashlib
import io
import json
import math
import os
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from ..operators.resolve import resolve_operator
from ..postprocess.consistent import work_dtype
from ..utils.files import csv_text, remove_partial_files, write_atomically, write_partial
from ..utils.rasters import Raster, encode_raster, read_raster
from .consistent_pairs import file_hash

__all__ = ['Run', 'make_file']

COLUMNS = ('name', 'scale', 'made_by', 'psnr_lr_before', 'psnr_lr_after', 'lr_values',
           'lr_values_unmatched')
GT_COLUMNS = ('psnr_gt_before', 'psnr_gt_after')
HASHES = ('inputs', 'output')
DIGITS = 16


class Run:
    """All pairs of a command.

    Args:
        args (Namespace): The command's.
        pairs (list[Pair]): Checked.

    Attributes:
        kept (int): How many were complete before.
    """

    def __init__(self, args, pairs):
        self.args, self.pairs = args, pairs
        self.columns = (*COLUMNS, *(GT_COLUMNS if args.gt else ()), *HASHES)
        settings = [args.degradation, sorted(vars(args.correction).items()), args.gt is not None]
        self._settings = json.dumps(settings, sort_keys=True)
        self._complete = {}  # name -> row

    @property
    def kept(self):
        return len(self._complete)

    def _inputs(self, pair):
        made_of = f'{pair.digest} {pair.resize} {self._settings}'
        return hashlib.sha256(made_of.encode()).hexdigest()[:DIGITS]

    def resume_problems(self):
        """With --resume: find what is complete; what else is in the way of the results."""
        if not self.args.resume:
            return []
        problems, table = [], self.args.csv
        rows = read_rows(table) if table.is_file() else {}
        if rows is None:
            return [f'--csv {table}: is no table of this command, --resume has nothing to go by']
        for pair in self.pairs:
            row = rows.get(csv_text(pair.name))
            if not pair.target.exists():
                continue
            if row is None:
                reason = f'exists, but {table.name} has no row of it'
            elif row['inputs'] != self._inputs(pair):
                reason = 'was made from other files or with other settings'
            elif row['output'] != file_hash([pair.target])[:DIGITS]:
                reason = f'is not the file that {table.name} has'
            else:
                self._complete[pair.name] = row
                continue
            problems.append(f'{pair.target}: {reason} (--overwrite, without --resume, replaces it)')
        return problems

    def __call__(self, run_jobs):
        """Make the files.

        Args:
            run_jobs (Callable): See :func:`open_pool`.

        Returns:
            tuple[list[dict], str | None]: Rows, and what went wrong.
        """
        args, failure = self.args, None
        args.out.mkdir(parents=True, exist_ok=True)
        args.csv.parent.mkdir(parents=True, exist_ok=True)
        if args.resume:
            remove_partial_files(args.out)
        rows = dict(self._complete)
        if rows:
            write_atomically(args.csv, self._table(rows).encode())
        else:
            args.csv.write_bytes(self._table(rows).encode())
        left = [pair for pair in self.pairs if pair.name not in rows]
        jobs = [(pair, args.degradation, args.correction) for pair in left]
        on_disk = os.path.isfile(args.csv)  # not a pipe or /dev/null, of which fsync wants nothing
        results = iter(run_jobs(make_file, jobs) if jobs else ())
        with args.csv.open('a', newline='') as file, tqdm(
                total=len(self.pairs), initial=len(rows), unit='image') as bar:
            writer = csv.DictWriter(file, self.columns)
            for pair in left:
                try:
                    row, error, temporary = next(results)
                except BrokenProcessPool:
                    failure = failure or (f'{pair.name}: a process of --workers died, for want of '
                                          'memory perhaps')
                    break
                if error:
                    failure = failure or f'{pair.name}: {error}'
                    continue
                if failure:  # what others made meanwhile
                    os.unlink(temporary)
                    continue
                row['inputs'] = self._inputs(pair)
                try:
                    writer.writerow(row)
                    file.flush()
                    if on_disk:
                        os.fsync(file.fileno())
                    os.replace(temporary, os.path.realpath(pair.target))
                except BaseException:
                    os.unlink(temporary)
                    raise
                rows[pair.name] = row
                bar.update()
        ordered = {pair.name: rows[pair.name] for pair in self.pairs if pair.name in rows}
        if list(ordered) != list(rows):
            write_atomically(args.csv, self._table(ordered).encode())
        return list(ordered.values()), failure

    def _table(self, rows):
        file = io.StringIO(newline='')
        writer = csv.DictWriter(file, self.columns)
        writer.writeheader()
        writer.writerows(rows.values())
        return file.getvalue()


def read_rows(path):
    """name -> row of a CSV of this command, but for a last line that a kill cut; None for others'.
    """
    try:
        with path.open(newline='', encoding='utf-8') as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or ()
            if not {*COLUMNS, *HASHES} <= set(names):
                return None
            return {row['name']: row for row in reader
                    if len(row[names[-1]] or '') == DIGITS and None not in row}
    except (UnicodeDecodeError, csv.Error):  # no text, or NUL
        return None


def make_file(pair, degradation, correction):
    """One pair: (row, None, temporary file), or (None, what went wrong, None)."""
    try:
        rasters = {name: read_raster(path) for name, path in pair.paths.items()}
        if pair.resize:
            rasters['sr'] = resized(rasters['sr'], pair.resize)
        lr, sr = rasters['lr'], rasters['sr']
        pixels, row = make_consistent(lr, sr, rasters.get('gt'), degradation, correction)
        data = encode_raster(Raster(pixels, sr.alpha, lr.icc_profile or sr.icc_profile, sr.tags),
                             pair.target.suffix)
        temporary = write_partial(os.path.realpath(pair.target), data)
    except (OSError, ValueError) as error:  # the file has changed since, the disk is full
        return None, str(error), None
    row = dict(name=csv_text(pair.name), **row,
               output=hashlib.sha256(data).hexdigest()[:DIGITS])
    return row, None, temporary


def resized(raster, size):
    """A raster of another (width, height), bicubic with antialias."""
    def resize(array):
        planes = torch.from_numpy(array.reshape(*array.shape[:2], -1).astype(np.float64))
        planes = F.interpolate(planes.permute(2, 0, 1)[None], size=size[::-1], mode='bicubic',
                               antialias=True)[0].permute(1, 2, 0)
        if raster.most is not None:
            planes = planes.clamp(0, raster.most).round()
        return planes.numpy().astype(array.dtype).reshape(*size[::-1], *array.shape[2:])

    alpha = None if raster.alpha is None else resize(raster.alpha)
    return Raster(resize(raster.pixels), alpha, raster.icc_profile)


def make_consistent(lr, sr, gt, degradation, correction):
    """The pixels of ``sr``, changed in place, and a row of figures; in strips where A allows."""
    operator = resolve_operator(degradation, sr.pixels.shape[:2], lr.pixels.shape[:2])
    dtype, most = sr.pixels.dtype, sr.most
    wide = work_dtype(dtype)

    def part(raster, rows):
        array = raster.pixels[rows]
        array = array.reshape(*array.shape[:2], -1).astype(str(wide)[6:])
        return torch.from_numpy(array).permute(2, 0, 1)[None]

    def square(error):
        return error.double().square().sum().item()

    result, unmatched = sr.pixels, 0  # the parts are copies
    sums = dict.fromkeys(('lr_before', 'lr_after', 'gt_before', 'gt_after'), 0.)
    for rows, lr_rows in correction.strips(operator, sr.pixels.shape[0], sr.pixels[0].size):
        x, y = part(sr, rows), part(lr, lr_rows)
        made, missed = correction(x, y, operator, most, getattr(torch, dtype.name, None))
        result[rows] = made[0].permute(1, 2, 0).reshape(result[rows].shape).numpy()
        unmatched += missed
        made = made.to(torch.float64)
        sums['lr_before'] += square(operator.A(x.double()) - y)
        sums['lr_after'] += square(operator.A(made) - y)
        if gt:
            truth = part(gt, rows)
            sums['gt_before'] += square(x - truth)
            sums['gt_after'] += square(made - truth)
    # floating point has no largest value: the range of the LR stands for it
    peak = most or float(np.ptp(lr.pixels)) or 1.0
    sizes = dict(lr=lr.pixels.size, gt=sr.pixels.size)
    figures = {f'psnr_{name}': f'{_psnr(value / sizes[name[:2]], peak):.4f}'
               for name, value in sums.items() if gt or name.startswith('lr')}
    row = dict(scale=str(operator.scale), made_by=correction.library(operator, most), **figures,
               lr_values=str(lr.pixels.size), lr_values_unmatched=str(unmatched))
    return result, row


def _psnr(error, peak):
    return 10 * math.log10(peak**2 / error) if error else math.inf
