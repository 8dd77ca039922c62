"""One raw image: decoding it, cropping it to a square, encoding it again."""
import io

import cv2
import numpy as np
from PIL import Image

__all__ = ['BadImage', 'decode', 'encode', 'is_truncated', 'square']


class BadImage(Exception):
    """An image that cannot be used, with the reason."""


def is_truncated(data):
    """Whether an image file lacks its end; decoders often accept such files silently."""
    if data.startswith(b'\x89PNG'):
        return b'IEND\xaeB`\x82' not in data  # more may follow
    if data.startswith(b'\xff\xd8'):
        return b'\xff\xd9' not in data[-1024:]
    if data.startswith(b'RIFF') and data[8:12] == b'WEBP':
        return int.from_bytes(data[4:8], 'little') + 8 > len(data)
    return False


def decode(data, suffix=''):
    """(H, W, 3) uint8 BGR image of a file's bytes.

    ``.npy`` files are read as CelebA-HQ's tools write them: RGB, (1, 3, H, W) or (3, H, W).

    Raises:
        BadImage: If it is damaged or no image.
    """
    if suffix == '.npy':
        try:
            array = np.load(io.BytesIO(data), allow_pickle=False)
        except Exception as error:  # of zip, header tokens, sizes: they have no common base
            raise BadImage(f'corrupt: {error}') from None
        array = array[0] if array.ndim == 4 and len(array) == 1 else array
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[0] != 3:
            raise BadImage(f'not a uint8 array of shape (1, 3, H, W): {array.dtype} of shape '
                           f'{array.shape}')
        return np.ascontiguousarray(array[::-1].transpose(1, 2, 0))
    if is_truncated(data):
        raise BadImage('corrupt: truncated file')
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error as error:  # a header that asks for more than OpenCV allows
        raise BadImage(f'corrupt: {error.err}') from None
    if image is None:
        raise BadImage('corrupt: cannot be decoded')
    return image


def square(image, size):
    """Central square of an image, resized to ``size`` by PIL's Lanczos filter.

    Raises:
        BadImage: If the image is smaller.
    """
    h, w = image.shape[:2]
    side = min(h, w)
    if side < size:
        raise BadImage(f'undersized: {h} x {w}, needed {size} x {size}')
    top, left = (h - side) // 2, (w - side) // 2
    image = image[top:top + side, left:left + side]
    if side > size:
        resized = Image.fromarray(np.ascontiguousarray(image)).resize((size, size), Image.LANCZOS)
        image = np.asarray(resized)
    return image


def encode(image):
    """PNG bytes of an image."""
    done, data = cv2.imencode('.png', image)
    if not done:
        raise OSError('OpenCV could not encode a PNG')
    return data.tobytes()
