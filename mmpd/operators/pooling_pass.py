"""What average pooling computes: pool, replicate, and PD in one pass over the image."""
import torch

from . import triton_pooling
from .base import HALF, compute_dtype, full_dtype, run_check

__all__ = ['average_pool', 'fused_projection', 'replicate']

# Bytes that the temporaries of a block of the image may take: 2/s of the block.  Smaller
# blocks lose more to the start of each operation and to waiting for the other threads
# than they gain by staying in the cache (tools/benchmark/pd_head.py --blocks).
TEMPORARY_BYTES = 4 << 20


def average_pool(x, scale):
    """Mean of each ``scale`` x ``scale`` patch: (N, C, H, W) -> (N, C, H/s, W/s).

    Example:
        >>> import torch
        >>> from mmpd.operators import average_pool
        >>> average_pool(torch.arange(16.).view(1, 1, 4, 4), 2).tolist()
        [[[[2.5, 4.5], [10.5, 12.5]]]]
    """
    n, c, height, width = x.shape
    h, w = height // scale, width // scale
    # columns first: that sum runs over contiguous memory and is vectorised
    return x.reshape(n, c, h, scale, width).sum(3).view(n, c, h, w, scale).sum(4) / scale**2


def replicate(y, scale):
    """Copy each pixel into a ``scale`` x ``scale`` patch: (N, C, h, w) -> (N, C, h·s, w·s).

    Example:
        >>> import torch
        >>> from mmpd.operators import replicate
        >>> replicate(torch.tensor([[[[1., 2.]]]]), 2).tolist()
        [[[[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]]]
    """
    n, c, h, w = y.shape
    patches = y[:, :, :, None, :, None].expand(n, c, h, scale, w, scale)
    return patches.reshape(n, c, h * scale, w * scale)


def _rows(tensor):
    """View (N, C, H, W) as a contiguous (planes, H, W·inner) array, copying if it must."""
    n, c, height, width = tensor.shape
    if tensor.is_contiguous():
        return tensor.view(n * c, height, width), 1
    if tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor.permute(0, 2, 3, 1).view(n, height, width * c), c
    return tensor.contiguous().view(n * c, height, width), 1


def fused_projection(x, y, scale, strength, out=None, check=False):
    """x + strength · A†(y - A x), paper Eq. (9), in one pass over the image.

    Args:
        x (Tensor): (N, C, H, W), sides multiples of the scale; contiguous and channels-last
            memory is read as it is, anything else is copied.
        y (Tensor | None): (N, C, H/s, W/s); None stands for 0.
        scale (int): s.
        strength (float): Weight of the correction.
        out (Tensor, optional): Where to write, with the strides of ``x``; may be ``x``.
        check (bool | DeferredCheck): Raise on NaN and inf.

    Returns:
        Tensor: ``out``, or a new tensor like ``x``.
    """
    if not (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)):
        x = x.contiguous()
    wide = compute_dtype(x) if y is None else compute_dtype(x, y)
    result = torch.empty_like(x) if out is None else out
    if triton_pooling.usable(x, y, scale):
        done, error = triton_pooling.project(x, y, scale, strength, result,
                                             want_error=bool(check))
        if done:
            run_check(check, error, x, y)
            return result
    source, inner = _rows(x)
    target = _rows(result)[0]
    planes, height, row = source.shape
    source = source.view(planes * height // scale, scale, row)
    target = target.view(source.shape)
    if y is not None:
        y = y.to(wide)
        small = y.permute(0, 2, 3, 1) if inner > 1 else y
        small = small.reshape(len(source), row // scale)
    # sums as products with ones, which are faster, unless torch may shorten products
    products = full_dtype(wide, x.device.type, ('matmul', )) == wide
    ones = source.new_ones(scale, dtype=wide)
    mean = (ones / scale**2).view(1, 1, scale)
    size = row * ones.element_size() * (2 if x.dtype not in HALF else 2 * scale)
    step = max(1, TEMPORARY_BYTES // size)
    for start in range(0, len(source), step):
        block = source[start:start + step].to(wide)
        k = len(block)
        rows = (torch.bmm(mean.expand(k, 1, scale), block) if products
                else block.sum(1, keepdim=True).div_(scale**2))
        known = rows.new_zeros(k, row // scale) if y is None else small[start:start + step]
        if inner == 1 and products:  # one operation less
            error = torch.addmv(known.reshape(-1), rows.view(-1, scale), ones, alpha=-1)
        else:
            error = known - rows.view(k, -1, scale, inner).sum(2).view(k, -1)
        del rows  # not to be held beside the expanded error
        run_check(check, error, x, y)
        if strength != 1:
            error = error * strength
        error = error.view(k, -1, 1, inner).expand(-1, -1, scale, -1).reshape(k, 1, row)
        if x.dtype in HALF:
            target[start:start + step] = block.add_(error)
        else:
            torch.add(block, error, out=target[start:start + step])
    return result
