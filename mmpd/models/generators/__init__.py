from .glean_net import GLEANNet
from .stylegan2_prior import StyleGAN2Prior

__all__ = ['GLEANNet', 'StyleGAN2Prior']
