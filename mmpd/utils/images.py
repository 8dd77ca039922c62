"""Image files as they are: no value is changed on the way in.

Two readers: :func:`read_8bit` for pairs of files that must be alike (grey or RGB, nothing else),
:func:`read_picture` for pictures that people have: palettes, alpha, an orientation.
"""
import glob
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .files import write_atomically

SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
LOSSLESS = {'png': 'PNG', 'tif': 'TIFF', 'tiff': 'TIFF', 'webp': 'WEBP'}
DESCRIPTION = 0x010E  # EXIF's and TIFF's tag, which all these formats carry
# Pillow's modes of at most 8 bits per channel that are grey or RGB, and what they are without loss
MODES = {'1': 'L', 'L': 'L', 'LA': 'LA', 'RGB': 'RGB', 'RGBA': 'RGBA', 'P': 'RGB', 'PA': 'RGBA'}
ORIENTATION = 0x0112
BITS_PER_SAMPLE = 0x0102


@dataclass(eq=False)
class Picture:
    """A picture of 8 bits per channel.

    Attributes:
        pixels (ndarray): uint8, (H, W) grey or (H, W, 3) RGB.
        alpha (ndarray | None): uint8, (H, W), opacity.
        icc_profile (bytes | None): Its colour space.
    """
    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc_profile: bytes | None = None

    @property
    def grey(self):
        """Whether it has no colour."""
        return self.pixels.ndim == 2

    def as_array(self):
        """One array of it all: (H, W), (H, W, 2) with alpha, (H, W, 3) or (H, W, 4)."""
        if self.alpha is None:
            return self.pixels
        return np.dstack([self.pixels, self.alpha])

    @classmethod
    def from_array(cls, array):
        """The inverse of :meth:`as_array`; ValueError for anything but 8 bits."""
        array = np.asarray(array)
        channels = array.shape[2] if array.ndim == 3 else 1
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or not 1 <= channels <= 4 \
                or not array.size:
            raise ValueError('expected uint8 of shape (h, w), or (h, w, c) with 1 to 4 channels '
                             f'(grey or RGB, and alpha), got {array.dtype} of shape {array.shape}')
        if array.ndim == 3 and channels < 3:
            return cls(array[..., 0], array[..., 1] if channels == 2 else None)
        return cls(array[..., :3], array[..., 3]) if channels == 4 else cls(array)


def is_wide(image):
    """Whether the file has 16 bits per channel, of which Pillow may drop eight on loading."""
    if image.format == 'TIFF' and max(image.tag_v2.get(BITS_PER_SAMPLE, (1,))) > 8:
        return True  # planes of 16 bits Pillow would read as of 8, whatever comes of it
    for tile in getattr(image, 'tile', ()):
        rawmode = tile[3][0] if isinstance(tile[3], tuple) and tile[3] else tile[3]
        if ';16' in str(rawmode):
            return True
    return image.mode.startswith('I;16')


def opened(source, path, read):
    """``read(image)`` of an open file; whatever a damaged one does becomes a ValueError."""
    try:
        with Image.open(source) as image:
            return read(image)
    except UnidentifiedImageError as error:
        raise ValueError(f'{path}: not a readable image (of no known format)') from error
    except Refused as error:
        raise ValueError(f'{path}: {error}') from None
    except MemoryError:
        raise
    except Exception as error:  # OSError, SyntaxError, EOFError, struct.error, bombs ...
        raise ValueError(f'{path}: not a readable image ({error})') from error


class Refused(ValueError):
    """A sound file of a kind that cannot be used."""


def read_8bit(path):
    """Read a grey or RGB image of 8 bits per channel.

    Args:
        path (str | Path): The file.

    Returns:
        ndarray: uint8, (H, W) or (H, W, 3) RGB.

    Raises:
        ValueError: if it cannot be read to its end, or holds 16 bits per channel (of which
            Pillow would drop eight), a palette, transparency or another colour space.
    """
    def read(image):
        wide = is_wide(image)
        image.load()
        mode = f'16-bit {image.mode}' if wide and image.mode == 'RGB' else image.mode
        if mode not in ('L', 'RGB'):
            raise Refused(f'expected 8-bit grey or RGB, got mode {mode}')
        return np.array(image)  # asarray would give one that cannot be written
    return opened(path, path, read)


def _check_kind(image):
    """Raise Refused for what :func:`read_picture` does not take, as far as the header tells."""
    if is_wide(image) or image.mode in ('I', 'F'):
        bits = {'I': '32-bit integers', 'F': 'floating point'}.get(image.mode, '16 bits')
        raise Refused(f'expected 8 bits per channel, got {bits}')
    if image.mode not in MODES:
        raise Refused(f'expected grey or RGB, with or without alpha, got {image.mode}')
    frames = getattr(image, 'n_frames', 1)
    if frames > 1 and image.format != 'MPO':  # in which phones put a preview behind the picture
        raise Refused(f'expected one picture, got {frames} frames')


def _exif(image):
    """What the header has of it; Pillow would decode a whole PNG in search of more."""
    return image.getexif() if image.format != 'PNG' or 'exif' in image.info else {}


def picture_size(path):
    """(width, height) as :func:`read_picture` would give them, from the header alone.

    (Those of a PNG that notes its orientation behind the pixels, which is rare, change places.)

    Raises:
        ValueError: as far as the header tells.
    """
    def read(image):
        _check_kind(image)
        if _exif(image).get(ORIENTATION, 1) not in (5, 6, 7, 8):
            return image.size
        if image.format == 'TIFF':  # Pillow turns it itself: on opening or on loading
            image.load()
            return image.size
        return image.size[::-1]
    return opened(path, path, read)


def read_picture(path, data=None):
    """Read a picture, whatever it looks like, as it is meant to be seen.

    What is done to it loses nothing: a palette is looked up, alpha is kept beside, the
    orientation that cameras note is carried out, a colour profile is kept.

    Args:
        path (str | Path): The file.
        data (bytes, optional): Its content, if it was read already.

    Returns:
        Picture: The picture.

    Raises:
        ValueError: if it cannot be read to its end, has more than 8 bits per channel, another
            colour space (CMYK, YCbCr TIFF, Lab) or several frames.
    """
    return opened(path if data is None else io.BytesIO(data), path, from_pil)


def from_pil(image):
    """The :class:`Picture` of a PIL image, by the rules of :func:`read_picture`."""
    _check_kind(image)
    image.load()
    profile, mode = image.info.get('icc_profile'), MODES[image.mode]
    image = ImageOps.exif_transpose(image)
    if mode in ('L', 'RGB') and image.has_transparency_data:  # a colour or index stands for it
        image = image.convert('RGBA')
        mode = 'LA' if mode == 'L' else 'RGBA'
    if image.mode != mode:
        image = image.convert(mode)
    picture = Picture.from_array(np.asarray(image))
    picture.icc_profile = profile
    return picture


def write_picture(picture, path, description=None):
    """Write a picture without loss, the whole file or nothing.

    Args:
        picture (Picture): The picture.
        path (str | Path): A name that ends in one of LOSSLESS.
        description (str, optional): ASCII text, kept in the file; see :func:`read_description`.
    """
    image, file, options = Image.fromarray(picture.as_array()), io.BytesIO(), {}
    kind = LOSSLESS[Path(path).suffix[1:].lower()]
    if kind == 'WEBP':  # exact: colours below full transparency too
        options = dict(lossless=True, exact=True, quality=50)
        image = image if image.mode in ('RGB', 'RGBA') else image.convert(
            'RGBA' if image.mode == 'LA' else 'RGB')
    if picture.icc_profile:
        options['icc_profile'] = picture.icc_profile
    if description is not None:
        options['exif'] = exif = Image.Exif()
        exif[DESCRIPTION] = description
    image.save(file, kind, **options)
    write_atomically(path, file.getvalue())


def read_description(path):
    """The text that :func:`write_picture` put into a file, or None."""
    try:
        with Image.open(path) as image:
            text = _exif(image).get(DESCRIPTION)
    except Exception:  # whatever is wrong with it: it is none of ours
        return None
    return text if isinstance(text, str) else None


def find_pictures(source, recursive=False):
    """The pictures that a file, folder or pattern names.

    Args:
        source (str | Path): A file, whatever its name; a folder; or a pattern such as
            ``lr/**/*.png``.
        recursive (bool): Look into the folders of a folder too.

    Returns:
        tuple[list[tuple[Path, Path]], int]: Paths and their names below the folder (or the part
        of the pattern without wildcards), sorted; and how many other files the folder has.

    Raises:
        ValueError: if there is nothing.
    """
    source = Path(source)
    if source.is_file():
        return [(source, Path(source.name))], 0
    if source.is_dir():
        root = source
        files = sorted(path for path in (source.rglob('*') if recursive else source.iterdir())
                       if path.is_file() and not path.name.startswith('.'))
    elif glob.has_magic(str(source)):
        fixed = [*source.parts]
        while any(glob.has_magic(part) for part in fixed):
            fixed.pop()
        root = Path(*fixed)
        files = sorted(path for path in map(Path, glob.glob(str(source), recursive=True))
                       if path.is_file())
    else:
        raise ValueError(f'{source}: no such file or folder')
    found = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not found:
        deeper = '' if recursive or not source.is_dir() else ' (its folders were not looked into)'
        raise ValueError(f'{source}: expected images ({", ".join(SUFFIXES)}), found none{deeper}')
    return [(path, Path(os.path.relpath(path, root))) for path in found], len(files) - len(found)


def saved_images(folder):
    """What MMagic's visualizer saved during a test.

    Args:
        folder (str | Path): Work folder of the test. Of several tests the newest counts.

    Returns:
        dict[str, Path]: Stem of the GT file -> picture.
    """
    # {work_dir}/{timestamp}/vis_data/vis_image/{stem}_{step}.png
    files = sorted(Path(folder).glob('**/vis_image/*.png'))
    return {path.stem.rsplit('_', 1)[0]: path for path in files}
