"""AmpOptimWrapper in MMagic's scope: mmengine's where it works, bfloat16 on CPUs."""
import pytest
import torch
from mmagic.registry import OPTIM_WRAPPERS
from torch import nn

from mmpd.engine import amp
from mmpd.errors import ArgumentError


def build(model, **options):
    return OPTIM_WRAPPERS.build(dict(
        type='AmpOptimWrapper', optimizer=torch.optim.SGD(model.parameters(), lr=0.1), **options))


@pytest.mark.parametrize('dtype', [None, 'bfloat16', torch.bfloat16])
def test_bfloat16_inside_and_float32_weights(monkeypatch, dtype):
    monkeypatch.setattr(amp, 'get_device', lambda: 'cpu')
    model = nn.Linear(2, 1)
    wrapper = build(model, dtype=dtype, loss_scale='dynamic', accumulative_counts=2)
    assert type(wrapper) is amp.CPUAmpOptimWrapper
    with wrapper.optim_context(model):
        output = model(torch.ones(3, 2))
    assert output.dtype == torch.bfloat16 and model(torch.ones(3, 2)).dtype == torch.float32
    before = model.bias.item()
    for _ in range(2):
        with wrapper.optim_context(model):
            wrapper.update_params(model(torch.ones(1, 2)).float().sum())
    assert model.bias.dtype == torch.float32
    assert model.bias.item() == pytest.approx(before - 0.1)  # the gradient 1, of two halves


def test_other_types_are_refused_on_a_cpu(monkeypatch):
    monkeypatch.setattr(amp, 'get_device', lambda: 'cpu')
    with pytest.raises(ArgumentError, match="dtype: expected 'bfloat16', .* got 'float16'"):
        build(nn.Linear(2, 1), dtype='float16')


def test_on_a_gpu_it_is_mmengines(monkeypatch):
    monkeypatch.setattr(amp, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(amp, 'AmpOptimWrapper', dict)
    found = build(nn.Linear(2, 1), dtype='float16', loss_scale=512., accumulative_counts=2)
    del found['optimizer']
    assert found == dict(dtype='float16', loss_scale=512., use_fsdp=False, accumulative_counts=2)
