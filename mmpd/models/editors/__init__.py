from .degradation_moco import DegradationMoCo
from .gan_prior_sr import GANPriorSR
from .pd_mixin import PDMixin
from .pd_types import PDESRGAN, PDGLEAN, PDSRGAN, PDEdit, PDModel, PDPanini, PDRealESRGAN
from .pdn import PDN
from .pulse import PDPULSE, PULSE

__all__ = ['DegradationMoCo', 'GANPriorSR', 'PDESRGAN', 'PDEdit', 'PDGLEAN', 'PDMixin', 'PDModel',
           'PDN', 'PDPULSE', 'PDPanini', 'PDRealESRGAN', 'PDSRGAN', 'PULSE']
