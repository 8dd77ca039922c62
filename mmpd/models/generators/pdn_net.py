"""PDN's generator: a GAN prior with random latents, guided by the LR image."""
import torch
from mmagic.registry import MODELS
from torch import nn

from .glean_net import GLEANNet, check_lr


@MODELS.register_module()
class PDNNet(GLEANNet):
    """GLEAN without its decoder and without latents from the encoder (AAAI 2023, ablation).

    The latents come from random z through the prior's mapping network, so that
    one LR image has many outputs; the encoder's features are fused into the prior
    at every resolution up to in_size, and the output is the prior's RGB image.

    Args:
        kwargs: As :class:`GLEANNet`, but for ``decoder``. With ``freeze_prior=False`` the
            mapping network is trained too.

    Raises:
        ValueError: as :class:`GLEANNet`.
    """

    def __init__(self, in_size, out_size, **kwargs):
        if kwargs.pop('decoder', False):
            raise ValueError('PDNNet has no decoder, got decoder=True; see GLEANNet')
        super().__init__(in_size, out_size, decoder=False, **kwargs)

    @property
    def noise_size(self):
        """Width of z."""
        return self.generator.noise_size

    def _add_latent_head(self, width):
        self.encoder.append(nn.Identity())  # no latents from the encoder

    def _freeze(self, freeze_prior):
        self.generator.requires_grad_(not freeze_prior)

    def forward(self, lr, z=None, generator=None):
        """Draw one sample per LR image.

        Args:
            lr (Tensor): (N, img_channels, in_size, in_size).
            z (Tensor, optional): (N, noise_size), standard normal.
            generator (torch.Generator, optional): Draws z if it is not given, so that the sample
                is repeatable; by default PyTorch's global one.

        Returns:
            Tensor: (N, 3, out_size, out_size).

        Raises:
            ValueError: for another size of lr or z.
        """
        check_lr(lr, self.in_size)
        if z is None:
            device = generator.device if generator is not None else lr.device
            z = torch.randn(len(lr), self.noise_size, generator=generator, device=device).to(lr)
        elif z.shape != (len(lr), self.noise_size):
            raise ValueError(f'z: expected shape ({len(lr)}, {self.noise_size}), one per LR image, '
                             f'got {tuple(z.shape)}')
        encoded, _ = self.encode(lr)
        return self.synthesise(self.generator.map(z), encoded).rgb
