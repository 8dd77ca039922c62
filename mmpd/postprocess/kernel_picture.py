"""A picture of a fitted kernel beside the named one that comes closest."""
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .free_kernel import named_kernel

__all__ = ['draw_kernels']

PANEL, GAP, TEXT = 320, 24, 44  # pixels
POSITIVE, NEGATIVE = np.array([178, 24, 43]), np.array([33, 102, 172])
GREY, BLACK = (150, 150, 150), (20, 20, 20)
FITTED, NAMED = tuple(POSITIVE.tolist()), (90, 90, 90)


def _colours(kernel, peak):
    """White for 0, red for positive weights, blue for negative ones: uint8 (n, n, 3)."""
    share = np.clip(kernel / peak, -1, 1)[..., None]
    share = np.sign(share) * np.sqrt(np.abs(share))  # side lobes are small, and matter
    ends = np.where(share > 0, POSITIVE, NEGATIVE)
    return (255 + np.abs(share) * (ends - 255)).round().astype(np.uint8)


def _panel(kernel, peak, fitted):
    """A kernel with the grid of LR pixels over it."""
    n = len(kernel)
    image = Image.fromarray(_colours(kernel, peak)).resize((PANEL, PANEL), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    for edge in range(-fitted.start % fitted.scale, n + 1, fitted.scale):
        place = min(edge * PANEL // n, PANEL - 1)
        draw.line((place, 0, place, PANEL), fill=(225, 225, 225))
        draw.line((0, place, PANEL, place), fill=(225, 225, 225))
    own = [place * PANEL // n for place in (-fitted.start, fitted.scale - fitted.start)]
    draw.rectangle((own[0], own[0], own[1], own[1]), outline=BLACK)
    draw.rectangle((0, 0, PANEL - 1, PANEL - 1), outline=GREY)
    return image


def _profiles(kernels, fitted):
    """The sums over rows, as curves: horizontal profiles."""
    profiles = [kernel.sum(0) for kernel in kernels]
    low, high = min(map(np.min, profiles)), max(map(np.max, profiles))
    image = Image.new('RGB', (PANEL, PANEL), 'white')
    draw, n = ImageDraw.Draw(image), len(profiles[0])

    def place(index, value):
        return ((index + 0.5) * PANEL / n,
                PANEL - 12 - (value - low) / max(high - low, 1e-12) * (PANEL - 24))

    draw.line((*place(-0.5, 0), *place(n, 0)), fill=GREY)
    for edge in (-fitted.start, fitted.scale - fitted.start):
        x = edge * PANEL // n
        draw.line((x, 0, x, PANEL), fill=GREY)
    for profile, colour in zip(profiles[::-1], (NAMED, FITTED), strict=True):
        draw.line([place(*point) for point in enumerate(profile)], fill=colour, width=2)
    draw.rectangle((0, 0, PANEL - 1, PANEL - 1), outline=GREY)
    return image


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
        draw.text((left, TEXT // 2 - 6), title, fill=colour, font=font)
    return image
