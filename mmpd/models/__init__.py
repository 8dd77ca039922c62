from . import discriminators, editors, generators, heads, losses

__all__ = ['discriminators', 'editors', 'generators', 'heads', 'losses']
