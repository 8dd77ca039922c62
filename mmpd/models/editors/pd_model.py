"""PD for every other MMagic model: by model type (PDModel) or by generator (PDGenerator)."""
from functools import cache

from mmagic.models.base_models import BaseEditModel
from mmagic.registry import MODELS

from ..heads import PDHead
from .pd_mixin import PDMixin


@cache
def with_pd(model_type):
    """The class ``model_type`` with :class:`PDMixin` before it.

    Raises:
        TypeError: if it is not an image model of MMagic's ``BaseEditModel`` family.
    """
    if not (isinstance(model_type, type) and issubclass(model_type, BaseEditModel)):
        raise TypeError(f'PDModel: base must be a subclass of BaseEditModel, got {model_type!r}.')
    return type(f'PD{model_type.__name__}', (PDMixin, model_type), {})


@MODELS.register_module()
def PDModel(base='BaseEditModel', **kwargs):
    """Any MMagic super-resolution model type with PD.

    In a config, ``model = dict(type='PDModel', base='ESRGAN')`` above an
    inherited ESRGAN config; the checkpoint keys stay those of ESRGAN.

    Args:
        base (str): The model type to extend: 'BaseEditModel' (EDSR, SRResNet,
            SwinIR, RDN …), 'SRGAN', 'ESRGAN', 'RealESRGAN'.
        kwargs: Arguments of that model type and of :class:`PDMixin`.

    Returns:
        BaseEditModel: the model.

    Raises:
        ValueError: if no such model type is registered.
    """
    model_type = MODELS.get(base) if isinstance(base, str) else base
    if model_type is None:
        raise ValueError(f'PDModel: no model type {base!r} is registered.')
    return with_pd(model_type)(**kwargs)


def _decompose(generator, args, kwargs, output):
    return generator.pd_head(output, args[0] if args else next(iter(kwargs.values())))


@MODELS.register_module()
def PDGenerator(generator, **pd_head):
    """A generator of MMagic whose output goes through a :class:`PDHead`.

    For models that call their generator in ways of their own. The head has no
    parameters, so the generator keeps its checkpoint keys. The 8-bit rounding of
    :class:`PDMixin` is not part of it.

    Args:
        generator (dict | nn.Module): The generator, taking the LR as its first
            argument and returning one image tensor.
        pd_head: Arguments of :class:`PDHead`.

    Returns:
        nn.Module: the generator, with child ``pd_head``.
    """
    module = MODELS.build(generator) if isinstance(generator, dict) else generator
    module.add_module('pd_head', PDHead(**pd_head))
    module.register_forward_hook(_decompose, with_kwargs=True)
    return module
