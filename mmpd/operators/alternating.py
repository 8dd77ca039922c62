"""The nearest image in a range with a given measurement, for any A: alternating projections."""
import warnings

import torch

from ..utils.validation import ArgumentError

__all__ = ['alternating_projections', 'refuse_gradients']

MOST_ITERATIONS = 500
TOLERANCE = 1e-4  # of the range: a fortieth of a grey level


def refuse_gradients(operator, *tensors):
    """Raise ArgumentError if something is to be differentiated through the iteration."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise ArgumentError(
            f'bounds: with {operator!r} alternating projections are run, which are for inference '
            'only; expected torch.no_grad(), or average pooling, whose projection has a '
            'derivative, got a tensor that requires grad')


def alternating_projections(x, target, degrade, dagger, low, high, name='A',
                            max_iterations=MOST_ITERATIONS, tolerance=TOLERANCE):
    """The image nearest to ``x`` with A x̂ = ``target`` and low <= x̂ <= high, iteratively.

    The nearest image is clip(x + q) for some q in the range of A† (its optimality conditions).
    Projecting in turns, in Dykstra's way, is then

        x̂ = clip(x + q),    q ← q + A†(target - A x̂),

    gradient ascent on the dual problem, here with Nesterov's momentum, which starts anew when
    the error grows.  The result lies in the range whatever happens; A x̂ is as near to the
    target as ``tolerance`` says, or as ``max_iterations`` allow, or as can be: no image in the
    range may have that measurement.  Then a warning says so.

    Args:
        x (Tensor): Image (N, C, H, W).
        target (Tensor): Measurement.
        degrade, dagger (Callable): A and A†.
        low, high (float): The range.
        name (str | None): Of A, for the warning; None for no warning.
        max_iterations (int): Bound of the number of times that A and A† are applied.
        tolerance (float): Largest |A x̂ - target| that is left, relative to high - low.

    Returns:
        Tensor: x̂; of all iterates that with the least |A x̂ - target| of each image.  Where an
        image or its target holds NaN or inf, so does the result.
    """
    limit = tolerance * (high - low)
    shift = ahead = torch.zeros_like(x)
    momentum = torch.ones(len(x), 1, 1, 1, dtype=x.dtype, device=x.device)
    best = least = before = None
    for iteration in range(max_iterations + 1):
        image = (x + ahead).clamp(low, high)
        error = target - degrade(image)
        size = error.abs().flatten(1).amax(1).view(-1, 1, 1, 1)
        if best is None:
            best, least = image, size
        else:
            better = size < least  # False for NaN: an A† that diverges spoils nothing
            best, least = torch.where(better, image, best), torch.where(better, size, least)
        if iteration == max_iterations or not (least > limit).any():
            break
        power = error.square().flatten(1).sum(1).view(-1, 1, 1, 1)
        if before is not None:
            momentum = torch.where(power > before, torch.ones_like(momentum), momentum)
        before = power
        moved = ahead + dagger(error)
        following = (1 + (1 + 4 * momentum**2).sqrt()) / 2
        ahead = moved + (momentum - 1) / following * (moved - shift)
        shift, momentum = moved, following
    if name is not None and (least > limit).any():
        warnings.warn(f'bounds: no image within them was found that {name} degrades to the given '
                      f'measurement up to {tolerance:g} of their distance; the nearest one found '
                      'is returned', stacklevel=2)
    return best
