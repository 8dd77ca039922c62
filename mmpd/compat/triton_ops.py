"""The two ops that StyleGAN2 needs of compiled mmcv as Triton kernels: one pass over memory each.

Their arithmetic is tested in Triton's interpreter, and they compile for GPUs; they have been run
on no GPU so far.  So they are off unless the environment has ``MMPD_TRITON_OPS=1``, and their
result is compared with the plain stand-in's when a device first uses a variant of them.  What a
kernel does not take (CPU, float64, strided memory, more than 8 x 8 taps, compilation, no Triton)
the plain stand-in does.
"""
import functools
import os
from contextlib import nullcontext

import torch

from ..errors import InputError
from ..utils.triton_trust import DTYPES, Trust, require_same

__all__ = ['activate', 'can_activate', 'can_resample', 'resample', 'switched_on']

SWITCH = 'MMPD_TRITON_OPS'
TILE = 1024  # values that one program activates: 8 for each of its 128 threads
# rows of a program that resamples, and values of a row: neighbours read the same pixels, and more
# rows take more registers than let the GPU run enough threads
ROWS, ROW = 4, 128
MOST_TAPS, MOST_FACTOR = 8, 4
# of the small images compared: windows that begin and end outside and inside of the image
PADS, SLOPE, GAIN = ((2, 1, 3, -1), (-1, 2, -2, 1)), 0.1, 1.5
PLAIN = (torch.Tensor, torch.nn.Parameter)
ACTIVATION = Trust('the Triton kernel of fused_bias_leakyrelu')
RESAMPLING = Trust('the Triton kernel of upfirdn2d')


@functools.lru_cache(maxsize=1)
def switched_on():
    """Whether the environment has ``MMPD_TRITON_OPS=1`` (0, the default, leaves the kernels off).

    It is read once, when an op first gets a tensor on a GPU.

    Raises:
        InputError: if the variable is neither 0 nor 1.
    """
    text = os.environ.get(SWITCH, '0').strip()
    if text not in ('0', '1'):
        raise InputError(f'{SWITCH}: expected 0 or 1, got {text!r}')
    return text == '1'


@functools.lru_cache(maxsize=1)
def _kernels():
    import triton
    import triton.language as tl

    @triton.jit(do_not_specialize=['rows', 'channels'])
    def activate(x_ptr, bias_ptr, refer_ptr, out_ptr, rows, columns, channels, slope, gain,
                 BIAS: tl.constexpr, GRAD: tl.constexpr, LAST: tl.constexpr, ROWS: tl.constexpr,
                 COLUMNS: tl.constexpr):
        # memory as a matrix: its columns are the channels (LAST), or its rows are planes
        tiles = tl.cdiv(columns, COLUMNS)
        row = tl.program_id(0) // tiles * ROWS + tl.arange(0, ROWS)
        column = tl.program_id(0) % tiles * COLUMNS + tl.arange(0, COLUMNS)
        known = column < columns
        inside = (row < rows)[:, None] & known[None, :]
        place = row.to(tl.int64)[:, None] * columns + column[None, :]
        value = tl.load(x_ptr + place, mask=inside).to(tl.float32)
        if BIAS:
            if LAST:
                bias = tl.load(bias_ptr + column, mask=known)[None, :]
            else:
                bias = tl.load(bias_ptr + row % channels)[:, None]
            value += bias.to(tl.float32)
        sign = value
        if GRAD:
            sign = tl.load(refer_ptr + place, mask=inside).to(tl.float32)
        value = tl.where(sign > 0, value, value * slope) * gain
        tl.store(out_ptr + place, value.to(out_ptr.dtype.element_ty), mask=inside)

    # not compiled anew for each size, and no rows known to be aligned: threads would take four
    # pixels each in one store, at the cost of loads that skip as many
    @triton.jit(do_not_specialize=['height', 'width', 'out_height', 'out_width', 'start_y',
                                   'start_x', 'before_y', 'before_x'])
    def resample(x_ptr, filter_ptr, out_ptr, height, width, out_height, out_width, inner, start_y,
                 start_x, before_y, before_x, gain, UP_Y: tl.constexpr, UP_X: tl.constexpr,
                 DOWN_Y: tl.constexpr, DOWN_X: tl.constexpr, TAPS_Y: tl.constexpr,
                 TAPS_X: tl.constexpr, FLIP: tl.constexpr, ROWS: tl.constexpr,
                 COLUMNS: tl.constexpr):
        # a tile of a plane; of channels-last memory the inner values of a pixel lie side by side
        across = tl.cdiv(out_width * inner, COLUMNS)
        tiles = across * tl.cdiv(out_height, ROWS)
        plane = (tl.program_id(0) // tiles).to(tl.int64)
        tile = tl.program_id(0) % tiles
        row = tile // across * ROWS + tl.arange(0, ROWS)
        value = tile % across * COLUMNS + tl.arange(0, COLUMNS)
        column = value // inner
        # where the window begins in the image with zeros between its pixels, before_y (before_x)
        # pixels further so that it is not negative; the first pixel there and the tap that it
        # meets: every UP_Y-th (UP_X-th) tap from there on meets a pixel, the others meet zeros
        begin_y = row * DOWN_Y + start_y
        begin_x = column * DOWN_X + start_x
        first_y = tl.cdiv(begin_y, UP_Y)
        first_x = tl.cdiv(begin_x, UP_X)
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
        for step_y in tl.static_range(0, TAPS_Y, UP_Y):
            tap_y = first_y * UP_Y - begin_y + step_y
            y = first_y + step_y // UP_Y - before_y
            known_y = (y >= 0) & (y < height) & (tap_y < TAPS_Y)
            place_y = (plane * height + y) * width
            for step_x in tl.static_range(0, TAPS_X, UP_X):
                tap_x = first_x * UP_X - begin_x + step_x
                x = first_x + step_x // UP_X - before_x
                known_x = (x >= 0) & (x < width) & (tap_x < TAPS_X)
                known = known_y[:, None] & known_x[None, :]
                if UP_Y == 1 and UP_X == 1:  # all pixels of the tile meet the same tap
                    tap = step_y * TAPS_X + step_x
                    weight = tl.load(filter_ptr + (tap if FLIP else TAPS_Y * TAPS_X - 1 - tap))
                else:
                    tap = tap_y[:, None] * TAPS_X + tap_x[None, :]
                    weight = tl.load(filter_ptr + (tap if FLIP else TAPS_Y * TAPS_X - 1 - tap),
                                     mask=known, other=0.0)
                place = (place_y[:, None] + x[None, :]) * inner + (value - column * inner)[None, :]
                pixel = tl.load(x_ptr + place, mask=known, other=0.0).to(tl.float32)
                total += weight.to(tl.float32) * pixel
        inside = (row < out_height)[:, None] & (column < out_width)[None, :]
        place = (plane * out_height + row)[:, None] * (out_width * inner) + value[None, :]
        tl.store(out_ptr + place, (total * gain).to(out_ptr.dtype.element_ty), mask=inside)

    return activate, resample


def can_activate(x, bias, refer, act, grad, alpha, scale):
    """Whether :func:`activate` can take these arguments of ``fused_bias_leakyrelu`` now."""
    if not (_takes(x) and x.ndim > 1 and alpha >= 0 and _beside(bias, x, (x.dtype, ))
            and bias.numel() in (0, x.shape[1]) and bias.is_contiguous()):
        return False
    last = _is_last(x)
    if grad and not (_beside(refer, x, (x.dtype, )) and refer.shape == x.shape
                     and _is_last(refer) == last):
        return False
    return last is not None and ACTIVATION.usable(x.device, _activation(x, bias, grad, last))


def activate(plain, x, bias, refer, act, grad, alpha, scale):
    """``fused_bias_leakyrelu`` in one pass, computed in float32 and rounded once.

    Args:
        plain (Callable): The stand-in in plain PyTorch, of the same arguments.
        x, bias, refer (Tensor): All of one of ``DTYPES``; x (and refer, if grad is 1) contiguous
            or channels-last.
        act, grad, alpha, scale: See :func:`mmpd.compat.ext_ops.fused_bias_leakyrelu`.

    Returns:
        Tensor | None: With the strides of x; None where the kernel failed.
    """
    last = _is_last(x)

    def verify():
        # several tiles of one row of the matrix, of several rows
        for shape in ((1, 3, 5, TILE // 4), (2, TILE // 32, 5, 5)):
            values, signs = (_example(shape, x, last, seed) for seed in (1, 2))
            biases = _example((shape[1], ), x, False, 3) if bias.numel() else bias
            rest = grad, SLOPE, GAIN
            _compare(_activated(values, biases, signs, *rest, last), plain(*(
                tensor.double().cpu() for tensor in (values, biases, signs)), act, *rest), x.dtype)

    return ACTIVATION.run(x.device, _activation(x, bias, grad, last), verify, lambda: _activated(
        x, bias, refer, grad, alpha, scale, last))[1]


def _activated(x, bias, refer, grad, alpha, scale, last):
    """Launch the kernel."""
    out, channels = torch.empty_like(x), x.shape[1]
    columns = channels if last else x[0, 0].numel()
    rows = x.numel() // columns
    wide = min(TILE, 1 << (columns - 1).bit_length())
    high = TILE // wide
    with _on(x):
        _kernels()[0][-(-rows // high) * -(-columns // wide), ](
            x, bias, refer if grad else x, out, rows, columns, channels, float(alpha),
            float(scale), BIAS=bool(bias.numel()), GRAD=bool(grad), LAST=last, ROWS=high,
            COLUMNS=wide)
    return out


def _activation(x, bias, grad, last):
    return x.dtype, bool(grad), bool(bias.numel()), last


def can_resample(x, kernel, upx, upy, downx, downy, padx0, padx1, pady0, pady1, flip, gain):
    """Whether :func:`resample` can take these arguments of ``upfirdn2d`` now."""
    if not (_takes(x) and x.ndim == 4 and _beside(kernel, x, DTYPES) and kernel.ndim == 2
            and all(1 <= taps <= MOST_TAPS for taps in kernel.shape)
            and all(1 <= factor <= MOST_FACTOR for factor in (upx, upy, downx, downy))):
        return False
    last = _is_last(x)
    sides = _sides(x, kernel, upx, upy, downx, downy, padx0, padx1, pady0, pady1)
    return (last is not None and min(sides) > 0 and RESAMPLING.usable(
        x.device, _resampling(x, kernel, upx, upy, downx, downy, flip, last)))


def resample(plain, x, kernel, upx, upy, downx, downy, padx0, padx1, pady0, pady1, flip, gain):
    """``upfirdn2d`` without the zeros between pixels and around them, summed up in float32.

    Args:
        plain (Callable): The stand-in in plain PyTorch, of the same arguments.
        x (Tensor): (N, C, H, W), one of ``DTYPES``, contiguous or channels-last.
        kernel (Tensor): (kh, kw), up to 8 x 8, of the same dtype or another of ``DTYPES``.
        upx, upy, downx, downy (int): Factors up to 4.
        padx0, padx1, pady0, pady1, flip, gain: See :func:`mmpd.compat.ext_ops.upfirdn2d`.

    Returns:
        Tensor | None: In x's dtype and memory format; None where the kernel failed.
    """
    last = _is_last(x)

    def verify():
        # more than a tile each way
        shape = (1, 2, (ROWS + 2) * downy + kernel.shape[0], (ROW + 12) * downx + kernel.shape[1])
        image = _example(shape, x, last, 1)
        taps = _example(kernel.shape, kernel, False, 2)
        for pads in PADS:
            rest = upx, upy, downx, downy, *pads, flip, GAIN
            _compare(_resampled(image, taps, *rest, last),
                     plain(image.double().cpu(), taps.double().cpu(), *rest), x.dtype)

    variant = _resampling(x, kernel, upx, upy, downx, downy, flip, last)
    return RESAMPLING.run(x.device, variant, verify, lambda: _resampled(
        x, kernel, upx, upy, downx, downy, padx0, padx1, pady0, pady1, flip, gain, last))[1]


def _resampled(x, kernel, upx, upy, downx, downy, padx0, padx1, pady0, pady1, flip, gain, last):
    """Launch the kernel."""
    n, c, height, width = x.shape
    out_height, out_width = _sides(x, kernel, upx, upy, downx, downy, padx0, padx1, pady0, pady1)
    out = torch.empty(n, c, out_height, out_width, dtype=x.dtype, device=x.device,
                      memory_format=torch.channels_last if last else torch.contiguous_format)
    planes, inner = (n, c) if last else (n * c, 1)
    before_y, before_x = max(0, -(-pady0 // upy)), max(0, -(-padx0 // upx))
    wide = min(ROW, 1 << (out_width * inner - 1).bit_length())
    high = min(ROWS * ROW // wide, 1 << (out_height - 1).bit_length())
    tiles = -(-out_height // high) * -(-out_width * inner // wide)
    with _on(x):
        _kernels()[1][planes * tiles, ](
            x, kernel.contiguous(), out, height, width, out_height, out_width, inner,
            before_y * upy - pady0, before_x * upx - padx0, before_y, before_x, float(gain),
            UP_Y=upy, UP_X=upx, DOWN_Y=downy, DOWN_X=downx, TAPS_Y=kernel.shape[0],
            TAPS_X=kernel.shape[1], FLIP=bool(flip), ROWS=high, COLUMNS=wide)
    return out


def _sides(x, kernel, upx, upy, downx, downy, padx0, padx1, pady0, pady1):
    """Height and width of the result."""
    return ((x.shape[2] * upy + pady0 + pady1 - kernel.shape[0]) // downy + 1,
            (x.shape[3] * upx + padx0 + padx1 - kernel.shape[1]) // downx + 1)


def _resampling(x, kernel, upx, upy, downx, downy, flip, last):
    return (x.dtype, kernel.dtype, *kernel.shape, upx, upy, downx, downy, bool(flip), last)


def _takes(x):
    """Whether a kernel may read this tensor, and nobody wants to see torch's own operations."""
    return (x.is_cuda and type(x) in PLAIN and x.dtype in DTYPES and 0 not in x.shape
            and not _is_differentiated(x) and not torch.jit.is_tracing() and not _is_compiling()
            and switched_on())


# torch.compile fuses the plain stand-ins itself
_is_compiling = getattr(torch.compiler, 'is_compiling', lambda: False)


def _beside(other, x, dtypes):
    """Whether a kernel may read this tensor beside x."""
    return (type(other) in PLAIN and other.dtype in dtypes and other.device == x.device
            and not _is_differentiated(other))


def _is_differentiated(x):
    """Whether autograd has to see what is done to x (mmcv's functions call the ops without)."""
    return torch.is_grad_enabled() and x.requires_grad


def _is_last(x):
    """True for channels-last memory, False for contiguous memory, None for any other."""
    if x.is_contiguous():
        return x.ndim == 2
    return True if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) else None


def _on(x):
    """The device that launches; Triton's interpreter has tensors of the CPU."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _example(shape, like, last, seed):
    """A tensor to compare a kernel by, values in -1 ... 1."""
    places = torch.arange(torch.Size(shape).numel(), dtype=torch.float64, device='cpu')
    values = ((places + seed / 3).square() * 0.6180339887).sin()
    tensor = values.view(shape).to(like.device, like.dtype)
    return tensor.contiguous(memory_format=torch.channels_last) if last else tensor


def _compare(result, expected, dtype):
    apart = (result.double().cpu() - expected).abs().max() / expected.abs().max()
    require_same(apart.item(), dtype, f'a small image of {dtype}')
