"""PD on CUDA as one Triton kernel: each pixel is read once and written once.

Used by :func:`mmpd.operators.pooling_decomposition` where it can be; anything
else (no Triton, CPU, float64, channels-last memory, a scale that is no power of
two or above 64) takes the plain path.  Its arithmetic is tested in Triton's
interpreter; it has been run on no GPU so far.
"""
import functools
import importlib.util
import logging
from contextlib import nullcontext

import torch

__all__ = ['DTYPES', 'installed', 'project', 'usable']

# Pixels of a tile, which one program keeps in registers
TILE = 4096
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@functools.lru_cache(maxsize=1)
def _kernel():
    import triton
    import triton.language as tl

    @triton.jit
    def project(x_ptr, y_ptr, out_ptr, error_ptr, width, strength, S: tl.constexpr,
                COLUMNS: tl.constexpr, HAS_Y: tl.constexpr, STORE_ERROR: tl.constexpr):
        # one LR row of all planes times COLUMNS image columns
        row = tl.program_id(0).to(tl.int64)
        column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
        inside = (column < width)[None, :]
        place = (row * S + tl.arange(0, S)[:, None]) * width + column[None, :]
        x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
        patches = tl.reshape(tl.sum(x, axis=0), (COLUMNS // S, S))
        pooled = tl.sum(patches, axis=1) / (S * S)
        small = tl.program_id(1) * (COLUMNS // S) + tl.arange(0, COLUMNS // S)
        known = small < width // S
        small_place = row * (width // S) + small
        if HAS_Y:
            y = tl.load(y_ptr + small_place, mask=known, other=0.0).to(tl.float32)
            error = y - pooled
        else:
            error = -pooled
        if STORE_ERROR:
            tl.store(error_ptr + small_place, error, mask=known)
        wide = tl.broadcast_to((error * strength)[:, None], (COLUMNS // S, S))
        result = x + tl.reshape(wide, (COLUMNS, ))[None, :]
        tl.store(out_ptr + place, result.to(out_ptr.dtype.element_ty), mask=inside)

    return project


_failure = []  # why the kernel cannot be built here


@functools.lru_cache(maxsize=1)
def installed():
    """Whether Triton can be imported."""
    return importlib.util.find_spec('triton') is not None


def usable(x, y, scale):
    """Whether the kernel can take this image and measurement."""
    return (x.is_cuda and 2 <= scale <= 64 and scale & (scale - 1) == 0 and x.dtype in DTYPES
            and (y is None or (y.dtype in DTYPES and y.device == x.device))
            and x.is_contiguous() and installed() and not _failure)


def project(x, y, scale, strength, out, want_error=False):
    """out = x + strength · A†(y - A x); y = None stands for 0.

    Triton compiles the kernel when it is first launched, for which it needs a C
    compiler. Where that fails, the log says so once, and ``usable`` is False
    from then on.

    Args:
        x (Tensor): (N, C, H, W), contiguous, one of ``DTYPES``.
        y (Tensor | None): (N, C, H/s, W/s).
        scale (int): A power of two up to 64.
        strength (float): Weight of the correction.
        out (Tensor): Like x; may be x.
        want_error (bool): Also return y - A x, float32.

    Returns:
        tuple[bool, Tensor | None]: Whether it was done, and the error if wanted.
    """
    n, c, height, width = x.shape
    rows = n * c * height // scale
    columns = max(scale, min(TILE // scale, 1 << (width - 1).bit_length()))
    y = x if y is None else y.contiguous()
    error = (torch.empty(n, c, height // scale, width // scale, device=x.device)
             if want_error else out)
    try:
        with torch.cuda.device(x.device) if x.is_cuda else nullcontext():  # else: interpreted
            _kernel()[(rows, -(-width // columns))](
                x, y, out, error, width, float(strength), S=scale, COLUMNS=columns,
                HAS_Y=y is not x, STORE_ERROR=want_error)
    except Exception as reason:  # no compiler, another version of Triton, another GPU
        _failure.append(reason)
        logging.getLogger(__name__).warning(
            'Triton cannot build the kernel of the pooling-based decomposition, which runs in '
            'plain PyTorch instead: %s', reason)
        return False, None
    return True, error if want_error else None
