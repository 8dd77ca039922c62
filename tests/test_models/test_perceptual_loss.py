"""The perceptual loss takes its VGG weights from where the config says."""
import copy
import warnings
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import torch
from mmagic.models.losses.perceptual_loss import PerceptualLoss as MMagicPerceptualLoss
from mmagic.registry import MODELS
from torchvision.models import get_model_weights, vgg

import mmpd
from mmpd.errors import InputError, WeightsMismatch, WeightsNotFound


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
    monkeypatch.setattr('mmpd.utils.download.urlopen', refuse)
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


def test_torchvisions_download_goes_through_the_reader(network, weights, monkeypatch):
    asked = []
    monkeypatch.setattr('mmpd.utils.reader.fetch', lambda url: asked.append(url) or weights)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        loss = MODELS.build(config('torchvision://vgg11'))
    assert asked == [get_model_weights('vgg11').IMAGENET1K_V1.url]
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
    with pytest.raises(WeightsNotFound, match=f'cannot download https.*{name}.*put the file at '
                                              f'{tmp_path}.*checkpoints/{name}.*pretrained=FILE'):
        MODELS.build(config(f'torchvision://{vgg_type}', vgg_type))


def test_wrong_files_are_named(weights, tmp_path):
    with pytest.raises(WeightsNotFound, match='nowhere.pth'):
        MODELS.build(config(tmp_path / 'nowhere.pth'))
    with pytest.raises(WeightsMismatch, match='vgg11.pth is no torchvision checkpoint of vgg13'):
        MODELS.build(config(weights, 'vgg13'))


@pytest.mark.parametrize('style', [None, {'0': 0.5, '5': 1.0}])
@pytest.mark.parametrize('norm', [False, True])
def test_keys_and_values_are_those_of_mmagics(network, weights, monkeypatch, style, norm):
    """MMagic's own class around the same network, which torchvision gives it instead of a file."""
    cfg = dict(config(weights), layer_weights={'0': 1.0, '2': 0.3}, style_weight=2.0,
               layer_weights_style=style, norm_img=norm, criterion='l1')
    ours = MODELS.build(dict(cfg))
    monkeypatch.setattr(vgg, 'vgg11', lambda pretrained: SimpleNamespace(
        features=copy.deepcopy(network.features)))
    cfg.pop('type')
    theirs = MMagicPerceptualLoss(**cfg)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    assert isinstance(ours, MMagicPerceptualLoss)
    torch.manual_seed(0)
    x, gt = torch.rand(2, 1, 3, 16, 16)
    assert ours(x, gt) == theirs(x, gt)


def test_batch_normalisation_and_no_deprecated_call(tmp_path):
    torch.manual_seed(0)
    network = vgg.make_layers(vgg.cfgs['A'], batch_norm=True)
    state = {f'features.{key}': value for key, value in network.state_dict().items()
             if 'num_batches_tracked' not in key}  # as in torchvision's files
    torch.save(state, tmp_path / 'a.pth')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        loss = MODELS.build(dict(config(tmp_path / 'a.pth', 'vgg11_bn'), layer_weights={'5': 1.0}))
    x = torch.rand(1, 3, 16, 16)
    network, mean, std = network.eval(), *(
        torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = network[:6]((x - mean) / std)
    torch.testing.assert_close(loss.eval().vgg(x)['5'], expected)


def test_the_package_patches_nothing():
    """unittest.mock belongs to tests."""
    for path in Path(mmpd.__file__).parent.rglob('*.py'):
        assert 'unittest' not in path.read_text(), path


@pytest.mark.parametrize('wrong, message', [
    (dict(vgg_type='resnet'), 'vgg_type: expected .*resnet'),
    (dict(vgg_type='VGG'), 'vgg_type: expected .*VGG'),
    (dict(pretrained='torchvision://vgg19'), "'vgg11' and pretrained 'torchvision://vgg19'"),
    (dict(pretrained=None), 'pretrained: expected a file, or torchvision://NAME, got None'),
    (dict(criterion='fro'), "criterion: expected .*, got 'fro'"),
    (dict(criterion=3), 'criterion: expected .*, got 3'),
    (dict(norm_img='no'), "norm_img: expected .*, got 'no'"),
    (dict(style_weight=-1), 'style_weight: expected .*, got -1'),
    (dict(layer_weights_style={'a': 1.0}), 'layer_weights_style: expected keys that are numbers'),
    (dict(layer_weights={}), 'layer_weights: expected at least one layer'),
    (dict(layer_weights={'40': 1.0}), 'vgg11 has the layers 0 to 20, got 40')])
def test_wrong_arguments_are_named(weights, wrong, message):
    with pytest.raises(InputError, match=message):
        MODELS.build({**config(weights), **wrong})
