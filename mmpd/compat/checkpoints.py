"""mmengine's checkpoints: resuming under torch >= 2.6, writing whole files only."""
from pathlib import Path

import numpy as np
import torch
from mmengine.fileio.backends import LocalBackend, register_backend
from mmengine.fileio.io import backend_instances
from mmengine.logging import HistoryBuffer

from ..utils.files import write_atomically

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
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(filepath, obj)

    def put_text(self, obj, filepath, encoding='utf-8'):
        """Write text like :meth:`put`."""
        self.put(obj.encode(encoding), filepath)


def write_checkpoints_atomically():
    """Make mmengine use :class:`AtomicLocalBackend` for plain paths."""
    register_backend('local', AtomicLocalBackend, force=True, prefixes='')
    for key in [key for key, value in backend_instances.items() if type(value) is LocalBackend]:
        del backend_instances[key]
