"""Models in wrappers, and their configs."""
import torch
from mmagic.registry import MODELS
from mmengine.model.wrappers import is_model_wrapper
from torch import nn

from .validation import ArgumentError, check_config, check_str, did_you_mean

__all__ = ['check_device', 'check_part', 'unwrap']


def unwrap(module):
    """The module inside a DistributedDataParallel wrapper, or the module itself.

    Example:
        >>> import torch
        >>> from mmpd.utils.model import unwrap
        >>> network = torch.nn.Linear(2, 1)
        >>> unwrap(network) is network  # of MMDistributedDataParallel(network) too
        True
    """
    return module.module if is_model_wrapper(module) else module


def check_device(value, name):
    """torch.device of ``value``, a name like 'cpu', 'cuda' or 'cuda:1', or a torch.device.

    Raises:
        ArgumentError: torch knows no such device, or this machine does not have it.

    Example:
        >>> from mmpd.utils.model import check_device
        >>> check_device('cpu', 'device')
        device(type='cpu')
    """
    try:
        device = torch.device(value if isinstance(value, torch.device) else check_str(value, name))
        torch.empty(1, device=device)
        return device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split('\n')[0]
        raise ArgumentError(f"{name}: expected 'cpu', 'cuda' or another device of this machine, "
                            f'got {str(value)!r} ({reason})') from None


def check_part(value, name):
    """Return ``value`` if it is a module, or a config of a type that is registered.

    Example:
        >>> from mmpd.utils.model import check_part
        >>> check_part(dict(type='L1Loss'), 'pixel_loss')
        {'type': 'L1Loss'}
        >>> check_part(dict(type='L1Los'), 'pixel_loss')
        Traceback (most recent call last):
            ...
        mmpd.errors.ArgumentError: pixel_loss.type: expected a registered model type, got ...
    """
    kind = value.get('type') if isinstance(check_config(value, name, nn.Module), dict) else None
    if isinstance(kind, str) and MODELS.get(kind) is None:
        raise ArgumentError(f'{name}.type: expected a registered model type, got {kind!r}'
                            f'{did_you_mean(kind, MODELS.module_dict)}')
    return value
