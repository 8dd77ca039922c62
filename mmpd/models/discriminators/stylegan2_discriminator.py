"""MMagic's StyleGAN2 discriminator, which needs less memory in training."""
from mmagic.models.editors.stylegan1 import Blur
from mmagic.models.editors.stylegan2 import StyleGAN2Discriminator as MMagicDiscriminator
from mmagic.models.editors.stylegan2.stylegan2_modules import ConvDownLayer
from mmagic.registry import MODELS
from torch import nn

from ...utils.validation import check_bool
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
        args, kwargs: As MMagic's.
        with_cp (bool): Activation checkpointing: compute each block again in the backward pass.

    Example:
        >>> import torch
        >>> from mmpd.models.discriminators import StyleGAN2Discriminator
        >>> discriminator = StyleGAN2Discriminator(8, with_cp=True)
        >>> discriminator(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 1])
    """

    def __init__(self, *args, with_cp=False, **kwargs):
        super().__init__(*args, **kwargs)
        check_bool(with_cp, 'with_cp')
        if with_cp:
            self.convs = CheckpointedSequential(*self.convs)
            return
        for layer in self.convs.modules():
            if isinstance(layer, ConvDownLayer) and isinstance(layer[0], Blur):
                layer.__class__ = BlurredConvDownLayer  # MMagic's blocks build their own layers
