"""Visitors' files: one folder, names that cannot be guessed, deleted after a while."""
import secrets
import shutil
import tempfile
import threading
import time
from pathlib import Path

__all__ = ['Storage']

EVERY = 30  # seconds between looks at the clock and the disk


class Storage:
    """A private folder under the system's temporary one, which goes with the process.

    Args:
        limits (Limits): ``keep_minutes`` and ``disk_mb``.

    Attributes:
        root (Path): Readable by its owner only. Gradio puts uploads and what it shows here.
        full (bool): Whether it holds more than it may, as of the last look.
    """

    def __init__(self, limits):
        self.limits = limits
        self.root = Path(tempfile.mkdtemp(prefix='mmpd-web-')).resolve()
        self.full = False
        self._stop = threading.Event()

    def new_folder(self):
        """An empty folder for one result; its name has 256 random bits."""
        folder = self.root / 'results' / secrets.token_urlsafe(32)
        folder.mkdir(parents=True)
        return folder

    def remove(self, folder):
        """Remove a folder of :meth:`new_folder`; what lies elsewhere is left alone."""
        folder = Path(folder).resolve()
        if folder.parent == self.root / 'results':
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self, now=None):
        """Delete what is older than it may be, and look whether there is room.

        Args:
            now (float, optional): Seconds since the epoch. Defaults to the clock.
        """
        now, total = time.time() if now is None else now, 0
        for path in sorted(self.root.rglob('*'), reverse=True):  # files before their folders
            try:
                status = path.lstat()
                old = status.st_mtime < now - 60 * self.limits.keep_minutes
                if path.is_dir() and not path.is_symlink():
                    if old and not any(path.iterdir()):
                        path.rmdir()
                elif old:
                    path.unlink()
                else:
                    total += status.st_size
            except OSError:  # gone, or filled again, in the meantime
                continue
        self.full = total > self.limits.disk_mb * 1e6

    def start(self):
        """Sweep again and again, in a thread."""
        def repeat():
            while not self._stop.wait(EVERY):
                self.sweep()
        threading.Thread(target=repeat, daemon=True, name='mmpd-web-sweep').start()

    def close(self):
        """Delete everything."""
        self._stop.set()
        shutil.rmtree(self.root, ignore_errors=True)
