"""Block-based compressed sensing (paper appendix D)."""
import math

import torch

from ..utils.validation import MOST_CHANNELS, check_number
from .base import LinearOperator, cached, check_positive_int
from .builder import OPERATORS

__all__ = ['BlockCompressedSensing']


@cached(maxsize=16)
def _sampling_matrix(count, size, seed):
    """First ``count`` rows of a random orthogonal (size, size) matrix."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(noise).Q.T[:count]


@OPERATORS.register_module()
class BlockCompressedSensing(LinearOperator):
    """Random orthonormal projections of each block of each channel.

    The rows are orthonormal, A Aᵀ = I, so A† = Aᵀ and ‖A†‖ = 1.  Random rows
    do not map constants to constants: ``unit_range``.

    Args:
        ratio (float): Share of measurements, in (0, 1]; ⌈ratio · block²⌉ per block.
        block (int): Side of a block.
        seed (int): Of the random matrix.

    Shape:
        Image (N, C, H, W), H and W multiples of the block; measurement
        (N, C·q, H/block, W/block), the q values of a channel side by side.

    Example:
        >>> import torch
        >>> from mmpd.operators import BlockCompressedSensing
        >>> operator = BlockCompressedSensing(ratio=0.25, block=8)
        >>> y = operator.A(torch.rand(1, 1, 16, 16))  # 16 numbers for each block of 64 pixels
        >>> tuple(y.shape)
        (1, 16, 2, 2)
        >>> torch.allclose(operator.A(operator.A_dagger(y)), y, atol=1e-5)
        True
    """
    unit_range = True
    tight = True
    axes = frozenset(('space',))
    noise_gain = 1.0
    products = ('matmul',)

    def __init__(self, ratio=0.25, block=32, seed=0):
        super().__init__()
        self.ratio = check_number(ratio, 'ratio', above=0, most=1)
        self.seed = check_positive_int(seed, 'seed', least=0, most=2**63 - 1)
        self.block = check_positive_int(block, 'block', most=MOST_CHANNELS)
        # 1e-9 keeps 0.1 * 100 (10.000000000000002 for some ratios) from becoming 11
        self.count = math.ceil(self.ratio * self.block**2 - 1e-9)

    def extra_repr(self):
        return f'ratio={self.ratio}, block={self.block}, seed={self.seed}'

    def measurement_shape(self, shape):
        self._check_divisible(shape, self.block)
        return shape[0] * self.count, shape[1] // self.block, shape[2] // self.block

    def image_shape(self, shape):
        if shape[0] % self.count:
            raise ValueError(f'measurement: expected a multiple of {self.count} channels '
                             f'for {self!r}, got {shape[0]}')
        return shape[0] // self.count, shape[1] * self.block, shape[2] * self.block

    def _matrix(self, like):
        return _sampling_matrix(self.count, self.block**2, self.seed, dtype=like.dtype,
                                device=like.device)

    def _A(self, x):
        n, c, height, width = x.shape
        b = self.block
        blocks = x.reshape(n, c, height // b, b, width // b, b).permute(0, 1, 3, 5, 2, 4)
        blocks = blocks.reshape(n, c, b * b, -1)
        return (self._matrix(x) @ blocks).view(n, -1, height // b, width // b)

    def _A_adjoint(self, y):
        n, channels, h, w = y.shape
        b = self.block
        blocks = self._matrix(y).T @ y.reshape(n, channels // self.count, self.count, h * w)
        blocks = blocks.view(n, -1, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
        return blocks.reshape(n, -1, h * b, w * b)

    def _A_dagger(self, y):
        return self._A_adjoint(y)
