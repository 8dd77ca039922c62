"""mmengine's checkpoints: read without running anything, written whole or not at all."""
import sys
from pathlib import Path

import torch
from mmengine.fileio.backends import LocalBackend, register_backend
from mmengine.fileio.io import backend_instances
from mmengine.runner.checkpoint import CheckpointLoader

from ..utils.files import write_atomically
from ..utils.reader import read_checkpoint
from ..utils.run_folder import resumable
from ..utils.safe_pickle import allowed_globals

# names of checkpoints that mmengine unpickles, by ways of its own each
PREFIXES = ('', 'http://', 'https://', 'torchvision://', 'modelzoo://', 'open-mmlab://',
            'openmmlab://', 'mmcls://', 'pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://')


def allow_history_buffers():
    """Let ``torch.load(weights_only=True)`` read the log history in mmengine's checkpoints.

    Only the classes which such files consist of are allowed, see :func:`allowed_globals`. mmpd
    itself reads checkpoints without it; it is for ``torch.load`` in other programs.
    """
    if hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):  # torch >= 2.6
        torch.serialization.add_safe_globals(
            [(value, name) for name, value in allowed_globals().items()])


def load_from_checked_file(filename, map_location=None):
    """What mmengine calls to read a checkpoint, in place of its own loaders."""
    return read_checkpoint(filename, map_location)


def load_safely():
    """Make mmengine read every checkpoint through :func:`read_checkpoint`.

    ``load_from``, ``resume``, ``init_cfg`` of any module and ``load_checkpoint`` come to
    ``CheckpointLoader``, whose own loaders unpickle whatever an address gives, and in
    forks of mmengine local files too.
    """
    known = list(PREFIXES) + [  # those of a fork
        prefix for prefix, loader in CheckpointLoader._schemes.items()
        if loader.__module__.split('.')[0] == 'mmengine']
    CheckpointLoader.register_scheme(known, load_from_checked_file, force=True)


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


def find_latest_checkpoint(path):
    """In place of mmengine's, which takes ``last_checkpoint`` for relative to where it runs.

    Args:
        path (str): The work directory.

    Returns:
        str | None: The checkpoint to resume from, not checked to be whole.
    """
    found = resumable(path)
    return next((name for name in found if '://' in name or Path(name).is_file()),
                found[0] if found else None)


def find_checkpoints_beside_their_note():
    """Make mmengine's runners resume from :func:`find_latest_checkpoint`."""
    for name, module in list(sys.modules.items()):
        if 'mmengine' in name and hasattr(module, 'find_latest_checkpoint'):
            module.find_latest_checkpoint = find_latest_checkpoint
