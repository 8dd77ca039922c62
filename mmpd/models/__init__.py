from . import editors, generators, heads, losses

__all__ = ['editors', 'generators', 'heads', 'losses']
