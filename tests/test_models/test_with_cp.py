"""with_cp=True: less is kept for the backward pass, and no bit of a gradient changes."""
import copy

import pytest
import torch
from conftest import TINY
from mmagic.models.editors.stylegan2 import StyleGAN2Discriminator as MMagicDiscriminator
from mmagic.registry import MODELS
from torch.autograd.graph import saved_tensors_hooks
from torchvision.models import vgg

from mmpd.errors import InputError
from mmpd.models.generators import glean_net, rrdb_trunk
from mmpd.models.losses.perceptual_loss import VGGFeatures

PARTS = {
    'GLEANNet': (TINY, (2, 3, 8, 8)),
    'trained prior': (dict(TINY, freeze_prior=False), (2, 3, 8, 8)),
    'no decoder': (dict(TINY, decoder=False), (2, 3, 8, 8)),
    'PDNNet': (dict(TINY, type='PDNNet', freeze_prior=False), (2, 3, 8, 8)),
    'PaniniNet': (dict(TINY, type='PaniniNet'), (2, 3, 8, 8)),
    'StyleGAN2Prior': (dict(type='StyleGAN2Prior', out_size=16, style_channels=8, num_mlps=1,
                            channels={4: 8, 8: 8, 16: 8}), (2, 8)),
    'discriminator': (dict(type='StyleGANv2Discriminator', in_size=16), (2, 3, 16, 16)),
}


def twins(cfg, dtype):
    """A module without and with checkpointing, of the same weights, biases and noise strengths."""
    torch.manual_seed(0)
    plain = MODELS.build(copy.deepcopy(cfg)).to(dtype)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    lean = MODELS.build(dict(copy.deepcopy(cfg), with_cp=True)).to(dtype)
    lean.load_state_dict(plain.state_dict(), strict=True)
    return plain, lean


def run(module, x):
    """Output, gradients by name, and how many bytes the graph kept."""
    kept = []
    x = x.clone().requires_grad_()
    torch.manual_seed(1)  # fresh noise, latents
    with saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        out = module(x)
    out.square().sum().backward()
    return out, {'x': x.grad, **{name: parameter.grad for name, parameter
                                 in module.named_parameters()}}, sum(kept)


@pytest.mark.parametrize('part, dtype', [
    *((part, torch.float32) for part in PARTS),
    *((part, torch.float64) for part in PARTS if part != 'discriminator')])  # it casts to float32
def test_gradients_are_bitwise_the_same(part, dtype):
    cfg, shape = PARTS[part]
    plain, lean = twins(cfg, dtype)
    x = torch.randn(shape, dtype=dtype)
    (out, gradients, kept), (lean_out, lean_gradients, lean_kept) = run(plain, x), run(lean, x)
    assert torch.equal(out, lean_out)
    assert gradients.keys() == lean_gradients.keys()
    for name, gradient in gradients.items():
        other = lean_gradients[name]
        assert gradient is other is None or torch.equal(gradient, other), name
    assert lean_kept < 0.9 * kept  # weights, kept either way, are most of so small a network


@pytest.mark.parametrize('part', ['GLEANNet', 'no decoder'])
def test_concatenated_features_are_not_kept_and_not_made_twice(part, monkeypatch):
    made = []

    def watched(*features):
        whole = torch.cat(features, 1)
        made.append(torch.multiprocessing.reductions.StorageWeakRef(whole.untyped_storage()))
        return whole
    for module in (glean_net, rrdb_trunk):
        monkeypatch.setattr(module, 'concatenate', watched)
    counts = []
    for net in twins(PARTS[part][0], torch.float32):
        made.clear()
        result = net(torch.randn(PARTS[part][1]))
        assert all(whole.expired() for whole in made) and made
        forward = len(made)
        result.sum().backward()
        counts.append(len(made) / forward)
    assert counts[1] == 2 >= counts[0]  # once more by the checkpoint, not once more inside it


def penalty(discriminator, real):
    real = real.clone().requires_grad_()
    gradient, = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    gradient.square().sum().backward()
    return [parameter.grad for parameter in discriminator.parameters()]


@pytest.mark.parametrize('with_cp', [False, True])
def test_discriminator_is_mmagics_second_derivative_too(with_cp):
    torch.manual_seed(0)
    theirs = MMagicDiscriminator(16)
    ours = MODELS.build(dict(type='StyleGANv2Discriminator', in_size=16, with_cp=with_cp))
    assert isinstance(ours, MMagicDiscriminator) and type(ours) is not MMagicDiscriminator
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    real = torch.randn(2, 3, 16, 16)
    assert torch.equal(ours(real), theirs(real))
    for one, other in zip(penalty(ours, real), penalty(theirs, real), strict=True):
        assert one is other is None or torch.equal(one, other)


def test_the_smallest_discriminator():
    network = MODELS.build(dict(type='StyleGAN2Discriminator', in_size=4, with_cp=True))
    assert network(torch.ones(1, 3, 4, 4)).shape == (1, 1)


def test_perceptual_network():
    torch.manual_seed(0)
    layers, names = vgg.vgg11(weights=None).features[:11].requires_grad_(False), ['0', '2', '9']
    plain, lean = (VGGFeatures(names, layers, with_cp=with_cp) for with_cp in (False, True))
    found = []
    for network in (plain, lean):
        x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1), requires_grad=True)
        output = network(x)
        sum(feature.square().sum() for feature in output.values()).backward()
        found.append((output, x.grad))
    (expected, gradient), (output, lean_gradient) = found
    assert list(output) == list(expected) == names
    assert all(torch.equal(output[name], expected[name]) for name in names)
    assert torch.equal(gradient, lean_gradient)


def test_batch_normalisation_is_not_counted_twice(tmp_path):
    with pytest.raises(InputError, match='with_cp.*vgg16_bn'):
        MODELS.build(dict(type='PerceptualLoss', layer_weights={'0': 1.0}, vgg_type='vgg16_bn',
                          pretrained=str(tmp_path / 'none.pth'), with_cp=True))
