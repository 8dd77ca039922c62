"""Pixels moved until a separable resizing gives back every LR value, around those that differ."""
import torch

__all__ = ['ROUGH', 'differs', 'refine_rows']

ROUGH = 2e-3  # rounding errors of A in float32 are smaller
INSIDE = 0.4  # how far a value is moved beyond the edge of its unit; at most 0.5
DAMPING = 0.7  # neighbours move the pixels that they share in the same iteration
PATIENCE = 20  # iterations without a better image
WINDOWS = 1 << 22  # pixels that are looked at at once


def differs(measured, lr, tolerance, most=255):
    """Which measured values are rounded to another LR value, or might be.

    A value halfway between two integers is rounded up by some and to even by others.
    """
    return (measured.clamp(0, most) - lr).abs() > 0.5 - tolerance


def _taps(matrix):
    """Where the weights of each row of a banded matrix begin, and the weights, (n), (n, taps)."""
    used = matrix != 0
    first = used.to(torch.uint8).argmax(1)
    taps = int((matrix.shape[1] - used.flip(1).to(torch.uint8).argmax(1) - first).max())
    start = first.clamp(max=matrix.shape[1] - taps)
    return start, matrix.gather(1, start[:, None] + torch.arange(taps, device=matrix.device))


def refine_rows(image, lr, operator, max_iterations, library=None, most=255, bounds=None):
    """Round an image to integers so that downsampling it gives the LR back.

    The image is projected, clipped and rounded.  Then for each LR value that
    is not given back those pixels of its window that are not held by a bound
    are moved along its row of A, as far as brings the value into its unit,
    and rounded up or down at random (always in the same way), so that on
    average the move is as it should be.  What fits is left alone: the cost is
    that of the windows, and of one downsampling for each iteration.

    Args:
        image (Tensor): Floating point (N, C, H, W) in units of 0..most.
        lr (Tensor): (N, C, h, w), integers in 0..most in floating point.
        operator (SeparableResize): A.
        max_iterations (int): Bound.
        library (LibraryResize, optional): What has to give the LR back; by
            default A itself, in float32, rounded in any way.
        most (int): 255, or 65535, for which float32 is too coarse: all is done in float64.
        bounds (tuple[int, int], optional): Least and largest pixel. Defaults to 0 and ``most``.

    Returns:
        tuple[Tensor, int]: uint8 (int32 beyond 255) (N, C, H, W) and how many LR values differ.
    """
    low, high = bounds or (0, most)
    wide, integers = ((torch.float32, torch.uint8) if most <= 255 else
                      (torch.float64, torch.int32))
    lr = lr.to(wide)
    pixels = operator.project(image.to(wide), lr).clamp(low, high).round().contiguous()
    generator = torch.Generator(pixels.device).manual_seed(0)
    axes = [_taps(matrix) for matrix in operator._factors('A', *pixels.shape[-2:], pixels)]
    step = max(1, WINDOWS // (axes[0][1].shape[1] * axes[1][1].shape[1]))
    best, fewest, since = None, None, 0
    for _ in range(max_iterations + 1):
        if library is None:
            measured = operator.A(pixels)
            wrong = differs(measured, lr, ROUGH, most)
        else:
            measured = library(pixels.to(integers)).to(wide)
            wrong = measured != lr
        unmatched = int(wrong.sum())
        since += 1
        if fewest is None or unmatched < fewest:
            best, fewest, since = pixels.to(integers), unmatched, 0
        if not fewest or since == PATIENCE:
            break
        up = (lr > measured)[wrong]
        for places, direction in zip(wrong.nonzero().split(step), up.split(step), strict=True):
            _move(pixels, lr, places, direction, axes, generator, (low, high),
                  library is not None and library.rounds_between)
    return best, fewest


def _move(pixels, lr, places, up, axes, generator, bounds, rounds_between):
    """Move the windows of the LR values at ``places`` (K, 4), in place; ``up`` (K): upwards."""
    low, high = bounds
    n, c, i, j = places.T
    (row_start, row_weights), (column_start, column_weights) = axes
    rows, columns = row_weights[i], column_weights[j]
    height, width = pixels.shape[-2:]
    flat = pixels.view(-1)
    first = ((n * pixels.shape[1] + c) * height + row_start[i]) * width + column_start[j]
    line = torch.arange(rows.shape[1], device=flat.device)[:, None] * width
    index = first[:, None, None] + line + torch.arange(columns.shape[1], device=flat.device)
    window = flat[index]
    middle = (window * columns[:, None]).sum(2)
    if rounds_between:
        middle = (middle + 0.5).floor().clamp(0, 255)
    sign = up.to(flat.dtype) * 2 - 1
    # what is missing to the edge of the unit, and a bit; the library may round it otherwise
    missing = sign * (lr[n, c, i, j] - (middle * rows).sum(1)) - 0.5 + INSIDE
    move = sign[:, None, None] * rows[:, :, None] * columns[:, None]
    move *= torch.where(move > 0, window < high, window > low)
    reach = move.square().sum((1, 2)).clamp(min=1e-6)
    move *= (DAMPING * missing.clamp(min=INSIDE / 2) / reach)[:, None, None]
    change = torch.zeros_like(flat).index_add_(0, index.view(-1), move.view(-1))
    touched = change.nonzero().squeeze(1)
    chance = torch.rand(len(touched), generator=generator, device=flat.device)
    flat[touched] = (flat[touched] + change[touched] + chance).floor_().clamp_(low, high)
