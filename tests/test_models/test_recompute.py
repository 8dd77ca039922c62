"""What is computed again in the backward pass gives the same gradients and keeps less."""
import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.graph import saved_tensors_hooks

from mmpd.models.recompute import recomputed, remade


def join(*parts):
    return torch.cat(parts, 1)


def leaves(*widths):
    return [torch.randn(2, width, 4, 4, dtype=torch.float64, requires_grad=True)
            for width in widths]


def ways(conv):
    return dict(remade=lambda *parts: remade(conv, join, *parts),
                recomputed=lambda *parts: recomputed(lambda *p: conv(join(*p)), *parts))


@pytest.mark.parametrize('way', ['remade', 'recomputed'])
def test_gradients_are_bitwise_the_same_and_differentiable_again(way):
    conv, parts = nn.Conv2d(5, 2, 3, padding=1).double(), leaves(2, 3)
    function = ways(conv)[way]
    inputs = [*parts, *conv.parameters()]
    expected = conv(join(*parts))
    result = function(*parts)
    assert torch.equal(result, expected)
    for one, other in zip(torch.autograd.grad(result.square().sum(), inputs),
                          torch.autograd.grad(expected.square().sum(), inputs), strict=True):
        assert torch.equal(one, other)
    assert gradcheck(function, parts) and gradgradcheck(function, parts)


@pytest.mark.parametrize('way', ['remade', 'recomputed'])
def test_the_joined_tensor_is_made_again_only_when_needed(way):
    calls = []

    def counted(*parts):
        calls.append(1)
        return join(*parts)

    conv, parts = nn.Conv2d(5, 2, 3).double(), leaves(2, 3)
    function = {'remade': lambda: remade(conv, counted, *parts),
                'recomputed': lambda: recomputed(lambda *p: conv(counted(*p)), *parts)}[way]
    with torch.no_grad():
        assert not function().requires_grad and len(calls) == 1
    result = function()
    assert len(calls) == 2
    result.sum().backward()
    assert len(calls) == 3


def test_remade_keeps_the_parts_and_not_the_whole():
    alive = []

    def watched(*parts):
        whole = join(*parts)
        alive.append(torch.multiprocessing.reductions.StorageWeakRef(whole.untyped_storage()))
        return whole

    conv, parts = nn.Conv2d(5, 2, 3).double(), leaves(2, 3)
    result = remade(conv, watched, *parts, enabled=False)
    assert not alive[-1].expired()
    result = remade(conv, watched, *parts)
    assert alive[-1].expired() and result.requires_grad


def test_remade_casts_again_what_autocast_casts():
    conv, calls, results = nn.Conv2d(5, 2, 3), [], []
    parts = [part.detach().float().requires_grad_() for part in leaves(2, 3)]

    def counted(*parts):
        calls.append(1)
        return join(*parts)

    for enabled in (False, True):
        calls.clear()
        with torch.autocast('cpu', torch.bfloat16):
            result = remade(conv, counted, *parts, enabled=enabled)
        results.append([result, *torch.autograd.grad(result.float().square().sum(),
                                                     [*parts, *conv.parameters()])])
        assert result.dtype == torch.bfloat16 and len(calls) == 1 + enabled
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize('function', [lambda whole: whole.mul(2).bfloat16().square(),
                                      lambda whole: whole.bfloat16().square(),
                                      lambda whole: whole[..., :2].bfloat16().square()],
                         ids=['another cast', 'cast', 'cast of a part'])
def test_only_casts_of_the_whole_are_made_again(function):
    parts = leaves(2, 3)
    ways = [torch.autograd.grad(remade(function, join, *parts, enabled=enabled).sum(), parts)
            for enabled in (False, True)]
    for one, other in zip(*ways, strict=True):
        assert torch.equal(one, other)


def test_recomputed_repeats_random_numbers_if_told():
    x = torch.ones(50, dtype=torch.float64, requires_grad=True)

    def noisy(x):
        return x * torch.rand_like(x)

    result = recomputed(noisy, x, random=True)
    result.sum().backward()
    assert torch.equal(x.grad, result.detach())


def test_disabled_is_a_plain_call():
    packed, (x,) = [], leaves(2)
    with saved_tensors_hooks(lambda tensor: packed.append(tensor) or tensor, lambda kept: kept):
        recomputed(torch.exp, x, enabled=False)
    assert len(packed) == 1
