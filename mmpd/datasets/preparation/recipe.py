"""What is made of one raw image: GT and LRs."""
import errno
import hashlib
import os

from ...utils.files import name_fault, plain, write_atomically
from ..resampling import check_kernel, check_library, default_library, downsample
from .images import BadImage, decode, encode, square
from .sources import name_of

__all__ = ['Recipe', 'make_one']


class Recipe:
    """What is made of one image.

    Args:
        size (int): Side of the square GT. Larger images are cropped to the central square and
            resized with PIL's Lanczos filter (as StyleGAN's data sets were); smaller ones are
            bad. PNG files that need neither are copied byte for byte.
        scales (Sequence[int]): An LR folder is written for each.
        kernel (str): Kernel of the LRs, see :func:`mmpd.datasets.resampling.downsample`.
        antialias (bool): Antialiasing of the LRs.
        border (str): Border rule of the LRs, 'library' or 'mirror'.
        link (bool): Hard-link GT files that need no change instead of copying them.
        made_by (str, optional): Whose 8-bit arithmetic makes the LRs, see
            :func:`mmpd.datasets.resampling.downsample`. Defaults to None: that of
            :func:`mmpd.datasets.resampling.default_library`.

    Raises:
        ValueError: For an undefined downsampling, one that the library does not have, or a size
            that a scale does not divide.

    Example:
        >>> from mmpd.datasets.preparation import Recipe
        >>> Recipe(size=256, scales=(8, 16), kernel='bicubic').folders()
        ['GT', 'LR_x8_bicubic_antialias', 'LR_x16_bicubic_antialias']
    """

    def __init__(self, size, scales=(), kernel='bicubic', antialias=True, link=False,
                 border='library', made_by=None):
        if size < 1:
            raise ValueError(f'size must be positive, got {size}')
        for scale in scales:
            check_kernel(scale, kernel, antialias, border)
            check_library(made_by, scale, kernel, antialias, border)
            if size % scale:
                raise ValueError(f'size {size} is not divisible by scale {scale}')
        self.size, self.scales = size, sorted(set(scales))
        self.kernel, self.antialias, self.link, self.border = kernel, antialias, link, border
        self.default = default_library(kernel, antialias, border)
        self.made_by = self.default if made_by is None else made_by

    def options(self):
        """What decides the pixels, for the manifest."""
        options = dict(size=self.size, scales=self.scales, kernel=self.kernel,
                       antialias=self.antialias, border=self.border)
        return dict(options, made_by=self.made_by) if self.scales else options

    def lr_folder(self, scale):
        """Name of the LR folder: LR_x8_bicubic_antialias, with _pil by PIL's arithmetic."""
        alias = '' if self.kernel == 'average_pooling' else \
            '_antialias' if self.antialias else '_alias'
        border = '_mirror' if self.border == 'mirror' else ''
        library = '' if self.made_by == self.default else f'_{self.made_by}'
        return f'LR_x{scale}_{self.kernel}{alias}{border}{library}'

    def folders(self):
        """Names of all image folders."""
        return ['GT', *map(self.lr_folder, self.scales)]


def make_one(source, key, recipe, out):
    """Make GT and LRs of one image.

    Returns:
        dict: ``key``, ``name``, and either ``sha256`` and ``bytes`` of the GT, and ``notes`` on
        what was converted, or the reason why the image is ``bad``.
    """
    name = name_of(source, key)
    entry = dict(key=key, name=name)
    source.handle  # noqa: B018  an archive that cannot be opened is no matter of this one image
    try:
        _check_name(name)
        try:
            data = source.read(key)
        except Exception as error:  # checksum, decompression or read errors of the one image
            reason = getattr(error, 'strerror', None) or str(error)
            raise BadImage(f'cannot be read: {reason}') from None
        image, notes = decode(data, key)
        gt = square(image, recipe.size)
    except BadImage as error:
        return dict(entry, bad=str(error))
    target = f'{out}/GT/{name}.png'
    if data.startswith(b'\x89PNG') and gt.shape == image.shape and data[24:26] == b'\x08\x02' \
            and not notes:
        file = source.file(key) if recipe.link else None  # an 8-bit RGB PNG of the right size
    else:
        data, file = encode(gt), None
    if file is not None:
        if os.path.exists(target):
            os.remove(target)
        try:
            os.link(file, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            file = None  # on another file system: copy
    if file is None:
        write_atomically(target, data, sync=False)
    sizes = dict(GT=len(data))
    for scale in recipe.scales:
        folder = recipe.lr_folder(scale)
        encoded = encode(
            downsample(gt, scale, recipe.kernel, recipe.antialias, border=recipe.border,
                       made_by=recipe.made_by))
        write_atomically(f'{out}/{folder}/{name}.png', encoded, sync=False)
        sizes[folder] = len(encoded)
    entry.update(sha256=hashlib.sha256(data).hexdigest(), bytes=sizes)
    return dict(entry, notes=notes) if notes else entry


def _check_name(name):
    """A name must be one word of an annotation file, and a file name."""
    file = f'{name}.png'
    reason = name_fault(file)
    if reason is None and (plain(file) != file or file.split() != [file] or '\\' in file):
        reason = (f'its name {plain(file)!r} cannot stand in an annotation file, where a space or '
                  'line end ends a name: rename it')
    if reason:
        raise BadImage(reason)
