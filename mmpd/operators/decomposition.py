"""Range-null space decomposition with any operator (paper Eqs. 2 and 7)."""
from functools import partial

import torch
from torch import nn

from ..utils.validation import check_bounds, check_noise_std
from .alternating import alternating_projections, refuse_gradients
from .base import (
    LinearOperator,
    check_batch,
    check_strength,
    compute_dtype,
    no_autocast,
    run_check,
)
from .wiener import refuse_spectrum

__all__ = ['apply', 'apply_to_any', 'decompose', 'replace_range']


def apply(operator, name, tensor):
    """``operator.A(tensor)`` or ``operator.A_dagger(tensor)`` in the dtype of ``tensor``.

    A foreign operator may hold tensors of one dtype, a filter for instance, and
    take no other: it is run in that one.
    """
    own = tensor.dtype
    if isinstance(operator, nn.Module) and not isinstance(operator, LinearOperator):
        held = [*operator.parameters(), *operator.buffers()]
        own = next((t.dtype for t in held if t.is_floating_point()), own)
    return getattr(operator, name)(tensor.to(own)).to(tensor.dtype)


def apply_to_any(operator, name, tensor):
    """:func:`apply` for metrics and pictures: what depends on NaN or inf becomes NaN, no error."""
    bad = ~torch.isfinite(tensor)
    if not bad.any():
        return apply(operator, name, tensor)
    result = apply(operator, name, tensor.masked_fill(bad, 0))
    return result.masked_fill(apply(operator, name, bad.to(tensor.dtype)) != 0, float('nan'))


def decompose(x, operator):
    """Split x into its range-space and null-space parts: A†A x and (I - A†A) x (Eq. 2)."""
    ranged = apply(operator, 'A_dagger', apply(operator, 'A', x))
    return ranged, x - ranged


def replace_range(raw, y, operator, strength=1.0, check=True, noise_std=None, bounds=None):
    """x̂ = A†y + (I - A†A) raw, paper Eq. (7), with mmpd's or a foreign operator.

    Args:
        raw (Tensor): Raw prediction (N, C, H, W), floating point.
        y (Tensor): Measurement, in the same unit.
        operator (LinearOperator | object): mmpd's, or an object with ``A``
            and ``A_dagger`` such as a deepinv ``LinearPhysics``; a foreign one's
            arithmetic follows torch's switches (TF32), mmpd's is never below float32.
        strength (float): Weight of the correction, in [0, 1]; 1 is the paper.
        check (bool | DeferredCheck): Raise on NaN and inf.
        noise_std (float, optional): Standard deviation of the noise in ``y``, in its unit,
            instead of a ``strength``, see :meth:`LinearOperator.project`.
        bounds (Sequence[float], optional): (low, high), the range that x̂ has to lie in, in the
            unit of ``raw``; exact and with a derivative where A is the mean of patches, else by
            alternating projections, for inference.

    Returns:
        Tensor: (N, C, H, W), dtype of ``raw``.

    Raises:
        ValueError: Shapes that do not fit, integer tensors, NaN or inf; an operator whose
            singular values are not known, with ``noise_std``; an LR outside ``bounds``, or
            gradients through alternating projections.
    """
    if isinstance(operator, LinearOperator):
        options = dict(noise_std=noise_std, bounds=bounds)
        return operator.project(raw, y, strength=strength, check=check, **{
            name: value for name, value in options.items() if value is not None})
    check_batch(raw, 'image')
    if not y.is_floating_point():
        raise ValueError(f'measurement: expected a floating point tensor, got {y.dtype}')
    check_strength(strength)
    if check_noise_std(noise_std, strength):
        refuse_spectrum(operator)
    bounds = check_bounds(bounds)
    if bounds:
        refuse_gradients(operator, raw, y)
    wide = compute_dtype(raw, y)
    with no_autocast(raw.device.type):
        image = raw.to(wide)
        measured = apply(operator, 'A', image)
        if measured.shape != y.shape:
            raise ValueError(f'measurement: expected shape {tuple(measured.shape)} for an image of '
                             f'shape {tuple(raw.shape)} and {type(operator).__name__}, '
                             f'got {tuple(y.shape)}')
        error = y.to(wide) - measured
        run_check(check, error, raw, y)
        result = image + strength * apply(operator, 'A_dagger', error)
        if bounds:
            result = alternating_projections(
                image, apply(operator, 'A', result), partial(apply, operator, 'A'),
                partial(apply, operator, 'A_dagger'), *bounds, name=type(operator).__name__)
        return result.to(raw.dtype)
