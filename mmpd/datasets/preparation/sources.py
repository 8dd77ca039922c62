"""Where raw images come from: a folder, a zip file or an LMDB.

A source lists the keys of its images, in a stable order, and reads one as a file's bytes. It opens
its archive lazily, once per process, so that it can be sent to worker processes.
"""
import os
import zipfile
from pathlib import Path, PurePosixPath

from ...utils.image_files import check_bytes, read_bytes
from ...utils.lmdb_file import check_lmdb

__all__ = ['FolderSource', 'LMDBSource', 'Source', 'ZipSource', 'name_of', 'open_source']

SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.tif', '.tiff', '.npy')


class Source:
    """Base of the sources.

    Args:
        path (str | Path): Folder or file.

    Example:
        >>> from mmpd.datasets.preparation import Source
        >>> class Listed(Source):  # the images that a text file names
        ...     def keys(self):
        ...         return sorted(self.path.read_text().split())
        ...     def read(self, key):
        ...         return (self.path.parent / key).read_bytes()
        >>> with open('list.txt', 'w') as file:
        ...     _ = file.write('b.png a.png')
        >>> Listed('list.txt').keys()
        ['a.png', 'b.png']
    """

    def __init__(self, path):
        self.path = Path(path)
        self._handle = self._owner = None

    def __getstate__(self):
        return {**self.__dict__, '_handle': None, '_owner': None}

    @property
    def handle(self):
        """The opened archive of this process (a handle must not be shared by forked ones)."""
        if self._owner != os.getpid():
            self._handle, self._owner = self.open(), os.getpid()
        return self._handle

    def open(self):
        """Open the archive; ValueError if it is damaged."""
        return None

    def close(self):
        """Close it; LMDB refuses to open again what a process had open when it was forked."""
        if self._handle is not None:
            self._handle.close()
        self._handle = self._owner = None

    def keys(self):
        """Names of all images, sorted."""
        raise NotImplementedError

    def read(self, key):
        """Bytes of one image file."""
        raise NotImplementedError

    def file(self, key):
        """Path of the image if it is a file of its own, else None."""
        return None

    def stamp(self, key):
        """Numbers that become others when the image is replaced; None where nothing tells."""
        return None


def _below(folder, above=()):
    """Names of all that lies below a folder, through links too."""
    here = os.path.realpath(folder)
    if here in above:  # a link to a folder that it lies in
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry.name
            # of links in a loop DirEntry.is_dir would raise
            if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                for name in _below(entry.path, (*above, here)):
                    yield f'{entry.name}/{name}'


class FolderSource(Source):
    """All images below a folder, in linked folders too.

    Example:
        >>> from pathlib import Path
        >>> from mmpd.datasets.preparation import FolderSource
        >>> Path('raw/0').mkdir(parents=True)
        >>> Path('raw/0/a.png').touch()
        >>> FolderSource('raw').keys()
        ['0/a.png']
    """

    def keys(self):
        # folders, pipes and dead links with an image's name too: reading tells what they are
        paths = map(PurePosixPath, _below(self.path))
        return sorted(str(path) for path in paths if path.suffix.lower() in SUFFIXES
                      and not path.name.startswith('._'))  # macOS's resource forks

    def read(self, key):
        return read_bytes(self.path / key)

    def file(self, key):
        return self.path / key

    def stamp(self, key):
        try:
            status = os.stat(self.path / key)
        except OSError:
            return None
        return [status.st_size, status.st_mtime_ns]


class ZipSource(Source):
    """All images of a zip file. Its checksums are verified on reading.

    Example:
        >>> import zipfile
        >>> from mmpd.datasets.preparation import ZipSource
        >>> with zipfile.ZipFile('raw.zip', 'w') as archive:
        ...     archive.writestr('a.png', b'its bytes')
        >>> source = ZipSource('raw.zip')
        >>> source.keys(), source.read('a.png')
        (['a.png'], b'its bytes')
        >>> source.close()
    """

    def open(self):
        try:
            return zipfile.ZipFile(self.path)
        except zipfile.BadZipFile as error:
            raise ValueError(f'{self.path} is damaged: {error}') from error

    def keys(self):
        return sorted(name for name in self.handle.namelist()
                      if PurePosixPath(name).suffix.lower() in SUFFIXES
                      and not name.startswith('__MACOSX/'))

    def read(self, key):
        check_bytes(self.handle.getinfo(key).file_size)  # zipfile unpacks no more than that
        return self.handle.read(key)

    def stamp(self, key):
        member = self.handle.getinfo(key)
        return [member.file_size, member.CRC]


class LMDBSource(Source):
    """All values of an LMDB as LSUN publishes it: key -> image file.

    Example:
        >>> import lmdb
        >>> from mmpd.datasets.preparation import LMDBSource
        >>> with lmdb.open('raw_lmdb', map_size=1 << 20) as database:
        ...     with database.begin(write=True) as transaction:
        ...         _ = transaction.put(b'key', b'bytes of an image')
        >>> source = LMDBSource('raw_lmdb')
        >>> source.keys(), source.read(source.keys()[0])
        (['6b6579'], b'bytes of an image')
        >>> source.close()
    """

    def open(self):
        import lmdb
        check_lmdb(self.path)
        try:
            return lmdb.open(str(self.path), readonly=True, lock=False, readahead=False,
                             meminit=False, subdir=self.path.is_dir(), max_readers=1024)
        except lmdb.Error as error:
            raise ValueError(f'{self.path} is no LMDB or damaged: {error}') from error

    def keys(self):
        with self.handle.begin() as transaction:
            return [key.hex() for key in transaction.cursor().iternext(values=False)]

    def read(self, key):
        with self.handle.begin() as transaction:
            value = transaction.get(bytes.fromhex(key))
        if value is None:
            raise OSError('the key is gone')
        return value


def name_of(source, key):
    """Stem of the files made from an image: the key's last part, without its suffix.

    LMDB keys that are plain text (LSUN's are hexadecimal digests) name themselves.
    """
    if isinstance(source, LMDBSource):
        raw = bytes.fromhex(key)
        plain = all(chr(byte).isalnum() and byte < 128 or byte in b'_-' for byte in raw)
        return raw.decode() if raw and plain else key
    return PurePosixPath(key).stem


def open_source(path):
    """The source at a path: an LMDB folder or file, a zip file, or a folder of images.

    Raises:
        ValueError: If there is nothing or nothing of these kinds.

    Example:
        >>> from pathlib import Path
        >>> from mmpd.datasets.preparation import open_source
        >>> Path('raw').mkdir()
        >>> type(open_source('raw')).__name__
        'FolderSource'
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f'no such file or folder: {path}')
    if path.is_dir():
        return LMDBSource(path) if (path / 'data.mdb').is_file() else FolderSource(path)
    if path.suffix.lower() == '.mdb':
        return LMDBSource(path)
    if path.suffix.lower() == '.zip' or zipfile.is_zipfile(path):
        source = ZipSource(path)
        if any(name.endswith('data.mdb') for name in source.handle.namelist()):
            raise ValueError(f'{path} holds an LMDB: unpack it and give the folder')
        return source
    raise ValueError(f'{path} is neither a folder of images, nor an LMDB, nor a zip file '
                     '(or it is damaged)')
