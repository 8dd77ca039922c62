"""GLEAN's generator, for any width, without idle computation."""
from mmagic.models.archs import PixelShufflePack
from mmagic.registry import MODELS
from mmengine.model import BaseModule
from torch import nn

from ...utils.validation import (
    MOST_CHANNELS,
    MOST_LAYERS,
    ArgumentError,
    check_bool,
    check_choice,
    check_number,
    check_positive_int,
    refuse,
)
from ..recompute import recomputed, remade
from .rrdb_trunk import RRDBTrunk, concatenate
from .stylegan2_prior import StyleGAN2Prior, log2_of

STYLE_MODES = ('mix', 'single')


def check_sizes(in_size, out_size):
    """Raise ValueError unless both are powers of two and in_size < out_size."""
    log2_of(in_size, 'in_size')
    log2_of(out_size, 'out_size')
    if in_size >= out_size:
        refuse('in_size', f'a smaller number than out_size={out_size}', in_size)


def check_encoder(img_channels, rrdb_channels, num_rrdbs, growth_channels, default_style_mode,
                  eval_style_mode, mix_prob, freeze_prior, with_cp):
    """Raise ValueError for the first wrong argument of those that all networks with RRDBs have."""
    for name, value in (('img_channels', img_channels), ('rrdb_channels', rrdb_channels),
                        ('growth_channels', growth_channels)):
        check_positive_int(value, name, most=MOST_CHANNELS)
    check_positive_int(num_rrdbs, 'num_rrdbs', least=0, most=MOST_LAYERS)
    check_choice(default_style_mode, 'default_style_mode', STYLE_MODES)
    check_choice(eval_style_mode, 'eval_style_mode', STYLE_MODES)
    check_number(mix_prob, 'mix_prob', least=0, most=1)
    check_bool(freeze_prior, 'freeze_prior')
    check_bool(with_cp, 'with_cp')


def check_lr(lr, in_size):
    """Raise ValueError unless ``lr`` is (N, C, in_size, in_size)."""
    if lr.ndim != 4 or lr.shape[2:] != (in_size, in_size):
        raise ArgumentError(f'LR: expected shape (N, C, {in_size}, {in_size}), as in_size='
                            f'{in_size}, got {tuple(lr.shape)}. Resize or crop the LR, or use a '
                            'model with another in_size.')


@MODELS.register_module()
class GLEANNet(BaseModule):
    """GLEAN (Chan et al., CVPR 2021), drop-in for MMagic's ``GLEANStyleGANv2``.

    Same arguments, same state-dict keys, same output. Besides: free channel
    widths, the RGB path of the prior is computed only when it is the output,
    parameters that never reach the output do not require gradients (so DDP needs
    no ``find_unused_parameters``), and the pretrained prior really loads.

    Args:
        in_size (int): Side of the LR image, a power of two of at least 4.
        out_size (int): Side of the output, a larger power of two.
        img_channels (int): Channels of both images.
        rrdb_channels (int): Width of the RRDB features.
        num_rrdbs (int): RRDB blocks in the encoder.
        growth_channels (int): Growth inside the RRDB blocks.
        style_channels, num_mlps, channel_multiplier, channels, blur_kernel, lr_mlp,
            fp16_enabled, bgr2rgb: See :class:`StyleGAN2Prior`.
        decoder (bool): False: no decoder, the output is the prior's RGB image.
        freeze_prior (bool): Do not train the prior, as GLEAN does.
        with_cp (bool): Activation checkpointing of encoder, prior and decoder: half the memory in
            training, a quarter more time, the same gradients.
        default_style_mode, eval_style_mode, mix_prob: Accepted for configs of
            ``GLEANStyleGANv2``, where they have no effect either.
        init_cfg (dict, optional): ``dict(type='Pretrained', ...)`` is the checkpoint of the prior.

    Raises:
        ValueError: for sizes that are no powers of two, or in_size >= out_size.

    Example:
        >>> import torch
        >>> from mmpd.models.generators import GLEANNet
        >>> network = GLEANNet(
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
                 growth_channels=32, decoder=True, freeze_prior=True, with_cp=False):
        super().__init__()
        check_sizes(in_size, out_size)
        check_encoder(img_channels, rrdb_channels, num_rrdbs, growth_channels, default_style_mode,
                      eval_style_mode, mix_prob, freeze_prior, with_cp)
        check_bool(decoder, 'decoder')
        self.in_size, self.out_size, self.style_channels = in_size, out_size, style_channels
        self.with_cp = with_cp
        self.generator = StyleGAN2Prior(
            out_size, style_channels, num_mlps, channel_multiplier, channels,
            out_channels=3, blur_kernel=blur_kernel, lr_mlp=lr_mlp, fp16_enabled=fp16_enabled,
            bgr2rgb=bgr2rgb, init_cfg=init_cfg, with_cp=with_cp)
        width = self.generator.channels
        fused = [2**i for i in range(2, log2_of(in_size, 'in_size') + 1)]

        self.encoder = nn.ModuleList([nn.Sequential(
            RRDBTrunk(img_channels, rrdb_channels, num_rrdbs, growth_channels, with_cp),
            nn.Conv2d(rrdb_channels, width[in_size], 3, 1, 1),
            nn.LeakyReLU(0.2, inplace=True))])
        for res in fused[:0:-1]:
            self.encoder.append(nn.Sequential(
                nn.Conv2d(width[res], width[res // 2], 3, 2, 1),
                nn.LeakyReLU(0.2, inplace=True),
                nn.Conv2d(width[res // 2], width[res // 2], 3, 1, 1),
                nn.LeakyReLU(0.2, inplace=True)))
        self._add_latent_head(width[4])

        self.fusion_out = nn.ModuleList(
            nn.Conv2d(2 * width[res], width[res], 3, 1, 1) for res in fused)
        self.fusion_skip = nn.ModuleList(nn.Conv2d(width[res] + 3, 3, 3, 1, 1) for res in fused)
        self.decoder = self._make_decoder(width, img_channels) if decoder else None
        self._freeze(freeze_prior)

    def _add_latent_head(self, width):
        self.encoder.append(nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Flatten(),
            nn.Linear(16 * width, self.generator.num_latents * self.style_channels)))

    def _make_decoder(self, width, img_channels):
        blocks, res = nn.ModuleList(), self.in_size
        while res <= self.out_size:
            in_channels = width[res] * (1 if res == self.in_size else 2)
            if res < self.out_size:
                blocks.append(PixelShufflePack(in_channels, width[2 * res], 2, upsample_kernel=3))
            else:
                blocks.append(nn.Sequential(
                    nn.Conv2d(in_channels, 64, 3, 1, 1),
                    nn.LeakyReLU(0.2, inplace=True),
                    nn.Conv2d(64, img_channels, 3, 1, 1)))
            res *= 2
        return blocks

    def _idle_modules(self):
        """What never reaches the output."""
        idle = [self.generator.style_mapping]
        if self.decoder is not None:
            idle += [self.fusion_skip, self.generator.to_rgb1, self.generator.to_rgbs]
        return idle

    def _freeze(self, freeze_prior):
        """No gradients for the prior if frozen, nor for what never reaches the output."""
        for module in self._idle_modules() + [self.generator] * freeze_prior:
            module.requires_grad_(False)

    def encode(self, lr):
        """Encoder features by resolution, in_size down to 4, and the output of the last block."""
        check_lr(lr, self.in_size)
        features, feature = {}, lr
        for block in self.encoder[:-1]:
            feature = block(feature)
            features[feature.shape[-1]] = feature
        return features, self.encoder[-1](feature)

    def synthesise(self, latents, encoded):
        """Run the prior with the encoder's features fused in; RGB only without a decoder."""
        def fuse(res, out, rgb):
            if res > self.in_size:
                return out, rgb
            index = log2_of(res, 'resolution') - 2
            parts = dict(enabled=not self.with_cp)  # the prior computes all of this again
            out = remade(self.fusion_out[index], concatenate, out, encoded[res], **parts)
            if rgb is not None:
                rgb = rgb.to(encoded[res].dtype)  # the prior's is float32, whatever its weights
                rgb = remade(self.fusion_skip[index], concatenate, rgb, encoded[res], **parts)
            return out, rgb

        return self.generator.synthesis(latents, fuse=fuse, return_rgb=self.decoder is None)

    def forward(self, lr):
        """Super-resolve.

        Args:
            lr (Tensor): (N, img_channels, in_size, in_size).

        Returns:
            Tensor: (N, img_channels, out_size, out_size).

        Raises:
            ValueError: for another size.
        """
        encoded, latents = self.encode(lr)
        latents = latents.view(len(lr), -1, self.style_channels)
        synthesis = self.synthesise(latents, encoded)
        if self.decoder is None:
            return synthesis.rgb
        hr = encoded[self.in_size]
        for index, block in enumerate(self.decoder):
            parts = [hr, synthesis.features[hr.shape[-1]]] if index else [hr]
            if self.with_cp:
                hr = recomputed(lambda *parts, block=block: block(concatenate(*parts)), *parts)
            else:
                hr = remade(block, concatenate, *parts)
        return hr
