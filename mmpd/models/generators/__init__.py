from .degradation_encoder import DegradationEncoder
from .gfpgan_net import GFPGANNet
from .glean_net import GLEANNet
from .gpen_net import GPENNet
from .onnx_generator import OnnxGenerator
from .panini_net import PaniniNet
from .pdn_net import PDNNet
from .psp_net import PSPNet
from .pulse_net import PULSENet
from .spandrel_generator import SpandrelGenerator
from .stylegan2_prior import StyleGAN2Prior

__all__ = ['DegradationEncoder', 'GFPGANNet', 'GLEANNet', 'GPENNet', 'OnnxGenerator', 'PDNNet',
           'PSPNet', 'PULSENet', 'PaniniNet', 'SpandrelGenerator', 'StyleGAN2Prior']
