"""Raw images for the converters, and what tests of them do with these."""
import hashlib
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import lmdb
import numpy as np

TOOLS = Path(__file__).parents[1] / 'tools' / 'dataset_converters'


def picture(index, size=(32, 32)):
    """A smooth picture, BGR."""
    y, x = np.mgrid[:size[0], :size[1]]
    return np.stack([(x * 7 + index * 31) % 256, (y * 5) % 256, (x + y + index) % 256],
                    2).astype(np.uint8)


def encode(image, suffix='.png'):
    return cv2.imencode(suffix, image)[1].tobytes()


def run(name, *args):
    """Run a converter in this process; returns its exit code."""
    script = TOOLS / name / f'prepare_{name}.py'
    argv, sys.argv = sys.argv, [str(script), *map(str, args), '--workers', '2']
    try:
        runpy.run_path(str(script), run_name='__main__')
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = argv


def folder_of(tmp_path, count=5, size=(32, 32)):
    root = tmp_path / 'images1024x1024'
    for index in range(count):
        path = root / '00000' / f'{index:05d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(picture(index, size)))
    return root


def snapshot(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob('*')
            if path.is_file() and path.name not in ('progress.jsonl', 'manifest.json')}


def everything(out):
    """All files, the journal and the manifest included."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob('*')
            if path.is_file()}


def with_a_bad_one(tmp_path, count=7):
    root = folder_of(tmp_path, count, (40, 32)) / '00000'
    (root / '00003.png').write_bytes(b'no image')
    return root


def make_lmdb(path, count=7):
    environment = lmdb.open(str(path), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        for index in range(count):
            key = hashlib.sha1(str(index).encode()).hexdigest().encode()
            transaction.put(key, encode(picture(index, (32 + index, 48)), '.webp'))
    environment.close()


class Inline:
    """An executor without processes."""

    def __init__(self, *args):
        pass

    def submit(self, function, *args):
        value = function(*args)
        return SimpleNamespace(result=lambda: value)

    def shutdown(self, **kwargs):
        pass
