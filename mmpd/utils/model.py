"""Models in wrappers."""
from mmengine.model.wrappers import is_model_wrapper

__all__ = ['unwrap']


def unwrap(module):
    """The module inside a DistributedDataParallel wrapper, or the module itself."""
    return module.module if is_model_wrapper(module) else module
