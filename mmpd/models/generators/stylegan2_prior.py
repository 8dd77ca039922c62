"""StyleGAN2 as a prior: MMagic's generator, its widths free, open to features of an encoder."""
from typing import NamedTuple

import torch
from mmagic.models.editors.pggan import PixelNorm
from mmagic.models.editors.stylegan1 import ConstantInput, EqualLinearActModule
from mmagic.models.editors.stylegan2.stylegan2_modules import ModulatedToRGB
from mmagic.registry import MODELS
from mmengine.model import BaseModule
from torch import nn

from ...utils.checkpoint import load_completely, pretrained_cfg
from ...utils.validation import (
    MOST_CHANNELS,
    MOST_LAYERS,
    check_bool,
    check_dict,
    check_number,
    check_positive_int,
    check_sequence,
    optional,
    refuse,
)
from ..recompute import recomputed
from ..settings import check_init_cfg
from .style_conv import StyleConv


class Synthesis(NamedTuple):
    """What :meth:`StyleGAN2Prior.synthesis` returns."""
    features: dict  # resolution -> (N, C, resolution, resolution)
    rgb: torch.Tensor  # (N, 3, out_size, out_size), or None if not asked for


def log2_of(size, name):
    """log2 of a power of two of at least 4, else ValueError."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 4 or size & (size - 1):
        refuse(name, 'a power of two of at least 4', size)
    if size > MOST_CHANNELS:
        refuse(name, f'at most {MOST_CHANNELS}', size)
    return size.bit_length() - 1


def check_widths(channels):
    """``channels`` (dict or None) as a dict, its keys resolutions and its values widths.

    Raises:
        ArgumentError: names the key that is no power of two, or the width that is none.
    """
    widths = {}
    for res, width in (optional(check_dict, channels, 'channels') or {}).items():
        # a config file may turn the keys into strings
        res = int(res) if isinstance(res, str) and res.isdecimal() else res
        log2_of(res, 'channels')
        widths[res] = check_positive_int(width, f'channels[{res}]', most=MOST_CHANNELS)
    return widths


def prior_channels(channel_multiplier=2, channels=None):
    """Width of each resolution: StyleGAN2 config-f, changed where ``channels`` says so."""
    check_positive_int(channel_multiplier, 'channel_multiplier', most=MOST_CHANNELS)
    widths = {4: 512, 8: 512, 16: 512, 32: 512}
    widths.update({res: 16384 // res * channel_multiplier for res in (64, 128, 256, 512, 1024)})
    widths.update(check_widths(channels))
    return widths


def check_blur_kernel(kernel):
    """``kernel`` as a list of numbers, else ArgumentError."""
    taps = check_sequence(kernel, 'blur_kernel', check_number)
    if not sum(taps):
        refuse('blur_kernel', 'numbers whose sum is not 0', kernel)
    if len(taps) % 2:  # MMagic's layers would pad height and width differently
        refuse('blur_kernel', 'an even number of values', kernel)
    return taps


@MODELS.register_module()
class StyleGAN2Prior(BaseModule):
    """Mapping and synthesis networks of StyleGAN2 (Karras et al. 2020).

    The state-dict keys are those of MMagic's ``StyleGANv2Generator``, so official
    OpenMMLab checkpoints load strictly (prefix ``generator_ema``). Given the same
    weights, latents and noise the images are the same. Under autocast the synthesis runs in
    the precision of its weights: MMagic's style layers switch autocast off themselves.

    Args:
        out_size (int): Power of two, at least 8.
        style_channels (int): Width of latents and of the mapping network.
        num_mlps (int): Layers of the mapping network.
        channel_multiplier (int): 2 for config-f.
        channels (dict[int, int], optional): Width at a resolution, in place of config-f's.
        noise_size (int, optional): Width of z. Defaults to ``style_channels``.
        out_channels (int): Of the image.
        blur_kernel (Sequence[int]): As in StyleGAN2, of an even length.
        lr_mlp (float): Learning rate multiplier of the mapping network.
        norm_eps (float): Of the normalisation of z.
        fp16_enabled (bool): Half precision convolutions (GPU only).
        bgr2rgb (bool): Flip the channels of the image.
        with_cp (bool): Activation checkpointing: in training, compute each resolution again in the
            backward pass, which needs less memory and more time. Gradients are the same.
        init_cfg (dict, optional): ``dict(type='Pretrained', checkpoint=..., prefix=...)`` is loaded
            by ``init_weights``, completely or with an error (see :func:`load_completely`).

    Raises:
        ValueError: if out_size is not a power of two of at least 8, or the width of a
            resolution is not known (above 1024).

    Example:
        >>> import torch
        >>> from mmpd.models.generators import StyleGAN2Prior
        >>> prior = StyleGAN2Prior(16, style_channels=8, num_mlps=1, channels={4: 8, 8: 8, 16: 8})
        >>> tuple(prior(torch.randn(2, 8)).shape)
        (2, 3, 16, 16)
    """

    # what a restorer's prior may have of its own
    conv_type = StyleConv
    rgb_type = ModulatedToRGB
    widening = 1  # of the features a convolution gives, in terms of its width
    stores_noise = True

    def __init__(self, out_size, style_channels=512, num_mlps=8, channel_multiplier=2,
                 channels=None, noise_size=None, out_channels=3, blur_kernel=(1, 3, 3, 1),
                 lr_mlp=0.01, norm_eps=1e-6, fp16_enabled=False, bgr2rgb=False, init_cfg=None,
                 with_cp=False):
        super().__init__(init_cfg=check_init_cfg(init_cfg))
        self.log_size = log2_of(out_size, 'out_size')
        if out_size < 8:
            refuse('out_size', 'at least 8', out_size)
        check_positive_int(style_channels, 'style_channels', most=MOST_CHANNELS)
        check_positive_int(out_channels, 'out_channels', most=MOST_CHANNELS)
        optional(check_positive_int, noise_size, 'noise_size', most=MOST_CHANNELS)
        check_positive_int(num_mlps, 'num_mlps', least=0, most=MOST_LAYERS)
        check_number(lr_mlp, 'lr_mlp', above=0)
        check_number(norm_eps, 'norm_eps', above=0)
        check_bool(fp16_enabled, 'fp16_enabled')
        check_bool(bgr2rgb, 'bgr2rgb')
        check_bool(with_cp, 'with_cp')
        self.out_size, self.style_channels = out_size, style_channels
        self.noise_size = noise_size or style_channels
        self.fp16_enabled, self.bgr2rgb, self.with_cp = fp16_enabled, bgr2rgb, with_cp
        self.channels = prior_channels(channel_multiplier, channels)
        missing = [2**i for i in range(2, self.log_size + 1) if 2**i not in self.channels]
        if missing:
            raise ValueError(f'channels: expected the width at {missing[0]} px for out_size='
                             f'{out_size}, got widths for {sorted(self.channels)}')
        blur_kernel = check_blur_kernel(blur_kernel)
        self.num_latents = 2 * self.log_size - 2
        self.num_injected_noises = self.num_latents - 1
        self.style_mapping = nn.Sequential(PixelNorm(eps=norm_eps), *(
            EqualLinearActModule(
                style_channels if index else self.noise_size, style_channels,
                equalized_lr_cfg=dict(lr_mul=lr_mlp, gain=1.), act_cfg=dict(type='fused_bias'))
            for index in range(num_mlps)))
        self._add_synthesis(out_channels, blur_kernel)
        for index in range(self.num_injected_noises if self.stores_noise else 0):
            size = 2**((index + 5) // 2)
            self.register_buffer(f'injected_noise_{index}', torch.randn(1, 1, size, size))

    def _add_synthesis(self, out_channels, blur_kernel):
        common = dict(style_channels=self.style_channels, fp16_enabled=self.fp16_enabled)
        width = self.channels[4]
        self.constant_input = ConstantInput(width)
        self.conv1 = self.conv_type(width, width, 3, blur_kernel=blur_kernel, **common)
        width *= self.widening
        self.to_rgb1 = self.rgb_type(width, out_channels=out_channels, upsample=False, **common)
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for exponent in range(3, self.log_size + 1):
            wider = self.channels[2**exponent]
            self.convs.append(self.conv_type(
                width, wider, 3, upsample=True, blur_kernel=blur_kernel, **common))
            width = wider * self.widening
            self.convs.append(self.conv_type(
                width, wider, 3, blur_kernel=blur_kernel, **common))
            self.to_rgbs.append(self.rgb_type(
                width, out_channels=out_channels, upsample=True, **common))

    def freeze(self, everything):
        """No gradients for all of it, or for the mapping network alone, which an encoder replaces.

        Args:
            everything (bool): Freeze the synthesis network too.
        """
        (self if everything else self.style_mapping).requires_grad_(False)

    def init_weights(self):
        """Load the pretrained checkpoint of ``init_cfg``, if there is one."""
        pretrained = pretrained_cfg(self.init_cfg)
        if pretrained and not self._is_init:
            load_completely(self, pretrained['checkpoint'], pretrained.get('prefix') or '')
            self._is_init = True
        else:
            super().init_weights()

    def map(self, z):
        """z (N, noise_size) -> w (N, num_latents, style_channels), the same for all layers."""
        if z.ndim != 2 or z.shape[1] != self.noise_size:
            raise ValueError(f'z: expected shape (N, {self.noise_size}), got {tuple(z.shape)}')
        return self.style_mapping(z).unsqueeze(1).expand(-1, self.num_latents, -1)

    def noises(self, randomize=False):
        """The stored noise images, or None per layer for fresh noise."""
        if randomize:
            return [None] * self.num_injected_noises
        return [getattr(self, f'injected_noise_{i}') for i in range(self.num_injected_noises)]

    def synthesis(self, latents, noises=None, fuse=None, return_rgb=True, modulate=None):
        """Run the synthesis network.

        Args:
            latents (Tensor): (N, num_latents, style_channels).
            noises (list, optional): One (1, 1, H, W) tensor, or None for fresh noise, per layer.
                Defaults to the stored ones.
            fuse (callable, optional): ``fuse(resolution, features, rgb)`` is called before each
                upsampling with the features and the RGB image so far (None if not asked for) and
                returns both, changed. This is where a restorer brings in its encoder.
            return_rgb (bool): Compute the RGB path.
            modulate (callable, optional): ``modulate(resolution, features)`` returns the features
                behind the first of the two convolutions of each resolution from 8 on, changed.

        Returns:
            Synthesis: Features of every resolution after its last convolution, before ``fuse``;
            and the image.
        """
        noises = self.noises() if noises is None else noises
        dtype = self.constant_input.input.dtype  # latents and fused features may be autocast's
        latents = latents.to(dtype)
        out = self.conv1(self.constant_input(latents), latents[:, 0], noise=noises[0])
        rgb = self.to_rgb1(out, latents[:, 1]) if return_rgb else None
        features = {4: out}

        def double(out, rgb, layer):
            if fuse is not None:
                out, rgb = (image if image is None else image.to(dtype)
                            for image in fuse(out.shape[-1], out, rgb))
            out = self.convs[layer - 1](out, latents[:, layer], noise=noises[layer])
            if modulate is not None:
                out = modulate(out.shape[-1], out)
            out = self.convs[layer](out, latents[:, layer + 1], noise=noises[layer + 1])
            if return_rgb:
                rgb = self.to_rgbs[layer // 2](out, latents[:, layer + 2], rgb)
            return out, rgb

        for layer in range(1, len(self.convs), 2):
            out, rgb = recomputed(double, out, rgb, layer, enabled=self.with_cp,
                                  random=any(noise is None for noise in noises))
            features[out.shape[-1]] = out
        if return_rgb and self.bgr2rgb:
            rgb = rgb.flip(1)
        return Synthesis(features, rgb)

    def forward(self, z, input_is_latent=False, injected_noise=None, randomize_noise=True,
                num_batches=1, return_noise=False, return_latents=False):
        """Generate images.

        MMagic's ``StyleGAN2`` model type can train it: it calls generators with these arguments.

        Args:
            z (Tensor, optional): (N, noise_size); with ``input_is_latent`` w, (N, style_channels)
                or (N, num_latents, style_channels). None: drawn from a standard normal.
            input_is_latent (bool): Skip the mapping network.
            injected_noise (list[Tensor], optional): See :meth:`synthesis`.
            randomize_noise (bool): Fresh noise; otherwise the stored one.
            num_batches (int): How many z are drawn.
            return_noise (bool): Return a dict with ``fake_img`` and ``noise_batch``, z.
            return_latents (bool): Return a dict with ``fake_img`` and ``latent``, w of each layer.

        Returns:
            Tensor | dict: (N, out_channels, out_size, out_size), or a dict with it.
        """
        if z is None:
            z = self.constant_input.input.new_empty(num_batches, self.noise_size).normal_()
        if not input_is_latent:
            latents = self.map(z)
        else:
            latents = z if z.ndim == 3 else z.unsqueeze(1).expand(-1, self.num_latents, -1)
        noises = injected_noise or self.noises(randomize_noise)
        image = self.synthesis(latents, noises).rgb
        if not (return_noise or return_latents):
            return image
        return dict(fake_img=image, noise_batch=z, latent=latents)
