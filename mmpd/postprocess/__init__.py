"""Colour fixes of any method's results, and which A made an LR; no MMagic."""
from .consistent import consistent

__all__ = ['consistent']
