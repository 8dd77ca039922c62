"""PD inside the range of images: A x̂ = y and low <= x̂ <= high at once, for average pooling."""
import torch

from ..utils.validation import refuse
from .base import compute_dtype, is_compiling, is_plain, no_autocast
from .pooling_pass import average_pool, fused_projection, replicate

__all__ = ['BoundedProjection', 'bounded_projection', 'check_reachable']

TEMPORARY_BYTES = 1 << 20  # of patches that are searched at once
MOST_STEPS = 200  # the interval at least halves in two: float64 has no more to give
OUTSIDE = 1e-3  # of the range: a quarter of a grey level


def check_reachable(y, low, high):
    """Raise ValueError if ``y`` is the mean of no patch in the range, beyond what rounding does."""
    if y.is_meta or is_compiling():
        return
    try:
        least, most = (value.item() for value in y.detach().aminmax())
    except RuntimeError:  # there are no values to look at: under vmap, with fake tensors
        return
    margin = OUTSIDE * (high - low)
    if least < low - margin or most > high + margin:
        refuse('bounds', f'a range that holds the LR, whose values are in [{least:g}, {most:g}]',
               (low, high))


def bounded_projection(x, y, scale, low, high, check=False, out=None):
    """The image nearest to ``x`` with A x̂ = y and low <= x̂ <= high, exactly.

    Per patch it is clip(x + t) with the shift t for which the mean is y.  Where plain PD, whose
    shift is y - A x, stays in the range, its result is left as it is; only the other patches
    are searched.  Knowing which those are waits for the device, on CUDA too.

    Args:
        x (Tensor): (N, C, H, W), floating point.
        y (Tensor): (N, C, H/s, W/s); clamped to the range.
        scale (int): s.
        low, high (float): The range.
        check (bool | DeferredCheck): Raise on NaN and inf.
        out (Tensor, optional): Where to write; may be ``x`` (inference only).

    Returns:
        Tensor: x̂, like ``x``.  Its derivative is the closed form of :class:`BoundedProjection`.
    """
    y = y.clamp(low, high)
    if is_compiling() or x.is_meta or not is_plain():
        return _plainly(x, y, scale, low, high)
    if out is not None:
        return _search(x, y, scale, low, high, check, out)[0]
    return BoundedProjection.apply(x, y, scale, low, high, check)[0]


def _patches(image, scale):
    """View (N, C, H, W) as (N, C, h, w, s, s)."""
    n, c, height, width = image.shape
    return image.view(n, c, height // scale, scale, width // scale, scale).transpose(3, 4)


class _Held:
    """Some patches of images of one shape, to be read and written.

    Args:
        where (Tensor): (K, 4), their n, c, i, j.
        shape (Sequence[int]): (N, C, H, W).
        scale (int): s.
    """

    def __init__(self, where, shape, scale):
        self.index, self.scale = where.unbind(1), scale
        n, c, i, j = self.index
        first = ((n * shape[1] + c) * (shape[2] // scale) + i) * scale
        rows = first[:, None] + torch.arange(scale, device=where.device)
        # where an image is made of rows of s pixels
        self.rows = (rows * (shape[3] // scale) + j[:, None]).flatten()

    def read(self, image):
        """(K, s²)."""
        if image.is_contiguous():  # whole rows of a patch are faster to copy than pixels
            rows = image.view(-1, self.scale).index_select(0, self.rows)
            return rows.view(-1, self.scale**2)
        return _patches(image, self.scale)[self.index].flatten(1)

    def write(self, image, values):
        """Write (K, s²)."""
        if image.is_contiguous():
            image.view(-1, self.scale).index_copy_(0, self.rows, values.view(-1, self.scale))
        else:
            _patches(image, self.scale)[self.index] = values.view(-1, self.scale, self.scale)


def _places(held, image, scale, dtype):
    """Yield the held patches, so many at once as temporaries may take."""
    size = scale**2 * (8 if dtype == torch.float64 else 4)
    for where in held.nonzero().split(max(1, TEMPORARY_BYTES // size)):
        yield _Held(where, image.shape, scale)


def _leaving(image, y, scale, low, high):
    """(N, C, h, w), whether a patch of PD's result leaves the range, or its LR value is a bound."""
    n, c, height, width = image.shape
    beyond = (y <= low) | (y >= high)
    if image.is_contiguous(memory_format=torch.channels_last) and not image.is_contiguous():
        rows, inner = image.permute(0, 2, 3, 1).reshape(-1, scale, width * c), c
    else:
        rows, inner = image.reshape(-1, scale, width), 1
    for extreme, sign in ((rows.amax(1), 1), (-rows.amin(1), -1)):
        extreme = extreme.view(-1, width // scale, scale, *[inner] * (inner > 1)).amax(2)
        left = extreme > (high if sign > 0 else -low)
        if inner > 1:
            left = left.view(n, height // scale, width // scale, c).permute(0, 3, 1, 2)
        beyond = beyond | left.reshape(y.shape)
    return beyond


def _search(x, y, scale, low, high, check, out=None):
    """Plain PD, then the patches that leave the range: (x̂, which patches those were)."""
    with no_autocast(x.device.type):
        result = fused_projection(x, y, scale, 1.0, out=out, check=check)
        held = _leaving(result, y, scale, low, high)
        wide = compute_dtype(x, y)
        for places in _places(held, result, scale, wide):
            values = places.read(result).to(wide)
            shift = _shifts(values, y[places.index].to(wide)[:, None], low, high)
            places.write(result, values.add_(shift).clamp_(low, high).to(result.dtype))
    return result, held


def _shifts(patches, y, low, high):
    """The shift t of each patch for which clip(patch + t) has the mean y.

    That mean is a continuous function of t that grows piecewise linearly.  Newton's method
    solves it exactly once it has found the piece, in a few steps; an interval that holds the
    solution, and is halved where a step would leave it, makes sure that it does.

    Args:
        patches (Tensor): (K, n).
        y (Tensor): (K, 1), in [low, high].

    Returns:
        Tensor: (K, 1), infinite where y is a bound.
    """
    shifts = torch.zeros_like(y).masked_fill_(y <= low, -torch.inf)
    shifts.masked_fill_(y >= high, torch.inf)
    todo = shifts.isfinite().squeeze(1).nonzero().squeeze(1)
    patches, y = patches[todo], y[todo]
    left, right = low - patches.amax(1, keepdim=True), high - patches.amin(1, keepdim=True)
    t, count = torch.zeros_like(y), patches.shape[1]
    moved, clipped = torch.empty_like(patches), torch.empty_like(patches)
    enough = 4 * torch.finfo(y.dtype).eps * max(abs(low), abs(high))
    for _ in range(MOST_STEPS):
        torch.add(patches, t, out=moved)
        torch.clamp(moved, low, high, out=clipped)
        missing = y - clipped.mean(1, keepdim=True)
        # ones and zeros in place of the pixels: comparisons are slow to make booleans
        free = torch.eq(clipped, moved, out=moved).sum(1, keepdim=True)
        wrong = missing.abs() > enough
        left, right = torch.where(missing > 0, t, left), torch.where(missing < 0, t, right)
        step = t + missing * (count / free)
        step = torch.where((step > left) & (step < right), step, (left + right) / 2)
        t = torch.where(wrong, step, t)
        left_over = int(wrong.sum())
        if not left_over or 2 * left_over < len(todo):
            shifts[todo] = t
            rest = wrong.squeeze(1).nonzero().squeeze(1)
            todo, patches, y, t, left, right = (
                tensor.index_select(0, rest) for tensor in (todo, patches, y, t, left, right))
            moved, clipped = moved[:left_over], clipped[:left_over]
        if not left_over:
            break
    shifts[todo] = t
    return shifts


class BoundedProjection(torch.autograd.Function):
    """``apply(x, y, scale, low, high, check)`` -> x̂ and which patches were searched.

    Among the pixels F of a patch that lie inside the range, dx̂ = dx - mean_F(dx) + (n / |F|) dy
    with n = s², and dx̂ = 0 on the others, which a bound holds.  Where F is empty (y is a bound)
    the derivative is 0.
    """

    @staticmethod
    def forward(x, y, scale, low, high, check):
        return _search(x, y, scale, low, high, check)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, y, *ctx.options, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*output)
        ctx.save_for_forward(*output)
        ctx.dtypes = x.dtype, y.dtype

    @staticmethod
    def backward(ctx, grad, _):
        image, held = ctx.saved_tensors
        grad_x = grad_y = None
        if ctx.needs_input_grad[0]:
            grad_x = FreePart.apply(grad, image, held, *ctx.options)
        if ctx.needs_input_grad[1]:
            free, weight = _free_pixels(image, held, *ctx.options)
            scale = ctx.options[0]
            grad_y = average_pool(grad.to(free.dtype) * free, scale) * weight * scale**2
            grad_y = grad_y.to(ctx.dtypes[1])
        return grad_x, grad_y, None, None, None, None

    @staticmethod
    def jvp(ctx, x, y, *_):
        image, held = ctx.saved_tensors
        moved = None if x is None else FreePart.apply(x, image, held, *ctx.options)
        if y is not None:
            free, weight = _free_pixels(image, held, *ctx.options)
            raised = (replicate(y * weight, ctx.options[0]) * free).to(ctx.dtypes[0])
            moved = raised if moved is None else moved + raised
        return moved, None

    @staticmethod
    def vmap(info, in_dims, x, y, scale, low, high, check):
        """The dimension of vmap becomes part of the batch."""
        x, y = _merge(info.batch_size, in_dims, x, y)
        results = BoundedProjection.apply(x, y, scale, low, high, check)
        return tuple(result.unflatten(0, (info.batch_size, -1)) for result in results), (0, 0)


def _merge(size, in_dims, *tensors):
    for tensor, dim in zip(tensors, in_dims, strict=False):
        tensor = (tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0))
        yield tensor.flatten(0, 1)


def _free_pixels(image, held, scale, low, high):
    """1 where a pixel follows its patch, else 0, and n / |F| of each patch."""
    free = (image > low) & (image < high) | ~replicate(held, scale)
    free = free.to(compute_dtype(image))
    return free, 1 / average_pool(free, scale).clamp(min=scale**-2)


class FreePart(torch.autograd.Function):
    """``apply(g, x̂, held, scale, low, high)``: g - mean_F(g) on F, 0 elsewhere, for each patch.

    It is an orthogonal projection, so that its derivatives are itself.
    """

    @staticmethod
    def forward(grad, image, held, scale, low, high):
        with no_autocast(grad.device.type):
            result = fused_projection(grad, None, scale, 1.0)
            wide = compute_dtype(grad)
            for places in _places(held, result, scale, wide):
                inside = places.read(image)
                free = ((inside > low) & (inside < high)).to(wide)
                part = places.read(grad).to(wide) * free
                part -= part.sum(1, keepdim=True) / free.sum(1, keepdim=True).clamp(min=1) * free
                places.write(result, part.to(result.dtype))
        return result

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, image, held, *ctx.options = inputs
        ctx.save_for_backward(image, held)
        ctx.save_for_forward(image, held)

    @staticmethod
    def backward(ctx, grad):
        return (FreePart.apply(grad, *ctx.saved_tensors, *ctx.options), *[None] * 5)

    @staticmethod
    def jvp(ctx, grad, *_):
        return FreePart.apply(grad, *ctx.saved_tensors, *ctx.options)

    @staticmethod
    def vmap(info, in_dims, grad, image, held, scale, low, high):
        """The dimension of vmap becomes part of the batch."""
        merged = _merge(info.batch_size, in_dims, grad, image, held)
        result = FreePart.apply(*merged, scale, low, high)
        return result.unflatten(0, (info.batch_size, -1)), 0


def _plainly(x, y, scale, low, high):
    """The same in differentiable operations whose number depends on no value: for compilers.

    The 2 n shifts at which a pixel of a patch enters the range or leaves it are sorted; the sum
    of the clipped patch at each follows by adding up, and the shift by interpolation.
    """
    wide, shape = compute_dtype(x, y), x.shape
    known = y.to(wide)[..., None]
    patches = _patches(x.to(wide).reshape(shape), scale).flatten(4)
    moved = patches + (known - patches.mean(4, keepdim=True))
    count = scale**2
    with torch.no_grad():
        breaks, order = torch.cat([low - moved, high - moved], 4).sort(4)
        slopes = torch.where(order < count, 1.0, -1.0).to(wide).cumsum(4)
        sums = count * low + torch.cat([torch.zeros_like(breaks[..., :1]),
                                        slopes[..., :-1] * breaks.diff(dim=4)], 4).cumsum(4)
        piece = ((sums <= count * known).sum(4, keepdim=True) - 1).clamp(min=0)
        start, total, slope = (tensor.gather(4, piece) for tensor in (breaks, sums, slopes))
        shift = start + (count * known - total) / slope.clamp(min=1)
        shift = shift.masked_fill(known >= high, torch.inf).masked_fill(known <= low, -torch.inf)
        free = (moved + shift > low) & (moved + shift < high)
        # of two numbers torch would make float32
        held = torch.where(moved + shift >= high, torch.full_like(moved, high), low)
        inside = (moved >= low) & (moved <= high)
        inside = inside.all(4, keepdim=True) & (known > low) & (known < high)
        fixed = torch.where(free, torch.zeros_like(held), held).sum(4, keepdim=True)
        number = free.sum(4, keepdim=True).clamp(min=1)
    rest = torch.where(free, moved, torch.zeros_like(moved)).sum(4, keepdim=True)
    bounded = torch.where(free, moved + (count * known - fixed - rest) / number, held)
    result = torch.where(inside, moved, bounded).unflatten(4, (scale, scale))
    return result.transpose(3, 4).reshape(shape).to(x.dtype)
