"""One raw image: decoding it, cropping it to a square, encoding it again."""
import io
import os

import cv2
import numpy as np
from PIL import Image

from ...utils.files import plain
from ...utils.image_files import Refused, check_pixels
from ...utils.images import read_picture

__all__ = ['BadImage', 'decode', 'encode', 'square']


class BadImage(Exception):
    """An image that cannot be used, with the reason."""


def decode(data, name):
    """A file's bytes by the rule of docs/images.md.

    ``.npy`` files are read as CelebA-HQ's tools write them: RGB, (1, 3, H, W) or (3, H, W).

    Args:
        data (bytes): The file.
        name (str): What it is called.

    Returns:
        tuple[ndarray, tuple[str]]: uint8, (H, W, 3), BGR; notes on what was converted.

    Raises:
        BadImage: If it is damaged or no image.
    """
    if os.path.splitext(name)[1].lower() == '.npy':
        return _decode_npy(data), ()
    try:
        pixels, notes = read_picture(name, data).as_rgb()
    except ValueError as error:
        reason = str(error).removeprefix(f'{plain(name)}: ')
        # what is damaged is told from what is sound and not taken
        reason = reason.replace('not a readable image', 'corrupt: not a readable image')
        raise BadImage(reason) from None
    return np.ascontiguousarray(pixels[..., ::-1]), notes


def _decode_npy(data):
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else \
            np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if dtype != np.uint8 or shape[-3:-2] != (3, ) or shape[:-3] not in ((), (1, )):
            raise BadImage(f'not a uint8 array of shape (1, 3, H, W): {dtype} of shape {shape}')
        check_pixels(*shape[-2:])
        file.seek(0)
        array = np.load(file, allow_pickle=False)
    except BadImage:
        raise
    except Refused as error:
        raise BadImage(str(error)) from None
    except Exception as error:  # of zip, header tokens, sizes: they have no common base
        raise BadImage(f'corrupt: {error}') from None
    return np.ascontiguousarray(array.reshape(array.shape[-3:])[::-1].transpose(1, 2, 0))


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
