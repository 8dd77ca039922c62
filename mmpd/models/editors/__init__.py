from .degradation_moco import DegradationMoCo
from .gan_prior_sr import GANPriorSR
from .pd_glean import PDGLEAN, PDPanini
from .pd_mixin import PDMixin
from .pd_model import PDGenerator, PDModel
from .pdn import PDN
from .pulse import PDPULSE, PULSE

__all__ = ['DegradationMoCo', 'GANPriorSR', 'PDGLEAN', 'PDGenerator', 'PDMixin', 'PDModel',
           'PDN', 'PDPULSE', 'PDPanini', 'PULSE']
