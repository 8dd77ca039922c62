"""onedl-mmengine, a fork under mmengine's import name: its reading of refused checkpoints."""
import torch
from mmengine.runner import checkpoint


def load(file, map_location=None, weights_only=None):
    """``torch.load`` as mmengine 0.10.7 calls it: what torch refuses stays refused."""
    kwargs = {} if weights_only is None else dict(weights_only=weights_only)
    return torch.load(file, map_location=map_location, **kwargs)


def block_unsafe_reload():
    """Take away the second try with ``weights_only=False``, which runs what a file contains."""
    if hasattr(checkpoint, '_safe_torch_load'):
        checkpoint._safe_torch_load = load
