"""Which A made this LR? Every kernel, border and library, ranked by PSNR(A(HR), LR)."""
import math
from functools import partial

import numpy as np
import torch

from ..errors import ArgumentError
from ..operators.average_pooling import AveragePooling
from ..operators.kernels import BORDERS, KERNELS, taps
from ..operators.library_resize import LIBRARIES, LibraryResize
from ..operators.resize import SeparableResize, resize_matrix
from ..operators.resolve import infer_scale
from .candidate import CLEAR, TIE, Candidate

__all__ = ['absent_libraries', 'check_pair', 'errors_of', 'identify']

HALFWAY = 0.5 + 1e-6  # half up and half to even are both right
RIM = 2  # LR pixels from the edge to which the border rule of bicubic reaches
BAND = 32  # LR rows at once: far fewer zeros are multiplied than with the whole matrix


def absent_libraries():
    """Libraries that are not installed, whose resizings cannot be tried.

    Returns:
        dict[str, str]: Name -> why it cannot be imported.
    """
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        return {'opencv': str(error)}
    return {}


def _operators(scale):
    """(config, matrix arguments) of every A."""
    for kernel in KERNELS:
        for antialias in (True, False):
            offsets = taps(scale, kernel, antialias)[0]
            inside = offsets[0] >= 0 and offsets[-1] < scale
            for border in BORDERS[:1] if inside else BORDERS:  # it looks at none
                if (kernel, antialias) == ('box', True):
                    cfg = dict(type='AveragePooling', scale=scale)
                else:
                    cfg = dict(type='SeparableResize', scale=scale, kernel=kernel,
                               antialias=antialias, border=border)
                yield cfg, (scale, kernel, antialias, border)


def check_pair(lr, hr, name='pair'):
    """The scale of a pair.

    Args:
        lr, hr (ndarray): uint8, (h, w) or (h, w, c), and the same times the scale.
        name (str): For the message.

    Returns:
        int: At least 2.

    Raises:
        ArgumentError: Another type, other channels, or sizes that do not fit.
    """
    for which, image in (('LR', lr), ('HR', hr)):
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim not in (2, 3):
            what = f'{image.dtype} of shape {image.shape}' if isinstance(image, np.ndarray) \
                else type(image).__name__
            raise ArgumentError(f'{name}: expected {which} as a uint8 array (H, W) or (H, W, C), '
                                f'got {what}')
    if lr.shape[2:] != hr.shape[2:]:
        channels = (str(one.shape[2]) if one.ndim == 3 else 'grey' for one in (lr, hr))
        raise ArgumentError(f'{name}: expected LR and HR with the same channels, got '
                            f'{" and ".join(channels)}')
    if hr.shape[0] < lr.shape[0] and hr.shape[1] < lr.shape[1]:
        raise ArgumentError(f'{name}: expected an HR larger than the LR, got LR '
                            f'{lr.shape[1]}x{lr.shape[0]} and HR {hr.shape[1]}x{hr.shape[0]}: '
                            'are they swapped?')
    try:
        scale = infer_scale(hr.shape[:2], lr.shape[:2])
    except ValueError:
        scale = None
    if scale is None or scale < 2:
        raise ArgumentError(f'{name}: expected an HR whose sides are one multiple, 2 or more, of '
                            f'those of the LR, {lr.shape[1]}x{lr.shape[0]}, got '
                            f'{hr.shape[1]}x{hr.shape[0]}')
    return scale


def _degrade(planes, arguments):
    """A without rounding.

    Args:
        planes (Tensor): float64 (C, H, W).
        arguments (tuple): scale, kernel, antialias, border of :func:`resize_matrix`.

    Returns:
        Tensor: float64 (C, h, w).
    """
    for _ in range(2):  # height, then width
        matrix, parts = resize_matrix(planes.shape[1], *arguments), []
        for rows in matrix.split(BAND):
            used = rows.any(0).nonzero()
            band = slice(int(used[0]), int(used[-1]) + 1)
            parts.append(rows[:, band] @ planes[:, band])
        planes = torch.cat(parts, 1).transpose(1, 2).contiguous()
    return planes


def _planes(image):
    return torch.from_numpy(np.array(np.atleast_3d(image).transpose(2, 0, 1)))


def _count(candidate, measured, lr):
    error = measured.double() - lr
    candidate.squares.append(error.square().sum().item())
    candidate.values.append(error.numel())
    candidate.rims.append(candidate.squares[-1]
                          - error[:, RIM:-RIM, RIM:-RIM].square().sum().item())
    candidate.equal += int((error == 0).sum())


def identify(pairs, libraries=LIBRARIES, afterwards=None, recolour=False):
    """Rank every A that mmpd knows by how well it makes the LR from the HR.

    The 8-bit arithmetic of each library is that of the installed library, see
    :class:`mmpd.operators.library_resize.LibraryResize`; 'float' is A x rounded once, half up as
    well as half to even.  OpenCV's resizings are left out where it is not installed, see
    :func:`absent_libraries`.

    Args:
        pairs (Iterable[tuple[ndarray, ndarray]]): LR and HR (GT, or in want of it SR, whose own
            errors then add to those of A), uint8, (h, w[, c]) and (h s, w s[, c]) with one scale
            s >= 2 for all.
        libraries (Sequence[str]): Which to try.
        afterwards (Callable[[int, ndarray], ndarray], optional): What was done to the LR images
            after A, such as JPEG: number of the pair, uint8 image -> uint8 image.
        recolour (bool): The HR are some method's results, whose colours may be off: each A(HR) is
            compared after the contrast and the brightness, for each channel, that suit it best.
            Else a kernel that sharpens would seem to explain a contrast that is too low. Their own
            errors hide how A(HR) was rounded: libraries of a kernel are told apart from 0.5 dB on.

    Returns:
        list[Candidate]: The best first, by ``psnr``. Those of the same kernel that do as well as
        the best, within 0.1 dB, are in the order of how usual they are; a border rule counts as
        better if it is so by 0.1 dB in the outermost LR pixels.

    Raises:
        ValueError: No pairs, or one of another kind.

    Example:
        >>> import numpy as np
        >>> from PIL import Image
        >>> from mmpd.postprocess import identify
        >>> hr = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
        >>> lr = np.asarray(Image.fromarray(hr).resize((8, 8), Image.Resampling.BICUBIC))
        >>> best = identify([(lr, hr)])[0]
        >>> best.name, best.psnr
        ('bicubic (antialias), pil', inf)
    """
    scale, tried, absent = None, [], absent_libraries()
    for number, (lr, hr) in enumerate(pairs):
        found = check_pair(lr, hr, f'pair {number}')
        if scale is None:
            scale = found
            tried = _tried(scale, [name for name in libraries if name not in absent])
        elif found != scale:
            raise ArgumentError(f'pair {number}: expected the scale of the pairs before, {scale}, '
                                f'got {found}')
        _measure(lr, hr, tried, afterwards and partial(afterwards, number), recolour)
    if not tried:
        raise ArgumentError('pairs: expected at least one pair of LR and HR, got none')
    results = [candidate for _, _, made in tried for _, candidate in made]
    results.sort(key=lambda one: one.usual)
    results.sort(key=lambda one: -one.psnr)
    best = results[0]
    lead = CLEAR if recolour else TIE
    equals = [one for one in results if one.same_kernel(best) and one.psnr >= best.psnr - lead]
    borders = {border: min((sum(one.rims) for one in equals if one.border == border),
                           default=math.inf) for border in BORDERS}
    mirrored = borders['mirror'] < borders['library'] * 10**(-TIE / 10)
    equals.sort(key=lambda one: ((one.border == 'mirror') != mirrored, one.usual))
    return equals + [one for one in results if one not in equals]


def _tried(scale, libraries):
    """[(A's arguments, whether A x is needed, [(library or None, candidate)])]."""
    tried = []
    for cfg, arguments in _operators(scale):
        operator = (AveragePooling(scale) if cfg['type'] == 'AveragePooling'
                    else SeparableResize(*arguments))
        made = []
        for name in libraries:
            try:
                library = None if name == 'float' else LibraryResize(operator, name)
            except ValueError:  # it has no such resizing
                continue
            made.append((library, Candidate(cfg, name)))
        # MATLAB's is A x too, which need not be computed twice
        in_double = any(one.made_by in ('float', 'matlab') for _, one in made)
        tried.append((arguments, in_double, made))
    if not any(made for _, _, made in tried):
        raise ArgumentError(f'libraries: expected some of {", ".join(LIBRARIES)} that are '
                            f'installed, got {libraries}')
    return tried


def _recoloured(measured, target):
    """gain · measured + offset, per channel, nearest to the target (C, h, w)."""
    mean = target.mean((1, 2), keepdim=True)
    centred = measured - measured.mean((1, 2), keepdim=True)
    power = centred.square().sum((1, 2), keepdim=True)
    gain = (centred * (target - mean)).sum((1, 2), keepdim=True) / power.clamp(min=1e-9)
    # a contrast that has to be turned round says nothing of A
    return (gain.clamp(min=0) * centred + mean).clamp(0, 255)


def _measure(lr, hr, tried, afterwards=None, recolour=False):
    shape, lr, pixels = lr.shape, _planes(lr), _planes(hr)
    planes, target = pixels.double(), lr.double()
    for arguments, in_double, made in tried:
        if in_double:
            exact = _degrade(planes, arguments).clamp(0, 255)
        for library, candidate in made:
            if library is None:
                measured = exact.round()
                if afterwards is None:
                    measured = torch.where((exact - target).abs() <= HALFWAY, target, measured)
            elif candidate.made_by == 'matlab':
                measured = (exact + 0.5).floor()
            else:
                measured = library(pixels[None])[0]
            if afterwards is not None:
                image = measured.to(torch.uint8).permute(1, 2, 0).numpy().reshape(shape)
                measured = _planes(afterwards(np.ascontiguousarray(image)))
            if recolour and not torch.equal(measured.double(), target):
                measured = _recoloured(measured.double(), target)
            _count(candidate, measured, target)


def errors_of(candidate, pairs):
    """LR less A(HR), unrounded.

    Args:
        candidate (Candidate): Which A.
        pairs (Iterable[tuple[ndarray, ndarray]]): As for :func:`identify`.

    Yields:
        ndarray: float64, of the LR's shape.
    """
    kernel = 'box' if candidate.kernel == 'average_pooling' else candidate.kernel
    arguments = candidate.operator_cfg['scale'], kernel, candidate.antialias, candidate.border
    for lr, hr in pairs:
        measured = _degrade(_planes(hr).double(), arguments).clamp(0, 255)
        yield lr - measured.permute(1, 2, 0).numpy().reshape(lr.shape)
