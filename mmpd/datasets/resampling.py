"""Downsampling of images by an integer scale: one implementation for training and for LR folders.

Two families, named as in the paper (section "Unseen Downsamplings"):

- *antialias*: the kernel is widened by the scale. Pixels beyond the border do not exist: the
  remaining weights are renormalised (the rule of PIL and of torch ``antialias=True``). Bicubic has
  a = -0.5, Lanczos three lobes.
- *alias*: the kernel keeps its width, so it looks at a few pixels around each sampling position
  and ignores the rest. The border is replicated (the rule of OpenCV and of torch). Bicubic has
  a = -0.75, Lanczos four lobes (OpenCV's INTER_LANCZOS4); box is the nearest pixel, ties to the
  right and downwards (PIL's NEAREST, torch's ``nearest-exact``).

That is ``border='library'``. With ``border='mirror'`` the image goes on mirrored, as in MATLAB's
imresize: bicubic(antialias) is then what MATLAB gives, at the border too.

Needs NumPy only, so that data preparation does not pay for importing MMagic.
"""
import numpy as np

KERNELS = ('average_pooling', 'bicubic', 'bilinear', 'lanczos', 'box')
BORDERS = ('library', 'mirror')
MIRRORED = 4  # LR pixels by which an image is continued: no kernel reaches farther


def _cubic(x, a):
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.))


def _lanczos(x, lobes):
    return np.where(np.abs(x) < lobes, np.sinc(x) * np.sinc(x / lobes), 0.)


def _triangle(x):
    return np.clip(1 - np.abs(x), 0, None)


def _box(x):
    return (np.abs(x) < 0.5).astype(np.float64)


# kernel and half width, in LR pixels for antialias, in HR pixels for alias
_ANTIALIAS = dict(
    bicubic=(lambda x: _cubic(x, -0.5), 2), lanczos=(lambda x: _lanczos(x, 3), 3),
    bilinear=(_triangle, 1), box=(_box, 0.5))
_ALIAS = dict(
    bicubic=(lambda x: _cubic(x, -0.75), 2), lanczos=(lambda x: _lanczos(x, 4), 4),
    bilinear=(_triangle, 1))


def check_kernel(scale, kernel, antialias=True, border='library'):
    """Refuse a downsampling that is not defined.

    Raises:
        ValueError: If the scale is no positive integer, the kernel or border is unknown, or average
            pooling is asked for without antialiasing.
    """
    if border not in BORDERS:
        raise ValueError(f'border must be one of {", ".join(BORDERS)}, got {border!r}')
    if isinstance(scale, bool) or int(scale) != scale or scale < 1:
        raise ValueError(f'scale must be a positive integer, got {scale!r}')
    if kernel not in KERNELS:
        raise ValueError(f'kernel must be one of {", ".join(KERNELS)}, got {kernel!r}')
    if kernel == 'average_pooling' and not antialias:
        raise ValueError('average_pooling has no form without antialiasing; '
                         "use kernel='box', antialias=False for the nearest pixel")


def check_divisible(shape, scale):
    """Refuse an image whose sides the scale does not divide.

    Raises:
        ValueError: Naming both sizes and the scale.
    """
    h, w = shape[:2]
    if h % scale or w % scale or not h or not w:
        raise ValueError(f'image of {h} x {w} (height x width) is not divisible by scale {scale}: '
                         'crop it or choose another scale')


def _antialias_axis0(x, scale, kernel):
    """(H, N) -> (H // scale, N): correlation of stride ``scale``, taps renormalised."""
    function, half = _ANTIALIAS[kernel]
    reach = int(np.ceil(half - 0.5))  # blocks of ``scale`` pixels on either side of the own block
    offsets = np.arange(-reach * scale, (reach + 1) * scale) + 0.5
    weights = function(offsets / scale - 0.5).reshape(2 * reach + 1, scale)
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
    if kernel == 'box':
        return x[scale // 2::scale]
    function, half = _ALIAS[kernel]
    centre = (scale - 1) / 2
    taps = np.arange(1 - half, half + 1) + int(centre)
    weights = function(taps - centre)
    weights /= weights.sum()
    starts = np.arange(0, len(x), scale)
    out = np.zeros((len(starts), x.shape[1]), x.dtype)
    for tap, weight in zip(taps, weights, strict=True):
        out += x.dtype.type(weight) * x[np.clip(starts + tap, 0, len(x) - 1)]
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
    rows = image.reshape(h, scale, -1).sum(1, dtype=wide if scale > 256 else
                                           np.uint16 if image.dtype == np.uint8 else wide)
    return rows.reshape(h, w, scale, -1).sum(2, dtype=wide).reshape(h, w, *image.shape[2:])


def downsample(image, scale, kernel='bicubic', antialias=True, quantize=True,
               border='library'):
    """Downsample an image by an integer scale.

    Args:
        image (np.ndarray): (H, W) or (H, W, C), uint8 or floating point, in 0..255.
        scale (int): Downsampling factor; must divide H and W.
        kernel (str): 'average_pooling', 'bicubic', 'bilinear', 'lanczos' or 'box'.
        antialias (bool): Widen the kernel by the scale. See the module for the coefficient a and
            for the border rule of either family.
        quantize (bool): Clip to 0..255 and round half up, as a saved 8-bit LR file would hold.
            Averages of 8-bit images are rounded in integer arithmetic, hence exactly.
        border (str): 'library' or 'mirror', see the module.

    Returns:
        np.ndarray: (H / scale, W / scale[, C]); uint8 if ``quantize``, else floating point of at
        least float32, neither clipped nor rounded (so it is the linear operator A itself).

    Raises:
        ValueError: For an unknown kernel, a scale that is not a positive integer or does not
            divide the sides, or an array that is no image.
    """
    check_kernel(scale, kernel, antialias, border)
    scale, image = int(scale), np.asarray(image)
    if image.ndim not in (2, 3) or image.dtype.kind not in 'uf':
        raise ValueError('expected an unsigned or floating point image of shape (H, W) or '
                         f'(H, W, C), got {image.dtype} of shape {image.shape}')
    check_divisible(image.shape, scale)
    if kernel == 'average_pooling':
        sums, area = _patch_sums(image, scale), scale * scale
        if quantize and sums.dtype.kind == 'i':
            return np.minimum((2 * sums + area) // (2 * area), 255).astype(np.uint8)
        result = sums / (np.float32(area) if image.dtype != np.float64 else area)
        result = result.astype(np.promote_types(image.dtype, np.float32), copy=False)
    else:
        work = image.astype(np.promote_types(image.dtype, np.float32), copy=False)
        result = _resample(work, scale, kernel, antialias, border)
    if quantize:
        return np.floor(np.clip(result, 0, 255) + 0.5).astype(np.uint8)
    return np.ascontiguousarray(result)
