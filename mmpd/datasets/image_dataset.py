"""MMagic's image data set; an image that cannot be used is named, and stops the run or is skipped.
"""
import logging

import cv2
import torch
from mmagic.datasets.basic_image_dataset import BasicImageDataset as MMagicDataset
from mmagic.registry import DATASETS
from mmengine.logging import print_log

from ..errors import BadSample
from ..utils.files import plain
from ..utils.validation import check_choice, refuse

__all__ = ['BasicImageDataset']

# what a file can be the reason of; any other error is a fault of the code and keeps its traceback
OF_FILES = (ArithmeticError, AssertionError, EOFError, MemoryError, OSError, RuntimeError,
            ValueError, cv2.error)


@DATASETS.register_module(name='BasicImageDataset', force=True)
class BasicImageDataset(MMagicDataset):
    """MMagic's ``BasicImageDataset``, in whose errors the file, the transform and the reason stand.

    It takes the name's place in MMagic's registry, so that configs need not be changed.

    Args:
        on_bad_image (str): What to do about an image that cannot be read, decoded or made into a
            sample: 'stop', or (for training) 'skip': take the next one in the list, log each once
            and count them, see :attr:`bad_images`. Defaults to 'stop'.
        args, kwargs: MMagic's.

    Raises:
        ValueError: on construction, for another ``on_bad_image``, or 'skip' with ``test_mode``,
            where every image counts.
        BadSample: on use, for an image that cannot be used; with 'skip' if none of them can.

    Example:
        >>> from pathlib import Path
        >>> from mmpd.datasets.image_dataset import BasicImageDataset
        >>> _ = Path('face.png').write_bytes(b'no image')
        >>> load = dict(type='mmagic.LoadImageFromFile', key='gt')
        >>> dataset = BasicImageDataset(
        ...     data_root='.', data_prefix=dict(gt=''), ann_file='', pipeline=[load])
        >>> try:
        ...     dataset[0]
        ... except ValueError as error:
        ...     print(type(error).__name__, 'face.png' in str(error))
        BadSample True
    """

    def __init__(self, *args, on_bad_image='stop', **kwargs):
        check_choice(on_bad_image, 'on_bad_image', ('stop', 'skip'))
        self.on_bad_image, self._bad = on_bad_image, None
        super().__init__(*args, **kwargs)
        if on_bad_image == 'skip' and self.test_mode:
            refuse('on_bad_image', "'stop' with test_mode=True, for a figure over some of the "
                   'images is none of them all', on_bad_image)

    def load_data_list(self):
        """As MMagic's; ValueError where there is nothing, at which mmengine would stumble."""
        check_choice(self.search_key, 'search_key', tuple(self.data_prefix))
        found = super().load_data_list()
        if not found:
            where = self.ann_file or ', '.join(map(str, self.data_prefix.values()))
            raise ValueError(f'{where}: expected images, found none')
        return found

    def full_init(self):
        """As mmengine's; the counts of all worker processes are in shared memory."""
        super().full_init()
        if self._bad is None and self.on_bad_image == 'skip':
            self._bad = torch.zeros(len(self), dtype=torch.uint8).share_memory_()

    @property
    def bad_images(self):
        """How many images were skipped so far, by all workers, each counted once."""
        return 0 if self._bad is None else int(self._bad.sum())

    def prepare_data(self, idx):
        """The sample of an index, or with 'skip' of the next that can be used."""
        if self.on_bad_image == 'stop':
            return self._prepare(idx)
        for index in (*range(idx, len(self)), *range(idx)):  # always another one, and an end
            try:
                return self._prepare(index)
            except BadSample as error:
                last = error
                if not self._bad[index]:
                    self._bad[index] = 1
                    print_log(f'skipped, {self.bad_images} of {len(self)} images so far: {error}',
                              logger='current', level=logging.WARNING)
        raise BadSample(f'none of {len(self)} images can be used; the last: {last}')

    def _prepare(self, idx):
        data = self.get_data_info(idx)
        paths = list(dict.fromkeys(plain(path) for key, path in data.items()
                                   if key.endswith('_path') and isinstance(path, str)))
        for transform in getattr(self.pipeline, 'transforms', [self.pipeline]):
            stage = type(transform).__name__
            try:
                data = transform(data)
            except OF_FILES as error:
                raise BadSample(_describe(error, paths, stage)) from error
            except Exception as error:
                print_log(_describe(error, paths, stage), logger='current', level=logging.ERROR)
                raise
            if data is None:  # mmengine would take another sample in silence
                raise BadSample(f'{", ".join(paths)}: {stage}: it gave no sample')
        return data


def _describe(error, paths, stage):
    """file: stage: reason"""
    text = str(error).strip() or type(error).__name__
    reason = plain(getattr(error, 'strerror', None) or text.splitlines()[0])
    for path in paths:
        if path in text:  # of several, the one that it is about
            return f'{path}: {stage}: {reason.removeprefix(f"{path}: ")}'
    return f'{", ".join(paths)}: {stage}: {reason}'
