"""What is done to any method's results so that they fit their LR; torch, NumPy and Pillow, no MMagic.

:func:`consistent` is mmpd's own.  The others are comparators, written from their papers or from
what their programs are documented to do; called alike, ``f(sr, lr, operator, ...)`` with images in
0..255, so that a benchmark can put them into one table (tools/benchmark/colour_fix.py).
"""
from .adain import adain
from .average_colour_fix import average_colour_fix
from .consistent import consistent
from .constraint_layers import (
    additive_constraint,
    multiplicative_constraint,
    scaled_additive_constraint,
    softmax_constraint,
)
from .iterative_back_projection import iterative_back_projection
from .wavelet import wavelet

__all__ = [
    'adain', 'additive_constraint', 'average_colour_fix', 'consistent',
    'iterative_back_projection', 'multiplicative_constraint', 'scaled_additive_constraint',
    'softmax_constraint', 'wavelet',
]
