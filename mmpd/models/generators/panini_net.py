"""Panini-Net's generator, for any sizes, with a learned or a degradation-aware interpolation."""
import torch
from mmagic.registry import MODELS
from mmengine.model import BaseModule
from torch import nn

from ...utils.model import check_part
from ...utils.validation import MOST_CHANNELS, check_positive_int, optional, refuse
from .glean_net import check_encoder, check_lr, check_sizes
from .rrdb_trunk import RRDBTrunk
from .stylegan2_prior import StyleGAN2Prior, log2_of


class SharedCBAM(nn.Module):
    """Channel and spatial attention (Woo et al. 2018) with one convolution before both gates.

    Args:
        channels (int): Of input and output.
        reduction (int): Of the width inside the channel gate.
    """

    def __init__(self, channels, reduction):
        super().__init__()
        narrow = max(channels // reduction, 1)
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1)
        self.channel_gate = nn.Sequential(
            nn.Linear(channels, narrow), nn.ReLU(), nn.Linear(narrow, channels))
        self.spatial_gate = nn.Sequential(
            nn.Conv2d(2, 1, 7, 1, 3, bias=False), nn.BatchNorm2d(1, momentum=0.01))

    def forward(self, x):
        """(N, C, H, W) -> the same shape."""
        x = self.conv(x)
        gate = self.channel_gate(x.mean((2, 3))) + self.channel_gate(x.amax((2, 3)))
        x = self.conv(x * gate.sigmoid()[..., None, None])
        gate = self.spatial_gate(torch.cat([x.amax(1, True), x.mean(1, True)], 1))
        return x * gate.sigmoid()


@MODELS.register_module()
class PaniniNet(BaseModule):
    """Panini-Net (Wang et al., AAAI 2022): features of a prior and of an encoder, interpolated.

    At every resolution up to ``fuse_size`` the prior's features become
    m1·features + m2·conv(encoder's features), m1 + m2 = 1 per channel. The weights
    come from a learned vector (the published SR variant), or from a representation
    of the LR's degradation (MFR variant, with ``degradation_encoder``).

    With the defaults and 64 -> 1024 this is the published SR network; see
    tools/model_converters/panini_to_mmpd.py for its checkpoints.

    Args:
        in_size (int): Side of the LR image, a power of two of at least 4.
        out_size (int): Side of the output, a larger power of two.
        img_channels (int): Channels of the LR image.
        rrdb_channels, num_rrdbs, growth_channels (int): RRDB trunk of the encoder.
        style_channels, num_mlps, channel_multiplier, channels, blur_kernel, lr_mlp,
            fp16_enabled, bgr2rgb: See :class:`StyleGAN2Prior`.
        reduction (int): Of the attention behind the RRDBs.
        fuse_size (int, optional): Largest resolution at which features meet. Smaller than
            in_size, the encoder first halves the image down to it. Defaults to in_size.
        stem_channels (int): Width at in_size if fuse_size is smaller, doubled at each halving.
        latent_channels (int): Width before the linear layer that gives the latents.
        representation_channels (int): Width of the learned vector.
        degradation_encoder (dict, optional): Config of a :class:`DegradationEncoder`.
        freeze_prior (bool): Do not train the prior; Panini trains it.
        with_cp (bool): Activation checkpointing of encoder and prior: less memory in training, more
            time, the same gradients.
        default_style_mode, eval_style_mode, mix_prob: Accepted for configs of
            ``GLEANStyleGANv2``, where they have no effect either.
        init_cfg (dict, optional): ``dict(type='Pretrained', ...)`` is the checkpoint of the prior.

    Raises:
        ValueError: for sizes that are no powers of two, in_size >= out_size, or
            fuse_size > in_size.

    Example:
        >>> import torch
        >>> from mmpd.models.generators import PaniniNet
        >>> network = PaniniNet(
        ...     in_size=8, out_size=16, style_channels=8, num_mlps=1, channels={4: 8, 8: 8, 16: 8},
        ...     rrdb_channels=4, num_rrdbs=1, growth_channels=4)
        >>> with torch.no_grad():
        ...     image = network(torch.rand(1, 3, 8, 8) * 2 - 1)
        >>> tuple(image.shape)
        (1, 3, 16, 16)
    """

    def __init__(self, in_size, out_size, img_channels=3, rrdb_channels=64, num_rrdbs=23,
                 style_channels=512, num_mlps=8, channel_multiplier=2, blur_kernel=(1, 3, 3, 1),
                 lr_mlp=0.01, default_style_mode='mix', eval_style_mode='single', mix_prob=0.9,
                 init_cfg=None, fp16_enabled=False, bgr2rgb=False, channels=None,
                 growth_channels=32, reduction=8, fuse_size=None, stem_channels=32,
                 latent_channels=256, representation_channels=256, degradation_encoder=None,
                 freeze_prior=False, with_cp=False):
        super().__init__()
        check_sizes(in_size, out_size)
        check_encoder(img_channels, rrdb_channels, num_rrdbs, growth_channels, default_style_mode,
                      eval_style_mode, mix_prob, freeze_prior, with_cp)
        for name, value in (('reduction', reduction), ('stem_channels', stem_channels),
                            ('latent_channels', latent_channels),
                            ('representation_channels', representation_channels)):
            check_positive_int(value, name, most=MOST_CHANNELS)
        optional(check_part, degradation_encoder, 'degradation_encoder')
        self.in_size, self.out_size, self.style_channels = in_size, out_size, style_channels
        self.fuse_size = in_size if fuse_size is None else fuse_size
        levels = log2_of(self.fuse_size, 'fuse_size') - 1
        if self.fuse_size > in_size:
            refuse('fuse_size', f'at most in_size={in_size}', fuse_size)
        self.generator = StyleGAN2Prior(
            out_size, style_channels, num_mlps, channel_multiplier, channels,
            out_channels=3, blur_kernel=blur_kernel, lr_mlp=lr_mlp, fp16_enabled=fp16_enabled,
            bgr2rgb=bgr2rgb, init_cfg=init_cfg, with_cp=with_cp)
        # from 4 px up: fusion_out[0] works at 4 px, as in the published network, which creates
        # its convolutions from 64 px down but uses them from 4 px up (all are 512 wide)
        self.widths = [self.generator.channels[2**(level + 2)] for level in range(levels)]

        self.encoder = nn.ModuleList([self._stem(
            img_channels, rrdb_channels, num_rrdbs, growth_channels, reduction, stem_channels,
            with_cp)])
        for wide, narrow in zip(self.widths[:0:-1], self.widths[-2::-1], strict=True):
            self.encoder.append(self._conv(wide, narrow, stride=2))
        self.encoder.append(nn.Sequential(
            *self._conv(self.widths[0], latent_channels),
            nn.Flatten(),
            nn.Linear(16 * latent_channels, self.generator.num_latents * style_channels)))

        if degradation_encoder is None:
            self.degradation_encoder = None
            self.vector = nn.Parameter(torch.randn(1, representation_channels))
        else:
            self.degradation_encoder = MODELS.build(degradation_encoder)
            representation_channels = self.degradation_encoder.out_channels
        self.mask_generator = nn.Sequential(
            nn.Linear(representation_channels, representation_channels),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Linear(representation_channels, 2 * sum(self.widths)))
        self.fusion_out = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for width in self.widths)
        self.generator.freeze(everything=freeze_prior)

    @staticmethod
    def _conv(in_channels, out_channels, stride=1):
        return nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, 1), nn.LeakyReLU(0.2, inplace=True))

    def _stem(self, img_channels, rrdb_channels, num_rrdbs, growth_channels, reduction, width,
              with_cp):
        halvings = log2_of(self.in_size, 'in_size') - log2_of(self.fuse_size, 'fuse_size')
        widths = [width * 2**index for index in range(halvings)] + [self.widths[-1]]
        layers = [RRDBTrunk(img_channels, rrdb_channels, num_rrdbs, growth_channels, with_cp),
                  SharedCBAM(rrdb_channels, reduction),
                  *self._conv(rrdb_channels, widths[0])]
        for before, after in zip(widths[:-1], widths[1:], strict=True):
            layers += self._conv(before, after, stride=2)
        return nn.Sequential(*layers)

    def masks(self, lr):
        """Weights of the prior's and the encoder's features at 4, 8, ..., fuse_size.

        Args:
            lr (Tensor): (N, img_channels, in_size, in_size).

        Returns:
            list[tuple[Tensor, Tensor]]: m1 and m2, (N or 1, C, 1, 1) each, m1 + m2 = 1.
        """
        encoder = self.degradation_encoder
        representation = self.vector if encoder is None else encoder(lr)
        flat = self.mask_generator(representation)
        pairs = flat.split([2 * width for width in self.widths], 1)
        return [pair.unflatten(1, (2, -1)).softmax(1)[..., None, None].unbind(1) for pair in pairs]

    def forward(self, lr):
        """Super-resolve.

        Args:
            lr (Tensor): (N, img_channels, in_size, in_size).

        Returns:
            Tensor: (N, 3, out_size, out_size).

        Raises:
            ValueError: for another size.
        """
        check_lr(lr, self.in_size)
        masks, encoded, feature = self.masks(lr), [], lr
        for block in self.encoder[:-1]:
            feature = block(feature)
            encoded.insert(0, feature)
        latents = self.encoder[-1](feature).view(len(lr), -1, self.style_channels)

        def fuse(res, out, rgb):
            if res <= self.fuse_size:
                level = log2_of(res, 'resolution') - 2
                of_prior, of_encoder = masks[level]
                out = of_prior * out + of_encoder * self.fusion_out[level](encoded[level])
            return out, rgb

        return self.generator.synthesis(latents, fuse=fuse).rgb
