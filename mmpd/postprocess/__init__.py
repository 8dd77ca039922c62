"""What makes any method's results fit their LR, and which A made an LR; no MMagic.

:func:`consistent` is mmpd's own.  The comparators are written from their papers or from what their
programs are documented to do; called alike, ``f(sr, lr, operator, ...)`` with images in 0..255, so
that a benchmark can put them into one table (tools/benchmark/colour_fix.py).
"""
from .adain import adain
from .average_colour_fix import average_colour_fix
from .candidate import Candidate
from .consistent import consistent
from .constraint_layers import (
    additive_constraint,
    multiplicative_constraint,
    scaled_additive_constraint,
    softmax_constraint,
)
from .free_kernel import FittedKernel, fit_kernel
from .identify import identify
from .iterative_back_projection import iterative_back_projection
from .wavelet import wavelet

__all__ = [
    'Candidate', 'FittedKernel', 'adain', 'additive_constraint', 'average_colour_fix', 'consistent',
    'fit_kernel', 'identify', 'iterative_back_projection', 'multiplicative_constraint',
    'scaled_additive_constraint', 'softmax_constraint', 'wavelet',
]
