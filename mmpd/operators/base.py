"""The contract of every degradation operator."""
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import lru_cache, wraps

import torch
from torch import nn
from torch.autograd import forward_ad

from ..utils.validation import (
    check_bounds,
    check_noise_std,
    check_positive_int,
    check_strength,
)
from .alternating import alternating_projections, refuse_gradients
from .wiener import prior_variance, refuse_spectrum, wiener_weight

__all__ = ['DENSE_LIMIT', 'DeferredCheck', 'HALF', 'LinearOperator', 'autocasts', 'cached',
           'check_batch', 'check_finite', 'check_positive_int', 'check_strength', 'compute_dtype',
           'deferred_check', 'full_dtype', 'is_compiling', 'is_differentiated', 'is_observed',
           'is_plain', 'no_autocast',
           'reading_waits', 'run_check']

HALF = (torch.float16, torch.bfloat16)
DENSE_LIMIT = 4096  # a matrix of at most 128 MiB, decomposed in seconds


def constant_when_compiled(function):
    """Have torch.compile call a function of constants, not look into it.

    What torch.compiler.assume_constant_result does, without the 6 s of import that it takes.
    """
    function._dynamo_marked_constant = True
    return function


def compute_dtype(*tensors):
    """The dtype that operators compute in: float64 if any tensor has it, else float32."""
    for tensor in tensors:
        if tensor.dtype == torch.float64:
            return torch.float64
    return torch.float32


@constant_when_compiled  # compiled code is guarded by these switches
def _is_reduced(device_type, kind):
    """Whether torch may compute float32 'matmul' or 'conv' in less (TF32, bf16) on a device."""
    if device_type not in ('cpu', 'cuda'):
        return False
    backends = torch.backends
    if hasattr(backends, 'fp32_precision'):  # mixing it with the older switches is an error
        cuda = backends.cuda.matmul if kind == 'matmul' else backends.cudnn.conv
        setting = cuda if device_type == 'cuda' else getattr(backends.mkldnn, kind)
        return setting.fp32_precision not in ('none', 'ieee')
    if kind == 'conv':
        return device_type == 'cuda' and backends.cudnn.allow_tf32
    return torch.get_float32_matmul_precision() != 'highest'


def full_dtype(dtype, device_type, kinds):
    """The dtype to compute in where float32 results are wanted: float64 if torch would do less.

    The switches of reduced precision are the whole process's: they are read
    and never written, for another thread may be computing.
    """
    if dtype == torch.float64 or not any(_is_reduced(device_type, kind) for kind in kinds):
        return dtype
    return torch.float64


def no_autocast(device_type):
    """A context without autocast, on this thread."""
    return nullcontext() if device_type == 'meta' else torch.autocast(device_type, enabled=False)


# torch before 2.3 has none, and is not asked to compile this
is_compiling = getattr(torch.compiler, 'is_compiling', lambda: False)


_is_tracing = torch._C._is_tracing
_functions_active = getattr(torch._C, '_are_functorch_transforms_active', lambda: True)
_modes_active = getattr(torch._C, '_len_torch_dispatch_stack', lambda: 1)


def is_observed():
    """Whether torch's operations are traced, counted or transformed, not merely run."""
    return bool(_is_tracing() or _functions_active() or _modes_active())


def is_differentiated(*tensors):
    """Whether someone may ask for a derivative of what is computed from the tensors."""
    return is_observed() or needs_derivative(*tensors)


def needs_derivative(*tensors):
    """:func:`is_differentiated` where torch's operations are not observed."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor.requires_grad:
                return True
    # outside of every level of forward derivatives there are no tangents, and asking takes long
    return getattr(forward_ad, '_current_level', 0) >= 0 and any(
        forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def autocasts(device_type):
    """Whether autocast is on for a device."""
    if device_type == 'meta':
        return False
    try:
        return torch.is_autocast_enabled(device_type)
    except TypeError:  # torch before 2.4
        return (torch.is_autocast_cpu_enabled() if device_type == 'cpu'
                else torch.is_autocast_enabled())


def is_plain():
    """Whether tensors made now are real ones: not while shapes are traced (FakeTensorMode)."""
    return type(torch.empty(0, device='cpu')) is torch.Tensor


def cached(maxsize):
    """Keep the constant tensors that a function makes: float64, on the CPU.

    It is run on a thread of its own, where nothing that the caller has set is
    in force (inference mode, a default device, FakeTensorMode, a functorch
    transform): whoever is first, the next one can use them.  The decorated
    function takes ``dtype`` and ``device`` besides, and keeps what it makes
    for them too.
    """

    def decorate(function):
        def arrays_of(args):
            made = function(*args)
            single = isinstance(made, torch.Tensor)
            return single, [tensor.numpy() for tensor in ((made, ) if single else made)]

        @lru_cache(maxsize)
        def numbers(args):
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(arrays_of, args).result()

        def convert(args, dtype, device):
            single, arrays = numbers(args)
            with torch.inference_mode(False):
                tensors = [torch.from_numpy(array).to(device, dtype) for array in arrays]
            return tensors[0] if single else tuple(tensors)

        kept = lru_cache(maxsize)(convert)

        @wraps(function)
        @constant_when_compiled
        def make(*args, dtype=torch.float64, device='cpu'):
            return (kept if is_plain() else convert)(args, dtype, torch.device(device))

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
    a value that it depends on is not, so the check costs next to nothing; but
    on CUDA it waits for the result, see :class:`DeferredCheck`.
    """
    if is_compiling():
        return
    small = small.detach()
    try:  # the sum is the faster test, but may overflow where every term is finite
        if math.isfinite(small.sum().item()) or torch.isfinite(small).all():
            return
    except RuntimeError:  # there are no values to look at: meta and fake tensors, under vmap
        return
    for tensor, name in ((image, 'image'), (measurement, 'measurement')):
        bad = 0 if tensor is None else tensor.numel() - int(torch.isfinite(tensor).sum())
        if bad:
            raise ValueError(f'{name}: expected finite values, got {bad} NaN or inf '
                             f'among {tensor.numel()} values')
    raise ValueError(f'the values are too large for {small.dtype} (largest |x| '
                     f'{image.abs().max().item():g})')


def reading_waits(tensor):
    """Whether Python waits for all that is queued on a device when it looks at a value."""
    return tensor.is_cuda


class DeferredCheck(threading.local):
    """:func:`check_finite` that does not wait for the GPU: it tells at one of the next calls.

    For training, where every step would otherwise wait for all that is queued.
    """

    def __init__(self):
        self._pending = []

    def __call__(self, small, image=None, measurement=None):
        """Raise ValueError if an earlier batch is known to be bad by now; look at this one later.

        Args:
            small, image, measurement (Tensor): As for :func:`check_finite`.
        """
        self.tell()
        if small.is_meta or is_compiling() or hasattr(small, 'fake_mode'):
            return  # there are no values to look at
        # the largest |x| is not finite if a value is not, and cannot overflow
        host = torch.empty((), dtype=small.dtype, pin_memory=small.is_cuda)
        host.copy_(small.detach().abs().max(), non_blocking=True)
        event = torch.cuda.Event() if small.is_cuda else None
        if event is not None:
            event.record()
        self._pending.append((host, event))

    def tell(self):
        """Raise ValueError if a batch whose values have arrived was bad."""
        while self._pending:
            host, event = self._pending[0]
            if event is not None and not event.query():
                return
            del self._pending[0]
            if not math.isfinite(host.numpy()):
                self._pending.clear()
                raise ValueError('image or measurement of an earlier batch: expected finite '
                                 'values, got NaN or inf')


deferred_check = DeferredCheck()


def run_check(check, small, image, measurement):
    """``check`` is True (:func:`check_finite`), False, or what to call instead."""
    if check:
        (check_finite if check is True else check)(small, image, measurement)


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
        products (Sequence[str]): What its arithmetic consists of besides
            elementwise work and sums: 'matmul', 'conv'.  Where the user
            allows those to be less precise than float32 (TF32, bf16), they are
            computed in float64.

    Example:
        >>> import torch
        >>> from mmpd.operators import LinearOperator
        >>> class EvenColumns(LinearOperator):  # A† and Aᵀ are found from A
        ...     def measurement_shape(self, shape):
        ...         return *shape[:2], shape[2] // 2
        ...     def image_shape(self, shape):
        ...         return *shape[:2], shape[2] * 2
        ...     def _A(self, x):
        ...         return x[..., ::2]
        >>> operator, raw, y = EvenColumns(), torch.rand(1, 1, 4, 4), torch.rand(1, 1, 4, 2)
        >>> torch.allclose(operator.A(operator.project(raw, y)), y, atol=1e-6)
        True
    """
    products = ('matmul', 'conv')
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
        with torch.inference_mode(False), torch.no_grad():
            if like.is_meta or not is_plain():
                return like.new_zeros(size, like[0].numel())  # of that shape
            # whatever A depends on, buffers, attributes or more: is it what it was?
            generator = torch.Generator().manual_seed(0)
            probe = torch.randn(1, *shape, generator=generator, dtype=torch.float64, device='cpu')
            echo = self._A(probe.to(like.device))
            cache = self.__dict__.setdefault('_pseudo_inverses', {})
            key = shape, like.device
            before, matrices = cache.get(key, (None, {}))
            if before is None or not torch.allclose(echo, before, 1e-12, 0):
                images = torch.eye(size, dtype=torch.float64, device=like.device)
                matrix = self._A(images.view(size, *shape)).flatten(1).T
                matrices = {torch.float64: torch.linalg.pinv(matrix)}
                cache[key] = echo, matrices
            if like.dtype not in matrices:
                matrices[like.dtype] = matrices[torch.float64].to(like.dtype)
            return matrices[like.dtype]

    def _A_adjoint(self, y):
        wanted = torch.is_grad_enabled() and y.requires_grad
        with torch.inference_mode(False), torch.enable_grad():
            # the transpose of A is the derivative of <A x, y>
            y = y.clone() if y.is_inference() else y
            y = y if wanted else y.detach()
            x = torch.zeros(len(y), *self.image_shape(tuple(y.shape[1:])), dtype=y.dtype,
                            device=y.device, requires_grad=True)
            return torch.autograd.grad(self._A(x), x, y, create_graph=wanted)[0]

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

    def _A_wiener(self, error, noise_std):
        """A† in its Wiener form for a noisy y, of ``error`` = y - A x: see :mod:`.wiener`."""
        if not self.tight or self.noise_gain is None:
            refuse_spectrum(self)
        value = 1 / self.noise_gain
        variance = prior_variance(error, noise_std, value**2)
        return self._A_dagger(error * (value * wiener_weight(variance, noise_std, value)))

    def project(self, x, y, strength=1.0, check=True, noise_std=None, bounds=None):
        """Replace the range-space part of ``x`` by that of ``y``: x + A†(y - A x).

        This is paper Eq. (7) rearranged.  The result is consistent, A x̂ = y,
        whenever y lies in the range of A; its null-space part is that of x.

        Args:
            x (Tensor): Raw image (N, C, H, W), floating point, any range.
            y (Tensor): Measurement (N, c, h, w) in the same unit.
            strength (float): Weight of the correction, in [0, 1]; 1 is the paper.
            check (bool | DeferredCheck): Look for NaN and inf (one small
                reduction, for which True waits, on CUDA too).
            noise_std (float, optional): Standard deviation of the noise in ``y``,
                in its unit, instead of a ``strength``: each singular value
                gets the weight that is best for it, see
                :func:`prior_variance`.  0 is strength 1.
            bounds (Sequence[float], optional): (low, high).  The image nearest
                to ``x`` among those in this range whose measurement is that
                of the result without bounds; for average pooling exactly and
                with a derivative, for other operators by alternating
                projections, without.

        Returns:
            Tensor: (N, C, H, W) in the dtype of ``x``; the correction is
            computed in float32 (float64 if either input is).

        Raises:
            ValueError: Shapes that do not fit, integer or empty tensors,
                NaN or inf; with ``bounds`` alone an LR outside them.
        """
        self.check_pair(x, y)
        check_strength(strength)
        noise_std, bounds = check_noise_std(noise_std, strength), check_bounds(bounds)
        if bounds:
            refuse_gradients(self, x, y)
        wide = full_dtype(compute_dtype(x, y), x.device.type, self.products)
        with no_autocast(x.device.type):
            raw = x.to(wide)
            error = y.to(wide) - self._A(raw)
            run_check(check, error, x, y)
            if noise_std:
                correction = self._A_wiener(error, noise_std)
            else:
                if strength != 1:
                    error = error * strength
                correction = self._A_dagger(error)
            result = raw + correction
            if bounds:
                result = alternating_projections(
                    raw, self._A(result), self._A, self._A_dagger, *bounds, name=repr(self))
            return result.to(x.dtype)

    def check_pair(self, x, y):
        """Raise ValueError unless ``y`` can be the measurement of ``x``."""
        check_batch(x, 'image')
        check_batch(y, 'measurement')
        expected = (x.shape[0], *self.measurement_shape(tuple(x.shape[1:])))
        if tuple(y.shape) != expected:
            raise ValueError(f'measurement: expected shape {expected} for an image of shape '
                             f'{tuple(x.shape)} and {self!r}, got {tuple(y.shape)}')

    def _run(self, function, tensor, **named):
        wide = full_dtype(compute_dtype(tensor), tensor.device.type, self.products)
        with no_autocast(tensor.device.type):
            result = function(tensor.to(wide))
            # of image and measurement the smaller one, which the other one determines
            check_finite(result if 'image' in named else tensor, **named)
            return result.to(tensor.dtype)

    def _check_divisible(self, shape, divisor):
        height, width = shape[-2:]
        if height % divisor or width % divisor:
            raise ValueError(f'image: height and width must be multiples of {divisor} '
                             f'for {self!r}, got {height}x{width}')
