"""The pooling-based decomposition as the last layer of a network."""
import numpy as np
import torch
from mmagic.registry import MODELS
from torch import nn

from mmpd.operators import LinearOperator, build_operator, replace_range
from mmpd.operators.base import HALF, check_batch, check_strength, compute_dtype
from mmpd.operators.decomposition import apply


@MODELS.register_module()
class PDHead(nn.Module):
    """Replaces the range-space part of a network's output by the LR image's (paper Eq. 9).

    The head has no parameters and no persistent buffers, so a model with it
    loads and writes the same checkpoints as one without.

    Args:
        operator (dict | object): The degradation A, see
            :func:`mmpd.operators.build_operator`. A config with
            ``scale=None`` (the default is average pooling so) takes the scale
            from the sizes of each input.
        strength (float): In [0, 1]. 1 (the paper) makes the output consistent,
            0 returns the raw output; between them for a noisy LR.
        mean (float | Sequence[float]): Mean of the model's data preprocessor,
            in 0..255, one or one per channel.
        std (float | Sequence[float]): Its std.  mean and std matter for
            operators that are applied in [0, 1] (``unit_range``) or mix channels.

    Shape:
        raw (N, C, H, W) and lr (N, c, h, w), both normalised with mean and
        std ([-1, 1] by default); output (N, C, H, W), float32 (float64 if an
        input is), never reduced precision, not even under autocast.
    """

    def __init__(self, operator=None, strength=1.0, mean=127.5, std=127.5):
        super().__init__()
        cfg = dict(type='AveragePooling', scale=None) if operator is None else operator
        self._cfg = cfg if isinstance(cfg, dict) and cfg.get('scale', 0) is None else None
        self.operator = None if self._cfg else build_operator(cfg)
        self.strength = check_strength(strength)
        self.mean, self.std = (self._per_channel(value) for value in (mean, std))
        if not all(value > 0 for value in self.std):
            raise ValueError(f'std: expected positive numbers, got {std!r}')
        self._unit_range = None  # of a foreign operator, found out when it is first used
        if isinstance(self.operator, nn.Module):
            self._forget_buffers(self.operator)

    @staticmethod
    def _per_channel(value):
        """Python floats, which no cast of the model shortens; one if all are equal."""
        values = [float(v) for v in np.asarray(value, np.float64).reshape(-1)]
        return values[:1] if len(set(values)) == 1 else values

    @staticmethod
    def _forget_buffers(operator):
        """A foreign operator must not change the checkpoint either."""
        for module in operator.modules():
            for name, buffer in list(module.named_buffers(recurse=False)):
                module.register_buffer(name, buffer, persistent=False)

    def extra_repr(self):
        return f'strength={self.strength}' + (', scale from the input' if self._cfg else '')

    def operator_for(self, image, lr):
        """The operator for an image (N, C, H, W) and its LR (N, c, h, w).

        Raises:
            ValueError: if its scale is to be inferred and H / h is no integer or not W / w.
        """
        if self._cfg is None:
            return self.operator
        (height, width), (h, w) = image.shape[-2:], lr.shape[-2:]
        if not h or not w or height % h or width % w or height // h != width // w:
            raise ValueError(f'the scale cannot be inferred: expected an image whose sides are one '
                             f'integer multiple of those of the LR ({h}x{w}), got {height}x{width}')
        if self.operator is None or self.operator.scale != height // h:
            self.operator = build_operator(dict(self._cfg, scale=height // h)).to(image.device)
        return self.operator

    def forward(self, raw, lr):
        """x̂ = raw + strength · A†(lr - A raw)."""
        check_batch(raw, 'raw')
        if not isinstance(lr, torch.Tensor) or not lr.is_floating_point():
            raise ValueError('lr: expected a floating point tensor, got '
                             f'{getattr(lr, "dtype", type(lr).__name__)}')
        # the first steps of mixed precision training may overflow: the gradient scaler's matter
        check = not (self.training and (raw.dtype in HALF or torch.is_autocast_enabled()))
        wide = compute_dtype(raw, lr)
        raw, lr = raw.to(wide), lr.to(wide)
        operator = self.operator_for(raw, lr)
        channels = max(len(self.mean), len(self.std))
        mixed = channels > 1 and 'channel' in getattr(operator, 'axes', ('channel', ))
        if not (mixed or self._needs_unit_range(operator, raw)):
            return replace_range(raw, lr, operator, self.strength, check)
        if channels > 1 and lr.shape[1] != channels:
            raise ValueError(f'{type(operator).__name__} gives {lr.shape[1]} channels, so it needs '
                             f'the same mean and std for all {channels} channels of the image')
        mean, std = (value[0] if channels == 1 else  # a foreign measurement may have any shape
                     torch.tensor(value, dtype=wide, device=raw.device).view(1, -1, 1, 1)
                     for value in (self.mean, self.std))
        raw, lr = ((tensor * std + mean) / 255 for tensor in (raw, lr))
        return (replace_range(raw, lr, operator, self.strength, check) * 255 - mean) / std

    def _needs_unit_range(self, operator, image):
        """Whether A 1 ≠ 1, so that the normalisation has to be undone."""
        if isinstance(operator, LinearOperator) or hasattr(operator, 'unit_range'):
            return getattr(operator, 'unit_range', False)
        if self._unit_range is None:
            with torch.no_grad():
                measured = apply(operator, 'A', torch.ones_like(image[:1]))
            self._unit_range = bool((measured - 1).abs().max() > 1e-4)
        return self._unit_range
