"""GFP-GAN's generator: a U-Net that modulates half of StyleGAN2's features."""
import torch
import torch.nn.functional as F
from mmagic.models.editors.stylegan1 import Blur
from mmagic.models.editors.stylegan2.stylegan2_modules import ModulatedToRGB
from mmagic.registry import MODELS
from torch import nn

from ...utils.validation import check_bool
from .fixed_size_net import FixedSizeNet
from .style_conv import StyleConv
from .stylegan2_prior import StyleGAN2Prior, log2_of, prior_channels


class BilinearStyleConv(StyleConv):
    """A style convolution that enlarges bilinearly before it, instead of by a transposed one."""

    def __init__(self, *args, upsample=False, **kwargs):
        super().__init__(*args, upsample=False, **kwargs)
        self.enlarges = upsample

    def forward(self, x, style, **kwargs):
        """As ModulatedStyleConv."""
        if self.enlarges:
            x = F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)
        return super().forward(x, style, **kwargs)


class BilinearToRGB(ModulatedToRGB):
    """The image so far is enlarged bilinearly too."""

    def __init__(self, *args, upsample=True, **kwargs):
        super().__init__(*args, upsample=False, **kwargs)
        if upsample:
            self.upsample = nn.Upsample(scale_factor=2, mode='bilinear', align_corners=False)


class BilinearStyleGAN2Prior(StyleGAN2Prior):
    """The "clean" StyleGAN2 of GFP-GAN 1.2 to 1.4, whose resampling is bilinear."""

    conv_type = BilinearStyleConv
    rgb_type = BilinearToRGB


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut, all of which change the size.

    Args:
        in_channels, out_channels (int): Widths.
        mode (str): 'up' or 'down' (bilinear by 2), or 'fir' (down, StyleGAN2's filter).
    """

    def __init__(self, in_channels, out_channels, mode):
        super().__init__()
        stride, padding = (2, 0) if mode == 'fir' else (1, 1)
        self.scale = dict(up=2, down=0.5, fir=None)[mode]
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, 1, 1)
        self.conv2 = nn.Conv2d(in_channels, out_channels, 3, stride, padding)
        self.skip = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        if mode == 'fir':
            self.blur2, self.blur_skip = Blur([1, 3, 3, 1], (2, 2)), Blur([1, 3, 3, 1], (1, 1))

    def _resize(self, x, blur):
        if self.scale is None:
            return getattr(self, blur)(x)
        return F.interpolate(x, scale_factor=self.scale, mode='bilinear', align_corners=False)

    def forward(self, x):
        """(N, in_channels, H, W) -> (N, out_channels, 2H, 2W) or half as large."""
        out = F.leaky_relu(self.conv1(x), 0.2)
        out = F.leaky_relu(self.conv2(self._resize(out, 'blur2')), 0.2)
        return out + self.skip(self._resize(x, 'blur_skip'))


@MODELS.register_module()
class GFPGANNet(FixedSizeNet):
    """GFP-GAN (Wang et al., CVPR 2021) as a super-resolver.

    The LR is enlarged to net_size. A U-Net gives one latent per layer of StyleGAN2, and
    a gain and a shift for half of the features of each resolution. With the defaults this is the
    published network of versions 1.2 to 1.4; the paper's own, version 1, has ``fir=True,
    channel_multiplier=1``. See tools/model_converters/table3_to_mmpd.py for their checkpoints.

    The official code draws noise anew for every image; here it is the stored one.

    Args:
        in_size (int): Side of the LR image.
        out_size (int): Side of the output.
        net_size (int): Side at which the network works, a power of two of at least 8.
        style_channels, num_mlps, channel_multiplier, channels: See :class:`StyleGAN2Prior`.
            The U-Net is half as wide.
        fir (bool): Resample with StyleGAN2's filter, in the prior and on the U-Net's way down.
        freeze_prior (bool): Do not train the prior, as GFP-GAN does not.
        in_kernel, out_kernel: See :class:`FixedSizeNet`.
        init_cfg (dict, optional): See ``BaseModule``.

    Raises:
        ValueError: for sizes that do not fit each other.

    Example:
        >>> import torch
        >>> from mmpd.models.generators import GFPGANNet
        >>> network = GFPGANNet(
        ...     in_size=8, out_size=16, net_size=16, style_channels=8, num_mlps=1,
        ...     channels={4: 8, 8: 8, 16: 8})
        >>> with torch.no_grad():
        ...     image = network(torch.rand(1, 3, 8, 8) * 2 - 1)
        >>> tuple(image.shape)
        (1, 3, 16, 16)
    """

    def __init__(self, in_size, out_size, net_size=512, style_channels=512, num_mlps=8,
                 channel_multiplier=2, channels=None, fir=False, freeze_prior=True,
                 in_kernel='bilinear', out_kernel='bicubic', init_cfg=None):
        levels = log2_of(net_size, 'net_size')
        super().__init__(in_size, out_size, net_size, net_size, in_kernel, out_kernel, init_cfg)
        self.style_channels = style_channels
        check_bool(fir, 'fir')
        check_bool(freeze_prior, 'freeze_prior')
        prior = StyleGAN2Prior if fir else BilinearStyleGAN2Prior
        self.generator = prior(net_size, style_channels, num_mlps,
                               channels=prior_channels(channel_multiplier, channels),
                               norm_eps=1e-8)
        width = {res: channels // 2 for res, channels in self.generator.channels.items()}
        sizes = [2**level for level in range(2, levels + 1)]
        self.first = nn.Conv2d(3, width[net_size], 1)
        self.down = nn.ModuleList(
            ResidualBlock(width[res], width[res // 2], 'fir' if fir else 'down')
            for res in sizes[:0:-1])
        self.last = nn.Conv2d(width[4], width[4], 3, 1, 1)
        self.to_latents = nn.Linear(16 * width[4], self.generator.num_latents * style_channels)
        self.up = nn.ModuleList(
            ResidualBlock(width[res // 2], width[res], 'up') for res in sizes[1:])
        self.gains, self.shifts = (nn.ModuleList(
            nn.Sequential(nn.Conv2d(width[res], width[res], 3, 1, 1), nn.LeakyReLU(0.2),
                          nn.Conv2d(width[res], width[res], 3, 1, 1))
            for res in sizes[1:]) for _ in range(2))
        self.generator.freeze(everything=freeze_prior)

    def restore(self, image):
        """(N, 3, net_size, net_size) -> the same shape, in [-1, 1]."""
        feature, skips, conditions = F.leaky_relu(self.first(image), 0.2), [], {}
        for block in self.down:
            feature = block(feature)
            skips.append(feature)
        feature = F.leaky_relu(self.last(feature), 0.2)
        latents = self.to_latents(feature.flatten(1)).view(len(image), -1, self.style_channels)
        for block, gain, shift in zip(self.up, self.gains, self.shifts, strict=True):
            feature = block(feature + skips.pop())
            conditions[feature.shape[-1]] = gain(feature), shift(feature)

        def modulate(res, features):
            gain, shift = conditions[res]
            same, half = features.split([features.shape[1] - gain.shape[1], gain.shape[1]], 1)
            return torch.cat([same, half * gain + shift], 1)

        return self.generator.synthesis(latents, modulate=modulate).rgb
