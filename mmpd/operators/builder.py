"""Operators by name, for configs."""
from mmengine.registry import Registry

OPERATORS = Registry('operator', scope='mmpd')


def build_operator(cfg, **defaults):
    """Make an operator from a config, or pass a finished one through.

    Args:
        cfg (dict | object): ``dict(type='AveragePooling', scale=8)``, where
            type is a registered name or a class; or any object with ``A`` and
            ``A_dagger`` methods, such as a deepinv ``LinearPhysics``, which
            is returned unchanged.
        **defaults: Arguments for keys that ``cfg`` leaves out.

    Returns:
        object: The operator.

    Raises:
        ValueError: Unknown name, wrong arguments, or not an operator.
    """
    if not isinstance(cfg, dict):
        if callable(getattr(cfg, 'A', None)) and callable(getattr(cfg, 'A_dagger', None)) \
                and not isinstance(cfg, type):
            return cfg
        raise ValueError('operator: expected a dict with "type" or an object with the methods '
                         f'A and A_dagger, got {cfg!r}')
    args = {**defaults, **cfg}
    kind = args.pop('type', None)
    known = ', '.join(sorted(OPERATORS.module_dict))
    # get, not build: the latter would ask for the default scope, 'mmagic' in a run
    cls = kind if isinstance(kind, type) else OPERATORS.module_dict.get(kind)
    if cls is None:
        raise ValueError(f'operator: unknown type {kind!r}, expected one of {known}')
    try:
        return cls(**args)
    except TypeError as error:
        raise ValueError(f'operator {cls.__name__}: {error}') from error
