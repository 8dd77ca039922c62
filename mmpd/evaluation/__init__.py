"""Metrics; ``functional`` has those that need no MMagic."""

__all__ = ['functional', 'metrics', 'protocol']
