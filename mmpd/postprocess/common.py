"""What the comparators share: checks of their arguments, enlargement."""
import torch
import torch.nn.functional as F

from ..operators.base import check_batch, compute_dtype
from ..operators.decomposition import apply
from ..operators.resolve import infer_scale

__all__ = ['ENLARGEMENTS', 'as_pair', 'enlarge', 'residual']

ENLARGEMENTS = ('bicubic', 'bilinear', 'nearest')


def as_pair(sr, lr):
    """Both images in the dtype to compute in.

    Args:
        sr (Tensor): (N, C, H, W), floating point.
        lr (Tensor): (N, C, h, w), floating point, H / h = W / w an integer.

    Returns:
        tuple[Tensor, Tensor]: float64 if either is, else float32.

    Raises:
        ValueError: Tensors that are no batches, sizes that do not fit, NaN or inf.
    """
    check_batch(sr, 'sr')
    check_batch(lr, 'lr')
    if sr.shape[:2] != lr.shape[:2]:
        raise ValueError(f'lr: expected {len(sr)} images of {sr.shape[1]} channels, as sr has, got '
                         f'shape {tuple(lr.shape)}')
    infer_scale(sr.shape, lr.shape)
    for tensor, name in ((sr, 'sr'), (lr, 'lr')):
        if not torch.isfinite(tensor).all():
            raise ValueError(f'{name}: expected finite values, got NaN or inf')
    wide = compute_dtype(sr, lr)
    return sr.to(wide), lr.to(wide)


def enlarge(image, size, kernel='bicubic'):
    """An image at a larger size, pixel centres aligned, the border replicated.

    Args:
        image (Tensor): (N, C, h, w).
        size (Sequence[int]): (H, W).
        kernel (str): One of ENLARGEMENTS; bicubic has a = -0.75 (torch, OpenCV).

    Returns:
        Tensor: (N, C, H, W).
    """
    smooth = {} if kernel == 'nearest' else dict(align_corners=False)
    return F.interpolate(image, size=tuple(size), mode=kernel, **smooth)


def residual(x, y, operator):
    """y - A x, with mmpd's or a foreign operator; ValueError if the shapes do not fit."""
    measured = apply(operator, 'A', x)
    if measured.shape != y.shape:
        raise ValueError(f'lr: expected shape {tuple(measured.shape)} for an image of shape '
                         f'{tuple(x.shape)} and {type(operator).__name__}, got {tuple(y.shape)}')
    return y - measured
