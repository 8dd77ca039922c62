"""What MMagic 1.x needs to run on today's PyTorch; nothing else in mmpd knows of it."""
from .checkpoints import (
    allow_history_buffers,
    load_safely_if_loaded,
    write_checkpoints_atomically,
)
from .ext_ops import install_ext_ops
from .process_group import join_gloo_threads_at_exit

__all__ = ['apply']


def apply():
    """Install every workaround; safe to call more than once."""
    install_ext_ops()
    allow_history_buffers()
    load_safely_if_loaded()
    write_checkpoints_atomically()
    join_gloo_threads_at_exit()
