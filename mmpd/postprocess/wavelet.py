"""The wavelet colour fix of StableSR's users."""
import torch.nn.functional as F

from ..operators.base import check_positive_int
from .common import as_pair, enlarge

__all__ = ['wavelet']

MOST_LEVELS = 10


def _smooth(image, step):
    """One level à trous: (1, 2, 1) / 4 with holes of ``step`` along both axes."""
    padded = F.pad(image, (step, ) * 4, mode='replicate')
    rows = (padded[..., :-2 * step] + padded[..., 2 * step:]) / 4 + padded[..., step:-step] / 2
    return ((rows[..., :-2 * step, :] + rows[..., 2 * step:, :]) / 4
            + rows[..., step:-step, :] / 2)


def wavelet(sr, lr, operator=None, levels=5):
    """Replace the low-pass of the SR by that of the LR, enlarged bicubically.

    The low-pass is the à-trous (undecimated) B-spline one: ``levels`` times a kernel
    (1, 2, 1) / 4 in both directions, its taps 1, 2, 4 … pixels apart, borders replicated.  As it
    is linear, x̂ = x + low(z - x) for the enlarged LR z.  Five levels reach 31 pixels; details of
    the LR between that and the LR's pixels are not repaired, and the low-pass is not A.

    The fix came with the WebUI port of StableSR (arXiv 2305.07015), whose README documents it;
    chaiNNer and others took it over.

    Args:
        sr (Tensor): (N, C, H, W), floating point, 0..255.
        lr (Tensor): (N, C, h, w), the same.
        operator: Not used; all comparators have the same arguments.
        levels (int): Number of levels, 1 to 10.

    Returns:
        Tensor: (N, C, H, W), dtype of ``sr``, neither clipped nor rounded.

    Raises:
        ValueError: Sizes that do not fit, integer tensors, NaN or inf.
    """
    check_positive_int(levels, 'levels', most=MOST_LEVELS)
    x, y = as_pair(sr, lr)
    low = enlarge(y, x.shape[-2:]) - x
    for level in range(levels):
        low = _smooth(low, 2**level)
    return (x + low).to(sr.dtype)
