"""Raw images -> GT folder, LR folders, annotation files and a manifest.

Works on many processes, goes on after a kill where it stopped, leaves no half-written file, and
lists bad images instead of stopping at them.

The output folder holds ``GT/``, one LR folder per scale, ``meta_info_{train,test}.txt`` (read by
MMagic's ``BasicImageDataset``), ``manifest.json`` (options, counts, SHA-256 of every GT),
``report.txt`` (bad images, if any) and ``progress.jsonl`` (what is done).
"""
import ctypes
import errno
import hashlib
import io
import json
import multiprocessing
import os
import signal
import sys
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .resampling import check_kernel, downsample
from .sources import name_of

JOURNAL = 'progress.jsonl'
PR_SET_PDEATHSIG = 1  # of Linux's prctl
CHUNK = 8


class BadImage(Exception):
    """An image that cannot be used, with the reason."""


class Recipe:
    """What is made of one image.

    Args:
        size (int): Side of the square GT. Larger images are cropped to the central square and
            resized with PIL's Lanczos filter (as StyleGAN's data sets were); smaller ones are
            bad. PNG files that need neither are copied byte for byte.
        scales (Sequence[int]): An LR folder is written for each.
        kernel (str): Kernel of the LRs, see :func:`mmpd.datasets.resampling.downsample`.
        antialias (bool): Antialiasing of the LRs.
        border (str): Border rule of the LRs, 'library' or 'mirror'.
        link (bool): Hard-link GT files that need no change instead of copying them.

    Raises:
        ValueError: For an undefined downsampling or a size that a scale does not divide.
    """

    def __init__(self, size, scales=(), kernel='bicubic', antialias=True, link=False,
                 border='library'):
        if size < 1:
            raise ValueError(f'size must be positive, got {size}')
        for scale in scales:
            check_kernel(scale, kernel, antialias, border)
            if size % scale:
                raise ValueError(f'size {size} is not divisible by scale {scale}')
        self.size, self.scales = size, sorted(set(scales))
        self.kernel, self.antialias, self.link, self.border = kernel, antialias, link, border

    def options(self):
        """What decides the pixels, for the manifest."""
        return dict(size=self.size, scales=self.scales, kernel=self.kernel,
                    antialias=self.antialias, border=self.border)

    def lr_folder(self, scale):
        """Name of the LR folder: LR_x8_bicubic_antialias."""
        alias = '' if self.kernel == 'average_pooling' else \
            '_antialias' if self.antialias else '_alias'
        border = '_mirror' if self.border == 'mirror' else ''
        return f'LR_x{scale}_{self.kernel}{alias}{border}'

    def folders(self):
        """Names of all image folders."""
        return ['GT', *map(self.lr_folder, self.scales)]


def is_truncated(data):
    """Whether an image file lacks its end; decoders often accept such files silently."""
    if data.startswith(b'\x89PNG'):
        return b'IEND\xaeB`\x82' not in data  # more may follow
    if data.startswith(b'\xff\xd8'):
        return b'\xff\xd9' not in data[-1024:]
    if data.startswith(b'RIFF') and data[8:12] == b'WEBP':
        return int.from_bytes(data[4:8], 'little') + 8 > len(data)
    return False


def decode(data, suffix=''):
    """(H, W, 3) uint8 BGR image of a file's bytes.

    ``.npy`` files are read as CelebA-HQ's tools write them: RGB, (1, 3, H, W) or (3, H, W).

    Raises:
        BadImage: If it is damaged or no image.
    """
    if suffix == '.npy':
        try:
            array = np.load(io.BytesIO(data), allow_pickle=False)
        except Exception as error:  # of zip, header tokens, sizes: they have no common base
            raise BadImage(f'corrupt: {error}') from None
        array = array[0] if array.ndim == 4 and len(array) == 1 else array
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[0] != 3:
            raise BadImage(f'not a uint8 array of shape (1, 3, H, W): {array.dtype} of shape '
                           f'{array.shape}')
        return np.ascontiguousarray(array[::-1].transpose(1, 2, 0))
    if is_truncated(data):
        raise BadImage('corrupt: truncated file')
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error as error:  # a header that asks for more than OpenCV allows
        raise BadImage(f'corrupt: {error.err}') from None
    if image is None:
        raise BadImage('corrupt: cannot be decoded')
    return image


def square(image, size):
    """Central square of an image, resized to ``size`` by PIL's Lanczos filter.

    Raises:
        BadImage: If the image is smaller.
    """
    h, w = image.shape[:2]
    side = min(h, w)
    if side < size:
        raise BadImage(f'undersized: {h} x {w}, needed {size} x {size}')
    top, left = (h - side) // 2, (w - side) // 2
    image = image[top:top + side, left:left + side]
    if side > size:
        resized = Image.fromarray(np.ascontiguousarray(image)).resize((size, size), Image.LANCZOS)
        image = np.asarray(resized)
    return image


def write_atomically(path, data):
    """Write bytes so that ``path`` is either complete or absent."""
    partial = f'{path}.{os.getpid()}.partial'
    try:
        with open(partial, 'wb') as file:
            file.write(data)
        os.replace(partial, path)
    except BaseException:
        if os.path.exists(partial):
            os.remove(partial)
        raise


def encode(image):
    """PNG bytes of an image."""
    done, data = cv2.imencode('.png', image)
    if not done:
        raise OSError('OpenCV could not encode a PNG')
    return data.tobytes()


def make_one(source, key, recipe, out):
    """Make GT and LRs of one image.

    Returns:
        dict: ``key``, ``name``, and either ``sha256`` and ``bytes`` of the GT or the reason why
        the image is ``bad``.
    """
    name = name_of(source, key)
    entry = dict(key=key, name=name)
    source.handle  # noqa: B018  an archive that cannot be opened is no matter of this one image
    try:
        try:
            data = source.read(key)
        except Exception as error:  # checksum, decompression or read errors of the one image
            raise BadImage(f'cannot be read: {error}') from None
        suffix = os.path.splitext(key)[1].lower()
        image = decode(data, suffix)
        gt = square(image, recipe.size)
    except BadImage as error:
        return dict(entry, bad=str(error))
    target = f'{out}/GT/{name}.png'
    if data.startswith(b'\x89PNG') and gt.shape == image.shape and data[24:26] == b'\x08\x02':
        file = source.file(key) if recipe.link else None  # an 8-bit RGB PNG of the right size
    else:
        data, file = encode(gt), None
    if file is not None:
        if os.path.exists(target):
            os.remove(target)
        try:
            os.link(file, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            file = None  # on another file system: copy
    if file is None:
        write_atomically(target, data)
    sizes = dict(GT=len(data))
    for scale in recipe.scales:
        folder = recipe.lr_folder(scale)
        encoded = encode(
            downsample(gt, scale, recipe.kernel, recipe.antialias, border=recipe.border))
        write_atomically(f'{out}/{folder}/{name}.png', encoded)
        sizes[folder] = len(encoded)
    return dict(entry, sha256=hashlib.sha256(data).hexdigest(), bytes=sizes)


def _start_worker():
    cv2.setNumThreads(0)
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
    for chunk in chunks:
        waiting.append(executor.submit(_make_chunk, source, chunk, recipe, out))
        if len(waiting) >= 4 * workers:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


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
            raise ValueError(f'{other} and {key} would both become {name_of(source, key)}.png')
    header = dict(source=str(source.path.resolve()), **recipe.options())
    journal_path = out / JOURNAL
    done = read_journal(journal_path, header)
    for folder in recipe.folders():
        (out / folder).mkdir(parents=True, exist_ok=True)
        for partial in (out / folder).glob('*.partial'):
            partial.unlink()
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
            f'{entry["key"] if "." in entry["key"] else entry["name"]}\t{entry["bad"]}\n'
            for entry in bad).encode())
    elif report.exists():
        report.unlink()
    manifest = dict(header, images=len(good), train=cut, test=len(good) - cut, bad=len(bad),
                    gt_sha256={entry['name']: entry['sha256'] for entry in good})
    write_atomically(out / 'manifest.json', (json.dumps(manifest, indent=1) + '\n').encode())
    return manifest
