"""Linear degradations A with their pseudo-inverse A†; torch and NumPy are all they need."""
from .average_pooling import AveragePooling, pooling_decomposition
from .base import LinearOperator
from .builder import OPERATORS, build_operator
from .cem import CEM
from .compose import Compose
from .compressed_sensing import BlockCompressedSensing
from .decomposition import decompose, replace_range
from .grayscale import Grayscale
from .masking import Masking
from .pooling_pass import average_pool, replicate
from .quantize import clip_uint8, consistent_uint8
from .resize import SeparableResize, resize_matrix
from .resolve import infer_scale, resolve_operator

__all__ = [
    'AveragePooling', 'BlockCompressedSensing', 'CEM', 'Compose', 'Grayscale', 'LinearOperator',
    'Masking', 'OPERATORS', 'SeparableResize', 'average_pool', 'build_operator', 'clip_uint8',
    'consistent_uint8', 'decompose', 'infer_scale', 'pooling_decomposition', 'replace_range',
    'replicate', 'resize_matrix', 'resolve_operator',
]
