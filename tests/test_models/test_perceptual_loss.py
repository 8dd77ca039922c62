"""The perceptual loss takes its VGG weights from where the config says."""
import warnings
from urllib.error import URLError

import pytest
import torch
from mmagic.models.losses.perceptual_loss import PerceptualLoss as MMagicPerceptualLoss
from mmagic.registry import MODELS
from torchvision.models import get_model_weights, vgg

from mmpd.errors import WeightsMismatch, WeightsNotFound


def config(pretrained, vgg_type='vgg11'):
    return dict(type='PerceptualLoss', layer_weights={'2': 1.0}, vgg_type=vgg_type,
                norm_img=False, perceptual_weight=1e-2, style_weight=0, criterion='mse',
                pretrained=str(pretrained))


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(3)
    return vgg.vgg11(weights=None)


@pytest.fixture(scope='module')
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp('vgg') / 'vgg11.pth'
    torch.save({key: value for key, value in network.state_dict().items()
                if key.startswith('features.')}, path)  # what the loss needs of torchvision's file
    return path


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise URLError('no network')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', refuse)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))


def test_local_file_is_used(network, weights, no_network):
    loss = MODELS.build(config(weights))
    for own, given in zip(loss.vgg.vgg_layers, network.features[:3], strict=True):
        assert all(torch.equal(own.state_dict()[key], value)
                   for key, value in given.state_dict().items())
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    x, gt = torch.rand(2, 1, 3, 16, 16)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1)
                 for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        first, second = (network.features[:3]((image - mean) / std) for image in (x, gt))
    assert loss(x, gt)[0].item() == pytest.approx(1e-2 * (first - second).square().mean().item())
    assert vgg.vgg11.__module__ == 'torchvision.models.vgg'  # torchvision is as it was


def test_torchvisions_download_is_asked_for_in_todays_words(network, monkeypatch):
    asked = []

    def download(weights, progress=True, check_hash=False):
        asked.append(weights)
        return network.state_dict()

    monkeypatch.setattr(type(get_model_weights('vgg11').IMAGENET1K_V1), 'get_state_dict', download)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        loss = MODELS.build(config('torchvision://vgg11'))
    assert asked == [get_model_weights('vgg11').IMAGENET1K_V1]
    assert torch.equal(loss.vgg.vgg_layers[0].weight, network.features[0].weight)


def test_mmagic_ignores_the_file(weights, no_network):
    """The fault: without mmpd's class the option does nothing."""
    cfg = config(weights)
    cfg.pop('type')
    with pytest.raises(URLError):
        MMagicPerceptualLoss(**cfg)


@pytest.mark.parametrize('vgg_type, name', [('vgg16', 'vgg16-397923af.pth'),
                                            ('vgg19', 'vgg19-dcbb9e9d.pth')])
def test_download_that_fails_says_which_file_goes_where(no_network, tmp_path, vgg_type, name):
    with pytest.raises(WeightsNotFound, match=f'{name} and put it into {tmp_path}.*checkpoints'):
        MODELS.build(config(f'torchvision://{vgg_type}', vgg_type))


def test_wrong_files_are_named(weights, tmp_path):
    with pytest.raises(WeightsNotFound, match='nowhere.pth'):
        MODELS.build(config(tmp_path / 'nowhere.pth'))
    with pytest.raises(WeightsMismatch, match='vgg11.pth is no torchvision checkpoint of vgg13'):
        MODELS.build(config(weights, 'vgg13'))
