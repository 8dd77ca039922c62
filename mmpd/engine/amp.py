"""Mixed precision on CPUs, which mmengine's AmpOptimWrapper refuses."""
from contextlib import contextmanager

import torch
from mmagic.registry import OPTIM_WRAPPERS
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from mmpd.utils.validation import ArgumentError

__all__ = ['CPUAmpOptimWrapper', 'amp_optim_wrapper']


class CPUAmpOptimWrapper(OptimWrapper):
    """Trains in bfloat16 where ``torch.autocast('cpu')`` allows it.

    bfloat16 has the range of float32, so that no loss has to be scaled.

    Args:
        kwargs: Those of mmengine's OptimWrapper.

    Example:
        >>> import torch
        >>> from mmpd.engine.amp import CPUAmpOptimWrapper
        >>> model = torch.nn.Linear(2, 1)
        >>> wrapper = CPUAmpOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
        >>> with wrapper.optim_context(model):
        ...     print(model(torch.rand(1, 2)).dtype)
        torch.bfloat16
    """

    @contextmanager
    def optim_context(self, model):
        """Autocast inside."""
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield


@OPTIM_WRAPPERS.register_module(name='AmpOptimWrapper')
def amp_optim_wrapper(loss_scale='dynamic', dtype=None, use_fsdp=False, **kwargs):
    """mmengine's AmpOptimWrapper, or on a CPU a :class:`CPUAmpOptimWrapper`.

    Args:
        loss_scale, dtype, use_fsdp, kwargs: Those of mmengine's. On a CPU the loss is not scaled,
            and ``dtype`` is 'bfloat16'.

    Raises:
        ArgumentError: on a CPU, for another dtype.

    Example:
        >>> import torch
        >>> from mmpd.engine.amp import amp_optim_wrapper
        >>> optimizer = torch.optim.SGD(torch.nn.Linear(2, 1).parameters(), lr=0.1)
        >>> wrapper = amp_optim_wrapper(optimizer=optimizer)  # optim_wrapper.type='AmpOptimWrapper'
        >>> type(wrapper).__name__.endswith('AmpOptimWrapper')  # CPUAmpOptimWrapper without a GPU
        True
    """
    if get_device() != 'cpu':
        return AmpOptimWrapper(loss_scale=loss_scale, dtype=dtype, use_fsdp=use_fsdp, **kwargs)
    if dtype not in (None, 'bfloat16', torch.bfloat16):
        raise ArgumentError(f"dtype: expected 'bfloat16', which CPUs have, got {dtype!r}")
    return CPUAmpOptimWrapper(**kwargs)
