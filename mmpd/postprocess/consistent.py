"""One call for whoever holds an image of any method and the LR image."""
import math
import warnings
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from ..operators import resolve_operator
from ..operators.library_resize import LIBRARIES, check_library
from ..operators.resolve import infer_scale
from ..utils.files import Refused
from ..utils.rasters import DTYPES, Raster, raster_from_pil, raster_to_pil
from ..utils.validation import ArgumentError, refuse
from .candidate import rivals
from .correction import Correction, named_operator

__all__ = ['check_sizes', 'consistent', 'identified', 'work_dtype']

MOST_PAIRS = 8  # that 'auto' looks at
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def consistent(image, lr, operator='auto', strength=1.0, noise_std=None, bounds=None, made_by=None,
               max_iterations=100, return_unmatched=False):
    """The image nearest to ``image`` that degrades to ``lr``: the exact colour fix.

    The range-space part of the image is replaced by that of the LR, x̂ = x + A†(y - A x), and
    integers are rounded so that A of the result, by the rounding of the library that made the LR,
    *is* the LR (for average pooling always, for other operators wherever the search succeeds).

    Args:
        image (ndarray | PIL.Image.Image | Tensor): Array (H, W), (H, W, C) or (..., H, W, C);
            tensor (..., C, H, W) of at least three axes; uint8 or uint16, or floating point in any
            unit.
        lr (same kind): The LR image or batch, in the same type and unit.
        operator (str | dict | object): A: 'auto' finds out which one made the LR, of those that
            ``made_by`` has (and warns where the images do not show it clearly); 'average_pooling'
            or a kernel, 'bicubic', 'bilinear', 'lanczos', 'box' (with antialias, as PIL has them);
            a config, whose ``scale`` may be left out, or an operator.
        strength (float): Weight of the correction, in [0, 1]; below 1, for noisy LR, the result
            is only nearly consistent.
        noise_std (float, optional): σ of the LR's noise in its own unit, instead of ``strength``.
        bounds (tuple[float, float], optional): Least and largest value of the result. Defaults to
            0 and what the integers hold; floating point is not bounded.
        made_by (str, optional): Library whose integer arithmetic made the LR: 'float' (A x,
            rounded once), 'pil', 'torch', 'torch_uint8', 'opencv' or 'matlab'. Defaults to the
            likeliest for the operator.
        max_iterations (int): Bound of the search where A is not average pooling.
        return_unmatched (bool): Return also how many LR values A of the result does not give back.

    Returns:
        ndarray | PIL.Image.Image | Tensor: Like ``image``, in its dtype; with ``return_unmatched``
        a tuple of it and an int.  Alpha (one channel more than a grey or RGB LR has; PIL: modes
        LA and RGBA) is that of ``image``; colour is taken as stored, not multiplied by it.
        A palette is looked up and a PIL image turned as its orientation says, with a warning.
        Floating point tensors are differentiable.

    Raises:
        ValueError: for types, sizes, units or values that do not fit, naming what was given.

    Example:
        >>> import numpy as np
        >>> from mmpd import consistent
        >>> random = np.random.default_rng(0)
        >>> sr, lr = (random.integers(0, 256, (side, side, 3), np.uint8) for side in (16, 4))
        >>> result = consistent(sr, lr, 'average_pooling')
        >>> np.array_equal(result.reshape(4, 4, 4, 4, 3).mean((1, 3)), lr)
        True
    """
    correction = Correction(strength, noise_std, bounds, made_by, max_iterations)
    kinds = {torch.Tensor: _tensors, np.ndarray: _arrays, Image.Image: _pictures}
    kind = next((kind for kind in kinds if isinstance(image, kind)), None)
    if kind is None:
        refuse('image', 'a NumPy array, a PIL image or a tensor', image)
    if not isinstance(lr, kind):
        raise ArgumentError('image and lr: expected the same type, got '
                            f'{type(image).__name__} and {type(lr).__name__}')
    result, unmatched = kinds[kind](image, lr, operator, correction)
    return (result, unmatched) if return_unmatched else result


def identified(pairs, recolour=True, made_by=None):
    """The config of the A that made the LR of ``pairs``, and the library.

    Args:
        pairs (list[tuple[ndarray, ndarray]]): LR and images (GT, or SR), (h, w[, C]) and
            (H, W[, C]), uint8, or uint16, which is looked at in 8 bits. Of more than MOST_PAIRS
            some are looked at, evenly chosen.
        recolour (bool): The images are SR, see :func:`identify`.
        made_by (str, optional): The library, whose resizings alone are tried then.

    Returns:
        tuple[dict, str | None, float, str | None]: Config without scale, library (None for 16 bits:
        other libraries make those), PSNR(A(image), LR) in dB, and what to warn of: without GT
        another kernel may come too close.

    Raises:
        ValueError: Floating point; a library of 8 bits for 16.
    """
    from . import identify
    pairs = pairs[::-(-len(pairs) // MOST_PAIRS)]
    dtypes = {array.dtype.name for pair in pairs for array in pair}
    others = ', '.join(sorted(dtypes - {'uint8', 'uint16'}))
    if others:
        _refuse_auto(others)
    deep = 'uint16' in dtypes
    if made_by is not None:
        check_library(made_by, 65535 if deep else 255)
    pairs = [tuple((array / 257).round().astype(np.uint8) if array.dtype == np.uint16 else array
                   for array in pair) for pair in pairs]
    results = identify(pairs, LIBRARIES if made_by is None else (made_by, ), recolour=recolour)
    best = results[0]
    rival, doubt = rivals(results).get('kernel'), None
    if recolour and rival and not rival.beaten and not math.isinf(best.psnr):
        doubt = (f"operator 'auto' takes {best.operator_name}, but these images do not show it "
                 f'clearly: {rival.candidate.operator_name} explains the LR all but as well '
                 f'({rival.margin:.2f} dB less); name the operator if you know it')
    cfg = {key: value for key, value in best.operator_cfg.items() if key != 'scale'}
    return cfg, made_by or (None if deep else best.made_by), best.psnr, doubt


def _refuse_auto(dtype):
    raise ArgumentError(f"operator: 'auto' expected uint8 or uint16, got {dtype}; name it")


def _pairs(images, lrs):
    """LR and image, grey ones without channels, of arrays (N, H, W, C)."""
    return [tuple(one[..., 0] if one.shape[2] == 1 else one for one in pair)
            for pair in zip(lrs, images, strict=True)]


def check_sizes(size, lr_size):
    """The scale of sizes (width, height).

    Raises:
        ArgumentError: if it is no integer, or the LR is the larger one.
    """
    (width, height), (w, h) = size, lr_size
    if w > width and h > height:
        raise ArgumentError(f'the LR ({w}x{h}) is larger than the image ({width}x{height}): '
                            'are they swapped?')
    try:
        return infer_scale((height, width), (h, w))
    except ValueError:
        raise ArgumentError('expected an image size that is one multiple of the LR size '
                            f'{w}x{h}, got {width}x{height}') from None


def work_dtype(dtype):
    """torch's floating point type that images of a NumPy dtype are corrected in."""
    return torch.float32 if np.dtype(dtype).name in ('float16', 'float32') else torch.float64


def _resolve(operator, correction, shape, lr_shape, device, pairs):
    """Operator and correction for images (N, C, H, W); ``pairs()``: LR and images to look at."""
    scale = check_sizes(shape[:1:-1], lr_shape[:1:-1])
    if operator == 'auto':
        if scale == 1:
            raise ArgumentError("operator: 'auto' expected an image 2 or more times as large as "
                                'the LR, got one of the same size; name it')
        operator, made_by, _, doubt = identified(pairs(), made_by=correction.made_by)
        if doubt:
            warnings.warn(doubt, stacklevel=4)  # of consistent()
        correction = replace(correction, made_by=made_by)
    elif isinstance(operator, str):
        operator = named_operator(operator)
    return resolve_operator(operator, shape, lr_shape, device), correction


def _check_channels(channels, lr_channels):
    """Whether the last channel is alpha."""
    if channels == lr_channels:
        return False
    if channels == lr_channels + 1 and lr_channels in (1, 3):
        return True
    raise ArgumentError(f'lr: expected {channels} channels like the image, got {lr_channels}')


def _check_dtypes(dtype, lr_dtype, allowed, names):
    if dtype not in allowed:
        refuse('image', f'one of {names}', str(dtype))
    floating = ['float' in str(one) for one in (dtype, lr_dtype)]
    if dtype != lr_dtype and not all(floating) or lr_dtype not in allowed:
        raise ArgumentError(f'lr: expected {dtype} like the image, got {lr_dtype}')


def _pictures(image, lr, operator, correction):
    rasters = {}
    for name, picture in (('image', image), ('lr', lr)):
        try:
            raster = rasters[name] = raster_from_pil(picture)
        except Refused as error:
            raise ArgumentError(f'{name}: {error}') from None
        if raster.notes:
            warnings.warn(f'{name}: {", ".join(raster.notes)}', stacklevel=3)
    image, lr = rasters['image'], rasters['lr']
    if image.colour != lr.colour or lr.alpha is not None and image.alpha is None:
        raise ArgumentError(f'lr: expected {image.kind} like the image, got {lr.kind}')
    pixels, unmatched = _arrays(image.pixels, lr.pixels, operator, correction)
    profile = lr.icc_profile or image.icc_profile
    result = raster_to_pil(Raster(pixels, image.alpha))
    if profile:
        result.info['icc_profile'] = profile
    return result, unmatched


def _arrays(image, lr, operator, correction):
    _check_dtypes(image.dtype.name, lr.dtype.name, DTYPES, ', '.join(DTYPES))
    for array, name in ((image, 'image'), (lr, 'lr')):
        if isinstance(array, (np.ma.MaskedArray, np.matrix)):
            raise ArgumentError(f'{name}: expected a plain array (a mask has no meaning here), got '
                                f'{type(array).__name__}')
        if array.ndim < 2 or not array.size:
            refuse(name, 'shape (H, W), (H, W, C) or (..., H, W, C)', array.shape)
    if image.ndim != lr.ndim or image.shape[:-3] != lr.shape[:-3]:
        raise ArgumentError(f'lr: expected the axes of the image {image.shape}, got {lr.shape}')

    def flat(array):
        grey = array.ndim == 2
        return array.reshape(-1, *array.shape[-2:], 1) if grey else array.reshape(
            -1, *array.shape[-3:])

    x, y = flat(image), flat(lr)
    alpha = _check_channels(x.shape[3], y.shape[3])
    x = x[..., :-1] if alpha else x
    most = None if image.dtype.kind == 'f' else int(np.iinfo(image.dtype).max)
    wide = work_dtype(image.dtype)

    def part(array, rows):
        # copied: strides may be negative, and torch 2.1 has no uint16
        return torch.from_numpy(array[:, rows].astype(str(wide)[6:])).permute(0, 3, 1, 2)

    shapes = [(len(a), a.shape[3], *a.shape[1:3]) for a in (x, y)]
    operator, correction = _resolve(
        operator, correction, *shapes, 'cpu', lambda: _pairs(x, y))
    result, unmatched = np.empty_like(flat(image)), 0
    if alpha:
        result[..., -1] = flat(image)[..., -1]
    target = result[..., :x.shape[3]]
    for rows, lr_rows in correction.strips(operator, x.shape[1], x[0, 0].size * len(x)):
        made, missed = correction(part(x, rows), part(y, lr_rows), operator, most,
                                  getattr(torch, image.dtype.name, None))
        target[:, rows] = made.permute(0, 2, 3, 1).numpy()
        unmatched += missed
    return result.reshape(image.shape), unmatched


def _tensors(image, lr, operator, correction):
    integers = [torch.uint8] + [getattr(torch, 'uint16', None)] * hasattr(torch, 'uint16')
    allowed = (*integers, *FLOATS)
    _check_dtypes(image.dtype, lr.dtype, allowed, 'uint8, uint16 and floating point')
    for tensor, name in ((image, 'image'), (lr, 'lr')):
        if tensor.dim() < 3 or not tensor.numel():
            refuse(name, 'shape (..., C, H, W)', tuple(tensor.shape))
    if image.shape[:-3] != lr.shape[:-3]:
        raise ArgumentError(f'lr: expected the axes of the image {tuple(image.shape)}, got '
                            f'{tuple(lr.shape)}')
    floating = image.is_floating_point()
    most = None if floating else 255 if image.dtype == torch.uint8 else 65535
    x, y = (t.reshape(-1, *t.shape[-3:]) for t in (image, lr))
    alpha = x[:, -1:] if _check_channels(x.shape[1], y.shape[1]) else None
    x = x[:, :-1] if alpha is not None else x
    if operator == 'auto' and floating:
        _refuse_auto(image.dtype)
    wide = torch.float64 if not floating or torch.float64 in (x.dtype, y.dtype) else torch.float32
    operator, correction = _resolve(
        operator, correction, x.shape, y.shape, x.device,
        lambda: _pairs(*(t.permute(0, 2, 3, 1).cpu().numpy() for t in (x, y))))
    made, unmatched = correction(x.to(wide), y.to(x.device, wide), operator, most, image.dtype)
    made = made.to(image.dtype)
    if alpha is not None:
        made = torch.cat([made, alpha], 1)
    return made.reshape(image.shape), unmatched
