"""GLEANNet: MMagic's GLEANStyleGANv2, without its idle computation."""
import inspect

import pytest
import torch
from mmagic.models.editors.glean import GLEANStyleGANv2

from mmpd.models.generators import GLEANNet

TINY = dict(in_size=8, out_size=32, style_channels=12, num_mlps=2, rrdb_channels=4, num_rrdbs=1,
            growth_channels=4, channels={4: 10, 8: 8, 16: 6, 32: 4})


def build(**kwargs):
    torch.manual_seed(0)
    return GLEANNet(**{**TINY, **kwargs})


def lr_images(n=2, size=8):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize('in_size, out_size', [(4, 8), (8, 16), (16, 32)])
def test_same_keys_output_and_gradients_as_mmagic(in_size, out_size):
    """With random parameters everywhere, so that noise and biases count."""
    kwargs = dict(in_size=in_size, out_size=out_size, style_channels=16, num_mlps=1,
                  rrdb_channels=8, num_rrdbs=1)
    torch.manual_seed(0)
    reference, ours = GLEANStyleGANv2(**kwargs), GLEANNet(**kwargs)
    assert list(ours.state_dict()) == list(reference.state_dict())
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    ours.load_state_dict(reference.state_dict())
    lr = lr_images(1, in_size)
    expected, result = reference(lr), ours(lr)
    assert result.shape == (1, 3, out_size, out_size) and expected.std() > 0.01
    assert (result - expected).abs().max() <= 1e-4
    (expected.square().mean() + result.square().mean()).backward()
    scale = max(p.grad.abs().max() for p in reference.parameters() if p.grad is not None)
    theirs = dict(reference.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.grad is None:  # idle, or frozen: no gradient there either, or no effect
            assert theirs[name].grad is None or not theirs[name].grad.any(), name
        else:
            assert (parameter.grad - theirs[name].grad).abs().max() <= 1e-4 * scale, name


def test_every_argument_of_mmagic_is_accepted_with_the_same_default():
    theirs = inspect.signature(GLEANStyleGANv2).parameters
    ours = inspect.signature(GLEANNet).parameters
    for name, parameter in theirs.items():
        default = parameter.default
        assert ours[name].default == (tuple(default) if isinstance(default, list) else default)


@pytest.mark.parametrize('decoder', [True, False])
@pytest.mark.parametrize('freeze_prior', [True, False])
def test_no_trainable_parameter_is_idle(decoder, freeze_prior):
    """Otherwise DistributedDataParallel needs find_unused_parameters."""
    net = build(decoder=decoder, freeze_prior=freeze_prior)
    net(lr_images()).square().sum().backward()
    trainable = {name for name, p in net.named_parameters() if p.requires_grad}
    assert trainable == {name for name, p in net.named_parameters() if p.grad is not None}
    assert any(name.startswith('generator.convs') for name in trainable) != freeze_prior
    assert any(name.startswith('fusion_skip') for name in trainable) != decoder
    assert any(name.startswith('encoder') for name in trainable)


def test_the_rgb_path_runs_only_when_it_is_the_output():
    for decoder, expected in ((True, 0), (False, 4)):
        net, calls = build(decoder=decoder), []
        for module in (net.generator.to_rgb1, *net.generator.to_rgbs):
            module.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        net(lr_images())
        assert len(calls) == expected


def test_without_decoder_the_image_is_the_prior_s():
    net = build(decoder=False)
    assert not any(key.startswith('decoder.') for key in net.state_dict())
    with torch.no_grad():
        for convs in (net.fusion_out, net.fusion_skip):  # pass on what the prior made
            for conv in convs:
                torch.nn.init.dirac_(conv.weight)
                conv.weight[:, conv.out_channels:] = 0
                conv.bias.zero_()
        lr = lr_images()
        _, latents = net.encode(lr)
        expected = net.generator.synthesis(latents.view(2, -1, 12)).rgb
        torch.testing.assert_close(net(lr), expected, rtol=1e-5, atol=1e-5)


def test_without_decoder_the_encoder_corrects_the_image_too():
    """At each size up to the LR's, by features behind the image's channels."""
    net, lr = build(decoder=False), lr_images()
    encoded, latents = net.encode(lr)

    def fuse(res, out, rgb):
        if res > 8:
            return out, rgb
        level = (4, 8).index(res)
        return (net.fusion_out[level](torch.cat([out, encoded[res]], 1)),
                net.fusion_skip[level](torch.cat([rgb, encoded[res]], 1)))
    expected = net.generator.synthesis(latents.view(2, -1, 12), fuse=fuse).rgb
    torch.testing.assert_close(net(lr), expected, rtol=1e-5, atol=1e-5)


def test_options_change_the_network():
    lr, plain = lr_images(), build()
    sizes = {name: sum(p.numel() for p in build(**kwargs).parameters()) for name, kwargs in {
        'plain': {}, 'growth': dict(growth_channels=8), 'width': dict(channels={4: 12, 8: 12}),
        'rrdbs': dict(num_rrdbs=2), 'mlps': dict(num_mlps=3)}.items()}
    assert len(set(sizes.values())) == len(sizes)
    assert plain(lr).shape == (2, 3, 32, 32)
    assert build(img_channels=1)(lr[:, :1]).shape == (2, 1, 32, 32)
    flipped = build(decoder=False, bgr2rgb=True)(lr)
    torch.testing.assert_close(flipped.flip(1), build(decoder=False)(lr))
    assert (plain.in_size, plain.out_size) == (8, 32)


@pytest.mark.parametrize('kwargs, message', [
    (dict(in_size=32), 'in_size: expected a smaller number than out_size=32, got 32'),
    (dict(in_size=12), 'in_size: expected a power of two of at least 4, got 12'),
    (dict(in_size=2), 'in_size: expected a power of two of at least 4, got 2'),
    (dict(out_size=48), 'out_size: expected a power of two of at least 4, got 48'),
])
def test_bad_sizes(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


@pytest.mark.parametrize('shape', [(1, 3, 16, 16), (1, 3, 8, 16), (3, 8, 8)])
def test_an_lr_of_another_size_is_refused_naming_the_right_one(shape):
    with pytest.raises(ValueError, match=r'expected shape \(N, C, 8, 8\), as in_size=8'):
        build()(torch.zeros(shape))
