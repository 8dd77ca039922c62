"""Pixels moved until a separable resizing gives back every LR value, around those that differ."""
import numpy as np
import torch

__all__ = ['ROUGH', 'differs', 'refine_rows']

ROUGH = 2e-3  # rounding errors of A in float32 are smaller
INSIDE = 0.35  # how far a value is moved beyond the edge of its unit; at most 0.5
DAMPING = 0.9  # neighbours move the pixels that they share in the same iteration
PATIENCE = 30  # iterations without a better image
WINDOWS = 1 << 17, 1 << 22  # pixels that are looked at at once: on the CPU they stay in the cache
MANY = 1 / 2  # as many pixels in windows: it is faster to move the whole image
AT_ONCE = 2  # iterations in which that may be done; it does not know which pixels are held
PARTS = 1 / 4  # as many pixels in parts: it is faster to resize the whole image
# Their multiples, without the integers, are spread evenly: 1/p and 1/p², p³ = p + 1, together over
# rows and columns, the golden section over iterations.
ROW, COLUMN, ITERATION = 0.7548776662466927, 0.5698402909980532, 0.6180339887498949


def differs(measured, lr, tolerance, most=255):
    """Which measured values are rounded to another LR value, or might be.

    A value halfway between two integers is rounded up by some and to even by others.
    """
    return (measured.clamp(0, most) - lr).abs() > 0.5 - tolerance


def _taps(matrix):
    """Where the weights of each row of a banded matrix begin, and the weights, (n), (n, taps)."""
    used = (matrix != 0).cpu().numpy()
    first = used.argmax(1)
    length = (matrix.shape[1] - used[:, ::-1].argmax(1) - first) * used.any(1)
    taps = int(length.max())  # a pixel that nothing looks at has none
    start = torch.from_numpy(first.clip(max=matrix.shape[1] - taps)).to(matrix.device)
    return start, matrix.gather(1, start[:, None] + torch.arange(taps, device=matrix.device))


def refine_rows(image, lr, operator, max_iterations, library=None, most=255, bounds=None):
    """Round an image to integers so that downsampling it gives the LR back.

    The image is projected unless that was done, clipped and rounded.  Then for each LR value that
    is not given back those pixels of its window that are not held by a bound are moved as far as
    brings the value into its unit.  They are moved along w |w|^(2 / scale), w being the row of A,
    so that few change, and rounded by thresholds that are spread evenly over neighbours, so that
    together they move as they should, always in the same way.  What fits is left alone: the cost
    is that of the windows.

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
    matrices = list(operator._factors('A', *pixels.shape[-2:], pixels))
    axes = [_taps(matrix) for matrix in matrices]
    seen_by = [_taps(matrix.T) for matrix in matrices]
    taps = [weights.shape[1] for _, weights in axes]
    power = 2 / operator.scale
    step = max(1, WINDOWS[pixels.is_cuda] // (taps[0] * taps[1]))
    buffer = torch.zeros_like(pixels).view(-1)
    known = lr if library is None else lr.to(integers)
    rounds_between = library is not None and library.rounds_between
    measured = operator.A(pixels) if library is None else None
    rounded, found = pixels.to(integers), None
    best, fewest, since = rounded.clone(), lr.numel() + 1, 0
    for count in range(max_iterations + 1):
        if library is None:
            wrong = differs(measured, lr, ROUGH, most)
        else:
            if found is not None:
                measured = _resize_parts(library, rounded, measured, found, max(taps))
            if measured is None or torch.equal(measured, known):  # the whole is the proof
                measured = library(rounded).contiguous()
            wrong = measured != known
        found = _places(wrong)
        since += 1
        if len(found) < fewest:
            best.copy_(rounded)
            fewest, since = len(found), 0
        if not fewest or since == PATIENCE:
            break
        if count < AT_ONCE and len(found) * taps[0] * taps[1] > pixels.numel() * MANY:
            # an integer of the library says less
            _move_all(pixels, (lr - measured) * wrong, matrices, operator._bands(pixels), buffer,
                      count, power, (low, high), INSIDE if library is None else 0)
            measured = operator.A(pixels) if library is None else None
            rounded, found = pixels.to(integers), None
            continue
        up = known.view(-1)[found] > measured.view(-1)[found]
        for flat, direction in zip(found.split(step), up.split(step), strict=True):
            touched, change = _move(pixels, lr, _indices(flat, lr), direction, axes, buffer, count,
                                    power, (low, high), rounds_between)
            rounded.view(-1)[touched] = pixels.view(-1)[touched].to(integers)
            if library is None:
                _measure_change(measured, touched, change, seen_by, pixels.shape)
    if fewest and library is not None:
        fewest = int((library(best) != known).sum())
    return best, fewest


def _resize_parts(library, image, measured, changed, taps):
    """What the library makes of an image that changed in some windows.

    Args:
        library (LibraryResize): The library.
        image (Tensor): Integers (N, C, H, W).
        measured (Tensor): (N, C, h, w), what it made of the image before.
        changed (Tensor): (K), flat indices of the LR values whose windows changed.
        taps (int): Side of a window.

    Returns:
        Tensor | None: Like ``measured``; None where resizing the whole image is faster.
    """
    scale, (h, w) = library.operator.scale, measured.shape[-2:]
    near = -(-taps // scale) - 1  # so far away windows overlap
    shown = 2 * near + 1  # what may have changed
    side = shown + (near + 1) // 2 * 2  # and what it sees
    if side > min(h, w) or len(changed) * (side * scale)**2 > image.numel() * PARTS:
        return None
    plane, i, j = _indices(changed, measured)

    def around(side):
        return [(place - side // 2).clamp(0, length - side)
                for place, length in ((i, h), (j, w))]

    starts, firsts = around(side), around(shown)
    parts = _cut(image.flatten(0, 1), (side * scale, side * scale), plane,
                 *(start * scale for start in starts))
    small = measured.new_empty(len(i), side, side)
    # at a border the library has its rule, elsewhere parts may lie side by side in one image
    edge = (starts[0] != i - side // 2) | (starts[1] != j - side // 2)
    if edge.any():
        small[edge] = library(parts[edge][:, None])[:, 0]
    if not edge.all():
        row = library(parts[~edge].transpose(0, 1).reshape(1, 1, side * scale, -1))
        small[~edge] = row.view(side, -1, side).transpose(0, 1)
    inner = _cut(small, (shown, shown), torch.arange(len(i), device=i.device),
                 *(first - start for first, start in zip(firsts, starts, strict=True)))
    measured.view(-1)[_windows(firsts, (shown, shown), plane, (h, w))] = inner
    return measured


def _places(mask):
    """Flat indices of what is True; on the CPU by NumPy, which is faster where few are."""
    if mask.is_cuda:
        return mask.flatten().nonzero().squeeze(1)
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def _indices(flat, images):
    """Of flat indices of images (N, C, h, w): the plane, row and column of each, (K)."""
    height, width = images.shape[-2:]
    return flat // (height * width), flat // width % height, flat % width


def _cut(planes, lengths, plane, rows, columns):
    """Windows (K, *lengths) of planes (P, H, W), that begin at ``rows``, ``columns`` (K)."""
    return planes.unfold(1, lengths[0], 1).unfold(2, lengths[1], 1)[plane, rows, columns]


def _windows(starts, lengths, planes, size):
    """Flat indices (K, rows, columns) of windows in planes of ``size``, which begin at (K), (K)."""
    (rows, columns), (height, width) = starts, size
    line = torch.arange(lengths[0], device=rows.device)[:, None] * width
    first = (planes * height + rows) * width + columns
    return first[:, None, None] + (line + torch.arange(lengths[1], device=rows.device))


def _measure_change(measured, touched, change, seen_by, shape):
    """Add to ``measured`` what A makes of a ``change`` (K) of the pixels ``touched`` (K)."""
    (row_start, row_weights), (column_start, column_weights) = seen_by
    height, width = shape[-2:]
    plane, i, j = touched // (height * width), touched // width % height, touched % width
    rows, columns = row_weights[i], column_weights[j]
    index = _windows((row_start[i], column_start[j]), (rows.shape[1], columns.shape[1]),
                     plane, measured.shape[-2:])
    seen = change[:, None, None] * rows[:, :, None] * columns[:, None]
    measured.view(-1).index_add_(0, index.view(-1), seen.view(-1))


def _thresholds(rows, columns, count, dtype):
    """In [0, 1), for rows (..., H) and columns (..., W) of an image, (..., H, W)."""
    rows = (rows.double() * ROW + count * ITERATION).frac().to(dtype)
    columns = (columns.double() * COLUMN).frac().to(dtype)
    return (rows[..., None] + columns[..., None, :]).frac_()


def _move_all(pixels, gap, matrices, bands, buffer, count, power, bounds, inside):
    """Move all windows, in place, as if no pixel were held by a bound.

    ``gap`` (N, C, h, w) is what is missing in LR values, 0 where they fit; the value is moved by
    half a unit less and by ``inside`` more.  ``buffer`` (N C H W) is zeros, and is left so.
    """
    along = [matrix * matrix.abs()**power for matrix in matrices]
    rows, columns = (reach.clamp(min=1e-6) for reach in (
        (part * matrix).sum(1) for part, matrix in zip(along, matrices, strict=True)))
    gap = (gap + gap.sign() * (inside - 0.5)) * DAMPING / (rows[:, None] * columns)
    wide = gap.new_zeros(*gap.shape[:3], pixels.shape[3])
    for (i, j), (a, b) in bands[1]:
        wide[..., a:b] += gap[..., i:j] @ along[1][i:j, a:b]
    change = buffer.view_as(pixels)
    for (i, j), (a, b) in bands[0]:
        change[..., a:b, :] += along[0][i:j, a:b].T @ wide[..., i:j, :]
    lines = [torch.arange(length, device=pixels.device) for length in pixels.shape[-2:]]
    change += _thresholds(*lines, count, pixels.dtype)
    pixels.add_(change).floor_().clamp_(*bounds)
    buffer.zero_()


def _move(pixels, lr, places, up, axes, buffer, count, power, bounds, rounds_between):
    """Move the windows of some LR values, in place.

    Args:
        pixels (Tensor): (N, C, H, W).
        lr (Tensor): (N, C, h, w).
        places (tuple[Tensor, Tensor, Tensor]): Plane, row and column of the LR values, (K).
        up (Tensor): (K), whether they have to become larger.
        axes (list[tuple[Tensor, Tensor]]): A, as :func:`_taps` gives it.
        buffer (Tensor): (N C H W), zeros, and is left so.
        count (int): Of the iteration.
        power (float): The move is along w |w|^power.
        bounds (tuple[int, int]): Least and largest pixel.
        rounds_between (bool): See :class:`LibraryResize`.

    Returns:
        tuple[Tensor, Tensor]: Flat indices of the pixels that changed, each once, and by how much.
    """
    low, high = bounds
    plane, i, j = places
    (row_start, row_weights), (column_start, column_weights) = axes
    rows, columns = row_weights[i], column_weights[j]
    starts, lengths = (row_start[i], column_start[j]), (rows.shape[1], columns.shape[1])
    window = _cut(pixels.flatten(0, 1), lengths, plane, *starts)
    middle = (window @ columns[:, :, None]).squeeze(2)
    sign = up.to(pixels.dtype) * 2 - 1
    push = sign[:, None] * rows
    if rounds_between:  # and clips: beyond that nothing changes
        push = push * torch.where(push > 0, middle < 255.5, middle > -0.5)
        middle = (middle + 0.5).floor().clamp(0, 255)
    # what is missing to the edge of the unit, and a bit; the library may round it otherwise
    missing = sign * (lr.flatten(0, 1)[plane, i, j] - (middle * rows).sum(1)) - 0.5 + INSIDE
    move = (push * rows.abs()**power)[:, :, None] * (columns * columns.abs()**power)[:, None]
    move *= torch.where(move > 0, window < high, window > low)
    reach = ((move @ columns[:, :, None]).squeeze(2) * push).sum(1).clamp(min=1e-9)
    move *= (DAMPING * missing.clamp(min=INSIDE / 2) / reach)[:, None, None]
    line = _windows(starts, lengths, plane, pixels.shape[-2:]).view(-1)
    change = buffer.index_add_(0, line, move.view(-1)).take(line).view_as(move)
    buffer.index_fill_(0, line, 0)
    at = (start[:, None] + torch.arange(length, device=start.device)
          for start, length in zip(starts, lengths, strict=True))
    after = change.add_(_thresholds(*at, count, change.dtype)).add_(window).floor_()
    after.clamp_(low, high)
    changed = _places(after != window)
    moved = line[changed]
    touched, flat = moved.unique(), pixels.view(-1)
    before = flat.take(touched)
    flat[moved] = after.view(-1)[changed]  # of one pixel all windows say the same
    return touched, flat.take(touched) - before
