"""Visitors' files: private, unguessable, deleted in time."""
import os
import stat
import threading
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


def test_files_are_kept_as_long_as_promised_to_the_second():
    storage = Storage(Limits(keep_minutes=10))
    try:
        paths = [storage.root / name for name in 'ab']
        for path, seconds in zip(paths, (600, 601), strict=True):
            path.write_bytes(b'x')
            os.utime(path, (10_000 - seconds,) * 2)
        storage.sweep(10_000)
        assert paths[0].exists() and not paths[1].exists()
    finally:
        storage.close()
        storage.close()  # once more does no harm


def test_links_are_removed_and_not_followed(tmp_path):
    (tmp_path / 'inside').write_bytes(b'x')
    storage = Storage(Limits(keep_minutes=1))
    try:
        (storage.root / 'link').symlink_to(tmp_path)
        storage.sweep(time.time() + 120)
        assert not any(storage.root.iterdir()) and (tmp_path / 'inside').exists()
    finally:
        storage.close()


def test_it_is_swept_again_and_again_until_it_is_closed(monkeypatch):
    monkeypatch.setattr('mmpd.web.storage.EVERY', 0.01)
    storage, swept = Storage(Limits()), threading.Event()
    monkeypatch.setattr(storage, 'sweep', swept.set)
    before = set(threading.enumerate())
    storage.start()
    thread, = set(threading.enumerate()) - before
    for _ in range(2):
        assert swept.wait(10)
        swept.clear()
    assert thread.daemon  # it ends with the process
    storage.close()
    thread.join(10)
    assert not thread.is_alive()


def test_only_results_are_removed(tmp_path):
    storage = Storage(Limits())
    try:
        folder = storage.new_folder()
        (folder / 'a.png').write_bytes(b'x')
        for elsewhere in (tmp_path, storage.root, storage.root / 'results', folder / '..'):
            storage.remove(elsewhere)
        assert tmp_path.exists() and (folder / 'a.png').exists()
        for _ in range(2):
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
        for size, full in ((2_000_000, False), (2_000_001, True)):
            with (storage.root / 'z').open('wb') as file:
                file.truncate(size)
            storage.limits = Limits(disk_mb=2)
            storage.sweep()
            assert storage.full == full
    finally:
        storage.close()
