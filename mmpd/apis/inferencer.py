"""Super-resolve LR images, no GT needed."""
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmagic.structures import DataSample
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from PIL import Image

from ..errors import InputError
from ..evaluation.functional import errors, psnr
from ..models.generators import OnnxGenerator
from ..models.generators.style_conv import channels_last
from ..operators import clip_uint8
from ..operators.decomposition import apply
from ..operators.library_resize import LibraryResize
from ..utils.files import plain
from ..utils.images import Picture, find_pictures, from_pil, read_picture
from ..utils.model import check_device
from ..utils.validation import (
    MOST_CHANNELS,
    check_dict,
    check_path,
    check_positive_int,
    optional,
)
from .folder import FolderRun, Job, make_batches
from .loading import load_model
from .precision import check_dtype, narrow
from .tiles import forward_padded, forward_tiled

__all__ = ['PDInferencer', 'Prediction']


@dataclass(eq=False)
class Prediction:
    """What a model makes of an LR image.

    Attributes:
        image (Picture): The output, grey or with alpha as the LR is.
        raw (Picture): The generator's own prediction, clipped and rounded.
        operator (object): A.
        figures (dict): ``psnr_lr_raw`` and ``psnr_lr``: PSNR in dB between A of the 8-bit raw
            prediction, or output, and the LR (infinite if equal); ``lr_values``: how many the LR
            has; ``lr_values_unmatched``: how many A of the output, rounded, does not reproduce.
    """
    image: Picture
    raw: Picture
    operator: object
    figures: dict


def _describe(operator):
    """One line for an operator, or for the config of one whose scale the images give."""
    if not isinstance(operator, dict):
        return ' '.join(str(operator).split())
    kind = operator['type']
    arguments = ', '.join(f'{key}={value!r}' for key, value in operator.items()
                          if key != 'type' and value is not None)
    return f'{kind if isinstance(kind, str) else kind.__name__}({arguments})'


class PDInferencer:
    """A trained model for use outside the runner; every output is consistent with its LR.

    Args:
        model (str | Path | Config): A config or its file, a name of the model zoo (see
            ``docs/model_zoo.md``; its checkpoint is downloaded), or a checkpoint whose network is
            recognised, an ONNX file among them. A model without PD is given it.
        checkpoint (str, optional): File or URL; not with a checkpoint, and not needed with a name.
        device (str, optional): Defaults to a GPU if there is one; the CPU for an ONNX file.
        cfg_options (dict, optional): Overrides, e.g. ``{'model.test_cfg.num_samples': 4}``.
        operator (dict, optional): The degradation A by which the LR images were made, e.g.
            ``dict(type='SeparableResize', kernel='bicubic', scale=None)``. Defaults to that of the
            config, or average pooling.
        strength (float, optional): 0 gives the generator's own prediction, 1 consistency.
        quantize (str, optional): 'consistent' or 'clip', see :class:`PDMixin`.
        made_by (str, optional): The library that made the LR images.
        tile (int, optional): Compute pictures in tiles of this side (of the LR).
        tile_overlap (int): Surroundings that a tile is computed with.
        batch_size (int): Images of equal size, or tiles, at once.
        dtype (str): Precision of the network: 'float32', 'bfloat16' (faster on processors that
            compute in it, see docs/benchmarks.md), or 'float16' on CUDA. PD, rounding and figures
            stay float32, so that the output is as consistent as ever.

    Raises:
        InputError: no such model, or a setting that does not fit it.
        WeightsNotFound: no such checkpoint (a FileNotFoundError).
        WeightsMismatch: the checkpoint is not one of this model (a RuntimeError).

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from mmagic.registry import MODELS
        >>> from mmpd.apis import PDInferencer
        >>> network = MODELS.build(dict(
        ...     type='RRDBNet', in_channels=3, out_channels=3, mid_channels=4, num_blocks=1))
        >>> torch.save(network.state_dict(), 'esrgan.pth')
        >>> lr = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
        >>> image = PDInferencer('esrgan.pth', device='cpu')(lr)
        >>> np.array_equal(image.reshape(8, 4, 8, 4, 3).mean((1, 3)), lr)
        True
    """

    def __init__(self, model, checkpoint=None, device=None, cfg_options=None, operator=None,
                 strength=None, quantize=None, made_by=None, tile=None, tile_overlap=16,
                 batch_size=1, dtype='float32'):
        if not isinstance(model, Config):
            check_path(model, 'model', 'a config, its file, a name of the zoo or a checkpoint')
        optional(check_path, checkpoint, 'checkpoint', 'a file or URL')
        optional(check_dict, cfg_options, 'cfg_options')
        self.device = check_device(get_device() if device is None else device, 'device')
        optional(check_positive_int, tile, 'tile', most=MOST_CHANNELS)
        check_positive_int(tile_overlap, 'tile_overlap', least=0)
        check_positive_int(batch_size, 'batch_size')
        self.dtype = check_dtype(dtype, self.device)
        head = dict(operator=operator, strength=strength)
        test_cfg = dict(quantize=quantize, made_by=made_by)
        loaded = load_model(
            model, checkpoint, cfg_options,
            *({key: value for key, value in given.items() if value is not None}
              for given in (head, test_cfg)))
        self.model, self.name, self.weights = loaded.model, loaded.name, loaded.weights
        self.tile, self.tile_overlap, self.batch_size = tile, tile_overlap, batch_size
        generator = self.model.generator
        in_size = getattr(generator, 'in_size', None)  # of networks for one size only
        self.only_size = (in_size, in_size) if in_size else getattr(generator, 'only_size', None)
        self._multiple = {1: 4, 2: 2}.get(getattr(generator, 'upscale_factor', None), 1)
        if tile is not None:
            self._check_tiling(generator)
        self._check_precision(generator)
        if isinstance(generator, OnnxGenerator) and self.device.type != 'cpu':
            if device is not None:
                raise InputError(f'device: {self.name} is an ONNX file, which ONNX Runtime '
                                 f'computes on the CPU; expected cpu, got {device}')
            self.device = torch.device('cpu')
        self.model.to(self.device)
        for network in filter(None, (generator, getattr(self.model, 'generator_ema', None))):
            if self.dtype != torch.float32:
                narrow(network, self.dtype, self.name)
            if self.device.type == 'cpu':
                channels_last(network)
        self.model.test_cfg = dict(self.model.test_cfg or {}, keep_raw=True)
        self.made_by = self.model.test_cfg.get('made_by')
        self.model.data_preprocessor.data_keys = []  # there is no GT to look for

    def _check_tiling(self, generator):
        kind = type(generator).__name__
        if self.only_size is not None:
            raise InputError(f'tile: {kind} takes {self._only_size()} only; tiles are for fully '
                             'convolutional networks')
        if getattr(generator, 'tiling', None) == 'internal':
            raise InputError(f'tile: {getattr(generator, "architecture", kind)} looks at the whole '
                             'picture; tiles are for fully convolutional networks')

    def _check_precision(self, generator):
        network = getattr(generator, 'generator', generator)
        if self.device.type == 'cpu' and getattr(network, 'fp16_enabled', False):
            raise InputError(f'{self.name} has fp16_enabled=True, which needs a CUDA GPU; set '
                             'model.generator.fp16_enabled=False for the CPU')

    @property
    def settings(self):
        """What decides how an output looks, as plain text: dict[str, str]."""
        head = self.model.pd_head
        return dict(
            model=self.name, weights=self.weights,
            operator=_describe(head.operator_cfg or head.operator),
            strength=head.strength_text, quantize=self.model.quantize,
            made_by=str(self.made_by), dtype=str(self.dtype).removeprefix('torch.'),
            tile='None' if self.tile is None else f'{self.tile}+{self.tile_overlap}')

    def check_size(self, size):
        """Raise ValueError, naming the valid ones, unless the model takes (width, height)."""
        if any(only not in (None, side) for only, side in zip(
                self.only_size or (), size, strict=False)):
            raise ValueError('{}x{}, but {} takes {} only (crop or resize it, or take a model '
                             'for its size: docs/model_zoo.md)'.format(
                                 *size, self.name, self._only_size()))

    def _only_size(self):
        return 'x'.join('*' if side is None else str(side) for side in self.only_size)

    @torch.no_grad()
    def predict(self, pictures):
        """Super-resolve pictures of one size.

        Args:
            pictures (list[Picture]): They may be grey or have alpha, each as it likes: a grey one
                goes in as three equal channels and comes out grey (the mean of the channels, made
                consistent); alpha is enlarged bicubically and made consistent by the same A.

        Returns:
            list[list[Prediction]]: For each picture; more than one prediction for models that
            draw samples (:class:`PDN` with ``test_cfg.num_samples``).

        Raises:
            ValueError: for sizes that differ or that the model does not take.
        """
        if not pictures:
            return []
        height, width = pictures[0].pixels.shape[:2]
        if any(picture.pixels.shape[:2] != (height, width) for picture in pictures):
            raise ValueError('expected pictures of one size')
        self.check_size((width, height))
        lr = torch.stack([self._tensor(picture.pixels).expand(3, -1, -1) for picture in pictures])
        samples = [DataSample(metainfo=dict(img_channel_order='RGB')) for _ in pictures]
        data = self.model.data_preprocessor(dict(inputs=lr, data_samples=samples))
        inputs, samples = data['inputs'], data['data_samples']
        results = [[] for _ in pictures]
        for raw in self._raw(inputs, samples):
            found = self.model.finish(raw, inputs, samples)
            output, raw = (image.flip(1).to(self.device)  # MMagic hands out BGR
                           for image in (found.pred_img, found.raw_pred))
            for index, picture in enumerate(pictures):
                one = slice(index, index + 1)
                results[index].append(
                    self._prediction(picture, lr[one], output[one], raw[one]))
        return results

    def _raw(self, inputs, samples):
        """Yield raw predictions, normalised."""
        if self.tile is None and self._multiple == 1:
            yield from self.model.raw_samples(inputs, samples)
            return

        def forward(image):
            return forward_padded(lambda x: self.model.forward_raw(x), image, self._multiple)
        if self.tile is None:
            yield forward(inputs)
        else:
            yield torch.cat([forward_tiled(forward, image[None], self.tile, self.tile_overlap,
                                           self.batch_size) for image in inputs])

    def _tensor(self, array):
        """(C, H, W) float tensor of an array (H, W) or (H, W, C)."""
        array = array.reshape(*array.shape[:2], -1).transpose(2, 0, 1).astype(np.float32)
        return torch.from_numpy(array).to(self.device)

    def _prediction(self, picture, lr, output, raw):
        """One picture of a batch; all tensors in 0..255, RGB."""
        if picture.grey:
            lr, raw = lr[:, :1], raw.mean(1, keepdim=True)
            # the mean of channels that have been through PD has been, too
            output = self._one_channel(raw, lr, projected=self.model.has_own_pd)
        alpha = None
        if picture.alpha is not None:
            small = self._tensor(picture.alpha)[None]
            alpha = F.interpolate(small, output.shape[-2:], mode='bicubic', align_corners=False)
            alpha = self._array(self._one_channel(alpha, small))
        output, raw = (image.clamp(0, 255).round() for image in (output, raw))
        operator = self.model.pd_head.operator_for(output, lr)
        exact = lr.double()
        measured, before = (apply(operator, 'A', image.double()) for image in (output, raw))
        if self.made_by in (None, 'float'):
            differing = (measured.clamp(0, 255) - exact).abs() > 0.5 - 1e-6
        else:
            differing = LibraryResize(operator, self.made_by)(output.to(torch.uint8)) != lr
        figures = dict(
            psnr_lr_raw=psnr(errors(before, exact)['MSE'], cap=math.inf),
            psnr_lr=psnr(errors(measured, exact)['MSE'], cap=math.inf),
            lr_values=exact.numel(), lr_values_unmatched=int(differing.sum()))
        image = Picture(self._array(output), alpha, picture.icc_profile)
        return Prediction(image, Picture(self._array(raw)), operator, figures)

    def _one_channel(self, image, lr, projected=False):
        """PD and rounding of a channel that is none of the network's: grey, alpha."""
        head = self.model.pd_head
        mean, std = head.mean[0], head.std[0]
        if not projected:
            image = head((image - mean) / std, (lr - mean) / std) * std + mean
        return self.model.round_pixels(image, lr)

    @staticmethod
    def _array(image):
        """uint8 (H, W) or (H, W, 3) of a (1, C, H, W) tensor."""
        array = clip_uint8(image)[0].permute(1, 2, 0).cpu().numpy()
        return np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array)

    def __call__(self, lr, out=None, overwrite=False, recursive=False):
        """Super-resolve images.

        Args:
            lr: A file; a folder or pattern (``'lr/*.png'``); a uint8 array (h, w), or (h, w, c)
                with 1 to 4 channels: grey or RGB, and alpha; a batch of those (N, h, w, c); a PIL
                image; a uint8 tensor (c, h, w) or (N, c, h, w); or a list of any of these.
            out (str | Path, optional): Folder for PNG files; of files and folders only.
            overwrite (bool): Replace files in ``out``. Without, finished ones are kept.
            recursive (bool): Look into the folders of a folder too.

        Returns:
            The output as uint8 (H, W), (H, W, c), or (num_samples, H, W, c) with several samples
            per LR (:class:`PDN`); a tensor (…, c, H, W) for a tensor; a list for a list or batch;
            a dict by name for a folder or pattern. With ``out`` a list of the files.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not an 8-bit image, or of a size that the model does not take; names it.
        """
        if out is not None:
            return self._write(lr, Path(out), overwrite, recursive)
        if isinstance(lr, (str, Path)):
            found, single = self._find(lr, recursive)
            results = self._predict_all([read_picture(path) for path, _ in found],
                                        [str(path) for path, _ in found])
            return results[0] if single else {
                name.as_posix(): result
                for (_, name), result in zip(found, results, strict=True)}
        if isinstance(lr, (list, tuple)) or getattr(lr, 'ndim', 0) == 4:
            pictures = [self._picture(image, f'LR {index}') for index, image in enumerate(lr)]
            results = self._predict_all(
                pictures, [str(image) if isinstance(image, (str, Path)) else f'LR {index}'
                           for index, image in enumerate(lr)])
            return [self._like(image, result) for image, result in zip(lr, results, strict=True)]
        return self._like(lr, self._predict_all([self._picture(lr, 'LR')], ['LR'])[0])

    def _find(self, source, recursive):
        """(paths and names, whether it is one file)."""
        try:
            found, _ = find_pictures(source, recursive)
        except ValueError as error:
            raise (ValueError if Path(source).is_dir() else FileNotFoundError)(
                f'LR: {error}') from None
        return found, Path(source).is_file()

    @staticmethod
    def _picture(image, name):
        try:
            if isinstance(image, (str, Path)):
                if not Path(image).is_file():
                    raise FileNotFoundError(f'no LR image {image}')
                return read_picture(image)
            if isinstance(image, Image.Image):
                return from_pil(image)
            if isinstance(image, torch.Tensor):
                if image.dtype != torch.uint8 or image.ndim != 3:
                    raise ValueError('expected a uint8 tensor of shape (c, h, w), got '
                                     f'{image.dtype} of shape {tuple(image.shape)}')
                return Picture.from_array(image.permute(1, 2, 0).cpu().numpy())
            if isinstance(image, np.ndarray):
                return Picture.from_array(image)
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from None
        raise ValueError(f'{name}: expected a file, an array, a PIL image or a tensor, '
                         f'got {type(image).__name__}')

    @staticmethod
    def _like(image, result):
        if not isinstance(image, torch.Tensor):
            return result
        grey = result.ndim == 2 or (result.ndim == 3 and result.shape[-1] > 4)
        result = torch.from_numpy(result)
        return result.unsqueeze(-3) if grey else result.movedim(-1, -3).contiguous()

    def _predict_all(self, pictures, names):
        """Arrays for pictures of any sizes, in batches of equal ones."""
        for picture, name in zip(pictures, names, strict=True):
            for note in picture.notes:
                print_log(f'{plain(name)}: {note}', logger='current')
            try:
                self.check_size(picture.pixels.shape[1::-1])
            except ValueError as error:
                raise ValueError(f'{name}: {error}') from None
        results = [None] * len(pictures)
        sizes = [picture.pixels.shape[:2] for picture in pictures]
        for batch in make_batches(range(len(pictures)), sizes, self.batch_size):
            for index, found in zip(batch, self.predict([pictures[i] for i in batch]),
                                    strict=True):
                arrays = [prediction.image.as_array() for prediction in found]
                results[index] = arrays[0] if len(arrays) == 1 else np.stack(arrays)
        return results

    def _write(self, lr, out, overwrite, recursive):
        sources = lr if isinstance(lr, (list, tuple)) else [lr]
        if not all(isinstance(source, (str, Path)) for source in sources):
            raise ValueError('out: only files and folders have names to write under; arrays are '
                             'returned')
        jobs = [Job(path, name, out / name.with_suffix('.png'))
                for source in sources for path, name in self._find(source, recursive)[0]]
        run = FolderRun(self, jobs, overwrite=overwrite)
        problems = run.check()
        if problems or run.failures:
            raise ValueError('; '.join([*problems, *run.failures.values()]))
        run.process()
        if run.failures:
            raise ValueError('; '.join(run.failures.values()))
        return [job.target for job in jobs]
