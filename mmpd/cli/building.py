"""What a config says wrongly, as one line: errors from building, not those of the code."""
import inspect
import re
import traceback
from contextlib import contextmanager

from mmengine.runner import Runner

from ..errors import ArgumentError, InputError
from ..utils.validation import did_you_mean, parameters_of

__all__ = ['config_errors', 'refused_values']

UNKNOWN = re.compile(r"^(\S+) is not in the (?:(\S+)::)?(.+?) registry")
ARGUMENT = re.compile(r"got an unexpected keyword argument '(\w+)'")
MISSING = re.compile(r'missing \d+ required (?:positional|keyword-only) arguments?: (.+)')
# what constructors raise for wrong values; anything else is a fault of the code
OF_VALUES = (AssertionError, ImportError, NotImplementedError, OSError, ValueError)

# and what the types of other packages, which check little, do as well
FROM_OTHERS = (AttributeError, LookupError, RuntimeError, TypeError)


@contextmanager
def config_errors(config):
    """Turn errors that a registry's builder raises inside the block into one line.

    Unknown types and arguments are named with the nearest one that exists. Errors that come from
    elsewhere pass.

    Args:
        config (str): The file, for the message.

    Raises:
        InputError: in place of an error from building.
    """
    try:
        yield
    except Exception as error:
        message = None
        if not isinstance(error, InputError) or isinstance(error, ArgumentError):
            message = _describe(error)
        if message is None:
            raise
        raise InputError(f'config {config}: {message}') from error


@contextmanager
def refused_values(cls, name):
    """Turn what objects of a class raise for wrong values inside the block into one line.

    Args:
        cls (type): The class.
        name (str): Of the setting, for the message.

    Raises:
        InputError: in place of such an error.
    """
    try:
        yield
    except Exception as error:
        if not _of_values(error, cls):
            raise
        raise InputError(f'{name}: {error or type(error).__name__}') from error


def _of_values(error, cls):
    """Whether an error that came up in a class means the values that it was given."""
    others = not (getattr(cls, '__module__', None) or 'mmpd').startswith('mmpd')
    return isinstance(error, OF_VALUES) or others and isinstance(error, FROM_OTHERS)


def _describe(error):
    """One line for an error from a builder, or None for any other."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    builders = [frame for frame in frames if frame.f_code.co_name == 'build_from_cfg']
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if frames[-1].f_code.co_filename == inspect.getfile(Runner) and isinstance(
            error, (*OF_VALUES, *FROM_OTHERS)):  # of the parts that do not fit together
        return text[:300]
    if not builders:  # packages that the runner only asks for in the end, as wandb
        return text if isinstance(error, ImportError) else None
    # mmengine's builder knows what it builds by these names
    cls, given = (builders[-1].f_locals.get(name) for name in ('obj_cls', 'args'))
    unknown = isinstance(error, KeyError) and UNKNOWN.match(text)
    if unknown:
        name, _, registry = unknown.groups()
        return f'unknown {registry} type {name!r}{did_you_mean(name, _names(builders[-1]))}'
    if isinstance(error, KeyError) and '"type"' in text:
        return f'a type is missing in {dict(builders[-1].f_locals.get("cfg") or {})!r}'[:300]
    name = getattr(cls, '__name__', str(cls))
    if isinstance(error, TypeError):
        argument, missing = ARGUMENT.search(text), MISSING.search(text)
        if argument and argument[1] in (given or {}):
            return (f'{name}.{argument[1]}: {name} has no such argument'
                    f'{did_you_mean(argument[1], parameters_of(cls))}')
        if missing and cls is not None:
            return f'{name}: expected the arguments {missing[1]}, got none'
        if given and text.endswith('takes no arguments'):
            return f'{name}.{next(iter(given))}: {name} has no such argument'
        if cls is None:  # the builder itself, of what is no config
            outer = builders[-2].f_locals.get('obj_cls') if builders[1:] else None
            return f'{outer.__name__}: ' * bool(outer) + text
    return f'{name}: {text or type(error).__name__}' if _of_values(error, cls) else None


def _names(frame):
    """All types that the registry of a builder's frame knows, its parents' included."""
    registry, names = frame.f_locals.get('registry'), set()
    while registry is not None:
        names |= {*registry.module_dict}
        registry = registry.parent
    return names
