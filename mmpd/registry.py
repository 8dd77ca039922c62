"""Makes MMagic's registries import mmpd's modules when they first need them."""
from importlib import import_module
from importlib.util import find_spec

__all__ = ['announce', 'has_mmagic']

LOCATIONS = {
    'MODELS': 'mmpd.models',
    'DATASETS': 'mmpd.datasets.image_dataset',
    'TRANSFORMS': 'mmpd.datasets.transforms',
    'METRICS': 'mmpd.evaluation.metrics',
    'HOOKS': 'mmpd.engine',
    'LOOPS': 'mmpd.engine',
    'OPTIM_WRAPPERS': 'mmpd.engine',
}


def has_mmagic():
    """Whether MMagic is installed; ``mmpd.operators`` and what is built on them do not need it."""
    return find_spec('mmagic') is not None


def announce():
    """Add mmpd's modules to the import locations of MMagic's registries.

    Raises:
        ModuleNotFoundError: if something that MMagic itself needs is missing; says what to do.
    """
    try:
        registries = import_module('mmagic.registry')
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'mmpd needs {error.name}, which is not installed. '
            'Into your own environment: "pip install mmpd[mmagic]", then "pip install --no-deps '
            'mmcv-lite==2.1.0 mmagic==1.2.0"; the tested stack: "pip install --no-deps -r '
            'requirements/lock.txt".',
            name=error.name) from error
    for name, module in LOCATIONS.items():
        registry = getattr(registries, name)
        # mmengine offers no public way, and importing the modules here would take 15 s
        if registry._imported:  # MMagic is loaded already: its registries will not look again
            import_module(module)
        elif module not in registry._locations:
            registry._locations.append(module)
