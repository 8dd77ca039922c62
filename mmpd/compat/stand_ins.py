"""Stand-ins for packages that MMagic imports and super-resolution never uses.

MMagic imports every editor at once, so GLEAN wants diffusers and transformers.
Where such a package is not installed, or the installed release lacks a name
that MMagic asks for, MMagic's import statements get a stand-in; whoever really
uses it gets one line.

The stand-ins are handed out by an import function that only MMagic's own
modules have (see :mod:`mmpd.compat.mmagic_import`).  ``sys.modules`` never
holds one: ``importlib.util.find_spec``, the version checks of other libraries
and import statements elsewhere see the package as missing, as it is.
"""
import builtins
import importlib
import inspect
import sys
from abc import ABCMeta
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType, SimpleNamespace

__all__ = ['LISTED', 'PACKAGES', 'StandIn', 'import_for_mmagic', 'remedy', 'try_import']

DIFFUSERS = '"diffusers==0.24.0" "transformers<4.46" "huggingface_hub<0.26"'
# import name: (what MMagic 1.2.0 works with, what "pip install" is given)
PACKAGES = {
    'albumentations': ('albumentations', 'albumentations'),
    'controlnet_aux': ('controlnet-aux', f'controlnet-aux {DIFFUSERS}'),
    'diffusers': ('diffusers==0.24.0', DIFFUSERS),
    'huggingface_hub': ('huggingface_hub<0.26', DIFFUSERS),
    'pandas': ('pandas', 'pandas'),
    'resize_right': ('resize-right', 'resize-right'),
    'transformers': ('transformers<4.46', DIFFUSERS),
}
# What MMagic wraps and registers by going through dir(), as far as its configs name them
LISTED = {
    'diffusers.models': ('AutoencoderKL', 'ControlNetModel', 'UNet2DConditionModel'),
    'diffusers.pipelines': ('DiffusionPipeline', ),
    'diffusers.schedulers': ('DDIMScheduler', 'DDPMScheduler'),
}


def remedy(name):
    """The one line about ``name``, a module or an attribute of one of ``PACKAGES``."""
    package = name.partition('.')[0]
    wanted, arguments = PACKAGES[package]
    try:
        found = f'{package} {version(package)} is installed'
    except PackageNotFoundError:
        found = f'{package} is not installed'
    return (f'MMagic needs {name} here ({wanted}; super-resolution does not need it), '
            f'and {found}: pip install {arguments}')


class _StandInType(ABCMeta):  # of ABCMeta: mmengine's base classes have that metaclass
    """Classes which can be inherited from and named in annotations, and never be used."""

    def __call__(cls, *args, **kwargs):
        raise ModuleNotFoundError(remedy(cls.stands_for), name=cls.stands_for.partition('.')[0])

    def __getattr__(cls, name):
        if name.startswith('__') or name == 'stands_for':
            raise AttributeError(name)
        raise AttributeError(remedy(f'{cls.stands_for}.{name}'))


def _function(name):
    """Stands for a function: an identity as a decorator, one line when it is called."""

    def stand_in(*args, **kwargs):
        if len(args) == 1 and not kwargs and (inspect.isfunction(args[0])
                                              or inspect.isclass(args[0])):
            return args[0]
        raise ModuleNotFoundError(remedy(name), name=name.partition('.')[0])

    return stand_in


class StandIn(ModuleType):
    """A module of a package that is missing, or lacks what MMagic asks of it.

    Args:
        name (str): The module's dotted name.
        real (ModuleType, optional): The installed module, whose attributes go first.
    """

    def __init__(self, name, real=None):
        super().__init__(name, f'Stand-in of mmpd for {name}.')
        self.__real = real

    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        full = f'{self.__name__}.{name}'
        if self.__real is not None and _has(self.__real, name):
            return getattr(self.__real, name)
        if full in LISTED:
            value = StandIn(full, _real_module(full) if self.__real is not None else None)
        elif name[0].isupper():
            value = _StandInType(name, (), dict(stands_for=full, __module__=self.__name__))
        elif name.startswith('is_'):  # is_xformers_available() and the like
            def value(*args, **kwargs):
                return False
        else:
            value = _function(full)
        setattr(self, name, value)
        return value

    def __dir__(self):
        if self.__real is not None:
            return [name for name in dir(self.__real) if _has(self.__real, name)]
        return list(LISTED.get(self.__name__, ()))


def _has(module, name):
    """hasattr, also for modules whose lazy attributes raise whatever they like."""
    try:
        getattr(module, name)
    except Exception:  # an incompatible package raises RuntimeError, ValueError ...
        return False
    return True


def _real_module(name):
    """The installed module ``name``, or None where it is missing or does not import."""
    try:
        return importlib.import_module(name)
    except Exception:
        return None


def import_for_mmagic(name, globals=None, locals=None, fromlist=(), level=0):
    """``__import__`` of MMagic's modules; differs for ``PACKAGES`` and ``try_import`` alone.

    Inside a function the package is really used: there an import that fails stays
    one, with the line of :func:`remedy`.
    """
    package = name.partition('.')[0]
    if level == 0 and name == 'mmagic.utils' and 'try_import' in (fromlist or ()):
        module = builtins.__import__(name, globals, locals, fromlist, level)
        return SimpleNamespace(**{**vars(module), 'try_import': try_import})
    if level or package not in PACKAGES:
        return builtins.__import__(name, globals, locals, fromlist, level)
    at_module_level = locals is globals
    try:
        module = builtins.__import__(name, globals, locals, fromlist, level)
    except Exception as error:  # an unfit release raises RuntimeError, ValueError ...
        if at_module_level:
            found = name if fromlist else package
            return StandIn(found, sys.modules.get(found))
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise ModuleNotFoundError(remedy(name), name=package) from None
        raise
    if at_module_level and not all(_has(module, item) for item in fromlist or ()):
        return StandIn(name, module)
    return module


def try_import(name):
    """``mmagic.utils.try_import`` with stand-ins in place of None for ``PACKAGES``.

    MMagic 1.2.0 cannot go on from the None that it gets for diffusers.
    """
    package = name.partition('.')[0]
    if package not in PACKAGES:
        from mmagic.utils import try_import
        return try_import(name)
    module = _real_module(name)
    if module is None:
        return StandIn(name)
    for listed in LISTED:
        if listed.startswith(f'{name}.') and not _lists_what_it_has(module, listed):
            return StandIn(name, SimpleNamespace(**{
                key: value for key, value in vars(module).items()
                if f'{name}.{key}' not in LISTED}))
    return module


def _lists_what_it_has(package, name):
    part = name.rpartition('.')[2]
    return _has(package, part) and all(
        _has(getattr(package, part), item) for item in dir(getattr(package, part)))
