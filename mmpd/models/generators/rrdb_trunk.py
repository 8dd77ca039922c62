"""The RRDBs of GLEAN's and Panini's encoders, which keep no concatenations in training."""
import torch
from mmagic.models.editors.esrgan.rrdb_net import RRDB, ResidualDenseBlock
from mmagic.models.editors.glean.glean_styleganv2 import RRDBFeatureExtractor
from mmagic.models.utils import make_layer
from torch import nn

from ..recompute import recomputed, remade


def concatenate(*features):
    """Tensors (N, C_i, H, W) -> (N, sum of C_i, H, W)."""
    return torch.cat(features, 1)


class DenseBlock(ResidualDenseBlock):
    """MMagic's ``ResidualDenseBlock``: same keys, same values, a quarter of the memory.

    Autograd would keep the input of every convolution, and with it the block's own input four
    more times.

    Args:
        mid_channels, growth_channels (int): As there.
        with_cp (bool): Whether all of the block is computed again.
    """

    def __init__(self, mid_channels=64, growth_channels=32, with_cp=False):
        super().__init__(mid_channels, growth_channels)
        self.with_cp = with_cp

    def forward(self, x):
        """(N, mid_channels, H, W) -> the same shape."""
        features = [x, self.lrelu(self.conv1(x))]
        for conv in (self.conv2, self.conv3, self.conv4, self.conv5):
            out = remade(conv, concatenate, *features, enabled=not self.with_cp)
            features.append(out if conv is self.conv5 else self.lrelu(out))
        return features[-1] * 0.2 + x


class DenseRRDB(RRDB):
    """MMagic's ``RRDB`` of :class:`DenseBlock`."""

    def __init__(self, mid_channels, growth_channels, with_cp):
        nn.Module.__init__(self)
        for index in range(1, 4):
            setattr(self, f'rdb{index}', DenseBlock(mid_channels, growth_channels, with_cp))


class RRDBTrunk(RRDBFeatureExtractor):
    """MMagic's ``RRDBFeatureExtractor`` of :class:`DenseRRDB`, with its keys.

    Args:
        in_channels, mid_channels, num_blocks, growth_channels (int): As there.
        with_cp (bool): Compute each RRDB again in the backward pass.
    """

    def __init__(self, in_channels=3, mid_channels=64, num_blocks=23, growth_channels=32,
                 with_cp=False):
        nn.Module.__init__(self)
        self.with_cp = with_cp
        self.conv_first = nn.Conv2d(in_channels, mid_channels, 3, 1, 1)
        self.body = make_layer(DenseRRDB, num_blocks, mid_channels=mid_channels,
                               growth_channels=growth_channels, with_cp=with_cp)
        self.conv_body = nn.Conv2d(mid_channels, mid_channels, 3, 1, 1)

    def forward(self, x):
        """(N, in_channels, H, W) -> (N, mid_channels, H, W)."""
        feature = first = self.conv_first(x)
        for block in self.body:
            feature = recomputed(block, feature, enabled=self.with_cp)
        return first + self.conv_body(feature)
