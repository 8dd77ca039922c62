"""Downsampling of images by an integer scale: one implementation for training and for LR folders.

Two families, named as in the paper (section "Unseen Downsamplings"): *antialias* widens the kernel
by the scale, *alias* does not. Kernels and border rules are those of
:mod:`mmpd.operators.kernels`, where it says which library each one equals; ``average_pooling`` is
box with antialias in integer arithmetic, the operator of the paper's eq. (8).

An 8-bit LR is what some library makes of 8-bit pixels, see :func:`default_library`.

Works with arrays, so that data preparation and the workers of a data loader import neither MMagic
nor its kin.
"""
from functools import lru_cache

import numpy as np
import torch

from ..operators import SeparableResize, kernels
from ..operators.kernels import BORDERS, taps
from ..operators.library_resize import LIBRARIES, METHODS, LibraryResize
from ..utils.validation import MOST_CHANNELS, check_bool, check_choice, check_positive_int, refuse

__all__ = ['BORDERS', 'KERNELS', 'LIBRARIES', 'check_divisible', 'check_kernel', 'check_library',
           'default_library', 'downsample']

KERNELS = ('average_pooling', *kernels.KERNELS)
MIRRORED = 4  # LR pixels by which an image is continued: no kernel reaches farther


def check_kernel(scale, kernel, antialias=True, border='library'):
    """Refuse a downsampling that is not defined.

    Raises:
        ValueError: If the scale is no positive integer, the kernel or border is unknown, or average
            pooling is asked for without antialiasing.

    Example:
        >>> from mmpd.datasets.resampling import check_kernel
        >>> check_kernel(4, 'bicubic', antialias=False)
        >>> check_kernel(4, 'average_pooling', antialias=False)
        Traceback (most recent call last):
            ...
        ValueError: average_pooling has no form without antialiasing; ...
    """
    kernels.check_kernel(kernel, border, KERNELS)
    check_positive_int(scale, 'scale', most=MOST_CHANNELS)
    check_bool(antialias, 'antialias')
    if kernel == 'average_pooling' and not antialias:
        raise ValueError('average_pooling has no form without antialiasing; '
                         "use kernel='box', antialias=False for the nearest pixel")


def default_library(kernel='bicubic', antialias=True, border='library'):
    """Whose arithmetic makes the 8-bit LR of an 8-bit image, unless another is asked for.

    Bicubic and bilinear with antialias are 'torch_uint8', ``F.interpolate`` on uint8: integers,
    so the pixels are the same on every processor and for any number of threads; they are PIL's but
    for about one value in 10,000, which differs by 1. Everything else is 'float', A x rounded once.

    Example:
        >>> from mmpd.datasets.resampling import default_library
        >>> default_library('bicubic'), default_library('average_pooling')
        ('torch_uint8', 'float')
    """
    fast = (kernel, antialias) in METHODS['torch_uint8'] and border == 'library'
    return 'torch_uint8' if fast else 'float'


def check_library(made_by, scale, kernel, antialias=True, border='library', quantize=True):
    """Refuse a library that does not have a downsampling.

    Args:
        made_by (str, optional): One of LIBRARIES; None for :func:`default_library`.
        scale, kernel, antialias, border: A downsampling that :func:`check_kernel` takes.
        quantize (bool): Whether an 8-bit LR is wanted; without, there is no library's rounding.

    Raises:
        ValueError: If the library is unknown, not installed or has no such downsampling.

    Example:
        >>> from mmpd.datasets.resampling import check_library
        >>> check_library('pil', 8, 'bicubic')
        >>> check_library('pil', 8, 'bicubic', antialias=False)
        Traceback (most recent call last):
            ...
        ValueError: made_by='pil' has no SeparableResize(...antialias=False); it has bicubic, ...
    """
    if made_by is None:
        return
    check_choice(made_by, 'made_by', LIBRARIES)
    if made_by == 'float':
        return
    if not quantize:
        refuse('made_by', "None or 'float' with quantize=False, where nothing is rounded", made_by)
    _library_resize(made_by, int(scale), kernel, antialias, border)


@lru_cache(maxsize=64)
def _library_resize(made_by, scale, kernel, antialias, border):
    kernel = 'box' if kernel == 'average_pooling' else kernel
    return LibraryResize(SeparableResize(scale, kernel, antialias, border), made_by)


def _by_library(image, *downsampling):
    planes = image[..., None] if image.ndim == 2 else image
    if image.size == 0:
        raise ValueError(f'expected an image with pixels and channels, got shape {image.shape}')
    if not (planes.flags.c_contiguous and planes.flags.writeable):
        planes = planes.copy()  # torch takes neither read-only arrays nor flipped views
    small = _library_resize(*downsampling)(torch.from_numpy(planes).permute(2, 0, 1)[None])
    small = small[0].permute(1, 2, 0).contiguous().numpy()
    return small if image.ndim == 3 else small[..., 0]


def check_divisible(shape, scale):
    """Refuse an image whose sides the scale does not divide.

    Raises:
        ValueError: Naming both sizes and the scale.

    Example:
        >>> from mmpd.datasets.resampling import check_divisible
        >>> check_divisible((32, 64, 3), 4)
        >>> check_divisible((30, 64, 3), 4)
        Traceback (most recent call last):
            ...
        ValueError: image of 30 x 64 (height x width) is not divisible by scale 4: ...
    """
    h, w = shape[:2]
    if h % scale or w % scale or not h or not w:
        raise ValueError(f'image of {h} x {w} (height x width) is not divisible by scale {scale}: '
                         'crop it or choose another scale')


def _antialias_axis0(x, scale, kernel):
    """(H, N) -> (H // scale, N): correlation of stride ``scale``, taps renormalised."""
    weights = taps(scale, kernel, True)[1].reshape(-1, scale)  # by block
    reach = len(weights) // 2
    n = len(x) // scale
    parts = np.matmul(weights.astype(x.dtype), x.reshape(n, scale, -1))
    out, total = np.zeros((n, x.shape[1]), x.dtype), np.zeros((n, 1))
    for k, shift in enumerate(range(-reach, reach + 1)):
        to = slice(max(0, -shift), max(0, n - max(0, shift)))
        source = slice(to.start + shift, to.stop + shift)
        if to.start < to.stop:
            out[to] += parts[source, k]
            total[to] += weights[k].sum()
    return out / total.astype(x.dtype)


def _alias_axis0(x, scale, kernel):
    if kernel == 'box':  # a view instead of a sum of one term
        return x[scale // 2::scale]
    offsets, weights = taps(scale, kernel, False)
    weights = weights / weights.sum()
    starts = np.arange(0, len(x), scale)
    out = np.zeros((len(starts), x.shape[1]), x.dtype)
    for offset, weight in zip(offsets, weights, strict=True):
        out += x.dtype.type(weight) * x[np.clip(starts + offset, 0, len(x) - 1)]
    return out


def _resample(image, scale, kernel, antialias, border):
    axis0 = _antialias_axis0 if antialias else _alias_axis0
    for _ in range(2):  # height, then width
        shape = image.shape
        image = np.ascontiguousarray(image).reshape(shape[0], -1)
        if border == 'mirror':
            image = np.pad(image, ((MIRRORED * scale,) * 2, (0, 0)), mode='symmetric')
        image = axis0(image, scale, kernel)
        if border == 'mirror':
            image = image[MIRRORED:-MIRRORED]
        image = image.reshape(-1, *shape[1:]).swapaxes(0, 1)
    return image


def _patch_sums(image, scale):
    h, w = image.shape[0] // scale, image.shape[1] // scale
    wide = image.dtype if image.dtype.kind == 'f' else np.int64
    if image.dtype == np.uint8 and scale <= 16:  # 255 * 16 * 16 fits
        wide = np.uint16
    columns = image.reshape(h, scale, -1).sum(1, dtype=wide).reshape(h, w, scale, -1)
    sums = columns[:, :, 0].copy()
    for k in range(1, scale):  # NumPy's sum along an inner axis takes four times as long
        sums += columns[:, :, k]
    return sums.reshape(h, w, *image.shape[2:])


def downsample(image, scale, kernel='bicubic', antialias=True, quantize=True,
               border='library', made_by=None):
    """Downsample an image by an integer scale.

    Args:
        image (np.ndarray): (H, W) or (H, W, C), uint8 or floating point, in 0..255.
        scale (int): Downsampling factor; must divide H and W.
        kernel (str): 'average_pooling', 'bicubic', 'bilinear', 'lanczos' or 'box'.
        antialias (bool): Widen the kernel by the scale.
        quantize (bool): Clip to 0..255 and round, as a saved 8-bit LR file would hold.
        border (str): 'library' or 'mirror', see :mod:`mmpd.operators.kernels`.
        made_by (str, optional): Whose 8-bit arithmetic: 'float' (A x, rounded once, half up;
            averages of 8-bit images in integers, hence exactly), 'pil', 'torch', 'torch_uint8',
            'opencv' or 'matlab', see :class:`mmpd.operators.library_resize.LibraryResize`. Defaults
            to None: :func:`default_library` for uint8, 'float' for floating point.

    Returns:
        np.ndarray: (H / scale, W / scale[, C]); uint8 if ``quantize``, else floating point of at
        least float32, neither clipped nor rounded (so it is the linear operator A itself).

    Raises:
        ValueError: For an unknown kernel, a scale that is not a positive integer or does not
            divide the sides, a library that has no such downsampling, or an array that is no
            image (of 8 bits, for a library's arithmetic; without NaN and inf, to be rounded).

    Example:
        >>> import numpy as np
        >>> from mmpd.datasets.resampling import downsample
        >>> image = np.array([[0, 10], [20, 34]], np.uint8)
        >>> downsample(image, 2, 'average_pooling'), downsample(image, 2, 'box', quantize=False)
        (array([[16]], dtype=uint8), array([[16.]], dtype=float32))
    """
    check_kernel(scale, kernel, antialias, border)
    check_bool(quantize, 'quantize')
    scale, image = int(scale), np.asarray(image)
    if image.ndim not in (2, 3) or image.dtype.kind not in 'uf':
        raise ValueError('expected an unsigned or floating point image of shape (H, W) or '
                         f'(H, W, C), got {image.dtype} of shape {image.shape}')
    if quantize and image.dtype.kind == 'f' and not np.isfinite(image).all():
        raise ValueError('expected finite values, got NaN or inf, which no 8-bit LR can hold')
    check_divisible(image.shape, scale)
    check_library(made_by, scale, kernel, antialias, border, quantize)
    if made_by is None and quantize and image.dtype == np.uint8:
        made_by = default_library(kernel, antialias, border)
    if made_by not in (None, 'float'):
        if image.dtype != np.uint8:
            raise ValueError(f'made_by={made_by!r}: expected a uint8 image, got {image.dtype}')
        return _by_library(image, made_by, scale, kernel, bool(antialias), border)
    exact = np.promote_types(image.dtype, np.float32)
    if kernel == 'average_pooling':
        if image.dtype.kind == 'f':
            image = np.asarray(image, exact)
        sums, area = _patch_sums(image, scale), scale * scale
        if quantize and sums.dtype.kind in 'iu':
            sums = sums.astype(np.int64)
            return np.minimum((2 * sums + area) // (2 * area), 255).astype(np.uint8)
        result = np.asarray(sums / area, exact)
    else:
        result = _resample(np.asarray(image, exact), scale, kernel, antialias, border)
    if quantize:
        return np.floor(np.clip(result, 0, 255) + 0.5).astype(np.uint8)
    return np.ascontiguousarray(result)
