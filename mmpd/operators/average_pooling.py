"""Average pooling and the pooling-based decomposition (paper Eqs. 8, 9 and 11)."""
from functools import lru_cache

import torch
import torch.nn.functional as F

from ..utils.validation import MOST_CHANNELS, check_bounds, check_noise_std
from .base import (
    LinearOperator,
    check_positive_int,
    check_strength,
    compute_dtype,
    is_compiling,
    is_differentiated,
    is_observed,
    needs_derivative,
    no_autocast,
    run_check,
)
from .bounded import bounded_projection, check_reachable
from .builder import OPERATORS
from .pooling_function import differentiable_projection
from .pooling_pass import average_pool, fused_projection, replicate
from .wiener import prior_variance, wiener_weight

__all__ = ['AveragePooling', 'pooling_decomposition']


def pooling_decomposition(x, y, scale, strength=1.0, inplace=False, check=True, noise_std=None,
                          bounds=None):
    """PD, paper Eq. (9): x̂ = P↑(y) + x - P↑(P↓(x)), in one pass over the image.

    Args:
        x (Tensor): Raw image (N, C, H, W), floating point, any value range;
            contiguous and channels-last memory is read as it is, anything
            else is copied once.
        y (Tensor): LR image (N, C, H/s, W/s) in the same unit.
        scale (int): s.
        strength (float): Weight of the correction, in [0, 1]; 1 is the paper.
        inplace (bool): Write into ``x`` (inference only).
        check (bool | DeferredCheck): Raise on NaN and inf.
        noise_std (float, optional): Of y; gives the strength, see :meth:`LinearOperator.project`.
        bounds (Sequence[float], optional): (low, high), the range that x̂ has to lie in.

    Returns:
        Tensor: x̂ in the shape, dtype and memory format of ``x``.  Only this
        image is allocated, apart from temporaries of at most about 16 MiB.

    Raises:
        ValueError: Shapes that do not fit, integer or empty tensors, NaN or inf.

    Example:
        >>> import torch
        >>> from mmpd.operators import average_pool, pooling_decomposition
        >>> raw, lr = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 4, 4)
        >>> result = pooling_decomposition(raw, lr, scale=4)
        >>> torch.allclose(average_pool(result, 4), lr, atol=1e-6)
        True
    """
    return AveragePooling(scale).project(x, y, strength, check, inplace, noise_std, bounds)


@lru_cache(256)
def _fits(scale, image, measurement, *dtypes):
    """Whether :meth:`LinearOperator.check_pair` has nothing to say against two tensors."""
    return (len(image) == 4 and 0 not in image and all(dtype.is_floating_point for dtype in dtypes)
            and image == (*measurement[:2], *(scale * side for side in measurement[2:])))


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

    Example:
        >>> import torch
        >>> from mmpd.operators import AveragePooling
        >>> operator = AveragePooling(2)
        >>> operator.A(torch.tensor([[[[1., 2.], [3., 6.]]]])).tolist()
        [[[[3.0]]]]
        >>> operator.A_dagger(torch.tensor([[[[3.]]]])).tolist()
        [[[[3.0, 3.0], [3.0, 3.0]]]]
    """
    tight = True
    axes = frozenset(('space',))
    products = ()

    def __init__(self, scale):
        super().__init__()
        self.scale = check_positive_int(scale, 'scale', most=MOST_CHANNELS)

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

    def project(self, x, y, strength=1.0, check=True, inplace=False, noise_std=None, bounds=None):
        # a small image takes less time than all the questions: what has fitted, fits
        plain = (not is_compiling() and type(x) is torch.Tensor and type(y) is torch.Tensor
                 and not is_observed())
        if not (plain and _fits(self.scale, x.shape, y.shape, x.dtype, y.dtype)):
            self.check_pair(x, y)
        check_strength(strength)
        if noise_std is not None:
            noise_std = check_noise_std(noise_std, strength)
        if bounds is not None:
            bounds = check_bounds(bounds)
        if inplace:
            self._check_inplace(x, y)
            check = bool(check)  # now or never: what is overwritten cannot be looked at later
        if noise_std or bounds and strength != 1:
            y, strength, check = self._target(x, y, strength, noise_std, check), 1.0, False
        elif bounds and check:
            check_reachable(y, *bounds)
        if bounds:
            return bounded_projection(x, y, self.scale, *bounds, check, x if inplace else None)
        if inplace:
            return fused_projection(x, y, self.scale, strength, x, check)
        # a compiler fuses simple operations itself, and sees their derivatives
        if not plain and (is_compiling() or torch.jit.is_tracing()):
            return self._project_plainly(x, y, strength, check)
        if not (needs_derivative(x, y) if plain else is_differentiated(x, y)):
            return fused_projection(x, y, self.scale, strength, check=check)
        return differentiable_projection(x, y, self.scale, strength, check)

    @staticmethod
    def _check_inplace(x, y):
        if torch.is_grad_enabled() and (x.requires_grad or y.requires_grad):
            raise ValueError('inplace=True is for inference: x or y requires grad')
        if not (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)):
            raise ValueError(f'inplace=True needs contiguous memory, got strides {x.stride()}')

    def _target(self, x, y, strength, noise_std, check):
        """What A x̂ shall be, between A x and y: A x + gain · (y - A x)."""
        wide = compute_dtype(x, y)
        with no_autocast(x.device.type):
            measured = average_pool(x.to(wide), self.scale)
            error = y.to(wide) - measured
            run_check(check, error, x, y)
            gain = strength
            if noise_std:
                value = 1 / self.scale
                variance = prior_variance(error, noise_std, value**2)
                gain = value * wiener_weight(variance, noise_std, value)
            return measured + gain * error

    def _project_plainly(self, x, y, strength, check):
        wide = compute_dtype(x, y)
        raw = x.to(wide)
        error = y.to(wide) - F.avg_pool2d(raw, self.scale)
        run_check(check, error, x, y)
        if strength != 1:
            error = error * strength
        if self.scale & (self.scale - 1):  # interpolate rounds 1 / scale, and errs by a pixel at 41
            wide_error = replicate(error, self.scale)
        else:
            wide_error = F.interpolate(error, scale_factor=self.scale)
        return (raw + wide_error).to(x.dtype)

    project.__doc__ = LinearOperator.project.__doc__
