"""Consistent GAN-prior super-resolution for MMagic (pooling-based decomposition).

``import mmpd`` (from ``custom_imports`` in a config) is all that is needed: it
mends what MMagic 1.x trips over on today's PyTorch and announces the package's
modules to MMagic's registries.  MMagic itself, which takes 15 s and more to
import, is only loaded when a registry is first asked for something.  Where it is
not installed ``mmpd.operators`` and ``mmpd.consistent`` work all the same.
"""
from .registry import announce, has_mmagic
from .version import __version__

__all__ = ['__version__', 'consistent']

if has_mmagic():
    from . import compat

    compat.apply()
    announce()


def __getattr__(name):
    """``mmpd.consistent``, and with it PyTorch, when it is first asked for."""
    if name == 'consistent':
        from .postprocess import consistent
        return consistent
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
