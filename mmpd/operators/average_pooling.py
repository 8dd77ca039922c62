"""Average pooling and the pooling-based decomposition (paper Eqs. 8, 9 and 11)."""
import torch
import torch.nn.functional as F

from . import triton_pooling
from .base import (
    HALF,
    LinearOperator,
    check_finite,
    check_positive_int,
    check_strength,
    compute_dtype,
    full_precision,
)
from .builder import OPERATORS

# Bytes that the temporaries of a block of the image may take: 2/s of the block.  Smaller
# blocks lose more to the start of each operation and to waiting for the other threads
# than they gain by staying in the cache (tools/benchmark/pd_head.py --blocks).
TEMPORARY_BYTES = 4 << 20
# Up to so many numbers the start of each operation is what costs: three simple ones are faster
# than the pass over blocks, whatever they copy.
SMALL = 1 << 16


def average_pool(x, scale):
    """Mean of each ``scale`` x ``scale`` patch: (N, C, H, W) -> (N, C, H/s, W/s)."""
    n, c, height, width = x.shape
    h, w = height // scale, width // scale
    # columns first: that sum runs over contiguous memory and is vectorised
    return x.reshape(n, c, h, scale, width).sum(3).view(n, c, h, w, scale).sum(4) / scale**2


def replicate(y, scale):
    """Copy each pixel into a ``scale`` x ``scale`` patch: (N, C, h, w) -> (N, C, h·s, w·s)."""
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


def _fused(x, y, scale, strength, out=None, check=False):
    """x + strength · A†(y - A x) in one pass over the image; y = None stands for 0."""
    if not (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)):
        x = x.contiguous()
    wide = compute_dtype(x) if y is None else compute_dtype(x, y)
    result = torch.empty_like(x) if out is None else out
    if triton_pooling.usable(x, y, scale):
        done, error = triton_pooling.project(x, y, scale, strength, result, want_error=check)
        if done:
            if check:
                check_finite(error, x, y)
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
    ones = source.new_ones(scale, dtype=wide)
    mean = (ones / scale**2).view(1, 1, scale)
    size = row * ones.element_size() * (2 if x.dtype not in HALF else 2 * scale)
    step = max(1, TEMPORARY_BYTES // size)
    for start in range(0, len(source), step):
        block = source[start:start + step].to(wide)
        k = len(block)
        rows = torch.bmm(mean.expand(k, 1, scale), block)
        known = rows.new_zeros(k, row // scale) if y is None else small[start:start + step]
        if inner == 1:  # one operation less
            error = torch.addmv(known.reshape(-1), rows.view(-1, scale), ones, alpha=-1)
        else:
            error = known - rows.view(k, -1, scale, inner).sum(2).view(k, -1)
        del rows  # not to be held beside the expanded error
        if check:
            check_finite(error, x, y)
        if strength != 1:
            error = error * strength
        error = error.view(k, -1, 1, inner).expand(-1, -1, scale, -1).reshape(k, 1, row)
        if x.dtype in HALF:
            target[start:start + step] = block.add_(error)
        else:
            torch.add(block, error, out=target[start:start + step])
    return result


class _Project(torch.autograd.Function):
    """The projection is self-adjoint, so backward is the same pass with y = 0."""

    @staticmethod
    def forward(ctx, x, y, scale, strength, check):
        ctx.scale, ctx.strength = scale, strength
        ctx.dtypes = x.dtype, None if y is None else y.dtype
        return _fused(x, y, scale, strength, check=check)

    @staticmethod
    def backward(ctx, grad):
        grad_x = grad_y = None
        if ctx.needs_input_grad[0]:
            with full_precision(grad.device.type):
                grad_x = _Project.apply(grad, None, ctx.scale, ctx.strength, False)
        if ctx.needs_input_grad[1]:
            wide = grad.to(compute_dtype(grad))
            grad_y = average_pool(wide, ctx.scale) * (ctx.strength * ctx.scale**2)
            grad_y = grad_y.to(ctx.dtypes[1])
        return grad_x, grad_y, None, None, None


def pooling_decomposition(x, y, scale, strength=1.0, inplace=False, check=True):
    """PD, paper Eq. (9): x̂ = P↑(y) + x - P↑(P↓(x)), in one pass over the image.

    Args:
        x (Tensor): Raw image (N, C, H, W), floating point, any value range;
            contiguous and channels-last memory is read as it is, anything
            else is copied once.
        y (Tensor): LR image (N, C, H/s, W/s) in the same unit.
        scale (int): s.
        strength (float): Weight of the correction, in [0, 1]; 1 is the paper.
        inplace (bool): Write into ``x`` (inference only).
        check (bool): Raise on NaN and inf.

    Returns:
        Tensor: x̂ in the shape, dtype and memory format of ``x``.  Only this
        image is allocated, apart from temporaries of at most about 4 MiB.

    Raises:
        ValueError: Shapes that do not fit, integer or empty tensors, NaN or inf.
    """
    return AveragePooling(scale).project(x, y, strength, check, inplace)


@OPERATORS.register_module()
class AveragePooling(LinearOperator):
    """Average pooling P↓; its pseudo-inverse P↑ replicates (paper Eq. 8).

    Per patch of n = s² pixels A = (1/n, …, 1/n), so A Aᵀ = 1/n and
    A† = Aᵀ (A Aᵀ)⁻¹ = (1, …, 1)ᵀ: all singular values equal 1/s, the
    condition number is 1, and A† A replaces every patch by its mean.

    Args:
        scale (int): s, at least 1.

    Shape:
        Image (N, C, H, W) with H and W multiples of s; measurement
        (N, C, H/s, W/s).
    """
    tight = True
    axes = frozenset(('space',))

    def __init__(self, scale):
        super().__init__()
        self.scale = check_positive_int(scale, 'scale')

    def extra_repr(self):
        return f'scale={self.scale}'

    @property
    def noise_gain(self):
        return float(self.scale)

    @property
    def patch_mean(self):
        """Each measured value is the plain mean of its own scale x scale patch."""
        return True

    def measurement_shape(self, shape):
        self._check_divisible(shape, self.scale)
        return shape[0], shape[1] // self.scale, shape[2] // self.scale

    def image_shape(self, shape):
        return shape[0], shape[1] * self.scale, shape[2] * self.scale

    def _A(self, x):
        return average_pool(x, self.scale)

    def _A_dagger(self, y):
        return replicate(y, self.scale)

    def _A_adjoint(self, y):
        return replicate(y / self.scale**2, self.scale)

    def project(self, x, y, strength=1.0, check=True, inplace=False):
        self.check_pair(x, y)
        check_strength(strength)
        if not inplace:
            if x.numel() <= SMALL and x.device.type == 'cpu' and x.is_contiguous():
                return self._project_small(x, y, strength, check)
            with full_precision(x.device.type):
                return _Project.apply(x, y, self.scale, strength, check)
        if torch.is_grad_enabled() and (x.requires_grad or y.requires_grad):
            raise ValueError('inplace=True is for inference: x or y requires grad')
        if not (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)):
            raise ValueError(f'inplace=True needs contiguous memory, got strides {x.stride()}')
        if check:  # before anything is overwritten
            check_finite(y.to(compute_dtype(x)) - self.A(x), x, y)
        with full_precision(x.device.type):
            return _fused(x, y, self.scale, strength, out=x)

    def _project_small(self, x, y, strength, check):
        wide = compute_dtype(x, y)
        raw = x.to(wide)
        error = y.to(wide) - F.avg_pool2d(raw, self.scale)
        if check:
            check_finite(error, x, y)
        if strength != 1:
            error = error * strength
        if self.scale & (self.scale - 1):  # interpolate rounds 1 / scale, and errs by a pixel at 41
            wide_error = replicate(error, self.scale)
        else:
            wide_error = F.interpolate(error, scale_factor=self.scale)
        return (raw + wide_error).to(x.dtype)

    project.__doc__ = LinearOperator.project.__doc__
