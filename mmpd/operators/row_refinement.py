"""Pixels moved until a separable resizing gives back every LR value, around those that differ."""
import numpy as np
import torch

__all__ = ['ROUGH', 'differs', 'refine_rows']

ROUGH = 2e-3  # rounding errors of A in float32 are smaller
INSIDE = 0.4  # how far a value is moved beyond the edge of its unit; at most 0.5
DAMPING = 0.9  # neighbours move the pixels that they share in the same iteration
PATIENCE = 20  # iterations without a better image
WINDOWS = 1 << 22  # pixels that are looked at at once
FEW = 1 / 64  # of the pixels: looked at one by one; of more the whole image is faster


def differs(measured, lr, tolerance, most=255):
    """Which measured values are rounded to another LR value, or might be.

    A value halfway between two integers is rounded up by some and to even by others.
    """
    return (measured.clamp(0, most) - lr).abs() > 0.5 - tolerance


def _taps(matrix):
    """Where the weights of each row of a banded matrix begin, and the weights, (n), (n, taps)."""
    used = matrix != 0
    first = used.to(torch.uint8).argmax(1)
    length = matrix.shape[1] - used.flip(1).to(torch.uint8).argmax(1) - first
    taps = int((length * used.any(1)).max())  # a pixel that nothing looks at has none
    start = first.clamp(max=matrix.shape[1] - taps)
    return start, matrix.gather(1, start[:, None] + torch.arange(taps, device=matrix.device))


def refine_rows(image, lr, operator, max_iterations, library=None, most=255, bounds=None):
    """Round an image to integers so that downsampling it gives the LR back.

    The image is projected unless that was done, clipped and rounded.  Then for each LR value that
    is not given back those pixels of its window that are not held by a bound
    are moved along its row of A, as far as brings the value into its unit,
    and rounded up or down at random (always in the same way), so that on
    average the move is as it should be.  What fits is left alone: the cost is
    that of the windows, and with a library of one downsampling for each iteration.

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
    lr = lr.to(wide).contiguous()
    pixels = image.to(wide)
    error = lr - operator.A(pixels)
    if error.abs().max() > ROUGH:
        pixels = pixels + operator.A_dagger(error)
    pixels = pixels.clamp(low, high).round().contiguous()
    generator = torch.Generator(pixels.device).manual_seed(0)
    matrices = list(operator._factors('A', *pixels.shape[-2:], pixels))
    axes = [_taps(matrix) for matrix in matrices]
    seen_by = [_taps(matrix.T) for matrix in matrices]
    step = max(1, WINDOWS // (axes[0][1].shape[1] * axes[1][1].shape[1]))
    known = lr if library is None else lr.to(integers)
    measured = operator.A(pixels) if library is None else None
    best, fewest, since = None, None, 0
    for _ in range(max_iterations + 1):
        rounded = pixels.to(integers)
        if library is None:
            wrong = differs(measured, lr, ROUGH, most)
        else:
            measured = library(rounded).contiguous()
            wrong = measured != known
        found = _places(wrong)
        since += 1
        if fewest is None or len(found) < fewest:
            best, fewest, since = rounded, len(found), 0
        if not fewest or since == PATIENCE:
            break
        up = known.view(-1)[found] > measured.view(-1)[found]
        for flat, direction in zip(found.split(step), up.split(step), strict=True):
            rest, j = flat // lr.shape[3], flat % lr.shape[3]
            plane, i = rest // lr.shape[2], rest % lr.shape[2]
            places = torch.stack((plane // lr.shape[1], plane % lr.shape[1], i, j), 1)
            touched, change = _move(pixels, lr, places, direction, axes, generator, (low, high),
                                    library is not None and library.rounds_between)
            if library is None and len(touched) < pixels.numel() * FEW:
                _measure_change(measured, touched, change, seen_by, pixels.shape)
            elif library is None:
                measured = operator.A(pixels)
    return best, fewest


def _places(mask):
    """Flat indices of what is True; on the CPU by NumPy, which is faster where few are."""
    if mask.is_cuda:
        return mask.flatten().nonzero().squeeze(1)
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def _windows(starts, lengths, planes, size):
    """Flat indices (K, rows, columns) of windows in planes of ``size``, which begin at (K), (K)."""
    (rows, columns), (height, width) = starts, size
    line = torch.arange(lengths[0], device=rows.device)[:, None] * width
    first = (planes * height + rows) * width + columns
    return first[:, None, None] + line + torch.arange(lengths[1], device=rows.device)


def _measure_change(measured, touched, change, seen_by, shape):
    """Add to ``measured`` what A makes of a ``change`` (K) of the pixels ``touched`` (K)."""
    (row_start, row_weights), (column_start, column_weights) = seen_by
    height, width = shape[-2:]
    i, j = touched // width % height, touched % width
    rows, columns = row_weights[i], column_weights[j]
    index = _windows((row_start[i], column_start[j]), (rows.shape[1], columns.shape[1]),
                     touched // (height * width), measured.shape[-2:])
    seen = change[:, None, None] * rows[:, :, None] * columns[:, None]
    measured.view(-1).index_add_(0, index.view(-1), seen.view(-1))


def _move(pixels, lr, places, up, axes, generator, bounds, rounds_between):
    """Move the windows of the LR values at ``places`` (K, 4), in place; ``up`` (K): upwards.

    Returns:
        tuple[Tensor, Tensor]: Flat indices of the pixels that were looked at, and their change.
    """
    low, high = bounds
    n, c, i, j = places.T
    (row_start, row_weights), (column_start, column_weights) = axes
    rows, columns = row_weights[i], column_weights[j]
    flat = pixels.view(-1)
    index = _windows((row_start[i], column_start[j]), (rows.shape[1], columns.shape[1]),
                     n * pixels.shape[1] + c, pixels.shape[-2:])
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
    if index.numel() < flat.numel() * FEW:
        touched, inverse = index.unique(return_inverse=True)
        change = flat.new_zeros(len(touched)).index_add_(0, inverse.view(-1), move.view(-1))
    else:
        change = torch.zeros_like(flat).index_add_(0, index.view(-1), move.view(-1))
        touched = change.nonzero().squeeze(1)
        change = change[touched]
    chance = torch.rand(len(touched), generator=generator, device=flat.device)
    before = flat[touched]
    flat[touched] = (before + change + chance).floor_().clamp_(low, high)
    return touched, flat[touched] - before
