"""What the converters in ``tools/model_converters`` share."""
import io
import re

import torch
from mmagic.registry import MODELS

from ..errors import InputError
from ..utils.files import write_atomically
from ..version import __version__

__all__ = ['ConversionError', 'check', 'rename', 'write']


class ConversionError(InputError):
    """The checkpoint cannot be converted; the message is one line."""


def rename(state, table):
    """The state dict with its keys renamed by a table of patterns."""
    renamed = {}
    for key, value in state.items():
        for pattern, ours in table:
            key = re.sub(pattern, ours, key)
        renamed[key] = value
    return renamed


def check(state, cfg):
    """Raise ConversionError unless ``state`` is a state dict of the module ``cfg`` describes."""
    try:
        with torch.device('meta'):
            wanted = MODELS.build(cfg).state_dict()
    except (ValueError, RuntimeError) as error:
        raise ConversionError(f'no such {cfg["type"]}: {error}') from error
    problems = [f'"{key}" is missing' for key in wanted if key not in state]
    problems += [f'"{key}" is unknown' for key in state if key not in wanted]
    problems += [f'"{key}" is {tuple(state[key].shape)}, expected {tuple(value.shape)}'
                 for key, value in wanted.items() if key in state
                 and state[key].shape != value.shape]
    if problems:
        raise ConversionError(f'{len(problems)} tensors do not fit {cfg["type"]}: '
                              f'{"; ".join(problems[:3])}')


def check_target(target, overwrite):
    """Raise InputError if there is something that must not be written over."""
    if target.is_dir():
        raise InputError(f'{target} exists, and is a folder')
    if target.exists() and not overwrite:
        raise InputError(f'{target} exists, use --overwrite to replace it')


def write(state, cfg, source, target):
    """Save a converted state dict, the whole file or nothing, and say so."""
    meta, file = dict(mmpd_version=__version__, converted_from=source.name), io.BytesIO()
    torch.save(dict(state_dict=state, meta=meta), file)
    write_atomically(target, file.getbuffer())
    print(f'{target}: {len(state)} tensors for {cfg}')
