"""onedl-mmcv and onedl-mmengine, forks under the import names of mmcv and mmengine."""
from importlib.metadata import PackageNotFoundError, version

import torch
from mmengine.runner import checkpoint

__all__ = ['block_unsafe_reload', 'load', 'tell_tensors_from_musa']


def load(file, map_location=None, weights_only=None):
    """``torch.load`` as mmengine 0.10.7 calls it: what torch refuses stays refused."""
    kwargs = {} if weights_only is None else dict(weights_only=weights_only)
    return torch.load(file, map_location=map_location, **kwargs)


def block_unsafe_reload():
    """Take away the second try with ``weights_only=False``, which runs what a file contains."""
    if hasattr(checkpoint, '_safe_torch_load'):
        checkpoint._safe_torch_load = load


def tell_tensors_from_musa():
    """``Tensor.is_musa``, which the ops of onedl-mmcv ask of every tensor and few builds have."""
    try:
        version('onedl-mmcv')
    except PackageNotFoundError:
        return
    if not hasattr(torch.Tensor, 'is_musa'):
        torch.Tensor.is_musa = False
