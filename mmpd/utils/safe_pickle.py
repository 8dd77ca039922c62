"""What may be unpickled: tensors, plain containers and mmengine's log history; never code."""
import pickle
import pickletools
import re
import threading
import zipfile
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

__all__ = ['allowed_globals', 'foreign_names', 'load_pickled']

HISTORY_METHODS = ('min', 'max', 'current', 'mean')
# what torch itself allows in a file of weights
OF_TENSORS = re.compile(
    r'torch\.(_utils\._rebuild_\w+|_tensor\._rebuild_\w+|Size|Tensor|device|dtype|\w+Storage'
    r'|storage\.\w+Storage|nn\.parameter\.Parameter|serialization\._get_layout|bool'
    r'|(b?float|complex|q?u?int)\d+(_\w+)?)|collections\.(OrderedDict|Counter)|_codecs\.encode'
    r'|(builtins|__builtin__)\.(set|complex|bytearray)')
LOCK = threading.Lock()


def _history_method(owner, name):
    """``getattr`` for exactly what mmengine's checkpoints ask of it."""
    if owner is HistoryBuffer and name in HISTORY_METHODS:
        return getattr(HistoryBuffer, name)
    raise AttributeError(f'a checkpoint asks for attribute {name!r} of {owner!r}: refused')


def allowed_globals():
    """What mmengine's checkpoints name besides tensors, as {name in the file: object}.

    ``builtins.getattr``, which they name for four methods of HistoryBuffer, is a
    function that gives those four and nothing else.
    """
    core = np._core if hasattr(np, '_core') and hasattr(np._core, 'multiarray') else np.core
    kinds = [HistoryBuffer, np.ndarray, np.dtype]
    kinds += [type(np.dtype(kind)) for kind in ('f2', 'f4', 'f8', 'i4', 'i8', 'u1', '?')]
    names = {f'{kind.__module__}.{kind.__qualname__}': kind for kind in kinds}
    names.update({'builtins.getattr': _history_method, '__builtin__.getattr': _history_method})
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        names[f'{module}.scalar'] = core.multiarray.scalar
        names[f'{module}._reconstruct'] = core.multiarray._reconstruct
    return names


def load_pickled(path, map_location):
    """``torch.load`` of tensors, plain containers and :func:`allowed_globals`, of nothing else.

    Whatever else this process allows ``torch.load`` to make, and whatever
    ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD`` says: it does not count where ``weights_only`` is given.
    """
    if hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):
        # a file, not its name, by which torch 2.15 would tell safetensors
        with _only_allowed(), open(path, 'rb') as file:
            return torch.load(file, map_location=map_location, weights_only=True)
    try:  # torch < 2.6 cannot be told what else to allow
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError:
        if foreign_names(path):
            raise
        return torch.load(path, map_location=map_location, weights_only=False,
                          pickle_module=_RestrictedPickle)


@contextmanager
def _only_allowed():
    """Nothing but :func:`allowed_globals` for ``torch.load``, whoever has allowed what."""
    serialization = torch.serialization
    with LOCK:
        before = serialization.get_safe_globals()
        serialization.clear_safe_globals()
        serialization.add_safe_globals([(value, key) for key, value in allowed_globals().items()])
        try:
            yield
        finally:
            serialization.clear_safe_globals()
            serialization.add_safe_globals(before)


class _RestrictedPickle:
    """A pickle module that makes tensors and :func:`allowed_globals`, for torch < 2.6."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            full = f'{module}.{name}'
            if full in allowed_globals():
                return allowed_globals()[full]
            if OF_TENSORS.fullmatch(full):
                return super().find_class(module, name)
            raise pickle.UnpicklingError(f'{full} is not allowed')

    @classmethod
    def load(cls, file, **options):
        return cls.Unpickler(file, **options).load()


def foreign_names(path):
    """The names in a file's pickles that no checkpoint needs, without running any."""
    found, known = [], allowed_globals()
    try:
        with open(path, 'rb') as file:
            if zipfile.is_zipfile(file):
                archive = zipfile.ZipFile(file)
                member = next(name for name in archive.namelist() if name.endswith('/data.pkl'))
                _names_in(archive.open(member), found)
            else:
                file.seek(0)
                for _ in range(5):  # a legacy file begins with five pickles
                    _names_in(file, found)
    except Exception:  # where the bytes make no sense the scan ends
        pass
    return [name for name in dict.fromkeys(found)
            if name not in known and not OF_TENSORS.fullmatch(name)]


def _names_in(pickled, found):
    strings = []
    for code, value, _ in pickletools.genops(pickled):
        if code.name in ('GLOBAL', 'INST'):
            found.append(value.replace(' ', '.', 1))
        elif code.name == 'STACK_GLOBAL':
            found.append('.'.join(strings[-2:]))
        elif isinstance(value, str):
            strings.append(value)
