"""PD on CUDA as one Triton kernel: each pixel is read once and written once.

Used by :func:`mmpd.operators.pooling_decomposition` where it can be; anything
else (no Triton, CPU, float64, channels-last memory, a scale that is no power of
two or above 64) takes the plain path.  Its arithmetic is tested in Triton's
interpreter; it has been run on no GPU so far.  Therefore its result is compared
with the plain path's when a device first uses it with a scale and dtype.
"""
import functools
from contextlib import nullcontext

import torch

from ..utils.triton_trust import DTYPES, Trust, require_same

__all__ = ['DTYPES', 'project', 'usable']

# Pixels of a tile, which one program keeps in registers
TILE = 4096
TRUST = Trust('the Triton kernel of the pooling-based decomposition')


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


def usable(x, y, scale):
    """Whether the kernel can take this image and measurement."""
    return (x.is_cuda and 2 <= scale <= 64 and scale & (scale - 1) == 0 and x.dtype in DTYPES
            and (y is None or (y.dtype in DTYPES and y.device == x.device))
            and x.is_contiguous() and TRUST.usable(x.device, (scale, x.dtype)))


def project(x, y, scale, strength, out, want_error=False):
    """out = x + strength · A†(y - A x); y = None stands for 0.

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
    return TRUST.run(x.device, (scale, x.dtype), lambda: _verify(x.device, scale, x.dtype),
                     lambda: _launch(x, y, scale, strength, out, want_error))


def _launch(x, y, scale, strength, out, want_error):
    n, c, height, width = x.shape
    rows = n * c * height // scale
    columns = max(scale, min(TILE // scale, 1 << (width - 1).bit_length()))
    y = x if y is None else y.contiguous()
    error = (torch.empty(n, c, height // scale, width // scale, device=x.device)
             if want_error else out)
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():  # else: interpreted
        _kernel()[(rows, -(-width // columns))](
            x, y, out, error, width, float(strength), S=scale, COLUMNS=columns,
            HAS_Y=y is not x, STORE_ERROR=want_error)
    return error if want_error else None


def _verify(device, scale, dtype):
    """Raise RuntimeError unless the kernel computes what plain PyTorch does, on a small image."""
    columns = TILE // scale + 2 * scale  # more than one tile, the last one not full
    x = torch.arange(2 * 2 * scale * columns, device=device, dtype=torch.float32)
    x = (x * 12.9898).sin().view(1, 2, 2 * scale, columns).to(dtype)
    patches = x.float().view(1, 2, 2, scale, columns // scale, scale)
    pooled = patches.mean((3, 5))
    y = (pooled * 3).cos()
    for known in (y, None):
        out = torch.empty_like(x)
        error = _launch(x, known, scale, 0.75, out, True)
        wanted = (0 if known is None else known) - pooled
        expected = (patches + 0.75 * wanted[:, :, :, None, :, None]).view(x.shape)
        apart = max((out.float() - expected).abs().max().item() / expected.abs().max().item(),
                    (error - wanted).abs().max().item())
        require_same(apart, dtype, f'scale {scale} and {dtype}')
