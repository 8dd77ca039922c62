"""Whether an LMDB can be read without a crash.

LMDB maps its file and follows the page numbers and offsets in it unchecked: one that was truncated
or damaged ends the process (bus error, segmentation fault, abort).  :func:`check_lmdb` follows them
first, with checks; values are not looked at, for they have no checksums.
"""
import mmap
import os
import struct
from pathlib import Path

__all__ = ['check_lmdb']

MAGIC, VERSION = 0xBEEFC0DE, 1
HEADER = 16  # of a page, and of the meta page's content
BRANCH, LEAF, OVERFLOW, OTHERS = 1, 2, 4, 0x20 | 0x40  # kinds of pages
BIGDATA, SUBDATA, DUPDATA = 1, 2, 4  # kinds of values
EMPTY = 2**64 - 1  # root of a database without entries
DEEPEST, LONGEST_KEY = 32, 511  # LMDB's own limits
CHECKED = {}  # (path, size, time of change): nothing


def check_lmdb(path):
    """Refuse an LMDB whose reading would leave its file.

    All of its pages but those of large values are read (of LSUN's some 0.5 %); a file that was
    checked before and has not changed since is not read again.

    Args:
        path (str | Path): Its folder or file.

    Raises:
        ValueError: if it is truncated, damaged or no LMDB.
    """
    path = Path(path)
    file = path / 'data.mdb' if path.is_dir() else path
    status = os.stat(file)
    key = (os.path.realpath(file), status.st_size, status.st_mtime_ns)
    if key in CHECKED:
        return
    try:
        _check(file)
    except (struct.error, ValueError) as error:
        raise ValueError(f'{path} is no LMDB or damaged: {error}') from None
    CHECKED[key] = None


def _check(path):
    with open(path, 'rb') as file:
        size = os.fstat(file.fileno()).st_size
        if size < 2 * 4096:
            raise ValueError(f'truncated: it has {size} bytes')
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            page_size, root, depth, entries, last = _newest(data)
            if (last + 1) * page_size > size:
                raise ValueError(f'truncated: {size} of {(last + 1) * page_size} bytes')
            found = 0 if root == EMPTY else _Pages(data, page_size, last, depth).walk(root)
    if found != entries:
        raise ValueError(f'expected {entries} entries, found {found}')


def _newest(data):
    """Page size, root, depth, number of entries and last page of the newer meta page."""
    metas, offset = [], 0
    for _ in range(2):
        magic, version = struct.unpack_from('<II', data, offset + HEADER)
        if (magic, version) != (MAGIC, VERSION):
            raise ValueError('its header is wrong')
        page_size, = struct.unpack_from('<I', data, offset + HEADER + 24)
        if not 256 <= page_size <= 65536 or page_size & page_size - 1:
            raise ValueError(f'its header says pages of {page_size} bytes')
        # the database proper is the second of the two in it: flags, depth, pages, entries, root
        _, flags, depth, _, _, _, entries, root = struct.unpack_from(
            '<IHHQQQQQ', data, offset + HEADER + 72)
        last, transaction = struct.unpack_from('<QQ', data, offset + HEADER + 120)
        if flags & ~0x7F:
            raise ValueError('its header is wrong')
        if flags & DUPDATA:  # several values for one key
            raise ValueError('it has several values for a key, which no data set of images has')
        metas.append((transaction, (page_size, root, depth, entries, last)))
        offset = page_size
    if metas[0][1][0] != metas[1][1][0]:
        raise ValueError('its header is wrong')
    return max(metas)[1]


class _Pages:
    """The tree of a database.

    Args:
        data (mmap): The file.
        page_size (int): Bytes of a page.
        last (int): Number of the last page.
        depth (int): How deep the tree is said to be.
    """

    def __init__(self, data, page_size, last, depth):
        self.data, self.page_size, self.last, self.depth = data, page_size, last, depth
        self.seen = set()

    def _enter(self, number, kinds):
        """Where a page begins, its kind and its word of bounds (or number of further pages)."""
        if not 1 < number <= self.last or number in self.seen:
            raise ValueError(f'a reference to page {number}'
                             + (' for the second time' if number in self.seen else ''))
        self.seen.add(number)
        start = number * self.page_size
        own, _, flags, bounds = struct.unpack_from('<QHHI', self.data, start)
        kind = flags & (BRANCH | LEAF | OVERFLOW | OTHERS)
        if own != number or kind not in kinds:
            raise ValueError(f'page {number} is not what it should be')
        return start, kind, bounds

    def walk(self, root):
        """How many entries there are below a page; ValueError if it cannot be walked."""
        found, pages = 0, [(root, 1)]
        if not 1 <= self.depth <= DEEPEST:
            raise ValueError(f'a depth of {self.depth}')
        while pages:
            number, level = pages.pop()
            start, kind, bounds = self._enter(number, (LEAF, ) if level == self.depth
                                              else (BRANCH, ))
            lower, upper = bounds & 0xFFFF, bounds >> 16
            count = (lower - HEADER) // 2
            if not HEADER < lower <= upper <= self.page_size or lower % 2 \
                    or kind == BRANCH and count < 2:
                raise ValueError(f'page {number} has wrong bounds')
            for offset in struct.unpack_from(f'<{count}H', self.data, start + HEADER):
                low, high, flags, key = self._node(number, start, offset, lower)
                if kind == BRANCH:
                    pages.append((low | high << 16 | flags << 32, level + 1))
                elif not 0 < key <= LONGEST_KEY:
                    raise ValueError(f'page {number} has a key of {key} bytes')
                else:
                    self._value(number, start, offset + 8 + key, low | high << 16, flags)
                    found += 1
        return found

    def _node(self, number, start, offset, lower):
        if not lower <= offset <= self.page_size - 8:
            raise ValueError(f'an entry outside page {number}')
        node = struct.unpack_from('<HHHH', self.data, start + offset)
        if offset + 8 + node[3] > self.page_size:
            raise ValueError(f'a key that leaves page {number}')
        return node

    def _value(self, number, start, offset, size, flags):
        if flags & ~BIGDATA:
            raise ValueError(f'page {number} has a value of an unknown kind')
        if not flags:
            if offset + size > self.page_size:
                raise ValueError(f'a value that leaves page {number}')
            return
        if offset + 8 > self.page_size:
            raise ValueError(f'a value that leaves page {number}')
        first, = struct.unpack_from('<Q', self.data, start + offset)
        pages = -(-(HEADER + size) // self.page_size)
        _, _, told = self._enter(first, (OVERFLOW, ))
        if told < pages or first + pages - 1 > self.last:
            raise ValueError(f'a value of {size} bytes on page {first}, which has {told} pages')
