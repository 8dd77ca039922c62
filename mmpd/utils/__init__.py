"""What several rooms need: one module for checkpoints, files, images and models each."""

__all__ = ['checkpoint', 'files', 'images', 'model']
