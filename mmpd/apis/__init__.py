from .inferencer import PDInferencer

__all__ = ['PDInferencer']
