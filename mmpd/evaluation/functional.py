"""Metrics as pure functions of arrays or tensors in 0..255."""
import math

import numpy as np
import torch

PSNR_CAP = 200.0


def psnr(mse):
    """PSNR in dB of a mean squared error on the [0, 1] scale.

    Identical images would give infinity, which JSON cannot hold and which would swallow every
    mean: the result is capped at 200 dB (an MSE of 1e-20), far above what float32 can reach
    (the paper's Table 1 reports 145.7 dB). NaN stays NaN.
    """
    return min(-10 * math.log10(max(mse, 1e-20)), PSNR_CAP) if mse == mse else float('nan')


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


def as_tensor(image, name):
    """(C, H, W) float64 tensor in 0..255 from a tensor or array, with a leading 1 removed.

    Raises:
        ValueError: If it is no single (C, H, W) image.
    """
    image = torch.as_tensor(np.asarray(image) if not torch.is_tensor(image) else image)
    image = image.detach().cpu().double()
    if image.ndim == 4 and len(image) == 1:
        image = image[0]
    if image.ndim != 3:
        raise ValueError(f'{name} must be one image of shape (C, H, W), got {tuple(image.shape)}')
    return image
