"""The pooling-based decomposition as the last layer of a network."""
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
            :func:`mmpd.operators.build_operator`.
        strength (float): In [0, 1]. 1 (the paper) makes the output consistent,
            0 returns the raw output; between them for a noisy LR.
        mean (float | Sequence[float]): Mean of the model's data preprocessor,
            in 0..255.
        std (float | Sequence[float]): Its std.  mean and std matter for
            operators with ``unit_range`` only, which are applied in [0, 1].

    Shape:
        raw (N, C, H, W) and lr (N, c, h, w), both normalised with mean and
        std ([-1, 1] by default); output (N, C, H, W), float32 (float64 if an
        input is), never reduced precision, not even under autocast.
    """

    def __init__(self, operator=None, strength=1.0, mean=127.5, std=127.5):
        super().__init__()
        self.operator = build_operator(operator or dict(type='AveragePooling', scale=8))
        if not 0 <= strength <= 1:
            raise ValueError(f'strength: expected a number in [0, 1], got {strength!r}')
        self.strength = float(strength)
        self.mean, self.std = _single(mean, 'mean'), _single(std, 'std')
        if self.std <= 0:
            raise ValueError(f'std: expected a positive number, got {std!r}')

    def extra_repr(self):
        return f'strength={self.strength}, mean={self.mean}, std={self.std}'

    def forward(self, raw, lr):
        """x̂ = raw + strength · A†(lr - A raw)."""
        wide = torch.float64 if torch.float64 in (raw.dtype, lr.dtype) else torch.float32
        # not in training: the first steps of fp16 may overflow, which the gradient scaler handles
        check = not self.training
        for tensor, name in ((raw, 'raw'), (lr, 'lr')):
            if not tensor.is_floating_point():
                raise ValueError(f'{name}: expected a floating point tensor, got {tensor.dtype}')
        raw, lr = raw.to(wide), lr.to(wide)
        if not getattr(self.operator, 'unit_range', False):
            return replace_range(raw, lr, self.operator, self.strength, check)
        raw, lr = ((tensor * self.std + self.mean) / 255 for tensor in (raw, lr))
        return (replace_range(raw, lr, self.operator, self.strength, check) * 255
                - self.mean) / self.std


def _single(value, name):
    values = set(value) if isinstance(value, (list, tuple)) else {value}
    if len(values) != 1:
        raise ValueError(f'{name}: expected the same number for every channel, got {value!r}')
    return float(values.pop())
