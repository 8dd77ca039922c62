"""Iterative back-projection, the oldest way to make an image agree with its LR."""
import torch
import torch.nn.functional as F

from ..operators.base import check_positive_int
from ..operators.resolve import infer_scale, resolve_operator
from ..utils.validation import check_choice, check_number
from .common import ENLARGEMENTS, as_pair, enlarge, residual

__all__ = ['iterative_back_projection']


def _check_kernel(kernel, scale, like):
    """The kernel as a tensor like ``like``, or the name of an enlargement."""
    if not isinstance(kernel, torch.Tensor):
        return check_choice(kernel, 'kernel', ENLARGEMENTS)
    if kernel.dim() != 2 or not kernel.numel() or kernel.shape[0] != kernel.shape[1] \
            or (len(kernel) - scale) % 2:
        raise ValueError(f'kernel: expected a name of {", ".join(ENLARGEMENTS)} or a square 2-D '
                         f'tensor whose size is {"even" if scale % 2 == 0 else "odd"}, as the '
                         f'scale {scale} (it is centred on LR pixels), got shape '
                         f'{tuple(kernel.shape)}')
    if not torch.isfinite(kernel).all():
        raise ValueError('kernel: expected finite values, got NaN or inf')
    return kernel.to(like)


def _back_project(error, kernel, scale):
    """Spread every LR error over HR pixels by the kernel, centred on it; borders replicated."""
    n, c, height, width = error.shape
    margin = -(-len(kernel) // scale)
    padded = F.pad(error.reshape(n * c, 1, height, width), (margin, ) * 4, mode='replicate')
    image = F.conv_transpose2d(padded, kernel[None, None], stride=scale)
    start = margin * scale + (len(kernel) - scale) // 2
    image = image[..., start:start + height * scale, start:start + width * scale]
    return image.reshape(n, c, height * scale, width * scale)


def iterative_back_projection(sr, lr, operator, iterations=20, kernel='bicubic', step=1.0):
    """x ← x + step · B (y - A x), again and again.

    B spreads the LR error over the image with the back-projection kernel.  Where it converges
    (‖I - step · A B‖ < 1; it does for average pooling and bicubic A with the kernels that have a
    name) the result is consistent, but differs from x by an image of the form B e rather than the
    smallest possible one, and how near it comes depends on the number of iterations.  With
    'nearest' and average pooling B is A† and the first iteration is PD.

    M. Irani and S. Peleg, "Improving Resolution by Image Registration", CVGIP: Graphical Models
    and Image Processing 53(3), 1991, for one image and no motion.

    Args:
        sr (Tensor): (N, C, H, W), floating point, 0..255.
        lr (Tensor): (N, C, h, w), the same.
        operator (LinearOperator | object | dict): A, or its config, see
            :func:`mmpd.operators.resolve_operator`.
        iterations (int): How often.
        kernel (str | Tensor): B: an enlargement, 'bicubic', 'bilinear' or 'nearest'; or Irani and
            Peleg's h_BP, a (k, k) kernel on the HR grid centred on LR pixels, k even where the
            scale is. It is not normalised: a sum of scale² keeps a constant error constant.
        step (float): Weight of a correction.

    Returns:
        Tensor: (N, C, H, W), dtype of ``sr``, neither clipped nor rounded.

    Raises:
        ValueError: Sizes or a kernel that do not fit, integer tensors, NaN or inf.
    """
    check_positive_int(iterations, 'iterations')
    check_number(step, 'step', above=0)
    x, y = as_pair(sr, lr)
    operator = resolve_operator(operator, x.shape, y.shape, x.device)
    scale = infer_scale(x.shape, y.shape)
    kernel = _check_kernel(kernel, scale, x)
    for _ in range(iterations):
        error = residual(x, y, operator)
        spread = (enlarge(error, x.shape[-2:], kernel) if isinstance(kernel, str) else
                  _back_project(error, kernel, scale))
        x = x + step * spread
    return x.to(sr.dtype)
