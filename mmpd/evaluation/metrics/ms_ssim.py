"""MS-SSIM between output and GT."""
import torch
import torch.nn.functional as F
from mmagic.evaluation.metrics.base_sample_wise_metric import BaseSampleWiseMetric
from mmagic.registry import METRICS
from mmengine.logging import print_log

from ...utils.validation import check_positive_int, optional
from ..functional import as_tensor, check_keys_of, to_saved

__all__ = ['PairedMSSSIM', 'ms_ssim', 'scales_for']

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli & Bovik 2003: sum 1.0001
WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * 255)**2, (0.03 * 255)**2  # the paper's constants, for the range 0..255


def scales_for(height, width):
    """How many of the five scales an image is large enough for.

    Each scale halves the image, and the last one must exceed the 11 x 11 window minus one: five
    scales need sides above 160, four above 80, three above 40, two above 20, one above 10.

    Raises:
        ValueError: If a side is 10 or less.
    """
    fitting = [n for n in range(1, len(WEIGHTS) + 1)
               if min(height, width) > (WINDOW - 1) * 2**(n - 1)]
    if not fitting:
        raise ValueError(f'MS-SSIM needs sides above {WINDOW - 1}, got {height} x {width}')
    return fitting[-1]


def _ssim_and_contrast(image, reference):
    """SSIM and its contrast-structure part, means over the pixels: two (N, C) tensors."""
    # the window in float32, as other implementations have it: figures agree to the last digit
    window = torch.exp(-(torch.arange(WINDOW, dtype=torch.float32) - WINDOW // 2)**2
                       / (2 * SIGMA**2))
    window = (window / window.sum()).to(image)

    def blur(x):
        planes = x.flatten(0, 1)[:, None]
        planes = F.conv2d(F.conv2d(planes, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
        return planes.view(*x.shape[:2], *planes.shape[2:])

    mean, other = blur(image), blur(reference)
    variances = blur(image * image) - mean**2 + blur(reference * reference) - other**2
    contrast = (2 * (blur(image * reference) - mean * other) + C2) / (variances + C2)
    luminance = (2 * mean * other + C1) / (mean**2 + other**2 + C1)
    return (contrast * luminance).mean((2, 3)), contrast.mean((2, 3))


def ms_ssim(image, reference, scales=None):
    """Multi-scale SSIM (Wang, Simoncelli & Bovik 2003) of images in 0..255, in float64.

    Args:
        image (Tensor): (N, C, H, W) in 0..255.
        reference (Tensor): The same shape.
        scales (int, optional): Number of scales; fewer than five use the first weights,
            normalised to sum 1. Defaults to None: as many as fit.

    Returns:
        Tensor: (N,), means over the channels.

    Raises:
        ValueError: If the shapes differ or the images are too small.
    """
    if image.shape != reference.shape:
        raise ValueError(f'cannot compare shapes {tuple(image.shape)} and '
                         f'{tuple(reference.shape)}')
    fitting = scales_for(*image.shape[-2:])
    scales = fitting if scales is None else scales
    if not 1 <= scales <= fitting:
        raise ValueError(f'MS-SSIM of {image.shape[-2]} x {image.shape[-1]} images has 1 to '
                         f'{fitting} scales, got {scales}')
    image, reference = image.double(), reference.double()
    total = 1 if scales == len(WEIGHTS) else sum(WEIGHTS[:scales])
    result = 1
    for level, weight in enumerate(WEIGHTS[:scales]):
        if level:
            padding = [side % 2 for side in image.shape[2:]]
            image, reference = (F.avg_pool2d(x, 2, padding=padding) for x in (image, reference))
        ssim, contrast = _ssim_and_contrast(image, reference)
        part = ssim if level == scales - 1 else contrast
        result = result * part.clamp(min=0)**(weight / total)
    return result.mean(1)


@METRICS.register_module()
class PairedMSSSIM(BaseSampleWiseMetric):
    """MS-SSIM between the saved output and the GT (Table 3); 1 for identical images.

    MMagic's ``MS_SSIM`` is something else: the diversity of generated images. Protocol: 8-bit
    images as saved, all three colour channels, no border cropped, data range 255, mean over
    images. Below 161 pixels fewer than five scales fit: as many as fit are used, which is said
    once in the log, for such figures do not compare with five-scale ones.

    Args:
        scales (int, optional): Number of scales. Defaults to None: five, or as many as fit.
        gt_key (str): Defaults to 'gt_img'.
        pred_key (str): Defaults to 'pred_img'.
        collect_device (str): See mmengine's ``BaseMetric``. Defaults to 'cpu'.
        prefix (str, optional): Prefix of the metric name. Defaults to None.

    Metrics:
        - MS_SSIM (float)

    Example:
        >>> import torch
        >>> from mmagic.registry import METRICS
        >>> metric = METRICS.build(dict(type='PairedMSSSIM'))
        >>> image = torch.randint(256, (3, 32, 32))
        >>> metric.process(None, [dict(gt_img=image, output=dict(pred_img=image))])
        >>> round(metric.compute_metrics(metric.results)['MS_SSIM'], 6)
        1.0
    """

    metric = 'MS_SSIM'

    def __init__(self, scales=None, gt_key='gt_img', pred_key='pred_img', collect_device='cpu',
                 prefix=None):
        check_keys_of(prefix, collect_device, gt_key=gt_key, pred_key=pred_key)
        optional(check_positive_int, scales, 'scales', most=len(WEIGHTS))
        super().__init__(gt_key=gt_key, pred_key=pred_key, collect_device=collect_device,
                         prefix=prefix)
        self.scales, self._told = scales, False

    @property
    def protocol(self):
        """What is measured, for the log."""
        return (f'saved 8-bit image, all channels, range 255, no border cropped, '
                f'{self.scales or "up to five"} scales')

    def process_image(self, gt, pred, mask):
        """MS-SSIM of one image, a Python float."""
        gt, pred = as_tensor(gt, self.gt_key), to_saved(as_tensor(pred, self.pred_key))
        scales = self.scales or scales_for(*gt.shape[-2:])
        if scales < len(WEIGHTS) and not self._told:
            self._told = True
            print_log(f'MS-SSIM uses {scales} of {len(WEIGHTS)} scales, images are '
                      f'{gt.shape[-2]} x {gt.shape[-1]}: not comparable with published figures',
                      'current')
        return ms_ssim(pred[None], gt[None], scales).item()
