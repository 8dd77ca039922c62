"""Colour to grey (paper appendix D)."""
import torch

from ..utils.validation import check_number, check_sequence, refuse
from .base import LinearOperator
from .builder import OPERATORS

__all__ = ['Grayscale']


@OPERATORS.register_module()
class Grayscale(LinearOperator):
    """Weighted mean over the channels; A† = wᵀ / Σ w².

    A is the row vector w of every pixel, hence A Aᵀ = Σ w² and
    A† = wᵀ / Σ w²; the paper's listing leaves that factor as ``base = 1``, and
    the grey image is one channel here instead of three copies.

    Args:
        weights (Sequence[float]): One weight per channel.  The paper takes
            1/3 each; (0.299, 0.587, 0.114) is BT.601.  If they do not sum
            to 1 the operator is applied in [0, 1] (``unit_range``).

    Shape:
        Image (N, C, H, W), C the number of weights; measurement (N, 1, H, W).

    Example:
        >>> import torch
        >>> from mmpd.operators import Grayscale
        >>> operator = Grayscale()
        >>> red, grey = torch.tensor([0.9, 0, 0]).view(1, 3, 1, 1), torch.full((1, 1, 1, 1), 0.5)
        >>> operator.project(red, grey).flatten()  # of mean 0.5, and as red
        tensor([1.1000, 0.2000, 0.2000])
    """
    scale = 1
    tight = True
    axes = frozenset(('channel',))
    products = ()

    def __init__(self, weights=(1 / 3, 1 / 3, 1 / 3)):
        super().__init__()
        self.weights = tuple(check_sequence(weights, 'weights', check_number))
        self.square = sum(w * w for w in self.weights)
        if not 0 < self.square < float('inf'):
            refuse('weights', 'finite numbers, not all 0', weights)
        self.unit_range = abs(sum(self.weights) - 1) > 1e-6

    def extra_repr(self):
        return f'weights={tuple(round(w, 4) for w in self.weights)}'

    @property
    def noise_gain(self):
        return self.square**-0.5

    def measurement_shape(self, shape):
        if shape[0] != len(self.weights):
            raise ValueError(f'image: expected {len(self.weights)} channels, one for each weight '
                             f'of {self!r}, got {shape[0]}')
        return 1, shape[1], shape[2]

    def image_shape(self, shape):
        if shape[0] != 1:
            raise ValueError(f'measurement: expected 1 channel for {self!r}, got {shape[0]}')
        return len(self.weights), shape[1], shape[2]

    def _vector(self, like):
        return torch.tensor(self.weights, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)

    def _A(self, x):
        return (x * self._vector(x)).sum(1, keepdim=True)

    def _A_adjoint(self, y):
        return y * self._vector(y)

    def _A_dagger(self, y):
        return y * (self._vector(y) / self.square)
