"""Visitors' files: private, unguessable, deleted in time."""
import os
import stat
import time

from mmpd.web.limits import Limits
from mmpd.web.storage import Storage


def test_folders_are_private_and_have_long_random_names():
    storage = Storage(Limits())
    try:
        assert stat.S_IMODE(storage.root.stat().st_mode) == 0o700
        names = {storage.new_folder().name for _ in range(20)}
        assert len(names) == 20 and all(len(name) == 43 for name in names)  # 256 bits
    finally:
        storage.close()
    assert not storage.root.exists()


def test_only_results_are_removed(tmp_path):
    storage = Storage(Limits())
    try:
        folder = storage.new_folder()
        (folder / 'a.png').write_bytes(b'x')
        for elsewhere in (tmp_path, storage.root, storage.root / 'results', folder / '..'):
            storage.remove(elsewhere)
        assert tmp_path.exists() and (folder / 'a.png').exists()
        storage.remove(folder)
        assert not folder.exists()
    finally:
        storage.close()


def test_old_files_go_and_new_ones_stay():
    storage = Storage(Limits(keep_minutes=10))
    try:
        upload = storage.root / 'abc' / 'lr.png'
        upload.parent.mkdir()
        fresh = storage.new_folder() / 'x.png'
        now = time.time()
        for path, minutes in ((upload, 11), (fresh, 9)):
            path.write_bytes(b'x')
            os.utime(path, (now - 60 * minutes,) * 2)
        storage.sweep(now)
        assert not upload.exists() and fresh.exists()
        storage.sweep(now + 20 * 60)
        assert not any(storage.root.iterdir())
    finally:
        storage.close()


def test_a_full_disk_is_noticed_and_gets_empty_again():
    storage = Storage(Limits(disk_mb=0.001, keep_minutes=1))
    try:
        (storage.root / 'x').write_bytes(bytes(1000))
        storage.sweep()
        assert not storage.full
        (storage.root / 'y').write_bytes(bytes(1))
        storage.sweep()
        assert storage.full
        storage.sweep(time.time() + 120)
        assert not storage.full
    finally:
        storage.close()
