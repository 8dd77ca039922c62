"""What MMagic 1.x needs to run on today's PyTorch; nothing else in mmpd knows of it."""
from .checkpoints import (
    allow_history_buffers,
    find_checkpoints_beside_their_note,
    load_safely,
    write_checkpoints_atomically,
)
from .ext_ops import install_ext_ops, silence_rolling_back
from .mmagic_import import install_mmagic_finder
from .onedl import block_unsafe_reload, tell_tensors_from_musa
from .package_utils import replace_find_loader, replace_pkg_resources
from .process_group import join_gloo_threads_at_exit

__all__ = ['apply']


def apply():
    """Install every workaround; safe to call more than once.

    Example:
        >>> import torch
        >>> from mmpd import compat
        >>> compat.apply()  # import mmpd has done it already
        >>> from mmcv.ops import upfirdn2d  # works without mmcv's compiled operations
        >>> upfirdn2d(torch.ones(1, 1, 2, 3), torch.ones(2, 2)).tolist()
        [[[[4.0, 4.0]]]]
    """
    install_mmagic_finder()
    install_ext_ops()
    silence_rolling_back()
    replace_pkg_resources()
    replace_find_loader()
    allow_history_buffers()
    load_safely()
    write_checkpoints_atomically()
    find_checkpoints_beside_their_note()
    block_unsafe_reload()
    tell_tensors_from_musa()
    join_gloo_threads_at_exit()
