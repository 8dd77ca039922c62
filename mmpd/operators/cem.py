"""The consistency enforcing module of Bahat & Michaeli, the comparator of paper Table 1."""
import torch
import torch.nn.functional as F

from ..utils.validation import MOST_CHANNELS, check_number
from .base import LinearOperator, cached, check_positive_int
from .builder import OPERATORS
from .kernels import RADIUS, kernel_value

__all__ = ['CEM']

# LR pixels by which the autocorrelation is padded on each side before the Fourier transform
FFT_MARGIN = 18
# Outer rings of the inverse filter are dropped while they sum to less than this
NEGLIGIBLE = 1e-6


@cached(maxsize=16)
def _filters(scale, bound, a):
    """The downsampling filter h and the LR filter (h hᵀ)⁻¹, both 2-D."""
    reach = RADIUS['bicubic', True] * scale
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    # an even scale puts the centre between two pixels
    offsets = offsets + (0.5 if scale % 2 == 0 else 0)
    offsets = offsets[offsets.abs() < reach]
    row = torch.from_numpy(kernel_value('bicubic', True, (offsets / scale).numpy(), a))
    row = row / row.sum()
    h = torch.outer(row, row)

    size = len(row)
    auto = F.conv2d(h[None, None], h[None, None], padding=size - 1)[0, 0]
    middle = size - 1
    lags = range(middle % scale, len(auto), scale)
    auto = auto[list(lags)][:, list(lags)]
    spectrum = torch.fft.fft2(F.pad(auto, (FFT_MARGIN,) * 4))
    # frequencies that h wipes out would be amplified without limit: bound their magnitude.
    # scale² · auto has unit gain for constants, so the bound is relative to that.
    magnitude = spectrum.abs() * scale**2
    spectrum = spectrum * (bound / magnitude.clamp(min=1e-300)).clamp(min=1)
    # the lags are centred: move the origin there before and after inverting
    centre = len(auto) // 2 + FFT_MARGIN
    phase = torch.fft.fft2(_delta(len(spectrum), centre))
    inverse = torch.fft.ifft2(phase**2 / spectrum).real
    half = min(centre, len(inverse) - 1 - centre)
    inverse = inverse[centre - half:centre + half + 1, centre - half:centre + half + 1]
    total = inverse.abs().sum()
    while inverse.abs().sum() - inverse[1:-1, 1:-1].abs().sum() < NEGLIGIBLE * total:
        inverse = inverse[1:-1, 1:-1]
    return h[None, None], inverse[None, None]


def _delta(size, index):
    delta = torch.zeros(size, size, dtype=torch.float64)
    delta[index, index] = 1
    return delta


@OPERATORS.register_module()
class CEM(LinearOperator):
    """Bicubic (antialias) downsampling with a pseudo-inverse by Fourier transform.

    A filters with the two-dimensional bicubic kernel h (widened by the scale)
    and keeps every s-th pixel; A† = hᵀ (h hᵀ)⁻¹, where h hᵀ, a
    convolution of LR images, is inverted once in the Fourier domain with its
    magnitude bounded from below, and applied as a finite filter.  Borders are
    replicated.  The finite filter and the borders make ``A_dagger`` an
    approximation (``is_exact`` is False): Y. Bahat and T. Michaeli,
    "Explorable Super Resolution", CVPR 2020.  Exact bicubic consistency is
    :class:`SeparableResize`.

    Written from the paper.  The authors' code has a = -0.75; with it A and A†
    equal theirs, and so does the projection but for the outermost LR pixels,
    where they pad the image and we pad y - A x.

    Args:
        scale (int): Downsampling factor.
        bound (float): Least magnitude of h hᵀ relative to that of a constant image.
            Bicubic kernels stay above 0.22, so that smaller bounds change nothing.
        a (float): Parameter of the kernel; -0.5 is that of PIL and torch.

    Shape:
        Image (N, C, H, W), H and W multiples of the scale; measurement
        (N, C, H/s, W/s).

    Example:
        >>> import torch
        >>> from mmpd.operators import CEM
        >>> operator = CEM(4)
        >>> raw, lr = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 8, 8)
        >>> result = operator.project(raw, lr)
        >>> (operator.A(result) - lr).abs().max().item() < 0.05  # nearly: see is_exact
        True
    """
    is_exact = False
    axes = frozenset(('space',))
    products = ('conv',)

    def __init__(self, scale, bound=0.01, a=-0.5):
        super().__init__()
        self.scale = check_positive_int(scale, 'scale', least=2, most=MOST_CHANNELS)
        self.bound = check_number(bound, 'bound', above=0, most=1)
        self.a = check_number(a, 'a', least=-1, most=0)

    def extra_repr(self):
        return f'scale={self.scale}, bound={self.bound}, a={self.a}'

    def measurement_shape(self, shape):
        self._check_divisible(shape, self.scale)
        return shape[0], shape[1] // self.scale, shape[2] // self.scale

    def image_shape(self, shape):
        return shape[0], shape[1] * self.scale, shape[2] * self.scale

    def _filters(self, like):
        return _filters(self.scale, self.bound, self.a, dtype=like.dtype, device=like.device)

    def _A(self, x):
        h, _ = self._filters(x)
        n, c, height, width = x.shape
        margin = (h.shape[-1] - self.scale) // 2
        padded = F.pad(x.reshape(n * c, 1, height, width), (margin,) * 4, mode='replicate')
        return F.conv2d(padded, h, stride=self.scale).view(n, c, height // self.scale, -1)

    def _A_dagger(self, y):
        h, inverse = self._filters(y)
        n, c, height, width = y.shape
        around, half = 2, inverse.shape[-1] // 2  # h reaches two LR pixels far
        padded = F.pad(y.reshape(n * c, 1, height, width), (around + half,) * 4, mode='replicate')
        image = F.conv_transpose2d(F.conv2d(padded, inverse), h, stride=self.scale)
        crop = around * self.scale + (h.shape[-1] - self.scale) // 2
        height, width = height * self.scale, width * self.scale
        image = image[:, :, crop:crop + height, crop:crop + width]
        return image.reshape(n, c, height, width)
