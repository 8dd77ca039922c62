"""Metrics as pure functions of arrays or tensors in 0..255."""
import math
from importlib import import_module

import numpy as np
import torch
import torch.nn.functional as F

from ..utils.model import check_device
from ..utils.validation import check_choice, check_number, check_str, optional

__all__ = ['PSNR_CAP', 'as_tensor', 'check_keys_of', 'correctness', 'errors', 'frechet_distance',
           'psnr', 'require', 'resolve_device', 'to_saved']

PSNR_CAP = 200.0


def psnr(mse, cap=PSNR_CAP):
    """PSNR in dB of a mean squared error on the [0, 1] scale.

    Identical images would give infinity, which JSON cannot hold and which would swallow every
    mean: the result is capped, by default at 200 dB (an MSE of 1e-20), far above what float32 can
    reach (the paper's Table 1 reports 145.7 dB). NaN stays NaN.
    """
    if mse == 0:
        return cap
    return min(-10 * math.log10(mse), cap) if mse == mse else float('nan')


def errors(image, reference):
    """Errors between two tensors in 0..255, computed in float64.

    Args:
        image (Tensor): Any shape, 0..255.
        reference (Tensor): The same shape.

    Returns:
        dict: ``PSNR`` in dB (see :func:`psnr`), ``L1`` and ``MSE`` on the [0, 1] scale and
        ``MaxErr`` in grey levels of 0..255, all Python floats.

    Raises:
        ValueError: If the shapes differ.
    """
    if image.shape != reference.shape:
        raise ValueError(f'cannot compare shapes {tuple(image.shape)} and '
                         f'{tuple(reference.shape)}')
    error = (image.double() - reference.double()).abs()
    mse = (error / 255).square().mean().item()
    return dict(PSNR=psnr(mse), L1=error.mean().item() / 255, MSE=mse,
                MaxErr=error.max().item())


def _apart(x, y):
    """(H, W): |x - y| / (x + y) of two (C, H, W) images, averaged over the channels."""
    total = x + y
    return ((x - y).abs() / total.masked_fill(total == 0, 1)).mean(0)


def correctness(sr, lr, gt, gamma=0.05, temperature=0.25, threshold=0.1):
    """What of a result is improvement, what omission, what hallucination, as opensr-test has it.

    With d the relative difference of two pixels, |x - y| / (x + y) averaged over the channels, and
    the enlarged LR z (bilinear), every pixel has two distances in units of what there is to do,
    i = d(SR, GT) / d(z, GT) and o = d(SR, z) / d(z, GT), and with h = i + o - 1 three scores

        improvement = i + o (1 - exp(-γ h))      near 0 if the pixel is that of the GT
        omission = o + i (1 - exp(-γ h))         near 0 if it is that of the enlarged LR
        hallucination = exp(-γ i o)              near 0 if it is far from both

    whose softmin with a temperature is how much of the pixel is which.  Pixels where no two of the
    images differ by more than the threshold are left out; the shares are means over the others.

    C. Aybar, D. Montero, S. Donike, F. Kalaitzis and L. Gómez-Chova, "A Comprehensive Benchmark for
    Optical Remote Sensing Image Super-Resolution", IEEE Geoscience and Remote Sensing Letters,
    2024; formulas from the documentation of opensr-test, parameters its package's.  Left out:
    registration and histogram matching of the SR to the GT (the LR is made from the GT, so nothing
    is shifted; and matching would undo the colour errors that are to be seen), the cut of 16 border
    pixels, its other distances (spectral angle, LPIPS, CLIP) and its three consistency figures,
    which PSNR(LR) replaces.

    Args:
        sr (Tensor | ndarray): (C, H, W), 0..255.
        lr (Tensor | ndarray): (C, h, w).
        gt (Tensor | ndarray): (C, H, W).
        gamma (float): γ.
        temperature (float): Of the softmin.
        threshold (float): Of the relative difference.

    Returns:
        dict: ``improvement``, ``omission`` and ``hallucination``, which sum to 1; NaN if no pixel
        is left.

    Raises:
        ValueError: For sizes that do not fit, or negative or infinite values.
    """
    check_number(gamma, 'gamma', above=0)
    check_number(temperature, 'temperature', above=0)
    check_number(threshold, 'threshold', least=0, below=1)
    images = dict(sr=as_tensor(sr, 'sr'), lr=as_tensor(lr, 'lr'), gt=as_tensor(gt, 'gt'))
    for name, image in images.items():
        if not (image.isfinite() & (image >= 0)).all():
            raise ValueError(f'{name}: expected finite values of at least 0')
    x, y, truth = images.values()
    if x.shape != truth.shape or len(y) != len(x):
        raise ValueError(f'expected sr and gt of one shape and lr with as many channels, got '
                         f'{tuple(x.shape)}, {tuple(truth.shape)} and {tuple(y.shape)}')
    z = F.interpolate(y[None], size=x.shape[1:], mode='bilinear', align_corners=False)[0]
    reference, wrong, added = _apart(z, truth), _apart(x, truth), _apart(x, z)
    looked_at = (reference > threshold) | (wrong > threshold) | (added > threshold)
    reference, wrong, added = (d[looked_at] for d in (reference, wrong, added))
    # where there was nothing to do any change is far from both
    done = reference == 0
    i, o = (d / reference.masked_fill(done, 1) for d in (wrong, added))
    rest = 1 - torch.exp(-gamma * (i + o - 1))
    scores = torch.stack([i + o * rest, o + i * rest, torch.exp(-gamma * i * o)])
    scores[:, done] = scores.new_tensor([[torch.inf], [torch.inf], [0]])
    shares = torch.softmax(-scores / temperature, 0).mean(1).tolist()
    return dict(zip(('improvement', 'omission', 'hallucination'), shares, strict=True))


def to_saved(image):
    """The 8-bit pixels that MMagic's visualizer writes: clip to 0..255, round half to even."""
    return image.clamp(0, 255).round()


def require(module, package):
    """Import an optional module.

    Raises:
        ImportError: With the package to install.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f'this metric needs {package}: pip install {package}') from error


def resolve_device(device):
    """torch.device of 'auto' (CUDA if there is any) or of a device name."""
    if check_str(device, 'device') == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return check_device(device, 'device')


def check_keys_of(prefix, collect_device, **keys):
    """Refuse wrong values of the arguments that all metrics have.

    Args:
        prefix (str | None): Of the names of the results.
        collect_device (str): 'cpu' or 'gpu'.
        keys: Keys of data samples.
    """
    for name, value in keys.items():
        check_str(value, name)
    optional(check_str, prefix, 'prefix')
    check_choice(collect_device, 'collect_device', ('cpu', 'gpu'))


def _root(cov):
    """R with R Rᵀ = cov, of the columns that its numerical rank leaves."""
    values, vectors = np.linalg.eigh(cov)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def frechet_distance(mean1, cov1, mean2, cov2):
    """Squared Fréchet distance of two Gaussians: |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½).

    Accurate for singular covariances too (fewer images than features).

    Args:
        mean1 (np.ndarray): (D,).
        cov1 (np.ndarray): (D, D), symmetric, positive semi-definite.
        mean2 (np.ndarray): (D,).
        cov2 (np.ndarray): (D, D).

    Returns:
        float: The distance, at least 0.

    Raises:
        ValueError: If sizes disagree or a value is not finite.
    """
    mean1, cov1, mean2, cov2 = (np.asarray(x, np.float64) for x in (mean1, cov1, mean2, cov2))
    size = len(mean1)
    if mean2.shape != (size,) or cov1.shape != (size, size) or cov2.shape != (size, size):
        raise ValueError(f'expected means of ({size},) and covariances of ({size}, {size}), got '
                         f'{mean2.shape}, {cov1.shape} and {cov2.shape}')
    if not all(np.isfinite(x).all() for x in (mean1, cov1, mean2, cov2)):
        raise ValueError('feature statistics hold values that are not finite')
    # tr (C1 C2)^½ is the sum of the singular values of R1ᵀ R2, where C = R Rᵀ: no root of a
    # rounding error is taken, as there would be of an eigenvalue that should be 0
    trace_root = np.linalg.svd(_root(cov1).T @ _root(cov2), compute_uv=False).sum()
    distance = ((mean1 - mean2)**2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * trace_root
    return max(float(distance), 0.)


def as_tensor(image, name):
    """(C, H, W) float64 tensor in 0..255 from a tensor or array, with a leading 1 removed.

    Raises:
        ValueError: If it is no single (C, H, W) image.
    """
    if not torch.is_tensor(image):
        image = torch.from_numpy(np.require(image, requirements='W'))  # a copy if read-only
    image = image.detach().cpu().double()
    if image.ndim == 4 and len(image) == 1:
        image = image[0]
    if image.ndim != 3:
        raise ValueError(f'{name} must be one image of shape (C, H, W), got {tuple(image.shape)}')
    return image
