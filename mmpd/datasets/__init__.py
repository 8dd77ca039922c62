"""LR synthesis for training, and the preparation of data sets; needs no MMagic but transforms."""

__all__ = ['preparation', 'resampling', 'transforms']
