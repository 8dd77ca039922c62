"""Colour fixes of any method's results, and which A made an LR; torch, NumPy, Pillow alone."""
from .candidate import Candidate
from .free_kernel import FittedKernel, fit_kernel
from .identify import identify

__all__ = ['Candidate', 'FittedKernel', 'fit_kernel', 'identify']
