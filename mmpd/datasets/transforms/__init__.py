from .loading import LoadImageFromFile
from .lr_synthesis import LRSynthesis

__all__ = ['LRSynthesis', 'LoadImageFromFile']
