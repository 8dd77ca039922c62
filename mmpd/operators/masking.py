"""Known and unknown pixels (inpainting)."""
import torch

from ..utils.validation import refuse
from .base import LinearOperator
from .builder import OPERATORS

__all__ = ['Masking']


@OPERATORS.register_module()
class Masking(LinearOperator):
    """Multiplication by a mask of zeros and ones; A = Aᵀ = A†.

    A measurement that is not 0 outside the mask is out of A's range: what it
    holds there is ignored.  Constants do not stay constant: ``unit_range``.

    Args:
        mask (Tensor | Sequence): 1 where the pixel is known, (H, W), (1, H, W)
            or (C, H, W).

    Shape:
        Image and measurement (N, C, H, W) with the mask's H and W.

    Example:
        >>> import torch
        >>> from mmpd.operators import Masking
        >>> known, raw = Masking([[1, 0], [0, 1]]), torch.zeros(1, 1, 2, 2)
        >>> known.project(raw, torch.tensor([[[[5., 0.], [0., 7.]]]])).tolist()
        [[[[5.0, 0.0], [0.0, 7.0]]]]
    """
    scale = 1
    unit_range = True
    noise_gain = 1.0
    products = ()

    def __init__(self, mask):
        super().__init__()
        try:
            mask = torch.as_tensor(mask)
        except (TypeError, ValueError, RuntimeError):
            refuse('mask', 'a tensor or nested lists of zeros and ones', mask)
        if mask.dim() not in (2, 3) or mask.numel() == 0:
            raise ValueError('mask: expected shape (H, W) or (C, H, W), '
                             f'got {tuple(mask.shape)}')
        if not ((mask == 0) | (mask == 1)).all():
            raise ValueError('mask: expected zeros and ones only, got values in '
                             f'[{mask.min().item()}, {mask.max().item()}]')
        mask = mask.bool() if mask.dim() == 3 else mask.bool()[None]
        if not mask.any():
            raise ValueError('mask: expected at least one known pixel, got only zeros')
        self.register_buffer('mask', mask, persistent=False)

    def extra_repr(self):
        return f'mask={tuple(self.mask.shape)}, known={self.mask.float().mean().item():.3f}'

    def measurement_shape(self, shape):
        channels, *size = self.mask.shape
        if tuple(shape[1:]) != tuple(size) or channels not in (1, shape[0]):
            raise ValueError(f'image or measurement: expected (C, H, W) to fit the mask '
                             f'{tuple(self.mask.shape)}, got {tuple(shape)}')
        return tuple(shape)

    def image_shape(self, shape):
        return self.measurement_shape(shape)

    def _A(self, x):
        return x * self.mask.to(x.device, x.dtype)

    def _A_adjoint(self, y):
        return self._A(y)

    def _A_dagger(self, y):
        return self._A(y)
