"""The files of data sets, by OpenCV, which takes half to three quarters of Pillow's time.

Ordinary ones only, of which both give the same pixels; :func:`mmpd.utils.images.read_picture` has
the rule for all others, and the words for what is wrong with one.
"""
import struct
import zlib

import cv2
import numpy as np

from .image_files import Refused, check_pixels

__all__ = ['decode_plain', 'decode_plain_png']

HEAD, CHECKSUM, SEGMENT = struct.Struct('>I4s'), struct.Struct('>I'), struct.Struct('>2BH')
RGB8 = b'\x08\x02\x00\x00\x00'  # 8 bits, RGB, deflate, the usual filters, not interlaced
# Parts that say nothing of how the pixels are to be read. Not among them: transparency,
# orientation, animation, and colour profiles, at whose faults libpng grumbles on the terminal.
INDIFFERENT = {b'IHDR', b'IDAT', b'IEND', b'gAMA', b'cHRM', b'sRGB', b'pHYs', b'tIME', b'tEXt',
               b'zTXt', b'iTXt', b'bKGD', b'sBIT', b'hIST', b'PLTE'}
# of JPEG: tables, restart interval, JFIF, comment; and frames of Huffman codes, not arithmetic
TABLES, FRAMES = {0xDB, 0xC4, 0xDD, 0xE0, 0xFE}, {0xC0, 0xC1, 0xC2}
START_OF_SCAN, END = 0xDA, b'\xff\xd9'


def _size_of_png(data):
    """(width, height) if it is whole, with right checksums, and has only parts like the above."""
    if data[:8] != b'\x89PNG\r\n\x1a\n' or data[12:16] != b'IHDR' or data[24:29] != RGB8:
        return None
    view, position, name = memoryview(data), 8, None
    crc32, head, checksum = zlib.crc32, HEAD.unpack_from, CHECKSUM.unpack_from
    try:
        while name != b'IEND':
            length, name = head(data, position)
            end = position + 8 + length
            if name not in INDIFFERENT or checksum(data, end)[0] != crc32(view[position + 4:end]):
                return None
            position = end + 4
    except struct.error:  # beyond the last byte
        return None
    return struct.unpack_from('>II', data, 16)


def _size_of_jpeg(data):
    """(width, height) if it has an end, three channels, and no EXIF, Adobe or other application's
    data."""
    if data[:2] != b'\xff\xd8' or data[-2:] != END:
        return None
    position, found = 2, None
    while position + 4 <= len(data):
        start, marker, length = SEGMENT.unpack_from(data, position)
        if start != 0xFF:
            return None
        if marker == START_OF_SCAN:
            return found
        if marker in FRAMES and found is None and length == 17 and data[position + 4] == 8:
            found = struct.unpack_from('>HH', data, position + 5)[::-1]
        elif marker not in TABLES:
            return None
        position += 2 + length
    return None


def _size_of_webp(data):
    """(width, height) if it is one lossy picture and nothing else, to its end."""
    if data[:4] != b'RIFF' or data[8:16] != b'WEBPVP8 ' or len(data) < 30 or \
            int.from_bytes(data[4:8], 'little') + 8 != len(data):
        return None
    return tuple(side & 0x3FFF for side in struct.unpack_from('<HH', data, 26))


def _decode(data, size):
    if size is None:
        return None
    try:
        check_pixels(*size)
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (Refused, cv2.error):
        return None
    return pixels if pixels is not None and pixels.shape == (*size[::-1], 3) else None


def decode_plain_png(data):
    """The pixels of an ordinary PNG file, or None.

    Args:
        data (bytes): The file.

    Returns:
        ndarray | None: uint8, (H, W, 3), BGR; None if it is no 8-bit RGB PNG, is damaged, larger
        than allowed, or has parts that want to be looked at.

    Example:
        >>> import cv2
        >>> import numpy as np
        >>> from mmpd.utils.plain_files import decode_plain_png
        >>> data = cv2.imencode('.png', np.full((4, 6, 3), 7, np.uint8))[1].tobytes()
        >>> decode_plain_png(data).shape, decode_plain_png(data[:-1])
        ((4, 6, 3), None)
    """
    return _decode(data, _size_of_png(data))


def decode_plain(data):
    """The pixels of an ordinary PNG, JPEG or WebP file, or None.

    JPEG and WebP leave some freedom to their decoders; Pillow's and OpenCV's wheels have the same
    ones (libjpeg-turbo, libwebp).

    Args:
        data (bytes): The file.

    Returns:
        ndarray | None: As :func:`decode_plain_png`.

    Example:
        >>> import cv2
        >>> import numpy as np
        >>> from mmpd.utils.plain_files import decode_plain
        >>> data = cv2.imencode('.jpg', np.full((4, 6, 3), 7, np.uint8))[1].tobytes()
        >>> decode_plain(data).shape, decode_plain(data[:-1])
        ((4, 6, 3), None)
    """
    return _decode(data, _size_of_png(data) or _size_of_jpeg(data) or _size_of_webp(data))
