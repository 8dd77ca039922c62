"""A GPU's mixed precision without a GPU: tensors that only say what they are, and its autocast.

PyTorch's meta device has no autocast, and its fake tensors that say they are on a GPU have no
backward pass where there is none. Fake tensors on the CPU have both; what is left is that autocast
lists some operations for CPUs alone and some for CUDA alone.
"""
from contextlib import contextmanager
from unittest import mock
from warnings import catch_warnings, filterwarnings

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map

# of what is on CUDA's list alone (ATen/autocast_mode.h); the rest of it is computed in float32
LESS_PRECISION = {'_convolution', 'addmv', 'addr', 'chain_matmul', 'convolution', 'einsum',
                  'linalg_multi_dot', 'mv'}
WIDEST = {'addcdiv', 'addcmul', 'atan2', 'bilinear', 'cross', 'dot', 'index_put', 'scatter_add',
          'tensordot', 'vdot'}
WITH_DTYPE = {'norm.Scalar': 'ScalarOpt_dtype', 'norm.ScalarOpt_dim': 'ScalarOpt_dim_dtype'}
LEFT_OUT = {'_scaled_dot_product_flash_attention', '_thnn_fused_gru_cell',
            '_thnn_fused_lstm_cell', 'gru_cell', 'lstm_cell', 'rnn_relu_cell', 'rnn_tanh_cell'}


def _listed(key):
    """Names of the operations that autocast lists, without their namespace."""
    names = torch._C._dispatch_get_registrations_for_dispatch_key(key)
    return {name.removeprefix('aten::') for name in names if name.startswith('aten::')}


def _is_cast(value):
    return (isinstance(value, torch.Tensor) and value.is_floating_point()
            and value.dtype != torch.float64)


def _kernel(name):
    """What CUDA's autocast does for an operation that is not on the list for CPUs."""
    packet, _, overload = name.partition('.')
    op = getattr(getattr(torch.ops.aten, packet), WITH_DTYPE.get(name, overload) or 'default')
    parameters = [argument.name for argument in op._schema.arguments]
    without_autocast = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)

    def kernel(*args, **kwargs):
        with torch._C._ExcludeDispatchKeyGuard(without_autocast):
            given = dict(zip(parameters, args, strict=False), **kwargs)
            dtype = torch.float32
            if packet in LESS_PRECISION:
                dtype = torch.bfloat16
            elif packet in WIDEST:
                found = {value.dtype for value in tree_leaves(given) if _is_cast(value)}
                dtype = torch.float32 if len(found) > 1 else None
            elif 'dtype' in parameters:  # the operation can do it itself
                if given.get('dtype') is None and (_is_cast(args[0]) or name in WITH_DTYPE):
                    kwargs['dtype'] = dtype if _is_cast(args[0]) else args[0].dtype
                    args = args[:parameters.index('dtype')]
                dtype = None
            if dtype is not None:
                args, kwargs = tree_map(
                    lambda value: value.to(dtype) if _is_cast(value) else value, (args, kwargs))
            return op(*args, **kwargs)

    return kernel


@contextmanager
def cuda_autocast():
    """Let ``torch.autocast('cpu', torch.bfloat16)`` cast what CUDA's autocast casts, and as it.

    Recurrent cells and flash attention are left as they are on CPUs. Needs PyTorch 2.2.
    """
    on_cpu, on_cuda = _listed('AutocastCPU'), _listed('AutocastCUDA')
    library = torch.library.Library('aten', 'IMPL')
    # MMagic's layers, which switch autocast off, would do it for the GPU where there is one
    with catch_warnings(), mock.patch('mmengine.runner.amp.get_device', lambda: 'cpu'):
        filterwarnings('ignore', '.*Overriding a previously registered kernel.*')
        filterwarnings('ignore', 'Accessing the data pointer of FakeTensor')  # by its deepcopy
        try:
            for name in on_cpu - on_cuda:
                library.impl(name, torch.library.fallthrough_kernel, 'AutocastCPU')
            for name in on_cuda - on_cpu:
                if name.partition('.')[0] not in LEFT_OUT and 'cudnn' not in name:
                    library.impl(name, _kernel(name), 'AutocastCPU')
            yield
        finally:
            library._destroy()


def fake_mode():
    """A mode in which tensors are made that only say what they are, and may meet real ones."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def make_fake(model, mode, device='cpu'):
    """Put fake tensors in the place of a model's own, which are on the meta device."""
    made = {}

    def fake(tensor):
        if id(tensor) not in made:
            made[id(tensor)] = torch.empty_strided(tensor.shape, tensor.stride(),
                                                   dtype=tensor.dtype, device=device)
            if isinstance(tensor, torch.nn.Parameter):
                made[id(tensor)] = torch.nn.Parameter(made[id(tensor)], tensor.requires_grad)
        return made[id(tensor)]

    with mode:
        for module in model.modules():
            for tensors in (module._parameters, module._buffers):
                tensors.update((name, fake(tensor)) for name, tensor in tensors.items()
                               if tensor is not None and tensor.is_meta)
