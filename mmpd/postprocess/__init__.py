"""What is done to any method's results so that they fit their LR; torch and NumPy are enough.

The comparators are written from their papers or from what their programs are documented to do.
All are called alike, ``f(sr, lr, operator, ...)`` with images in 0..255, so that a benchmark can
put them into one table (tools/benchmark/colour_fix.py); most are approximate.
"""
from .adain import adain
from .average_colour_fix import average_colour_fix
from .constraint_layers import (
    additive_constraint,
    multiplicative_constraint,
    scaled_additive_constraint,
    softmax_constraint,
)
from .iterative_back_projection import iterative_back_projection
from .wavelet import wavelet

__all__ = [
    'adain', 'additive_constraint', 'average_colour_fix', 'iterative_back_projection',
    'multiplicative_constraint', 'scaled_additive_constraint', 'softmax_constraint', 'wavelet',
]
