"""A network in fewer bits than float32, inside a model whose other parts keep float32."""
from functools import partial

import torch

from ..errors import InputError
from ..models.editors.probing import probe
from ..utils.validation import check_choice

__all__ = ['DTYPES', 'check_dtype', 'narrow']

DTYPES = ('float32', 'bfloat16', 'float16')


def check_dtype(dtype, device):
    """Raise InputError unless a network can compute on a device in this precision.

    Args:
        dtype (str): 'float32', 'bfloat16' or 'float16'.
        device (torch.device): Where.

    Returns:
        torch.dtype: The precision.

    Example:
        >>> import torch
        >>> from mmpd.apis.precision import check_dtype
        >>> check_dtype('float32', torch.device('cpu'))
        torch.float32
        >>> check_dtype('float16', torch.device('cpu'))
        Traceback (most recent call last):
            ...
        mmpd.errors.InputError: dtype: float16 needs a CUDA GPU, and the device is cpu; ...
    """
    check_choice(dtype, 'dtype', DTYPES)
    if device.type == 'cpu' and dtype == 'float16':
        raise InputError('dtype: float16 needs a CUDA GPU, and the device is cpu; expected '
                         'bfloat16 or float32')
    if device.type == 'cpu' and dtype == 'bfloat16' and not _cpu_has_bfloat16():
        raise InputError('dtype: bfloat16 needs a processor that computes in it (AVX-512 or '
                         'newer), and this one does not; expected float32')
    return getattr(torch, dtype)


def _cpu_has_bfloat16():
    # torch's own question before it converts; there is no public one
    return torch.backends.mkldnn.is_available() and \
        torch.ops.mkldnn._is_mkldnn_bf16_supported()


def narrow(generator, dtype, name):
    """Convert a generator's weights, so that it computes in ``dtype``; its images stay float32.

    Weights are converted, not the operations (autocast): that would convert them for every image,
    and MMagic's style layers switch it off.

    Args:
        generator (nn.Module): In evaluation mode. Changed in place.
        dtype (torch.dtype): ``torch.bfloat16`` or ``torch.float16``.
        name (str): Of the model, for the message.

    Raises:
        InputError: for a network that cannot compute in it.
    """
    only = getattr(generator, 'dtypes', DTYPES)
    wanted = str(dtype).removeprefix('torch.')
    if wanted not in only:
        raise InputError(f'dtype: {name} ({type(generator).__name__}) computes in '
                         f'{" or ".join(only)} only, got {wanted}')
    # SpandrelGenerator undoes the normalisation, for which eight bits of a value are too few
    network = getattr(generator, 'network', generator)
    probed = probe(generator)
    network.to(dtype)

    network.register_forward_pre_hook(partial(_cast, dtype), with_kwargs=True)
    network.register_forward_hook(_widen)
    if isinstance(probed, Exception) or not isinstance(probe(generator), Exception):
        return
    try:  # the meta device may lack what others have
        with torch.no_grad():
            generator(torch.zeros_like(probed[0], device=next(network.parameters()).device))
    except RuntimeError as error:
        reason = str(error).split('\n')[0]
        raise InputError(f'dtype: {name} ({type(generator).__name__}) does not compute in {wanted} '
                         f'({reason}); expected float32') from error


def _cast(dtype, module, args, kwargs):
    return (tuple(_to(value, dtype) for value in args),
            {key: _to(value, dtype) for key, value in kwargs.items()})


def _widen(module, args, output):
    return _to(output, torch.float32)


def _to(value, dtype):
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.to(dtype)
    return value
