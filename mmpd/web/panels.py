"""Pictures that show what was done: x_r, δ, A† y and where A of an image is not the LR."""
import numpy as np
import torch

from ..operators.decomposition import apply_to_any
from ..utils.images import Picture, write_picture
from ..visualization.panels import colour_bar, display_size, error_map, fit

__all__ = ['explain', 'write_panels']

GAIN = 5  # of the error maps, as in the paper
CELL = 512  # pixels, about, that a panel is high: enough for a screen


def _colour(image):
    """(H, W, 3) of (H, W) or (H, W, 3)."""
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, 2)


def _apply(operator, name, image):
    tensor = torch.from_numpy(np.ascontiguousarray(_colour(image).transpose(2, 0, 1)))[None]
    return apply_to_any(operator, name, tensor)[0].numpy().transpose(1, 2, 0)


def _rounded(image):
    return np.nan_to_num(image).clip(0, 255).round().astype(np.uint8)


def explain(lr, raw, output, operator):
    """The panels of a result.

    Args:
        lr (ndarray): The LR y, uint8, (h, w) or (h, w, 3).
        raw (ndarray): x_r, uint8, (H, W) or (H, W, 3).
        output (ndarray): x̂, like ``raw``.
        operator (object): A, for these sizes.

    Returns:
        list[tuple[str, ndarray]]: Caption and uint8 RGB picture, all about 512 pixels high.
    """
    y, x_r, x = (_colour(image).astype(np.float64) for image in (lr, raw, output))
    size = display_size(x.shape, CELL)
    bar = colour_bar(size[0], GAIN)

    def error(image):
        shown = fit(error_map(_apply(operator, 'A', image), y, GAIN), size)
        return np.concatenate([shown, bar], 1)

    plain = [('LR, y', y), ('before, x_r', x_r), ('after, x̂', x),
             (f'δ = x̂ − x_r, ×{GAIN}', 128 + GAIN * (x - x_r)),
             ('A†y', _apply(operator, 'A_dagger', y))]
    return [*((caption, fit(_rounded(image), size)) for caption, image in plain),
            ('|A x_r − y|', error(x_r)), ('|A x̂ − y|', error(x))]


def write_panels(panels, folder):
    """Write them as PNG files.

    Args:
        panels (list): Of :func:`explain`.
        folder (Path): Where.

    Returns:
        list[tuple[str, str]]: Path and caption.
    """
    written = []
    for index, (caption, image) in enumerate(panels):
        path = folder / f'panel_{index}.png'
        write_picture(Picture(np.ascontiguousarray(image)), path)
        written.append((str(path), caption))
    return written
