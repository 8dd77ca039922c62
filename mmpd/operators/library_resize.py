"""Downsampling of integer images as the libraries do it, with their own rounding.

An 8-bit LR file was made by a library whose arithmetic differs from A by more than one
rounding: PIL and torch's uint8 kernels round *and clip* the rows before they go on with the
columns, OpenCV's weights have 11 bits.  So the LR is given back only by the library itself.
With 16 bits it is one rounding for those that have such images.
"""
import numpy as np
import torch
import torch.nn.functional as F

from ..errors import ArgumentError
from ..utils.validation import check_choice
from .average_pooling import AveragePooling
from .resize import SeparableResize

__all__ = ['LIBRARIES', 'LibraryResize']

# library -> (kernel, antialias) -> its name for that, see the table in kernels.py
METHODS = {
    'pil': {('bicubic', True): 'BICUBIC', ('bilinear', True): 'BILINEAR',
            ('lanczos', True): 'LANCZOS', ('box', True): 'BOX', ('box', False): 'NEAREST'},
    'torch': {('bicubic', True): 'bicubic', ('bilinear', True): 'bilinear', ('box', True): 'area',
              ('bicubic', False): 'bicubic', ('bilinear', False): 'bilinear',
              ('box', False): 'nearest-exact'},
    'torch_uint8': {('bicubic', True): 'bicubic', ('bilinear', True): 'bilinear'},
    'opencv': {('bicubic', False): 'INTER_CUBIC', ('bilinear', False): 'INTER_LINEAR',
               ('lanczos', False): 'INTER_LANCZOS4', ('box', True): 'INTER_AREA'},
    'matlab': {(kernel, True): kernel for kernel in ('bicubic', 'bilinear', 'lanczos', 'box')},
}
LIBRARIES = ('float', *METHODS)
EIGHT_BITS = ('pil', 'torch_uint8')


def check_library(made_by, most=255):
    """Raise ArgumentError unless it is one of LIBRARIES that has values up to ``most``."""
    check_choice(made_by, 'made_by', LIBRARIES)
    if most > 255 and made_by in EIGHT_BITS:
        others = ', '.join(name for name in LIBRARIES if name not in EIGHT_BITS)
        raise ArgumentError(f'made_by={made_by!r} resizes 8 bits only; for 16 bits expected one of '
                            f'{others}')


class LibraryResize:
    """What a library makes of an image of 8 or 16 bits.

    Args:
        operator (SeparableResize | AveragePooling): Which resizing.
        made_by (str): 'pil', 'torch' (``interpolate`` in float32, then clipped and rounded),
            'torch_uint8' (``interpolate`` of uint8, on the CPU, as torchvision does), 'opencv' or
            'matlab' (imresize in double, rounded half away from zero).  The installed library
            does the work; MATLAB's is the operator's own, with border='mirror'.
        most (int): The largest value, 255 or 65535.

    Attributes:
        rounds_between (bool): Rows are rounded to 8 bits before the columns are resized.
        operator (SeparableResize): The same without rounding.

    Raises:
        ValueError: Unknown library, one that has no such resizing or no images of 16 bits, or is
            not installed.
    """

    def __init__(self, operator, made_by, most=255):
        check_library(made_by, most)
        methods = METHODS.get(made_by, {})  # 'float' has none
        if isinstance(operator, AveragePooling):
            operator = SeparableResize(operator.scale, 'box')
        if not isinstance(operator, SeparableResize):
            raise ValueError(f'made_by={made_by!r}: expected SeparableResize or AveragePooling as '
                             f'the operator, got {type(operator).__name__}')
        border = 'mirror' if made_by == 'matlab' else 'library'
        self.method = methods.get((operator.kernel, operator.antialias))
        indifferent = operator.kernel == 'box'  # does not look beyond the image
        if self.method is None or not (indifferent or operator.border == border):
            has = ', '.join(kernel if antialias else f'{kernel} (alias)'
                            for kernel, antialias in methods)
            raise ValueError(f'made_by={made_by!r} has no {operator!r}; it has {has}, with '
                             f'border={border!r}')
        self.operator, self.made_by, self.most = operator, made_by, most
        self.rounds_between = made_by in ('pil', 'torch_uint8') and self.method != 'NEAREST'
        self._resize = getattr(self, f'_{made_by}')
        if made_by == 'opencv':
            try:
                import cv2
            except ImportError as error:
                raise ValueError(f"made_by='opencv' needs OpenCV, which cannot be imported "
                                 f'({error}): pip install opencv-python') from error
            self._cv2 = cv2

    def __call__(self, image):
        """Integers (N, C, H, W) -> (N, C, H / scale, W / scale), on the image's device.

        Both are uint8, or int32 where ``most`` is beyond.
        """
        return self._resize(image.cpu()).to(image.device)

    def _pil(self, image):
        from PIL import Image
        n, c, height, width = image.shape
        size = width // self.operator.scale, height // self.operator.scale
        if c == 3 and image.stride(1) == 1:  # channels-last memory is PIL's own
            method = Image.Resampling[self.method]
            small = [np.asarray(Image.fromarray(picture).resize(size, method))
                     for picture in image.permute(0, 2, 3, 1).contiguous().numpy()]
            return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2)
        # each channel for itself, as PIL does with RGB too
        planes = [np.asarray(Image.fromarray(plane).resize(size, Image.Resampling[self.method]))
                  for plane in image.reshape(-1, height, width).numpy()]
        return torch.from_numpy(np.stack(planes)).view(n, c, *size[::-1])

    def _opencv(self, image):
        n, _, height, width = image.shape
        size = width // self.operator.scale, height // self.operator.scale
        pixels = np.ascontiguousarray(image.permute(0, 2, 3, 1).numpy())
        if self.most > 255:
            pixels = pixels.astype(np.uint16)
        small = [self._cv2.resize(picture, size, interpolation=getattr(self._cv2, self.method))
                 for picture in pixels]
        small = np.stack(small).astype(np.uint8 if self.most <= 255 else np.int32)
        return torch.from_numpy(small).view(n, *size[::-1], -1).permute(0, 3, 1, 2)

    def _torch(self, image):
        return self._interpolate(image.float()).clamp(0, self.most).round().to(image.dtype)

    def _torch_uint8(self, image):
        if max(image.shape[-2:]) == self.operator.scale:  # to one pixel, which planes make fail
            image = image.contiguous(memory_format=torch.channels_last)
        return self._interpolate(image)

    def _interpolate(self, image):
        size = [side // self.operator.scale for side in image.shape[-2:]]
        smooth = self.method in ('bicubic', 'bilinear')
        return F.interpolate(image, size=size, mode=self.method, **(
            dict(align_corners=False, antialias=self.operator.antialias) if smooth else {}))

    def _matlab(self, image):
        return (self.operator.A(image.double()).clamp(0, self.most) + 0.5).floor().to(image.dtype)
