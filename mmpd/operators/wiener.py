"""How much of y - A x is worth believing when y is noisy: the Wiener form of A†."""
from ..utils.validation import ArgumentError

__all__ = ['prior_variance', 'refuse_spectrum', 'wiener_weight']


def prior_variance(error, noise_std, square):
    """The variance τ² of the error of the prior's range-space part, estimated from y - A x.

    Model: along each right singular vector of A, with singular value s, the raw prediction is
    off by a number of variance τ², the same for all, and every value of y by noise of variance
    σ², all independent.  Then E|y - A x|² = Σ (s² τ² + σ²), which is solved for τ².

    Args:
        error (Tensor): y - A x, (N, c, h, w).
        noise_std (float): σ, of y, in its unit.
        square (float): Mean of s² over the values of y.

    Returns:
        Tensor: (N, 1, 1, 1), one per image, at least 0. It is a measurement of the batch, not a
        function to learn from: nothing is differentiated through it.
    """
    power = error.detach().square().mean((1, 2, 3), keepdim=True)
    return ((power - noise_std**2) / square).clamp(min=0)


def wiener_weight(variance, noise_std, value):
    """τ² s / (τ² s² + σ²), the weight of a singular value in the Wiener form of A†: 1 / s if σ = 0.

    Args:
        variance (Tensor): τ², at least 0.
        noise_std (float): σ > 0.
        value (Tensor | float): Singular value or values s.

    Returns:
        Tensor: 0 where τ² is.
    """
    weight = variance * value / (variance * value**2 + noise_std**2)
    return weight.masked_fill(variance == 0, 0)


def refuse_spectrum(operator):
    """Raise ArgumentError: the singular values of this operator are not known.

    Raises:
        ArgumentError: always.
    """
    raise ArgumentError(
        'noise_std: expected an operator whose singular values are known (AveragePooling, '
        f'SeparableResize, or a tight one such as Grayscale), got {operator!r}; '
        'set strength instead')
