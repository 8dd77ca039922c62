"""pSp's encoder: an IR-SE network, a feature pyramid and one head per latent of StyleGAN2."""
import torch
import torch.nn.functional as F
from mmagic.models.editors.stylegan1 import EqualLinearActModule
from torch import nn

from .stylegan2_prior import log2_of

# the first latents come from the coarsest level, then from the middle one, the rest from the finest
COARSE, MIDDLE = 3, 7


class SqueezeExcitation(nn.Module):
    """Channel attention (Hu et al. 2018), without biases."""

    def __init__(self, channels):
        super().__init__()
        narrow = max(channels // 16, 1)
        self.fc1 = nn.Conv2d(channels, narrow, 1, bias=False)
        self.fc2 = nn.Conv2d(narrow, channels, 1, bias=False)

    def forward(self, x):
        """(N, C, H, W) -> the same shape."""
        return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class IRSEBlock(nn.Module):
    """ArcFace's improved residual block with channel attention."""

    def __init__(self, in_channels, channels, stride):
        super().__init__()
        self.stride = stride
        self.shortcut_layer = None if in_channels == channels else nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            SqueezeExcitation(channels))

    def forward(self, x):
        """(N, in_channels, H, W) -> (N, channels, H / stride, W / stride)."""
        if self.shortcut_layer is None:
            shortcut = x[:, :, ::self.stride, ::self.stride]
        else:
            shortcut = self.shortcut_layer(x)
        return self.res_layer(x) + shortcut


class StyleHead(nn.Module):
    """Halves a map of ``size`` pixels down to one, which becomes a latent ("map2style")."""

    def __init__(self, channels, size):
        super().__init__()
        layers = []
        for _ in range(size.bit_length() - 1):
            layers += [nn.Conv2d(channels, channels, 3, 2, 1), nn.LeakyReLU()]
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinearActModule(channels, channels)

    def forward(self, x):
        """(N, C, size, size) -> (N, C)."""
        return self.linear(self.convs(x))  # which flattens


class GradualStyleEncoder(nn.Module):
    """The encoder of pSp (Richardson et al., CVPR 2021); with the defaults its IR-SE50.

    Args:
        num_latents (int): Of the StyleGAN2 behind it, at least 8.
        size (int): Side of the image, a power of two of at least 32.
        style_channels (int): Width of the latents, and of the deepest features.
        channels (Sequence[int]): Width of the first convolution and of the stages but the last.
        depths (Sequence[int]): Blocks in each stage.
    """

    def __init__(self, num_latents, size=256, style_channels=512, channels=(64, 64, 128, 256),
                 depths=(3, 4, 14, 3)):
        super().__init__()
        if log2_of(size, 'size') < 5:
            raise ValueError(f'size: expected at least 32, got {size}')
        if num_latents <= MIDDLE:  # nothing would come from the finest level
            raise ValueError(f'num_latents: expected at least {MIDDLE + 1}, of a StyleGAN2 of at '
                             f'least 32 px, got {num_latents}')
        if len(channels) != 4 or len(depths) != 4:
            raise ValueError('channels and depths: expected four stages, got '
                             f'{len(channels)} and {len(depths)}')
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, channels[0], 3, 1, 1, bias=False), nn.BatchNorm2d(channels[0]),
            nn.PReLU(channels[0]))
        self.body, width = nn.ModuleList(), channels[0]
        for stage, depth in zip((*channels[1:], style_channels), depths, strict=True):
            for index in range(depth):
                self.body.append(IRSEBlock(width, stage, 1 if index else 2))
                width = stage
        self.tapped = (sum(depths[:2]) - 1, sum(depths[:3]) - 1)
        self.styles = nn.ModuleList(
            StyleHead(style_channels, size // (16 if i < COARSE else 8 if i < MIDDLE else 4))
            for i in range(num_latents))
        self.latlayer1 = nn.Conv2d(channels[3], style_channels, 1)
        self.latlayer2 = nn.Conv2d(channels[2], style_channels, 1)

    def forward(self, image):
        """(N, 3, size, size) in [-1, 1] -> (N, num_latents, style_channels)."""
        def add(coarse, fine):
            return F.interpolate(coarse, size=fine.shape[2:], mode='bilinear',
                                 align_corners=True) + fine

        feature, tapped = self.input_layer(image), []
        for index, block in enumerate(self.body):
            feature = block(feature)
            if index in self.tapped:
                tapped.append(feature)
        middle = add(feature, self.latlayer1(tapped[1]))
        fine = add(middle, self.latlayer2(tapped[0]))
        return torch.stack([
            head(feature if i < COARSE else middle if i < MIDDLE else fine)
            for i, head in enumerate(self.styles)], 1)
