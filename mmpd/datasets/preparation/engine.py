"""Raw images -> GT folder, LR folders, annotation files and a manifest.

Works on many processes, goes on after a kill where it stopped, leaves no half-written file, and
lists bad images instead of stopping at them.

The output folder holds ``GT/``, one LR folder per scale, ``meta_info_{train,test}.txt`` (read by
MMagic's ``BasicImageDataset``), ``manifest.json`` (options, counts, SHA-256 of every GT),
``report.txt`` (bad images, if any) and ``progress.jsonl`` (what is done).
"""
import ctypes
import json
import multiprocessing
import os
import signal
import sys
from collections import Counter, deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2
import torch

from ...utils.files import plain, remove_partial_files, write_atomically
from .recipe import make_one
from .sources import name_of

__all__ = ['prepare']

JOURNAL = 'progress.jsonl'
PR_SET_PDEATHSIG = 1  # of Linux's prctl
CHUNK = 8


def _start_worker():
    cv2.setNumThreads(0)
    torch.set_num_threads(1)  # of OpenMP's threads a fork has none
    if sys.platform == 'linux':  # do not outlive a main process that is killed
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _make_chunk(source, keys, recipe, out):
    return [make_one(source, key, recipe, out) for key in keys]


def read_journal(path, header):
    """Entries of finished images by key; half-written last lines are dropped.

    Raises:
        ValueError: If the folder was made with other options or from another source.
    """
    if not path.exists():
        return {}
    lines, done = path.read_text().split('\n'), {}
    try:
        first = json.loads(lines[0])
    except ValueError:
        return {}  # killed while writing its first line
    if first != header:
        changed = ', '.join(f'{key} = {first.get(key)!r}' for key in header
                            if first.get(key) != header[key])
        raise ValueError(f'{path.parent} was made with {changed}: choose another output folder or '
                         'delete it')
    for line in lines[1:]:
        try:
            entry = json.loads(line)
            done[entry['key']] = entry
        except (ValueError, KeyError):
            continue
    return done


def _is_there(entry, recipe, out):
    name = entry['name']
    try:
        return 'bad' not in entry and all(
            os.path.getsize(f'{out}/{folder}/{name}.png') == entry['bytes'].get(folder)
            for folder in recipe.folders())
    except OSError:
        return False


def _chunks(executor, source, keys, recipe, out, workers):
    """Results of all chunks, a bounded number of them in flight."""
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
            waiting.append((chunk, executor.submit(_make_chunk, source, chunk, recipe, out)))
        except BrokenProcessPool:
            if not waiting:
                raise
        if len(waiting) >= 4 * workers:
            yield first()
    while waiting:
        yield first()


def prepare(source, out, recipe, workers=None, limit=None, test_count=0, progress=True):
    """Make a data set.

    Args:
        source (Source): Raw images.
        out (str | Path): Output folder; an unfinished one is continued.
        recipe (Recipe): What to make.
        workers (int, optional): Processes. Defaults to None: one per core.
        limit (int, optional): Use the first images only, in sorted order. Defaults to None.
        test_count (int): How many of the good images, the last in sorted order, are listed in
            ``meta_info_test.txt`` instead of ``meta_info_train.txt``; -1 for all. Defaults to 0.
        progress (bool): Show a progress bar. Defaults to True.

    Returns:
        dict: The manifest.

    Raises:
        ValueError: If the source has no image, two images would get one name, or ``out`` was made
            with other options.

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
    out = Path(out)
    keys = source.keys()[:limit]
    source.close()  # the workers open it themselves
    if not keys:
        raise ValueError(f'no images in {source.path}')
    names = {}
    for key in keys:
        other = names.setdefault(name_of(source, key), key)
        if other != key:
            raise ValueError(f'{plain(other)} and {plain(key)} would both become '
                             f'{plain(name_of(source, key))}.png')
    header = dict(source=str(source.path.resolve()), **recipe.options())
    journal_path = out / JOURNAL
    done = read_journal(journal_path, header)
    for folder in recipe.folders():
        (out / folder).mkdir(parents=True, exist_ok=True)
        remove_partial_files(out / folder)
    done = {key: entry for key, entry in done.items()
            if _is_there(entry, recipe, out)}  # those beyond --limit too
    write_atomically(journal_path, ''.join(
        json.dumps(line) + '\n' for line in (header, *done.values())).encode())
    todo = [key for key in keys if key not in done]
    workers = max(1, min(workers or os.cpu_count() or 1, -(-len(todo) // CHUNK)))
    if todo:
        _run(source, todo, recipe, out, workers, done, journal_path, progress, len(keys))
    return _finish(keys, done, header, out, test_count)


def _run(source, todo, recipe, out, workers, done, journal_path, progress, total):
    from tqdm import tqdm
    method = 'fork' if 'fork' in multiprocessing.get_all_start_methods() else None
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context(method), _start_worker)
    bar = tqdm(total=total, initial=total - len(todo), unit='img', disable=not progress)
    try:
        with open(journal_path, 'a') as journal, bar:
            for entries in _chunks(executor, source, todo, recipe, str(out), workers):
                journal.writelines(json.dumps(entry) + '\n' for entry in entries)
                journal.flush()
                done.update((entry['key'], entry) for entry in entries)
                bar.update(len(entries))
    finally:
        executor.shutdown(cancel_futures=True)


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
                    converted=dict(sorted(converted.items())),
                    gt_sha256={entry['name']: entry['sha256'] for entry in good})
    write_atomically(out / 'manifest.json', (json.dumps(manifest, indent=1) + '\n').encode())
    return manifest
