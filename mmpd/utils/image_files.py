"""Opening image files that nobody vouches for: what they are is checked before they are decoded.

docs/images.md has the rule that all of mmpd reads by.
"""
import os
import struct
import threading
import zlib
from contextlib import contextmanager

from PIL import (  # noqa: F401  FORMATS
    BmpImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from ..errors import InputError
from .files import Refused, check_regular, plain

__all__ = ['MAX_PIXELS', 'Refused', 'check_bytes', 'check_pixels', 'opened', 'pixel_limit',
           'read_bytes']

MAX_PIXELS = 'MMPD_MAX_PIXELS'
DEFAULT = 2**28  # 16384 x 16384
# those of the endings that are taken for images; Pillow knows others that start programs (EPS)
# (which loads those it needs by itself only if it may take them all)
FORMATS = ('PNG', 'JPEG', 'BMP', 'DIB', 'TIFF', 'WEBP')
LOCK = threading.Lock()
USERS = []  # who reads at the moment; the first holds Pillow's own limit
BLOCK = 1 << 20


def pixel_limit():
    """The most pixels that an image may have: ``MMPD_MAX_PIXELS``, by default 16384 x 16384.

    Returns:
        int | None: None for no limit (``MMPD_MAX_PIXELS=none``).

    Raises:
        InputError: if the variable is set to something else than a positive integer.
    """
    text = os.environ.get(MAX_PIXELS, str(DEFAULT)).strip()
    if text.lower() == 'none':
        return None
    if not text.isdecimal() or not int(text):
        raise InputError(f'{MAX_PIXELS}: expected a positive integer or none, got {text!r}')
    return int(text)


def check_pixels(width, height):
    """Refuse a size beyond :func:`pixel_limit`, for a small file may ask for all memory.

    Raises:
        Refused: naming both.
    """
    limit = pixel_limit()
    if limit is not None and width * height > limit:
        raise Refused(f'expected at most {limit} pixels, got {width}x{height} (if it is meant to '
                      f'be so large, set the environment variable {MAX_PIXELS} to a larger number)')


def check_bytes(size):
    """Refuse more bytes than 8-bit pixels within the limit can take.

    Raises:
        Refused: naming both.
    """
    limit = pixel_limit()
    if limit is not None and size > 4 * limit + BLOCK:
        raise Refused(f'expected at most {4 * limit + BLOCK} bytes, got {size} (the environment '
                      f'variable {MAX_PIXELS} raises the limit)')


def read_bytes(path):
    """The content of an image file.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no regular file, or too large for its pixels to be allowed.
    """
    check_regular(path)
    check_bytes(os.path.getsize(path))
    with open(path, 'rb') as file:
        return file.read()


@contextmanager
def _own_limit():
    """Pillow does not look at sizes meanwhile: :func:`check_pixels` does. For many threads."""
    with LOCK:
        if not USERS:
            USERS.append(Image.MAX_IMAGE_PIXELS)
            Image.MAX_IMAGE_PIXELS = None
        USERS.append(None)
    try:
        yield
    finally:
        with LOCK:
            USERS.pop()
            if len(USERS) == 1:
                Image.MAX_IMAGE_PIXELS = USERS.pop()


def fault(file):
    """What is wrong with a PNG or WebP file that decoders would pass over, or None.

    Pillow and OpenCV verify no checksum of pixels, and take a WebP file without its end.

    Args:
        file (BinaryIO): At any position, at which it is left.
    """
    position = file.tell()
    file.seek(0)
    try:
        start = file.read(12)
        if start.startswith(b'\x89PNG'):
            file.seek(8)
            return _fault_of_png(file)
        if start[:4] + start[8:] == b'RIFFWEBP':
            size = file.seek(0, os.SEEK_END)
            wanted = int.from_bytes(start[4:8], 'little') + 8
            return f'truncated: {size} of {wanted} bytes' if size < wanted else None
    finally:
        file.seek(position)


def _fault_of_png(file):
    while True:  # chunk by chunk; more may follow the last
        head = file.read(8)
        if len(head) < 8:
            return 'truncated: its end is missing'
        left, name = struct.unpack('>I4s', head)
        checksum = zlib.crc32(name)
        while left:
            block = file.read(min(left, BLOCK))
            if not block:
                return f'truncated: within its part {plain(name.decode("latin-1"))}'
            checksum, left = zlib.crc32(block, checksum), left - len(block)
        if file.read(4) != checksum.to_bytes(4, 'big'):
            return f'the checksum of its part {plain(name.decode("latin-1"))} is wrong'
        if name == b'IEND':
            return None


def opened(source, path, read, whole=True):
    """``read(image)`` of an open file; whatever a damaged one does becomes a ValueError.

    Args:
        source (str | Path | BinaryIO): What Pillow is to open.
        path (str | Path): What it is called in messages.
        read (Callable[[Image], Any]): Takes the image with nothing but its header read.
        whole (bool): Look for faults that decoders pass over.

    Raises:
        ValueError: in one line, which begins with the file.
    """
    name = plain(path)
    try:
        if source is path:
            check_regular(path)
        with _own_limit(), Image.open(source, formats=FORMATS) as image:
            check_pixels(*image.size)
            reason = fault(image.fp) if whole else None
            if reason:
                raise Refused(f'not a readable image ({reason})')
            return read(image)
    except UnidentifiedImageError as error:
        raise ValueError(f'{name}: not a readable image (of no known format)') from error
    except Refused as error:
        raise ValueError(f'{name}: {error}') from None
    except (MemoryError, InputError):
        raise
    except Exception as error:  # OSError, SyntaxError, EOFError, struct.error ...
        reason = getattr(error, 'strerror', None) or str(error).strip() or type(error).__name__
        raise ValueError(f'{name}: not a readable image ({reason.splitlines()[0]})') from error
