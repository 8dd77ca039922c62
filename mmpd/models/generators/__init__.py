from .glean_net import GLEANNet
from .pdn_net import PDNNet
from .stylegan2_prior import StyleGAN2Prior

__all__ = ['GLEANNet', 'PDNNet', 'StyleGAN2Prior']
