"""LR images from the GT of the same sample."""
import numpy as np
import torch
from mmagic.registry import TRANSFORMS
from mmcv.transforms import BaseTransform

from ...operators import build_operator
from ...operators.decomposition import apply
from ...utils.validation import check_bool, check_dict, check_str, refuse
from ..resampling import check_kernel, check_library, default_library, downsample

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

    The 8-bit arithmetic is a library's (``made_by``): by default torch's on uint8 for bicubic and
    bilinear with antialias, which takes a fifth of PIL's time and gives PIL's pixels but for about
    one value in 10,000, which differs by 1. Like PIL it rounds and clips between the axes, so that
    the LR is some levels off A x where A x overshoots; with 'float' or ``operator`` it is A x,
    rounded once.

    Required keys: those of ``keys``, images of shape (H, W, C) or (H, W) in 0..255, or lists of
    such images.

    Added keys: the values of ``keys`` with their ``ori_[KEY]_shape``, ``[KEY]_channel_order`` and
    ``[KEY]_color_type``, as ``LoadImageFromFile`` would set them.

    With ``operator`` the LR is the measurement of any operator of :mod:`mmpd.operators`, one's own
    included, so that a model can be trained against the A of its PD head. It is applied to the
    channels in the order in which they were loaded, which is the network's.

    Args:
        scale (int, optional): Downsampling factor; not with ``operator``.
        kernel (str): 'average_pooling', 'bicubic', 'bilinear', 'lanczos' or 'box'. Defaults to
            'bicubic', as in the paper's experiments.
        antialias (bool): Widen the kernel by the scale. Defaults to True.
        border (str): 'library' or, as MATLAB does, 'mirror'. Defaults to 'library'.
        quantize (bool): Clip and round to uint8, as a saved LR file would be. If False, the LR is
            float32, neither clipped nor rounded. Defaults to True.
        keys (dict[str, str]): Source key -> key of the LR. Defaults to ``dict(gt='img')``.
        operator (dict | LinearOperator, optional): The degradation, see
            :func:`mmpd.operators.build_operator`, in place of scale, kernel, antialias and border.
        made_by (str, optional): Whose 8-bit arithmetic: 'float', 'pil', 'torch', 'torch_uint8',
            'opencv' or 'matlab', as ``test_cfg.made_by``. Defaults to None: that of
            :func:`mmpd.datasets.resampling.default_library`, 'float' for images that are not uint8.

    Raises:
        ValueError: On construction for an undefined downsampling or one that the library does not
            have, empty ``keys``, or an operator beside a downsampling; on use for a source that is
            missing, whose sides do not fit, or whose measurement leaves 0..255 with ``quantize``.

    Example:
        >>> import numpy as np
        >>> from mmpd.datasets.transforms import LRSynthesis
        >>> synthesise = LRSynthesis(scale=4, kernel='bicubic')  # dict(type='LRSynthesis', scale=4)
        >>> results = synthesise(dict(gt=np.zeros((32, 32, 3), np.uint8)))
        >>> results['img'].shape, results['img'].dtype
        ((8, 8, 3), dtype('uint8'))
    """

    def __init__(self, scale=None, kernel='bicubic', antialias=True, quantize=True, keys=None,
                 border='library', operator=None, made_by=None):
        check_bool(quantize, 'quantize')
        if operator is None:
            check_kernel(scale, kernel, antialias, border)
            check_library(made_by, scale, kernel, antialias, border, quantize)
        elif (scale, kernel, antialias, border, made_by) != (None, 'bicubic', True, 'library',
                                                             None):
            refuse('operator', 'either an operator or scale, kernel, antialias, border and made_by',
                   operator)
        else:
            operator = build_operator(operator)
        keys = check_dict(dict(gt='img') if keys is None else keys, 'keys')
        if not keys:
            refuse('keys', "source keys to LR keys, e.g. dict(gt='img')", keys)
        for source, target in keys.items():
            check_str(source, 'keys', 'names of keys'), check_str(target, 'keys', 'names of keys')
        self.scale, self.kernel, self.border, self.operator = scale, kernel, border, operator
        self.antialias, self.keys, self.quantize = antialias, dict(keys), quantize
        self.made_by = made_by

    def _measure(self, image):
        """The operator's measurement of an image (H, W[, C]), likewise."""
        planes = image[..., None] if image.ndim == 2 else image
        tensor = torch.from_numpy(np.ascontiguousarray(planes, np.float32)).permute(2, 0, 1)
        with torch.no_grad():
            lr = apply(self.operator, 'A', tensor[None])[0].permute(1, 2, 0).numpy()
        if self.quantize:
            # bicubic overshoots by some grey levels, as every library's does before clipping
            if lr.max() > 2 * 255 or lr.min() < -255:
                refuse('quantize', f'False, for {self.operator} leaves 0..255 with values of up to '
                       f'{lr.max():g}', True)
            lr = np.floor(lr.clip(0, 255) + 0.5).astype(np.uint8)
        return lr[..., 0] if image.ndim == 2 and lr.shape[2] == 1 else np.ascontiguousarray(lr)

    def _downsample(self, image, source, results):
        try:
            if self.operator is not None:
                return self._measure(image)
            return downsample(image, self.scale, self.kernel, self.antialias, self.quantize,
                              self.border, self.made_by)
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
        if self.operator is not None:
            return (f'{type(self).__name__}(operator={self.operator}, quantize={self.quantize}, '
                    f'keys={self.keys})')
        made_by = self.made_by or (default_library(self.kernel, self.antialias, self.border)
                                   if self.quantize else 'float')
        return (f'{type(self).__name__}(scale={self.scale}, kernel={self.kernel!r}, '
                f'antialias={self.antialias}, quantize={self.quantize}, keys={self.keys}, '
                f'border={self.border!r}, made_by={made_by!r})')
