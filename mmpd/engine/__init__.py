from . import amp, hooks, loops

__all__ = ['amp', 'hooks', 'loops']
