"""Files that are either whole or absent."""
import os
import tempfile
from pathlib import Path

__all__ = ['csv_text', 'remove_partial_files', 'write_atomically', 'write_partial']

PARTIAL = '.partial'


def write_atomically(path, data, sync=True):
    """Write bytes so that ``path`` holds all of them or what it held before, come what may.

    They go to a temporary file beside it, onto the disk, then into place. A link stays a link,
    and a device or pipe, which cannot be replaced, is written to.

    Args:
        path (str | Path): The file; its folder must exist.
        data (bytes | memoryview): Its content.
        sync (bool): Wait until the disk has it, which matters if the machine itself may stop.

    Raises:
        OSError: if it cannot be written; nothing is left behind.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    temporary = write_partial(path, data, sync)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_partial(path, data, sync=True):
    """The first half of :func:`write_atomically`, for whoever has to do something before the rest.

    Returns:
        str: The temporary file beside ``path``, complete; ``os.replace`` it, or remove it.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(PARTIAL, f'.{path.name[:60]}.', path.parent)
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files for the owner only
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary


def remove_partial_files(folder):
    """Remove what killed processes left of files that they were writing into ``folder``."""
    for path in Path(folder).glob(f'.*{PARTIAL}'):
        path.unlink(missing_ok=True)


def csv_text(text):
    """A cell of a CSV file that spreadsheets take for text, not for a formula."""
    return f"'{text}" if text.startswith(('=', '+', '-', '@', '\t', '\r')) else text
