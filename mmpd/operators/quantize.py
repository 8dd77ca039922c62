"""Integer images that stay consistent (paper appendix B names the problem)."""
import numpy as np
import torch

from .alternating import alternating_projections
from .base import check_batch, check_positive_int
from .decomposition import apply
from .library_resize import LibraryResize
from .resize import SeparableResize
from .resolve import resolve_operator
from .row_refinement import ROUGH, differs, refine_rows

__all__ = ['clip_uint8', 'consistent_integers', 'consistent_uint8', 'unmatched_values']

# Values outside 0..255 by more than 32768 are taken for another unit: no network overshoots so
# far, 16-bit images do. (Images in [0, 1] cannot be told from dark ones.)
MARGIN = 128  # in units of the whole range
FIRST_STEP, LAST_STEP, GROWTH, MOST_BOOST = 1.2, 0.4, 1.3, 256  # of _refine, found by trial
PATCHES = 1 << 18  # pixels whose patches are looked at at once: they stay in the cache
COST_BITS = 40  # of the fraction of a cost: finer than float64 has them beyond 4096
DEEP = 5  # iterations within the bounds for each of the search, with 16 bits
CLOSE = 0.3  # units that these may leave to the search
HALFWAY = 1e-6  # float64 leaves less; float32 less than ROUGH


def clip_uint8(image):
    """Clip to 0..255 and round, as the paper's evaluation does: consistency is lost.

    Args:
        image (Tensor): Finite floating point (N, C, H, W) in units of 0..255.

    Returns:
        Tensor: uint8, same shape.

    Example:
        >>> import torch
        >>> from mmpd.operators import clip_uint8
        >>> clip_uint8(torch.tensor([[[[-3., 0.4], [254.7, 300.]]]])).tolist()
        [[[[0, 0], [255, 255]]]]
    """
    _check_image(image)
    return image.float().clamp(0, 255).round().to(torch.uint8)


def consistent_uint8(image, lr, operator, max_iterations=100, return_unmatched=False,
                     made_by=None):
    """The 8-bit image nearest to ``image`` that degrades to ``lr``.

    For average pooling (and anything else with ``patch_mean``) the result is
    exact and optimal: among all uint8 patches whose mean *is* the LR value it
    is the one with the least squared distance to the given patch.  For
    :class:`SeparableResize` the projected and rounded image is refined around
    the LR values that differ, see :func:`refine_rows`; for every other
    operator alternating projections with the rounding error fed back are run.
    Either ends when A gives back every LR value or after ``max_iterations``;
    the iterate with the fewest differing LR values is returned.

    Args:
        image (Tensor): Finite floating point (N, C, H, W) in units of 0..255.
            Values may overshoot, as network outputs do, by up to 32768.
        lr (Tensor): (N, c, h, w), uint8 or integers in 0..255 in floating point.
        operator (LinearOperator | dict): The degradation, in units of 0..255, or its config,
            see :func:`resolve_operator`.
        max_iterations (int): Bound of the refinement for general operators.
        return_unmatched (bool): Also return how many LR values differ.
        made_by (str, optional): Whose 8-bit arithmetic made the LR and has to give it back:
            'pil', 'torch', 'torch_uint8', 'opencv' or 'matlab', see :class:`LibraryResize`.
            By default (or 'float') A x, rounded once, half up as well as half to even.

    Returns:
        Tensor | tuple[Tensor, int]: uint8 (N, C, H, W); with
        ``return_unmatched`` also the number of LR values that downsampling
        the result, by that library, does not reproduce (0 for average pooling rounded once).

    Raises:
        ValueError: Integer or non-finite image, values beyond the range, an
            LR that is not 8-bit, sizes that do not fit, or a library that
            has no such resizing.

    Example:
        >>> import torch
        >>> from mmpd.operators import average_pool, consistent_uint8
        >>> image = torch.rand(1, 3, 16, 16) * 255
        >>> lr = torch.randint(256, (1, 3, 4, 4), dtype=torch.uint8)
        >>> result = consistent_uint8(image, lr, dict(type='AveragePooling'))
        >>> result.dtype
        torch.uint8
        >>> torch.equal(average_pool(result.float(), 4), lr.float())
        True
    """
    return consistent_integers(image, lr, operator, 255, None, max_iterations, return_unmatched,
                               made_by)


def consistent_integers(image, lr, operator, most=255, bounds=None, max_iterations=100,
                        return_unmatched=False, made_by=None):
    """:func:`consistent_uint8` for integers of any depth, within any bounds.

    Args:
        image, lr, operator, max_iterations, return_unmatched: As for :func:`consistent_uint8`, in
            units of 0..most.
        most (int): The largest value: 255, or 65535 for 16 bits.
        bounds (tuple[int, int], optional): Least and largest value of the result. Defaults to 0
            and ``most``.
        made_by (str, optional): As for :func:`consistent_uint8`; 'pil' and 'torch_uint8' have 8
            bits only.

    Returns:
        Tensor | tuple[Tensor, int]: As for :func:`consistent_uint8`; int32 beyond 255.

    Raises:
        ValueError: As for :func:`consistent_uint8`; an LR that is not within the bounds.
    """
    bounds = bounds or (0, most)
    _check_image(image, most)
    lr = _check_lr(lr, image, bounds)
    operator = resolve_operator(operator, image.shape, lr.shape, image.device)
    check_positive_int(max_iterations, 'max_iterations', least=0)
    library = None if made_by in (None, 'float') else LibraryResize(operator, made_by, most)
    if hasattr(operator, 'check_pair'):
        operator.check_pair(image, lr)
    patch_mean = getattr(operator, 'patch_mean', False)
    if patch_mean:
        result, unmatched = _nearest_in_patches(image, lr, operator.scale, most, bounds), 0
        if library is not None:
            unmatched = int((library(result) != lr).sum())
    if not patch_mean or unmatched:
        resize = operator if library is None else library.operator
        if isinstance(resize, SeparableResize):
            start = result.double() if patch_mean else image
            if most > 255 and not patch_mean:
                start = _within(image, lr, resize, max_iterations, most, bounds)
            result, unmatched = refine_rows(start, lr, resize, max_iterations, library, most,
                                            bounds)
            if library is None:
                unmatched = unmatched_values(result, lr, operator, most)
        else:
            result = _refine(image, lr, operator, max_iterations, most, bounds)
            unmatched = unmatched_values(result, lr, operator, most)
    return (result, unmatched) if return_unmatched else result


def _integers(most):
    return torch.uint8 if most <= 255 else torch.int32


def _check_image(image, most=255):
    check_batch(image, 'image')
    low, high = image.min().item(), image.max().item()
    margin = MARGIN * (most + 1)
    if not (low >= -margin and high <= most + margin):
        raise ValueError(f'image: expected finite values in units of 0..{most} '
                         f'(at most {margin} beyond), got range [{low:g}, {high:g}]')


def _check_lr(lr, image, bounds):
    low, high = bounds
    small = isinstance(lr, torch.Tensor) and lr.dtype == torch.uint8
    if not small:
        check_batch(lr, 'lr')
    if not (small and bounds == (0, 255)) and not (
            (lr >= low) & (lr <= high) & (lr == lr.round())).all():
        raise ValueError(f'lr: expected integers in {low}..{high}, got values in '
                         f'[{lr.min().item():g}, {lr.max().item():g}], not all integers in it')
    return lr.to(image.device, torch.float64)


def _nearest_in_patches(image, lr, scale, most, bounds):
    """Exact least squares over integers, patch by patch.

    The cost is separable and convex, so the greedy solution is optimal: for
    some shift t of the patch every pixel is clip(round(v + t)), where ties at
    the last step are free.  ``low`` and ``high`` bracket that shift closer than
    one unit, hence each pixel takes its value at ``low`` or one more, and the
    missing units go to the pixels for which they cost least.
    """
    n, c, height, width = image.shape
    h, w = height // scale, width // scale
    source = image.reshape(n * c * h, scale, w, scale)
    result = torch.empty(source.shape, dtype=_integers(most), device=image.device)
    totals = lr.reshape(n * c * h, w) * scale**2
    step = len(source) if image.is_cuda else max(1, PATCHES // (scale * width))
    for start in range(0, len(source), step):
        part = source[start:start + step].transpose(1, 2)
        patches = torch.empty(part.shape, dtype=torch.float64, device=image.device).copy_(part)
        found = _nearest_with_sum(patches.view(-1, scale * scale),
                                  totals[start:start + step].reshape(-1, 1), bounds)
        result[start:start + step] = found.view(part.shape).transpose(1, 2)
    return result.view(image.shape)


def _nearest_with_sum(patches, total, bounds):
    """The integers nearest to the numbers of each row of (K, s²) whose sum is ``total`` (K, 1)."""
    least, largest = bounds
    count = patches.shape[1]
    shift = (total - patches.sum(1, keepdim=True)) / count
    low, high = shift - 0.5, shift + 0.5
    # where nothing is clipped round(v + shift ± 0.5) already brackets the sum
    clipped = ((patches.amin(1, keepdim=True) + low < least - 0.5)
               | (patches.amax(1, keepdim=True) + high > largest + 0.5)).squeeze(1)
    if clipped.any():
        low[clipped], high[clipped] = _bracket(patches[clipped], total[clipped], bounds)

    base = _round_clip(patches + low, bounds)
    room = _round_clip(patches + high, bounds) > base
    missing = (total - base.sum(1, keepdim=True)).long()
    # The cost of one more unit is 2 (base - v) + 1: cheapest first.  As integers, with the place
    # behind the cost, no two are equal: the last one that gets a unit divides them.
    bits = min(COST_BITS, 61 - count.bit_length())
    cost = ((base - patches - low) * 2**bits).long() * count
    cost += torch.arange(count, device=patches.device)
    cost.masked_fill_(~room, torch.iinfo(torch.int64).max)
    last = _sorted(cost).gather(1, (missing - 1).clamp(min=0))
    return base.add_((cost <= last) & (missing > 0))


def _sorted(rows):
    """Each row in order; on the CPU by NumPy, whose sort of integers is ten times torch's."""
    if rows.is_cuda:
        return rows.sort(1).values
    return torch.from_numpy(np.sort(rows.numpy(), axis=1))


def _within(image, lr, operator, max_iterations, most, bounds):
    """The image within the bounds whose A x is the LR, but for a part of a unit.

    Where 16 bits are clipped thousands of units are missing, of which :func:`refine_rows` would
    make up a share in each iteration.
    """
    planes = [alternating_projections(x[None, None], y[None, None], operator.A, operator.A_dagger,
                                      *bounds, None, DEEP * max_iterations, CLOSE / most)
              for x, y in zip(image.double().flatten(0, 1), lr.flatten(0, 1), strict=True)]
    return torch.cat(planes).view(image.shape)


def _round_clip(values, bounds):
    return values.round_().clamp_(*bounds)


def _bracket(patches, total, bounds):
    """Bisect the shift of each patch until low and high are less than one unit apart."""
    low = bounds[0] - patches.amax(1, keepdim=True) - 1
    high = bounds[1] + 1 - patches.amin(1, keepdim=True)
    while (high - low).max() >= 1:
        middle = (low + high) / 2
        below = _round_clip(patches + middle, bounds).sum(1, keepdim=True) <= total
        low = torch.where(below, middle, low)
        high = torch.where(below, high, middle)
    return low, high


def _refine(image, lr, operator, max_iterations, most, bounds):
    """Alternating projections in float32 (16 bits: float64) with the rounding error fed back.

    Only what differs is corrected: a correction of all that is inexact would
    keep changing the rounding of pixels that fit.  The step shrinks and varies
    by half from pixel to pixel (always in the same way): pixels whose
    roundings flip together would overshoot for ever.  Where the bounds hold most pixels that an
    LR value depends on, little of its correction is left: it is boosted for
    as long as it falls short.
    """
    wide = torch.float32 if most <= 255 else torch.float64
    x, target = image.to(wide), lr.to(wide)
    generator = torch.Generator(x.device).manual_seed(0)
    best, fewest, boost, before = None, None, torch.ones_like(target), torch.zeros_like(target)
    for step in torch.linspace(FIRST_STEP, LAST_STEP, max_iterations + 1).tolist():
        rounded = x.clamp(*bounds).round()
        measured = apply(operator, 'A', rounded)
        if measured.shape != lr.shape:
            raise ValueError(f'lr: expected shape {tuple(measured.shape)} for an image of shape '
                             f'{tuple(image.shape)}, got {tuple(lr.shape)}')
        wrong = differs(measured, target, ROUGH, most)
        unmatched = int(wrong.sum())
        if fewest is None or unmatched < fewest:
            best, fewest = rounded, unmatched
        if fewest == 0:
            break
        error = (target - measured) * wrong
        boost = torch.where(error * before > 0, boost * GROWTH, (boost / 2).clamp(min=1))
        before = error
        correction = apply(operator, 'A_dagger', error * boost.clamp(max=MOST_BOOST))
        uneven = torch.rand(x.shape, generator=generator, device=x.device) + 0.5
        x = x.clamp(*bounds) + correction * uneven * step
    return best.to(_integers(most))


def unmatched_values(result, lr, operator, most=255, made_by=None):
    """How many LR values downsampling a finished image does not give back.

    Args:
        result (Tensor): Integers (N, C, H, W), uint8 or int32.
        lr (Tensor): (N, c, h, w), integers in floating point.
        operator (LinearOperator | object): A.
        most, made_by: As for :func:`consistent_integers`.
    """
    if made_by in (None, 'float'):
        return int(differs(apply(operator, 'A', result.double()), lr, HALFWAY, most).sum())
    return int((LibraryResize(operator, made_by, most)(result) != lr).sum())
