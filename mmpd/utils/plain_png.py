"""The PNG files of data sets, by OpenCV: three quarters of the time that Pillow takes.

Ordinary ones only, of which both give the same pixels; :func:`mmpd.utils.images.read_picture` has
the rule for all others, and the words for what is wrong with one.
"""
import struct
import zlib

import cv2
import numpy as np

from .image_files import Refused, check_pixels

__all__ = ['decode_plain_png']

RGB8 = b'\x08\x02\x00\x00\x00'  # 8 bits, RGB, deflate, the usual filters, not interlaced
# Parts that say nothing of how the pixels are to be read. Not among them: transparency,
# orientation, animation, and colour profiles, at whose faults libpng grumbles on the terminal.
INDIFFERENT = {b'IHDR', b'IDAT', b'IEND', b'gAMA', b'cHRM', b'sRGB', b'pHYs', b'tIME', b'tEXt',
               b'zTXt', b'iTXt', b'bKGD', b'sBIT', b'hIST', b'PLTE'}
HEAD, CHECKSUM = struct.Struct('>I4s'), struct.Struct('>I')


def _is_plain(data):
    """Whether it is whole, with right checksums, and has only parts of no consequence."""
    if data[:8] != b'\x89PNG\r\n\x1a\n' or data[12:16] != b'IHDR' or data[24:29] != RGB8:
        return False
    view, position, size = memoryview(data), 8, len(data)
    crc32, head, checksum = zlib.crc32, HEAD.unpack_from, CHECKSUM.unpack_from  # of hundreds of parts
    while position + 12 <= size:
        length, name = head(data, position)
        end = position + 8 + length
        if name not in INDIFFERENT or end + 4 > size or (
                crc32(view[position + 4:end]),) != checksum(data, end):
            return False
        if name == b'IEND':
            return True
        position = end + 4
    return False


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
        >>> from mmpd.utils.plain_png import decode_plain_png
        >>> data = cv2.imencode('.png', np.full((4, 6, 3), 7, np.uint8))[1].tobytes()
        >>> decode_plain_png(data).shape, decode_plain_png(data[:-1])
        ((4, 6, 3), None)
    """
    if not _is_plain(data):
        return None
    width, height = struct.unpack_from('>II', data, 16)
    try:
        check_pixels(width, height)
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (Refused, cv2.error):
        return None
    return pixels if pixels is not None and pixels.shape == (height, width, 3) else None
