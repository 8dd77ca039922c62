"""pSp as a super-resolver: latents of StyleGAN2 for an LR image."""
import torch
from mmagic.registry import MODELS

from ...utils.validation import (
    MOST_CHANNELS,
    MOST_LAYERS,
    check_bool,
    check_positive_int,
    check_sequence,
    refuse,
)
from ..settings import check_init_cfg
from .fixed_size_net import FixedSizeNet
from .psp_encoder import GradualStyleEncoder
from .stylegan2_prior import StyleGAN2Prior, log2_of


@MODELS.register_module()
class PSPNet(FixedSizeNet):
    """pixel2style2pixel (Richardson et al., CVPR 2021) as a super-resolver.

    The LR is enlarged to encoder_size and encoded into one latent per layer of StyleGAN2,
    counted from its average latent. No feature of the image reaches the prior, so what the
    latents cannot say is lost; the prior is not trained. See
    tools/model_converters/table3_to_mmpd.py for the official checkpoint.

    Args:
        in_size (int): Side of the LR image.
        out_size (int): Side of the output.
        prior_size (int): Side of the prior's image, a power of two of at least 32.
        encoder_size (int): Side of the encoder's image, a power of two of at least 32.
        encoder_channels, encoder_depths (Sequence[int]): See :class:`GradualStyleEncoder`.
        style_channels, num_mlps, channel_multiplier, channels, blur_kernel, lr_mlp, bgr2rgb:
            See :class:`StyleGAN2Prior`.
        freeze_prior (bool): Do not train the prior, as pSp does not.
        in_kernel, out_kernel: See :class:`FixedSizeNet`.
        prior_init_cfg (dict, optional): ``init_cfg`` of the prior.
        init_cfg (dict, optional): See ``BaseModule``.

    Raises:
        ValueError: for sizes that do not fit each other.

    Example:
        >>> import torch
        >>> from mmpd.models.generators import PSPNet
        >>> network = PSPNet(
        ...     in_size=8, out_size=32, prior_size=32, encoder_size=32, num_mlps=1,
        ...     style_channels=8, channels={4: 8, 8: 8, 16: 8, 32: 8},
        ...     encoder_channels=(4, 4, 6, 8), encoder_depths=(1, 1, 1, 1)).eval()
        >>> with torch.no_grad():
        ...     image = network(torch.rand(1, 3, 8, 8) * 2 - 1)
        >>> tuple(image.shape)
        (1, 3, 32, 32)
    """

    def __init__(self, in_size, out_size, prior_size=1024, encoder_size=256,
                 encoder_channels=(64, 64, 128, 256), encoder_depths=(3, 4, 14, 3),
                 style_channels=512, num_mlps=8, channel_multiplier=2, channels=None,
                 blur_kernel=(1, 3, 3, 1), lr_mlp=0.01, bgr2rgb=False, freeze_prior=True,
                 in_kernel='bilinear', out_kernel='bicubic', prior_init_cfg=None, init_cfg=None):
        for name, size in (('prior_size', prior_size), ('encoder_size', encoder_size)):
            if log2_of(size, name) < 5:
                refuse(name, 'a power of two of at least 32', size)
        for name, counts, most in (('encoder_channels', encoder_channels, MOST_CHANNELS),
                                   ('encoder_depths', encoder_depths, MOST_LAYERS)):
            check_sequence(counts, name, check_positive_int, lengths=(4,), most=most)
        check_bool(freeze_prior, 'freeze_prior')
        check_init_cfg(prior_init_cfg, 'prior_init_cfg')
        super().__init__(in_size, out_size, encoder_size, prior_size, in_kernel, out_kernel,
                         init_cfg)
        self.generator = StyleGAN2Prior(
            prior_size, style_channels, num_mlps, channel_multiplier, channels,
            blur_kernel=blur_kernel, lr_mlp=lr_mlp, norm_eps=1e-8, bgr2rgb=bgr2rgb,
            init_cfg=prior_init_cfg)
        self.encoder = GradualStyleEncoder(
            self.generator.num_latents, encoder_size, style_channels, encoder_channels,
            encoder_depths)
        self.register_buffer('latent_avg', torch.zeros(self.generator.num_latents, style_channels))
        self.generator.freeze(everything=freeze_prior)

    def restore(self, image):
        """(N, 3, encoder_size, encoder_size) -> (N, 3, prior_size, prior_size), in [-1, 1]."""
        return self.generator.synthesis(self.encoder(image) + self.latent_avg).rgb
