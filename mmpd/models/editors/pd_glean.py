"""Model types that gain PD by a change of ``type``: PDGLEAN and PDPanini."""
from mmagic.registry import MODELS

from .gan_prior_sr import GANPriorSR
from .pd_mixin import PDMixin


@MODELS.register_module()
class PDGLEAN(PDMixin, GANPriorSR):
    """GLEAN with pooling-based decomposition (AAAI 2023).

    Any GLEAN config becomes a PD model by ``model=dict(type='PDGLEAN')``;
    checkpoints of plain GLEAN load unchanged. See :class:`PDMixin` and
    :class:`GANPriorSR` for the arguments.
    """


@MODELS.register_module()
class PDPanini(PDMixin, GANPriorSR):
    """Panini with pooling-based decomposition (AAAI 2023), as :class:`PDGLEAN`."""
