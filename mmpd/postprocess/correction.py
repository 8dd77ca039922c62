"""The exact colour fix of one strip of an image: integers that degrade to the LR, or floats."""
from dataclasses import dataclass
from typing import Any

import torch

from ..operators import SeparableResize, replace_range
from ..operators.decomposition import apply
from ..operators.library_resize import LibraryResize, check_library
from ..operators.quantize import consistent_integers, unmatched_values
from ..utils.validation import (
    ArgumentError,
    check_bounds,
    check_choice,
    check_noise_std,
    check_positive_int,
    check_strength,
    optional,
    refuse,
)

__all__ = ['NAMES', 'Correction', 'likeliest_library', 'named_operator', 'row_strips']

NAMES = ('average_pooling', 'bicubic', 'bilinear', 'lanczos', 'box')
VALUES = 1 << 21  # of an image that are worked on at once, where A lets its rows be separated
CLOSE = 1e-5  # of the largest |y|: floats that A gives back but for rounding


def named_operator(name, antialias=True, border='library', scale=None):
    """The config of an operator by its short name, one of NAMES."""
    check_choice(name, 'operator', NAMES)
    if name == 'average_pooling':
        return dict(type='AveragePooling', scale=scale)
    return dict(type='SeparableResize', scale=scale, kernel=name, antialias=antialias,
                border=border)


def likeliest_library(operator, most=255):
    """By what most LR files of that kind were made, see :class:`LibraryResize`.

    Args:
        operator (object): A.
        most (int | None): Largest integer, None for floating point.

    Returns:
        str: 'float' (one rounding) for average pooling, what is no resizing, and of 16 bits for
        the kernels that PIL has for 8 bits only.
    """
    if not isinstance(operator, SeparableResize) or most is None:
        return 'float'
    if not operator.antialias:
        plain = operator.kernel == 'box' or operator.border == 'mirror'
        return 'float' if plain else 'opencv'
    if operator.border == 'mirror':
        return 'matlab'
    return 'pil' if most <= 255 else 'float'


def row_strips(operator, height, values_per_row):
    """Rows of an image that can be made consistent apart from the others.

    Where each LR value is the mean of its own patch (average pooling, box) the strips are
    independent; every other A ties each row to its neighbours: one strip, the whole image.

    Returns:
        list[tuple[slice, slice]]: Rows of the image and of the LR.
    """
    if not getattr(operator, 'patch_mean', False):
        return [(slice(None), slice(None))]
    scale = operator.scale
    step = max(1, VALUES // (values_per_row * scale))
    return [(slice(top * scale, (top + step) * scale), slice(top, top + step))
            for top in range(0, height // scale, step)]


@dataclass(frozen=True)
class Correction:
    """How images are made consistent; checked when it is made.

    Attributes:
        strength (float): Weight of the correction, in [0, 1].
        noise_std (float | None): Of the LR, in its own units: the weight that is best for it.
        bounds (tuple[float, float] | None): Of the values of the result; by default what integers
            can hold, and none for floating point.
        made_by (str | None): Library that made the LR, see :class:`LibraryResize`; None for the
            likeliest.
        max_iterations (int): Bound of the search for integers.

    Raises:
        ArgumentError: for what cannot be.
    """
    strength: float = 1.0
    noise_std: Any = None
    bounds: Any = None
    made_by: str | None = None
    max_iterations: int = 100

    def __post_init__(self):
        check_strength(self.strength)
        check_noise_std(self.noise_std, self.strength)
        check_positive_int(self.max_iterations, 'max_iterations', least=0)
        optional(check_library, self.made_by)
        object.__setattr__(self, 'bounds', check_bounds(self.bounds))

    @property
    def exact(self):
        """Whether A of the result is to be the LR."""
        return self.strength == 1 and not self.noise_std

    def limits(self, most):
        """Bounds of integers up to ``most``.

        Raises:
            ArgumentError: Bounds that are no integers or beyond.
        """
        if self.bounds is None:
            return 0, most
        low, high = self.bounds
        if low < 0 or high > most or low != int(low) or high != int(high):
            refuse('bounds', f'two integers in 0..{most}', self.bounds)
        return int(low), int(high)

    def strips(self, operator, height, values_per_row):
        """:func:`row_strips`; one with ``noise_std``, whose weight all of the image decides."""
        if self.noise_std:
            return [(slice(None), slice(None))]
        return row_strips(operator, height, values_per_row)

    def library(self, operator, most):
        """The library whose rounding counts: ``made_by``, or the likeliest one.

        Raises:
            ValueError: One that has no such resizing.
        """
        if most is None:
            if self.made_by not in (None, 'float'):
                raise ArgumentError(f'made_by: {self.made_by!r} is about the rounding of '
                                    'integers; these are floating point numbers')
            return 'float'
        made_by = self.made_by or likeliest_library(operator, most)
        if made_by != 'float':
            LibraryResize(operator, made_by, most)
        return made_by

    def __call__(self, x, y, operator, most, dtype=None):
        """Correct an image, or a strip of :func:`row_strips`.

        Args:
            x (Tensor): (N, C, H, W), floating point; integers in it for an integer image.
            y (Tensor): (N, c, h, w), likewise.
            operator (object): A for this size.
            most (int | None): Largest integer; None for floating point.
            dtype (torch.dtype, optional): Of a floating point result. Defaults to that of ``x``.

        Returns:
            tuple[Tensor, int]: uint8, int32 (16 bits) or floating point; how many LR values A of
            it does not give back (integers: by that library; floating point: to 1e-5 of the
            largest, or what the dtype resolves).

        Raises:
            ValueError: as :func:`consistent_integers` and :func:`replace_range`.
        """
        options = {name: value for name, value in (
            ('noise_std', self.noise_std), ('bounds', self.bounds)) if value is not None}
        if most is None:
            self.library(operator, most)
            result = replace_range(x, y, operator, self.strength, **options).to(dtype or x.dtype)
            if not torch.isfinite(result).all():
                raise ArgumentError(f'image: the result goes beyond what {result.dtype} holds, '
                                    f'{torch.finfo(result.dtype).max:g}; expected a wider type')
            y = y.detach()
            error = (apply(operator, 'A', result.detach().to(y.dtype)) - y).abs()
            close = max(CLOSE, torch.finfo(result.dtype).eps) * y.abs().max()
            return result, int((error > close).sum())
        made_by, limits = self.library(operator, most), self.limits(most)
        if self.exact:
            x = replace_range(x, y, operator)
            return consistent_integers(x, y, operator, most, limits, self.max_iterations, True,
                                       made_by)
        x = replace_range(x, y, operator, self.strength, **options)
        result = x.clamp(*limits).round().to(torch.uint8 if most <= 255 else torch.int32)
        return result, unmatched_values(result, y, operator, most, made_by)
