"""The fused pass of PD: parity with the paper's formula, memory, in-place, gradients."""
import contextlib
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import mmpd.operators.pooling_pass as module
from mmpd.operators import AveragePooling, average_pool, pooling_decomposition, replicate
from mmpd.operators.base import DeferredCheck


def paper_formula(x, y, scale):
    """Eq. (9) with torch's own pooling and the broadcast of the paper's appendix D."""
    pooled = F.adaptive_avg_pool2d(x, (x.shape[2] // scale, x.shape[3] // scale))
    return F.interpolate(y, scale_factor=scale) + x - F.interpolate(pooled, scale_factor=scale)


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 3), c=st.integers(1, 5), h=st.integers(1, 7), w=st.integers(1, 7),
       scale=st.integers(1, 9), seed=st.integers(0, 2**32 - 1),
       block=st.sampled_from((1, 999, 2**21)), small=st.sampled_from((0, 2**14)),
       memory=st.sampled_from((torch.contiguous_format, torch.channels_last)),
       dtype=st.sampled_from((torch.float64, torch.float32)))
def test_equals_the_paper(n, c, h, w, scale, seed, block, small, memory, dtype):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, c, h * scale, w * scale, generator=generator, dtype=dtype)
    y = torch.randn(n, c, h, w, generator=generator, dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, 'TEMPORARY_BYTES', block)  # many blocks, uneven ones, a single one
        patch.setattr(module, 'SMALL', small)
        result = pooling_decomposition(x.contiguous(memory_format=memory), y, scale)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(result, paper_formula(x, y, scale), rtol=0, atol=tolerance)
    torch.testing.assert_close(average_pool(result, scale), y, rtol=0, atol=tolerance)


@pytest.mark.parametrize('scale', (1, 2, 5))
def test_pool_and_replicate_equal_torch(scale):
    x = torch.randn(2, 3, 3 * scale, 4 * scale, dtype=torch.float64)
    torch.testing.assert_close(average_pool(x, scale), F.avg_pool2d(x, scale))
    y = torch.randn(2, 3, 3, 4)
    assert torch.equal(replicate(y, scale), F.interpolate(y, scale_factor=scale))


def test_memory_format_is_kept():
    x = torch.rand(2, 3, 8, 16).contiguous(memory_format=torch.channels_last)
    result = pooling_decomposition(x, torch.rand(2, 3, 2, 4), 4)
    assert result.is_contiguous(memory_format=torch.channels_last) and not result.is_contiguous()


@pytest.mark.parametrize('memory', (torch.contiguous_format, torch.channels_last))
def test_inplace(memory):
    x, y = torch.rand(2, 3, 16, 24), torch.rand(2, 3, 2, 3)
    expected = pooling_decomposition(x, y, 8)
    written = x.clone(memory_format=memory)
    result = pooling_decomposition(written, y, 8, inplace=True)
    assert result.data_ptr() == written.data_ptr()
    torch.testing.assert_close(written, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize('products', (0, 1 << 18))
@pytest.mark.parametrize('y', (None, torch.full((1, 1, 1, 2), -2e38)))
def test_too_large_values_without_a_check_are_not_warned_of(monkeypatch, recwarn, products, y):
    """NumPy would, of infinite sums and of infinity times 0."""
    monkeypatch.setattr(module, 'PRODUCTS', products)
    x = torch.full((1, 1, 2, 4), 3e38)
    for strength in (1.0, 0.0):
        result = module.fused_projection(x, y, 2, strength)
        assert not torch.isfinite(result).any() and not recwarn
    with pytest.raises(ValueError, match='the values are too large|non-finite|expected finite'):
        module.fused_projection(x, y, 2, 1.0, check=True)


def test_inplace_refuses_gradients_and_strides():
    x, y = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 1, 1)
    with pytest.raises(ValueError, match='requires grad'):
        pooling_decomposition(x.requires_grad_(), y, 8, inplace=True)
    with torch.no_grad():
        pooling_decomposition(x, y, 8, inplace=True)
        with pytest.raises(ValueError, match='contiguous'):
            pooling_decomposition(torch.rand(1, 3, 8, 16)[..., ::2], y, 8, inplace=True)


def test_inputs_are_not_written():
    x, y = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 2, 2)
    before = x.clone(), y.clone()
    pooling_decomposition(x, y, 8, strength=0.5)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])


@pytest.mark.parametrize('strength', (1.0, 0.3))
def test_gradients_equal_those_of_the_formula(strength):
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    ours = (pooling_decomposition(x, y, 4, strength)**3 * weight).sum()
    plain = ((x + strength * (paper_formula(x, y, 4) - x))**3 * weight).sum()
    for a, b in zip(torch.autograd.grad(ours, (x, y)), torch.autograd.grad(plain, (x, y)),
                    strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_backward_is_the_projection_of_the_gradient():
    x = torch.randn(1, 3, 16, 16, requires_grad=True)
    weight = torch.randn(1, 3, 16, 16)
    (pooling_decomposition(x, torch.randn(1, 3, 2, 2), 8) * weight).sum().backward()
    torch.testing.assert_close(average_pool(x.grad, 8), torch.zeros(1, 3, 2, 2), rtol=0, atol=1e-6)
    torch.testing.assert_close(x.grad, weight - replicate(average_pool(weight, 8), 8))


def test_only_the_needed_gradient_is_computed():
    x, y = torch.randn(1, 1, 4, 4), torch.randn(1, 1, 2, 2, requires_grad=True)
    pooling_decomposition(x, y, 2).sum().backward()
    torch.testing.assert_close(y.grad, torch.full((1, 1, 2, 2), 4.0))
    assert x.grad is None


@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16))
def test_gradient_dtypes_under_half(dtype):
    x = torch.randn(1, 3, 8, 8, dtype=dtype, requires_grad=True)
    y = torch.randn(1, 3, 2, 2, dtype=torch.float32, requires_grad=True)
    result = pooling_decomposition(x, y, 4)
    result.float().square().sum().backward()
    assert result.dtype == x.grad.dtype == dtype and y.grad.dtype == torch.float32


def test_float64_measurement_of_a_float32_image():
    x, y = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 2, 2, dtype=torch.float64)
    expected = pooling_decomposition(x.double(), y, 4).float()
    assert torch.equal(pooling_decomposition(x, y, 4), expected)


def test_extra_memory_is_one_image():
    """Counted by torch's own profiler: the output and blocks, nothing else of that size."""
    x, y = torch.rand(4, 3, 512, 512), torch.rand(4, 3, 256, 256)
    with torch.profiler.profile(profile_memory=True) as profile:
        pooling_decomposition(x, y, 2, check=False)
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == '[memory]':
            held += event.nbytes()
            peak = max(peak, held)
    image = x.numel() * 4
    assert image <= peak <= image + 1.5 * module.TEMPORARY_BYTES, (peak - image) / 2**20


@pytest.mark.parametrize('size, operations', [(64, 0), (512, 2)])
def test_few_operations_wait_for_other_threads(size, operations):
    """Two that read the image, if it is large, and none in between.

    torch divides operations on more than 32,768 numbers among its threads.
    """
    x, y = torch.rand(1, 3, size, size), torch.rand(1, 3, size // 8, size // 8)
    with torch.profiler.profile(record_shapes=True) as profile:
        result = pooling_decomposition(x, y, 8)
    torch.testing.assert_close(result, paper_formula(x, y, 8), rtol=0, atol=1e-6)
    computing = [event for event in profile.events() if event.name in
                 ('aten::add', 'aten::sum', 'aten::bmm', 'aten::copy_', 'aten::mul', 'aten::sub',
                  'aten::addmv', 'aten::avg_pool2d', 'aten::neg')]
    assert sum(max(math.prod(shape) for shape in event.input_shapes if shape) > 1 << 15
               for event in computing) == operations


@pytest.mark.parametrize('batch, size, scale, operations', [
    (1, 64, 8, []), (1, 128, 8, ['add']), (1, 256, 8, ['sum', 'add']), (8, 64, 8, ['sum', 'add']),
    (1, 128, 2, ['sum', 'add'])])
def test_small_images_take_none_of_the_operations_with_threads(batch, size, scale, operations):
    """To start one takes longer than NumPy's work on a small image, and it may have to wait."""
    x, y = torch.rand(batch, 3, size, size), torch.rand(batch, 3, size // scale, size // scale)
    with torch.profiler.profile() as profile:
        result = pooling_decomposition(x, y, scale)
    torch.testing.assert_close(result, paper_formula(x, y, scale), rtol=0, atol=1e-6)
    names = [event.name.removeprefix('aten::') for event in profile.events()]
    assert [name for name in names if name in ('add', 'sum', 'avg_pool2d', 'sub', 'neg', 'mm',
                                               'bmm', 'addmv', 'copy_')] == operations


@pytest.mark.parametrize('x_dtype, y_dtype', [(torch.float32, torch.float64),
                                              (torch.float64, torch.float32)])
def test_derivatives_by_y_are_as_precise_as_the_projection(x_dtype, y_dtype):
    x, y = torch.rand(1, 1, 64, 64, dtype=x_dtype), torch.rand(1, 1, 2, 2, dtype=y_dtype)
    y.requires_grad_()
    result, weight = pooling_decomposition(x, y, 32, 0.3), torch.rand_like(x)
    result.backward(weight)
    exact = 0.3 * average_pool(weight.double(), 32) * 32**2
    torch.testing.assert_close(y.grad, exact.to(y_dtype), rtol=1e-15, atol=0)
    with torch.autograd.forward_ad.dual_level():
        tangent = torch.rand_like(y)
        dual = torch.autograd.forward_ad.make_dual(y.detach(), tangent)
        along = torch.autograd.forward_ad.unpack_dual(
            pooling_decomposition(x, dual, 32, 0.3)).tangent
    torch.testing.assert_close(along, (0.3 * replicate(tangent.double(), 32)).to(x_dtype),
                               rtol=1e-15, atol=0)


def test_parameters_without_gradients():
    x, y = (torch.nn.Parameter(torch.rand(1, 3, size, size)) for size in (8, 4))
    with torch.no_grad():
        result = pooling_decomposition(x, y, 2)
    assert not result.requires_grad
    torch.testing.assert_close(result, paper_formula(x, y, 2).detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize('dtype', (torch.float32, torch.float64))
@pytest.mark.parametrize('limits', ((0, 0), (0, 1 << 18), (1 << 14, 0), (1 << 14, 1 << 18)))
@pytest.mark.parametrize('scale, height, width', [(2, 6, 10), (3, 9, 6), (1, 4, 5), (8, 8, 40)])
def test_all_ways_compute_the_same(monkeypatch, dtype, limits, scale, height, width):
    monkeypatch.setattr(module, 'SMALL', limits[0])
    monkeypatch.setattr(module, 'PRODUCTS', limits[1])
    x = torch.rand(2, 3, height, width, dtype=dtype)
    y = torch.rand(2, 3, height // scale, width // scale, dtype=dtype)
    leaf = x.clone().requires_grad_()
    result = pooling_decomposition(leaf, y, scale)
    tolerance = dict(rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-14)
    torch.testing.assert_close(result.detach(), paper_formula(x, y, scale), **tolerance)
    weight = torch.rand_like(x)
    result.backward(weight)
    torch.testing.assert_close(leaf.grad, weight - paper_formula(
        0 * x, average_pool(weight, scale), scale), **tolerance)


@pytest.fixture
def taken(monkeypatch):
    """Which way the pass goes."""
    ways = []
    for name in ('_at_once', '_by_blocks'):
        run = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, name=name, run=run: (
            ways.append(name), run(*args))[1])
    return ways


@pytest.mark.parametrize('x_dtype, y_dtype, size', [
    (torch.float32, torch.float32, 4), (torch.float32, None, 4), (torch.float16, torch.float32, 4),
    (torch.float32, torch.float64, 8), (torch.float64, None, 8)])
def test_large_images_are_taken_in_blocks(taken, monkeypatch, x_dtype, y_dtype, size):
    """Temporaries are 2 / s of what is done at once, in the dtype that is computed in."""
    x = torch.rand(2, 3, 16, 24).to(x_dtype)
    y = None if y_dtype is None else torch.rand(2, 3, 4, 6, dtype=y_dtype)
    wanted = x.double() + 0.5 * replicate(
        (0 if y is None else y.double()) - average_pool(x.double(), 4), 4)
    temporaries = 2 * x.numel() * size // 4
    for limit, way in ((temporaries, '_at_once'), (temporaries - 1, '_by_blocks')):
        monkeypatch.setattr(module, 'TEMPORARY_BYTES', limit)
        result = module.fused_projection(x, y, 4, 0.5)
        assert taken == [way] and result.dtype == x_dtype
        taken.clear()
        tolerance = 1e-3 if x_dtype == torch.float16 else 1e-6
        torch.testing.assert_close(result.double(), wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize('dtype', (torch.float32, torch.float64))
def test_the_result_is_written_where_it_is_wanted(dtype):
    x, y, out = torch.rand(2, 3, 16, 24), torch.rand(2, 3, 4, 6), torch.rand(2, 3, 16, 24).to(dtype)
    assert module.fused_projection(x, y, 4, 1, out) is out
    torch.testing.assert_close(out.float(), paper_formula(x, y, 4), rtol=0, atol=1e-6)


def test_the_result_may_be_changed():
    """As no view of another tensor can be that was made in a Function, or without gradients."""
    x, y = torch.rand(2, 3, 16, 24), torch.rand(2, 3, 4, 6)
    factor = torch.ones((), requires_grad=True)
    with torch.no_grad():
        apart = pooling_decomposition(x, y, 4)
    for result in (apart, pooling_decomposition(x.requires_grad_(), y, 4)):
        result *= factor
        result.sum().backward()
    assert factor.grad > 0 and x.grad is not None


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('check', (False, DeferredCheck()))
def test_numpy_is_not_to_warn(check):
    """NaN, inf and their differences are computed without a word."""
    x, y = torch.rand(1, 1, 8, 8), torch.rand(1, 1, 2, 2)
    signs = torch.tensor([1., -1.]).repeat(4)
    for image, known in ((x * math.inf, y), (x * signs * math.inf, y), (x * math.nan, y),
                         (x, y * math.inf), (x * math.inf, y * math.inf), (1e30 * x, 1e30 * y),
                         (3e38 * x, -3e38 * y)):
        with contextlib.suppress(ValueError):  # of the one before
            result = module.fused_projection(image, known, 4, 1, check=check)
            largest = image.nan_to_num(0, 0, 0).abs().max().clamp(min=1).item()
            torch.testing.assert_close(result, paper_formula(image, known, 4), rtol=1e-5,
                                       atol=1e-6 * largest, equal_nan=True)


@pytest.mark.parametrize('dtype, size', [(torch.float32, 2), (torch.bfloat16, 8),
                                         (torch.float64, 4)])
@pytest.mark.parametrize('rows', (1, 5))
def test_blocks_are_as_large_as_their_temporaries_may_be(monkeypatch, dtype, size, rows):
    """A row of block and of its expanded error; half precision has copies of all its rows."""
    x = torch.rand(2, 3, 16, 24).to(dtype).contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(module, 'TEMPORARY_BYTES', rows * 24 * 3 * 4 * size)
    looked = []
    module.fused_projection(x, torch.rand(2, 3, 4, 6), 4, 1,
                            check=lambda error, *_: looked.append(len(error)))
    assert looked == [rows] * (8 // rows) + [8 % rows] * (8 % rows > 0)


@pytest.mark.parametrize('shortened', (False, True))
def test_blocks_hold_no_products_where_torch_may_shorten_them(monkeypatch, shortened):
    x, y = torch.rand(2, 3, 16, 24), torch.rand(2, 3, 4, 6)
    monkeypatch.setattr(module, 'TEMPORARY_BYTES', 1)
    if shortened:
        monkeypatch.setattr(module, 'full_dtype', lambda *_: torch.float64)
    with torch.profiler.profile() as profile:
        result = module.fused_projection(x, y, 4, 1)
    torch.testing.assert_close(result, paper_formula(x, y, 4), rtol=0, atol=1e-6)
    products = [event for event in profile.events() if event.name in ('aten::bmm', 'aten::addmv')]
    assert bool(products) != shortened


def test_memory_that_numpy_cannot_take_is_not_given_to_it(taken):
    """Negated views, subclasses: as any other tensor."""
    z, y = torch.rand(2, 1, 8, 8, dtype=torch.complex64), torch.rand(1, 1, 4, 4)
    x, negative = z[:1].conj().imag, z[:1, :, :4, :4].conj().imag
    assert x.is_neg() and negative.is_neg()
    ours = torch.Tensor._make_subclass(type('Mine', (torch.Tensor, ), {}), torch.rand(1, 1, 8, 8))
    for image, known in ((x, y), (torch.rand(1, 1, 8, 8), negative), (ours, y)):
        result = module.fused_projection(image, known, 2, 1)
        plain = torch.Tensor(image.detach().numpy()) if image is ours else image.resolve_neg()
        torch.testing.assert_close(torch.Tensor(result.as_subclass(torch.Tensor)), paper_formula(
            plain, known.resolve_neg(), 2), rtol=0, atol=1e-6)
    assert taken == ['_by_blocks'] * 3


@pytest.mark.parametrize('bad', (math.nan, math.inf))
def test_unchecked_nan_stays_in_its_patch(bad):
    x, y = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 4, 4)
    x[0, 1, 9, 17] = bad
    finite = pooling_decomposition(x, y, 8, check=False).isfinite()
    assert not finite[0, 1, 8:16, 16:24].any() and finite.sum() == x.numel() - 64


class Mine(torch.Tensor):
    pass


@pytest.mark.parametrize('kind', (torch.Tensor, Mine))
def test_a_bad_batch_is_told_of_by_the_next_small_one(kind):
    x, y = torch.rand(1, 1, 8, 8), torch.rand(1, 1, 2, 2)
    check = DeferredCheck()
    pooling_decomposition((x * math.nan).as_subclass(kind), y, 4, check=check)
    with pytest.raises(ValueError, match='earlier batch'):
        pooling_decomposition(x, y, 4, check=check)


@pytest.mark.filterwarnings('ignore:.*:torch.jit.TracerWarning', 'ignore:.*deprecated.*')
def test_what_is_counted_or_traced_sees_torchs_operations(monkeypatch):
    """NumPy's would be missed by counters of memory and be constants of a traced graph."""
    monkeypatch.setattr(module, '_at_once', None)
    x, y = torch.rand(2, 3, 128, 128), torch.rand(2, 3, 16, 16)
    with FlopCounterMode(display=False):
        counted = pooling_decomposition(x, y, 8)
    traced = torch.jit.trace(lambda a, b: pooling_decomposition(a, b, 8), (x, y),
                             check_trace=False)
    torch.testing.assert_close(traced(x + 1, y), paper_formula(x + 1, y, 8), rtol=0, atol=1e-6)
    torch.testing.assert_close(counted, paper_formula(x, y, 8), rtol=0, atol=1e-6)


def test_forward_derivatives_of_large_images():
    """Neither autograd nor torch.func is at work: only the tangent says that one is wanted."""
    x, y, tangent = torch.rand(1, 3, 128, 128), torch.rand(1, 3, 16, 16), torch.rand(1, 3, 128, 128)
    with torch.autograd.forward_ad.dual_level(), torch.no_grad():
        dual = pooling_decomposition(torch.autograd.forward_ad.make_dual(x, tangent), y, 8)
        found = torch.autograd.forward_ad.unpack_dual(dual).tangent
    torch.testing.assert_close(found, paper_formula(tangent, torch.zeros_like(y), 8), rtol=0,
                               atol=1e-6)


ONE = torch.ones(1, 1, 1, 1)


@pytest.mark.parametrize('image, measurement, scale, message', [
    ((2, 2), (2, 2), 4, 'multiples of 4 .*got 2x2'), ((8, 8), (2, 4), 4, r'got \(1, 1, 2, 4\)'),
    ((8, 8), (2, 2), 2, r'got \(1, 1, 2, 2\)'), ((0, 0), (0, 0), 4, 'image: expected a non-empty'),
    ((2, 2), (0, 0), 2, 'measurement: expected a non-empty')])
def test_what_fits_quickly_is_what_fits(image, measurement, scale, message):
    operator, x = AveragePooling(scale), torch.ones(1, 1, *image)
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            operator.project(x, torch.ones(1, 1, *measurement))


@pytest.mark.parametrize('x, y, message', [
    (ONE[0], ONE[0], r'image: expected shape \(N, C, H, W\)'), (ONE[None], ONE[None], 'N, C, H, W'),
    (ONE.int(), ONE, 'image: .*int32'), (ONE, ONE.int(), 'measurement: .*int32'),
    (ONE, ONE.expand(2, -1, -1, -1), r'got \(2, 1, 1, 1\)'), (ONE.numpy(), ONE, 'ndarray'),
    (ONE, ONE.numpy(), 'ndarray'), (ONE, ONE.expand(-1, 2, -1, -1), r'got \(1, 2, 1, 1\)')])
def test_other_pairs_do_not_fit(x, y, message):
    with pytest.raises(ValueError, match=message):
        AveragePooling(1).project(x, y)


@pytest.mark.parametrize('scale', (0, -1, 2.0, True, '8', None))
def test_refuses_bad_scales(scale):
    with pytest.raises(ValueError, match='scale: expected an integer of at least 1, got'):
        AveragePooling(scale)


@pytest.mark.parametrize('scale', range(1, 65))
@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_every_scale_is_exact(scale, dtype, tolerance):
    """torch's nearest interpolation is not: it rounds 1 / scale (41, 47, 55 ...)."""
    generator = torch.Generator().manual_seed(scale)
    for size in (1, 3, 5):
        x = torch.rand(1, 1, size * scale, 2 * scale, generator=generator, dtype=dtype)
        y = torch.rand(1, 1, size, 2, generator=generator, dtype=dtype)
        result = AveragePooling(scale).project(x, y)
        patches = x.double().reshape(size, scale, 2, scale)
        expected = patches + (y[0, 0].double() - patches.mean((1, 3)))[:, None, :, None]
        torch.testing.assert_close(result.double(), expected.reshape(x.shape), rtol=0,
                                   atol=tolerance)
