"""MS-SSIM and LPIPS against independent implementations."""
import json
import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import mmpd  # noqa: F401  isort: skip  (its stand-ins come before mmagic's models)
import numpy as np
import pytest
import torch
import torchvision
from mmagic.registry import METRICS
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image.lpips import _LPIPS

from mmpd.errors import WeightsMismatch
from mmpd.evaluation.functional import as_tensor, require, resolve_device
from mmpd.evaluation.metrics import ms_ssim as ms_ssim_module
from mmpd.evaluation.metrics.lpips import build_lpips
from mmpd.evaluation.metrics.ms_ssim import WEIGHTS, ms_ssim, scales_for


def pair(size, seed=0):
    """A smooth image and a noisy version of it, (C, H, W) in 0..255."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size[0], :size[1]] / 16
    image = np.stack([np.sin(x + k) * np.cos(y * (k + 1)) for k in range(3)]) * 100 + 128
    noisy = image + rng.normal(0, 20, image.shape) + 5
    return (torch.from_numpy(z.clip(0, 255).round().astype(np.float32)) for z in (image, noisy))


def evaluate(cfg, samples):
    metric = METRICS.build(cfg)
    metric.size = len(samples)
    metric.process(None, samples)
    result = metric.evaluate()
    json.dumps(result, allow_nan=False)
    assert all(type(value) is float for value in result.values())
    return result


def sample(gt, pred):
    return dict(gt_img=gt, output=dict(pred_img=pred))


def reference_ms_ssim(a, b, scales):
    """The definition with SciPy's filters, on even sizes, one channel."""
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333][:scales])
    weights = weights if scales == 5 else weights / weights.sum()
    result = 1.
    for level in range(scales):
        blur = lambda x: gaussian_filter(x, 1.5, truncate=3.5)[5:-5, 5:-5]  # noqa: E731
        ma, mb, c1, c2 = blur(a), blur(b), 2.55**2, 7.65**2
        contrast = (2 * (blur(a * b) - ma * mb) + c2) / (
            blur(a * a) - ma**2 + blur(b * b) - mb**2 + c2)
        luminance = (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
        last = level == scales - 1
        result *= (contrast * luminance if last else contrast).mean().clip(0)**weights[level]
        if not last:
            a, b = (x.reshape(len(x) // 2, 2, -1, 2).mean((1, 3)) for x in (a, b))
    return result


@pytest.mark.parametrize('size, scales', [((192, 176), 5), ((96, 112), 4), ((64, 64), 3),
                                          ((32, 48), 2), ((16, 12), 1)])
def test_ms_ssim_equals_its_definition(size, scales):
    gt, pred = pair(size)
    assert scales_for(*size) == scales
    want = np.mean([reference_ms_ssim(a, b, scales)
                    for a, b in zip(pred.double().numpy(), gt.double().numpy(), strict=True)])
    got = evaluate(dict(type='PairedMSSSIM'), [sample(gt, pred)])['MS_SSIM']
    assert got == pytest.approx(want, abs=2e-5) and 0 < got < 1
    if scales == 1:
        assert got == pytest.approx(structural_similarity(
            *(x.double().numpy() for x in (pred, gt)), data_range=255, gaussian_weights=True,
            use_sample_covariance=False, sigma=1.5, channel_axis=0), abs=2e-5)


@pytest.mark.parametrize('size', [(192, 192), (195, 183)])
def test_ms_ssim_equals_the_library_where_it_works(size):
    import pytorch_msssim
    gt, pred = (x[None].double() for x in pair(size))
    want = pytorch_msssim.ms_ssim(pred, gt, data_range=255)
    assert ms_ssim(pred, gt).item() == pytest.approx(want.item(), rel=1e-12)
    four = pytorch_msssim.ms_ssim(pred, gt, data_range=255,
                                  weights=list(np.array(WEIGHTS[:4]) / sum(WEIGHTS[:4])))
    assert ms_ssim(pred, gt, 4).item() == pytest.approx(four.item(), rel=1e-12)


def test_ms_ssim_measures_the_saved_image_and_averages():
    gt, pred = pair((32, 32))
    assert evaluate(dict(type='PairedMSSSIM'), [sample(gt, gt)])['MS_SSIM'] == pytest.approx(1)
    one = evaluate(dict(type='PairedMSSSIM'), [sample(gt, pred)])
    assert evaluate(dict(type='PairedMSSSIM'), [sample(gt, pred + 0.3)]) == one
    both = evaluate(dict(type='PairedMSSSIM'), [sample(gt, pred), sample(gt, gt)])
    assert both['MS_SSIM'] == pytest.approx((one['MS_SSIM'] + 1) / 2)
    assert evaluate(dict(type='PairedMSSSIM', scales=1), [sample(gt, pred)]) != one


@pytest.mark.parametrize('size, scales, message', [
    ((10, 64), None, '10 x 64'), ((64, 64), 4, '1 to 3 scales, got 4')])
def test_ms_ssim_of_too_small_images(size, scales, message):
    gt, pred = pair(size)
    with pytest.raises(ValueError, match=message):
        evaluate(dict(type='PairedMSSSIM', scales=scales), [sample(gt, pred)])
    with pytest.raises(ValueError, match='compare shapes'):
        ms_ssim(gt[None], gt[None, :, :-1])
    if scales:
        with pytest.raises(ValueError, match='1 to 3 scales, got 0'):
            ms_ssim(gt[None], gt[None], 0)


@pytest.mark.parametrize('side, scales', [
    (11, 1), (20, 1), (21, 2), (40, 2), (41, 3), (80, 3), (81, 4), (160, 4), (161, 5), (999, 5)])
def test_every_scale_halves_the_image_down_to_the_window(side, scales):
    assert scales_for(side, 999) == scales_for(999, side) == scales


@pytest.mark.parametrize('size, told', [((161, 161), 0), ((160, 161), 1)])
def test_fewer_scales_than_five_are_said_once(size, told, monkeypatch):
    lines = []
    monkeypatch.setattr(ms_ssim_module, 'print_log', lambda text, logger: lines.append(text))
    gt, pred = pair(size)
    evaluate(dict(type='PairedMSSSIM'), [sample(gt, pred)] * 2)
    assert len(lines) == told and all('4 of 5 scales, images are 160 x 161' in x for x in lines)


def test_ms_ssim_of_a_negative_is_0():
    """What is negative has no real power."""
    gt = next(pair((24, 24)))
    assert ms_ssim(gt[None], 255 - gt[None]).tolist() == [0]


def test_mmagic_metrics_equal_scikit_image():
    gt, pred = pair((48, 64))
    a, b = (x.double().numpy() for x in (gt, pred))
    want = dict(PSNR=peak_signal_noise_ratio(a, b, data_range=255),
                MAE=np.abs(a - b).mean() / 255,
                SSIM=structural_similarity(a, b, data_range=255, gaussian_weights=True, sigma=1.5,
                                           use_sample_covariance=False, channel_axis=0))
    for name, value in want.items():
        metric = METRICS.build(dict(type=name))
        metric.size = 1
        metric.process(None, [sample(gt, pred)])
        assert float(metric.evaluate()[name]) == pytest.approx(value, rel=1e-4), name


@pytest.fixture(scope='module')
def backbone(tmp_path_factory):
    """A torchvision AlexNet checkpoint with random weights and without its classifier."""
    torch.manual_seed(0)
    features = torchvision.models.alexnet().features.state_dict()
    path = tmp_path_factory.mktemp('backbone') / 'alexnet.pth'
    torch.save({f'features.{key}': value for key, value in features.items()}, path)
    return str(path)


def test_lpips_equals_torchmetrics(backbone):
    gt, pred = pair((64, 64))
    other = _LPIPS(pretrained=True, net='alex', pnet_rand=True)
    other.net.load_state_dict(build_lpips('alex', backbone).net.state_dict())
    with torch.no_grad():
        want = other.eval()(*(x.flip(0)[None] / 127.5 - 1 for x in (gt, pred))).item()
    cfg = dict(type='LPIPS', backbone=backbone, device='cpu')
    got = evaluate(cfg, [sample(gt, pred)])['LPIPS_alex']
    assert METRICS.build(cfg).protocol.endswith('lpips 0.1, network alex')
    assert got == pytest.approx(want, rel=1e-5) and got > 0
    assert evaluate(cfg, [sample(gt, pred - 0.4)])['LPIPS_alex'] == got
    assert evaluate(cfg, [sample(gt, gt)])['LPIPS_alex'] == pytest.approx(0, abs=1e-9)
    assert got != evaluate(cfg, [sample(gt.flip(0), pred.flip(0))])['LPIPS_alex']
    for other in (pred[:1], pred[:, 1:]):  # of which the network makes maps of one size
        with pytest.raises(ValueError, match=r'cannot compare shapes \([13], .*\) and \(3, '):
            evaluate(cfg, [sample(gt, other)])
    network = build_lpips('alex', backbone)
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_lpips_is_built_without_a_word(backbone, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        build_lpips('alex', backbone)
    assert ''.join(capsys.readouterr()) == ''


def test_read_only_arrays_are_taken_without_warnings():
    image = np.full((3, 4, 4), 7, np.uint8)
    image.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert torch.equal(as_tensor(image, 'x'), torch.full((3, 4, 4), 7.).double())
    image = np.zeros((3, 4, 4))
    assert as_tensor(image, 'x').data_ptr() == image.__array_interface__['data'][0]
    for wrong in (np.zeros((2, 3, 4, 4)), np.zeros((4, 4)), np.zeros((1, 3, 4))[None, None]):
        with pytest.raises(ValueError, match=re.escape(f'x must be one image .* {wrong.shape}'
                                                       ).replace(r'\.\*', '.*')):
            as_tensor(wrong, 'x')


def test_lpips_says_which_file_goes_where(backbone, monkeypatch, tmp_path):
    def offline(*args, **kwargs):
        raise URLError('no network')

    monkeypatch.setattr('mmpd.utils.download.urlopen', offline)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(FileNotFoundError,
                       match=r'alexnet-owt-7be5be79.pth.*put the file at.*checkpoints.*backbone='):
        build_lpips('alex')
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match='nowhere.pth'):
        build_lpips('alex', 'nowhere.pth')
    with pytest.raises(ValueError, match="alex, vgg, squeeze, got 'resnet'"):
        build_lpips('resnet')
    wrong = torch.load(backbone, weights_only=True)
    wrong['features.3.weight'] = wrong['features.3.weight'][:, :2]
    torch.save(wrong, tmp_path / 'wrong.pth')
    with pytest.raises(ValueError, match=r'features.3.weight is \(192, 2, 5, 5\), expected'):
        build_lpips('alex', str(tmp_path / 'wrong.pth'))
    del wrong['features.3.weight']
    torch.save(wrong, tmp_path / 'wrong.pth')
    with pytest.raises(ValueError, match='features.3.weight is missing'):
        build_lpips('alex', str(tmp_path / 'wrong.pth'))


@pytest.mark.parametrize('change, said', [
    ({'lin0.model.1.weight': None}, r'lin0.model.1.weight is missing, expected \(1, 64, 1, 1\)'),
    ({'lin1.model.1.weight': (1, 2, 1, 1)}, r'is \(1, 2, 1, 1\), expected \(1, 192, 1, 1\)'),
    ({'lin5.model.1.weight': (3, )}, r'lin5.model.1.weight is \(3,\), expected none')])
def test_lpips_refuses_heads_of_another_version(backbone, monkeypatch, tmp_path, change, said):
    """One that is missing would be random."""
    import lpips
    folder = tmp_path / 'weights/v0.1'
    folder.mkdir(parents=True)
    heads = torch.load(f'{Path(lpips.__file__).parent}/weights/v0.1/alex.pth', map_location='cpu')
    for key, shape in change.items():
        heads.pop(key, None)
        if shape:
            heads[key] = torch.ones(shape)
    torch.save(heads, folder / 'alex.pth')
    monkeypatch.setattr(lpips, '__file__', str(tmp_path / '__init__.py'))
    with pytest.raises(WeightsMismatch, match=said):
        build_lpips('alex', backbone)


@pytest.mark.parametrize('kind', ['LPIPS', 'SRFID', 'PairedMSSSIM', 'LRConsistency'])
def test_wrong_arguments_are_refused_before_a_network_is_looked_for(kind):
    for wrong, message in ((dict(collect_device='disk'), "collect_device: .*got 'disk'"),
                           (dict(prefix=3), 'prefix: .*got 3'), (dict(pred_key=''), 'pred_key: ')):
        with pytest.raises(ValueError, match=message):
            METRICS.build(dict(type=kind, **wrong))


def test_devices():
    assert resolve_device('cpu') == torch.device('cpu')
    assert resolve_device('auto').type == ('cuda' if torch.cuda.is_available() else 'cpu')
    for wrong in ('gpu', None):
        with pytest.raises(ValueError, match='device: expected'):
            resolve_device(wrong)


def test_missing_library_is_named():
    with pytest.raises(ImportError, match='pip install some-package'):
        require('no_such_module', 'some-package')


def test_lpips_uses_the_weights_of_its_package_and_unpickles_nothing(backbone, monkeypatch):
    """The package calls torch.load and torchvision's download by itself."""
    import lpips
    load = torch.load

    def refuse(*args, **kwargs):
        raise AssertionError('unpickled by lpips')

    monkeypatch.setattr(torch, 'load', refuse)
    monkeypatch.setattr('mmpd.utils.safe_pickle.torch', SimpleNamespace(
        load=load, serialization=torch.serialization))
    network = build_lpips('alex', backbone)
    heads = load(f'{Path(lpips.__file__).parent}/weights/v0.1/alex.pth', map_location='cpu')
    assert len(heads) == 5
    assert all(torch.equal(network.state_dict()[key], value) for key, value in heads.items())
