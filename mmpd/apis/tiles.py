"""Networks on pictures of any size: padded where they need a multiple, in tiles where asked."""
import torch
import torch.nn.functional as F

__all__ = ['forward_padded', 'forward_tiled']


def forward_padded(forward, image, multiple=1):
    """Apply a network that needs sides of a multiple; what was added is cut off again.

    Args:
        forward (Callable[[Tensor], Tensor]): The network, which enlarges by a whole number.
        image (Tensor): (N, C, h, w). It is mirrored at the right and bottom as far as it goes,
            its border is repeated beyond.
        multiple (int): What the sides must be a multiple of.

    Returns:
        Tensor: (N, C, scale·h, scale·w).
    """
    height, width = image.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not (bottom or right):
        return forward(image)
    mirrored = min(right, width - 1), min(bottom, height - 1)
    padded = F.pad(image, (0, mirrored[0], 0, mirrored[1]), mode='reflect')
    padded = F.pad(padded, (0, right - mirrored[0], 0, bottom - mirrored[1]), mode='replicate')
    result = forward(padded)
    scale = result.shape[-1] // padded.shape[-1]
    return result[..., :scale * height, :scale * width]


def _windows(length, tile, overlap):
    """(outer start, inner start, inner stop) of each tile, and the common outer length."""
    outer = min(length, tile + 2 * overlap)
    return [(min(max(start - overlap, 0), length - outer), start, min(start + tile, length))
            for start in range(0, length, tile)], outer


def forward_tiled(forward, image, tile, overlap, batch_size=1):
    """Apply a network tile by tile.

    Each tile is computed with ``overlap`` pixels of its surroundings, which are cut off. If
    the network looks no farther, the result is that of the whole picture, else tiles may
    differ in brightness or colour; PD, applied to the joined picture, takes that away.

    Args:
        forward (Callable[[Tensor], Tensor]): A network for any size, enlarging by a whole number.
        image (Tensor): (1, C, h, w).
        tile (int): Side of a tile in pixels of ``image``, without its surroundings.
        overlap (int): Pixels of surroundings on every side.
        batch_size (int): Tiles at once.

    Returns:
        Tensor: (1, C, scale·h, scale·w).
    """
    rows, height = _windows(image.shape[-2], tile, overlap)
    columns, width = _windows(image.shape[-1], tile, overlap)
    places = [(row, column) for row in rows for column in columns]
    result, scale = None, None
    for start in range(0, len(places), batch_size):
        chosen = places[start:start + batch_size]
        parts = forward(torch.cat([image[..., y:y + height, x:x + width]
                                   for (y, *_), (x, *_) in chosen]))
        if result is None:
            scale = parts.shape[-1] // width
            result = parts.new_empty(1, parts.shape[1], *(scale * n for n in image.shape[-2:]))
        for part, ((y, top, bottom), (x, left, right)) in zip(parts, chosen, strict=True):
            result[0, :, scale * top:scale * bottom, scale * left:scale * right] = part[
                :, scale * (top - y):scale * (bottom - y), scale * (left - x):scale * (right - x)]
    return result
