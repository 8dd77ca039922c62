"""PDNNet: random latents, the LR's features, gradients where they belong."""
import pytest
import torch
from mmagic.registry import MODELS

TINY = dict(type='PDNNet', in_size=8, out_size=32, style_channels=12, num_mlps=2, rrdb_channels=4,
            num_rrdbs=1, growth_channels=4, channels={4: 10, 8: 8, 16: 6, 32: 4})


def build(**kwargs):
    torch.manual_seed(0)
    return MODELS.build({**TINY, **kwargs})


def test_output_depends_on_z_and_on_the_lr():
    net, lr, z = build(), torch.randn(2, 3, 8, 8), torch.randn(2, 12)
    first = net(lr, z=z)
    assert first.shape == (2, 3, 32, 32) and net.noise_size == 12
    torch.testing.assert_close(net(lr, z=z), first, rtol=0, atol=0)
    assert (net(lr, z=-z) - first).abs().max() > 1e-3
    assert (net(-lr, z=z) - first).abs().max() > 1e-3
    torch.testing.assert_close(net(lr[1:], z=z[1:]), first[1:])  # one z per image


def test_a_seeded_generator_repeats_the_sample():
    net, lr = build(), torch.randn(2, 3, 8, 8)
    one, two = (net(lr, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, net(lr, generator=torch.Generator().manual_seed(4)))
    assert not torch.equal(net(lr), net(lr))


def test_it_is_the_prior_driven_by_its_mapping_network():
    """With the fusion convolutions set to pass the prior's features on, the LR has no influence."""
    net = build()
    for convs, offset in ((net.fusion_out, 0), (net.fusion_skip, 0)):
        for conv in convs:
            torch.nn.init.dirac_(conv.weight)
            conv.bias.data.zero_()
            conv.weight.data[:, conv.out_channels + offset:] = 0
    z = torch.randn(2, 12)
    expected = net.generator(z, randomize_noise=False)
    torch.testing.assert_close(net(torch.randn(2, 3, 8, 8), z=z), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('freeze_prior', [True, False])
def test_no_parameter_is_idle(freeze_prior):
    net = build(freeze_prior=freeze_prior)
    for module in net.modules():  # the weights of StyleGAN2's noise begin at zero
        if type(module).__name__ == 'NoiseInjection':
            module.weight.data.fill_(0.1)
    net(torch.randn(2, 3, 8, 8)).square().sum().backward()
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in net.named_parameters() if p.grad is not None}
    assert any(name.startswith('generator.') for name in trained) != freeze_prior
    assert any('style_mapping' in name for name in trained) != freeze_prior


def test_bad_arguments_are_refused():
    net = build()
    with pytest.raises(ValueError, match=r'z: expected shape \(2, 12\).*\(1, 12\)'):
        net(torch.zeros(2, 3, 8, 8), z=torch.zeros(1, 12))
    with pytest.raises(ValueError, match=r'\(N, C, 8, 8\).*16, 16'):
        net(torch.zeros(2, 3, 16, 16))
    with pytest.raises(ValueError, match='no decoder'):
        build(decoder=True)
