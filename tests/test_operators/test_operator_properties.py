"""The identities over random operators, sizes, batches, dtypes and memory formats."""
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpd.operators import (
    AveragePooling,
    BlockCompressedSensing,
    Compose,
    Grayscale,
    Masking,
    SeparableResize,
)
from mmpd.testing import assert_close


@st.composite
def cases(draw):
    """(operator, image shape): shapes and a seed are drawn, tensors are made from the seed."""
    kind = draw(st.sampled_from(('pool', 'resize', 'grey', 'sense', 'mask', 'chain')))
    channels, h, w = draw(st.integers(1, 4)), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    scale = draw(st.integers(1, 7))
    if kind == 'pool':
        return AveragePooling(scale), (channels, h * scale, w * scale)
    if kind == 'resize':
        kernel = draw(st.sampled_from(('bicubic', 'bilinear', 'lanczos', 'box')))
        return (SeparableResize(scale, kernel, draw(st.booleans())),
                (channels, h * scale, w * scale))
    if kind == 'grey':
        weights = [w / 8 for w in draw(st.lists(st.integers(-8, 8), min_size=channels,
                                                max_size=channels).filter(any))]
        return Grayscale(weights), (channels, h, w)
    if kind == 'sense':
        ratio = draw(st.floats(0.01, 1))
        return (BlockCompressedSensing(ratio, scale, draw(st.integers(0, 9))),
                (channels, h * scale, w * scale))
    if kind == 'mask':
        bits = draw(st.lists(st.booleans(), min_size=h * w, max_size=h * w).filter(any))
        return Masking(torch.tensor(bits).view(h, w)), (channels, h, w)
    factor = draw(st.integers(1, 3))
    return (Compose([AveragePooling(scale), Grayscale((0.5, 0.25)), SeparableResize(factor)]),
            (2, h * scale * factor, w * scale * factor))


@settings(deadline=None, max_examples=150)
@given(case=cases(), seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 3),
       dtype=st.sampled_from((torch.float64, torch.float32)),
       memory=st.sampled_from(('contiguous', 'channels_last', 'strided')))
def test_identities(case, seed, batch, dtype, memory):
    operator, shape = case
    generator = torch.Generator().manual_seed(seed)
    x, other = torch.randn(2, batch, *shape, generator=generator, dtype=torch.float64).to(dtype)
    if memory == 'channels_last':
        x = x.contiguous(memory_format=torch.channels_last)
    elif memory == 'strided':
        x = x.repeat_interleave(2, -1)[..., ::2]
    # conditions of up to 12 (lanczos without antialias) multiply rounding errors
    tolerance = 1e-11 if dtype == torch.float64 else 1e-4
    y, measured = operator.A(other), operator.A(x)
    ranged = operator.A_dagger(measured)
    size = max(x.abs().max(), other.abs().max(), y.abs().max())
    assert_close(operator.A(ranged), measured, 'A A† A = A', tolerance, size)
    back = operator.A_dagger(y)
    assert_close(operator.A_dagger(operator.A(back)), back, 'A† A A† = A†', tolerance,
                 max(size, back.abs().max()))
    assert_close(operator.A(x - ranged), torch.zeros_like(measured), 'A (I - A†A) = 0',
                 tolerance, size)
    assert_close((measured * y).sum(), (x * operator.A_adjoint(y)).sum(), 'adjoint', tolerance,
                 max(measured.norm() * y.norm(), 1e-6))
    result = operator.project(x, y)
    assert_close(operator.A(result), y, 'A x̂ = y', tolerance, size)
    if operator.is_exact:
        # the projection is orthogonal: what was added and what was kept are perpendicular
        inner = ((result - x) * (other - result)).sum()
        assert_close(inner, torch.zeros_like(inner), 'orthogonal', tolerance,
                     other.numel() * size**2)
        # not farther from the truth
        assert (result - other).norm() <= (x - other).norm() * (1 + tolerance) + 1e-6


@settings(deadline=None, max_examples=60)
@given(case=cases(), dtype=st.sampled_from((torch.float16, torch.bfloat16)),
       seed=st.integers(0, 2**32 - 1))
def test_half_precision_rounds_once(case, dtype, seed):
    operator, shape = case
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, *shape, generator=generator).to(dtype)
    y = operator.A(torch.randn(2, *shape, generator=generator)).to(dtype)
    result = operator.project(x, y)
    assert result.dtype == dtype
    assert torch.equal(result, operator.project(x.float(), y.float()).to(dtype))


@settings(deadline=None, max_examples=60)
@given(case=cases(), extra=st.integers(1, 3), axis=st.integers(0, 3))
def test_wrong_measurements_are_refused(case, extra, axis):
    operator, shape = case
    x = torch.zeros(2, *shape)
    right = operator.A(x).shape
    wrong = list(right)
    wrong[axis] += extra
    with pytest.raises(ValueError) as info:
        operator.project(x, torch.zeros(wrong))
    assert str(tuple(wrong)) in str(info.value) and str(tuple(right)) in str(info.value)
