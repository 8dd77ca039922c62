"""The contract of every degradation operator."""
import math
from contextlib import contextmanager
from functools import lru_cache, wraps

import torch
from torch import nn

from ..utils.validation import check_positive_int, check_strength

__all__ = ['DENSE_LIMIT', 'HALF', 'LinearOperator', 'cached', 'check_batch', 'check_finite',
           'check_positive_int', 'check_strength', 'compute_dtype', 'full_precision']

HALF = (torch.float16, torch.bfloat16)
DENSE_LIMIT = 4096  # a matrix of at most 128 MiB, decomposed in seconds


def compute_dtype(*tensors):
    """The dtype that operators compute in: float64 if any tensor has it, else float32."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def _precision_settings(device_type):
    """torch's switches of reduced float32 precision for products and convolutions on a device."""
    if device_type == 'cuda':
        return torch.backends.cuda.matmul, torch.backends.cudnn.conv
    return torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv


@contextmanager
def full_precision(device_type):
    """No autocast, and float32 arithmetic in float32 whatever the user allows (TF32, bf16)."""
    if device_type == 'meta':  # shapes only
        yield
        return
    with torch.autocast(device_type, enabled=False):
        if hasattr(torch.backends, 'fp32_precision'):  # mixing it with the older switch is an error
            reduced = [(setting, setting.fp32_precision)
                       for setting in _precision_settings(device_type)
                       if setting.fp32_precision not in ('none', 'ieee')]
            try:
                for setting, _ in reduced:
                    setting.fp32_precision = 'ieee'
                yield
            finally:
                for setting, value in reduced:
                    setting.fp32_precision = value
        else:
            before = torch.get_float32_matmul_precision()
            try:
                torch.set_float32_matmul_precision('highest')
                yield
            finally:
                torch.set_float32_matmul_precision(before)


def cached(maxsize):
    """``functools.lru_cache`` for tensors that are made on the CPU.

    Whatever mode or default device the first caller has set, the next one can use them.
    """

    def decorate(function):
        @lru_cache(maxsize)
        @wraps(function)
        def make(*args, **kwargs):
            with torch.inference_mode(False), torch.device('cpu'):
                return function(*args, **kwargs)

        return make

    return decorate


def check_batch(tensor, name):
    """Raise ValueError unless ``tensor`` is a non-empty floating point (N, C, H, W) batch."""
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f'{name}: expected a torch.Tensor, got {type(tensor).__name__}')
    if tensor.dim() != 4:
        raise ValueError(f'{name}: expected shape (N, C, H, W), got {tuple(tensor.shape)}')
    if tensor.numel() == 0:
        raise ValueError(f'{name}: expected a non-empty batch, got shape {tuple(tensor.shape)}')
    if not tensor.is_floating_point():
        raise ValueError(f'{name}: expected a floating point tensor, got {tensor.dtype}')


def check_finite(small, image=None, measurement=None):
    """Raise ValueError naming the culprit if ``small``, e.g. y - A x, holds NaN or inf.

    What is looked at is as small as the measurement and is not finite whenever
    a value that it depends on is not, so the check costs next to nothing.
    """
    if small.is_meta:  # shapes only
        return
    small = small.detach()
    # the sum is the faster test, but may overflow where every term is finite
    if math.isfinite(small.sum().item()) or torch.isfinite(small).all():
        return
    for tensor, name in ((image, 'image'), (measurement, 'measurement')):
        bad = 0 if tensor is None else tensor.numel() - int(torch.isfinite(tensor).sum())
        if bad:
            raise ValueError(f'{name}: expected finite values, got {bad} NaN or inf '
                             f'among {tensor.numel()} values')
    raise ValueError(f'the values are too large for {small.dtype} (largest |x| '
                     f'{image.abs().max().item():g})')


class LinearOperator(nn.Module):
    """A linear degradation ``A`` with its pseudo-inverse ``A†``.

    The method names are deepinv's.  A subclass writes three short methods,
    which may take shapes, dtypes (float32 or float64) and devices as checked:
    ``measurement_shape``, ``image_shape`` and ``_A``; and the closed forms
    ``_A_dagger`` and ``_A_adjoint`` where there are any.  Without them the
    transpose is the derivative of ``_A``, and the pseudo-inverse that of the
    operator's matrix, for images of at most ``DENSE_LIMIT`` numbers.  It has
    no parameters, and its buffers are not persistent, so that checkpoints of
    a model holding one never change.

    Attributes:
        scale (int | None): Ratio of image to measurement size, where there is one.
        unit_range (bool): The operator does not map constants to constants
            (A 1 ≠ 1), so ``A(2 x - 1) ≠ 2 A x - 1`` and it has to be applied
            to images in [0, 1] rather than [-1, 1].
        is_exact (bool): ``A_dagger`` is the Moore-Penrose pseudo-inverse
            up to rounding.
        tight (bool): A Aᵀ = c I, the rows are orthogonal and equally long.
        axes (frozenset[str]): What the operator mixes: 'channel', 'space' or both.
        noise_gain (float | None): Spectral norm ‖A†‖: the most by which
            noise in the measurement is amplified in the range-space part.
    """
    scale = None
    unit_range = False
    is_exact = True
    tight = False
    axes = frozenset(('channel', 'space'))
    noise_gain = None

    def measurement_shape(self, shape):
        """(C, H, W) of an image -> (c, h, w) of its measurement; ValueError if impossible."""
        raise NotImplementedError

    def image_shape(self, shape):
        """(c, h, w) of a measurement -> (C, H, W) of the image; ValueError if impossible."""
        raise NotImplementedError

    def _A(self, x):
        raise NotImplementedError

    def _A_dagger(self, y):
        shape = self.image_shape(tuple(y.shape[1:]))
        return (y.flatten(1) @ self._pseudo_inverse(shape, y).T).view(-1, *shape)

    def _pseudo_inverse(self, shape, like):
        """A† of the operator's matrix for an image of ``shape``, made in float64, kept."""
        size = math.prod(shape)
        if size > DENSE_LIMIT:
            raise ValueError(f'{self!r} has no closed form of A†, and an image of shape '
                             f'{tuple(shape)} is too large for a numeric one ({size} numbers, at '
                             f'most {DENSE_LIMIT}): write its _A_dagger')
        buffers = tuple((buffer.data_ptr(), buffer._version) for buffer in self.buffers())
        cache = self.__dict__.setdefault('_pseudo_inverses', {})
        if cache.get('buffers') != buffers:  # another operator by now
            cache.clear()
            cache['buffers'] = buffers
        key = shape, like.device, like.dtype
        if key not in cache:
            with torch.inference_mode(False), torch.no_grad():
                images = torch.eye(size, dtype=torch.float64, device=like.device)
                matrix = self._A(images.view(size, *shape)).flatten(1).T
                cache[key] = torch.linalg.pinv(matrix).to(like.dtype)
        return cache[key]

    def _A_adjoint(self, y):
        with torch.inference_mode(False), torch.enable_grad():
            # the transpose of A is the derivative of <A x, y>
            y = y.clone() if y.is_inference() else y
            x = torch.zeros(len(y), *self.image_shape(tuple(y.shape[1:])), dtype=y.dtype,
                            device=y.device, requires_grad=True)
            return torch.autograd.grad(self._A(x), x, y, create_graph=y.requires_grad)[0]

    def A(self, x):
        """Degrade: image (N, C, H, W) -> measurement (N, c, h, w), same dtype.

        Raises:
            ValueError: Shapes that do not fit, integer or empty tensors, NaN or inf.
        """
        check_batch(x, 'image')
        self.measurement_shape(tuple(x.shape[1:]))
        return self._run(self._A, x, image=x)

    def A_dagger(self, y):
        """Pseudo-inverse: measurement (N, c, h, w) -> image (N, C, H, W), same dtype."""
        check_batch(y, 'measurement')
        self.image_shape(tuple(y.shape[1:]))
        return self._run(self._A_dagger, y, measurement=y)

    def A_adjoint(self, y):
        """Transpose: measurement (N, c, h, w) -> image (N, C, H, W), same dtype."""
        check_batch(y, 'measurement')
        self.image_shape(tuple(y.shape[1:]))
        return self._run(self._A_adjoint, y, measurement=y)

    def forward(self, x):
        return self.A(x)

    def project(self, x, y, strength=1.0, check=True):
        """Replace the range-space part of ``x`` by that of ``y``: x + A†(y - A x).

        This is paper Eq. (7) rearranged.  The result is consistent, A x̂ = y,
        whenever y lies in the range of A; its null-space part is that of x.

        Args:
            x (Tensor): Raw image (N, C, H, W), floating point, any range.
            y (Tensor): Measurement (N, c, h, w) in the same unit.
            strength (float): Weight of the correction, in [0, 1]; 1 is the paper.
            check (bool): Look for NaN and inf (one small reduction, which
                synchronises CUDA).

        Returns:
            Tensor: (N, C, H, W) in the dtype of ``x``; the correction is
            computed in float32 (float64 if either input is).

        Raises:
            ValueError: Shapes that do not fit, integer or empty tensors,
                NaN or inf.
        """
        self.check_pair(x, y)
        check_strength(strength)
        wide = compute_dtype(x, y)
        with full_precision(x.device.type):
            raw = x.to(wide)
            error = y.to(wide) - self._A(raw)
            if check:
                check_finite(error, x, y)
            if strength != 1:
                error = error * strength
            return (raw + self._A_dagger(error)).to(x.dtype)

    def check_pair(self, x, y):
        """Raise ValueError unless ``y`` can be the measurement of ``x``."""
        check_batch(x, 'image')
        check_batch(y, 'measurement')
        expected = (x.shape[0], *self.measurement_shape(tuple(x.shape[1:])))
        if tuple(y.shape) != expected:
            raise ValueError(f'measurement: expected shape {expected} for an image of shape '
                             f'{tuple(x.shape)} and {self!r}, got {tuple(y.shape)}')

    def _run(self, function, tensor, **named):
        with full_precision(tensor.device.type):
            result = function(tensor.float() if tensor.dtype in HALF else tensor)
            # of image and measurement the smaller one, which the other one determines
            check_finite(result if 'image' in named else tensor, **named)
            return result.to(tensor.dtype)

    def _check_divisible(self, shape, divisor):
        height, width = shape[-2:]
        if height % divisor or width % divisor:
            raise ValueError(f'image: height and width must be multiples of {divisor} '
                             f'for {self!r}, got {height}x{width}')
