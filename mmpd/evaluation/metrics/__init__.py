from .consistency import LRConsistency

__all__ = ['LRConsistency']
