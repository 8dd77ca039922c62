"""Raw images -> GT folder, LR folders, annotation files and a manifest.

Works on many processes and machines, goes on after a kill where it stopped, leaves no half-written
file, and lists bad images instead of stopping at them.

The output folder holds ``GT/``, one LR folder per scale, ``meta_info_{train,test}.txt`` (read by
MMagic's ``BasicImageDataset``), ``manifest.json`` (options, counts, SHA-256 of every GT),
``report.txt`` (bad images, if any) and ``progress.jsonl`` (what is done, see :mod:`.journal`).
"""
import ctypes
import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections import Counter, deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2
import torch

from ...utils.files import folder_fault, plain, write_atomically
from ...utils.validation import check_positive_int, optional
from .journal import Journal, check_shard
from .recipe import make_some
from .sources import SUFFIXES, LMDBSource, name_of

__all__ = ['prepare']

PR_SET_PDEATHSIG = 1  # of Linux's prctl
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
CHUNK = 8
LISTS = [f'meta_info_{split}.txt' for split in ('train', 'test')]


def _start_worker():
    cv2.setNumThreads(0)
    torch.set_num_threads(1)  # of OpenMP's threads a fork has none
    if sys.platform == 'linux':
        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # do not outlive a main process that is killed
        if hasattr(libc, 'mallopt'):  # glibc would give each image's memory back and fetch it anew,
            libc.mallopt(M_MMAP_THRESHOLD, 1 << 26)  # which takes 2 of 25 ms
            libc.mallopt(M_TRIM_THRESHOLD, 1 << 28)


def _is_there(entry, recipe, out, source):
    name = entry['name']
    try:
        return 'bad' not in entry and entry.get('stamp') == source.stamp(entry['key']) and all(
            os.path.getsize(f'{out}/{folder}/{name}.png') == entry['bytes'].get(folder)
            for folder in recipe.folders())
    except OSError:
        return False


def _check_apart(source, out, recipe):
    """Refuse to write over raw images, or among them, where the next run would find them."""
    path, where = source.path.resolve(), out.resolve()
    fault = folder_fault(out)
    if fault:
        raise ValueError(f'{plain(out)}: {fault}')
    for folder in recipe.folders():
        target = (where / folder).resolve()
        if target in (path, *path.parents):
            raise ValueError(f'{plain(source.path)} lies in {plain(out / folder)}, which would be '
                             'written over: choose another output folder')
    if path.is_dir() and path in (where, *where.parents):
        raise ValueError(f'{plain(out)} lies in {plain(source.path)}, whose images are the raw '
                         'ones: choose another output folder')


def _files(source, keys):
    """What the images made of the keys are called; ValueError if two would be called the same."""
    names = {}
    for key in keys:
        name = name_of(source, key)
        if name in names:
            raise ValueError(f'{plain(names[name])} and {plain(key)} would both become '
                             f'{plain(name)}.png')
        names[name] = key
    return [f'{name}.png' for name in names]


def _foreign(out, recipe, files):
    """A file that would be written and is there already, or None."""
    for name in (*LISTS, 'manifest.json', 'report.txt'):
        if os.path.lexists(out / name):
            return out / name
    for folder in recipe.folders():
        there = set(files).intersection(os.listdir(out / folder)) if (
            out / folder).is_dir() else ()
        if there:
            return out / folder / min(there)
    return None


def _chunks(executor, source, keys, recipe, out, partial, workers):
    """Results of :func:`make_some` of all chunks, a bounded number of them in flight."""
    chunks = (keys[start:start + CHUNK] for start in range(0, len(keys), CHUNK))
    waiting = deque()

    def first():
        chunk, future = waiting.popleft()
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise BrokenProcessPool(f'at one of the images from {plain(chunk[0])} to '
                                    f'{plain((waiting[-1][0] if waiting else chunk)[-1])}') \
                from error

    for chunk in chunks:
        try:
            waiting.append((chunk, executor.submit(make_some, source, chunk, recipe, out,
                                                    partial)))
        except BrokenProcessPool:
            if not waiting:
                raise
        if len(waiting) >= 4 * workers:
            yield first()
    while waiting:
        yield first()


def prepare(source, out, recipe, workers=None, limit=None, test_count=0, progress=True,
            shard=None):
    """Make a data set, or a part of it.

    Several machines share the work by one output folder: each makes the images of its shard, and
    the one that finishes last writes the annotation files, the report and the manifest. What is
    there then is, byte for byte, what one run without shards leaves.

    Args:
        source (Source): Raw images.
        out (str | Path): Output folder; an unfinished one is continued.
        recipe (Recipe): What to make.
        workers (int, optional): Processes. Defaults to None: one per core.
        limit (int, optional): Use the first images only, in sorted order. Defaults to None.
        test_count (int): How many of the good images, the last in sorted order, are listed in
            ``meta_info_test.txt`` instead of ``meta_info_train.txt``; -1 for all. Defaults to 0.
        progress (bool): Show a progress bar. Defaults to True.
        shard (tuple[int, int], optional): (i, n): make the i-th of n parts, 1 <= i <= n, of every
            n-th image. Defaults to None: everything.

    Returns:
        dict: The manifest; with ``shard``, while other shards have images to make, ``shard``, how
        many ``images`` it has, how many of these are ``bad``, and how many are ``missing``, of
        others.

    Raises:
        ValueError: If the source has no image or lies where the output would be, two images would
            get one name, ``out`` was made with other options or not by this, a shard has other
            ``limit`` or ``test_count``, or a number is none.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from mmpd.datasets.preparation import FolderSource, Recipe, prepare
        >>> Path('raw').mkdir()
        >>> Image.new('RGB', (32, 32)).save('raw/a.png')
        >>> manifest = prepare(FolderSource('raw'), 'data', Recipe(32, scales=(4, )), workers=1,
        ...                    progress=False)
        >>> manifest['images']
        1
        >>> sorted(path.as_posix() for path in Path('data').glob('*/*.png'))
        ['data/GT/a.png', 'data/LR_x4_bicubic_antialias/a.png']
    """
    out, shard = Path(out), check_shard(shard)
    for value, name in ((workers, 'workers'), (limit, 'limit')):
        optional(check_positive_int, value, name)
    check_positive_int(test_count, 'test_count', least=-1)
    _check_apart(source, out, recipe)
    keys = source.keys()[:limit]
    source.close()  # the workers open it themselves
    if not keys:
        wanted = '' if isinstance(source, LMDBSource) else f', expected {", ".join(SUFFIXES)}'
        raise ValueError(f'no images in {source.path}{wanted}')
    recipe.check(source, keys)
    files = _files(source, keys)
    header = dict(source=str(source.path.resolve()), **recipe.options())
    journal = Journal(out, header, shard, dict(limit=limit, test_count=test_count))
    foreign = None if journal.exists() else _foreign(out, recipe, files)
    if foreign and not journal.exists():  # of no other shard that began meanwhile
        raise ValueError(f'{plain(foreign)}: exists, and no converter made it: choose another '
                         'output folder or move it away')
    known, own = journal.read(), journal.own(keys)
    for folder in recipe.folders():
        (out / folder).mkdir(parents=True, exist_ok=True)
        journal.remove_partial(out / folder)
    # unless there are shards, those beyond --limit too
    kept = known if shard == (1, 1) else {key: known[key] for key in own if key in known}
    done = {key: entry for key, entry in kept.items() if _is_there(entry, recipe, out, source)}
    journal.start(done)
    todo = [key for key in own if key not in done]
    workers = max(1, min(workers or os.cpu_count() or 1, -(-len(todo) // CHUNK)))
    if todo:
        _run(source, todo, recipe, out, workers, done, journal, progress, len(own))
    if shard != (1, 1):
        done = {**journal.read(), **done}  # of those that finished meanwhile too
        missing = sum(not ('bad' in done[key] or _is_there(done[key], recipe, out, source))
                      if key in done else 1 for key in keys)
        if missing:
            return dict(shard=list(shard), images=len(own), missing=missing,
                        bad=sum('bad' in done[key] for key in own))
    manifest = _finish(keys, done, header, out, test_count)
    if shard != (1, 1) or list(out.glob('progress.*-of-*.jsonl')):
        journal.join(keys, done)
        for folder in recipe.folders():
            journal.remove_partial(out / folder, all_shards=True)
    return manifest


def _run(source, todo, recipe, out, workers, done, journal, progress, total):
    from tqdm import tqdm
    method = 'fork' if 'fork' in multiprocessing.get_all_start_methods() else None
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context(method), _start_worker)
    bar = tqdm(total=total, initial=total - len(todo), unit='img', disable=not progress)
    try:
        with open(journal.path, 'a') as file, bar:
            for entries in _chunks(executor, source, todo, recipe, str(out), journal.partial,
                                   workers):
                file.writelines(json.dumps(entry) + '\n' for entry in entries)
                file.flush()
                done.update((entry['key'], entry) for entry in entries)
                bar.update(len(entries))
    finally:
        executor.shutdown(cancel_futures=True)
        for folder in recipe.folders():
            shutil.rmtree(out / folder / journal.partial, ignore_errors=True)


def _finish(keys, done, header, out, test_count):
    entries = [done[key] for key in keys]
    good = [entry for entry in entries if 'bad' not in entry]
    bad = [entry for entry in entries if 'bad' in entry]
    cut = 0 if test_count < 0 else max(0, len(good) - test_count)
    size = header['size']
    for split, part in (('train', good[:cut]), ('test', good[cut:])):
        path = out / f'meta_info_{split}.txt'
        if part:
            write_atomically(path, ''.join(
                f'{entry["name"]}.png ({size},{size},3)\n' for entry in part).encode())
        elif path.exists():
            path.unlink()  # of an earlier run with another split
    report = out / 'report.txt'
    if bad:
        write_atomically(report, ''.join(
            # a file by its path; LMDB keys have no suffix and are held in hexadecimal: by name
            f'{plain(entry["key"] if "." in entry["key"] else entry["name"])}\t'
            f'{plain(entry["bad"])}\n'
            for entry in bad).encode())
    elif report.exists():
        report.unlink()
    converted = Counter(note for entry in good for note in entry.get('notes', ()))
    manifest = dict(header, images=len(good), train=cut, test=len(good) - cut, bad=len(bad),
                    converted=dict(sorted(converted.items())))
    if header.get('gt', True):
        manifest['gt_sha256'] = {entry['name']: entry['sha256'] for entry in good}
    write_atomically(out / 'manifest.json', (json.dumps(manifest, indent=1) + '\n').encode())
    return manifest
