"""Consistent GAN-prior super-resolution for MMagic (pooling-based decomposition).

``import mmpd`` (from ``custom_imports`` in a config) is all that is needed: it
mends what MMagic 1.x trips over on today's PyTorch and announces the package's
modules to MMagic's registries.  MMagic itself, which takes 15 s and more to
import, is only loaded when a registry is first asked for something, so
``mmpd.operators`` stays light.
"""
from . import compat
from .registry import announce
from .version import __version__

compat.apply()
announce()

__all__ = ['__version__']
