"""8-bit images that stay consistent (paper appendix B names the problem)."""
import torch

from .base import check_batch, check_positive_int
from .decomposition import apply
from .library_resize import LibraryResize
from .resize import SeparableResize
from .resolve import resolve_operator
from .row_refinement import ROUGH, differs, refine_rows

__all__ = ['clip_uint8', 'consistent_uint8']

# Values outside 0..255 by more than this are taken for another unit: no network overshoots so far,
# 16-bit images do. (Images in [0, 1] cannot be told from dark ones.)
MARGIN = 1 << 15
MOST_BOOST = 256
HALFWAY = 1e-6  # float64 leaves less; float32 less than ROUGH


def clip_uint8(image):
    """Clip to 0..255 and round, as the paper's evaluation does: consistency is lost.

    Args:
        image (Tensor): Finite floating point (N, C, H, W) in units of 0..255.

    Returns:
        Tensor: uint8, same shape.
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
    """
    _check_image(image)
    lr = _check_lr(lr, image)
    operator = resolve_operator(operator, image.shape, lr.shape, image.device)
    check_positive_int(max_iterations, 'max_iterations', least=0)
    library = None if made_by in (None, 'float') else LibraryResize(operator, made_by)
    if hasattr(operator, 'check_pair'):
        operator.check_pair(image, lr)
    patch_mean = getattr(operator, 'patch_mean', False)
    if patch_mean:
        result, unmatched = _nearest_in_patches(image, lr, operator.scale), 0
        if library is not None:
            unmatched = int((library(result) != lr).sum())
    if not patch_mean or unmatched:
        if library is not None:
            start = result.float() if patch_mean else image
            result, unmatched = refine_rows(start, lr, library.operator, max_iterations, library)
        elif isinstance(operator, SeparableResize):
            result, _ = refine_rows(image, lr, operator, max_iterations)
            unmatched = _count(result, lr, operator)
        else:
            result = _refine(image, lr, operator, max_iterations)
            unmatched = _count(result, lr, operator)
    return (result, unmatched) if return_unmatched else result


def _check_image(image):
    check_batch(image, 'image')
    low, high = image.min().item(), image.max().item()
    if not (low >= -MARGIN and high <= 255 + MARGIN):
        raise ValueError('image: expected finite values in units of 0..255 '
                         f'(at most {MARGIN} beyond), got range [{low:g}, {high:g}]')


def _check_lr(lr, image):
    if not isinstance(lr, torch.Tensor):
        raise ValueError(f'lr: expected a torch.Tensor, got {type(lr).__name__}')
    if lr.dtype != torch.uint8:
        check_batch(lr, 'lr')
        if not ((lr >= 0) & (lr <= 255) & (lr == lr.round())).all():
            raise ValueError('lr: expected integers in 0..255, got values in '
                             f'[{lr.min().item():g}, {lr.max().item():g}], not all integers in it')
    return lr.to(image.device, torch.float64)


def _nearest_in_patches(image, lr, scale):
    """Exact least squares over integers, patch by patch.

    The cost is separable and convex, so the greedy solution is optimal: for
    some shift t of the patch every pixel is clip(round(v + t)), where ties at
    the last step are free.  ``low`` and ``high`` bracket that shift closer than
    one unit, hence each pixel takes its value at ``low`` or one more, and the
    missing units go to the pixels for which they cost least.
    """
    n, c, height, width = image.shape
    h, w = height // scale, width // scale
    patches = image.double().view(n, c, h, scale, w, scale).transpose(3, 4)
    patches = patches.reshape(-1, scale * scale)
    total = lr.reshape(-1, 1) * scale**2

    shift = (total - patches.sum(1, keepdim=True)) / scale**2
    low, high = shift - 0.5, shift + 0.5
    # where nothing is clipped round(v + shift ± 0.5) already brackets the sum
    clipped = ((patches.amin(1, keepdim=True) + low < -0.5)
               | (patches.amax(1, keepdim=True) + high > 255.5)).squeeze(1)
    if clipped.any():
        low[clipped], high[clipped] = _bracket(patches[clipped], total[clipped])

    base = _round_clip(patches + low)
    room = _round_clip(patches + high) > base
    missing = total - base.sum(1, keepdim=True)
    # the cost of one more unit is 2 (base - v) + 1: cheapest first, pixels without room last
    cost = (base - patches).masked_fill_(~room, torch.inf)
    order = cost.argsort(1)
    rank = torch.arange(scale * scale, device=image.device)
    base.scatter_add_(1, order, (rank < missing).to(base.dtype))
    result = base.to(torch.uint8).view(n, c, h, w, scale, scale).transpose(3, 4)
    return result.reshape(n, c, height, width)


def _round_clip(values):
    return values.round_().clamp_(0, 255)


def _bracket(patches, total):
    """Bisect the shift of each patch until low and high are less than one unit apart."""
    low = -patches.amax(1, keepdim=True) - 1
    high = 256 - patches.amin(1, keepdim=True)
    while (high - low).max() >= 1:
        middle = (low + high) / 2
        below = _round_clip(patches + middle).sum(1, keepdim=True) <= total
        low = torch.where(below, middle, low)
        high = torch.where(below, high, middle)
    return low, high


def _refine(image, lr, operator, max_iterations):
    """Alternating projections in float32 with the rounding error fed back.

    Only what differs is corrected: a correction of all that is inexact would
    keep changing the rounding of pixels that fit.  The step shrinks from 1.2
    to 0.4 and varies by half from pixel to pixel (always in the same way):
    pixels whose roundings flip together would overshoot for ever.  Both were
    found by trial on random images.  Where 0 and 255 hold most pixels that an
    LR value depends on, little of its correction is left: it is boosted for
    as long as it falls short.
    """
    x, target = image.float(), lr.float()
    generator = torch.Generator(x.device).manual_seed(0)
    best, fewest, boost, before = None, None, torch.ones_like(target), torch.zeros_like(target)
    for step in torch.linspace(1.2, 0.4, max_iterations + 1).tolist():
        rounded = x.clamp(0, 255).round()
        measured = apply(operator, 'A', rounded)
        if measured.shape != lr.shape:
            raise ValueError(f'lr: expected shape {tuple(measured.shape)} for an image of shape '
                             f'{tuple(image.shape)}, got {tuple(lr.shape)}')
        wrong = differs(measured, target, ROUGH)
        unmatched = int(wrong.sum())
        if fewest is None or unmatched < fewest:
            best, fewest = rounded, unmatched
        if fewest == 0:
            break
        error = (target - measured) * wrong
        boost = torch.where(error * before > 0, boost * 1.3, (boost / 2).clamp(min=1))
        before = error
        correction = apply(operator, 'A_dagger', error * boost.clamp(max=MOST_BOOST))
        uneven = torch.rand(x.shape, generator=generator, device=x.device) + 0.5
        x = x.clamp(0, 255) + correction * uneven * step
    return best.to(torch.uint8)


def _count(result, lr, operator):
    return int(differs(apply(operator, 'A', result.double()), lr, HALFWAY).sum())
