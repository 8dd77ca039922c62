"""Checkpoints: resuming under torch >= 2.6, writing whole files only, keys without wrappers."""
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import torch
from mmengine.fileio.backends import LocalBackend, register_backend
from mmengine.fileio.io import backend_instances
from mmengine.logging import HistoryBuffer

WRAPPER = re.compile(r'(^|\.)(?:module\.)+')
HISTORY_METHODS = ('min', 'max', 'current', 'mean')


def _history_method(owner, name):
    """``getattr`` for exactly what mmengine's checkpoints ask of it."""
    if owner is HistoryBuffer and name in HISTORY_METHODS:
        return getattr(HistoryBuffer, name)
    raise AttributeError(f'a checkpoint asks for attribute {name!r} of {owner!r}: refused')


def allow_history_buffers():
    """Let ``torch.load(weights_only=True)`` read the log history in mmengine's checkpoints.

    Only the classes which such files consist of are allowed; ``builtins.getattr``,
    which their pickles name for four methods of HistoryBuffer, is replaced by a
    function that gives those four and nothing else.
    """
    if not hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):
        return  # torch < 2.6 loads them anyway
    core = np._core if hasattr(np, '_core') and hasattr(np._core, 'multiarray') else np.core
    multiarray = core.multiarray
    names = [HistoryBuffer, np.ndarray, np.dtype, (_history_method, 'builtins.getattr')]
    names += [type(np.dtype(kind)) for kind in ('f2', 'f4', 'f8', 'i4', 'i8', 'u1', '?')]
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        names += [(multiarray.scalar, f'{module}.scalar'),
                  (multiarray._reconstruct, f'{module}._reconstruct')]
    torch.serialization.add_safe_globals(names)


class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, written under a temporary name and moved into place.

    A run that is killed while it writes a checkpoint keeps the one before.
    """

    def put(self, obj, filepath):
        """Write bytes, replacing ``filepath`` only when all of them are on disk."""
        path = Path(os.path.realpath(filepath))  # a link stays a link
        if path.exists() and not path.is_file():  # a device or pipe cannot be replaced
            return super().put(obj, filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f'.{path.name}.', dir=path.parent)
        try:
            with os.fdopen(handle, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files for the owner only
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise

    def put_text(self, obj, filepath, encoding='utf-8'):
        """Write text like :meth:`put`."""
        self.put(obj.encode(encoding), filepath)


def write_checkpoints_atomically():
    """Make mmengine use :class:`AtomicLocalBackend` for plain paths."""
    register_backend('local', AtomicLocalBackend, force=True, prefixes='')
    for key in [key for key, value in backend_instances.items() if type(value) is LocalBackend]:
        del backend_instances[key]


def strip_wrapper_prefix(state_dict):
    """Remove the ``module.`` of DDP wrappers from the keys, at whatever level.

    ``MMSeparateDistributedDataParallel`` wraps the children of a model, so its
    checkpoints have keys like ``generator.module.x``, of which a plain model
    loads nothing, silently.

    Args:
        state_dict (dict): Keys to tensors.

    Returns:
        dict: ``state_dict`` itself if there is nothing to remove, else a new
        one of the same type, with the same ``_metadata``.

    Raises:
        ValueError: if two keys become the same.
    """
    if not any(WRAPPER.search(key) for key in state_dict):
        return state_dict
    cleaned = type(state_dict)()
    for key, value in state_dict.items():
        new = WRAPPER.sub(r'\1', key)
        if new in cleaned:
            raise ValueError(f'The checkpoint has {new!r} both with and without the "module." of '
                             'a DDP wrapper: it is not clear which one is meant.')
        cleaned[new] = value
    if hasattr(state_dict, '_metadata'):
        cleaned._metadata = type(state_dict._metadata)(
            (WRAPPER.sub(r'\1', f'{key}.')[:-1] if key else key, value)
            for key, value in state_dict._metadata.items())
    return cleaned
