"""StyleGAN1 (Karras et al. 2019), for inference: the prior of PULSE.

Layers are those of NVlabs' network, which MMagic's StyleGAN1 is not: noise is weighted per
channel, and a bias follows the blur. Weights are stored as they are used, multiplied with the
scale of their equalised learning rate, and those of an upsampling layer widened to 4 x 4.
"""
import torch
import torch.nn.functional as F
from torch import nn

from .stylegan2_prior import log2_of


def stylegan1_channels(channels=None):
    """Width of each resolution: NVlabs' network, changed where ``channels`` says so."""
    widths = {2**level: min(8192 // 2**(level - 1), 512) for level in range(2, 11)}
    widths.update({int(res): width for res, width in (channels or {}).items()})
    return widths


class StyleGAN1Layer(nn.Module):
    """Constant or convolution, bias, noise, activation, instance normalisation, style.

    Args:
        in_channels (int): Of the features; 0 for the constant layer.
        out_channels (int): Width.
        style_channels (int): Width of the latent.
        upsample (bool): Double the size.
    """

    def __init__(self, in_channels, out_channels, style_channels, upsample=False):
        super().__init__()
        self.upsample = upsample
        if not in_channels:
            shape, fan_in = (1, out_channels, 4, 4), 1
        elif upsample:
            shape, fan_in = (in_channels, out_channels, 4, 4), in_channels * 4
        else:
            shape, fan_in = (out_channels, in_channels, 3, 3), in_channels * 9
        self.constant = not in_channels
        self.weight = nn.Parameter(torch.randn(shape) * (2 / fan_in)**0.5)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_weight = nn.Parameter(torch.zeros(out_channels))
        self.style = nn.Linear(style_channels, 2 * out_channels)
        if upsample:
            kernel = torch.tensor([0.25, 0.5, 0.25])
            self.register_buffer('blur', kernel[:, None] * kernel, persistent=False)

    def forward(self, x, latent, noise):
        """(N, in_channels, H, W), (N, style_channels), (N, 1, H', W') -> (N, C, H', W')."""
        if self.constant:
            x = self.weight.expand(len(latent), -1, -1, -1)
        elif self.upsample:
            x = F.conv_transpose2d(x, self.weight, stride=2, padding=1)
            x = F.conv2d(x, self.blur.expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])
        else:
            x = F.conv2d(x, self.weight, padding=1)
        x = x + self.bias[:, None, None] + self.noise_weight[:, None, None] * noise
        x = F.instance_norm(F.leaky_relu(x, 0.2))
        gain, shift = self.style(latent)[..., None, None].chunk(2, 1)
        return x * (gain + 1) + shift


class StyleGAN1Synthesis(nn.Module):
    """Latents and noise to an image.

    Args:
        out_size (int): Side of the image, a power of two of at least 8.
        style_channels (int): Width of the latents.
        channels (dict[int, int], optional): Width at a resolution, in place of NVlabs'.
    """

    def __init__(self, out_size, style_channels=512, channels=None):
        super().__init__()
        widths, self.layers, previous = stylegan1_channels(channels), nn.ModuleList(), 0
        self.style_channels = style_channels
        for level in range(2, log2_of(out_size, 'out_size') + 1):
            if 2**level not in widths:
                raise ValueError(f'channels: expected the width at {2**level} px for out_size='
                                 f'{out_size}, got widths for {sorted(widths)}')
            width = widths[2**level]
            self.layers.append(StyleGAN1Layer(previous, width, style_channels, level > 2))
            self.layers.append(StyleGAN1Layer(width, width, style_channels))
            previous = width
        self.to_rgb = nn.Conv2d(previous, 3, 1)
        self.num_latents = len(self.layers)

    def noise_sizes(self):
        """Side of the noise of each layer."""
        return [2**(index // 2 + 2) for index in range(self.num_latents)]

    def forward(self, latents, noises):
        """Synthesise.

        Args:
            latents (Tensor): (N, num_latents, style_channels).
            noises (list[Tensor]): One (N, 1, H, W) per layer.

        Returns:
            Tensor: (N, 3, out_size, out_size), in [-1, 1].
        """
        x = None
        for layer, latent, noise in zip(self.layers, latents.unbind(1), noises, strict=True):
            x = layer(x, latent, noise)
        return self.to_rgb(x)


class StyleGAN1Mapping(nn.Sequential):
    """z (N, style_channels) -> w (N, style_channels)."""

    def __init__(self, style_channels=512, num_mlps=8):
        layers = []
        for _ in range(num_mlps):
            layers += [nn.Linear(style_channels, style_channels), nn.LeakyReLU(0.2)]
        super().__init__(*layers)

    def forward(self, z):
        return super().forward(z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt())


@torch.no_grad()
def latent_statistics(mapping, samples=1_000_000, seed=0, batch=10_000):
    """Mean and standard deviation of w before its last activation, over random z.

    PULSE takes the latents before that activation for a Gaussian.

    Args:
        mapping (StyleGAN1Mapping): The network.
        samples (int): How many z, at least 2.
        seed (int): Of their generator.
        batch (int): How many at once; a multiple of 16, so that it changes nothing.

    Returns:
        tuple[Tensor, Tensor]: Mean and standard deviation, (style_channels, ) each.
    """
    if samples < 2:
        raise ValueError(f'samples: expected at least 2, got {samples}')
    generator, width = torch.Generator().manual_seed(seed), mapping[0].in_features
    total = squares = 0
    for start in range(0, samples, batch):
        z = torch.randn(min(batch, samples - start), width, generator=generator)
        latent = F.leaky_relu(mapping(z), 5).double()  # undoes a slope of 0.2
        total, squares = total + latent.sum(0), squares + latent.square().sum(0)
    mean = total / samples
    variance = (squares - samples * mean.square()) / (samples - 1)
    return mean.float(), variance.clamp(min=0).sqrt().float()
