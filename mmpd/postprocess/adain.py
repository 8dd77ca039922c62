"""Adaptive instance normalisation of the pixels, a colour fix in use with StableSR."""
from ..utils.validation import check_number
from .common import as_pair, enlarge

__all__ = ['adain']


def adain(sr, lr, operator=None, eps=1e-5):
    """Give every channel of the SR the mean and the standard deviation of that of the LR.

    x̂ = (x - mean x) / std x · std z + mean z, where z is the LR, enlarged bicubically as users
    of StableSR do; mean and variance over the whole picture.  It knows nothing of A nor of where
    a colour is wrong, and the enlarged LR lacks the contrast of fine detail.

    X. Huang and S. Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance
    Normalization", ICCV 2017, there for features; for pixels with StableSR (arXiv 2305.07015).

    Args:
        sr (Tensor): (N, C, H, W), floating point, 0..255.
        lr (Tensor): (N, C, h, w), the same.
        operator: Not used; all comparators have the same arguments.
        eps (float): Added to the variances, on the [0, 1] scale; StableSR's.

    Returns:
        Tensor: (N, C, H, W), dtype of ``sr``, neither clipped nor rounded.

    Raises:
        ValueError: Sizes that do not fit, integer tensors, NaN or inf.
    """
    check_number(eps, 'eps', above=0)
    x, y = as_pair(sr, lr)
    z = enlarge(y, x.shape[-2:])

    def statistics(image):
        return (image.mean((2, 3), keepdim=True),
                (image.var((2, 3), keepdim=True) + eps * 255**2).sqrt())

    mean, deviation = statistics(x)
    wanted_mean, wanted_deviation = statistics(z)
    return ((x - mean) / deviation * wanted_deviation + wanted_mean).to(sr.dtype)
