"""Small PNG files that unpack to very large pictures."""
import struct
import zlib


def bomb(width, height, rows=None):
    """A grey PNG of width x height zeros.

    Args:
        width, height (int): What the header says.
        rows (int, optional): How many rows are really in it. Defaults to all.

    Returns:
        bytes: Some thousandth of the picture.
    """
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack(
            '>I', zlib.crc32(kind + data))
    packer, row = zlib.compressobj(9), bytes(width + 1)
    data = b''.join([*(packer.compress(row) for _ in range(rows or height)), packer.flush()])
    header = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', data)
            + chunk(b'IEND', b''))
