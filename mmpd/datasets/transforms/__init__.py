from .lr_synthesis import LRSynthesis

__all__ = ['LRSynthesis']
