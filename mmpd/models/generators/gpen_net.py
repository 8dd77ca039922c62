"""GPEN's generator: a StyleGAN2 that concatenates an encoder's features where it had noise."""
import torch
from mmagic.models.editors.stylegan1 import EqualLinearActModule, NoiseInjection
from mmagic.models.editors.stylegan2.stylegan2_modules import ConvDownLayer, ModulatedStyleConv
from mmagic.registry import MODELS
from torch import nn

from ...utils.validation import MOST_CHANNELS, check_number
from .fixed_size_net import FixedSizeNet
from .stylegan2_prior import StyleGAN2Prior, check_widths, log2_of, prior_channels


class ConcatenatedNoise(NoiseInjection):
    """Puts weighted features beside the image's instead of adding noise to them."""

    def forward(self, image, noise=None, return_noise=False):
        """(N, C, H, W) twice -> (N, 2C, H, W)."""
        return torch.cat([image, self.weight.to(image.dtype) * noise.to(image.dtype)], 1)


class ConcatenatingConv(ModulatedStyleConv):
    """A style convolution that gives twice its width: its own features and an encoder's."""

    def __init__(self, in_channels, out_channels, *args, **kwargs):
        super().__init__(in_channels, out_channels, *args, **kwargs)
        self.noise_injector = ConcatenatedNoise()
        self.activate = type(self.activate)(2 * out_channels)


class GPENPrior(StyleGAN2Prior):
    """The prior of :class:`GPENNet`. ``noises`` are features, (N, width, H, W) per layer."""

    conv_type = ConcatenatingConv
    widening = 2
    stores_noise = False


@MODELS.register_module()
class GPENNet(FixedSizeNet):
    """GPEN (Yang et al., CVPR 2021) as a super-resolver.

    The LR is enlarged to net_size and encoded down to 4 x 4. Features of each resolution
    go into both convolutions of the prior at that resolution; the last ones give a z for its
    mapping network. With the defaults this is the published GPEN-BFR-512; GPEN-BFR-1024 has
    ``net_size=1024``, GPEN-BFR-256 ``net_size=256, channel_multiplier=1, narrow=0.5``. See
    tools/model_converters/table3_to_mmpd.py for their checkpoints.

    Args:
        in_size (int): Side of the LR image.
        out_size (int): Side of the output.
        net_size (int): Side at which the network works, a power of two.
        style_channels, num_mlps, channel_multiplier, channels, blur_kernel, lr_mlp:
            See :class:`StyleGAN2Prior`.
        narrow (float): Factor on all widths.
        in_kernel, out_kernel: See :class:`FixedSizeNet`.
        init_cfg (dict, optional): See ``BaseModule``.

    Raises:
        ValueError: for sizes that do not fit each other.

    Example:
        >>> import torch
        >>> from mmpd.models.generators import GPENNet
        >>> network = GPENNet(
        ...     in_size=8, out_size=16, net_size=16, style_channels=8, num_mlps=1,
        ...     channels={4: 8, 8: 8, 16: 8})
        >>> with torch.no_grad():
        ...     image = network(torch.rand(1, 3, 8, 8) * 2 - 1)
        >>> tuple(image.shape)
        (1, 3, 16, 16)
    """

    def __init__(self, in_size, out_size, net_size=512, style_channels=512, num_mlps=8,
                 channel_multiplier=2, narrow=1, channels=None, blur_kernel=(1, 3, 3, 1),
                 lr_mlp=0.01, in_kernel='bilinear', out_kernel='bicubic', init_cfg=None):
        levels = log2_of(net_size, 'net_size')
        super().__init__(in_size, out_size, net_size, net_size, in_kernel, out_kernel, init_cfg)
        width = {**prior_channels(channel_multiplier), 2048: 8 * channel_multiplier}
        check_number(narrow, 'narrow', above=0, most=MOST_CHANNELS)
        width = {res: int(channels * narrow) for res, channels in width.items()}
        self.generator = GPENPrior(
            net_size, style_channels, num_mlps, channels={**width, **check_widths(channels)},
            blur_kernel=blur_kernel, lr_mlp=lr_mlp, norm_eps=1e-8)
        width = self.generator.channels
        self.encoder = nn.ModuleList([ConvDownLayer(3, width[net_size], 1)])
        for res in (2**level for level in range(levels, 2, -1)):
            self.encoder.append(ConvDownLayer(
                width[res], width[res // 2], 3, downsample=True, blur_kernel=list(blur_kernel)))
        self.final_linear = EqualLinearActModule(
            16 * width[4], style_channels, act_cfg=dict(type='fused_bias'))

    def restore(self, image):
        """(N, 3, net_size, net_size) -> the same shape, in [-1, 1]."""
        features, feature = [], image
        for index, block in enumerate(self.encoder):
            feature = block(feature)
            features = [feature] * (2 if index < len(self.encoder) - 1 else 1) + features
        latents = self.generator.map(self.final_linear(feature))
        return self.generator.synthesis(latents, features).rgb
