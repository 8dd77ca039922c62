"""Images that leave a range, which PD is to keep them in."""
import torch

from mmpd.operators import AveragePooling

BOUNDS = (-1.0, 1.0)


def case(scale, seed=0, spread=0.9, dtype=torch.float64, size=(2, 3, 4, 5), bounds=BOUNDS):
    """An image, many patches of which leave the range, and an LR inside, some of it at a bound."""
    n, c, h, w = size
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, c, h * scale, w * scale, generator=generator, dtype=torch.float64) * spread
    y = torch.rand(size, generator=generator, dtype=torch.float64) * 2 - 1
    (low, high), middle = bounds, sum(bounds) / 2
    x, y = (middle + tensor * (high - low) / 2 for tensor in (x, y))
    y[0, 0, 0, 0], y[-1, -1, -1, -1] = bounds
    return x.to(dtype), y.clamp(low, high).to(dtype)


def ours(x, y):
    return AveragePooling(4).project(x, y, bounds=BOUNDS)
