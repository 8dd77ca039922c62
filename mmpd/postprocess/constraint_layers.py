"""The constraint layers of Harder et al. for average pooling, as functions of an image.

P. Harder et al., "Hard-Constrained Deep Learning for Climate Downscaling", JMLR 24, 2023 (arXiv
2208.05424).  They are the last layer of a network that is trained with them; used on the result of
another network they show what each does to it.  For a patch x of the image, its mean m and the LR
pixel y, all four give a patch whose mean is y.
"""
import torch
import torch.nn.functional as F

from ..operators import average_pool, replicate, resolve_operator
from ..utils.validation import check_number
from .common import as_pair

__all__ = ['additive_constraint', 'multiplicative_constraint', 'scaled_additive_constraint',
           'softmax_constraint']


def _prepare(sr, lr, operator):
    """Image, LR and scale; ValueError unless A takes means of patches."""
    x, y = as_pair(sr, lr)
    operator = resolve_operator(operator, x.shape, y.shape, x.device)
    if not getattr(operator, 'patch_mean', False):
        raise ValueError('operator: the constraint layers are made for AveragePooling, got '
                         f'{type(operator).__name__}')
    operator.check_pair(x, y)
    return x, y, operator.scale


def _check_range(image, name, low, high):
    least, most = image.min().item(), image.max().item()
    if least < low or most > high:
        raise ValueError(f'{name}: expected values in [{low:g}, {high:g}], got '
                         f'[{least:g}, {most:g}]')


def additive_constraint(sr, lr, operator):
    """AddCL: x + (y - m).  It is PD with average pooling, paper Eq. (9).

    Args:
        sr (Tensor): (N, C, H, W), floating point, 0..255.
        lr (Tensor): (N, C, h, w), the same.
        operator (AveragePooling | dict): A.

    Returns:
        Tensor: (N, C, H, W), dtype of ``sr``; it may leave the range.

    Raises:
        ValueError: Another operator, sizes that do not fit, integer tensors, NaN or inf.
    """
    x, y, scale = _prepare(sr, lr, operator)
    return (x + replicate(y - average_pool(x, scale), scale)).to(sr.dtype)


def multiplicative_constraint(sr, lr, operator):
    """MultCL: x · y / m, for images that are nowhere negative.

    Where m is 0 the ratio is not defined; such a patch becomes y.

    Args:
        sr (Tensor): (N, C, H, W), floating point, at least 0, 0..255.
        lr (Tensor): (N, C, h, w), the same.
        operator (AveragePooling | dict): A.

    Returns:
        Tensor: (N, C, H, W), dtype of ``sr``; at least 0, it may exceed 255.

    Raises:
        ValueError: Negative values, another operator, sizes that do not fit, integer tensors,
            NaN or inf.
    """
    x, y, scale = _prepare(sr, lr, operator)
    _check_range(x, 'sr', 0, torch.inf)
    _check_range(y, 'lr', 0, torch.inf)
    mean = average_pool(x, scale)
    empty = mean == 0
    ratio = y / mean.masked_fill(empty, 1)
    return (x * replicate(ratio, scale) + replicate(y * empty, scale)).to(sr.dtype)


def scaled_additive_constraint(sr, lr, operator, bounds=(0, 255)):
    """ScAddCL: move every pixel towards the bound, in proportion to its distance from it.

    x + (y - m) (b - x) / (b - m), where b is the upper bound if the patch has to become brighter
    and the lower one if darker: the patch is contracted towards b, so that it stays in the range.
    This is the operator of A. Geiss and J. C. Hardin, "Strict Enforcement of Conservation Laws and
    Invertibility in CNN-Based Super Resolution for Scientific Datasets" (arXiv 2011.05586), who
    write it with σ = sign(m - y) for the range [-1, 1].  Unlike a projection it changes contrast.

    Args:
        sr (Tensor): (N, C, H, W), floating point, within the bounds, as after a bounded last layer.
        lr (Tensor): (N, C, h, w), the same.
        operator (AveragePooling | dict): A.
        bounds (tuple[float, float]): The range.

    Returns:
        Tensor: (N, C, H, W), dtype of ``sr``, within the bounds.

    Raises:
        ValueError: Values beyond the bounds, another operator, sizes that do not fit, integer
            tensors, NaN or inf.
    """
    low, high = (check_number(bound, 'bounds') for bound in bounds)
    if low >= high:
        raise ValueError(f'bounds: expected the lower one first, got {tuple(bounds)}')
    x, y, scale = _prepare(sr, lr, operator)
    _check_range(x, 'sr', low, high)
    _check_range(y, 'lr', low, high)
    mean = average_pool(x, scale)
    bound = torch.where(y > mean, high, low).to(x)
    room = bound - mean
    # 0 only where the patch is at the bound already, and then it is not moved
    weight = (y - mean) / room.masked_fill(room == 0, 1)
    moved = x + replicate(weight, scale) * (replicate(bound, scale) - x)
    return moved.clamp(low, high).to(sr.dtype)


def softmax_constraint(sr, lr, operator, factor=1.0):
    """SmCL: y · exp(f x) / mean of exp(f x), x taken on the [0, 1] scale.

    The network is to learn what goes into the exponential.  The pixels of an image, used in its
    place, lose contrast where the LR is dark: that figure says nothing about training with it.

    Args:
        sr (Tensor): (N, C, H, W), floating point, 0..255.
        lr (Tensor): (N, C, h, w), the same, at least 0.
        operator (AveragePooling | dict): A.
        factor (float): f, the inverse temperature.

    Returns:
        Tensor: (N, C, H, W), dtype of ``sr``; at least 0, it may exceed 255.

    Raises:
        ValueError: A negative LR, another operator, sizes that do not fit, integer tensors, NaN
            or inf.
    """
    check_number(factor, 'factor', above=0)
    x, y, scale = _prepare(sr, lr, operator)
    _check_range(y, 'lr', 0, torch.inf)
    # less the largest of the patch, so that nothing overflows
    largest = F.max_pool2d(x, scale)
    power = torch.exp((x - replicate(largest, scale)) * (factor / 255))
    return (power * replicate(y / average_pool(power, scale), scale)).to(sr.dtype)
