"""Stand-ins for the two compiled mmcv ops that StyleGAN2 needs.

The plain wheel ``mmcv-lite`` has no ``mmcv._ext``, and MMagic then fails at
import.  A module of that name is put in its place; where compiled mmcv is
installed it is used, untouched.
"""
import importlib.util
import sys
import warnings
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from mmengine.logging import print_log

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
    """
    _tell()
    if act != 3 or grad not in (0, 1):
        raise ValueError(f'fused_bias_leakyrelu: expected act=3 and grad 0 or 1, got act={act}, '
                         f'grad={grad}')
    if bias.numel():
        input = input + bias.view(1, -1, *[1] * (input.ndim - 2))
    if grad == 0:
        return F.leaky_relu(input, alpha) * scale
    return torch.where(refer > 0, input, input * alpha) * scale


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
    _tell()
    n, c, h, w = input.shape
    x = input.reshape(n * c, 1, h, w)
    if upx > 1 or upy > 1:
        stuffed = x.new_zeros(n * c, 1, h * upy, w * upx)
        stuffed[:, :, ::upy, ::upx] = x
        x = stuffed
    x = F.pad(x, (padx0, padx1, pady0, pady1))
    kernel = (filter * gain).to(x.dtype)
    if not flip:
        kernel = kernel.flip(0, 1)
    x = F.conv2d(x, kernel[None, None], stride=(downy, downx))
    return x.reshape(n, c, *x.shape[2:])


@cache
def _tell():
    """Say once, when one is first used, what stands in for compiled ops."""
    print_log('mmcv has no compiled ops: upfirdn2d and fused_bias_leakyrelu run in plain PyTorch.',
              logger='current')


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


def silence_rolling_back():
    """Drop mmcv's warning that StyleGAN2's convolutions are torch's own: they are the right ones.

    It comes since torch 1.10, for every user, whatever is installed.
    """
    warnings.filterwarnings('ignore', 'Since aten:cudnn_convolution_backward_weight')
