"""Stand-ins for the two compiled mmcv ops that StyleGAN2 needs.

The plain wheel ``mmcv-lite`` has no ``mmcv._ext``, and MMagic then fails at
import.  A module of that name is put in its place; where compiled mmcv is
installed it is used, untouched.  triton_ops.py has the two ops as Triton kernels.
"""
import contextlib
import importlib
import sys
import warnings
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from mmengine.logging import print_log

from . import triton_ops

NAME = 'mmcv._ext'
REMEDY = ('compiled mmcv 2.1.0 is needed: "pip install mmcv==2.1.0 --no-build-isolation" '
          '(builds from source in about 20 minutes) in place of mmcv-lite')


def fused_bias_leakyrelu(input, bias, refer, act=3, grad=0, alpha=0.2, scale=2**0.5):
    """``scale * leaky_relu(input + bias)`` (grad=0) or its derivative (grad=1).

    Args:
        input (Tensor): (N, C, ...) features, or the gradient of the output.
        bias (Tensor): (C,), or empty for none.
        refer (Tensor): the op's output; its sign picks the branch when grad=1.
        act (int): 3, leaky ReLU, the only one StyleGAN2 uses.
        grad (int): 0 or 1.
        alpha (float): negative slope.
        scale (float): gain.

    Raises:
        ValueError: for a bias of another shape, another activation or order of derivative.
    """
    _tell(input)
    if bias.numel() and bias.shape != input.shape[1:2]:  # one value would be broadcast
        raise ValueError(f'bias: expected shape {tuple(input.shape[1:2])}, got '
                         f'{tuple(bias.shape)}')
    if act != 3 or grad not in (0, 1):
        raise ValueError(f'fused_bias_leakyrelu: expected act=3 and grad 0 or 1, got act={act}, '
                         f'grad={grad}')
    arguments = input, bias, refer, act, grad, alpha, scale
    out = None
    if triton_ops.can_activate(*arguments):
        out = triton_ops.activate(plain_bias_leakyrelu, *arguments)
    return plain_bias_leakyrelu(*arguments) if out is None else out


def plain_bias_leakyrelu(input, bias, refer, act=3, grad=0, alpha=0.2, scale=2**0.5):
    """:func:`fused_bias_leakyrelu` in PyTorch's own operations."""
    if bias.numel():
        input = input + bias.view(1, -1, *[1] * (input.ndim - 2))
    if grad == 1:
        return torch.ops.aten.leaky_relu_backward(input, refer, alpha, True).mul_(scale)
    # the sum is this function's own and may be overwritten
    out = F.leaky_relu(input, alpha, inplace=bool(bias.numel()))
    return out.mul_(scale)


def upfirdn2d(input, filter, upx, upy, downx, downy, padx0, padx1, pady0, pady1, flip, gain):
    """Zero-insertion upsampling, padding (or cropping), FIR filter, decimation.

    Args:
        input (Tensor): (N, C, H, W).
        filter (Tensor): (kh, kw).
        upx, upy, downx, downy (int): factors.
        padx0, padx1, pady0, pady1 (int): padding of the upsampled image, negative crops.
        flip (bool): True for correlation, False for convolution.
        gain (float): factor on the result.
    """
    _tell(input)
    arguments = (input, filter, upx, upy, downx, downy, padx0, padx1, pady0, pady1, flip, gain)
    out = None
    if triton_ops.can_resample(*arguments):
        out = triton_ops.resample(plain_upfirdn2d, *arguments)
    return plain_upfirdn2d(*arguments) if out is None else out


def plain_upfirdn2d(input, filter, upx, upy, downx, downy, padx0, padx1, pady0, pady1, flip, gain):
    """:func:`upfirdn2d` in PyTorch's own operations."""
    n, c, h, w = input.shape
    if upx > 1 or upy > 1:
        stuffed = input.new_zeros(n, c, h * upy, w * upx)
        stuffed[:, :, ::upy, ::upx] = input
        input = stuffed
    # the convolution pads without a copy, but only both sides alike
    alike = max(min(pady0, pady1), 0), max(min(padx0, padx1), 0)
    rest = padx0 - alike[1], padx1 - alike[1], pady0 - alike[0], pady1 - alike[0]
    if any(rest):
        input = F.pad(input, rest)
    kernel = (filter * gain).to(input.dtype)
    if not flip:
        kernel = kernel.flip(0, 1)
    return F.conv2d(input, kernel.expand(c, 1, -1, -1), stride=(downy, downx), padding=alike,
                    groups=c)


def _tell(input):
    """Say once, when a GPU first uses one, what stands in for compiled ops."""
    if input.is_cuda:
        _tell_once()


@cache
def _tell_once():
    how = ('as Triton kernels where they can, else ' if triton_ops.switched_on() else '')
    print_log('mmcv has no compiled ops: upfirdn2d and fused_bias_leakyrelu run '
              f'{how}in plain PyTorch.', logger='current')


class _StandIn(ModuleType):
    """``mmcv._ext`` without compiled code: two ops work, the rest explain themselves."""

    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)

        def missing(*args, **kwargs):
            raise RuntimeError(f'mmcv op "{name}" is not available with mmcv-lite: {REMEDY}.')

        return missing


def has_compiled_ops():
    """Whether the installed mmcv carries ``mmcv._ext`` (found without importing mmcv)."""
    spec = importlib.util.find_spec('mmcv')
    roots = (spec and spec.submodule_search_locations) or ()
    return any(path for root in roots for path in Path(root).glob('_ext.*'))


def install_ext_ops():
    """Put the stand-in in place where mmcv has no compiled ops."""
    if NAME in sys.modules or importlib.util.find_spec('mmcv') is None or has_compiled_ops():
        return
    module = _StandIn(NAME)
    module.__spec__ = ModuleSpec(NAME, loader=None)  # keeps mmcv.utils.check_ops_exist() False
    module.upfirdn2d = upfirdn2d
    module.fused_bias_leakyrelu = fused_bias_leakyrelu
    sys.modules[NAME] = module


@contextlib.contextmanager
def one_way_for_all_devices():
    """Tensors of every device take mmcv's autograd functions, for the time of an import and after.

    mmcv leaves tensors that are on no GPU to its references, which are slower on a CPU, and
    whose graph holds the sum before the activation and two padded copies before every blur.
    """
    if not isinstance(sys.modules.get(NAME), _StandIn):  # compiled ops run on GPUs alone
        yield
        return
    activation = importlib.import_module('mmcv.ops.fused_bias_leakyrelu')
    resampling = importlib.import_module('mmcv.ops.upfirdn2d')

    def activate(x, bias, negative_slope=0.2, scale=2**0.5):
        bias = x.new_empty(0) if bias is None else bias
        return activation.FusedBiasLeakyReLUFunction.apply(
            x, bias.to(x.dtype), negative_slope, scale)

    def resample(input, filter, **kwargs):
        return resampling._upfirdn2d_cuda(**kwargs).apply(input, filter)

    activation.bias_leakyrelu_ref = activate
    resampling._upfirdn2d_ref = resample
    yield


def silence_rolling_back():
    """Drop mmcv's warning that StyleGAN2's convolutions are torch's own: they are the right ones.

    It comes since torch 1.10, for every user, whatever is installed.
    """
    warnings.filterwarnings('ignore', 'Since aten:cudnn_convolution_backward_weight')
