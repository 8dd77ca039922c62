"""The kernels and border rules of downsampling, for A (torch) and for LR synthesis (NumPy) alike.

Which library each kernel equals, for an integer scale (tested to 1e-5 on [0, 1]):

========  =========================================  ==================================
kernel    antialias=True                             antialias=False
========  =========================================  ==================================
bicubic   PIL BICUBIC, torch bicubic antialias=True  torch bicubic, cv2 INTER_CUBIC
          (a = -0.5)                                 (a = -0.75)
bilinear  PIL BILINEAR, torch bilinear antialias     torch bilinear, cv2 INTER_LINEAR
lanczos   PIL LANCZOS (three lobes)                  cv2 INTER_LANCZOS4 (four lobes)
box       PIL BOX, cv2 INTER_AREA, average pooling   PIL NEAREST, torch nearest-exact
========  =========================================  ==================================

With antialias the kernel is widened by the scale; without, it looks at a few pixels around each
sampling position and ignores the rest (box: at the nearest one, ties to the right and downwards).

Border rule, border='library': with antialias the weights that fall outside the
image are dropped and the rest renormalised (PIL, torch); without it the border
pixel is replicated (cv2, torch).  border='mirror': the image goes on mirrored, as
in MATLAB's imresize, which has the bicubic and bilinear kernels with antialias
of this table: the interior is the same, the border is not.
"""
import numpy as np

from ..utils.validation import check_choice

__all__ = ['BORDERS', 'KERNELS', 'RADIUS', 'check_kernel', 'kernel_value', 'taps']

KERNELS = ('bicubic', 'bilinear', 'lanczos', 'box')
BORDERS = ('library', 'mirror')
# half the support by kernel and antialias, in LR pixels with antialias, in HR pixels without
RADIUS = {
    ('bicubic', True): 2, ('bicubic', False): 2, ('bilinear', True): 1, ('bilinear', False): 1,
    ('lanczos', True): 3, ('lanczos', False): 4, ('box', True): 0.5, ('box', False): 0.5
}


def check_kernel(kernel, border='library', known=KERNELS):
    """Raise ValueError unless the kernel is among the ``known`` ones and the border in BORDERS."""
    check_choice(border, 'border', BORDERS)
    check_choice(kernel, 'kernel', known)


def kernel_value(kernel, antialias, t, a=None):
    """The kernel at distances ``t``, not normalised.

    Args:
        kernel (str): One of KERNELS.
        antialias (bool): Which of the two columns of the table.
        t (ndarray): float64, in units of RADIUS.
        a (float, optional): Parameter of bicubic. Defaults to that of the table.

    Returns:
        ndarray: Like ``t``.
    """
    t, radius = np.abs(t), RADIUS[kernel, antialias]
    if kernel == 'bicubic':  # Keys 1981
        a = a if a is not None else -0.5 if antialias else -0.75
        near = ((a + 2) * t - (a + 3)) * t * t + 1
        far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
        return np.where(t < 1, near, np.where(t < 2, far, 0.))
    if kernel == 'bilinear':
        return np.clip(1 - t, 0, None)
    if kernel == 'lanczos':
        return np.where(t < radius, np.sinc(t) * np.sinc(t / radius), 0.)
    return (t < radius).astype(np.float64)


def taps(scale, kernel, antialias):
    """Which pixels an LR pixel looks at, and what they weigh before the border rule.

    The scale is an integer, so every LR pixel looks at its surroundings in the same way.

    Args:
        scale (int): Downsampling factor.
        kernel (str): One of KERNELS.
        antialias (bool): Widen the kernel by the scale.

    Returns:
        tuple[ndarray, ndarray]: Offsets (T,), integers: LR pixel i looks at pixels i * scale +
        offset; with antialias they are whole blocks of ``scale`` pixels, as many on either side.
        Weights (T,), float64, not normalised.
    """
    radius = RADIUS[kernel, antialias]
    if antialias:
        reach = int(np.ceil(radius - 0.5))  # blocks on either side of the own one
        offsets = np.arange(-reach * scale, (reach + 1) * scale)
        return offsets, kernel_value(kernel, True, (offsets + 0.5) / scale - 0.5)
    if kernel == 'box':
        return np.array([scale // 2]), np.ones(1)
    centre = (scale - 1) / 2
    offsets = np.arange(1 - radius, radius + 1) + int(centre)
    return offsets, kernel_value(kernel, False, offsets - centre)
