"""The kernel that made an LR, whatever it was: least squares, weight by weight.

An LR value is taken for b + Σ k[i, j] HR[i, j] over a window around it.  The weights k are free:
they need not be separable, positive, centred or of sum 1, so that a shift, a camera's blur or a
change of brightness shows in them.
"""
import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from ..errors import ArgumentError
from ..operators.kernels import taps
from .candidate import psnr
from .identify import check_pair

__all__ = ['FittedKernel', 'fit_kernel', 'named_kernel']

REACHES = (1.5, 1, 0.5, 0)  # LR pixels beside the own one: bicubic with antialias fits in the first
FLAT = 1e-6  # gain of a kernel that is nothing but rounding
FINE = 8  # HR pixels in the middle that have a weight each, whatever the scale
WIDEST = 32  # HR pixels across for which all have
WORK = 6e10  # multiplications: some seconds
RIDGES = 10. ** np.arange(-12, 0.5)
CHUNK = 1 << 22  # pixels of windows at once


@dataclass
class FittedKernel:
    """A kernel fitted to LR images.

    Attributes:
        kernel (ndarray): float64 (n, n), the weight of each HR pixel.
        start (int): LR pixel i looks at rows (and columns) from i * scale + start.
        scale (int): HR pixels per LR pixel.
        brightness (float): b, grey levels that are added.
        noise_std (float): Standard deviation of LR minus fit, on LR values that were not fitted.
        values (int): How many LR values were fitted.

    Example:
        >>> import numpy as np
        >>> from mmpd.postprocess import FittedKernel
        >>> fitted = FittedKernel(np.full((2, 2), 0.25), start=0, scale=2, brightness=3.,
        ...                       noise_std=2.55, values=1000)
        >>> fitted.shift, round(fitted.psnr, 2)
        ((0.0, 0.0), 40.0)
    """
    kernel: np.ndarray
    start: int
    scale: int
    brightness: float
    noise_std: float
    values: int

    @property
    def psnr(self):
        """dB of the fit, without rounding, against LR values that were not fitted."""
        return psnr(self.noise_std**2)

    @property
    def gain(self):
        """Sum of the weights: the contrast, 1 for every downsampling."""
        return self.kernel.sum()

    @property
    def flat(self):
        """Whether it has no weights: LR or HR had no detail."""
        return abs(self.gain) < FLAT

    @property
    def shift(self):
        """Centre of mass less the centre of the LR pixel, (down, right) in HR pixels; NaN if
        :attr:`flat`."""
        if self.flat:
            return math.nan, math.nan
        places = np.arange(len(self.kernel)) + self.start - (self.scale - 1) / 2
        return tuple(float(places @ self.kernel.sum(axis) / self.gain) for axis in (1, 0))

    @property
    def width(self):
        """Full width at half maximum (vertical, horizontal) of its profiles, in HR pixels."""
        return tuple(_half_width(self.kernel.sum(axis)) for axis in (1, 0))


def _half_width(profile):
    """Where a profile crosses half of its maximum, interpolated linearly, on either side."""
    half, top = profile.max() / 2, int(profile.argmax())
    ends = []
    for side in (profile[top:], profile[top::-1]):
        below = np.flatnonzero(side < half)
        if not len(below):
            ends.append(len(side) - 0.5)
            continue
        end = below[0]
        ends.append(end - 1 + (side[end - 1] - half) / (side[end - 1] - side[end]))
    return float(sum(ends))


def named_kernel(candidate, fitted):
    """The weights of a candidate's A in the window of a fitted kernel, sum 1.

    Args:
        candidate (Candidate): Of :func:`identify`, with the scale of the fit.
        fitted (FittedKernel): For the window.

    Returns:
        ndarray: float64, like ``fitted.kernel``; what lies beyond the window is left out.
    """
    kernel = 'box' if candidate.kernel == 'average_pooling' else candidate.kernel
    offsets, weights = taps(fitted.scale, kernel, candidate.antialias)
    profile = np.zeros(len(fitted.kernel))
    places = offsets - fitted.start
    inside = (places >= 0) & (places < len(profile))
    profile[places[inside]] = (weights / weights.sum())[inside]
    return np.outer(profile, profile)


def _window(scale, reach):
    """First offset and width; centred on the LR pixel."""
    side = int(np.ceil(reach * scale))
    return -side, scale + 2 * side


def _cells(width):
    """First pixels of the cells along one axis: pixels with one weight in common.

    For large scales the cells grow outwards, or there would be more weights than can be found.
    """
    size = -(-width // WIDEST)
    if size == 1:
        return np.arange(width)
    middle = (width - FINE) // 2
    low = middle - middle % size
    high = middle + FINE + (low - middle - FINE) % size
    return np.array([*range(0, low, size), *range(low, high), *range(high, width, size)])


def _positions(shape, scale, start, width):
    """Ranges of LR rows and columns whose windows lie inside the image."""
    ranges = []
    for size in shape[:2]:
        first = -(start // scale)
        last = (size * scale - width - start) // scale
        ranges.append(range(first, max(first, last + 1)))
    return ranges


def _equations(lr, hr, count, start, cells, width, scale, generator):
    """Random ones from one pair, in chunks: the cells' values (m, c²), LR values (m), less 128."""
    down, right = _positions(lr.shape, scale, start, width)
    lr, hr = np.atleast_3d(lr), np.atleast_3d(hr)
    places = len(down), len(right), lr.shape[2]
    chosen = generator.permutation(int(np.prod(places)))[:count]
    steps, chunk = np.arange(width) + start, max(1, CHUNK // width**2)
    for first in range(0, len(chosen), chunk):
        i, j, channel = np.unravel_index(chosen[first:first + chunk], places)
        i, j = i + down.start, j + right.start
        target = lr[i, j, channel]
        linear = (target > 0) & (target < 255)  # others may have been clipped
        i, j, channel, target = i[linear], j[linear], channel[linear], target[linear]
        rows, columns = i[:, None] * scale + steps, j[:, None] * scale + steps
        windows = hr[rows[:, :, None], columns[:, None, :], channel[:, None, None]]
        windows = windows - np.float64(128)
        if len(cells) < width:
            windows = np.add.reduceat(np.add.reduceat(windows, cells, 1), cells, 2)
        yield windows.reshape(len(target), len(cells)**2), target - np.float64(128)


def _plan(shapes, scale):
    """Start and width of the window and LR values available, or None if there are too few."""
    for reach in REACHES:
        start, width = _window(scale, reach)
        available = sum(len(rows) * len(columns) * channels for rows, columns, channels in (
            (*_positions(shape, scale, start, width), (*shape, 1)[2]) for shape in shapes))
        if available >= 3 * len(_cells(width))**2:
            return start, width, available
    return None


def fit_kernel(pairs, seed=0):
    """Fit a free kernel to pairs of LR and HR by least squares.

    Closed form in float64.  Four of five LR values of a random sample are fitted, the fifth ones
    measure the fit and choose its ridge, a slight pull of weights to 0 that only those feel about
    which the pictures say nothing.  LR values of 0 and 255, which may have been clipped, are left
    out.

    Args:
        pairs (Sequence[tuple[ndarray, ndarray]] | Iterable): As for :func:`identify`. A sequence is
            gone through twice.
        seed (int): Of the sample.

    Returns:
        FittedKernel | None: None if the LR images have too few pixels for any window.

    Raises:
        ValueError: As :func:`identify`.

    Example:
        >>> import numpy as np
        >>> from mmpd.postprocess import fit_kernel
        >>> hr = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
        >>> lr = hr.reshape(32, 2, 32, 2).mean((1, 3)).round().astype(np.uint8)
        >>> fitted = fit_kernel([(lr, hr)])
        >>> middle = -fitted.start
        >>> np.allclose(fitted.kernel[middle:middle + 2, middle:middle + 2], 1 / 4, atol=0.01)
        True
    """
    pairs = pairs if isinstance(pairs, Sequence) else list(pairs)
    if not pairs:
        raise ArgumentError('pairs: expected at least one pair of LR and HR, got none')
    shapes, scale = [], None
    for number, (lr, hr) in enumerate(pairs):
        found = check_pair(lr, hr, f'pair {number}')
        if scale not in (None, found):
            raise ArgumentError(f'pair {number}: expected the scale of the pairs before, {scale}, '
                                f'got {found}')
        shapes.append(lr.shape)
        scale = found
    plan = _plan(shapes, scale)
    if plan is None:
        return None
    start, width, available = plan
    cells = _cells(width)
    number = len(cells)**2
    wanted = min(available, max(8 * number, int(WORK / (2 * number**2))))
    generator = np.random.default_rng(seed)
    fitted, held = _Moments(number), _Moments(number)
    for lr, hr in pairs:
        down, right = _positions(lr.shape, scale, start, width)
        have = len(down) * len(right) * (lr.shape[2] if lr.ndim == 3 else 1)
        count = -(-wanted * have // available)
        for values, target in _equations(lr, hr, count, start, cells, width, scale, generator):
            test = generator.random(len(target)) < 0.2
            fitted.add(values[~test], target[~test])
            held.add(values[test], target[test])
    if not held.count or fitted.count < number:
        return None
    return _solve(fitted, held, cells, start, width, scale)


class _Moments:
    """Sums of equations, all that least squares needs to know of them."""

    def __init__(self, number):
        self.count, self.square = 0, 0.
        self.total, self.products = np.zeros(number + 1), np.zeros((number + 1,) * 2)

    def add(self, values, target):
        both = np.concatenate([values, target[:, None]], 1)
        self.count += len(both)
        self.total += both.sum(0)
        self.products += both.T @ both

    def about(self, mean):
        """Products of deviations from ``mean``."""
        cross = np.outer(self.total, mean)
        return self.products - cross - cross.T + self.count * np.outer(mean, mean)


def _solve(fitted, held, cells, start, width, scale):
    mean = fitted.total / fitted.count
    products, tests = fitted.about(mean), held.about(mean) / held.count
    # a weight stands for as many pixels as its cell has: ridge in units of pixels
    sizes = np.diff([*cells, width])
    area = np.sqrt(np.outer(sizes, sizes).ravel())
    gram, right = products[:-1, :-1] / np.outer(area, area), products[:-1, -1] / area
    values, vectors = np.linalg.eigh(gram)
    values, projected = np.abs(values), vectors.T @ right  # below 0 by rounding alone
    ridges = RIDGES * max(values.max(), 1e-12)
    solutions = [vectors @ (projected / (values + ridge)) / area for ridge in ridges]
    residuals = [np.append(-weights, 1) for weights in solutions]
    squares = [max(residual @ tests @ residual, 0) for residual in residuals]
    mse, weights = min(zip(squares, solutions, strict=True), key=itemgetter(0))
    brightness = mean[-1] - weights @ mean[:-1] + 128 * (1 - (weights * area**2).sum())
    kernel = weights.reshape(len(cells), len(cells)).repeat(sizes, 0).repeat(sizes, 1)
    return FittedKernel(kernel, start, scale, float(brightness), float(np.sqrt(mse)), fitted.count)
