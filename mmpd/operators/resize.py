"""Separable resizing A = A_h · A_wᵀ with the exact pseudo-inverse of its one-axis matrices.

Which library each kernel equals, for an integer scale (tested to 1e-5 on [0, 1]):

========  =========================================  ==================================
kernel    antialias=True                             antialias=False
========  =========================================  ==================================
bicubic   PIL BICUBIC, torch bicubic antialias=True  torch bicubic, cv2 INTER_CUBIC
          (a = -0.5)                                 (a = -0.75)
bilinear  PIL BILINEAR, torch bilinear antialias     torch bilinear, cv2 INTER_LINEAR
lanczos   PIL LANCZOS (three lobes)                  cv2 INTER_LANCZOS4 (four lobes)
box       PIL BOX, cv2 INTER_AREA, average pooling   PIL NEAREST, torch nearest-exact
========  =========================================  ==================================

Border rule, border='library': with antialias the weights that fall outside the
image are dropped and the rest renormalised (PIL, torch); without it the border
pixel is replicated (cv2, torch).  border='mirror': the image goes on mirrored, as
in MATLAB's imresize, which has the bicubic and bilinear kernels with antialias
of this table: the interior is the same, the border is not.
"""

import torch

from .base import LinearOperator, cached, check_positive_int
from .builder import OPERATORS

KERNELS = ('bicubic', 'bilinear', 'lanczos', 'box')
BORDERS = ('library', 'mirror')
RADIUS = {  # half the support, in output pixels with antialias and input pixels without
    ('bicubic', True): 2, ('bicubic', False): 2, ('bilinear', True): 1, ('bilinear', False): 1,
    ('lanczos', True): 3, ('lanczos', False): 4, ('box', True): 0.5, ('box', False): 0.5
}


def _weights(kernel, antialias, t, a=None):
    """The kernel at distances t; ``a`` is bicubic's parameter if not the usual one."""
    t = t.abs()
    if kernel == 'bicubic':  # Keys 1981
        a = a if a is not None else -0.5 if antialias else -0.75
        near = ((a + 2) * t - (a + 3)) * t * t + 1
        far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
        return torch.where(t <= 1, near, torch.where(t < 2, far, torch.zeros_like(t)))
    if kernel == 'bilinear':
        return (1 - t).clamp(min=0)
    lobes = RADIUS[kernel, antialias]
    return torch.where(t < lobes, torch.sinc(t) * torch.sinc(t / lobes), torch.zeros_like(t))


@cached(maxsize=64)
def resize_matrix(size, scale, kernel='bicubic', antialias=True, border='library'):
    """The one-axis downsampling matrix, as a table of weights.

    Args:
        size (int): Input length, a multiple of ``scale``.
        scale (int): Downsampling factor.
        kernel (str): 'bicubic', 'bilinear', 'lanczos' or 'box'.
        antialias (bool): Widen the kernel by the scale.
        border (str): 'library' or 'mirror', see the head of the module.

    Returns:
        Tensor: (size // scale, size), float64 on the CPU, rows sum to 1.
            Cached and shared: do not write to it.

    Raises:
        ValueError: Unknown kernel or border, or a size that is no multiple of the scale.
    """
    _check_kernel(kernel, border)
    check_positive_int(scale, 'scale')
    check_positive_int(size, 'size')
    if size % scale:
        raise ValueError(f'size: expected a multiple of the scale {scale}, got {size}')
    length = size // scale
    rows = torch.arange(length)
    matrix = torch.zeros(length, size, dtype=torch.float64)
    if kernel == 'box':
        if antialias:
            matrix.view(length, length, scale)[rows, rows] = 1 / scale
        else:
            matrix[rows, rows * scale + scale // 2] = 1
        return matrix
    centres = (rows.double() + 0.5) * scale - 0.5
    stretch = scale if antialias else 1
    reach = RADIUS[kernel, antialias] * stretch
    taps = centres.floor().long()[:, None] + torch.arange(-reach, reach + 2)
    weights = _weights(kernel, antialias, (taps - centres[:, None]) / stretch)
    if border == 'mirror':
        taps = taps % (2 * size)
        taps = torch.where(taps < size, taps, 2 * size - 1 - taps)
    elif antialias:
        weights = weights * ((taps >= 0) & (taps < size))
    matrix.scatter_add_(1, taps.clamp(0, size - 1), weights)
    return matrix / matrix.sum(1, keepdim=True)


@cached(maxsize=64)
def _factor(kind, size, scale, kernel, antialias, border, dtype, device):
    """A ('A') or its pseudo-inverse ('A†') along one axis, on a device; size is the image's."""
    matrix = resize_matrix(size, scale, kernel, antialias, border)
    if kind == 'A†':
        matrix = torch.linalg.pinv(matrix)
    return matrix.to(device, dtype)


def _check_kernel(kernel, border):
    if border not in BORDERS:
        raise ValueError(f'border: expected one of {", ".join(BORDERS)}, got {border!r}')
    if kernel not in KERNELS:
        raise ValueError(f'kernel: expected one of {", ".join(KERNELS)}, got {kernel!r}')


@OPERATORS.register_module()
class SeparableResize(LinearOperator):
    """Downsampling y = A_h x A_wᵀ by an integer scale; exact pseudo-inverse.

    The pseudo-inverse of a Kronecker product is the product of the
    pseudo-inverses, so A† y = A_h† y (A_w†)ᵀ needs the singular value
    decomposition of two small matrices only; it is made in float64 once per
    size and cached.  See the module's table for the libraries that A equals
    and the border rule.

    Args:
        scale (int): Downsampling factor.
        kernel (str): 'bicubic', 'bilinear', 'lanczos' or 'box'.
        antialias (bool): Widen the kernel by the scale ("bicubic(antialias)"
            of the paper's Table 4); without, "bicubic(alias)".
        border (str): 'library' (PIL, torch, cv2) or 'mirror' (MATLAB).

    Shape:
        Image (N, C, H, W), H and W multiples of the scale; measurement
        (N, C, H/s, W/s).
    """
    axes = frozenset(('space',))

    def __init__(self, scale, kernel='bicubic', antialias=True, border='library'):
        super().__init__()
        self.scale = check_positive_int(scale, 'scale')
        _check_kernel(kernel, border)
        self.kernel, self.antialias, self.border = kernel, bool(antialias), border

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
        return (_factor(kind, size, self.scale, self.kernel, self.antialias, self.border,
                        like.dtype, like.device) for size in (height, width))

    def _A(self, x):
        rows, columns = self._factors('A', *x.shape[-2:], x)
        return rows @ (x @ columns.T)

    def _A_dagger(self, y):
        height, width = self.image_shape(y.shape[1:])[1:]
        rows, columns = self._factors('A†', height, width, y)
        return (rows @ y) @ columns.T

    def _A_adjoint(self, y):
        height, width = self.image_shape(y.shape[1:])[1:]
        rows, columns = self._factors('A', height, width, y)
        return (rows.T @ y) @ columns
