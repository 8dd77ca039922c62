"""chaiNNer's Average Color Fix."""
import math

import numpy as np
import torch

from ..utils.validation import check_number
from .common import as_pair, enlarge

__all__ = ['average_colour_fix']


def _area_matrix(size, small, like):
    """(small, size): each output is the mean of its share of the input, fractions included."""
    edges = np.linspace(0, size, small + 1)
    pixels = np.arange(size)
    overlap = (np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels))
    overlap = overlap.clip(0) * small / size
    return torch.from_numpy(overlap).to(like.device, like.dtype)


def _box(image, height, width):
    if tuple(image.shape[-2:]) == (height, width):
        return image
    rows, columns = (_area_matrix(size, small, image) for size, small in
                     zip(image.shape[-2:], (height, width), strict=True))
    return rows @ image @ columns.T


def average_colour_fix(sr, lr, operator=None, percent=12.5):
    """Add the difference of the two images, taken at a small size and enlarged bicubically.

    The LR is reduced to ``percent`` of its size (rounded up) by a box filter, the SR to the same
    size, and the difference is enlarged with a bicubic kernel.  12.5 % is chaiNNer's default; at
    100 % and for average pooling it is one step of :func:`iterative_back_projection`:
    x + ↑(y - A x).

    Written from the description of chaiNNer's node "Average Color Fix" ("Reference Image Scale
    Factor"); without its padding, which is off there by default.

    Args:
        sr (Tensor): (N, C, H, W), floating point, 0..255.
        lr (Tensor): (N, C, h, w), the same.
        operator: Not used; all comparators have the same arguments.
        percent (float): Size of the reference in percent of the LR, above 0 to 100.

    Returns:
        Tensor: (N, C, H, W), dtype of ``sr``, neither clipped nor rounded.

    Raises:
        ValueError: Sizes that do not fit, integer tensors, NaN or inf.

    Example:
        >>> import torch
        >>> from mmpd.postprocess import average_colour_fix
        >>> sr, lr = torch.full((1, 3, 16, 16), 120.), torch.full((1, 3, 4, 4), 100.)
        >>> average_colour_fix(sr, lr).round().unique().tolist()  # 20 too bright
        [100.0]
    """
    check_number(percent, 'percent', above=0, most=100)
    x, y = as_pair(sr, lr)
    small = [math.ceil(side * percent / 100) for side in y.shape[-2:]]
    difference = _box(y, *small) - _box(x, *small)
    return (x + enlarge(difference, x.shape[-2:])).to(sr.dtype)
