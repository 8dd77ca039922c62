"""Whether an error comes from JPEG: its 8x8 blocks show in it, whatever file the image is in now.

JPEG rounds each coefficient of the blocks' cosine transform by itself, the high ones coarsely.  So
the variances of the coefficients of the error differ much where blocks are cut as JPEG cut them,
and less at every other offset, where they mix.  Noise has no offset.
"""
import numpy as np

__all__ = ['block_grid']

BLOCK = 8
# by how many standard deviations, and by how much, the spread at an offset has to stand out: at
# (0, 0), which is likely beforehand, and elsewhere; found with JPEG of quality 30 to 98 and noise
AT_ORIGIN, ELSEWHERE = (2., 0.06), (4., 0.1)
LEAST_BLOCKS = 16
LUMA = np.array([0.299, 0.587, 0.114])  # what JPEG codes at full resolution


def _cosines():
    k, n = np.arange(BLOCK)[:, None], np.arange(BLOCK)
    matrix = np.cos((n + 0.5) * k * np.pi / BLOCK) * np.sqrt(2 / BLOCK)
    matrix[0] /= np.sqrt(2)
    return matrix


def block_grid(errors):
    """Look for the blocks of JPEG in the errors of images.

    Args:
        errors (Iterable[ndarray]): LR less A(HR), (h, w) or (h, w, 3), in grey levels. Images of
            less than 16 pixels a side are passed over, and so are less than 16 blocks in all.

    Returns:
        tuple[int, int] | None: Row and column, 0..7, where the blocks begin; (0, 0) unless the
        image was cut after JPEG. None if there are none to be seen.
    """
    cosines, powers, blocks = _cosines(), np.zeros((BLOCK, BLOCK, BLOCK, BLOCK)), 0
    for error in errors:
        plane = error @ LUMA if error.ndim == 3 and error.shape[2] == 3 else \
            np.atleast_3d(error).mean(2)
        rows, columns = plane.shape[0] // BLOCK - 1, plane.shape[1] // BLOCK - 1
        if rows < 1 or columns < 1:
            continue
        blocks += rows * columns
        for down in range(BLOCK):
            for right in range(BLOCK):  # as many blocks at every offset
                cut = plane[down:down + rows * BLOCK, right:right + columns * BLOCK]
                cut = cut.reshape(rows, BLOCK, columns, BLOCK).transpose(0, 2, 1, 3)
                powers[down, right] += ((cosines @ cut @ cosines.T)**2).sum((0, 1))
    if blocks < LEAST_BLOCKS:
        return None
    logs = np.log(powers.reshape(BLOCK, BLOCK, -1)[:, :, 1:] + 1e-9)
    spread = logs.std(2).ravel()
    first = int(spread.argmax())
    others = np.delete(spread, first)
    deviations, least = ELSEWHERE if first else AT_ORIGIN
    gap = spread[first] - others.mean()
    found = gap > least and gap > deviations * others.std()
    return (first // BLOCK, first % BLOCK) if found else None
