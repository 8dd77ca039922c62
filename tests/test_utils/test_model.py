"""Models in wrappers, and the parts of their configs."""
import pytest
import torch
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from mmpd.errors import ArgumentError
from mmpd.utils.model import check_device, check_part, unwrap


def test_unwrap():
    @MODEL_WRAPPERS.register_module(force=True)
    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    network = nn.ModuleDict(dict(module=nn.Identity()))
    assert unwrap(network) is network  # no wrapper, though a child is called like that
    assert unwrap(Wrapper(network)) is network


def test_devices():
    assert check_device('cpu:0', 'device') == torch.device('cpu', 0)
    assert check_device(torch.device('cpu'), 'device') == torch.device('cpu')
    for wrong in ('gpu', 'cuda:x', 3, '', 'cuda:99', torch.device('cuda', 99)):
        got = repr(str(wrong) if isinstance(wrong, torch.device) else wrong)
        with pytest.raises(ArgumentError, match=f'device: expected .*got {got}'):
            check_device(wrong, 'device')


def test_parts():
    module = nn.Identity()
    assert check_part(module, 'part') is module
    assert check_part(dict(type='L1Loss'), 'part') == dict(type='L1Loss')
    assert check_part(dict(type=nn.Identity), 'part') == dict(type=nn.Identity)
    for wrong, message in ((dict(type='L1Los'), "part.type: expected a registered model type, got "
                            "'L1Los'; did you mean 'L1Loss'"),
                           (dict(), "part: expected a dict with a 'type'"), (3, 'got 3')):
        with pytest.raises(ArgumentError, match=message):
            check_part(wrong, 'part')
