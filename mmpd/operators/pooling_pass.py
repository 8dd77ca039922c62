"""What average pooling computes: pool, replicate, and PD in one pass over the image.

On the CPU the pass takes as few parallel operations as it can: each waits for the slowest of its
threads, for milliseconds where another program has the core, which is longer than PD takes.
"""
import math
from functools import lru_cache

import numpy as np
import torch

from . import triton_pooling
from .base import HALF, compute_dtype, full_dtype, is_observed, no_autocast, run_check

__all__ = ['average_pool', 'fused_projection', 'replicate']

# Bytes that the temporaries of a block of the image may take: 2/s of the block.  Smaller
# blocks lose more to the start of each operation and to waiting for the other threads
# than they gain by staying in the cache (tools/benchmark/pd_head.py --blocks).
TEMPORARY_BYTES = 16 << 20
# Values of an image for which to start an operation takes longer than its work, and values and
# multiplications up to which two products of matrices, on one thread, pool in the least time.
SMALL = 1 << 14
PRODUCT_VALUES = 1 << 16
PRODUCTS = 1 << 18
PLAIN = (torch.Tensor, torch.nn.Parameter)


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
    if (_is_array(x) and (y is None or _is_array(y)) and (out is None or _is_array(out))
            and x.is_contiguous() and not is_observed()):
        wide = compute_dtype(x) if y is None else compute_dtype(x, y)
        if 2 * x.numel() * wide.itemsize <= scale * TEMPORARY_BYTES:
            return _at_once(x, y, wide, scale, strength, out, check)
    if out is x and check:  # before anything is overwritten
        wide = compute_dtype(x) if y is None else compute_dtype(x, y)
        mean = average_pool(x.to(wide), scale)
        run_check(check, -mean if y is None else y.to(wide) - mean, x, y)
        check = False
    if not (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)):
        x = x.contiguous()
    result = torch.empty_like(x) if out is None else out
    if type(x) in PLAIN and triton_pooling.usable(x, y, scale):
        done, error = triton_pooling.project(x, y, scale, strength, result,
                                             want_error=bool(check))
        if done:
            run_check(check, error, x, y)
            return result
    source, inner = _rows(x, scale)
    small = None
    if y is not None:
        y = y.to(compute_dtype(x, y))
        small = (y.permute(0, 2, 3, 1) if inner > 1 else y).reshape(len(source), -1)
    with no_autocast(x.device.type):
        _by_blocks(source, _rows(result, scale)[0], small, inner, strength,
                   lambda error: run_check(check, error, x, y))
    return result


def _rows(tensor, scale):
    """View (N, C, H, W) as (K, s, W·inner): K LR rows of all planes, inner channels side by side.
    """
    n, c, height, width = tensor.shape
    if tensor.is_contiguous():
        return tensor.view(n * c * height // scale, scale, width), 1
    return tensor.permute(0, 2, 3, 1).view(n * height // scale, scale, width * c), c


def _is_array(tensor):
    """Whether NumPy can take the memory of a tensor."""
    return type(tensor) in PLAIN and tensor.is_cpu and not tensor.is_neg()


@lru_cache(64)
def _weights(scale, dtype):
    """Of the values of a row of a patch, or of their sums over its columns, in -A x."""
    return np.full(scale, -1 / scale**2, dtype)


@lru_cache(16)
def _members(scale, width, dtype):
    """(s·w, w): which of the s rows of w patches, side by side, are of which patch."""
    return np.tile(np.eye(width, dtype=dtype), (scale, 1))


def _at_once(x, y, wide, scale, strength, out, check):
    """:func:`fused_projection` of a contiguous image on the CPU: two operations that read it.

    They are torch's where the image is large enough to be given threads.  What is between takes
    little time: NumPy's operations start faster, and wait for no other thread.
    """
    source = x if x.dtype == wide else x.to(wide)
    values, known = _array(source), None
    if y is not None:
        known = _array(y if y.dtype == wide else y.to(wide)).reshape(-1)
    error, finite = _error(values, known, scale)
    if not finite or check is not True:
        run_check(check, torch.from_numpy(error), x, y)
    if strength != 1:
        with np.errstate(invalid='ignore'):
            error *= strength
    width = x.shape[3]
    spread = error.repeat(scale).reshape(-1, 1, width)
    if finite and out is None and source is x and values.size <= SMALL:
        return torch.from_numpy((values.reshape(-1, scale, width) + spread).reshape(values.shape))
    rows, spread = source.view(-1, scale, width), torch.from_numpy(spread)
    if out is not None and out.dtype == wide:
        torch.add(rows, spread, out=out.view_as(rows))
        return out
    # not a view: what a Function of autograd returns as one must not be changed afterwards
    result = torch.add(rows, spread).resize_as_(x)
    if out is not None:
        return out.copy_(result)
    return result if x.dtype == wide else result.to(x.dtype)


def _array(tensor):
    return (tensor.detach() if tensor.requires_grad else tensor).numpy()


def _error(values, known, scale):
    """y - A x as an array of one axis, and whether it is finite.

    Args:
        values (ndarray): x, of four axes.
        known (ndarray | None): y, of one axis; None stands for 0.
        scale (int): s.
    """
    weights, width = _weights(scale, values.dtype), values.shape[3] // scale
    if (values.size <= PRODUCT_VALUES and values.size // scale * width <= PRODUCTS
            and _is_finite(values.reshape(-1))):
        rows = values.reshape(-1, scale).dot(weights).reshape(-1, scale * width)
        error = rows.dot(_members(scale, width, rows.dtype)).reshape(-1)
        if known is None:
            return error, True
        error += known
    else:
        sums = torch.from_numpy(values).view(-1, scale, values.shape[3]).sum(1).numpy()
        with np.errstate(all='ignore'):  # NaN and inf are for the check to find
            error = np.dot(sums.reshape(-1, scale), weights)
            if known is not None:
                error += known
    return error, _is_finite(error)


def _is_finite(array):
    """The quick way to ask of an array of one axis; says no to some large numbers, too."""
    return math.isfinite(np.vdot(array, array))  # of NumPy's products this one does not warn


def _by_blocks(source, target, small, inner, strength, look):
    """:func:`fused_projection` block by block in torch's operations: for any memory and device."""
    scale, row = source.shape[1:]
    wide = compute_dtype(source) if small is None else compute_dtype(source, small)
    half = source.dtype in HALF
    # sums as products with ones, which are faster, unless torch may shorten products
    products = full_dtype(wide, source.device.type, ('matmul', )) == wide
    ones = source.new_ones(scale, dtype=wide)
    mean = (ones / scale**2).view(1, 1, scale)
    step = max(1, TEMPORARY_BYTES // (row * ones.element_size() * (2 * scale if half else 2)))
    for start in range(0, len(source), step):
        block = source[start:start + step].to(wide)
        k = len(block)
        rows = (torch.bmm(mean.expand(k, 1, scale), block) if products
                else block.sum(1, keepdim=True).div_(scale**2))
        known = rows.new_zeros(k, row // scale) if small is None else small[start:start + step]
        if inner == 1 and products:  # one operation less
            error = torch.addmv(known.reshape(-1), rows.view(-1, scale), ones, alpha=-1)
        else:
            error = known - rows.view(k, -1, scale, inner).sum(2).view(k, -1)
        del rows  # not to be held beside the expanded error
        look(error)
        if strength != 1:
            error = error * strength
        error = error.view(k, -1, 1, inner).expand(-1, -1, scale, -1).reshape(k, 1, row)
        if half:
            target[start:start + step] = block.add_(error)
        else:
            torch.add(block, error, out=target[start:start + step])
