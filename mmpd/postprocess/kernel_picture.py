"""A picture of a fitted kernel beside the named one that comes closest."""
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .free_kernel import named_kernel

__all__ = ['draw_kernels']

PANEL, GAP, TEXT, MARGIN, LINE = 320, 24, 44, 12, 2  # pixels
POSITIVE, NEGATIVE = np.array([178, 24, 43]), np.array([33, 102, 172])
GRID, GREY, BLACK = (225, 225, 225), (150, 150, 150), (20, 20, 20)
FITTED, NAMED = tuple(POSITIVE.tolist()), (90, 90, 90)


def _colours(kernel, peak):
    """White for 0, red for positive weights, blue for negative ones: uint8 (n, n, 3)."""
    share = np.sqrt(np.abs(kernel) / peak)[..., None]  # side lobes are small, and matter
    ends = np.where(kernel[..., None] < 0, NEGATIVE, POSITIVE)
    return (255 + share * (ends - 255)).round().astype(np.uint8)


def _framed(image):
    ImageDraw.Draw(image).rectangle((0, 0, PANEL - 1, PANEL - 1), outline=GREY)
    return image


def _panel(kernel, peak, fitted):
    """A kernel with the grid of LR pixels over it."""
    n = len(kernel)
    image = Image.fromarray(_colours(kernel, peak)).resize((PANEL, PANEL), Image.Resampling.NEAREST)
    pixels = np.array(image)
    edges = np.arange(-fitted.start % fitted.scale, n, fitted.scale) * PANEL // n
    pixels[edges] = pixels[:, edges] = GRID
    image = Image.fromarray(pixels)
    first, last = (place * PANEL // n for place in (-fitted.start, fitted.scale - fitted.start))
    ImageDraw.Draw(image).rectangle((first, first, last, last), outline=BLACK)
    return _framed(image)


def _profiles(kernels, fitted):
    """The sums over rows, as curves: horizontal profiles."""
    profiles = np.stack([kernel.sum(0) for kernel in kernels])
    low, n = profiles.min(initial=0), profiles.shape[1]
    height = (PANEL - 2 * MARGIN) / (profiles.max() - low)

    def down(value):
        return PANEL - MARGIN - (value - low) * height

    pixels = np.full((PANEL, PANEL, 3), 255, np.uint8)
    edges = np.array([-fitted.start, fitted.scale - fitted.start]) * PANEL // n
    pixels[:, edges[edges < PANEL]] = pixels[round(down(0))] = GREY
    image = Image.fromarray(pixels)
    right = (np.arange(n) + 0.5) * PANEL / n
    for profile, colour in zip(profiles[::-1], (NAMED, FITTED), strict=True):
        curve = np.stack([right, down(profile)], 1)
        ImageDraw.Draw(image).line(curve.flatten().tolist(), fill=colour, width=LINE)
    return _framed(image)


def draw_kernels(fitted, candidate):
    """Draw a fitted kernel, the kernel of a candidate and the horizontal profiles of both.

    Red weights are positive, blue ones negative; side lobes are drawn stronger than they are (by a
    square root). Grey lines separate LR pixels, the black square is the LR pixel itself.

    Args:
        fitted (FittedKernel): Of :func:`fit_kernel`.
        candidate (Candidate): Of :func:`identify`.

    Returns:
        PIL.Image.Image: RGB.
    """
    named = named_kernel(candidate, fitted)
    peak = max(np.abs(fitted.kernel).max(), np.abs(named).max())
    panels = ((_panel(fitted.kernel, peak, fitted), f'fitted, {fitted.psnr:.2f} dB', FITTED),
              (_panel(named, peak, fitted), candidate.operator_name, NAMED),
              (_profiles((fitted.kernel, named), fitted), 'horizontal profiles of both', BLACK))
    image = Image.new('RGB', (3 * PANEL + 4 * GAP, PANEL + GAP + TEXT), 'white')
    draw, font = ImageDraw.Draw(image), ImageFont.load_default()
    for number, (panel, title, colour) in enumerate(panels):
        left = GAP + number * (PANEL + GAP)
        image.paste(panel, (left, TEXT))
        draw.text((left, TEXT // 2), title, fill=colour, font=font, anchor='lm')
    return image
