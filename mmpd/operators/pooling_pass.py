"""What average pooling computes: pool, replicate, and PD in one pass over the image.

On the CPU the pass takes as few parallel operations as it can: each waits for the slowest of its
threads, for milliseconds where another program has the core, which is longer than PD takes.
"""
import numpy as np
import torch

from . import triton_pooling
from .base import HALF, compute_dtype, full_dtype, is_observed, no_autocast, run_check

__all__ = ['average_pool', 'fused_projection', 'replicate']

# Bytes that the temporaries of a block of the image may take: 2/s of the block.  Smaller
# blocks lose more to the start of each operation and to waiting for the other threads
# than they gain by staying in the cache (tools/benchmark/pd_head.py --blocks).
TEMPORARY_BYTES = 4 << 20
GRAIN = 1 << 15  # of fewer numbers torch's elementwise operations and sums stay on one thread
ALONE = 1 << 18  # where there is one only: of fewer the start of each operation is what costs
STRIP_BYTES = 1 << 20  # of the image that NumPy takes at once: it stays in the cache
FEW_THREADS = 2  # so many do hardly more in torch's operations than one does by strips


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
    if out is None and is_small(x):
        return few_numbers(x, y, scale, strength, check)
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
    small = None
    if y is not None:
        y = y.to(compute_dtype(x, y))
        small = (y.permute(0, 2, 3, 1) if inner > 1 else y).reshape(len(source), row // scale)
    run = _by_strips if _has_strips(x, y, result) else _by_blocks
    with no_autocast(x.device.type):
        run(source, target, small, inner, strength,
            lambda error: run_check(check, error, x, y))
    return result


def is_small(x):
    """Whether :func:`few_numbers` is the fastest for an image."""
    most = ALONE if torch.get_num_threads() == 1 else GRAIN
    return x.numel() < most and x.device.type == 'cpu' and x.is_contiguous()


def few_numbers(x, y, scale, strength, check):
    """:func:`fused_projection` of a contiguous image: nothing but views, sums and elementwise work.

    These can be differentiated as they are, and run on one thread where they are short.
    """
    wide = compute_dtype(x) if y is None else compute_dtype(x, y)
    n, c, height, width = x.shape
    k, w = n * c * height // scale, width // scale
    rows = (x if x.dtype == wide else x.to(wide)).view(k, scale, width)
    error = rows.sum(1).view(k, w, scale).sum(2, keepdim=True)
    error = (error / -scale**2 if y is None else
             torch.sub(y.reshape(k, w, 1), error, alpha=1 / scale**2))
    run_check(check, error, x, y)
    if strength != 1:
        error = error * strength
    result = rows + error.expand(k, w, scale).reshape(k, 1, width)
    return result.view(x.shape).to(x.dtype)


def _has_strips(x, y, result):
    """Whether NumPy can take the image as it lies in memory, and the few threads would wait."""
    wide = compute_dtype(x) if y is None else compute_dtype(x, y)
    return (x.device.type == 'cpu' and x.dtype == wide and not is_observed()
            and 1 < torch.get_num_threads() <= FEW_THREADS
            # neither a tensor that stands for another one nor one that is negated when it is read
            and all(type(t) in (torch.Tensor, torch.nn.Parameter) and not t.is_neg()
                    for t in (x, result)))


def _by_strips(source, target, small, inner, strength, look):
    """Strip by strip on the calling thread: NumPy's operations have no others.

    Args:
        source (Tensor): (K, s, W·inner), K LR rows of all planes.
        target (Tensor): Likewise; may be ``source``.
        small (Tensor | None): y, (K, W/s·inner).
        inner (int): Channels that lie side by side.
        strength (float): Weight of the correction.
        look (Callable): Is shown y - A x of each strip.
    """
    scale, row = source.shape[1:]
    step = max(1, min(STRIP_BYTES // (scale * row * source.element_size()), GRAIN // row,
                      len(source)))
    sums = torch.empty(step, row, dtype=source.dtype).numpy()  # torch's memory, which is counted
    image, written = source.detach().numpy(), target.detach().numpy()
    known = None if small is None else small.detach().resolve_neg().numpy()
    weights = np.full(scale, 1 / scale**2, image.dtype)
    with np.errstate(all='ignore'):  # NaN and inf are for ``look`` to find
        for start in range(0, len(image), step):
            strip = image[start:start + step]
            rows = np.add.reduce(strip, 1, out=sums[:len(strip)])
            if inner == 1:
                error = rows.reshape(-1, scale) @ weights
            else:
                error = rows.reshape(-1, scale, inner).sum(1) / scale**2
            error = error.reshape(len(strip), -1, inner)
            if known is None:
                np.negative(error, out=error)
            else:
                np.subtract(known[start:start + step].reshape(error.shape), error, out=error)
            look(torch.from_numpy(error))
            if strength != 1:
                error *= strength
            rows[:] = np.repeat(error, scale, 1).reshape(rows.shape)
            np.add(strip, rows[:, None], out=written[start:start + step])


def _by_blocks(source, target, small, inner, strength, look):
    """:func:`_by_strips` in torch's operations, for every device and number of threads.

    One thread has nobody to wait for: they are faster than NumPy's there.
    """
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
