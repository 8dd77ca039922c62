"""Values of a kind that an argument cannot have, found before anything is built.

What mmpd registers checks the arguments that it adds. Others stumble over ``loss_weight='abc'`` in
the first iteration, or take ``bgr2rgb='no'`` for true.
"""
import inspect
import re
import types
from collections.abc import Iterable
from typing import Union, get_args, get_origin, get_type_hints

from mmagic import registry
from torch.utils.data import DataLoader

from ..errors import InputError

__all__ = ['check_kinds']

# what the parts of a section are registered in; other sections are not looked at
REGISTRIES = dict(
    model=('MODELS', ), optim_wrapper=('OPTIM_WRAPPERS', 'OPTIMIZERS'),
    param_scheduler=('PARAM_SCHEDULERS', ), default_hooks=('HOOKS', ), custom_hooks=('HOOKS', ),
    visualizer=('VISUALIZERS', 'VISBACKENDS'), log_processor=('LOG_PROCESSORS', ),
    **dict.fromkeys(('train_dataloader', 'val_dataloader', 'test_dataloader'),
                    ('DATASETS', 'TRANSFORMS', 'DATA_SAMPLERS')),
    **dict.fromkeys(('val_evaluator', 'test_evaluator'), ('METRICS', 'EVALUATORS')),
    **dict.fromkeys(('train_cfg', 'val_cfg', 'test_cfg'), ('LOOPS', )))
NUMBERS = (int, float, bool)
# whose defaults tell the kind where there is no annotation; one's own types may do as they like
KNOWN = ('mmagic', 'mmcv', 'mmengine', 'torch')
ANY = '', ()


def check_kinds(cfg):
    """Raise InputError for text or a list where a number is annotated, for text where numbers are,
    for a number where text or a dict is.

    Args:
        cfg (Config): Of a training or test; sections of it may be missing.

    Example:
        >>> from mmengine.config import Config
        >>> from mmpd.cli.kinds import check_kinds
        >>> check_kinds(Config(dict(val_evaluator=[dict(type='PSNR', crop_border='4')])))
        Traceback (most recent call last):
            ...
        mmpd.errors.InputError: val_evaluator.0.crop_border: expected a number, got '4'
    """
    for section, names in REGISTRIES.items():
        known = [getattr(registry, name) for name in names]
        parts = cfg.get(section)
        if section.endswith('_dataloader'):  # or several; mmengine builds them without a type
            for part in parts if isinstance(parts, (list, tuple)) else [parts]:
                if isinstance(part, dict):
                    _check_arguments(part, section, DataLoader)
        _check(parts, section, known)


def is_ones_own(kind, *registries):
    """Whether a type, or its name, is the user's: what its arguments mean is not known."""
    cls = _class_of(kind, registries)
    return cls is not None and not cls.__module__.startswith((*KNOWN, 'mmpd'))


def _check(part, name, registries):
    if isinstance(part, (list, tuple)):
        part = dict(enumerate(part))
    if not isinstance(part, dict):
        return
    for key, value in part.items():
        _check(value, f'{name}.{key}', registries)
    _check_arguments(part, name, _class_of(part.get('type'), registries))


def _check_arguments(given, name, cls):
    kinds = {} if cls is None else _kinds_of(cls)
    for key, value in given.items():
        expected, others = kinds.get(key, ANY)
        if isinstance(value, others):
            raise InputError(f'{name}.{key}: expected {expected}, got {value!r}')


def _class_of(kind, registries):
    if isinstance(kind, str):
        kind = next(filter(None, (one.get(kind) for one in registries)), None)
    return kind if isinstance(kind, type) else None


def _kinds_of(cls):
    """Argument -> what it may be, in words, and what it therefore cannot be, for the arguments that
    are numbers, of a class that hands what it does not know to its bases."""
    found = {}
    for one in cls.__mro__:
        function = one.__dict__.get('__init__')
        if function is None or one is object:
            continue
        try:
            hints = get_type_hints(function)
        except Exception:  # of names that are imported for type checkers only
            hints = {}
        parameters = inspect.signature(function).parameters
        for name, parameter in parameters.items():
            default = parameter.default
            if one.__module__.startswith('mmpd'):
                found.setdefault(name, ANY)
            elif name in hints:
                found.setdefault(name, _annotated(hints[name]))
            elif isinstance(default, NUMBERS) and one.__module__.startswith(KNOWN):
                found.setdefault(name, (_words(type(default)), (str, )))
            else:
                found.setdefault(name, ANY)
        if not any(kind.kind == kind.VAR_KEYWORD for kind in parameters.values()):
            break
    return {name: (words, tuple(kind for kind in others if kind not in _documented(cls, name)))
            for name, (words, others) in found.items()}


def _documented(cls, name):
    """What a docstring allows an argument, which its annotation may not know of, as that of eta_max
    in mmengine's OneCycleLR."""
    found = (re.search(rf'^ +{name} \(([^)]*)\)', one.__doc__ or '', re.MULTILINE)
             for one in cls.__mro__)
    text = next((match[1] for match in found if match), '')
    return [kind for kind in (str, list, tuple, dict, int, float)
            if re.search(rf'\b{kind.__name__}', text)]


def _words(*kinds):
    return 'True or False' if kinds == (bool, ) else 'a number'


def _annotated(hint):
    choices = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint, )
    choices = [choice for choice in choices if choice is not type(None)]
    if choices and all(choice in NUMBERS for choice in choices):
        return _words(*choices), (str, list, tuple, dict)
    if choices and all(choice in NUMBERS or _is_list_of(NUMBERS, choice) for choice in choices):
        return 'numbers', (str, )
    words = [_words_of_no_number(choice) for choice in choices]
    return (' or '.join(words), (int, float)) if words and all(words) else ANY


def _words_of_no_number(hint):
    if hint is str:
        return 'text'
    if hint is dict or get_origin(hint) is dict:
        return 'a dict'
    return 'a list of text' if _is_list_of((str, ), hint) else None


def _is_list_of(kinds, hint):
    origin, items = get_origin(hint), [one for one in get_args(hint) if one is not Ellipsis]
    return isinstance(origin, type) and issubclass(origin, Iterable) and bool(items) and all(
        item in kinds for item in items)
