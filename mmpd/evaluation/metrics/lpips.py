"""LPIPS between output and GT."""
import warnings
from pathlib import Path

import torch
from mmagic.evaluation.metrics.base_sample_wise_metric import BaseSampleWiseMetric
from mmagic.registry import METRICS

from ...errors import WeightsMismatch, WeightsNotFound
from ...utils.checkpoint import read_state_dict
from ...utils.validation import check_choice, check_path, optional
from ..functional import as_tensor, check_keys_of, require, resolve_device, to_saved

TORCHVISION = 'https://download.pytorch.org/models/'
BACKBONES = dict(alex='alexnet-owt-7be5be79.pth', vgg='vgg16-397923af.pth',
                 squeeze='squeezenet1_1-b8a52dc0.pth')


def build_lpips(net='alex', backbone=None):
    """The LPIPS network of the lpips package, version 0.1.

    Args:
        net (str): 'alex', 'vgg' or 'squeeze'.
        backbone (str, optional): torchvision's checkpoint of that network, a file or an address.
            Defaults to None: downloaded into torch's hub folder, its hash verified.

    Returns:
        nn.Module: In evaluation mode, without gradients.

    Raises:
        ValueError: For an unknown ``net`` or a backbone file of another network.
        WeightsMismatch: If the package's own file is that of another version.
        WeightsNotFound: If the backbone is neither there nor can be downloaded, naming the file
            and where to put it.
    """
    check_choice(net, 'net', tuple(BACKBONES))
    optional(check_path, backbone, 'backbone')
    lpips = require('lpips', 'lpips')
    source = f'{TORCHVISION}{BACKBONES[net]}' if backbone is None else str(backbone)
    try:
        states = read_state_dict(source)
    except WeightsNotFound as error:
        raise WeightsNotFound(f"LPIPS needs {BACKBONES[net]}: {error} (dict(type='LPIPS', "
                              'backbone=FILE))') from error
    with warnings.catch_warnings():  # lpips 0.1.4 uses what torchvision deprecated
        warnings.filterwarnings('ignore', ".*'pretrained'|Arguments other than a weight enum")
        # without weights: the package would unpickle its own file and torchvision's download
        model = lpips.LPIPS(net=net, verbose=False, pretrained=False, pnet_rand=True)
    heads = Path(lpips.__file__).parent / 'weights' / 'v0.1' / f'{net}.pth'
    state = read_state_dict(heads)
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()
                if key.startswith('lin') and not key.startswith('lins.')}  # the same once more
    for key in (*shapes, *expected):
        if shapes.get(key) != expected.get(key):
            raise WeightsMismatch(f'LPIPS: {heads} is not that of lpips 0.1: {key} is '
                                  f'{shapes.get(key, "missing")}, expected '
                                  f'{expected.get(key, "none")}')
    model.load_state_dict(state, strict=False)
    wanted = model.net.state_dict()
    # slice2.3.weight of the lpips package is features.3.weight of torchvision
    found = {key: states.get('features.' + key.split('.', 1)[1]) for key in wanted}
    for key, value in found.items():
        if value is None or value.shape != wanted[key].shape:
            raise ValueError(f"LPIPS: {source} is no torchvision checkpoint of '{net}': "
                             f'features.{key.split(".", 1)[1]} is '
                             f'{"missing" if value is None else tuple(value.shape)}, expected '
                             f'{tuple(wanted[key].shape)}')
    model.net.load_state_dict(found)
    return model.eval().requires_grad_(False)


@METRICS.register_module()
class LPIPS(BaseSampleWiseMetric):
    """Learned perceptual distance between the saved output and the GT; 0 for identical images.

    Protocol: 8-bit images as saved, RGB in [-1, 1], no border cropped, lpips 0.1 weights, mean
    over images. The figures of the three networks do not compare: state which.

    Args:
        net (str): 'alex', 'vgg' or 'squeeze'. Defaults to 'alex'.
        backbone (str, optional): Local torchvision checkpoint of the network. Defaults to None:
            normal download on first use.
        device (str): 'auto' (CUDA if there is any), 'cpu', 'cuda' ... Defaults to 'auto'.
        gt_key (str): Defaults to 'gt_img'.
        pred_key (str): Defaults to 'pred_img'.
        collect_device (str): See mmengine's ``BaseMetric``. Defaults to 'cpu'.
        prefix (str, optional): Prefix of the metric name. Defaults to None.

    Metrics:
        - LPIPS_alex (or _vgg, _squeeze) (float)

    Example:
        >>> import torch
        >>> from torchvision.models import squeezenet1_1
        >>> from mmagic.registry import METRICS
        >>> torch.save(squeezenet1_1(weights=None).state_dict(), 'squeezenet.pth')
        >>> metric = METRICS.build(dict(type='LPIPS', net='squeeze', backbone='squeezenet.pth'))
        >>> image = torch.randint(256, (3, 32, 32))
        >>> metric.process(None, [dict(gt_img=image, output=dict(pred_img=image))])
        >>> metric.compute_metrics(metric.results)
        {'LPIPS_squeeze': 0.0}
    """

    metric = 'LPIPS'

    def __init__(self, net='alex', backbone=None, device='auto', gt_key='gt_img',
                 pred_key='pred_img', collect_device='cpu', prefix=None):
        check_keys_of(prefix, collect_device, gt_key=gt_key, pred_key=pred_key)
        super().__init__(gt_key=gt_key, pred_key=pred_key, collect_device=collect_device,
                         prefix=prefix)
        self.metric = f'LPIPS_{net}'
        self.network_device = resolve_device(device)
        self.network = build_lpips(net, backbone).to(self.network_device)

    @property
    def protocol(self):
        """What is measured, for the log."""
        return (f'saved 8-bit RGB image in [-1, 1], no border cropped, lpips 0.1, network '
                f'{self.metric.removeprefix("LPIPS_")}')

    @torch.no_grad()
    def process_image(self, gt, pred, mask):
        """LPIPS of one image, a Python float."""
        pair = [as_tensor(gt, self.gt_key), to_saved(as_tensor(pred, self.pred_key))]
        if pair[0].shape != pair[1].shape:  # the network would repeat a grey one, crop a larger one
            raise ValueError(f'cannot compare shapes {tuple(pair[1].shape)} and '
                             f'{tuple(pair[0].shape)}')
        pair = [(x.flip(0)[None] / 127.5 - 1).float().to(self.network_device) for x in pair]
        return self.network(*pair).item()
