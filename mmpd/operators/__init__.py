from .average_pooling import AveragePooling, average_pool, pooling_decomposition, replicate
from .base import LinearOperator
from .builder import OPERATORS, build_operator
from .decomposition import decompose, replace_range
from .quantize import clip_uint8, consistent_uint8

__all__ = [
    'OPERATORS', 'AveragePooling', 'LinearOperator', 'average_pool', 'build_operator',
    'clip_uint8', 'consistent_uint8', 'decompose', 'pooling_decomposition', 'replace_range',
    'replicate'
]
