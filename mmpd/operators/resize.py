"""Separable resizing A = A_h · A_wᵀ with the exact pseudo-inverse of its one-axis matrices."""
from functools import lru_cache

import torch

from ..utils.validation import MOST_CHANNELS, check_bool
from .average_pooling import AveragePooling
from .base import LinearOperator, cached, check_positive_int, is_compiling
from .builder import OPERATORS
from .kernels import check_kernel, taps
from .wiener import prior_variance, wiener_weight

__all__ = ['SeparableResize', 'resize_matrix']

BAND = 128  # pixels whose results are computed together, where most others have no weight


def resize_matrix(size, scale, kernel='bicubic', antialias=True, border='library'):
    """The one-axis downsampling matrix, as a table of weights.

    Args:
        size (int): Input length, a multiple of ``scale``.
        scale (int): Downsampling factor.
        kernel (str): 'bicubic', 'bilinear', 'lanczos' or 'box'.
        antialias (bool): Widen the kernel by the scale.
        border (str): 'library' or 'mirror', see :mod:`mmpd.operators.kernels`.

    Returns:
        Tensor: (size // scale, size), float64 on the CPU, rows sum to 1.
            Cached and shared: do not write to it.

    Raises:
        ValueError: Unknown kernel or border, or a size that is no multiple of the scale.

    Example:
        >>> from mmpd.operators import resize_matrix
        >>> resize_matrix(4, 2, 'box').tolist()
        [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
        >>> tuple(resize_matrix(32, 4, 'lanczos').shape)
        (8, 32)
    """
    check_kernel(kernel, border)
    check_positive_int(scale, 'scale')
    check_positive_int(size, 'size')
    if size % scale:
        raise ValueError(f'size: expected a multiple of the scale {scale}, got {size}')
    return _matrix(size, scale, kernel, bool(antialias), border)


@cached(maxsize=64)
def _matrix(size, scale, kernel, antialias, border):
    length = size // scale
    offsets, weights = map(torch.from_numpy, taps(scale, kernel, antialias))
    places = torch.arange(length)[:, None] * scale + offsets
    weights = weights.expand(length, -1)
    if border == 'mirror':
        places = places % (2 * size)
        places = torch.where(places < size, places, 2 * size - 1 - places)
    elif antialias:
        weights = weights * ((places >= 0) & (places < size))
    matrix = torch.zeros(length, size, dtype=torch.float64)
    matrix.scatter_add_(1, places.clamp(0, size - 1), weights)
    return matrix / matrix.sum(1, keepdim=True)


@lru_cache(maxsize=64)
def _bands(*args):
    """Where the weights of a one-axis matrix lie: blocks (outputs, inputs), each two bounds."""
    size, scale = args[:2]
    used = _matrix(*args).numpy() != 0
    first, last = used.argmax(1), size - used[:, ::-1].argmax(1)
    step = max(1, BAND // scale)
    return tuple(((start, start + len(first[start:start + step])),
                  (int(first[start:start + step].min()), int(last[start:start + step].max())))
                 for start in range(0, size // scale, step))


@cached(maxsize=64)
def _pseudo_inverse(size, scale, kernel, antialias, border):
    return torch.linalg.pinv(_matrix(size, scale, kernel, antialias, border))


@cached(maxsize=64)
def _singular_values(size, scale, kernel, antialias, border):
    """U, s and V of a one-axis matrix U diag(s) Vᵀ."""
    left, values, right = torch.linalg.svd(
        _matrix(size, scale, kernel, antialias, border), full_matrices=False)
    return left, values, right.T.contiguous()


@OPERATORS.register_module()
class SeparableResize(LinearOperator):
    """Downsampling y = A_h x A_wᵀ by an integer scale; exact pseudo-inverse.

    The pseudo-inverse of a Kronecker product is the product of the
    pseudo-inverses, so A† y = A_h† y (A_w†)ᵀ needs the singular value
    decomposition of two small matrices only; it is made in float64 once per
    size and cached.  :mod:`mmpd.operators.kernels` has the table of the libraries
    that A equals, and the border rule.

    Args:
        scale (int): Downsampling factor.
        kernel (str): 'bicubic', 'bilinear', 'lanczos' or 'box'.
        antialias (bool): Widen the kernel by the scale ("bicubic(antialias)"
            of the paper's Table 4); without, "bicubic(alias)".
        border (str): 'library' (PIL, torch, cv2) or 'mirror' (MATLAB).

    Shape:
        Image (N, C, H, W), H and W multiples of the scale; measurement
        (N, C, H/s, W/s).

    Example:
        >>> import torch
        >>> from mmpd.operators import SeparableResize
        >>> operator, x = SeparableResize(4, 'bicubic'), torch.rand(1, 3, 16, 16)
        >>> lr = torch.nn.functional.interpolate(x, (4, 4), mode='bicubic', antialias=True)
        >>> torch.allclose(operator.A(x), lr, atol=1e-5)
        True
        >>> torch.allclose(operator.A(operator.A_dagger(lr)), lr, atol=1e-5)
        True
    """
    axes = frozenset(('space',))
    products = ('matmul',)

    def __init__(self, scale, kernel='bicubic', antialias=True, border='library'):
        super().__init__()
        self.scale = check_positive_int(scale, 'scale', most=MOST_CHANNELS)
        check_kernel(kernel, border)
        self.kernel, self.border = kernel, border
        self.antialias = check_bool(antialias, 'antialias')

    def extra_repr(self):
        border = '' if self.border == 'library' else f', border={self.border!r}'
        return f'scale={self.scale}, kernel={self.kernel!r}, antialias={self.antialias}{border}'

    @property
    def tight(self):
        # box, and kernels without antialias that are narrower than the scale
        return self.gains(16 * self.scale, 16 * self.scale)[2] < 1 + 1e-9

    @property
    def patch_mean(self):
        return self.kernel == 'box' and self.antialias

    @property
    def noise_gain(self):
        """‖A†‖ for a 64x64 measurement; it hardly depends on the size."""
        return self.gains(64 * self.scale, 64 * self.scale)[1]

    def gains(self, height, width):
        """(‖A‖, ‖A†‖, condition number) for an image of height x width."""
        largest = smallest = 1.0
        for size in (height, width):
            matrix = resize_matrix(size, self.scale, self.kernel, self.antialias, self.border)
            values = torch.linalg.svdvals(matrix)
            largest, smallest = largest * values[0].item(), smallest * values[-1].item()
        return largest, 1 / smallest, largest / smallest

    def measurement_shape(self, shape):
        self._check_divisible(shape, self.scale)
        return shape[0], shape[1] // self.scale, shape[2] // self.scale

    def image_shape(self, shape):
        return shape[0], shape[1] * self.scale, shape[2] * self.scale

    def _factors(self, kind, height, width, like):
        """A ('A'), its pseudo-inverse ('A†') or singular values ('UsV') along each axis.

        height and width are those of the image.
        """
        make = dict(A=_matrix, UsV=_singular_values).get(kind, _pseudo_inverse)
        return (make(size, self.scale, self.kernel, self.antialias, self.border,
                     dtype=like.dtype, device=like.device) for size in (height, width))

    def _bands(self, x):
        """Where the weights along each axis lie for images like ``x``: parts of the outputs and
        of the inputs, each as two bounds.
        """
        return [_bands(size, self.scale, self.kernel, self.antialias, self.border)
                for size in x.shape[-2:]]

    def _A(self, x):
        rows, columns = self._factors('A', *x.shape[-2:], x)
        if min(x.shape[-2:]) < 4 * BAND or is_compiling():
            return rows @ (x @ columns.T)
        # all weights lie near the diagonal
        vertical, horizontal = self._bands(x)
        small = torch.cat([x[..., a:b] @ columns[i:j, a:b].T
                           for (i, j), (a, b) in horizontal], -1)
        return torch.cat([rows[i:j, a:b] @ small[..., a:b, :] for (i, j), (a, b) in vertical], -2)

    def _A_dagger(self, y):
        height, width = self.image_shape(y.shape[1:])[1:]
        rows, columns = self._factors('A†', height, width, y)
        return (rows @ y) @ columns.T

    def _A_adjoint(self, y):
        height, width = self.image_shape(y.shape[1:])[1:]
        rows, columns = self._factors('A', height, width, y)
        return (rows.T @ y) @ columns

    def project(self, x, y, strength=1.0, check=True, noise_std=None, bounds=None):
        # the mean of patches has an exact projection
        same = bounds is not None and self.patch_mean
        project = AveragePooling(self.scale).project if same else super().project
        return project(x, y, strength, check, noise_std=noise_std, bounds=bounds)

    project.__doc__ = LinearOperator.project.__doc__

    def _A_wiener(self, error, noise_std):
        """Per singular value: those of a Kronecker product are the products s_i s_j."""
        height, width = self.image_shape(error.shape[1:])[1:]
        (u, s, v), (u_w, s_w, v_w) = self._factors('UsV', height, width, error)
        values = s[:, None] * s_w
        variance = prior_variance(error, noise_std, values.square().mean())
        known = u.T @ error @ u_w * wiener_weight(variance, noise_std, values)
        return v @ known @ v_w.T
