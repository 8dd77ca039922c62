"""MMagic's image loader by the rule of docs/images.md."""
import io
import logging
import os

import cv2
import mmcv
import numpy as np
from mmagic.datasets.transforms.loading import LoadImageFromFile as MMagicLoader
from mmagic.registry import TRANSFORMS
from mmengine.fileio import LmdbBackend, LocalBackend, get_file_backend
from mmengine.logging import print_log
from PIL import UnidentifiedImageError

from ...utils.files import plain
from ...utils.image_files import opened, read_bytes
from ...utils.images import read_picture
from ...utils.lmdb_file import check_lmdb
from ...utils.plain_files import decode_plain_png

__all__ = ['LoadImageFromFile']


@TRANSFORMS.register_module(name='LoadImageFromFile', force=True)
class LoadImageFromFile(MMagicLoader):
    """MMagic's ``LoadImageFromFile``, whose errors name the file.

    It takes the name's place in MMagic's registry, so that configs need not be changed. Images
    are read as everywhere in mmpd: what is converted is logged, what would lose something (16
    bits, CMYK, several pictures), is damaged or has more pixels than allowed is refused.

    Args:
        save_original_img (bool): Keep the image as it was read too, under ``ori_{key}``.
            Defaults to False.
        args, kwargs: MMagic's. With another ``color_type`` than 'color', or an
            ``imdecode_backend``, mmcv decodes the file as it always does: 16 bits become 8.

    Example:
        >>> from PIL import Image
        >>> from mmpd.datasets.transforms import LoadImageFromFile
        >>> Image.new('P', (6, 4)).save('palette.png')  # looked up, which the log says
        >>> LoadImageFromFile(key='gt')(dict(gt_path='palette.png'))['gt'].shape
        (4, 6, 3)
    """
    _told = set()  # of this process

    def _load_image(self, filename):
        """Load an image.

        Args:
            filename (str): Its file, or its key in an LMDB.

        Returns:
            ndarray: uint8, (H, W, 3).

        Raises:
            OSError: if it cannot be read.
            ValueError: if it cannot be decoded, or is refused; begins with the file.
        """
        data = self._read(filename)
        if self.color_type == 'color' and self.imdecode_backend is None:
            pixels = decode_plain_png(data)
            if pixels is not None:
                return (cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if self.channel_order == 'rgb'
                        else pixels)
            pixels, notes = read_picture(filename, data).as_rgb()
            self._tell(filename, notes)
            return np.array(pixels if self.channel_order == 'rgb' else pixels[..., ::-1], order='C')
        try:
            opened(io.BytesIO(data), filename, lambda image: None)
        except ValueError as error:
            if not isinstance(error.__cause__, UnidentifiedImageError):
                raise  # mmcv's backends may know formats that Pillow does not
        image = mmcv.imfrombytes(data, self.color_type, self.channel_order, self.imdecode_backend)
        if image is None:
            raise ValueError(f'{plain(filename)}: not a readable image')
        return image

    def _read(self, filename):
        if self.file_backend is None:
            self.file_backend = get_file_backend(uri=filename, backend_args=self.backend_args)
        backend, key = self.file_backend, filename
        if isinstance(backend, LmdbBackend):
            key = os.path.splitext(os.path.basename(filename))[0]
        if key in self.cache:
            return self.cache[key]
        if isinstance(backend, LocalBackend):
            data = read_bytes(filename)
        else:
            if isinstance(backend, LmdbBackend):
                check_lmdb(backend.db_path)
            data = backend.get(key)
        if data is None:
            raise ValueError(f'{plain(filename)}: {backend.db_path} has no key {key!r}')
        if self.use_cache:
            self.cache[key] = data
        return data

    def _tell(self, filename, notes):
        for note in notes:
            if note not in self._told:
                self._told.add(note)
                print_log(f'{plain(filename)}: {note} (docs/images.md; said of the first such '
                          'image in each process)', logger='current', level=logging.WARNING)
