"""Image files as they are: nothing is converted on the way in."""
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')


def read_8bit(path):
    """Read a grey or RGB image of 8 bits per channel.

    Args:
        path (str | Path): The file.

    Returns:
        ndarray: uint8, (H, W) or (H, W, 3) RGB.

    Raises:
        ValueError: if it cannot be read to its end, or holds 16 bits per channel (of which
            Pillow would drop eight), a palette, transparency or another colour space.
    """
    try:
        with Image.open(path) as image:
            wide = any('16' in str(tile[3]) for tile in image.tile)
            image.load()
            mode = f'16-bit {image.mode}' if wide and image.mode == 'RGB' else image.mode
            if mode not in ('L', 'RGB'):
                raise ValueError(f'{path}: expected 8-bit grey or RGB, got mode {mode}')
            return np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f'{path}: not a readable image ({error})') from error


def saved_images(folder):
    """What MMagic's visualizer saved during a test.

    Args:
        folder (str | Path): Work folder of the test. Of several tests the newest counts.

    Returns:
        dict[str, Path]: Stem of the GT file -> picture.
    """
    # {work_dir}/{timestamp}/vis_data/vis_image/{stem}_{step}.png
    files = sorted(Path(folder).glob('**/vis_image/*.png'))
    return {path.stem.rsplit('_', 1)[0]: path for path in files}
