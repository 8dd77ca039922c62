"""Model types that gain PD by a change of ``type``: one declared class for each of MMagic's."""
from functools import cache

from mmagic.models.base_models import BaseEditModel
from mmagic.models.editors.esrgan import ESRGAN
from mmagic.models.editors.real_esrgan import RealESRGAN
from mmagic.models.editors.srgan import SRGAN
from mmagic.registry import MODELS

from ...utils.validation import ArgumentError, check_str, did_you_mean, parameters_of, refuse
from .gan_prior_sr import GANPriorSR
from .pd_mixin import PDMixin

__all__ = ['PDESRGAN', 'PDEdit', 'PDGLEAN', 'PDModel', 'PDPanini', 'PDRealESRGAN', 'PDSRGAN']

TRAINING_ONLY = ('discriminator', 'gan_loss', 'perceptual_loss')


@MODELS.register_module()
class PDGLEAN(PDMixin, GANPriorSR):
    """GLEAN with pooling-based decomposition (AAAI 2023).

    Any GLEAN config becomes a PD model by ``model=dict(type='PDGLEAN')``;
    checkpoints of plain GLEAN load unchanged. See :class:`PDMixin` and
    :class:`GANPriorSR` for the arguments.

    Example:
        >>> import torch
        >>> from mmagic.registry import MODELS
        >>> from mmpd.operators import average_pool
        >>> model = MODELS.build(dict(
        ...     type='PDGLEAN', pixel_loss=dict(type='L1Loss'),
        ...     generator=dict(type='GLEANNet', in_size=8, out_size=16, style_channels=8,
        ...                    num_mlps=1, rrdb_channels=4, num_rrdbs=1, growth_channels=4,
        ...                    channels={4: 8, 8: 8, 16: 8}),
        ...     data_preprocessor=dict(
        ...         type='mmagic.DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3)))
        >>> lr = torch.rand(1, 3, 8, 8) * 2 - 1
        >>> image = model.forward_tensor(lr)
        >>> tuple(image.shape), torch.allclose(average_pool(image, 2), lr, atol=1e-5)
        ((1, 3, 16, 16), True)
    """


@MODELS.register_module()
class PDPanini(PDMixin, GANPriorSR):
    """Panini with pooling-based decomposition (AAAI 2023), as :class:`PDGLEAN`.

    Example:
        >>> import torch
        >>> from mmagic.registry import MODELS
        >>> from mmpd.operators import average_pool
        >>> model = MODELS.build(dict(
        ...     type='PDPanini', pixel_loss=dict(type='L1Loss'),
        ...     generator=dict(type='PaniniNet', in_size=8, out_size=16, style_channels=8,
        ...                    num_mlps=1, rrdb_channels=4, num_rrdbs=1, growth_channels=4,
        ...                    latent_channels=4, channels={4: 8, 8: 8, 16: 8}),
        ...     data_preprocessor=dict(
        ...         type='mmagic.DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3)))
        >>> lr = torch.rand(1, 3, 8, 8) * 2 - 1
        >>> image = model.forward_tensor(lr)
        >>> tuple(image.shape), torch.allclose(average_pool(image, 2), lr, atol=1e-5)
        ((1, 3, 16, 16), True)
    """


@MODELS.register_module()
class PDEdit(PDMixin, BaseEditModel):
    """PD for MMagic's models trained by a pixel loss: EDSR, SRResNet, RDN, SwinIR ...

    Example:
        >>> import torch
        >>> from mmagic.registry import MODELS
        >>> from mmpd.operators import average_pool
        >>> model = MODELS.build(dict(
        ...     type='PDEdit', pixel_loss=dict(type='L1Loss'),
        ...     generator=dict(type='MSRResNet', in_channels=3, out_channels=3, mid_channels=4,
        ...                    num_blocks=1, upscale_factor=4),
        ...     data_preprocessor=dict(
        ...         type='mmagic.DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3)))
        >>> lr = torch.rand(1, 3, 8, 8) * 2 - 1
        >>> image = model.forward_tensor(lr)
        >>> tuple(image.shape), torch.allclose(average_pool(image, 4), lr, atol=1e-5)
        ((1, 3, 32, 32), True)
    """


@MODELS.register_module()
class PDSRGAN(PDMixin, SRGAN):
    """SRGAN with PD.

    Example:
        >>> from mmagic.registry import MODELS
        >>> cfg = dict(pixel_loss=dict(type='L1Loss'),
        ...            generator=dict(type='MSRResNet', in_channels=3, out_channels=3,
        ...                           mid_channels=4, num_blocks=1, upscale_factor=4))
        >>> plain = MODELS.build(dict(type='SRGAN', **cfg))
        >>> model = MODELS.build(dict(type='PDSRGAN', **cfg))
        >>> model.pd_head.strength, model.state_dict().keys() == plain.state_dict().keys()
        (1.0, True)
    """


@MODELS.register_module()
class PDESRGAN(PDMixin, ESRGAN):
    """ESRGAN with PD.

    Example:
        >>> from mmagic.registry import MODELS
        >>> cfg = dict(pixel_loss=dict(type='L1Loss'),
        ...            generator=dict(type='RRDBNet', in_channels=3, out_channels=3,
        ...                           mid_channels=4, num_blocks=1))
        >>> plain = MODELS.build(dict(type='ESRGAN', **cfg))
        >>> model = MODELS.build(dict(type='PDESRGAN', **cfg))
        >>> model.pd_head.strength, model.state_dict().keys() == plain.state_dict().keys()
        (1.0, True)
    """


@MODELS.register_module()
class PDRealESRGAN(PDMixin, RealESRGAN):
    """Real-ESRGAN with PD.

    Example:
        >>> from mmagic.registry import MODELS
        >>> cfg = dict(pixel_loss=dict(type='L1Loss'),
        ...            generator=dict(type='RRDBNet', in_channels=3, out_channels=3,
        ...                           mid_channels=4, num_blocks=1))
        >>> plain = MODELS.build(dict(type='RealESRGAN', **cfg))
        >>> model = MODELS.build(dict(type='PDRealESRGAN', **cfg))
        >>> model.pd_head.strength, model.state_dict().keys() == plain.state_dict().keys()
        (1.0, True)
    """


DECLARED = {cls.__bases__[1]: cls for cls in (PDEdit, PDSRGAN, PDESRGAN, PDRealESRGAN)}


@cache
def _with_pd(model_type):
    """The declared class for ``model_type``, or one made for a type that is not MMagic's own."""
    if not (isinstance(model_type, type) and issubclass(model_type, BaseEditModel)):
        refuse('base', 'a model type of the BaseEditModel family', model_type)
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
        ArgumentError: if no such model type is registered, or it is not an image model of MMagic's
            ``BaseEditModel`` family.

    Example:
        >>> from mmagic.registry import MODELS
        >>> cfg = dict(
        ...     pixel_loss=dict(type='L1Loss'),
        ...     generator=dict(type='RRDBNet', in_channels=3, out_channels=3, mid_channels=4,
        ...                    num_blocks=1, growth_channels=4),
        ...     data_preprocessor=dict(
        ...         type='mmagic.DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3))
        >>> plain = MODELS.build(dict(type='BaseEditModel', **cfg))
        >>> model = MODELS.build(dict(type='PDModel', base='BaseEditModel', **cfg))
        >>> type(model).__name__, model.state_dict().keys() == plain.state_dict().keys()
        ('PDEdit', True)
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


def has_pd(model_type):
    """Whether a model type, or the type of this name, has PD.

    Example:
        >>> from mmpd.models.editors.pd_types import has_pd
        >>> has_pd('PDGLEAN'), has_pd('SRGAN')
        (True, False)
    """
    kind = MODELS.get(model_type) if isinstance(model_type, str) else model_type
    return kind is PDModel or isinstance(kind, type) and issubclass(kind, PDMixin)


def for_inference(model):
    """The config of a model with PD (that of :func:`PDModel` if its type has none) for inference.

    Args:
        model (dict): Config of a model, with what only training needs.

    Returns:
        dict: A new one, without.

    Example:
        >>> from mmpd.models.editors.pd_types import for_inference
        >>> for_inference(dict(type='SRGAN', gan_loss=dict(type='GANLoss')))
        {'type': 'PDModel', 'base': 'SRGAN'}
    """
    kept = {key: value for key, value in model.items() if key not in TRAINING_ONLY}
    return kept if has_pd(model['type']) else dict(kept, type='PDModel', base=model['type'])
