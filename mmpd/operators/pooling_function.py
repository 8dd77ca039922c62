"""The pooling-based decomposition as a function that autograd can differentiate."""
import torch

from .base import compute_dtype, full_precision
from .pooling_pass import average_pool, fused_projection

__all__ = ['PoolingProjection']


class PoolingProjection(torch.autograd.Function):
    """``apply(x, y or None, scale, strength, check)``, see :func:`fused_projection`.

    The projection is self-adjoint, so backward is the same pass with y = 0.
    """

    @staticmethod
    def forward(ctx, x, y, scale, strength, check):
        ctx.scale, ctx.strength = scale, strength
        ctx.dtypes = x.dtype, None if y is None else y.dtype
        return fused_projection(x, y, scale, strength, check=check)

    @staticmethod
    def backward(ctx, grad):
        grad_x = grad_y = None
        if ctx.needs_input_grad[0]:
            with full_precision(grad.device.type):
                grad_x = PoolingProjection.apply(grad, None, ctx.scale, ctx.strength, False)
        if ctx.needs_input_grad[1]:
            wide = grad.to(compute_dtype(grad))
            grad_y = average_pool(wide, ctx.scale) * (ctx.strength * ctx.scale**2)
            grad_y = grad_y.to(ctx.dtypes[1])
        return grad_x, grad_y, None, None, None
