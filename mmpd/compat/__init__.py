"""What MMagic 1.x needs to run on today's PyTorch; nothing else in mmpd knows of it."""
from .checkpoints import allow_history_buffers, write_checkpoints_atomically
from .ext_ops import install_ext_ops


def apply():
    """Install every workaround; safe to call more than once."""
    install_ext_ops()
    allow_history_buffers()
    write_checkpoints_atomically()
