"""Range-null space decomposition with any operator (paper Eqs. 2 and 7)."""
from .base import LinearOperator, check_finite, compute_dtype, full_precision


def decompose(x, operator):
    """Split x into its range-space and null-space parts: A†A x and (I - A†A) x (Eq. 2)."""
    ranged = operator.A_dagger(operator.A(x))
    return ranged, x - ranged


def replace_range(raw, y, operator, strength=1.0, check=True):
    """x̂ = A†y + (I - A†A) raw, paper Eq. (7), with mmpd's or a foreign operator.

    Args:
        raw (Tensor): Raw prediction (N, C, H, W), floating point.
        y (Tensor): Measurement, in the same unit.
        operator (LinearOperator | object): mmpd's, or an object with ``A``
            and ``A_dagger`` such as a deepinv ``LinearPhysics``.
        strength (float): Weight of the correction; 1 is the paper.
        check (bool): Raise on NaN and inf.

    Returns:
        Tensor: (N, C, H, W), dtype of ``raw``.

    Raises:
        ValueError: Shapes that do not fit, integer tensors, NaN or inf.
    """
    if isinstance(operator, LinearOperator):
        return operator.project(raw, y, strength=strength, check=check)
    for tensor, name in ((raw, 'image'), (y, 'measurement')):
        if not tensor.is_floating_point():
            raise ValueError(f'{name}: expected a floating point tensor, got {tensor.dtype}')
    wide = compute_dtype(raw, y)
    with full_precision(raw.device.type):
        image = raw.to(wide)
        measured = operator.A(image)
        if measured.shape != y.shape:
            raise ValueError(f'measurement: expected shape {tuple(measured.shape)} for an image of '
                             f'shape {tuple(raw.shape)} and {type(operator).__name__}, '
                             f'got {tuple(y.shape)}')
        error = y.to(wide) - measured
        if check:
            check_finite(error, raw, y)
        return (image + strength * operator.A_dagger(error)).to(raw.dtype)
