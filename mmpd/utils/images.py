"""Image files of 8 bits as people have them: palettes, alpha, an orientation; docs/images.md.

What loses nothing is done, and noted; what would lose something is refused.
:func:`read_8bit` is for files that are compared: it refuses alpha too.
"""
import glob
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .files import plain, write_atomically
from .image_files import Refused, opened

SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
LOSSLESS = {'png': 'PNG', 'tif': 'TIFF', 'tiff': 'TIFF', 'webp': 'WEBP'}
DESCRIPTION = 0x010E  # EXIF's and TIFF's tag, which all these formats carry
# Pillow's modes of at most 8 bits per channel that are grey or RGB, and what they are without loss
MODES = {'1': 'L', 'L': 'L', 'LA': 'LA', 'RGB': 'RGB', 'RGBA': 'RGBA', 'P': 'RGB', 'PA': 'RGBA'}
ORIENTATION = 0x0112
BITS_PER_SAMPLE = 0x0102
TURNED = 'turned as its orientation says'
TRANSPARENT = 'what it calls transparent became alpha'


@dataclass(eq=False)
class Picture:
    """A picture of 8 bits per channel.

    Attributes:
        pixels (ndarray): uint8, (H, W) grey or (H, W, 3) RGB.
        alpha (ndarray | None): uint8, (H, W), opacity.
        icc_profile (bytes | None): Its colour space.
        notes (tuple[str]): What was done to what the file holds, in words.

    Example:
        >>> import numpy as np
        >>> from mmpd.utils.images import Picture
        >>> picture = Picture.from_array(np.zeros((4, 6, 4), np.uint8))  # RGB and alpha
        >>> picture.pixels.shape, picture.alpha.shape, picture.grey
        ((4, 6, 3), (4, 6), False)
    """
    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc_profile: bytes | None = None
    notes: tuple = ()

    @property
    def grey(self):
        """Whether it has no colour."""
        return self.pixels.ndim == 2

    def as_array(self):
        """One array of it all: (H, W), (H, W, 2) with alpha, (H, W, 3) or (H, W, 4)."""
        if self.alpha is None:
            return self.pixels
        return np.dstack([self.pixels, self.alpha])

    def as_rgb(self):
        """(H, W, 3) for networks that take colour alone, and notes on what that took.

        Returns:
            tuple[ndarray, tuple[str]]: Grey is repeated; colour that goes with alpha stays what it
            is, whatever the opacity.
        """
        notes = self.notes
        if self.alpha is not None:
            notes += ('its alpha was left out', )
        if self.grey:
            return np.dstack([self.pixels] * 3), (*notes, 'grey became RGB')
        return self.pixels, notes

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
    """Whether the file has 16 bits per channel, of which Pillow may drop eight on loading.

    Example:
        >>> import numpy as np
        >>> from PIL import Image
        >>> from mmpd.utils.images import is_wide
        >>> [is_wide(Image.fromarray(np.zeros((4, 4), dtype))) for dtype in ('uint8', 'uint16')]
        [False, True]
    """
    if image.format == 'TIFF' and max(image.tag_v2.get(BITS_PER_SAMPLE, (1,))) > 8:
        return True  # planes of 16 bits Pillow would read as of 8, whatever comes of it
    for tile in getattr(image, 'tile', ()):
        rawmode = tile[3][0] if isinstance(tile[3], tuple) and tile[3] else tile[3]
        if ';16' in str(rawmode):
            return True
    return image.mode.startswith('I;16')


def read_8bit(path):
    """Read a grey or RGB image of 8 bits per channel.

    Args:
        path (str | Path): The file.

    Returns:
        ndarray: uint8, (H, W) or (H, W, 3) RGB.

    Raises:
        ValueError: as :func:`read_picture`, and for alpha.

    Example:
        >>> from PIL import Image
        >>> from mmpd.utils.images import read_8bit
        >>> Image.new('RGB', (6, 4)).save('face.png')
        >>> read_8bit('face.png').shape
        (4, 6, 3)
    """
    picture = read_picture(path)
    if picture.alpha is not None:
        raise ValueError(f'{plain(path)}: expected 8-bit grey or RGB, got mode '
                         f'{"LA" if picture.grey else "RGBA"}')
    return picture.pixels.copy()  # Pillow's memory cannot be written


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


def _load(image):
    """Load it; Pillow (13.0, say) maps an uncompressed TIFF file into memory with the sides
    exchanged that its orientation exchanges, which gives a muddle."""
    if image.format == 'TIFF' and orientation(image) > 4:
        image.filename = ''  # what it cannot map it reads
    image.load()


def picture_size(path):
    """(width, height) as :func:`read_picture` would give them, from the header alone.

    (Those of a PNG that notes its orientation behind the pixels, which is rare, change places.)

    Raises:
        ValueError: as far as the header tells.

    Example:
        >>> from PIL import Image
        >>> from mmpd.utils.images import picture_size
        >>> Image.new('L', (6, 4)).save('grey.png')
        >>> picture_size('grey.png')
        (6, 4)
    """
    def read(image):
        _check_kind(image)
        if orientation(image) < 5:
            return image.size
        if image.format == 'TIFF':  # Pillow turns it itself: on opening or on loading
            _load(image)
            return image.size
        return image.size[::-1]
    return opened(path, path, read, whole=False)


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

    Example:
        >>> from PIL import Image
        >>> from mmpd.utils.images import read_picture
        >>> Image.new('RGBA', (6, 4)).save('logo.png')
        >>> picture = read_picture('logo.png')
        >>> picture.pixels.shape, picture.alpha.shape
        ((4, 6, 3), (4, 6))
    """
    return opened(path if data is None else io.BytesIO(data), path, from_pil)


def orientation(image):
    """How a PIL image is to be turned, 1 (not) to 8, as far as was read of it.

    Example:
        >>> from PIL import Image
        >>> from mmpd.utils.images import orientation
        >>> orientation(Image.new('RGB', (6, 4)))
        1
    """
    value = _exif(image).get(ORIENTATION, 1)
    return value if value in range(2, 9) else 1


def upright(image):
    """Load a PIL image, turn it as its orientation says, look its palette up.

    Returns:
        tuple[Image, tuple[str]]: The image, of mode L, LA, RGB or RGBA if it was of one of MODES,
        and notes on what was done.

    Example:
        >>> from PIL import Image
        >>> from mmpd.utils.images import upright
        >>> image, notes = upright(Image.new('P', (6, 4)))
        >>> image.mode, notes
        ('RGB', ('its palette was looked up',))
    """
    before, mode = orientation(image), image.mode
    _load(image)  # which turns a TIFF
    after, wanted = orientation(image), MODES.get(mode, mode)
    notes = (TURNED, ) if max(before, after) > 1 else ()
    if after > 1:  # it would copy what is upright
        image = ImageOps.exif_transpose(image)
    if mode in ('P', 'PA'):
        notes += ('its palette was looked up', )
    if wanted in ('L', 'RGB') and image.has_transparency_data:  # a colour or index stands for it
        image = image.convert('RGBA')
        notes += (TRANSPARENT, )
        wanted = 'LA' if wanted == 'L' else 'RGBA'
    return image if image.mode == wanted else image.convert(wanted), notes


def from_pil(image):
    """The :class:`Picture` of a PIL image, by the rules of :func:`read_picture`.

    Example:
        >>> from PIL import Image
        >>> from mmpd.utils.images import from_pil
        >>> from_pil(Image.new('P', (6, 4))).pixels.shape  # its palette was looked up
        (4, 6, 3)
    """
    _check_kind(image)
    profile = image.info.get('icc_profile')
    image, notes = upright(image)
    picture = Picture.from_array(np.asarray(image))
    picture.icc_profile, picture.notes = profile, notes
    return picture


def write_picture(picture, path, description=None):
    """Write a picture without loss, the whole file or nothing.

    Args:
        picture (Picture): The picture.
        path (str | Path): A name that ends in one of LOSSLESS.
        description (str, optional): ASCII text, kept in the file; see :func:`read_description`.

    Example:
        >>> import numpy as np
        >>> from mmpd.utils.images import Picture, read_picture, write_picture
        >>> pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
        >>> write_picture(Picture(pixels), 'grey.webp')
        >>> np.array_equal(read_picture('grey.webp').pixels[..., 0], pixels)  # WebP has no grey
        True
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
    """The text that :func:`write_picture` put into a file, or None.

    Example:
        >>> import numpy as np
        >>> from mmpd.utils.images import Picture, read_description, write_picture
        >>> write_picture(Picture(np.zeros((4, 6), np.uint8)), 'grey.png', 'made by hand')
        >>> read_description('grey.png')
        'made by hand'
    """
    try:
        with Image.open(path) as image:
            text = _exif(image).get(DESCRIPTION)
    except Exception:  # whatever is wrong with it: it is none of ours
        return None
    return text if isinstance(text, str) else None


def _counts(path):
    """Whether it is a file, or a folder, pipe, device or dead link by the name of an image."""
    return path.suffix.lower() in SUFFIXES or path.is_file()


def find_pictures(source, recursive=False):
    """The pictures that a file, folder or pattern names.

    Args:
        source (str | Path): A file, whatever its name; a folder; or a pattern such as
            ``lr/**/*.png``.
        recursive (bool): Look into the folders of a folder too.

    Returns:
        tuple[list[tuple[Path, Path]], int]: Paths and their names below the folder (or the part
        of the pattern without wildcards), sorted; and how many other files the folder has.
        Folders, pipes and dead links with an image's name are among them: reading refuses them.

    Raises:
        ValueError: if there is nothing.

    Example:
        >>> from pathlib import Path
        >>> from mmpd.utils.images import find_pictures
        >>> for name in ('b.png', 'a.jpg', 'notes.txt'):
        ...     Path(name).touch()
        >>> found, others = find_pictures('.')
        >>> [str(name) for _, name in found], others
        (['a.jpg', 'b.png'], 1)
    """
    source = Path(source)
    if source.is_file():
        return [(source, Path(source.name))], 0
    if source.is_dir():
        root = source
        files = sorted(path for path in (source.rglob('*') if recursive else source.iterdir())
                       if _counts(path) and not path.name.startswith('.'))
    elif glob.has_magic(str(source)):
        fixed = [*source.parts]
        while any(glob.has_magic(part) for part in fixed):
            fixed.pop()
        root = Path(*fixed)
        files = sorted(path for path in map(Path, glob.glob(str(source), recursive=True))
                       if _counts(path))
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
        folder (str | Path): Work folder of the test. Of several tests the newest counts, alone:
            pictures that only older ones saved may be those of another checkpoint.

    Returns:
        dict[str, Path]: Stem of the GT file -> picture, of several that of the last step.

    Example:
        >>> from pathlib import Path
        >>> from mmpd.utils.images import saved_images
        >>> folder = Path('work_dirs/run/20260101_000000/vis_data/vis_image')
        >>> folder.mkdir(parents=True)
        >>> (folder / 'face_0.png').touch()
        >>> list(saved_images('work_dirs/run'))
        ['face']
    """
    # {work_dir}/{timestamp}/vis_data/vis_image/{stem}_{step}.png
    files = list(Path(folder).glob('**/vis_image/*.png'))
    newest = max((path.parts[-4:-1], path.parent) for path in files)[1] if files else None

    def step(path):
        last = path.stem.rsplit('_', 1)[-1]
        return int(last) if last.isdecimal() else -1, path.name

    return {path.stem.rsplit('_', 1)[0]: path for path in sorted(files, key=step)
            if path.parent == newest}
