"""Makes MMagic's registries import mmpd's modules when they first need them."""
from importlib import import_module

LOCATIONS = {
    'MODELS': 'mmpd.models',
    'TRANSFORMS': 'mmpd.datasets.transforms',
    'METRICS': 'mmpd.evaluation',
    'HOOKS': 'mmpd.engine',
    'LOOPS': 'mmpd.engine',
}


def announce():
    """Add mmpd's modules to the import locations of MMagic's registries."""
    try:
        registries = import_module('mmagic.registry')
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'mmpd needs {error.name}, which is not installed. '
            'Into your own environment: "pip install --no-deps mmcv-lite==2.1.0 mmagic==1.2.0" '
            'after mmpd; the tested stack: "pip install --no-deps -r requirements/lock.txt".',
            name=error.name) from error
    for name, module in LOCATIONS.items():
        registry = getattr(registries, name)
        if registry._imported:  # MMagic is loaded already: its registries will not look again
            import_module(module)
        elif module not in registry._locations:
            registry._locations.append(module)
