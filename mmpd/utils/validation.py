"""Checks of arguments: one per kind, one form of message, 'NAME: expected ..., got ...'.

Plain Python, so that every room can use it, the operators too.
"""
import difflib
import inspect
import math
from numbers import Integral, Real
from pathlib import PurePath
from reprlib import Repr

from ..errors import ArgumentError

__all__ = ['MOST_CHANNELS', 'MOST_LAYERS', 'check_bool', 'check_bounds', 'check_choice',
           'check_config', 'check_dict', 'check_keys', 'check_noise_std', 'check_number',
           'check_path', 'check_positive_int', 'check_sequence', 'check_str', 'check_strength',
           'closest', 'did_you_mean', 'optional', 'parameters_of', 'refuse', 'type_name']

# beyond are slips of the finger that would end in a failed allocation
MOST_CHANNELS = 1 << 16
MOST_LAYERS = 1 << 10

_short = Repr()
_short.maxstring = _short.maxother = 80


def refuse(name, expected, value):
    """Raise the one form of message.

    Raises:
        ArgumentError: always; it is an InputError and a ValueError.
    """
    raise ArgumentError(f'{name}: expected {expected}, got {_short.repr(value)}')


def optional(check, value, *args, **kwargs):
    """None as it is, everything else through ``check``."""
    return None if value is None else check(value, *args, **kwargs)


def check_positive_int(value, name, least=1, most=None):
    """Return ``value`` if it is an integer from ``least`` to ``most``; True is none."""
    if isinstance(value, bool) or not isinstance(value, (int, Integral)) or value < least:
        refuse(name, f'an integer of at least {least}', value)
    if most is not None and value > most:
        refuse(name, f'an integer of at most {most}', value)
    return int(value)


def check_number(value, name, least=-math.inf, most=math.inf, above=None, below=None):
    """Return ``value`` as a float if it is a finite number in the range.

    Args:
        value (Any): What was given.
        name (str): Of the argument.
        least, most (float): Bounds that are allowed themselves.
        above, below (float, optional): Bounds that are not, in place of ``least`` and ``most``.
    """
    low, high = least if above is None else above, most if below is None else below
    is_number = isinstance(value, (int, float, Real)) and not isinstance(value, bool)
    fits = is_number and math.isfinite(value) and (
        value >= least if above is None else value > above) and (
        value <= most if below is None else value < below)
    if not fits:
        left = '(' if above is not None or low == -math.inf else '['
        right = ')' if below is not None or high == math.inf else ']'
        bounded = low > -math.inf or high < math.inf
        expected = f'a number in {left}{low:g}, {high:g}{right}' if bounded else 'a finite number'
        refuse(name, 'a positive number' if (above, high) == (0, math.inf) else expected, value)
    return float(value)


def check_strength(value):
    """Return ``value`` as a float if it is a number in [0, 1]."""
    return check_number(value, 'strength', least=0, most=1)


def check_noise_std(value, strength=1.0, most=math.inf):
    """Return the noise's standard deviation as a float if it is a number of at least 0.

    Args:
        value (Any): What was given; None passes.
        strength (float): What was given beside it: the noise decides on the strength itself.
        most (float): Bound that is allowed itself.

    Raises:
        ArgumentError: for another value, or a ``strength`` other than 1 beside it.
    """
    if value is None:
        return None
    value = check_number(value, 'noise_std', least=0, most=most)
    if strength != 1:
        refuse('strength', f'1 beside noise_std={value:g}, which gives the strength itself',
               strength)
    return value


def check_bounds(value, least=-math.inf, most=math.inf):
    """Return (low, high) as floats if they are two numbers, the first one below the second.

    Args:
        value (Any): What was given; None passes.
        least, most (float): What the numbers may be.
    """
    if value is None:
        return None
    value = value.tolist() if hasattr(value, 'tolist') else value  # tensors and arrays
    low, high = check_sequence(value, 'bounds', check_number, lengths=(2,), least=least, most=most)
    if not low < high:
        refuse('bounds', 'the lower bound first, (low, high)', value)
    return low, high


def check_bool(value, name):
    """Return ``value`` as True or False if it is one of them, 1 or 0; texts would all be true."""
    if not isinstance(value, (bool, int, Integral)) and type(value).__name__ not in (
            'bool_', 'bool') or (
            value not in (0, 1)):
        refuse(name, 'True or False', value)
    return bool(value)


def check_str(value, name, what='a string'):
    """Return ``value`` if it is a string with something in it."""
    if not isinstance(value, str) or not value.strip():
        refuse(name, what, value)
    return value


def check_path(value, name, what='a file'):
    """Return ``value`` if it is a path, or a string with something in it."""
    return value if isinstance(value, PurePath) else check_str(value, name, what)


def check_choice(value, name, allowed):
    """Return ``value`` if it is one of the strings ``allowed``."""
    if not isinstance(value, str) or value not in allowed:
        refuse(name, f'one of {", ".join(allowed)}', value)
    return value


def check_sequence(value, name, check, lengths=None, **kwargs):
    """Return a list of what ``check`` makes of each item of a sequence that is no string.

    Args:
        value (Any): What was given.
        name (str): Of the argument.
        check (Callable): One of this module's checks, which is given item, name and ``kwargs``.
        lengths (Sequence[int], optional): The numbers of items that are possible. Defaults to any
            but 0.
        kwargs: For ``check``.
    """
    try:
        items = None if isinstance(value, (str, bytes, dict)) else list(value)
    except TypeError:
        items = None
    if not items or (lengths and len(items) not in lengths):
        number = f'{" or ".join(map(str, lengths))} values' if lengths else 'at least one value'
        refuse(name, f'a sequence of {number}', value)
    return [check(item, name, **kwargs) for item in items]


def check_dict(value, name):
    """Return ``value`` if it is a dict."""
    if not isinstance(value, dict):
        refuse(name, 'a dict', value)
    return value


def check_config(value, name, kind=None):
    """Return ``value`` if it is a dict with a ``type``, or an object of ``kind``."""
    if kind is not None and isinstance(value, kind):
        return value
    if not isinstance(value, dict) or not (
            isinstance(value.get('type'), str) or callable(value.get('type'))):
        refuse(name, "a dict with a 'type'", value)
    return value


def closest(name, names):
    """The one of ``names`` that ``name`` resembles most, or None."""
    lower = {str(known).lower(): str(known) for known in names}
    near = difflib.get_close_matches(str(name).lower(), lower, n=1, cutoff=0.6)
    return lower[near[0]] if near else None


def did_you_mean(name, names):
    """'; did you mean X?' for the closest of ``names``, or nothing."""
    near = closest(name, names)
    return f'; did you mean {near!r}?' if near else ''


def check_keys(value, name, known):
    """Return the dict ``value`` if all its keys are known, else name the closest one.

    Raises:
        ArgumentError: for another key, or what is no dict.
    """
    for key in check_dict(value, name):
        if key not in known:
            raise ArgumentError(f'{name}.{key}: expected one of {", ".join(sorted(known))}, '
                                f'got {key!r}{did_you_mean(key, known)}')
    return value


def parameters_of(cls):
    """The names of all arguments of a class that hands what it does not know to its bases."""
    names, classes = {}, cls.__mro__ if isinstance(cls, type) else [cls]
    for one in classes:
        function = one.__dict__.get('__init__') if isinstance(one, type) else one
        if not callable(function) or one is object:
            continue
        kinds = inspect.signature(function).parameters.values()
        names.update((kind.name, None) for kind in kinds if kind.name != 'self'
                     and kind.kind in (kind.POSITIONAL_OR_KEYWORD, kind.KEYWORD_ONLY))
        if not any(kind.kind == kind.VAR_KEYWORD for kind in kinds):
            break
    return list(names)


def type_name(part):
    """What the type of a config's part is called: without its scope, and a class by its name; of
    an object that is there already, its class.

    Example:
        >>> from mmpd.utils.validation import type_name
        >>> type_name(dict(type='mmengine.OptimWrapper')), type_name(dict(type=dict)), type_name({})
        ('OptimWrapper', 'dict', None)
    """
    kind = part.get('type') if isinstance(part, dict) else None if part is None else type(part)
    return kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', None)
