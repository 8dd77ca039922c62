"""LR images from the GT of the same sample."""
import numpy as np
from mmagic.registry import TRANSFORMS
from mmcv.transforms import BaseTransform

from ..resampling import check_kernel, downsample

__all__ = ['LRSynthesis']


@TRANSFORMS.register_module()
class LRSynthesis(BaseTransform):
    """Synthesise the LR image by downsampling the GT, so that no LR folder is needed.

    Put it after everything that changes the GT (flips, crops), right before ``PackInputs``. The
    pixels equal those of an LR folder written by ``tools/dataset_converters`` with the same
    arguments: both call :func:`mmpd.datasets.resampling.downsample`.

    With ``antialias=True`` bicubic has a = -0.5 and weights beyond the border are renormalised
    (PIL, torch ``antialias=True``); with ``antialias=False`` bicubic has a = -0.75 and the border
    is replicated (OpenCV ``INTER_CUBIC``, torch without antialias). Average pooling is the
    operator of the paper's eq. (8).

    Required keys: those of ``keys``, images of shape (H, W, C) or (H, W) in 0..255, or lists of
    such images.

    Added keys: the values of ``keys`` with their ``ori_[KEY]_shape``, ``[KEY]_channel_order`` and
    ``[KEY]_color_type``, as ``LoadImageFromFile`` would set them.

    Args:
        scale (int): Downsampling factor.
        kernel (str): 'average_pooling', 'bicubic', 'bilinear', 'lanczos' or 'box'. Defaults to
            'bicubic', as in the paper's experiments.
        antialias (bool): Widen the kernel by the scale. Defaults to True.
        border (str): 'library' or, as MATLAB does, 'mirror'. Defaults to 'library'.
        quantize (bool): Clip and round (half up) to uint8, as a saved LR file would be. If False,
            the LR is float32, neither clipped nor rounded. Defaults to True.
        keys (dict[str, str]): Source key -> key of the LR. Defaults to ``dict(gt='img')``.

    Raises:
        ValueError: On construction for an undefined downsampling or empty ``keys``; on use for a
            source that is missing or whose sides the scale does not divide.
    """

    def __init__(self, scale, kernel='bicubic', antialias=True, quantize=True, keys=None,
                 border='library'):
        check_kernel(scale, kernel, antialias, border)
        keys = dict(gt='img') if keys is None else keys
        if not isinstance(keys, dict) or not keys:
            raise ValueError("keys must map source keys to LR keys, e.g. dict(gt='img'), "
                             f'got {keys!r}')
        self.scale, self.kernel, self.border = int(scale), kernel, border
        self.antialias, self.quantize, self.keys = antialias, quantize, dict(keys)

    def _downsample(self, image, source, results):
        try:
            return downsample(image, self.scale, self.kernel, self.antialias, self.quantize,
                              self.border)
        except ValueError as error:
            path = results.get(f'{source}_path', 'no file')
            raise ValueError(f"cannot make the LR from '{source}' ({path}): {error}") from None

    def transform(self, results):
        """Add the LR images to ``results``."""
        for source, target in self.keys.items():
            if source not in results:
                raise ValueError(f"LRSynthesis needs the key '{source}', the sample has: "
                                 f'{", ".join(sorted(results))}')
            images = results[source]
            frames = images if isinstance(images, (list, tuple)) else [images]
            frames = [self._downsample(np.asarray(image), source, results) for image in frames]
            shapes = [frame.shape for frame in frames]
            single = not isinstance(images, (list, tuple))
            results[target] = frames[0] if single else frames
            results[f'ori_{target}_shape'] = shapes[0] if single else shapes
            for suffix in ('channel_order', 'color_type'):
                if f'{source}_{suffix}' in results:
                    results[f'{target}_{suffix}'] = results[f'{source}_{suffix}']
        return results

    def __repr__(self):
        return (f'{type(self).__name__}(scale={self.scale}, kernel={self.kernel!r}, '
                f'antialias={self.antialias}, quantize={self.quantize}, keys={self.keys}, '
                f'border={self.border!r})')
