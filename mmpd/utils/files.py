"""Files that are either whole or absent."""
import errno
import os
import re
import shutil
import stat
import tempfile
import unicodedata
from pathlib import Path

from ..errors import DiskFull

try:
    import resource
except ImportError:  # Windows
    resource = None

__all__ = ['Refused', 'check_regular', 'csv_text', 'disk_full', 'folder_fault', 'in_the_way',
           'is_full', 'name_fault', 'plain', 'remove_partial_files', 'replaced',
           'write_atomically', 'write_partial']

PARTIAL = '.partial'
TEMPORARY = re.compile(r'\..*\.[0-9a-f]{8}' + re.escape(PARTIAL), re.DOTALL)
LONGEST = 255  # bytes of a name, on all file systems in use
KINDS = ((stat.S_ISDIR, 'a folder'), (stat.S_ISFIFO, 'a named pipe'), (stat.S_ISSOCK, 'a socket'),
         (stat.S_ISCHR, 'a device'), (stat.S_ISBLK, 'a device'))
HIDDEN = ('Cc', 'Cf', 'Cs', 'Zl', 'Zp')  # control, format, undecodable, line and paragraph ends
FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, 'EDQUOT', errno.ENOSPC)}


class Refused(ValueError):
    """A sound file of a kind that cannot be used.

    Example:
        >>> from PIL import Image
        >>> from mmpd.utils.files import Refused
        >>> from mmpd.utils.images import from_pil
        >>> try:
        ...     from_pil(Image.new('CMYK', (4, 4)))
        ... except Refused as error:
        ...     print(error)
        expected grey or RGB, with or without alpha, got CMYK
    """


def is_full(error):
    """Whether an OSError says that the disk, a quota or a limit has no room for more.

    Example:
        >>> import errno
        >>> from mmpd.utils.files import is_full
        >>> is_full(OSError(errno.ENOSPC, 'No space left on device')), is_full(FileNotFoundError())
        (True, False)
    """
    return isinstance(error, OSError) and (
        isinstance(error, DiskFull) or error.errno in FULL)


def disk_full(error, path=None, needed=None):
    """A :class:`DiskFull` in one line, for an OSError of which :func:`is_full` is true.

    Args:
        error (OSError): What the system said.
        path (str | Path, optional): The file; by default that of ``error``.
        needed (int, optional): Bytes that were to be written.

    Example:
        >>> import errno
        >>> from mmpd.utils.files import disk_full
        >>> error = OSError(errno.ENOSPC, 'No space left on device')
        >>> print(disk_full(error, 'iter_5000.pth', needed=10**9))
        iter_5000.pth: cannot be written: No space left on device; 1,000,000,000 bytes needed...
    """
    path = error.filename if path is None else path
    parts = [f'{path or "a file"}: cannot be written: {error.strerror}']
    if needed is not None:
        parts.append(f'{needed:,} bytes needed')
    if error.errno == errno.EFBIG and resource is not None:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if limit != resource.RLIM_INFINITY:
            parts.append(f'the limit of this process is {limit:,} (ulimit -f)')
    folder = Path(path or '.').absolute().parent
    if folder.is_dir():
        parts.append(f'{shutil.disk_usage(folder).free:,} free')
    full = DiskFull('; '.join([parts[0], ', '.join(parts[1:])]).rstrip('; '))
    full.errno = error.errno
    return full


def write_atomically(path, data, sync=True):
    """Write bytes so that ``path`` holds all of them or what it held before, come what may.

    They go to a temporary file beside it, onto the disk, then into place. A link stays a link,
    and a device or pipe, which cannot be replaced, is written to.

    Args:
        path (str | Path): The file; its folder must exist.
        data (bytes | memoryview): Its content.
        sync (bool): Wait until the disk has it, which matters if the machine itself may stop.

    Raises:
        DiskFull: if there is no room for it; nothing is left behind.
        OSError: if it cannot be written for another reason.

    Example:
        >>> from pathlib import Path
        >>> from mmpd.utils.files import write_atomically
        >>> write_atomically('figures.csv', b'name,psnr')
        >>> Path('figures.csv').read_bytes()
        b'name,psnr'
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    if not stat.S_ISREG(mode):  # asked first: a data set is a million files, none of them a link
        path = Path(os.path.realpath(path))
        if path.exists() and not path.is_file():
            try:
                path.write_bytes(data)
            except OSError as error:
                _raise_if_full(error, path, data)
                raise
            return
    temporary = write_partial(path, data, sync)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_partial(path, data, sync=True, folder=None):
    """The first half of :func:`write_atomically`, for whoever has to do something before the rest.

    Args:
        path (str | Path): The file that is to be.
        data (bytes | memoryview): Its content.
        sync (bool): As for :func:`write_atomically`.
        folder (str | Path, optional): Where the temporary file is, on the same file system. By
            default beside ``path``.

    Returns:
        str: The temporary file, complete; ``os.replace`` it, or remove it.

    Raises:
        DiskFull, OSError: as :func:`write_atomically`.

    Example:
        >>> import os
        >>> from mmpd.utils.files import write_partial
        >>> temporary = write_partial('figures.csv', b'name,psnr')
        >>> os.path.exists('figures.csv')
        False
        >>> os.replace(temporary, 'figures.csv')
    """
    beside, name = os.path.split(path)
    try:
        return _write_temporary(beside if folder is None else folder, name, data, sync)
    except OSError as error:
        _raise_if_full(error, path, data)
        raise


def _raise_if_full(error, path, data):
    if is_full(error):
        raise disk_full(error, path, memoryview(data).nbytes) from error


def _write_temporary(folder, name, data, sync):
    # plain calls: of data sets' files there are millions
    stem = os.fsencode(name)[:60].decode(errors='ignore')  # names end at 255 bytes
    temporary = os.path.join(folder, f'.{stem}.{os.urandom(4).hex()}{PARTIAL}')
    left = memoryview(data).cast('B')
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, 'O_BINARY', 0),
                     0o666)
    try:
        try:
            while left:  # a call writes 2 GiB at the most
                left = left[os.write(handle, left):]
            if sync:
                os.fsync(handle)
        finally:
            os.close(handle)
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary


def remove_partial_files(folder):
    """Remove what killed processes left of files that they were writing into ``folder``.

    Example:
        >>> import os
        >>> from mmpd.utils.files import remove_partial_files, write_partial
        >>> temporary = write_partial('figures.csv', b'name,psnr')
        >>> remove_partial_files('.')
        >>> os.path.exists(temporary)
        False
    """
    for path in Path(folder).glob(f'.*{PARTIAL}'):
        if TEMPORARY.fullmatch(path.name):  # not what another program calls so
            path.unlink(missing_ok=True)


def csv_text(text):
    """A cell of a CSV file that spreadsheets take for text, not for a formula.

    Example:
        >>> from mmpd.utils.files import csv_text
        >>> csv_text('face.png'), csv_text('=1+1')
        ('face.png', "'=1+1")
    """
    return f"'{text}" if text.startswith(('=', '+', '-', '@', '\t', '\r')) else text


def plain(text):
    """A name in one line of text: what is no printable character is written as an escape.

    Example:
        >>> from mmpd.utils.files import plain
        >>> print(plain('a\\n.png'))
        a\\n.png
    """
    return ''.join(char.encode('unicode_escape').decode() if unicodedata.category(char) in HIDDEN
                   else char for char in os.fspath(text))


def name_fault(name):
    """Why a file cannot be called so, or None: undecodable, or too long.

    Args:
        name (str): The last part of a path.

    Example:
        >>> from mmpd.utils.files import name_fault
        >>> name_fault('face.png'), name_fault('x' * 300)
        (None, 'expected a name of at most 255 bytes, got 300')
    """
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return f'its name {plain(name)} is not UTF-8'
    return f'expected a name of at most {LONGEST} bytes, got {length}' if length > LONGEST else None


def in_the_way(path, others):
    """The first of other files to be written that cannot be beside this one, or None.

    Args:
        path (str | Path): A file to be written.
        others (Iterable[str | Path]): Others: the same file, one in a folder of this name, or one
            whose name this file's folder has.

    Example:
        >>> from mmpd.utils.files import in_the_way
        >>> in_the_way('out', ['out/a.png']), in_the_way('out/a.png/x.csv', ['out/a.png'])
        ('out/a.png', 'out/a.png')
        >>> in_the_way('out/x.csv', ['out/a.png']) is None
        True
    """
    place = os.path.realpath(path)
    for other in others:
        shorter, longer = sorted((place, os.path.realpath(other)), key=len)
        if longer == shorter or longer.startswith(shorter + os.sep):
            return other
    return None


def replaced(*paths):
    """What to tell whoever has results written to places where something is: a line for each.

    Args:
        *paths (str | Path | None): The places; None is none.

    Returns:
        list[str]: Empty where there is no file; a device is written to.

    Example:
        >>> from pathlib import Path
        >>> from mmpd.utils.files import replaced
        >>> length = Path('old.json').write_text('{}')
        >>> replaced('old.json', 'new.json', '/dev/null', None)
        ['old.json: is there, and will be replaced']
    """
    return [f'{plain(path)}: is there, and will be replaced' for path in paths
            if path is not None and os.path.isfile(path)]


def folder_fault(folder):
    """Why no file can be written into a folder, which may still have to be made; or None.

    Args:
        folder (Path): The folder.

    Example:
        >>> from pathlib import Path
        >>> from mmpd.utils.files import folder_fault
        >>> Path('notes.txt').touch()
        >>> folder_fault(Path('new/deep')), folder_fault(Path('notes.txt/new').absolute())
        (None, '...notes.txt is not a folder')
    """
    upper = next(path for path in (folder.absolute(), *folder.absolute().parents)
                 if os.path.lexists(path))
    if not os.path.isdir(upper):
        return f'{plain(upper)} is not a folder'
    for part in folder.absolute().parts[len(upper.parts):]:
        if name_fault(part):
            return name_fault(part)
    try:
        with tempfile.TemporaryFile(dir=upper):
            return None
    except OSError as error:
        return f'{plain(upper)} cannot be written to ({error.strerror or error})'


def check_regular(path):
    """Refuse what is no file to be read to its end: reading a pipe might wait for ever.

    Raises:
        OSError: if there is none (links in a loop, or that lead nowhere).
        Refused: for folders, pipes and devices.

    Example:
        >>> import os
        >>> from mmpd.utils.files import Refused, check_regular
        >>> os.mkdir('x.png')
        >>> try:
        ...     check_regular('x.png')
        ... except Refused as error:
        ...     print(error)
        expected a file, got a folder
    """
    mode = os.stat(path).st_mode
    for is_kind, name in KINDS:
        if is_kind(mode):
            raise Refused(f'expected a file, got {name}')
