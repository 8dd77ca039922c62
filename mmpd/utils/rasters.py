"""Image files of any depth and any number of bands, value for value: PNG, TIFF, ``.npy`` and more.

What is done to them is what docs/images.md says, as in :mod:`mmpd.utils.images`.

Pillow reads and writes what it can hold: 8 bits, 16-bit grey, 32-bit floating point grey.  Of RGB
with 16 bits it would drop eight, so those PNG files are read by OpenCV and TIFF files by tifffile
(which also has any number of bands and floating point), where they are installed: both are well
kept, neither is in the light set, and without them such a file is refused.
"""
import io
import struct
import zlib
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from ..errors import InputError
from .files import check_regular, plain
from .image_files import Refused, check_pixels, opened
from .images import (
    MODES,
    ORIENTATION,
    SUFFIXES,
    TRANSPARENT,
    TURNED,
    is_wide,
    orientation,
    upright,
)

__all__ = ['RASTERS', 'Raster', 'encode_raster', 'output_suffix', 'profile_name',
           'raster_from_pil', 'raster_to_pil', 'read_raster']

RASTERS = (*SUFFIXES, '.npy')
TIFFS = ('.tif', '.tiff')
KEPT = ('.npy', *TIFFS)  # formats that an output keeps; all others become PNG
DTYPES = ('uint8', 'uint16', 'float16', 'float32', 'float64')
EXPECTED = 'grey, RGB (each with or without alpha) or bands'
# where a picture lies on the earth (GeoTIFF), and which value means nothing
GEOGRAPHY = (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113)
ICC, ASCII = 34675, 2
LINES = 256  # rows of a PNG that are compressed at once


@dataclass(eq=False)
class Raster:
    """What an image file holds.

    Attributes:
        pixels (ndarray): (H, W) or (H, W, C), one of DTYPES, as stored: colour that goes with
            alpha is not multiplied by it, unless the file says so.
        alpha (ndarray | None): (H, W), the same dtype.
        icc_profile (bytes | None): Colour space.
        tags (dict): GeoTIFF tags, code -> (type, value).
        notes (tuple[str]): What was done to what the file holds, in words.

    Example:
        >>> import numpy as np
        >>> from mmpd.utils.rasters import Raster
        >>> raster = Raster(np.zeros((4, 6, 3), np.uint16), alpha=np.zeros((4, 6), np.uint16))
        >>> raster.kind, raster.size, int(raster.most)
        ('16-bit RGBA', (6, 4), 65535)
    """
    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc_profile: bytes | None = None
    tags: dict = field(default_factory=dict)
    notes: tuple = ()

    @property
    def size(self):
        """(width, height)."""
        return self.pixels.shape[1::-1]

    @property
    def bands(self):
        return 1 if self.pixels.ndim == 2 else self.pixels.shape[2]

    @property
    def most(self):
        """The largest integer that it can hold; None for floating point."""
        return None if self.pixels.dtype.kind == 'f' else np.iinfo(self.pixels.dtype).max

    @property
    def colour(self):
        """Depth and bands without alpha: L, RGB, 16-bit RGB, float32 with 5 bands …"""
        depth = {'uint8': '', 'uint16': '16-bit '}.get(
            self.pixels.dtype.name, f'{self.pixels.dtype.name} ')
        if self.bands not in (1, 3):
            return f'{depth or "8-bit "}with {self.bands} bands'
        return depth + ('L' if self.bands == 1 else 'RGB')

    @property
    def kind(self):
        """:attr:`colour` with an A where there is alpha."""
        return self.colour + ('' if self.alpha is None else 'A')


def _checked(pixels, alpha=None, icc_profile=None, tags=None):
    if pixels.dtype.name not in DTYPES:
        raise Refused(f'expected {", ".join(DTYPES)}, got {pixels.dtype.name}')
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise Refused(f'expected (H, W) or (H, W, C), got shape {pixels.shape}')
    if pixels.dtype.kind == 'f':
        bad = pixels.size - int(np.isfinite(pixels).sum())
        if bad:
            raise Refused(f'expected finite values, got {bad} NaN or inf among {pixels.size}')
    pixels = np.asarray(pixels, pixels.dtype.newbyteorder('='))
    return Raster(pixels, alpha, icc_profile, tags or {})


def read_raster(path):
    """Read an image file as it is.

    Args:
        path (str | Path): A file with one of the endings RASTERS.

    Returns:
        Raster: Its content.

    Raises:
        ValueError: if it cannot be read to its end; for CMYK and other colour spaces, several
            pages, integers of more than 16 bits, NaN and inf; for what needs a package that is
            not installed.

    Example:
        >>> import numpy as np
        >>> from mmpd.utils.rasters import read_raster
        >>> np.save('bands.npy', np.zeros((4, 6, 5), np.uint16))
        >>> read_raster('bands.npy').kind
        '16-bit with 5 bands'
    """
    path = Path(path)
    if path.suffix.lower() == '.npy':
        return _own_errors(path, _read_npy)
    try:
        return opened(path, path, lambda image: raster_from_pil(image, path))
    except ValueError as error:
        if path.suffix.lower() in TIFFS and isinstance(error.__cause__, UnidentifiedImageError):
            return _own_errors(path, _read_tiff)  # floating point RGB, many bands …
        raise


def _own_errors(path, read):
    try:
        check_regular(path)
        return read(path)
    except Refused as error:
        raise ValueError(f'{plain(path)}: {error}') from None
    except (MemoryError, InputError):
        raise
    except Exception as error:
        first = getattr(error, 'strerror', None) or str(error).strip() or type(error).__name__
        first = first.splitlines()[0]
        raise ValueError(f'{plain(path)}: not a readable image ({first})') from error


def _read_npy(path):
    mapped = np.load(path, mmap_mode='r', allow_pickle=False)  # reads the header alone
    if isinstance(mapped, np.ndarray) and mapped.ndim > 1:
        check_pixels(*mapped.shape[1::-1])
    return _checked(np.load(path, allow_pickle=False))


def _turned(raster, how):
    """A raster as EXIF's orientation ``how`` means it to be seen."""
    if how == 1:
        return raster

    def turn(array):
        array = array.swapaxes(0, 1) if how > 4 else array
        down, right = how in (3, 4, 7, 8), how in (2, 3, 6, 7)
        return np.ascontiguousarray(array[::-1 if down else 1, ::-1 if right else 1])

    raster.pixels = turn(raster.pixels)
    raster.alpha = None if raster.alpha is None else turn(raster.alpha)
    raster.notes += (TURNED, )
    return raster


def raster_from_pil(image, path=None):
    """The :class:`Raster` of a PIL image.

    Args:
        image (PIL.Image.Image): The image, of one of :data:`.images.MODES`, I;16 or F.
        path (Path, optional): Its file, for what Pillow cannot hold.

    Raises:
        ValueError: for other modes and several frames; without ``path`` for what Pillow would
            drop eight bits of.

    Example:
        >>> from PIL import Image
        >>> from mmpd.utils.rasters import raster_from_pil
        >>> raster = raster_from_pil(Image.new('LA', (6, 4)))
        >>> raster.kind, raster.pixels.shape
        ('LA', (4, 6))
    """
    wide, mode = is_wide(image), image.mode
    frames = getattr(image, 'n_frames', 1)
    if frames > 1 and image.format != 'MPO':  # in which phones put a preview behind the picture
        raise Refused(f'expected one picture, got {frames} frames')
    if mode == 'I' and image.format == 'PNG':  # what older Pillow calls 16 bits
        wide = True
    elif mode not in (*MODES, 'F') and not mode.startswith('I;16'):
        if path and mode == 'RGBX' and image.format == 'TIFF':
            return _read_tiff(path)
        found = 'signed or 32-bit integers' if mode == 'I' else f'mode {mode}'
        raise Refused(f'expected {EXPECTED}, got {found}')
    if wide and mode in ('LA', 'RGB', 'RGBA'):
        return _read_wide(image, path)
    profile, tags = image.info.get('icc_profile'), _pil_tags(image)
    transparent = image.info.get('transparency') if wide else None
    image, notes = upright(image)
    pixels, alpha = np.array(image), None  # asarray would give one that cannot be written
    if image.mode == 'I':
        pixels = pixels.astype(np.uint16)
    if transparent is not None:  # which Pillow makes alpha of with 8 bits alone
        alpha = np.where(pixels == transparent, 0, 65535).astype(np.uint16)
        notes += (TRANSPARENT, )
    elif image.mode in ('LA', 'RGBA'):
        pixels, alpha = pixels[..., :-1], pixels[..., -1]
        pixels = pixels[..., 0] if image.mode == 'LA' else pixels
    raster = _checked(pixels, alpha, profile, tags)
    raster.notes = notes
    return raster


def _read_wide(image, path):
    """Colour or alpha of 16 bits, of which Pillow drops eight."""
    mode = image.mode
    if mode == 'RGBA' and any(str(tile[3]).startswith('LA') for tile in image.tile):
        mode = 'LA'
    if path is None or image.format not in ('PNG', 'TIFF'):
        raise Refused(f'got 16-bit {mode}, of which Pillow drops eight bits; expected a PNG or '
                      'TIFF file, or an array')
    how = orientation(image)
    image.load()  # OpenCV does not tell a truncated file
    raster = _read_tiff(path, how) if image.format == 'TIFF' else _turned(
        _read_wide_png(path, mode, 'transparency' in image.info), max(how, orientation(image)))
    raster.icc_profile = raster.icc_profile or image.info.get('icc_profile')
    return raster


def _pil_tags(image):
    if image.format != 'TIFF':
        return {}
    found = image.tag_v2
    return {code: (found.tagtype[code], found[code]) for code in GEOGRAPHY if code in found}


def _opencv(package, what):
    try:
        return import_module('cv2')
    except ImportError:
        raise Refused(f'{what} needs {package}, which is not installed: '
                      f'pip install {package}') from None


def _read_wide_png(path, mode, transparent=False):
    cv2 = _opencv('opencv-python', f'a 16-bit {mode} PNG')
    pixels = cv2.imdecode(np.memmap(path, np.uint8, 'r'), cv2.IMREAD_UNCHANGED)
    channels = 4 if mode in ('RGBA', 'LA') else 3
    if pixels is None or pixels.dtype != np.uint16 or pixels.shape[2:] != (channels,):
        raise Refused(f'OpenCV does not read it as 16-bit {mode}'
                      f'{" (it has a transparent colour)" if transparent else ""}')
    if mode == 'LA':
        return _checked(pixels[..., 0], pixels[..., 3])
    for top in range(0, len(pixels), LINES):  # BGR to RGB without a copy of all
        part = pixels[top:top + LINES, :, :3]
        part[:] = part[..., ::-1].copy()
    return _checked(pixels[..., :3], pixels[..., 3] if channels == 4 else None)


def _read_tiff(path, how=1):
    """By tifffile; what it cannot decompress, and where it is missing, by OpenCV."""
    try:
        tifffile = import_module('tifffile')
    except ImportError:
        return _read_tiff_by_opencv(
            path, how, 'tifffile, which is not installed: pip install tifffile')
    with tifffile.TiffFile(path) as file:
        if len(file.series) != 1:
            raise Refused(f'expected one picture, got {len(file.series)}')
        series, page = file.series[0], file.pages[0]
        axes = series.axes
        if axes not in ('YX', 'YXS', 'SYX'):
            raise Refused(f'expected one picture, got axes {axes} of shape {series.shape}')
        photometric = getattr(page.photometric, 'name', str(page.photometric))
        if photometric not in ('MINISBLACK', 'RGB'):
            raise Refused(f'expected {EXPECTED}, got {photometric}')
        tags = {code: (int(page.tags[code].dtype), page.tags[code].value)
                for code in GEOGRAPHY if code in page.tags}
        profile = page.tags[ICC].value if ICC in page.tags else None
        check_pixels(page.imagewidth, page.imagelength)
        how = page.tags[ORIENTATION].value if ORIENTATION in page.tags else 1
        how = how if how in range(2, 9) else 1
        extra = [int(sample) for sample in page.extrasamples or ()]
        try:
            pixels = series.asarray()
        except ValueError as error:
            if 'imagecodecs' not in str(error):
                raise
            return _read_tiff_by_opencv(
                path, how,
                'tifffile with imagecodecs, which is not installed: pip install imagecodecs')
    if axes == 'SYX':
        pixels = np.moveaxis(pixels, 0, -1)
    alpha = None
    if extra and extra[-1] in (1, 2):
        pixels, alpha = pixels[..., :-1], pixels[..., -1]
        pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    return _turned(_checked(pixels, alpha, profile, tags), how)


def _read_tiff_by_opencv(path, how, missing):
    try:
        cv2 = import_module('cv2')
        pixels = cv2.imdecode(np.memmap(path, np.uint8, 'r'), cv2.IMREAD_UNCHANGED)
    except ImportError:
        pixels = None
    if pixels is None or pixels.shape[2:] not in ((), (3,)):  # it does not tell alpha from bands
        raise Refused(f'such a TIFF needs {missing}')
    pixels = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., ::-1])
    return _turned(_checked(pixels), how)


def output_suffix(path):
    """The ending of the file made from ``path``: ``.npy`` and TIFF stay, the rest becomes PNG.

    Example:
        >>> from mmpd.utils.rasters import output_suffix
        >>> output_suffix('face.jpg'), output_suffix('scene.tif')
        ('.png', '.tif')
    """
    suffix = Path(path).suffix
    return suffix if suffix.lower() in KEPT else '.png'


def encode_raster(raster, suffix):
    """The content of a file without loss.

    Args:
        raster (Raster): The image.
        suffix (str): '.png', '.tif', '.tiff' or '.npy'.

    Returns:
        memoryview: Bytes.

    Raises:
        ValueError: What the format cannot hold, or only with a package that is not installed.

    Example:
        >>> import io
        >>> import numpy as np
        >>> from mmpd.utils.rasters import Raster, encode_raster
        >>> pixels = np.arange(24, dtype=np.float32).reshape(4, 6)
        >>> data = encode_raster(Raster(pixels), '.npy')
        >>> np.array_equal(np.load(io.BytesIO(data)), pixels)
        True
    """
    file, writers = io.BytesIO(), {'.npy': _write_npy, '.png': _write_png}
    writers.get(suffix.lower(), _write_tiff)(raster, file)
    return file.getbuffer()


def _write_npy(raster, file):
    pixels = np.ascontiguousarray(_with_alpha(raster))
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(pixels))
    file.write(memoryview(pixels).cast('B'))  # np.save would make a copy first


def _write_png(raster, file):
    if raster.most is None or raster.bands not in (1, 3):
        raise ValueError(f'a PNG cannot hold {raster.kind}: .npy and TIFF can')
    plain_grey = raster.bands == 1 and raster.alpha is None
    if raster.pixels.dtype.name == 'uint16' and not plain_grey:
        _write_wide_png(raster, file)
    else:
        _save_by_pil(raster, file, 'PNG')


def _write_tiff(raster, file):
    name, bands = raster.pixels.dtype.name, raster.bands
    if name in ('uint8', 'uint16', 'float32') and bands == 1 and raster.alpha is None \
            or name == 'uint8' and bands == 3:
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        for code, (kind, value) in raster.tags.items():
            tags.tagtype[code] = kind
            tags[code] = value
        _save_by_pil(raster, file, 'TIFF', compression='tiff_adobe_deflate', tiffinfo=tags)
    else:
        _write_rare_tiff(raster, file)


def _save_by_pil(raster, file, kind, **options):
    if raster.icc_profile:
        options['icc_profile'] = raster.icc_profile
    raster_to_pil(raster).save(file, kind, **options)


def raster_to_pil(raster):
    """The PIL image of 8 bits, 16-bit grey or float32 grey.

    Example:
        >>> import numpy as np
        >>> from mmpd.utils.rasters import Raster, raster_to_pil
        >>> image = raster_to_pil(Raster(np.zeros((4, 6), np.float32)))
        >>> image.mode, image.size
        ('F', (6, 4))
    """
    pixels = _with_alpha(raster)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)


def _with_alpha(raster):
    return raster.pixels if raster.alpha is None else np.dstack([raster.pixels, raster.alpha])


def _write_wide_png(raster, file):
    """A PNG of 16 bits, which Pillow has for grey only; no other library writes the profile."""
    height, width = raster.pixels.shape[:2]
    channels = raster.bands + (raster.alpha is not None)

    def chunk(name, data):
        file.write(struct.pack('>I', len(data)) + name + data)
        file.write(struct.pack('>I', zlib.crc32(name + data)))

    file.write(b'\x89PNG\r\n\x1a\n')
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 16, colour_type, 0, 0, 0))
    if raster.icc_profile:
        chunk(b'iCCP', b'ICC Profile\0\0' + zlib.compress(raster.icc_profile))
    deflate = zlib.compressobj(6)
    for top in range(0, height, LINES):
        rows = slice(top, min(top + LINES, height))
        pixels = raster.pixels[rows].reshape(rows.stop - top, width, -1)
        if raster.alpha is not None:
            pixels = np.concatenate([pixels, raster.alpha[rows, :, None]], 2)
        raw = np.ascontiguousarray(pixels.astype('>u2')).view(np.uint8)
        raw = raw.reshape(rows.stop - top, -1)
        lines = np.ones((len(raw), raw.shape[1] + 1), np.uint8)  # filter 1: from the left pixel
        lines[:, 1:] = raw
        lines[:, 1 + 2 * channels:] -= raw[:, :-2 * channels]
        data = deflate.compress(lines)
        if data:
            chunk(b'IDAT', data)
    chunk(b'IDAT', deflate.flush())
    chunk(b'IEND', b'')


def _write_rare_tiff(raster, file):
    """A TIFF that Pillow cannot write."""
    try:
        tifffile = import_module('tifffile')
    except ImportError:
        cv2 = _opencv('tifffile', f'a {raster.kind} TIFF')
        if raster.bands not in (1, 3) or raster.alpha is not None or raster.tags:
            raise ValueError(f'a {raster.kind} TIFF needs tifffile, which is not installed: '
                             'pip install tifffile') from None
        pixels = raster.pixels if raster.bands == 1 else raster.pixels[..., ::-1]
        file.write(cv2.imencode('.tif', np.ascontiguousarray(pixels))[1])
        return
    tags = [(code, kind, None if kind == ASCII else len(np.atleast_1d(value)), value, True)
            for code, (kind, value) in raster.tags.items()]
    pixels = _with_alpha(raster)
    options = dict(photometric='rgb' if raster.bands == 3 else 'minisblack')
    if pixels.ndim == 3:
        alone = pixels.shape[2] - (3 if raster.bands == 3 else 1)
        samples = ['unspecified'] * alone
        if raster.alpha is not None:
            samples[-1] = 'unassalpha'
        options.update(planarconfig='contig', extrasamples=samples or None)
    tifffile.imwrite(file, pixels, compression='zlib', metadata=None, extratags=tags,
                     iccprofile=raster.icc_profile, **options)


def profile_name(profile):
    """What an ICC profile calls itself, 'none' for None.

    Example:
        >>> from PIL import ImageCms
        >>> from mmpd.utils.rasters import profile_name
        >>> profile_name(ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes())
        'sRGB built-in'
    """
    if profile is None:
        return 'none'
    try:
        from PIL import ImageCms
        return ImageCms.getProfileDescription(
            ImageCms.ImageCmsProfile(io.BytesIO(profile))).strip() or 'without a name'
    except Exception:  # damaged, or Pillow without littlecms
        return 'without a name'
