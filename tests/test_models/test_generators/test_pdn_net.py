"""PDNNet: seedable, diverse, no idle parameters; PDN resumes exactly."""
import pytest
import torch
from mmagic.registry import MODELS
from mmengine.logging import MessageHub

from mmpd.models.generators import PDNNet

TINY = dict(in_size=8, out_size=16, style_channels=16, num_mlps=2, rrdb_channels=8, num_rrdbs=1,
            growth_channels=4, channels={4: 12, 8: 8, 16: 6})


def network(**kwargs):
    torch.manual_seed(0)
    net = PDNNet(**{**TINY, **kwargs})
    for block in net.generator.convs:  # noise is scaled by 0 at the start: let it have an effect
        block.noise_injector.weight.data.fill_(0.1)
    return net


def lr_images(n=2, size=8):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_seed_decides_the_image_and_latents_vary_it():
    net, lr = network(), lr_images(1)

    def draw(seed):
        return net(lr, generator=torch.Generator().manual_seed(seed))

    assert draw(0).shape == (1, 3, 16, 16)
    assert torch.equal(draw(0), draw(0))
    assert (draw(0) - draw(1)).abs().mean() > 1e-3
    z = torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw(0), net(lr, z=z))


def test_the_global_seed_decides_without_generator():
    net, lr = network(), lr_images()
    torch.manual_seed(3)
    first = net(lr)
    assert not torch.equal(first, net(lr))
    torch.manual_seed(3)
    assert torch.equal(first, net(lr))


def test_many_latents_for_one_lr_equal_single_calls():
    net, lr, z = network(), lr_images(1), torch.randn(3, 16)
    single = torch.cat([net(lr, z=row[None]) for row in z])
    torch.testing.assert_close(net(lr, z=z), single, atol=1e-5, rtol=1e-5)


def test_the_lr_steers_the_image():
    net, lr, z = network(), lr_images(2), torch.randn(1, 16).expand(2, -1)
    first, second = net(lr, z=z)
    assert (first - second).abs().mean() > 1e-3


@pytest.mark.parametrize('freeze_prior', [True, False])
def test_gradients_reach_exactly_the_trainable_parameters(freeze_prior):
    net = network(freeze_prior=freeze_prior)
    net(lr_images()).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    trainable = {name for name, p in net.named_parameters() if p.requires_grad}
    assert any(name.startswith('generator.') for name in trainable) != freeze_prior


@pytest.mark.parametrize('kwargs, message', [
    (dict(lr=lr_images(size=16)), r'expected shape \(N, C, 8, 8\)'),
    (dict(lr=lr_images(), z=torch.zeros(3, 16)), r'one per LR image \(2\).*got 3'),
    (dict(lr=lr_images(), z=torch.zeros(2, 8)), r'expected shape \(N, 16\)'),
    (dict(lr=lr_images(), z=torch.zeros(2, 16), generator=torch.Generator()), 'got both'),
])
def test_bad_input_is_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        network()(**kwargs)


def test_no_decoder():
    with pytest.raises(ValueError, match='no decoder'):
        PDNNet(8, 16, decoder=True)


def pdn(**kwargs):
    return MODELS.build(dict(
        type='PDN', generator=dict(type='PDNNet', **TINY), train_cfg=dict(seed=1),
        test_cfg=dict(num_samples=3, **kwargs),
        data_preprocessor=dict(type='DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3)))


def test_pdn_draws_by_seed_and_iteration_so_that_resuming_is_exact():
    model = pdn()
    hub = MessageHub.get_current_instance()
    draws = []
    for iteration in (5, 6, 5):
        hub.update_info('iter', iteration)
        torch.manual_seed(iteration + len(draws))  # the global state must not matter
        draws.append(model.draw_latents(2, training=True))
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])
