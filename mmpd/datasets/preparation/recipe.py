"""What is made of one raw image: GT and LRs."""
import errno
import hashlib
import os
import re
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from ...utils.files import name_fault, plain, write_partial
from ...utils.validation import MOST_CHANNELS, check_choice, check_positive_int, refuse
from ..resampling import check_kernel, check_library, default_library, downsample
from .images import BadImage, decode, default_resizer, encode, square
from .sources import name_of

__all__ = ['RESIZERS', 'Recipe', 'make_some']


RESIZERS = ('pil', 'torch_uint8')
SIDE_BY_SIDE = 2 << 20  # bytes of images, about what the processor's cache holds
USUAL_NAME = re.compile(r'[\w.-]{1,255}', re.ASCII)


def _check_resizer(resized_by):
    if resized_by is None:
        return default_resizer()
    check_choice(resized_by, 'resized_by', RESIZERS)
    if resized_by == 'torch_uint8' and default_resizer() != resized_by:
        refuse('resized_by', "'pil', for this torch has no Lanczos filter for uint8", resized_by)
    return resized_by


class Recipe:
    """What is made of one image.

    Args:
        size (int): Side of the square GT. Larger images are cropped to the central square and
            resized with the Lanczos filter (as StyleGAN's data sets were); smaller ones are
            bad. PNG files that need neither are copied byte for byte.
        scales (Sequence[int]): An LR folder is written for each.
        kernel (str): Kernel of the LRs, see :func:`mmpd.datasets.resampling.downsample`.
        antialias (bool): Antialiasing of the LRs.
        border (str): Border rule of the LRs, 'library' or 'mirror'.
        link (bool): Hard-link GT files that need no change instead of copying them.
        made_by (str, optional): Whose 8-bit arithmetic makes the LRs, see
            :func:`mmpd.datasets.resampling.downsample`. Defaults to None: that of
            :func:`mmpd.datasets.resampling.default_library`.
        resized_by (str, optional): Whose 8-bit arithmetic resizes GTs: 'pil' or 'torch_uint8',
            which take one another's place but for 1 grey level here and there. Defaults to None:
            torch, which takes much less time, if it has the Lanczos filter for uint8.
        gt (bool): Write the GT folder. Without, the source, a flat folder of PNG files of the right
            size, remains it, and is not hashed. Defaults to True.

    Raises:
        ValueError: For an undefined downsampling, one that the library does not have, or a size
            that a scale does not divide.

    Example:
        >>> from mmpd.datasets.preparation import Recipe
        >>> Recipe(size=256, scales=(8, 16), kernel='bicubic').folders()
        ['GT', 'LR_x8_bicubic_antialias', 'LR_x16_bicubic_antialias']
    """

    def __init__(self, size, scales=(), kernel='bicubic', antialias=True, link=False,
                 border='library', made_by=None, resized_by=None, gt=True):
        check_positive_int(size, 'size', most=MOST_CHANNELS)
        for scale in scales:
            check_kernel(scale, kernel, antialias, border)
            check_library(made_by, scale, kernel, antialias, border)
            if size % scale:
                raise ValueError(f'size {size} is not divisible by scale {scale}')
        if not gt and not scales:
            raise ValueError('without GT and without scales there is nothing to make')
        self.gt = gt
        self.size, self.scales = size, sorted(set(scales))
        self.kernel, self.antialias, self.link, self.border = kernel, antialias, link, border
        self.resized_by = _check_resizer(resized_by)
        self.default = default_library(kernel, antialias, border)
        self.made_by = self.default if made_by is None else made_by

    def options(self):
        """What decides the pixels, for the manifest."""
        options = dict(size=self.size, resized_by=self.resized_by, scales=self.scales,
                       kernel=self.kernel, antialias=self.antialias, border=self.border)
        if self.scales:
            options['made_by'] = self.made_by
        return options if self.gt else dict(options, gt=False)

    def lr_folder(self, scale):
        """Name of the LR folder: LR_x8_bicubic_antialias, with _pil by PIL's arithmetic."""
        alias = '' if self.kernel == 'average_pooling' else \
            '_antialias' if self.antialias else '_alias'
        border = '_mirror' if self.border == 'mirror' else ''
        library = '' if self.made_by == self.default else f'_{self.made_by}'
        return f'LR_x{scale}_{self.kernel}{alias}{border}{library}'

    def folders(self):
        """Names of all image folders."""
        return ['GT'] * self.gt + [*map(self.lr_folder, self.scales)]

    def check(self, source, keys):
        """Refuse a source that cannot serve as it is where no GT is written: ValueError."""
        for key in keys if not self.gt else ():
            if source.file(key) is None or '/' in key or not key.endswith('.png'):
                raise ValueError(f'{plain(str(source.path))}: expected a flat folder of PNG files '
                                 f'for LR alone, which stay the GT, got {plain(key)}')


def make_some(source, keys, recipe, out, partial):
    """Make GT and LRs of images.

    Small ones are worked on side by side, each kind of work for all of them after the other: what
    it takes stays in the processor's cache.

    Args:
        source (Source): Raw images.
        keys (Sequence[str]): Which.
        recipe (Recipe): What to make.
        out (str): Output folder.
        partial (str): Name of folders in the image folders for what is not whole yet.

    Returns:
        list[dict]: Of each image ``key``, ``name``, the source's ``stamp`` if there is one, and
        either ``sha256`` of the GT, ``bytes`` of every file and ``notes`` on what was converted, or
        the reason why the image is ``bad``.
    """
    entries, held = [], []
    for key in keys:
        entry, images = _prepared(source, key, recipe)
        entries.append(entry)
        held += images
        if sum(image.gt.nbytes for image in held) >= SIDE_BY_SIDE:
            _write_images(held, source, recipe, out, partial)
            held.clear()  # large images would fill the memory
    _write_images(held, source, recipe, out, partial)
    return entries


class _Image(NamedTuple):
    entry: dict
    gt: np.ndarray
    file: bytes | None  # that holds this GT and nothing else


def _prepared(source, key, recipe):
    """The entry of an image, and in a list the image; it is empty if that is bad."""
    name = name_of(source, key)
    source.handle  # noqa: B018  an archive that cannot be opened is no matter of this one image
    entry, stamp = dict(key=key, name=name), source.stamp(key)
    if stamp is not None:
        entry['stamp'] = stamp
    try:
        _check_name(name)
        try:
            data = source.read(key)
        except Exception as error:  # checksum, decompression or read errors of the one image
            reason = getattr(error, 'strerror', None) or str(error)
            raise BadImage(f'cannot be read: {reason}') from None
        image, notes = decode(data, key)
        gt = square(image, recipe.size, recipe.resized_by)
        if not recipe.gt and gt.shape != image.shape:
            raise BadImage(f'{image.shape[0]} x {image.shape[1]}, needed {recipe.size} x '
                           f'{recipe.size} for LR alone')
    except BadImage as error:
        return dict(entry, bad=str(error)), []
    if notes:
        entry['notes'] = notes
    as_it_is = data.startswith(b'\x89PNG') and data[24:26] == b'\x08\x02' and \
        gt.shape == image.shape and not notes  # an 8-bit RGB PNG of the right size
    # the encoder and the resizing would each copy what is cut out of a larger image
    return entry, [_Image(entry, np.ascontiguousarray(gt), data if as_it_is else None)]


def _write_images(images, source, recipe, out, partial):
    """Write all files of images; their sizes and hashes go into their entries."""
    for entry, gt, file in images if recipe.gt else ():
        data, target = encode(gt) if file is None else file, f'{out}/GT/{entry["name"]}.png'
        if not (file and recipe.link and _link(source.file(entry['key']), target)):
            _write(target, data, partial)
        entry['sha256'], entry['bytes'] = hashlib.sha256(data).hexdigest(), dict(GT=len(data))
    for scale in recipe.scales:
        folder = recipe.lr_folder(scale)
        small = [downsample(gt, scale, recipe.kernel, recipe.antialias, border=recipe.border,
                            made_by=recipe.made_by) for _, gt, _ in images]
        for (entry, _, _), lr in zip(images, small, strict=True):
            data = encode(lr)
            _write(f'{out}/{folder}/{entry["name"]}.png', data, partial)
            entry.setdefault('bytes', {})[folder] = len(data)


def _write(path, data, partial):
    """The whole file or nothing; a link of that name is replaced, not followed.

    Each process writes in a folder of its own: one that they share can take one new name at a
    time, for which the others wait.
    """
    above = f'{os.path.dirname(path)}/{partial}'
    own = f'{above}/{os.getpid()}'
    for more in (True, True, False):
        try:
            return os.replace(write_partial(path, data, sync=False, folder=own), path)
        except FileNotFoundError:  # not there yet, or a run that began meanwhile removed it
            if not more:
                raise
            for folder in (above, own):
                with suppress(FileExistsError):
                    os.mkdir(folder)


def _link(file, target):
    """Whether ``target`` is now a hard link to a file; False where there can be none."""
    if file is None:
        return False
    if os.path.lexists(target):
        os.remove(target)
    try:
        os.link(os.path.realpath(file), target)  # of a link it would make another, leading nowhere
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False  # on another file system: copy
    return True


def _check_name(name):
    """A name must be one word of an annotation file, and a file name."""
    file = f'{name}.png'
    if USUAL_NAME.fullmatch(file):
        return
    reason = name_fault(file)
    if reason is None and (plain(file) != file or file.split() != [file] or '\\' in file):
        reason = (f'its name {plain(file)!r} cannot stand in an annotation file, where a space or '
                  'line end ends a name: rename it')
    if reason:
        raise BadImage(reason)
