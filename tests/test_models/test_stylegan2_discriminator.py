"""The discriminator's widths."""
import pytest
import torch
from mmagic.models.editors.stylegan2 import StyleGAN2Discriminator as MMagicDiscriminator

from mmpd.models.discriminators import StyleGAN2Discriminator


def test_with_config_fs_widths_it_is_mmagics():
    """Same keys, same output of the same weights: every layer is made as MMagic makes it."""
    torch.manual_seed(0)
    theirs = MMagicDiscriminator(16, img_channels=1)
    ours = StyleGAN2Discriminator(16, img_channels=1, channels={16: 512})
    ours.load_state_dict(theirs.state_dict(), strict=True)
    image = torch.randn(4, 1, 16, 16)
    with torch.no_grad():
        assert torch.allclose(ours(image), theirs(image), rtol=1e-4, atol=1e-5)


def test_widths_are_those_asked_for():
    network = StyleGAN2Discriminator(16, 1, channels={4: 5, 8: 6, 16: 7}, with_cp=True)
    widths = [next(parameter for key, parameter in layer.conv1.named_parameters()
                   if key.endswith('weight_orig')).shape[0] for layer in list(network.convs)[1:]]
    assert widths == [7, 6]
    assert [tuple(parameter.shape) for key, parameter in network.final_linear.named_parameters()
            if key.endswith('weight_orig')] == [(5, 80), (1, 5)]
    assert network(torch.randn(2, 1, 16, 16)).shape == (2, 1)
    assert not any(parameter.is_meta for parameter in network.parameters())
    assert not any(buffer.is_meta for buffer in network.buffers())


@pytest.mark.parametrize('with_cp', [False, True])
def test_an_image_that_autocast_made_is_taken_as_one_of_float32(with_cp):
    network = StyleGAN2Discriminator(8, channels={4: 5, 8: 6}, with_cp=with_cp)
    image = torch.randn(2, 3, 8, 8).bfloat16().requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        score = network(image)
    assert torch.equal(score, network(image.float()))
    score.sum().backward()
    assert image.grad.dtype == torch.bfloat16 and image.grad.isfinite().all()


@pytest.mark.parametrize('size, options, message', [
    (12, dict(channels={4: 4}), 'in_size: expected a power of two'),
    (2048, dict(channels={4: 4}), 'in_size: expected at most 1024'),
    (8, dict(channels={3: 4}), 'channels'),
    (8, dict(channels={8: 4}, cond_size=3), 'together with cond_size')])
def test_wrong_widths(size, options, message):
    with pytest.raises(ValueError, match=message):
        StyleGAN2Discriminator(size, **options)
