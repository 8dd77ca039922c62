"""Metrics as pure functions of arrays or tensors in 0..255."""
import math
from importlib import import_module

import numpy as np
import torch

from ..utils.model import check_device
from ..utils.validation import check_choice, check_str, optional

__all__ = ['PSNR_CAP', 'as_tensor', 'check_keys_of', 'errors', 'frechet_distance', 'psnr',
           'require', 'resolve_device', 'to_saved']

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
