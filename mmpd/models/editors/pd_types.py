"""Model types that gain PD by a change of ``type``: one declared class for each of MMagic's."""
from functools import cache

from mmagic.models.base_models import BaseEditModel
from mmagic.models.editors.esrgan import ESRGAN
from mmagic.models.editors.real_esrgan import RealESRGAN
from mmagic.models.editors.srgan import SRGAN
from mmagic.registry import MODELS

from ...utils.validation import ArgumentError, check_str, did_you_mean, parameters_of
from .gan_prior_sr import GANPriorSR
from .pd_mixin import PDMixin

__all__ = ['PDESRGAN', 'PDEdit', 'PDGLEAN', 'PDModel', 'PDPanini', 'PDRealESRGAN', 'PDSRGAN']


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


@MODELS.register_module()
class PDEdit(PDMixin, BaseEditModel):
    """PD for MMagic's models trained by a pixel loss: EDSR, SRResNet, RDN, SwinIR ..."""


@MODELS.register_module()
class PDSRGAN(PDMixin, SRGAN):
    """SRGAN with PD."""


@MODELS.register_module()
class PDESRGAN(PDMixin, ESRGAN):
    """ESRGAN with PD."""


@MODELS.register_module()
class PDRealESRGAN(PDMixin, RealESRGAN):
    """Real-ESRGAN with PD."""


DECLARED = {cls.__bases__[1]: cls for cls in (PDEdit, PDSRGAN, PDESRGAN, PDRealESRGAN)}


@cache
def _with_pd(model_type):
    """The declared class for ``model_type``, or one made for a type that is not MMagic's own."""
    if not (isinstance(model_type, type) and issubclass(model_type, BaseEditModel)):
        raise TypeError('base: expected a model type of the BaseEditModel family, got '
                        f'{model_type!r}')
    return DECLARED.get(model_type) or type(
        f'PD{model_type.__name__}', (PDMixin, model_type), {})


@MODELS.register_module()
def PDModel(base='BaseEditModel', **kwargs):
    """Any MMagic super-resolution model type with PD.

    In a config, ``model = dict(type='PDModel', base='ESRGAN')`` above an
    inherited ESRGAN config; the checkpoint keys stay those of ESRGAN.

    Args:
        base (str): The model type to extend: 'BaseEditModel' (EDSR, SRResNet,
            SwinIR, RDN ...), 'SRGAN', 'ESRGAN', 'RealESRGAN', or a type of your own.
        kwargs: Arguments of that model type and of :class:`PDMixin`.

    Returns:
        BaseEditModel: the model, a :class:`PDEdit`, :class:`PDSRGAN` ...

    Raises:
        ValueError: if no such model type is registered.
        TypeError: if it is not an image model of MMagic's ``BaseEditModel`` family.
    """
    if not isinstance(base, type):
        check_str(base, 'base', 'a model type or its name')
    model_type = MODELS.get(base) if isinstance(base, str) else base
    if model_type is None:
        raise ArgumentError(f'base: expected a registered model type, got {base!r}'
                            + did_you_mean(base, MODELS.module_dict))
    cls = _with_pd(model_type)
    known = parameters_of(cls)
    for key in kwargs:
        if key not in known:
            hint = did_you_mean(key, known)
            if key in parameters_of(RealESRGAN):
                hint = "; give the model type of the config as base, e.g. base='ESRGAN'"
            raise ArgumentError(f'{key}: expected arguments of base={model_type.__name__!r} '
                                f'({", ".join(sorted(known))}), got {key!r}{hint}')
    model = cls(**kwargs)  # a generator that cannot gain PD is refused with its reason
    if model_type.__module__.startswith('mmagic.') and model_type not in DECLARED:
        raise ArgumentError(f'base: expected {", ".join(one.__name__ for one in DECLARED)} or a '
                            f'type of your own, got {model_type.__name__!r}, whose forward pass '
                            'takes or returns more than one image')
    return model
