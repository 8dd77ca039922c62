"""Does the output, downsampled, give back the LR image it was made from?"""
from copy import deepcopy

import numpy as np
import torch
from mmagic.evaluation.metrics.base_sample_wise_metric import BaseSampleWiseMetric
from mmagic.registry import METRICS

from mmpd.operators.decomposition import apply_to_any
from mmpd.operators.resolve import prepare_operator, resolve_operator

from ...utils.model import unwrap
from ..degradation import tell_difference
from ..functional import as_tensor, check_keys_of, errors, to_saved

__all__ = ['LRConsistency']

EIGHT_BIT_TOLERANCE = 1e-3


@METRICS.register_module()
class LRConsistency(BaseSampleWiseMetric):
    """Consistency with the LR input: errors between A x̂ and y (Table 1, Figs. 1 and 9).

    y is what the model was given (``data_sample.input``), not recomputed from the GT. An LR whose
    values all lie within 1e-3 of integers was an 8-bit file: the rounding errors of the
    normalisation are removed from it. All arithmetic is in float64.

    Two versions of x̂ are measured. The *float output* is ``output.pred_float`` where the model
    offers it (mmpd's models do), else ``output.pred_img``, which MMagic's own models clip to
    0..255. The *saved image* is ``output.pred_img`` as MMagic writes it to disk: clipped and
    rounded (nothing changes where it holds integers already).

    Args:
        operator (dict | nn.Module, optional): The operator A, or its config. A ``scale`` that is
            left out or None is taken from the sizes of output and LR. Defaults to the operator of
            the model's PD head; for models without one to average pooling, the paper's universal
            measure.
        pred_key (str): Key of the prediction in ``output``. Defaults to 'pred_img'.
        input_key (str): Key of the LR in the data sample. Defaults to 'input'.
        collect_device (str): See mmengine's ``BaseMetric``. Defaults to 'cpu'.
        prefix (str, optional): Prefix of the metric names. Defaults to None.

    Metrics, Python floats, means over images unless stated:
        - PSNR_LR, L1_LR, MSE_LR: A x̂ against y on the float output. PSNR is capped at 200 dB; L1
          and MSE are on the [0, 1] scale, as MMagic's MAE and MSE are.
        - PSNR_LR_8bit, L1_LR_8bit, MSE_LR_8bit: the same on the saved image; A x̂ is not rounded.
        - MaxErr_LR_8bit: the largest |A x̂ - y| of all saved images, in grey levels.
        - PSNR_LR_8bit_rounded, MaxErr_LR_8bit_rounded: on the saved image with A x̂ clipped and
          rounded half up, the LR file which one would make from the saved image.
        - Unmatched_LR_8bit: how many LR values of all images the saved image does not give back,
          where the model counts them (mmpd's, with ``test_cfg.quantize='consistent'``), by the
          arithmetic of its ``test_cfg.made_by``.

    Example:
        >>> import torch
        >>> from mmagic.registry import METRICS
        >>> metric = METRICS.build(dict(type='LRConsistency', operator=dict(type='AveragePooling')))
        >>> lr, sr = torch.full((3, 4, 4), 100.), torch.full((3, 16, 16), 103.)
        >>> metric.process(None, [dict(input=lr, output=dict(pred_img=sr))])
        >>> found = metric.compute_metrics(metric.results)
        >>> round(found['PSNR_LR'], 2), found['MaxErr_LR_8bit']
        (38.59, 3.0)
    """

    metric = 'PSNR_LR'
    names = ('PSNR_LR', 'L1_LR', 'MSE_LR', 'PSNR_LR_8bit', 'L1_LR_8bit', 'MSE_LR_8bit',
             'MaxErr_LR_8bit', 'PSNR_LR_8bit_rounded', 'MaxErr_LR_8bit_rounded',
             'Unmatched_LR_8bit')
    _MAXIMA = ('MaxErr_LR_8bit', 'MaxErr_LR_8bit_rounded')

    def __init__(self, operator=None, pred_key='pred_img', input_key='input',
                 collect_device='cpu', prefix=None):
        check_keys_of(prefix, collect_device, pred_key=pred_key, input_key=input_key)
        super().__init__(pred_key=pred_key, collect_device=collect_device, prefix=prefix)
        self._given = operator is not None
        self.operator = prepare_operator(operator if self._given else dict(type='AveragePooling'))
        self.input_key = input_key

    def prepare(self, module, dataloader):
        """Take the operator of the model if none was given; say so if the LR is made by another.

        MMagic's evaluator calls this before the first image.
        """
        super().prepare(module, dataloader)
        head = getattr(unwrap(module), 'pd_head', None)
        if head is not None and not self._given:
            # a copy, for the model's own stays on its device
            self.operator = head.operator_cfg or deepcopy(head.operator)
            if isinstance(self.operator, torch.nn.Module):
                self.operator.to('cpu')
        tell_difference(module, dataloader.dataset, 'evaluation')

    @property
    def protocol(self):
        """What is measured, for the log."""
        return f'A = {self.operator}, float64, float output and saved 8-bit image'

    def measure(self, prediction, saved, lr):
        """Errors of one image.

        Args:
            prediction (Tensor): Float output, (C, H, W) in 0..255.
            saved (Tensor): Saved 8-bit image, (C, H, W), integers in 0..255.
            lr (Tensor): LR, (C, h, w) in 0..255.

        Returns:
            dict[str, float]: The metrics of the class.
        """
        integers = lr.round()
        if (lr - integers).abs().max() <= EIGHT_BIT_TOLERANCE:
            lr = integers
        operator = resolve_operator(self.operator, prediction.shape, lr.shape)
        down, down_saved = (apply_to_any(operator, 'A', image[None])[0]
                            for image in (prediction, saved))
        rounded = (down_saved + 0.5).floor().clamp(0, 255)
        cases = (('', down, lr), ('_8bit', down_saved, lr),
                 ('_8bit_rounded', rounded, integers))
        found = {f'{name}_LR{suffix}': value for suffix, image, reference in cases
                 for name, value in errors(image, reference).items()}
        unused = ('MaxErr_LR', 'L1_LR_8bit_rounded', 'MSE_LR_8bit_rounded')
        return {name: value for name, value in found.items() if name not in unused}

    def process(self, data_batch, data_samples):
        """Measure the samples of one batch."""
        for sample in data_samples:
            output = sample['output']
            for holder, key in ((output, self.pred_key), (sample, self.input_key)):
                if key not in holder:
                    raise ValueError(f"LRConsistency needs '{key}', the sample has: "
                                     f'{", ".join(sorted(map(str, holder)))}')
            image = as_tensor(output[self.pred_key], self.pred_key)
            prediction = as_tensor(output['pred_float'], 'pred_float') \
                if 'pred_float' in output else image
            lr = as_tensor(sample[self.input_key], self.input_key)
            images = [prediction, to_saved(image), lr]
            order = output.get('network_channel_order', sample.get('img_output_channel_order'))
            if order == 'RGB':
                # MMagic turns what it hands to metrics into BGR; A may mix channels
                images = [x.flip(0) if len(x) == 3 else x for x in images]
            result = self.measure(*images)
            if 'lr_unmatched' in output:
                result['Unmatched_LR_8bit'] = int(output['lr_unmatched'])
            self.results.append(result)

    def compute_metrics(self, results):
        """Means over all images, maxima of the largest errors, sums of counts."""
        found = {}
        for key in dict.fromkeys(key for result in results for key in result):
            over_images = np.sum if key == 'Unmatched_LR_8bit' else \
                np.max if key in self._MAXIMA else np.mean
            found[key] = float(over_images([result[key] for result in results if key in result]))
        return found
