"""The generator of PDN: a GAN prior that an LR image steers and random latents vary."""
import torch
from mmagic.registry import MODELS

from ...utils.validation import ArgumentError
from .glean_net import GLEANNet, check_lr


@MODELS.register_module()
class PDNNet(GLEANNet):
    """GLEAN without decoder and with random latents (AAAI 2023, ablation on pixel-wise losses).

    The encoder's features are fused into the prior at the resolutions 4 to
    in_size, as in GLEAN; the latent comes from a random z through the prior's mapping
    network, not from the encoder; the output is the prior's RGB image.

    Args:
        in_size (int): Side of the LR image, a power of two of at least 4.
        out_size (int): Side of the output, a larger power of two.
        kwargs: The other arguments of :class:`GLEANNet`, without ``decoder``.

    Raises:
        ValueError: for sizes that are no powers of two, or in_size >= out_size,
            or if a decoder is asked for.

    Example:
        >>> import torch
        >>> from mmpd.models.generators import PDNNet
        >>> network = PDNNet(
        ...     in_size=8, out_size=16, style_channels=8, num_mlps=1, channels={4: 8, 8: 8, 16: 8},
        ...     rrdb_channels=4, num_rrdbs=1, growth_channels=4)
        >>> with torch.no_grad():
        ...     image = network(torch.rand(1, 3, 8, 8) * 2 - 1)
        >>> tuple(image.shape)
        (1, 3, 16, 16)
    """

    def __init__(self, in_size, out_size, **kwargs):
        if kwargs.pop('decoder', False):
            raise ArgumentError('PDNNet has no decoder: decoder=True is not possible, use GLEANNet')
        super().__init__(in_size, out_size, decoder=False, **kwargs)

    @property
    def noise_size(self):
        """Width of z."""
        return self.generator.noise_size

    def _add_latent_head(self, width):
        """None: latents come from z."""

    def _idle_modules(self):
        return []

    def encode(self, lr):
        """Encoder features by resolution, in_size down to 4."""
        check_lr(lr, self.in_size)
        features, feature = {}, lr
        for block in self.encoder:
            feature = block(feature)
            features[feature.shape[-1]] = feature
        return features

    def forward(self, lr, z=None, generator=None):
        """Draw an image for each LR, or many images for one.

        Args:
            lr (Tensor): (N, img_channels, in_size, in_size).
            z (Tensor, optional): (N, noise_size); with one LR image (M, noise_size), which gives M
                images and encodes the LR once. Drawn from a standard normal if None.
            generator (torch.Generator, optional): Draws z, on its own device: the same seed gives
                the same images. Defaults to PyTorch's global one.

        Returns:
            Tensor: (N or M, 3, out_size, out_size).

        Raises:
            ValueError: for another size of lr or z, or if both z and generator are given.
        """
        if z is None:
            device = lr.device if generator is None else generator.device
            z = torch.randn(len(lr), self.noise_size, generator=generator, device=device)
        elif generator is not None:
            raise ValueError('z and generator: expected one of them, got both')
        latents = self.generator.map(z.to(lr))
        if len(z) != len(lr) and len(lr) != 1:
            raise ValueError(f'z: expected one per LR image ({len(lr)}), or one LR image; '
                             f'got {len(z)}')
        encoded = self.encode(lr)
        if len(lr) != len(z):
            encoded = {res: feature.expand(len(z), -1, -1, -1) for res, feature in encoded.items()}
        return self.synthesise(latents, encoded).rgb
