"""Pooling-based decomposition for any MMagic super-resolution model type."""
import logging

import torch
from mmagic.structures import DataSample
from mmengine.logging import print_log

from ...operators import LinearOperator, build_operator, clip_uint8, consistent_uint8
from ...operators.library_resize import LibraryResize
from ...operators.resolve import infer_scale
from ...utils.model import unwrap
from ...utils.validation import (
    ArgumentError,
    check_choice,
    check_dict,
    check_keys,
    check_noise_std,
    check_strength,
    optional,
    parameters_of,
)
from ..heads import PDHead
from ..settings import QUANTIZE, check_model_parts, check_settings
from .probing import check_suitable, is_identity
from .training import TrainingMixin

RANGE = (-1020, 1275)  # what the 8-bit functions take; an untrained network may leave it


class PDMixin(TrainingMixin):
    r"""Puts a :class:`PDHead` behind the generator, in training and inference.

    Mixed in before a subclass of MMagic's ``BaseEditModel``::

        class PDGLEAN(PDMixin, GANPriorSR): ...

    The head has no parameters, so checkpoints of the plain model load with no
    missing and no unexpected key.

    Args:
        pd_head (dict): Arguments of :class:`PDHead`, e.g.
            ``dict(operator=dict(type='AveragePooling', scale=8), strength=1.0)``.
            By default average pooling with the scale ``out_size // in_size`` of
            the generator, or, where a generator does not name its sizes, the
            ratio of its output to its input.
        test_cfg (dict): Besides MMagic's keys, ``quantize``: ``'consistent'``
            (default with strength 1) rounds to the 8-bit image whose downsampling
            is the LR exactly, ``'clip'`` (default with less strength or a
            ``noise_std``) clips and rounds (the paper's evaluation), ``'none'``
            keeps the clipped float image, as MMagic does. An LR that is not
            8-bit is clipped and rounded too, with a warning. ``made_by``: the
            library whose 8-bit resize made the LR and has to give it back, see
            :func:`consistent_uint8`; by default A x is rounded once, as :class:`LRSynthesis` does
            with ``operator`` or average pooling (its bicubic and bilinear with antialias are
            'torch_uint8', unless it is given ``made_by='float'``).
            ``keep_raw=True`` adds the generator's raw prediction x_r to the
            predictions as ``raw_pred``.

    Raises:
        ValueError: for unknown keys or wrong values in pd_head, test_cfg or train_cfg, naming
            the nearest valid one; for a generator that does not make one image of one (video
            models, LIIF), and for one of scale 1 whose A is the identity.

    Example:
        >>> from mmagic.models.base_models import BaseEditModel
        >>> from mmpd.models.editors import PDMixin
        >>> class PDOwn(PDMixin, BaseEditModel):
        ...     pass
        >>> model = PDOwn(
        ...     pixel_loss=dict(type='L1Loss'), pd_head=dict(strength=0.9),
        ...     generator=dict(type='RRDBNet', in_channels=3, out_channels=3, mid_channels=4,
        ...                    num_blocks=1, growth_channels=4),
        ...     data_preprocessor=dict(
        ...         type='mmagic.DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3))
        >>> model.pd_head.strength, model.quantize
        (0.9, 'clip')
    """

    def __init__(self, *args, pd_head=None, test_cfg=None, **kwargs):
        head = self._check_head(pd_head)
        strength = check_strength(head.get('strength', 1))
        noise_std = check_noise_std(head.get('noise_std'), strength)  # PDHead checks the rest
        exact = strength == 1 and not noise_std
        optional(check_dict, test_cfg, 'test_cfg')
        quantize = (test_cfg or {}).get('quantize', 'consistent' if exact else 'clip')
        check_choice(quantize, 'test_cfg.quantize', QUANTIZE)
        if quantize == 'consistent' and not exact:
            weaker = 'noise_std' if noise_std else 'strength'
            raise ArgumentError(f"test_cfg.quantize='consistent' would undo pd_head.{weaker}="
                                f"{head[weaker]}; use 'clip'.")
        check_model_parts(**kwargs)
        optional(check_dict, kwargs.get('train_cfg'), 'train_cfg')
        super().__init__(*args, test_cfg=test_cfg, **kwargs)
        self.quantize, self.made_by = quantize, (test_cfg or {}).get('made_by')
        scale = check_suitable(self.generator, self._generator_scale())
        check_settings(type(self), kwargs.get('train_cfg'), test_cfg)
        operator = head.get('operator')
        operator = dict(type='AveragePooling') if operator is None else operator
        if isinstance(operator, dict) and operator.get('type') == 'AveragePooling':
            head['operator'] = {'scale': self._generator_scale(), **operator}
        self._said_not_8_bit = False  # once per model, not per batch
        self._normalised = self._normalisation(kwargs.get('data_preprocessor'))
        if hasattr(self.generator, 'check_normalisation'):  # SpandrelGenerator undoes it too
            self.generator.check_normalisation(**self._normalised)
        self.pd_head = PDHead(**{**self._normalised, **head})
        self._check_scale(scale)
        self._check_library()

    def _check_library(self):
        if self.made_by in (None, 'float'):
            return
        if self.quantize != 'consistent':
            raise ArgumentError(f'test_cfg.made_by={self.made_by!r} is for '
                                f"test_cfg.quantize='consistent', not {self.quantize!r}.")
        operator = self.pd_head.operator
        if operator is None:  # any scale will do
            operator = build_operator(dict(self.pd_head.operator_cfg, scale=2))
        LibraryResize(operator, self.made_by)

    @staticmethod
    def _check_head(pd_head):
        """A copy of ``pd_head`` without its type, every key known."""
        head = dict(optional(check_dict, pd_head, 'pd_head') or {})
        check_choice(head.pop('type', 'PDHead'), 'pd_head.type', ('PDHead',))
        return check_keys(head, 'pd_head', [*parameters_of(PDHead), 'type'])

    def _check_scale(self, scale):
        """Refuse A = I, with which every output is the input."""
        operator = self.pd_head.operator
        if operator is None and scale == 1 or is_identity(operator):
            raise ArgumentError(
                f'pd_head.operator: expected a degradation, got one that changes nothing: the '
                f'generator {type(self.generator).__name__} has scale 1, so with average pooling '
                'or resizing A is the identity and every output would be the input; name an '
                'operator of scale 1 that loses something, such as Masking or Grayscale')
        known = getattr(operator, 'scale', None)
        if isinstance(operator, LinearOperator) and scale and known and scale != known:
            raise ArgumentError(f'pd_head.operator: expected scale {scale}, that of the generator '
                                f'{type(self.generator).__name__}, got {operator!r}')

    @staticmethod
    def _normalisation(preprocessor):
        """mean and std of a data preprocessor or its config, which PDHead undoes if it must."""
        if isinstance(preprocessor, dict):
            mean, std = (preprocessor.get(key, 127.5) for key in ('mean', 'std'))
            return dict(mean=0, std=1) if mean is None else dict(mean=mean, std=std)
        if hasattr(preprocessor, 'mean'):  # a buffer, where it normalises
            return {key: getattr(preprocessor, key).flatten().tolist() for key in ('mean', 'std')}
        return dict(mean=0, std=1)

    def _generator_scale(self):
        """out_size // in_size of the generator, None when it does not name them."""
        generator = self.generator
        in_size = getattr(generator, 'in_size', None)
        out_size = getattr(generator, 'out_size', None)
        if out_size is None:  # GLEANStyleGANv2 keeps it in its prior
            out_size = getattr(getattr(generator, 'generator', None), 'out_size', None)
        if in_size is None or out_size is None:
            return None
        try:
            return infer_scale((out_size, out_size), (in_size, in_size))
        except ValueError as error:
            raise ValueError(f'PD needs an integer scale, but the generator has in_size {in_size} '
                             f'and out_size {out_size}.') from error

    def forward_raw(self, inputs, data_samples=None, **kwargs):
        """The generator's raw prediction x_r, (N, C, sh, sw) in the normalised range."""
        return super().forward_tensor(inputs, data_samples, **kwargs)

    def forward_tensor(self, inputs, data_samples=None, **kwargs):
        """x̂ = x_r + A†(y − A x_r), paper Eq. 9 (Eq. 7 for any A).

        Args:
            inputs (Tensor): LR images y, (N, C, h, w), normalised.
            data_samples (DataSample, optional): Not used for the decomposition.

        Returns:
            Tensor: (N, C, sh, sw), float32, not clipped.
        """
        return self._decompose(self.forward_raw(inputs, data_samples, **kwargs), inputs)

    def forward_inference(self, inputs, data_samples=None, **kwargs):
        """Predict, and round to 8 bits as ``test_cfg.quantize`` says.

        Returns:
            DataSample: ``pred_img``, the image to save, (N, C, sh, sw) in
            0..255; ``pred_float``, the same before clipping and rounding;
            ``raw_pred``, x_r, with ``test_cfg.keep_raw``; with
            ``quantize='consistent'`` and an 8-bit LR ``lr_unmatched``, (N),
            how many LR values the downsampled ``pred_img`` does not give back.
        """
        return self.finish(self.forward_raw(inputs, data_samples, **kwargs), inputs, data_samples)

    @property
    def has_own_pd(self):
        """Whether the generator's output has been through PD already (:class:`OnnxGenerator`)."""
        return getattr(unwrap(self.generator), 'own_pd', None) is not None

    def _decompose(self, raw, inputs):
        return raw.float() if self.has_own_pd else self.pd_head(raw, inputs)

    def raw_samples(self, inputs, data_samples=None):
        """Yield the raw predictions of one test: one, where the model is no sampler."""
        yield self.forward_raw(inputs, data_samples)

    def finish(self, raw, inputs, data_samples=None):
        """What :meth:`forward_inference` does after the generator, with x_r from elsewhere (tiles).

        Args:
            raw (Tensor): x_r, (N, C, sh, sw), normalised.
            inputs (Tensor): LR images y, (N, C, h, w), normalised.
            data_samples (DataSample, optional): Of the LR images.

        Returns:
            DataSample: as :meth:`forward_inference`.
        """
        pred = self._to_pixels(self._decompose(raw, inputs))
        # in the network's order of channels, as the head: A may treat them differently
        image, unmatched = self._round(pred, self._to_pixels(inputs))
        image = self._to_saved(image, data_samples)
        image = image if self.quantize == 'none' else image.round()
        fields = dict(pred_img=image.cpu(), pred_float=self._to_saved(pred, data_samples).cpu())
        if unmatched is not None:
            fields['lr_unmatched'] = unmatched
        if (self.test_cfg or {}).get('keep_raw'):
            fields['raw_pred'] = self._to_saved(self._to_pixels(raw), data_samples).cpu()
        result = DataSample(**fields)
        if inputs.shape[1] == 1 < pred.shape[1]:
            order = self._order_of_colours(data_samples)
            result.set_metainfo(dict(network_channel_order=[order] * len(pred)))
        return result

    def round_pixels(self, pred, lr):
        """Round as ``test_cfg.quantize`` says.

        Args:
            pred (Tensor): (N, C, sh, sw) in 0..255, not clipped.
            lr (Tensor): (N, C, h, w) in 0..255.

        Returns:
            Tensor: like ``pred``, clipped, of integers unless ``quantize`` is 'none'.
        """
        return self._round(pred, lr)[0]

    def _round(self, pred, lr):
        """:meth:`round_pixels`, and how many LR values differ for each image, if counted."""
        if self.quantize == 'none':
            return pred.clamp(0, 255), None
        pred = pred.clamp(*RANGE)
        if self.quantize == 'clip':
            return clip_uint8(pred).float(), None
        rounded = lr.round().clamp(0, 255)
        if (lr - rounded).abs().max() > 0.01:  # more than normalising and back leaves
            if not self._said_not_8_bit:
                print_log('The LR is not an 8-bit image, so no 8-bit output can match it exactly: '
                          'predictions are clipped and rounded.', logger='current',
                          level=logging.WARNING)
            self._said_not_8_bit = True
            return clip_uint8(pred).float(), None
        operator = self.pd_head.operator_for(pred, rounded)
        images, unmatched = zip(*(
            consistent_uint8(image[None], y[None], operator, return_unmatched=True,
                             made_by=self.made_by)
            for image, y in zip(pred, rounded, strict=True)), strict=True)
        return torch.cat(images).float(), torch.tensor(unmatched)

    def convert_to_datasample(self, predictions, data_samples, inputs):
        """As MMagic does, but an LR that leaves 0..255 (of an operator that adds up) stays whole.

        MMagic clips it, and consistency would be measured against what is left.
        """
        lr = None if inputs is None else self._to_pixels(inputs)
        leaves = lr is not None and (lr.min() < -0.5 or lr.max() > 255.5)
        whole = self._to_saved(lr, data_samples) if leaves else None
        samples = super().convert_to_datasample(predictions, data_samples, inputs)
        if leaves:
            for sample, image in zip(samples, whole, strict=True):
                sample.set_tensor_data(dict(input=image))
        return samples

    def _mean_and_std(self, like):
        return (torch.tensor(self._normalised[key], dtype=like.dtype, device=like.device)
                .view(1, -1, 1, 1) for key in ('mean', 'std'))

    def _to_pixels(self, batch):
        """0..255, in the network's order of channels, not clipped."""
        batch = batch.float()
        mean, std = self._mean_and_std(batch)
        return batch * std + mean

    def _to_saved(self, pixels, data_samples):
        """As MMagic saves and measures images (channel order, no padding), but not clipped."""
        # destruct clips to 0..255: what leaves that range is shrunk before and stretched after
        reach = ((pixels - 127.5).abs().max() / 127.5).clamp(min=1).double()
        mean, std = self._mean_and_std(reach)
        shrunk = (pixels.double() - 127.5) / reach + 127.5
        saved = self.data_preprocessor.destruct((shrunk - mean) / std, data_samples, 'img')
        if pixels.shape[1] == 3 and self._is_grey(data_samples) \
                and self._order_of_colours(data_samples) == 'RGB':
            saved = saved.flip(1)  # destruct thinks that the output has the input's channels
        return ((saved - 127.5) * reach + 127.5).float()

    def _metainfo(self, data_samples, key):
        value = None if data_samples is None else data_samples.metainfo.get(key)
        return value[0] if isinstance(value, (list, tuple)) else value

    def _is_grey(self, data_samples):
        return self._metainfo(data_samples, 'img_output_channel_order') == 'single'

    def _order_of_colours(self, data_samples):
        """The order in which the network learns colours from grey: that of its targets."""
        order = (self.data_preprocessor.output_channel_order
                 or self._metainfo(data_samples, 'gt_channel_order') or 'BGR')
        return order.upper()
