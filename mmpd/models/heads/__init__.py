from .pd_head import PDHead

__all__ = ['PDHead']
