"""Tiles and padding: equal to the whole where the network looks no farther than the overlap."""
import pytest
import torch
import torch.nn.functional as F

from mmpd.apis.tiles import forward_padded, forward_tiled


def network(x):
    """Enlarges by 2 and sees two pixels around; zero padding, so borders are told from seams."""
    weight = torch.linspace(-1, 1, 25, dtype=x.dtype).view(1, 1, 5, 5)
    return F.interpolate(F.conv2d(x, weight, padding=2), scale_factor=2)


@pytest.mark.parametrize('size', [(1, 1), (4, 4), (11, 3), (9, 17)])
@pytest.mark.parametrize('tile, overlap, batch', [(4, 2, 1), (3, 5, 4), (1, 2, 7), (40, 2, 1)])
def test_joined_tiles_are_the_whole(size, tile, overlap, batch):
    image = torch.randn(1, 1, *size, dtype=torch.float64)
    seen = []

    def counted(x):
        seen.append(len(x))
        assert x.shape[-2] <= tile + 2 * overlap and x.shape[-1] <= tile + 2 * overlap
        return network(x)
    assert torch.allclose(forward_tiled(counted, image, tile, overlap, batch), network(image))
    assert max(seen) <= batch
    assert sum(seen) == -(-size[0] // tile) * -(-size[1] // tile)


def test_too_little_overlap_shows():
    image = torch.randn(1, 1, 9, 9, dtype=torch.float64)
    assert not torch.allclose(forward_tiled(network, image, 4, 1), network(image))


@pytest.mark.parametrize('size', [(1, 1), (1, 6), (5, 4), (8, 8), (2, 3)])
def test_padding_to_a_multiple_is_cut_off_again(size):
    image = torch.randn(2, 1, *size)

    def checked(x):
        assert x.shape[-2] % 4 == x.shape[-1] % 4 == 0
        assert torch.equal(x[..., :size[0], :size[1]], image)
        return F.interpolate(x, scale_factor=3)
    assert torch.equal(forward_padded(checked, image, 4), F.interpolate(image, scale_factor=3))
