"""The pooling-based decomposition as functions that autograd and torch.func can differentiate."""
import inspect

import torch

from .base import is_differentiated, is_observed
from .pooling_pass import average_pool, fused_projection

__all__ = ['differentiable_projection']


def differentiable_projection(x, y, scale, strength, check):
    """:func:`fused_projection` with its derivatives of first and higher orders."""
    function = PoolingProjection if is_observed() else PlainPoolingProjection
    return function.apply(x, y, scale, strength, check)


class PoolingProjection(torch.autograd.Function):
    """``apply(x, y or None, scale, strength, check)``, see :func:`fused_projection`.

    The projection is self-adjoint, so backward is the same pass with y = 0,
    and linear, so the forward derivative is the same pass of the tangents.
    """

    @staticmethod
    def forward(x, y, scale, strength, check):
        return fused_projection(x, y, scale, strength, check=check)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, y, ctx.scale, ctx.strength, _ = inputs
        ctx.dtypes = x.dtype, None if y is None else y.dtype

    @staticmethod
    def backward(ctx, grad):
        grad_x = grad_y = None
        if ctx.needs_input_grad[0]:
            again = differentiable_projection if is_differentiated(grad) else fused_projection
            grad_x = again(grad, None, ctx.scale, ctx.strength, check=False)
        if ctx.needs_input_grad[1]:
            wide = grad.to(torch.float64 if torch.float64 in ctx.dtypes else torch.float32)
            grad_y = average_pool(wide, ctx.scale) * (ctx.strength * ctx.scale**2)
            grad_y = grad_y.to(ctx.dtypes[1])
        return grad_x, grad_y, None, None, None

    @staticmethod
    def jvp(ctx, x, y, *_):
        # torch makes zeros of the tangents that are not there
        return differentiable_projection(x, y, ctx.scale, ctx.strength, False)

    @staticmethod
    def vmap(info, in_dims, x, y, scale, strength, check):
        """The dimension of vmap becomes part of the batch."""
        x, y = (None if tensor is None else
                (tensor.expand(info.batch_size, *tensor.shape) if dim is None else
                 tensor.movedim(dim, 0)).flatten(0, 1)
                for tensor, dim in zip((x, y), in_dims, strict=False))
        result = PoolingProjection.apply(x, y, scale, strength, check)
        return result.unflatten(0, (info.batch_size, -1)), 0


# torch asks for it with every call, and finds it out anew unless it is written down: 50 us
PoolingProjection.forward.__signature__ = inspect.signature(PoolingProjection.forward)


class PlainPoolingProjection(torch.autograd.Function):
    """The same where no torch.func is at work, whose preparations take as long as a small image."""

    @staticmethod
    def forward(ctx, x, y, scale, strength, check):
        PoolingProjection.setup_context(ctx, (x, y, scale, strength, check), None)
        return fused_projection(x, y, scale, strength, check=check)

    backward = PoolingProjection.backward
    jvp = PoolingProjection.jvp
