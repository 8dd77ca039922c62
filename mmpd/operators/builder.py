"""Operators by name, for configs."""
from ..utils.validation import ArgumentError, did_you_mean, parameters_of, refuse

__all__ = ['OPERATORS', 'OperatorRegistry', 'build_operator']


class OperatorRegistry:
    """Names to classes, used like mmengine's registries, which need mmengine.

    Example:
        >>> from mmpd.operators import OPERATORS
        >>> 'AveragePooling' in OPERATORS
        True
        >>> OPERATORS.get('AveragePooling')(scale=4)
        AveragePooling(scale=4)
    """

    def __init__(self):
        self.module_dict = {}

    def __len__(self):
        return len(self.module_dict)

    def __contains__(self, name):
        return name in self.module_dict

    def __repr__(self):
        return f'OPERATORS: {", ".join(sorted(self.module_dict))}'

    def get(self, name):
        """The class of that name, or None."""
        return self.module_dict.get(name)

    def register_module(self, name=None, force=False, module=None):
        """Register a class, as the decorator ``@OPERATORS.register_module()`` or by ``module``.

        Args:
            name (str | Sequence[str], optional): Its name or names. Defaults to the class's own.
            force (bool): Replace what has that name.
            module (type, optional): The class, if this is not used as a decorator.

        Returns:
            Callable | type: The decorator, or ``module``.

        Raises:
            TypeError: A name that is no string, such as the class itself where the brackets
                were forgotten.
            KeyError: The name is taken.
        """
        names = [name] if name is None or isinstance(name, str) else name
        if isinstance(name, type) or not all(key is None or isinstance(key, str) for key in names):
            raise TypeError(f'register_module: expected a name, got {name!r}')
        if module is None:
            return lambda cls: self.register_module(name, force, cls)
        for key in names:
            key = module.__name__ if key is None else key
            if key in self.module_dict and not force:
                raise KeyError(f'{key} is already registered, '
                               f'by {self.module_dict[key].__module__}')
            self.module_dict[key] = module
        return module


OPERATORS = OperatorRegistry()


def operator_class(cfg):
    """The class that a config's ``type`` names.

    Raises:
        ValueError: Unknown or missing name.
    """
    kind = cfg.get('type')
    cls = OPERATORS.get(kind) if isinstance(kind, str) else kind
    if not callable(cls):
        raise ArgumentError(f'operator: unknown type {kind!r}, expected one of '
                            f'{", ".join(sorted(OPERATORS.module_dict))}'
                            f'{did_you_mean(kind, OPERATORS.module_dict)}')
    return cls


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

    Example:
        >>> from mmpd.operators import build_operator
        >>> build_operator(dict(type='SeparableResize', scale=4, kernel='lanczos'))
        SeparableResize(scale=4, kernel='lanczos', antialias=True)
        >>> build_operator(dict(type='AveragePooling'), scale=8)
        AveragePooling(scale=8)
    """
    if not isinstance(cfg, dict):
        if callable(getattr(cfg, 'A', None)) and callable(getattr(cfg, 'A_dagger', None)) \
                and not isinstance(cfg, type):
            return cfg
        refuse('operator', 'a dict with "type" or an object with the methods A and A_dagger', cfg)
    args = {**defaults, **cfg}
    cls = operator_class(args)
    del args['type']
    try:
        return cls(**args)
    except (TypeError, ValueError) as error:
        raise argument_error(cls, args, error) from error


def argument_error(cls, args, error):
    """The error to raise where ``cls(**args)`` raised one: it names the operator."""
    hint = ''.join(did_you_mean(key, parameters_of(cls)) for key in args
                   if f"unexpected keyword argument '{key}'" in str(error))
    return ArgumentError(f'operator {getattr(cls, "__name__", cls)}: {error}{hint}')
