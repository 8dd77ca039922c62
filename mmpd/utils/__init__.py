"""What several rooms need: one module for checkpoints, files, images, models
and their names each."""

__all__ = ['checkpoint', 'files', 'images', 'model', 'model_zoo', 'rasters']
