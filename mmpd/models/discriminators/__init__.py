from .stylegan2_discriminator import StyleGAN2Discriminator

__all__ = ['StyleGAN2Discriminator']
