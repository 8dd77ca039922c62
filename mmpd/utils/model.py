"""Models in wrappers, and their configs."""
import torch
from mmagic.registry import MODELS
from mmengine.model.wrappers import is_model_wrapper
from torch import nn

from .validation import ArgumentError, check_config, check_str, did_you_mean, refuse

__all__ = ['check_device', 'check_part', 'unwrap']


def unwrap(module):
    """The module inside a DistributedDataParallel wrapper, or the module itself."""
    return module.module if is_model_wrapper(module) else module


def check_device(value, name):
    """torch.device of ``value``, a name like 'cpu', 'cuda' or 'cuda:1', or a torch.device."""
    try:
        return torch.device(value if isinstance(value, torch.device) else check_str(value, name))
    except RuntimeError:
        refuse(name, "'cpu', 'cuda' or another device of torch", value)


def check_part(value, name):
    """Return ``value`` if it is a module, or a config of a type that is registered."""
    kind = value.get('type') if isinstance(check_config(value, name, nn.Module), dict) else None
    if isinstance(kind, str) and MODELS.get(kind) is None:
        raise ArgumentError(f'{name}.type: expected a registered model type, got {kind!r}'
                            f'{did_you_mean(kind, MODELS.module_dict)}')
    return value
