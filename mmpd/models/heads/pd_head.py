"""The pooling-based decomposition as the last layer of a network."""
from numbers import Real

import torch
from mmagic.registry import MODELS
from torch import nn

from mmpd.operators import LinearOperator, replace_range
from mmpd.operators.base import (
    HALF,
    autocasts,
    check_batch,
    compute_dtype,
    deferred_check,
    reading_waits,
)
from mmpd.operators.decomposition import apply
from mmpd.operators.resolve import prepare_operator, resolve_operator
from mmpd.utils.validation import (
    check_bounds,
    check_noise_std,
    check_number,
    check_sequence,
    check_strength,
    refuse,
)

__all__ = ['PDHead']


@MODELS.register_module()
class PDHead(nn.Module):
    """Replaces the range-space part of a network's output by the LR image's (paper Eq. 9).

    The head has no parameters and no buffers, so a model with it loads and
    writes the same checkpoints as one without.  Its operator is no child of
    it, but moves with it.

    Args:
        operator (dict | object): The degradation A, see
            :func:`mmpd.operators.build_operator`. A config without ``scale``,
            or with None, takes it from the sizes of each input, as does the
            default, average pooling.
        strength (float): In [0, 1]. 1 (the paper) makes the output consistent,
            0 returns the raw output; between them for a noisy LR.
        noise_std (float, optional): Standard deviation of the noise of the LR, in
            grey levels (of 0..255): the strength that is best for it is found
            for each image and each singular value of A, instead of ``strength``.
            0 is strength 1; the rounding of an 8-bit LR is 0.29.
        bounds (Sequence[float], optional): (low, high) in grey levels, usually
            (0, 255): x̂ is the image nearest to the raw one that is consistent
            *and* lies in this range, so that nothing is left to clip.  Average
            pooling: exact, in training too; other operators: at inference,
            by alternating projections.
        mean (float | Sequence[float]): Mean of the model's data preprocessor,
            in 0..255, one or one per channel.
        std (float | Sequence[float]): Its std.  mean and std matter for
            operators that are applied in [0, 1] (``unit_range``) or mix channels,
            and as the unit of ``noise_std`` and ``bounds``.

    Shape:
        raw (N, C, H, W) and lr (N, c, h, w), both normalised with mean and
        std ([-1, 1] by default); output (N, C, H, W), float32 (float64 if an
        input is), never reduced precision, not even under autocast.

    Attributes:
        operator (object | None): The operator, None if its scale depends on the input;
        operator_cfg (dict | None): its config then.

    Example:
        >>> import torch
        >>> from mmpd.models.heads import PDHead
        >>> from mmpd.operators import average_pool
        >>> head = PDHead()  # average pooling; MODELS.build(dict(type='PDHead')) is the same
        >>> raw, lr = torch.rand(1, 3, 32, 32) * 2 - 1, torch.rand(1, 3, 8, 8) * 2 - 1
        >>> torch.allclose(average_pool(head(raw, lr), 4), lr, atol=1e-5)
        True
        >>> bounded = PDHead(bounds=(0, 255))(raw, lr)
        >>> bounded.abs().max().item() <= 1 + 1e-6
        True
    """

    def __init__(self, operator=None, strength=1.0, noise_std=None, bounds=None, mean=127.5,
                 std=127.5):
        super().__init__()
        prepared = prepare_operator(
            dict(type='AveragePooling') if operator is None else operator)
        inferred = isinstance(prepared, dict)
        self.operator, self.operator_cfg = (None, prepared) if inferred else (prepared, None)
        self.strength = check_strength(strength)
        self.noise_std = check_noise_std(noise_std, self.strength, most=255)
        self.bounds = check_bounds(bounds, least=0, most=255)
        self.check_in_training = True  # NaNHook sees to it otherwise
        self.mean = self._per_channel(mean, 'mean')
        self.std = self._per_channel(std, 'std', above=0)
        if 1 < len(self.mean) != len(self.std) > 1:
            refuse('std', f'one value or {len(self.mean)}, as in mean', std)

    def __setattr__(self, name, value):
        if name == 'operator':
            # no child: the buffers of a foreign operator would enter the checkpoints
            object.__setattr__(self, name, value)
            self._unit_range = {}  # of a foreign operator: (sizes, dtype) -> whether A 1 ≠ 1
        else:
            super().__setattr__(name, value)

    def _apply(self, fn, recurse=True):
        if isinstance(self.operator, nn.Module):
            self.operator._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @staticmethod
    def _per_channel(value, name, **bounds):
        """Python floats, which no cast of the model shortens; one if all are equal."""
        value = value.tolist() if hasattr(value, 'tolist') else value  # tensors and arrays
        value = [value] if isinstance(value, Real) else value
        values = check_sequence(value, name, check_number, **bounds)
        return values[:1] if len(set(values)) == 1 else values

    def extra_repr(self):
        operator = self.operator if self.operator_cfg is None else self.operator_cfg
        return f'operator={operator}, strength={self.strength_text}'

    @property
    def strength_text(self):
        """'1', 'by noise_std 5', '1 within [0, 255]': for records of how images were made."""
        text = f'by noise_std {self.noise_std:g}' if self.noise_std else f'{self.strength:g}'
        return text if self.bounds is None else text + ' within [{:g}, {:g}]'.format(*self.bounds)

    def operator_for(self, image, lr):
        """The operator for an image (N, C, H, W) and its LR (N, c, h, w).

        Raises:
            ValueError: if its scale is to be inferred and H / h is no integer or not W / w.
        """
        if self.operator is not None:
            return self.operator
        return resolve_operator(self.operator_cfg, image.shape, lr.shape, image.device)

    def forward(self, raw, lr):
        """x̂ = raw + strength · A†(lr - A raw), of that which ``noise_std`` and ``bounds`` make."""
        check_batch(raw, 'raw')
        if not isinstance(lr, torch.Tensor) or not lr.is_floating_point():
            raise ValueError('lr: expected a floating point tensor, got '
                             f'{getattr(lr, "dtype", type(lr).__name__)}')
        # the first steps of mixed precision training may overflow: the gradient scaler's matter
        check = not (self.training and (raw.dtype in HALF or autocasts(raw.device.type)
                                        or not self.check_in_training))
        if check and self.training and reading_waits(raw):
            check = deferred_check  # a step that waits for its GPU cannot queue the next one
        wide = compute_dtype(raw, lr)
        raw, lr = raw.to(wide), lr.to(wide)
        operator = self.operator_for(raw, lr)
        channels = max(len(self.mean), len(self.std))
        mixed = channels > 1 and 'channel' in getattr(operator, 'axes', ('channel', ))
        # one range and one noise for all channels, whatever each is normalised with
        mixed = mixed or channels > 1 and (self.bounds is not None or bool(self.noise_std))
        if not (mixed or self._needs_unit_range(operator, raw, lr)):
            mean, std = (value[0] for value in (self.mean, self.std))
            return replace_range(raw, lr, operator, self.strength, check,
                                 *self._options(mean, std))
        if channels > 1 and lr.shape[1] != channels:
            raise ValueError(f'{type(operator).__name__} gives {lr.shape[1]} channels, so it needs '
                             f'the same mean and std for all {channels} channels of the image')
        mean, std = (value[0] if channels == 1 else  # a foreign measurement may have any shape
                     torch.tensor(value, dtype=wide, device=raw.device).view(1, -1, 1, 1)
                     for value in (self.mean, self.std))
        raw, lr = ((tensor * std + mean) / 255 for tensor in (raw, lr))
        options = self._options(0, 255)
        return (replace_range(raw, lr, operator, self.strength, check, *options) * 255 - mean) / std

    def _options(self, mean, std):
        """noise_std and bounds in the unit of (pixels - mean) / std."""
        noise_std = None if self.noise_std is None else self.noise_std / std
        bounds = None if self.bounds is None else [(value - mean) / std for value in self.bounds]
        return noise_std, bounds

    def _needs_unit_range(self, operator, image, lr):
        """Whether A 1 ≠ 1, so that the normalisation has to be undone."""
        if isinstance(operator, LinearOperator) or hasattr(operator, 'unit_range'):
            return getattr(operator, 'unit_range', False)
        if image.is_meta:  # shapes only: they are the same in either range
            return False
        sizes = image.shape[1:], lr.shape[1:], image.dtype
        if sizes not in self._unit_range:
            with torch.no_grad():
                measured = apply(operator, 'A', torch.ones_like(image[:1]))
            # A 1 of an operator that means to keep constants has some rounding errors
            limit = 64 * torch.finfo(image.dtype).eps
            self._unit_range[sizes] = bool((measured - 1).abs().max() > limit)
        return self._unit_range[sizes]
