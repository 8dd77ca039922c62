"""The pooling-based decomposition as the last layer of a network."""
import numpy as np
import torch
from mmagic.registry import MODELS
from torch import nn

from mmpd.operators import build_operator, replace_range


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
        if not 0 <= strength <= 1:
            raise ValueError(f'strength: expected a number in [0, 1], got {strength!r}')
        self.strength = float(strength)
        for name, value in (('mean', mean), ('std', std)):
            value = np.asarray(value, np.float32).reshape(1, -1, 1, 1)
            if name == 'std' and not (value > 0).all():
                raise ValueError(f'std: expected positive numbers, got {std!r}')
            value = value[:, :1] if (value == value[:, :1]).all() else value
            self.register_buffer(name, torch.tensor(value), persistent=False)

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
        if height % h or width % w or height // h != width // w:
            raise ValueError(f'the scale cannot be inferred: expected an image whose sides are one '
                             f'integer multiple of those of the LR ({h}x{w}), got {height}x{width}')
        if self.operator is None or self.operator.scale != height // h:
            self.operator = build_operator(dict(self._cfg, scale=height // h)).to(image.device)
        return self.operator

    def forward(self, raw, lr):
        """x̂ = raw + strength · A†(lr - A raw)."""
        wide = torch.float64 if torch.float64 in (raw.dtype, lr.dtype) else torch.float32
        # not in training: the first steps of fp16 may overflow, which the gradient scaler handles
        check = not self.training
        for tensor, name in ((raw, 'raw'), (lr, 'lr')):
            if not tensor.is_floating_point():
                raise ValueError(f'{name}: expected a floating point tensor, got {tensor.dtype}')
        raw, lr = raw.to(wide), lr.to(wide)
        operator = self.operator_for(raw, lr)
        channels = max(self.mean.numel(), self.std.numel())
        mixed = channels > 1 and 'channel' in getattr(operator, 'axes', ('channel', ))
        if not (mixed or getattr(operator, 'unit_range', False)):
            return replace_range(raw, lr, operator, self.strength, check)
        if channels > 1 and lr.shape[1] != channels:
            raise ValueError(f'{type(operator).__name__} gives {lr.shape[1]} channels, so it needs '
                             f'the same mean and std for all {channels} channels of the image')
        mean, std = self.mean.to(wide), self.std.to(wide)
        raw, lr = ((tensor * std + mean) / 255 for tensor in (raw, lr))
        return (replace_range(raw, lr, operator, self.strength, check) * 255 - mean) / std
