"""MMagic's StyleGAN2 discriminator, which needs less memory in training, of any width."""
import torch
from mmagic.models.editors.stylegan1 import Blur, EqualLinearActModule
from mmagic.models.editors.stylegan2 import StyleGAN2Discriminator as MMagicDiscriminator
from mmagic.models.editors.stylegan2.stylegan2_modules import ConvDownLayer, ResBlock
from mmagic.registry import MODELS
from torch import nn

from ...utils.validation import check_bool, refuse
from ..generators.stylegan2_prior import check_blur_kernel, log2_of, prior_channels
from ..recompute import recomputed, remade


class BlurredSequential(nn.Sequential):
    """A blur, a convolution, and what follows; the blurred features are not kept."""

    def forward(self, x):
        """(N, C, H, W) -> that of the last layer."""
        blur, conv, *rest = self
        x = remade(conv, blur, x)
        for layer in rest:
            x = layer(x)
        return x


class BlurredConvDownLayer(ConvDownLayer, BlurredSequential):
    """MMagic's ``ConvDownLayer``, as far as it halves the image."""


class CheckpointedSequential(nn.Sequential):
    """The discriminator's blocks, each computed again in the backward pass."""

    def forward(self, x):
        """(N, C, H, W) -> that of the last layer."""
        blocks = list(self)

        def first(x):  # with the layer before it: from there on features are larger than the image
            for block in blocks[:2]:
                x = block(x)
            return x

        for block in (first, *blocks[2:]):
            x = recomputed(block, x)
        return x


@MODELS.register_module(['StyleGAN2Discriminator', 'StyleGANv2Discriminator'], force=True)
class StyleGAN2Discriminator(MMagicDiscriminator):
    """MMagic's ``StyleGAN2Discriminator``, in its place in the registry.

    Same arguments, state-dict keys, output and gradients. Blurred features are not kept for the
    backward pass but made again, which costs next to nothing.

    Args:
        in_size, args, kwargs: As MMagic's.
        channels (dict[int, int], optional): Width at a resolution, in place of config-f's, as of
            :class:`mmpd.models.generators.StyleGAN2Prior`.
        with_cp (bool): Activation checkpointing: compute each block again in the backward pass.

    Raises:
        ValueError: with ``channels``, for a size that is no power of two up to 1024, and together
            with arguments for conditions and half precision.

    Example:
        >>> import torch
        >>> from mmpd.models.discriminators import StyleGAN2Discriminator
        >>> discriminator = StyleGAN2Discriminator(8, with_cp=True)
        >>> discriminator(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 1])
    """

    def __init__(self, in_size, *args, channels=None, with_cp=False, **kwargs):
        log2_of(in_size, 'in_size')
        if in_size > 1024:  # MMagic's own limit
            refuse('in_size', 'at most 1024', in_size)
        names = ('img_channels', 'channel_multiplier', 'blur_kernel', 'mbstd_cfg')
        options = dict(zip(names, args, strict=False), **kwargs)
        if 'blur_kernel' in options:
            check_blur_kernel(options['blur_kernel'])
        if channels is None:
            super().__init__(in_size, *args, **kwargs)
        else:
            width = self._check_widths(channels, options)
            with torch.device('meta'):  # its layers are of config-f's width: not worth making
                super().__init__(in_size, *args, **kwargs)
            self._set_widths(in_size, width, options)
        check_bool(with_cp, 'with_cp')
        if with_cp:
            self.convs = CheckpointedSequential(*self.convs)
            return
        for layer in self.convs.modules():
            if isinstance(layer, ConvDownLayer) and isinstance(layer[0], Blur):
                layer.__class__ = BlurredConvDownLayer  # MMagic's blocks build their own layers

    def forward(self, x, label=None):
        """MMagic's, and images in the precision of autocast are taken too.

        MMagic's first layer switches autocast off and does not cast its input, as all others do.

        Args:
            x (Tensor): (N, img_channels, in_size, in_size).
            label (Tensor, optional): As MMagic's.

        Returns:
            Tensor: (N, 1).
        """
        first = self.convs[0]
        if not first.fp16_enabled:
            x = x.to(next(first.parameters()).dtype)
        return super().forward(x, label)

    @staticmethod
    def _check_widths(channels, options):
        """The width of each resolution."""
        known = {'img_channels', 'channel_multiplier', 'blur_kernel', 'mbstd_cfg', 'input_bgr2rgb',
                 'init_cfg'}
        if options.keys() - known:
            refuse('channels', f'None together with {", ".join(sorted(options.keys() - known))}',
                   channels)
        return prior_channels(options.get('channel_multiplier', 2), channels)

    def _set_widths(self, in_size, width, options):
        """Make all layers anew, with these widths."""
        sizes = [2**i for i in range(log2_of(in_size, 'in_size'), 2, -1)]
        kernel = options.get('blur_kernel', [1, 3, 3, 1])
        self.convs = nn.Sequential(
            ConvDownLayer(options.get('img_channels', 3), width[in_size], 1),
            *(ResBlock(width[size], width[size // 2], kernel) for size in sizes))
        self.final_conv = ConvDownLayer(width[4] + 1, width[4], 3)
        self.final_linear = nn.Sequential(
            EqualLinearActModule(16 * width[4], width[4], act_cfg=dict(type='fused_bias')),
            EqualLinearActModule(width[4], 1))
