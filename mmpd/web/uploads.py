"""Files that strangers send: looked at from outside before a pixel is decoded."""
import io
import re
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from ..errors import InputError
from ..utils.images import SUFFIXES, read_picture

__all__ = ['FORMATS', 'check_header', 'load_upload', 'safe_stem']

# Pillow opens some sixty formats, by their content, and runs other programs for a few of them
FORMATS = ('PNG', 'JPEG', 'BMP', 'TIFF', 'WEBP')
KNOWN = 'PNG, JPEG, BMP, TIFF or WebP'


def safe_stem(name):
    """Of a file name what is harmless in any other one: letters, digits, ``._-``, at most 60.

    Example:
        >>> from mmpd.web.uploads import safe_stem
        >>> safe_stem('../etc/my face.png')
        'my_face'
    """
    stem = Path(str(name).replace('\\', '/')).stem
    return re.sub(r'[^A-Za-z0-9._-]+', '_', stem).strip('._-')[:60] or 'picture'


def check_header(data, name, limits, most=None):
    """Size of a picture, from its first bytes.

    Args:
        data (bytes): The file.
        name (str): For messages.
        limits (Limits): What is allowed.
        most (int, optional): Pixels that it may have, if not ``limits.pixels``.

    Returns:
        tuple[int, int]: Width and height as stored.

    Raises:
        InputError: Another type, too many bytes or pixels; one line.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> from mmpd.web.limits import Limits
        >>> from mmpd.web.uploads import check_header
        >>> file = io.BytesIO()
        >>> Image.new('RGB', (6, 4)).save(file, 'PNG')
        >>> check_header(file.getvalue(), 'face.png', Limits())
        (6, 4)
    """
    if len(data) > limits.upload_bytes:
        raise InputError(f'{name}: expected at most {limits.upload_mb:g} MB, got '
                         f'{len(data) / 1e6:.3g} MB')
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f'{name}: expected a picture ({KNOWN}), got '
                         f'{f"a file that ends in {suffix}" if suffix else "a file of no type"}')
    most = limits.pixels if most is None else most
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)  # our bound is stricter
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                size = image.size
    except Image.DecompressionBombError:
        raise InputError(f'{name}: expected at most {most / 1e6:g} megapixels, got many times '
                         'that') from None
    except UnidentifiedImageError:
        raise InputError(f'{name}: not a readable picture; expected {KNOWN}') from None
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged header does
        raise InputError(f'{name}: not a readable picture ({error})') from None
    if size[0] * size[1] > most:
        raise InputError('{}: expected at most {:g} megapixels, got {}x{} = {:.3g} megapixels'
                         .format(name, most / 1e6, *size, size[0] * size[1] / 1e6))
    return size


def load_upload(path, limits, most=None):
    """Read an uploaded picture.

    Args:
        path (str | Path): Where it lies.
        limits (Limits): What is allowed.
        most (int, optional): Pixels that it may have, if not ``limits.pixels``.

    Returns:
        Picture: Of 8 bits per channel.

    Raises:
        InputError: as :func:`check_header`; a file that is no longer there, is damaged, or has
            more than 8 bits, other colours or several frames.

    Example:
        >>> from PIL import Image
        >>> from mmpd.web.limits import Limits
        >>> from mmpd.web.uploads import load_upload
        >>> Image.new('RGB', (6, 4)).save('face.png')
        >>> load_upload('face.png', Limits()).pixels.shape
        (4, 6, 3)
    """
    path = Path(path)
    name = path.name
    try:
        if path.stat().st_size > limits.upload_bytes:
            raise InputError(f'{name}: expected at most {limits.upload_mb:g} MB, got '
                             f'{path.stat().st_size / 1e6:.3g} MB')
        data = path.read_bytes()
    except OSError:
        raise InputError(f'{name}: the file is no longer here (files are deleted after '
                         f'{limits.keep_minutes:g} minutes); choose it again') from None
    check_header(data, name, limits, most)
    try:
        return read_picture(name, data)
    except ValueError as error:
        raise InputError(str(error)) from None
