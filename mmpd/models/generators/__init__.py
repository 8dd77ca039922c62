from .degradation_encoder import DegradationEncoder
from .glean_net import GLEANNet
from .panini_net import PaniniNet
from .pdn_net import PDNNet
from .spandrel_generator import SpandrelGenerator
from .stylegan2_prior import StyleGAN2Prior

__all__ = ['DegradationEncoder', 'GLEANNet', 'PDNNet', 'PaniniNet', 'SpandrelGenerator',
           'StyleGAN2Prior']
