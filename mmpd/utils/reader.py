"""Reading checkpoints: tensors and plain containers, from wherever; never code."""
import logging
import os
import tarfile
import zipfile
from pathlib import Path

import torch
from mmengine.logging import print_log
from safetensors.torch import load_file

from ..errors import InputError, WeightsMismatch, WeightsNotFound
from .download import fetch
from .safe_pickle import foreign_names, load_pickled

__all__ = ['check_finite', 'locate', 'read_checkpoint', 'read_file']

MAGIC = bytes.fromhex('6cfc9c46f9206aa85019')  # torch's legacy files begin with this number


def locate(source):
    """What a checkpoint is called in a config, as a local file; downloads it if need be.

    Args:
        source (str | Path): A path, an http(s) address, or one of mmengine's names:
            ``torchvision://``, ``openmmlab://``.

    Returns:
        Path: an existing file.

    Raises:
        WeightsNotFound: if there is none, or it cannot be downloaded.
        InputError: for another kind of address.
    """
    source = os.fspath(source)
    scheme, separator, name = source.partition('://')
    if not separator:
        path = Path(source).expanduser()
        if not path.is_file():
            raise WeightsNotFound(f'no file {source}' + ' (it is a folder)' * path.is_dir())
        return path
    if scheme in ('http', 'https'):
        return fetch(source)
    if scheme not in ('torchvision', 'modelzoo', 'open-mmlab', 'openmmlab', 'mmcls'):
        raise InputError(f'{source}: expected a file, http(s)://, torchvision:// or openmmlab://; '
                         f'get the file from {scheme}:// yourself and name it')
    from mmengine.runner import checkpoint as tables  # takes 4 s to import
    if scheme in ('torchvision', 'modelzoo'):
        known = tables.get_torchvision_models()
    elif scheme == 'mmcls':
        known = tables.get_mmcls_models()
    else:
        known = tables.get_external_models()
        name = tables.get_deprecated_model_names().get(name, name)
    if name not in known:
        raise WeightsNotFound(f'{source}: mmengine knows no such model')
    if '://' in known[name]:
        return locate(known[name])
    home = os.getenv('MMENGINE_HOME',
                     os.path.join(os.getenv('XDG_CACHE_HOME', '~/.cache'), 'mmengine'))
    return locate(os.path.join(home, known[name]))  # from the user's own table


def read_checkpoint(source, map_location='cpu'):
    """Read a checkpoint, whatever it is called in a config, and check it.

    Args:
        source (str | Path): See :func:`locate`.
        map_location: As in ``torch.load``; None is the CPU.

    Returns:
        dict: What it holds; of a ``.safetensors`` file ``dict(state_dict=...)``.

    Raises:
        WeightsNotFound: if it cannot be had.
        WeightsMismatch: if it cannot be read, says what it is, or if a weight is NaN.
    """
    path = locate(source)
    name = _name(source, path)
    content = read_file(path, map_location, name)
    check_finite(content.get('state_dict', content), name, infinite=False)
    if str(source).startswith('mmcls://'):  # of a classifier mmengine takes the backbone
        state = content.get('state_dict', content)
        content = dict(state_dict={key.removeprefix('backbone.'): value for key, value in
                                   state.items() if key.startswith('backbone.')})
    return content


def _name(source, path):
    """A checkpoint in messages; of a downloaded one the place, to have a look or delete it."""
    return f'{source} (in {path})' if '://' in str(source) else str(source)


def check_finite(state, name, infinite=True):
    """Raise WeightsMismatch if a tensor of a state dict has NaN, or ``infinite`` values.

    Args:
        state (dict): Keys to tensors; other values are passed over.
        name (str): What to call it in messages.
        infinite (bool): Whether to refuse infinite values, which masks have, weights have not.
    """
    for key, value in state.items() if isinstance(state, dict) else ():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.is_meta:
            continue
        value = value.detach()
        value = value.float() if value.element_size() == 1 else value  # 8-bit floats
        if torch.isfinite(value).all():
            continue
        for kind, bad in (('NaN', torch.isnan(value)), ('infinite', torch.isinf(value))):
            if bad.any() and (kind == 'NaN' or infinite):
                raise WeightsMismatch(
                    f'{name}: {bad.sum().item()} of {value.numel()} values of "{key}" are {kind}: '
                    'the run it comes from had diverged, or the file is damaged')


def read_file(path, map_location='cpu', name=None):
    """Read a file of torch (zip or legacy) or of safetensors; its content says which.

    Nothing in it is run, see :func:`load_pickled`. The checksums in a zip file, which torch
    ignores, are verified.

    Args:
        path (str | Path): The file.
        map_location: As in ``torch.load``; None is the CPU.
        name (str, optional): What to call it in messages.

    Returns:
        dict: What it holds; of safetensors ``dict(state_dict=...)``.

    Raises:
        WeightsMismatch: if it is something else, damaged, or holds code.
    """
    name = name or path
    kind = _kind(path, name)
    try:
        if kind == 'safetensors':
            content = dict(state_dict={key: _move(value, map_location)
                                       for key, value in load_file(path).items()})
        else:
            content = load_pickled(path, 'cpu' if map_location is None else map_location)
    except Exception as error:  # zip, pickle, tensor and refusal errors have no common base
        raise WeightsMismatch(f'{name} cannot be read: {_reason(path, kind, error)}') from error
    if not isinstance(content, dict):
        raise WeightsMismatch(f'{name} holds no state dict: it is a {type(content).__name__}')
    return content


def _move(value, map_location):
    return value.to(map_location) if isinstance(map_location, (str, torch.device)) else value


def _kind(path, name):
    """'zip', 'pickle' or 'safetensors'; for anything else WeightsMismatch says what it is."""
    with open(path, 'rb') as file:
        start = file.read(64)
    text = start.lstrip().lower()
    if start.startswith(b'PK'):
        reason = _fault_of_zip(path, name)
        kind = 'zip'
    elif start[8:9] == b'{' and int.from_bytes(start[:8], 'little') < 2**30:
        kind, reason = 'safetensors', None
    elif not start:
        reason = 'it is empty'
    elif text.startswith(b'<'):
        reason = 'it is an HTML or XML page, perhaps the login or error page of a server'
    elif start.startswith(b'version https://git-lfs'):
        reason = 'it is a Git LFS pointer; "git lfs pull" gets the file that it stands for'
    elif tarfile.is_tarfile(path):  # up to 2.5 torch runs code in such files
        reason = 'it is a tar archive, a format of torch before 0.2'
    elif start.startswith(b'\x80'):
        kind = 'pickle'
        reason = None if MAGIC in start else _reason(path, kind, 'it is not of torch.save')
    else:
        reason = f'it is no checkpoint, it begins with {start[:16]!r}'
    if reason:
        raise WeightsMismatch(f'{name} cannot be read: {reason}')
    return kind


def _fault_of_zip(path, name):
    """What is wrong with a zip file, or None; reads all of it."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename.partition('/')[2] for member in members]
            if 'constants.pkl' in names:
                return 'it is a TorchScript program, not the weights of a model'
            if 'data.pkl' not in names:
                return f'it is a zip file, but not of torch.save: it holds {members[0].filename}' \
                    if members else 'it is an empty zip file'
            if not any(member.CRC for member in members):
                print_log(f'{name} was written without checksums '
                          '(torch.serialization.set_crc32_options): damage would not be noticed',
                          logger='current', level=logging.WARNING)
                return None
            part = archive.testzip()
            return f'it is damaged: the checksum of its part {part} is wrong' if part else None
    except zipfile.BadZipFile as error:
        return f'it is truncated or damaged ({error})'
    except Exception as error:  # whatever damaged bytes provoke in zipfile and zlib
        return f'it is damaged ({type(error).__name__}: {error})'


def _reason(path, kind, error):
    """One line on why a file could not be read. torch's own advice is to run what is in it."""
    if kind == 'safetensors':
        return f'it is a damaged or truncated .safetensors file ({error})'
    names = foreign_names(path)
    if names:
        more = f' and {len(names) - 1} more' if len(names) > 1 else ''
        return (f'its pickle asks for {names[0]}{more}: not tensors but code, none of which was '
                'run. Ask its maker for the state dict alone, or as .safetensors')
    if isinstance(error, AttributeError):
        return f'{error}; a checkpoint is tensors and plain containers'
    first = str(error).strip().split('\n')[0]
    if 'weights only' in first.lower() or 'weights_only' in first:
        first = ''
    if isinstance(error, Exception):
        first = type(error).__name__ + f': {first}' * bool(first)
    return f'it is damaged, truncated or no checkpoint ({first})'
