"""StyleConv infers MMagic's values, however it divides the work; training is MMagic's own."""
import copy

import pytest
import torch
from conftest import TINY, tiny_model
from mmagic.models.editors.stylegan2.stylegan2_modules import ModulatedStyleConv

from mmpd.models.generators.style_conv import StyleConv, channels_last


def pair(upsample=False, **kwargs):
    """MMagic's module and ours with the same random weights, in evaluation mode."""
    torch.manual_seed(0)
    theirs = ModulatedStyleConv(6, 5, 3, 7, upsample=upsample, **kwargs)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    ours = StyleConv(6, 5, 3, 7, upsample=upsample, **kwargs)
    ours.load_state_dict(theirs.state_dict())
    return theirs.eval(), ours.eval()


@pytest.mark.parametrize('laid', [False, True], ids=['', 'channels-last'])
@pytest.mark.parametrize('batch, size', [(1, 4), (1, 9), (3, 9)])  # 6·4² < 5·6·3² < 6·9²
@pytest.mark.parametrize('upsample, blur', [
    (False, [1, 3, 3, 1]), (True, [1, 3, 3, 1]), (True, [1, 2, 4, 5]),
    (True, [1, 2, 3, 4, 5, 6])])
def test_inference_is_mmagics(upsample, blur, batch, size, laid):
    theirs, ours = pair(upsample, blur_kernel=blur)
    if laid:
        assert channels_last(ours)
    x, style = torch.randn(batch, 6, size, size), torch.randn(batch, 7)
    side = 2 * size if upsample else size
    noise, kept = torch.randn(1, 1, side, side), x.clone()
    with torch.no_grad():
        wanted = theirs(x, style, noise=noise)
        found = ours(x, style, noise=noise)
        assert not torch.equal(found, ours(x, style, noise=0 * noise))
    assert torch.equal(x, kept) and found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert ours.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize('batch', [1, 3])
def test_inference_in_float64_is_not_rounded_to_float32(batch):
    theirs, ours = (module.double() for module in pair(True))
    x, style, noise = (torch.randn(shape, dtype=torch.float64) for shape in (
        (batch, 6, 9, 9), (batch, 7), (1, 1, 18, 18)))
    with torch.no_grad():
        torch.testing.assert_close(ours(x, style, noise=noise), theirs(x, style, noise=noise),
                                   rtol=1e-12, atol=1e-12)


def test_training_and_gradients_are_mmagics():
    theirs, ours = pair(True)
    x, style, noise = torch.randn(1, 6, 4, 4), torch.randn(1, 7), torch.randn(1, 1, 8, 8)
    assert torch.equal(ours(x, style, noise=noise), theirs(x, style, noise=noise))
    with torch.no_grad():
        images = []
        for module in (theirs, ours):
            torch.manual_seed(1)
            images.append(module(x, style))  # random noise
        assert torch.equal(*images)
        assert torch.equal(ours.train()(x, style, noise=noise), theirs(x, style, noise=noise))


def test_autocast_is_switched_off_as_there():
    theirs, ours = pair()
    x, style, noise = torch.randn(1, 6, 4, 4), torch.randn(1, 7), torch.randn(1, 1, 4, 4)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(ours(x, style, noise=noise), theirs(x, style, noise=noise))


@pytest.mark.parametrize('kind', ['GLEANNet', 'PDNNet', 'PaniniNet'])
def test_a_network_laid_out_channels_last_gives_the_same(kind):
    network = tiny_model('GANPriorSR', dict(TINY, type=kind)).generator.eval()
    laid = copy.deepcopy(network)
    assert channels_last(laid) and not channels_last(torch.nn.Conv2d(3, 3, 3))
    strides = {parameter.stride() for parameter in laid.parameters() if parameter.dim() > 3}
    assert strides != {parameter.stride() for parameter in network.parameters()
                       if parameter.dim() > 3}
    state = network.state_dict()
    assert all(torch.equal(state[key], value) for key, value in laid.state_dict().items())
    lr = torch.rand(2, 3, 8, 8) * 2 - 1
    images = []
    for one in (network, laid):
        torch.manual_seed(2)  # PDNNet draws
        with torch.no_grad():
            images.append(one(lr))
    torch.testing.assert_close(*images, rtol=1e-4, atol=1e-5)
