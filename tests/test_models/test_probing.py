"""What kind of network a generator is, found without running it for good."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmpd.errors import InputError
from mmpd.models.editors.probing import check_suitable, is_identity, probe
from mmpd.operators import AveragePooling, Masking, SeparableResize


class Net(nn.Module):
    """Its forward pass is the function given."""

    def __init__(self, function, conv=None):
        super().__init__()
        self.function, self.conv = function, conv

    def forward(self, x):
        return self.function(x) if self.conv is None else self.function(self.conv(x))


def double(x):
    return F.interpolate(x, scale_factor=2)


def frames(x):
    if x.ndim != 5:
        raise RuntimeError('expected a video')
    return double(x[:, 0])


def nine_frames(x):
    n, t, c, h, w = x.shape
    assert t == 9


@pytest.mark.parametrize('function, message', [
    (frames, 'single images, got Net, which takes a sequence of frames'),
    (nine_frames, 'single images, got Net, which takes a sequence of frames'),
    (lambda x: x['lq'], 'single images, got Net, which takes several'),
    (lambda x: (double(x), x), 'returns one image, got Net, which returns a tuple'),
    (lambda x: F.interpolate(x, scale_factor=1.5), r'by an integer, got Net.*96, 96\) of'),
    (lambda x: F.interpolate(x, size=(64, 128)), r'by an integer, got Net.*64, 128\) of'),
    (lambda x: F.avg_pool2d(x, 2), r'by an integer, got Net.*32, 32\) of'),
    (lambda x: double(x)[0], r'by an integer, got Net, which makes \(3, 128, 128\)')])
def test_networks_that_do_not_make_one_image_of_one(function, message):
    with pytest.raises(InputError, match=f'generator: expected a network .*{message}'):
        check_suitable(Net(function))


def test_scales_that_can_be_told_and_one_that_cannot():
    assert check_suitable(Net(double)) == 2 and check_suitable(Net(lambda x: x)) == 1
    assert check_suitable(Net(double, nn.Conv2d(1, 1, 3, padding=1))) == 2
    assert check_suitable(Net(double, nn.Conv2d(4, 4, 3, padding=1))) == 2  # as its first layer

    def broken(x):
        raise RuntimeError('not on the meta device')
    assert check_suitable(Net(broken)) is None
    assert check_suitable(Net(broken), named=3) == 3


def test_what_a_generator_is_shown():
    seen = []
    sized = Net(lambda x: seen.append(x.shape) or double(x))
    sized.in_size = 24
    lr, output = probe(sized)
    assert lr.shape == (1, 3, 24, 24) == seen[0] and output.shape == (1, 3, 48, 48)
    assert lr.is_meta and output.is_meta
    lr, _ = probe(Net(lambda x: double(x[:, 0])), (5, ))
    assert lr.shape[:3] == (1, 5, 3)
    assert isinstance(probe(Net(frames)), RuntimeError)


def test_weights_of_any_type_are_copied():
    net = Net(double, nn.Conv2d(3, 3, 1))
    net.table = nn.Parameter(torch.zeros(2, dtype=torch.long), requires_grad=False)
    net.register_buffer('seen', torch.zeros(1))
    assert check_suitable(net) == 2 and not net.table.is_meta


class KeywordNet(nn.Module):
    def forward(self, x, /, scale=2, *, mask):
        return double(x)


def test_arguments_that_a_model_would_not_give():
    with pytest.raises(InputError, match='got KeywordNet, which also needs mask'):
        check_suitable(KeywordNet())


class Scaled:
    """An operator of scale 1 for RGB images."""

    scale = 1

    def __init__(self, gain):
        self.gain = gain

    def A(self, x):
        if x.shape[1:2] != (3,):
            raise ValueError('expected RGB')
        return x * self.gain


def test_operators_that_change_nothing():
    assert is_identity(AveragePooling(1)) and is_identity(SeparableResize(1))
    assert is_identity(Scaled(1)) and is_identity(Scaled(1 + 1e-7))
    for other in (AveragePooling(2), Masking(torch.eye(64)), Scaled(0.5), Scaled(1 + 1e-4), None):
        assert not is_identity(other)
