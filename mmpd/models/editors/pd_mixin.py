"""Pooling-based decomposition for any MMagic super-resolution model type."""
import logging

from mmagic.structures import DataSample
from mmengine.logging import print_log

from ...operators import LinearOperator, clip_uint8, consistent_uint8
from ...utils.validation import (
    ArgumentError,
    check_choice,
    check_dict,
    check_keys,
    check_strength,
    optional,
    parameters_of,
)
from ..heads import PDHead
from ..settings import QUANTIZE, check_model_parts, check_settings
from .probing import check_suitable, is_identity

RANGE = (-1020, 1275)  # what the 8-bit functions take; an untrained network may leave it


class PDMixin:
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
            is the LR exactly, ``'clip'`` (default with less strength) clips and
            rounds (the paper's evaluation), ``'none'`` keeps the clipped float
            image, as MMagic does. An LR that is not 8-bit is clipped and rounded
            too, with a warning.
            ``keep_raw=True`` adds the generator's raw prediction x_r to the
            predictions as ``raw_pred``.

    Raises:
        ValueError: for unknown keys or wrong values in pd_head, test_cfg or train_cfg, naming
            the nearest valid one; for a generator that does not make one image of one (video
            models, LIIF), and for one of scale 1 whose A is the identity.
    """

    def __init__(self, *args, pd_head=None, test_cfg=None, **kwargs):
        head = self._check_head(pd_head)
        exact = check_strength(head.get('strength', 1)) == 1
        optional(check_dict, test_cfg, 'test_cfg')
        quantize = (test_cfg or {}).get('quantize', 'consistent' if exact else 'clip')
        check_choice(quantize, 'test_cfg.quantize', QUANTIZE)
        if quantize == 'consistent' and not exact:
            raise ArgumentError("test_cfg.quantize='consistent' would undo pd_head.strength="
                                f"{head['strength']}; use 'clip'.")
        check_model_parts(**kwargs)
        optional(check_dict, kwargs.get('train_cfg'), 'train_cfg')
        super().__init__(*args, test_cfg=test_cfg, **kwargs)
        self.quantize = quantize
        scale = check_suitable(self.generator)
        check_settings(type(self), kwargs.get('train_cfg'), test_cfg)
        operator = head.get('operator')
        operator = dict(type='AveragePooling') if operator is None else operator
        if isinstance(operator, dict) and operator.get('type') == 'AveragePooling':
            head['operator'] = {'scale': self._generator_scale(), **operator}
        head = {**self._normalisation(kwargs.get('data_preprocessor')), **head}
        self.pd_head = PDHead(**head)
        self._check_scale(scale)

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
        if getattr(preprocessor, '_enable_normalize', False):
            return {key: getattr(preprocessor, key).flatten().tolist() for key in ('mean', 'std')}
        return {}

    def _generator_scale(self):
        """out_size // in_size of the generator, None when it does not name them."""
        generator = self.generator
        in_size = getattr(generator, 'in_size', None)
        out_size = getattr(generator, 'out_size', None)
        if out_size is None:  # GLEANStyleGANv2 keeps it in its prior
            out_size = getattr(getattr(generator, 'generator', None), 'out_size', None)
        if in_size is None or out_size is None:
            return None
        if out_size % in_size:
            raise ValueError(f'PD needs an integer scale, but the generator has in_size {in_size} '
                             f'and out_size {out_size}.')
        return out_size // in_size

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
        return self.pd_head(self.forward_raw(inputs, data_samples, **kwargs), inputs)

    def forward_inference(self, inputs, data_samples=None, **kwargs):
        """Predict, and round to 8 bits as ``test_cfg.quantize`` says.

        Returns:
            DataSample: ``pred_img``, the image to save, (N, C, sh, sw) in
            0..255; ``pred_float``, the same before clipping and rounding;
            ``raw_pred``, x_r, with ``test_cfg.keep_raw``.
        """
        raw = self.forward_raw(inputs, data_samples, **kwargs)
        pred = self._to_pixels(self.pd_head(raw, inputs), data_samples)
        if self.quantize == 'none':
            image = pred.clamp(0, 255)
        elif self.quantize == 'clip':
            image = clip_uint8(pred.clamp(*RANGE)).float()
        else:
            image = self._round_consistently(pred.clamp(*RANGE), inputs, data_samples).float()
        fields = dict(pred_img=image.cpu(), pred_float=pred.cpu())
        if (self.test_cfg or {}).get('keep_raw'):
            fields['raw_pred'] = self._to_pixels(raw, data_samples).cpu()
        return DataSample(**fields)

    def _round_consistently(self, pred, inputs, data_samples):
        lr = self._to_pixels(inputs, data_samples)
        rounded = lr.round().clamp(0, 255)
        if (lr - rounded).abs().max() > 0.01:  # more than normalising and back leaves
            print_log('The LR is not an 8-bit image, so no 8-bit output can match it exactly: '
                      'predictions are clipped and rounded.', logger='current',
                      level=logging.WARNING)
            return clip_uint8(pred)
        return consistent_uint8(pred, rounded, self.pd_head.operator_for(pred, rounded))

    def _to_pixels(self, batch, data_samples):
        """Undo normalisation, padding and channel order like ``destruct``, without its clipping."""
        preprocessor = self.data_preprocessor
        batch = preprocessor._destruct_norm_and_conversion(batch.float(), data_samples, 'img')
        return preprocessor._destruct_padding(batch, data_samples)
