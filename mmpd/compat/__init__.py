"""What MMagic 1.x needs to run on today's PyTorch; nothing else in mmpd knows of it."""
from .ext_ops import install_ext_ops


def apply():
    """Install every workaround; safe to call more than once."""
    install_ext_ops()
