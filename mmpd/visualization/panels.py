"""Pictures of results: panels of images with enlarged error maps and a colour bar.

All images are uint8 RGB arrays of shape (H, W, 3). Small images are enlarged by nearest
neighbour, so that single pixels stay visible; large ones are shrunk by area averaging, error maps
after they were computed at full size.
"""
import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ['check_image', 'colour_bar', 'comparison_panel', 'decomposition_panel', 'display_size',
           'error_map', 'fit', 'stack_panels']

MARGIN = 6
WHITE = 255


def check_image(image, name):
    """Return ``image`` if it is a uint8 RGB array.

    Raises:
        ValueError: Naming dtype and shape otherwise.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"'{name}' must be a uint8 RGB array of shape (H, W, 3), "
                         f'got {image.dtype} of shape {image.shape}')
    return image


def error_map(image, reference, gain=5):
    """Colour map of ``gain`` times the absolute error (Figs. 4 and 9), channels averaged.

    Args:
        image (np.ndarray): (H, W, 3) in 0..255, uint8 or floating point.
        reference (np.ndarray): The same shape.
        gain (float): Factor on the error; 255 / gain grey levels and more get the last colour.

    Returns:
        np.ndarray: (H, W, 3) uint8 RGB.

    Raises:
        ValueError: If the shapes differ or the gain is not positive.

    Example:
        >>> import numpy as np
        >>> from mmpd.visualization import error_map
        >>> image = np.full((8, 8, 3), 100, np.uint8)
        >>> error_map(image, image + 20, gain=5).shape
        (8, 8, 3)
    """
    image, reference = np.asarray(image), np.asarray(reference)
    if image.shape != reference.shape:
        raise ValueError(f'cannot subtract shapes {image.shape} and {reference.shape}')
    if not gain > 0:
        raise ValueError(f'gain must be positive, got {gain}')
    error = np.abs(image.astype(np.float32) - reference.astype(np.float32)).mean(2) * gain
    return _colour(np.nan_to_num(error, nan=255.).clip(0, 255).round().astype(np.uint8))


def _colour(levels):
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


def display_size(shape, cell=None):
    """(height, width) at which an image is shown.

    Args:
        shape (tuple): (H, W, ...) of the image.
        cell (int, optional): Wanted height. Sides change by a whole factor, so it is reached only
            roughly. Defaults to None: images below 256 are enlarged to at least 192 and at most
            384 pixels, images above 640 shrunk to at most 640.

    Returns:
        tuple[int, int]: Height and width.
    """
    h, w = shape[:2]
    low, high = (192, 640) if cell is None else (cell, cell)
    if h < low:
        factor = -(-low // h) if cell is None else max(1, round(cell / h))
        return h * factor, w * factor
    if h > high:
        factor = -(-h // high) if cell is None else max(1, round(h / cell))
        return -(-h // factor), -(-w // factor)
    return h, w


def fit(image, size):
    """Resize to (height, width) for display: nearest neighbour up, area average down."""
    h, w = image.shape[:2]
    if (h, w) == tuple(size):
        return image
    up = size[0] >= h and size[1] >= w
    return cv2.resize(image, tuple(size)[::-1],
                      interpolation=cv2.INTER_NEAREST if up else cv2.INTER_AREA)


def _text(image, text, centre, top, width, height):
    """Draw a centred line of text, as large as the space allows, on an array; returns the array."""
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    size = height
    while size > 6 and draw.textlength(text, ImageFont.load_default(size)) > width:
        size -= 1
    draw.text((centre, top + height / 2), text, (0, 0, 0), ImageFont.load_default(size), 'mm')
    return np.asarray(canvas)


def colour_bar(height, gain=5):
    """A bar for error maps: absolute error in grey levels of 0..255, 0 at the bottom.

    Args:
        height (int): Height in pixels.
        gain (float): Gain of the error maps beside it.

    Returns:
        np.ndarray: (height, W, 3) uint8 RGB.
    """
    font = max(10, min(22, height // 12))
    width, labels = font, 4 * font
    bar = np.full((height, MARGIN + width + labels, 3), WHITE, np.uint8)
    top, bottom = font // 2, height - font // 2
    levels = np.linspace(255, 0, bottom - top).round().astype(np.uint8)
    bar[top:bottom, MARGIN:MARGIN + width] = _colour(levels[:, None])
    for part in (0, 0.5, 1):
        label = f'{255 / gain * part:.3g}' + ('+' if part == 1 else '')
        y = round(bottom - part * (bottom - top)) - font // 2
        bar = _text(bar, label, MARGIN + width + labels / 2, y, labels, font)
    return bar


def _row(cells, size, gain=None):
    """Titled images side by side; ``gain`` adds the colour bar, None leaves its room empty."""
    h, w = size
    font = max(12, min(26, h // 12))
    strip = font + 2 * MARGIN
    parts = []
    for title, image in cells:
        part = np.full((h + strip, w + MARGIN, 3), WHITE, np.uint8)
        if image is not None:
            part[strip:, :w] = fit(image, size)
        parts.append(_text(part, title, w / 2, MARGIN, w, font) if title else part)
    bar = colour_bar(h, 5 if gain is None else gain)
    side = np.full((h + strip, bar.shape[1], 3), WHITE, np.uint8)
    if gain is not None:
        side[strip:] = bar
    return np.concatenate([*parts, side], 1)


def _row_of_maps(columns, maps, error, size, gain):
    """Error maps below their columns, of which some have none; ``error`` says what of one."""
    return _row([(f'|{error(column)}| x {gain:g}', maps[column]) if column in maps else ('', None)
                 for column in columns], size, gain)


def comparison_panel(columns, gt=None, gain=5, cell=None, degrade=None, gt_errors=True):
    """Results side by side, and below each its error map against the GT (Fig. 4).

    Args:
        columns (dict[str, np.ndarray]): Title -> image, left to right. Images of the GT's size
            get an error map; smaller ones (the LR) are shown enlarged, without one.
        gt (np.ndarray, optional): The ground truth, appended as the last column. Without it there
            are no error maps. Defaults to None.
        gain (float): Factor on the absolute error. Defaults to 5, as in the paper.
        cell (int, optional): Height of one image; see :func:`display_size`.
        degrade (Callable, optional): A, from an (H, W, 3) uint8 array to one of the size of the
            first column, which is the LR y. With it there is a row of consistency error maps
            |A x - y|. Defaults to None.
        gt_errors (bool): Show the error maps against the GT. Defaults to True.

    Returns:
        np.ndarray: uint8 RGB picture.

    Raises:
        ValueError: If there is nothing to show, an image is not uint8 RGB or has another aspect
            ratio than the largest one, or ``degrade`` gives another size than the LR's.

    Example:
        >>> import numpy as np
        >>> from PIL import Image
        >>> from mmpd.visualization import comparison_panel
        >>> lr, sr, gt = (np.full((side, side, 3), 100, np.uint8) for side in (4, 16, 16))
        >>> picture = comparison_panel({'LR': lr, 'GLEAN': sr}, gt=gt)
        >>> Image.fromarray(picture).save('comparison.png')
    """
    images = {title: check_image(image, title) for title, image in dict(columns).items()}
    if gt is not None:
        images['GT'] = check_image(gt, 'GT')
    if not images:
        raise ValueError('comparison_panel needs at least one image')
    shape = images['GT'].shape if gt is not None else max(
        (image.shape for image in images.values()), key=lambda s: s[0] * s[1])
    for title, image in images.items():
        if image.shape[0] * shape[1] != image.shape[1] * shape[0]:
            raise ValueError(f"'{title}' of {image.shape[0]} x {image.shape[1]} has another aspect "
                             f'ratio than {shape[0]} x {shape[1]}')
    size = display_size(shape, cell)
    rows = [_row(images.items(), size)]
    maps = {title: error_map(image, gt, gain) for title, image in images.items()
            if gt is not None and title != 'GT' and image.shape == shape}
    if maps and gt_errors:
        rows.append(_row_of_maps(images, maps, lambda title: f'{title} - GT', size, gain))
    if degrade is not None:
        (lr_title, lr), *others = images.items()
        maps = {title: error_map(degrade(image), lr, gain) for title, image in others
                if image.shape == shape}
        rows.append(_row_of_maps(images, maps, lambda _: f'A x - {lr_title}', size, gain))
    return np.concatenate(rows)


def decomposition_panel(lr, output, raw=None, gt=None, operator=None, gain=5, cell=None):
    """How the output came about (Fig. 6), with its errors (Figs. 4 and 9).

    First row: LR | x_r | δ = x_r - A†A x_r | A† y | x̂ | GT, with δ shown around middle grey.
    Second row: error maps of x_r, A† y and x̂ against the GT. Third row: consistency error maps
    |A x - y| of x_r and x̂. What was not given is left out.

    Args:
        lr (np.ndarray): The LR y, (h, w, 3) in 0..255, uint8 or floating point.
        output (np.ndarray): The output x̂, (H, W, 3) in 0..255.
        raw (np.ndarray, optional): The generator's raw prediction x_r, like ``output``.
        gt (np.ndarray, optional): The ground truth, like ``output``.
        operator (object | dict, optional): A with its pseudo-inverse, e.g. from
            ``mmpd.operators``, or its config, see :func:`mmpd.operators.resolve_operator`.
            Without it δ, A† y and the consistency error are left out.
        gain (float): Factor on the absolute errors. Defaults to 5.
        cell (int, optional): Height of one image; see :func:`display_size`.

    Returns:
        np.ndarray: uint8 RGB picture.

    Example:
        >>> import numpy as np
        >>> from mmpd.operators import AveragePooling
        >>> from mmpd.visualization import decomposition_panel
        >>> lr, raw, sr = (np.full((side, side, 3), 100, np.uint8) for side in (4, 16, 16))
        >>> picture = decomposition_panel(lr, sr, raw=raw, operator=AveragePooling(4))
        >>> picture.dtype, picture.shape[2]
        (dtype('uint8'), 3)
    """
    exact = dict(LR=lr, output=output, raw=raw, GT=gt)
    exact = {key: np.asarray(image, np.float32) for key, image in exact.items()
             if image is not None}
    for key, image in exact.items():
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"'{key}' must have the shape (H, W, 3), got {image.shape}")
        if key != 'LR' and image.shape != exact['output'].shape:
            raise ValueError(f"'{key}' has the shape {image.shape}, the output "
                             f'{exact["output"].shape}')
    low = {}
    titles = dict(LR='LR y', raw='raw x_r', delta='x_r - A+A x_r', range='A+ y',
                  output='output', GT='GT')
    if operator is not None:
        from mmpd.operators import resolve_operator  # torch: error maps do without
        operator = resolve_operator(operator, exact['output'].shape[:2], exact['LR'].shape[:2])
        exact['range'] = _apply(operator, 'A_dagger', exact['LR'])
        low = {key: _apply(operator, 'A', exact[key]) for key in ('raw', 'output') if key in exact}
        if 'raw' in exact:
            exact['delta'] = 128 + exact['raw'] - _apply(operator, 'A_dagger', low['raw'])
    keys = [key for key in titles if key in exact]
    size = display_size(exact['output'].shape, cell)
    rows = [_row([(titles[key], _to_uint8(exact[key])) for key in keys], size)]
    if gt is not None:
        maps = {key: error_map(exact[key], exact['GT'], gain) for key in ('raw', 'range', 'output')
                if key in exact}
        rows.append(_row_of_maps(keys, maps, lambda key: f'{titles[key]} - GT', size, gain))
    low = {key: image for key, image in low.items() if image.shape == exact['LR'].shape}
    if low:
        maps = {key: error_map(image, exact['LR'], gain) for key, image in low.items()}
        rows.append(_row_of_maps(keys, maps, lambda key: f'A {titles[key].split()[-1]} - y', size,
                                 gain))
    return np.concatenate(rows)


def _apply(operator, name, image):
    import torch

    from mmpd.operators.decomposition import apply_to_any
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    return apply_to_any(operator, name, tensor)[0].numpy().transpose(1, 2, 0)


def _to_uint8(image):
    return np.nan_to_num(image).clip(0, 255).round().astype(np.uint8)


def stack_panels(panels):
    """Panels below each other, padded with white to the widest.

    Raises:
        ValueError: If there is none.

    Example:
        >>> import numpy as np
        >>> from mmpd.visualization import stack_panels
        >>> stack_panels([np.zeros((8, 20, 3), np.uint8), np.zeros((4, 16, 3), np.uint8)]).shape
        (24, 20, 3)
    """
    panels = [check_image(panel, 'panel') for panel in panels]
    if not panels:
        raise ValueError('stack_panels needs at least one panel')
    width = max(panel.shape[1] for panel in panels)
    return np.concatenate([np.pad(panel, ((0, MARGIN), (0, width - panel.shape[1]), (0, 0)),
                                  constant_values=WHITE) for panel in panels])
