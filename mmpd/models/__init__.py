from ..compat.checkpoints import load_safely
from . import editors, generators, heads, losses

__all__ = ['editors', 'generators', 'heads', 'losses']

load_safely()  # MMagic imports this before it builds a model
