"""LR synthesis for training, data sets and their preparation.

Only ``image_dataset`` and ``transforms`` need MMagic.
"""

__all__ = ['image_dataset', 'preparation', 'resampling', 'transforms']
