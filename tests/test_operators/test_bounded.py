"""PD inside the image range: optimality, consistency, derivatives, saturated LR."""
import numpy as np
import pytest
import torch
from bounded_cases import BOUNDS, case, ours
from scipy.optimize import brentq

from mmpd.operators import (
    AveragePooling,
    average_pool,
    bounded,
    consistent_uint8,
    pooling_decomposition,
    replace_range,
    replicate,
)
from mmpd.operators.bounded import bounded_projection

WIDE = pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-13), (torch.float32, 1e-6)])
UNEVEN = (-0.6, 1.7)


def patches(image, scale):
    n, c, height, width = image.shape
    image = image.reshape(n, c, height // scale, scale, width // scale, scale)
    return image.transpose(3, 4).reshape(-1, scale * scale)


def one_by_one(x, y, scale, low, high):
    """Each patch by a root finder of its own: clip(x + t) with the mean y."""
    result = []
    for patch, mean in zip(patches(x, scale).double().numpy(), y.double().flatten().tolist(),
                           strict=True):
        mean = min(max(mean, low), high)  # but for the rounding of a bound to float32

        def excess(t, patch=patch, mean=mean):
            return np.clip(patch + t, low, high).mean() - mean

        span = (low - patch.max() - 1, high - patch.min() + 1)
        t = span[mean >= high] if mean in (low, high) else brentq(excess, *span, xtol=1e-15)
        result.append(np.clip(patch + t, low, high))
    return torch.as_tensor(np.array(result))


@WIDE
@pytest.mark.parametrize('memory', (torch.contiguous_format, torch.channels_last))
@pytest.mark.parametrize('scale', (1, 2, 3, 8))
def test_equals_a_root_finder(scale, memory, dtype, tolerance):
    x, y = case(scale, dtype=dtype)
    result = replace_range(x.contiguous(memory_format=memory), y, AveragePooling(scale),
                           bounds=BOUNDS)
    assert result.dtype == dtype and result.is_contiguous(memory_format=memory)
    torch.testing.assert_close(patches(result, scale).double(), one_by_one(x, y, scale, *BOUNDS),
                               rtol=0, atol=20 * tolerance)


@WIDE
@pytest.mark.parametrize('scale', (2, 8))
def test_consistent_in_range_and_optimal(scale, dtype, tolerance):
    """The conditions of Karush, Kuhn and Tucker, with a multiplier for each mean and each bound."""
    x, y = case(scale, dtype=dtype)
    result = pooling_decomposition(x, y, scale, bounds=BOUNDS)
    low, high = BOUNDS
    assert low <= result.min() and result.max() <= high  # to the last bit
    torch.testing.assert_close(average_pool(result, scale), y, rtol=0, atol=4 * tolerance)
    move, result = patches(result - x, scale), patches(result, scale)
    for moved, pixels in zip(move, result, strict=True):
        inside, at_low, at_high = (pixels > low) & (pixels < high), pixels == low, pixels == high
        if not inside.any():
            continue
        shift = moved[inside]  # the gradient of |x̂ - x|² / 2: equal inside, pushed by the bounds
        assert shift.max() - shift.min() < 20 * tolerance
        assert (moved[at_low] > shift.min() - 20 * tolerance).all()
        assert (moved[at_high] < shift.max() + 20 * tolerance).all()
    assert ((result == low).sum(1) + (result == high).sum(1) > 0).any()


def test_never_farther_than_any_other_image_that_is_possible():
    x, y = case(4)
    result = pooling_decomposition(x, y, 4, bounds=BOUNDS)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        other = torch.rand(x.shape, generator=generator, dtype=x.dtype) * 2 - 1
        other = bounded_projection(other, y, 4, *BOUNDS)
        assert (result - x).norm() < (other - x).norm()
        assert ((x - result) * (other - result)).sum() < 1e-10  # convex: an obtuse angle
    clipped = pooling_decomposition(x, y, 4).clamp(*BOUNDS)
    assert (average_pool(clipped, 4) - y).abs().max() > 0.1  # what clipping would do


def test_what_stays_in_range_is_plain_pd_bit_for_bit():
    x, y = case(8, spread=0.2, dtype=torch.float32, size=(1, 3, 20, 20))  # more than SMALL
    y = y.clamp(-0.5, 0.5)
    plain = pooling_decomposition(x, y, 8)
    leaves = (patches(plain, 8).abs() > 1).any(1)
    assert 0 < leaves.sum() < len(leaves) / 2
    result = pooling_decomposition(x, y, 8, bounds=BOUNDS)
    assert torch.equal(patches(result, 8)[~leaves], patches(plain, 8)[~leaves])
    assert not torch.equal(patches(result, 8)[leaves], patches(plain, 8)[leaves].clamp(-1, 1))
    assert torch.equal(pooling_decomposition(x, y, 8, bounds=(-50, 50)), plain)


def test_balanced_clipping_is_seen():
    """As much is cut off above as below: the mean is right without any further shift."""
    x = torch.tensor([[-1.5, -0.5, 0.5, 1.5]]).view(1, 1, 2, 2).requires_grad_()
    result = pooling_decomposition(x, torch.zeros(1, 1, 1, 1), 2, bounds=BOUNDS)
    assert result.flatten().tolist() == [-1, -0.5, 0.5, 1]
    (result.flatten() * torch.tensor([1., 2., 4., 8.])).sum().backward()
    assert x.grad.flatten().tolist() == [0, -1, 1, 0]


@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16))
@pytest.mark.parametrize('memory', (torch.contiguous_format, torch.channels_last))
def test_half_precision(dtype, memory):
    x, y = case(4)
    half = x.to(dtype).contiguous(memory_format=memory)
    result = pooling_decomposition(half, y.float(), 4, bounds=BOUNDS)
    assert result.dtype == dtype and result.abs().max() <= 1
    expected = pooling_decomposition(half.double(), y, 4, bounds=BOUNDS)
    torch.testing.assert_close(result.double(), expected, rtol=0,
                               atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize('memory', (torch.contiguous_format, torch.channels_last))
def test_in_place_and_in_parts(monkeypatch, memory):
    x, y = case(4, dtype=torch.float32)
    expected = pooling_decomposition(x, y, 4, bounds=BOUNDS)
    monkeypatch.setattr(bounded, 'TEMPORARY_BYTES', 1)  # a patch at a time
    written = x.clone(memory_format=torch.preserve_format).contiguous(memory_format=memory)
    result = pooling_decomposition(written, y, 4, inplace=True, bounds=BOUNDS)
    assert result.data_ptr() == written.data_ptr()
    torch.testing.assert_close(written, expected, rtol=0, atol=1e-6)


def test_a_saturated_lr_fills_its_patch():
    x, _ = case(4)
    y = torch.tensor(BOUNDS, dtype=x.dtype).repeat(60).view(2, 3, 4, 5)
    x.requires_grad_(), y.requires_grad_()
    result = pooling_decomposition(x, y, 4, bounds=BOUNDS)
    assert torch.equal(result, replicate(y, 4))
    result.square().sum().backward()
    assert not x.grad.any() and not y.grad.any()


def test_a_saturated_lr_holds_an_image_that_needs_no_change():
    x = torch.full((1, 1, 2, 2), -1.0, requires_grad=True)
    result = pooling_decomposition(x, torch.full((1, 1, 1, 1), -1.0), 2, bounds=BOUNDS)
    result[0, 0, 0, 0].backward()
    assert torch.equal(result, x) and not x.grad.any()


@pytest.mark.parametrize('bad', (-1.01, 1.01))
def test_an_lr_outside_is_refused(bad):
    x, y = case(2)
    y[0, 0, 1, 1] = bad
    with pytest.raises(ValueError, match=r'bounds: expected a range that holds the LR, whose '
                                         r'values are in \[.*, got \(-1.0, 1.0\)'):
        pooling_decomposition(x, y, 2, bounds=BOUNDS)
    for options in (dict(check=False), dict(noise_std=0.01), dict(strength=0.999)):
        result = pooling_decomposition(x, y, 2, bounds=BOUNDS, **options)
        assert result.abs().max() <= 1
    y[0, 0, 1, 1] = np.sign(bad) * 1.0001  # what normalising leaves
    result = pooling_decomposition(x, y, 2, bounds=BOUNDS)
    assert (average_pool(result, 2)[0, 0, 1, 1] - np.sign(bad)).abs() < 1e-12


def test_less_strength_aims_between_the_two_measurements():
    x, y = case(4)
    measured = average_pool(x, 4)
    for options, target in ((dict(strength=0.3), measured + 0.3 * (y - measured)),
                            (dict(strength=0), measured),
                            (dict(noise_std=0.0), y)):
        result = pooling_decomposition(x, y, 4, bounds=BOUNDS, **options)
        torch.testing.assert_close(average_pool(result, 4), target.clamp(-1, 1), rtol=0,
                                   atol=1e-12)
    noisy = pooling_decomposition(x, y, 4, bounds=BOUNDS, noise_std=0.3)
    plain = pooling_decomposition(x, y, 4, noise_std=0.3)
    torch.testing.assert_close(average_pool(noisy, 4), average_pool(plain, 4).clamp(-1, 1), rtol=0,
                               atol=1e-12)


@pytest.mark.parametrize('memory', (torch.contiguous_format, torch.channels_last))
@pytest.mark.parametrize('strength', (1.0, 0.6))
def test_gradients(strength, memory):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, generator=generator)
    x = x.contiguous(memory_format=memory).requires_grad_()
    y = torch.rand(1, 2, 2, 2, dtype=torch.float64, generator=generator) * 1.8 - 0.9
    y.requires_grad_()

    def function(a, b):
        return AveragePooling(2).project(a, b, strength, bounds=BOUNDS)

    leaves = pooling_decomposition(x, y, 2).abs() > 1
    assert 0 < leaves.sum() < leaves.numel() / 2
    assert torch.autograd.gradcheck(function, (x, y), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda a, b: function(a, b)**2, (x, y),
                                        check_fwd_over_rev=True)


def test_the_closed_form_of_the_derivative():
    """dx̂ = dx - mean_F(dx) + (n / |F|) dy on the free pixels F, 0 where a bound holds."""
    x, y = case(4)
    dx, dy = case(4, seed=1)
    result, moved = torch.func.jvp(
        lambda a, b: pooling_decomposition(a, b, 4, bounds=BOUNDS), (x, y), (dx, dy))
    for pixels, change, given, known in zip(
            *(patches(image, 4) for image in (result, moved, dx)), dy.flatten(), strict=True):
        free = pixels.abs() < 1
        expected = torch.zeros_like(given)
        if free.any():
            expected[free] = given[free] - given[free].mean() + 16 / free.sum().item() * known
        torch.testing.assert_close(change, expected, rtol=0, atol=1e-12)


def test_gradient_is_plain_pds_where_nothing_leaves():
    x, y = case(4, spread=0.01)
    y, weight = y * 0.5, torch.randn_like(x)
    x.requires_grad_()
    found, wanted = (torch.autograd.grad((pooling_decomposition(x, y, 4, **options) * weight).sum(),
                                         x)[0] for options in (dict(bounds=BOUNDS), {}))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize('bounds', (BOUNDS, UNEVEN))
@pytest.mark.parametrize('spread', (1e-3, 3, 1e3))
def test_steps_that_would_leave_are_halved(bounds, spread):
    """Two heaps far apart, one pixel alone, a ladder: Newton's method has no slope, or too much."""
    low, high = bounds
    heaps = [[-1.] * 8 + [1.] * 8, [0.] * 15 + [1.], [1.] * 15 + [-1.], list(range(-8, 8)),
             [-3.] + [1., 1.1] * 7 + [9.], [0.] * 16]
    x = torch.tensor(heaps, dtype=torch.float64).mul(spread).repeat(5, 1).view(1, 1, -1, 4)
    y = torch.linspace(low, high, 7, dtype=torch.float64)[1:-1].repeat_interleave(len(heaps))
    result = bounded_projection(x, y.view(1, 1, -1, 1), 4, low, high)
    torch.testing.assert_close(patches(result, 4), one_by_one(x, y, 4, low, high), rtol=0,
                               atol=1e-11 * max(spread, 1))


@pytest.mark.parametrize('dtype, size', [(torch.float64, 8), (torch.float32, 4)])
@pytest.mark.parametrize('together', (1, 7, 10**6))
def test_so_many_patches_are_searched_at_once(monkeypatch, dtype, size, together):
    monkeypatch.setattr(bounded, 'TEMPORARY_BYTES', together * 16 * size)
    held = torch.ones(2, 3, 4, 5, dtype=torch.bool)
    held[0, 0, 0, :3] = False
    image = torch.zeros(2, 3, 16, 20, dtype=dtype)
    counts = [len(places.index[0]) for places in bounded._places(held, image, 4, dtype)]
    assert sum(counts) == 117 and max(counts) == min(together, 117)
    assert len(counts) == -(-117 // together)


@pytest.mark.parametrize('bounds', ((0., 4.), (-1., 1.)))
def test_what_an_lr_outside_may_be_off(bounds):
    """A thousandth of the range, which rounding does."""
    low, high = bounds
    near, far = (share * (high - low) for share in (0.9e-3, 1.1e-3))
    for value, refused in ((low - near, False), (low - far, True), (high + near, False),
                           (high + far, True)):
        y = torch.tensor([[[[low, value, high]]]])
        if refused:
            with pytest.raises(ValueError, match='a range that holds the LR'):
                bounded.check_reachable(y, low, high)
        else:
            bounded.check_reachable(y, low, high)
    bounded.check_reachable(y.to('meta'), low, high)
    margin = bounded.OUTSIDE * (high - low)  # as far as that itself
    y = torch.tensor([[[[low - margin, high + margin]]]], dtype=torch.float64)
    bounded.check_reachable(y, low, high)


def formula(x, y):
    """In operations that torch can differentiate, vectorise and compile."""
    return bounded._plainly(x, y, 4, *BOUNDS)


def assert_same(actual, expected, tolerance=1e-11):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('function', (ours, formula))
def test_derivatives_at_the_bounds(function):
    """What touches a bound is not held by it; a saturated LR holds its patch."""
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64) - 0.5
    x[0, 0, 0, 0], x[0, 0, 4, 7] = -1, 1
    y, weight = average_pool(x, 4), torch.rand_like(x)
    x.requires_grad_()
    found, wanted = (torch.autograd.grad((f(x, y) * weight).sum(), x)[0] for f in (
        function, lambda a, b: pooling_decomposition(a, b, 4)))
    assert_same(found, wanted)
    x, y = (tensor.requires_grad_() for tensor in case(4, size=(2, 3, 6, 6)))
    full = torch.tensor(BOUNDS, dtype=x.dtype).repeat(108).view(2, 3, 6, 6).requires_grad_()
    result = function(x, full)
    assert torch.equal(result, replicate(full, 4))
    assert not any(gradient.any() for gradient in torch.autograd.grad(result.sum(), (x, full)))


@WIDE
@pytest.mark.parametrize('scale', (1, 3, 8))
@pytest.mark.parametrize('bounds', (BOUNDS, UNEVEN, (2, 30)))
def test_two_ways_agree(scale, bounds, dtype, tolerance):
    x, y = case(scale, dtype=dtype, bounds=bounds)
    wanted = one_by_one(x, y, scale, *bounds)
    size = max(map(abs, bounds))
    for result in (bounded._plainly(x, y, scale, *bounds),
                   pooling_decomposition(x, y, scale, bounds=bounds)):
        torch.testing.assert_close(patches(result, scale).double(), wanted, rtol=0,
                                   atol=40 * size * tolerance)


@pytest.mark.parametrize('in_dims', ((0, 0), (0, None), (None, 0), (2, 1)))
def test_vmap_and_its_gradients(in_dims):
    pairs = [case(4, seed, size=(1, 2, 3, 3)) for seed in range(3)]
    x, y = (torch.stack([pair[k] for pair in pairs], dim) if dim is not None else pairs[0][k]
            for k, dim in enumerate(in_dims))
    assert_same(torch.func.vmap(ours, in_dims)(x, y), torch.func.vmap(formula, in_dims)(x, y))
    found, wanted = (torch.func.vmap(torch.func.grad(lambda a, b, f=f: (f(a, b)**3).sum(), (0, 1)),
                                     in_dims)(x, y) for f in (ours, formula))
    assert_same(found, wanted)


def test_transforms_of_torch_func():
    point, tangent = case(4, size=(1, 2, 3, 3)), case(4, 1, size=(1, 2, 3, 3))
    assert_same(torch.func.jvp(ours, point, tangent), torch.func.jvp(formula, point, tangent))
    (_, found), (_, wanted) = (torch.func.vjp(f, *point) for f in (ours, formula))
    assert_same(found(tangent[0]), wanted(tangent[0]))
    found, wanted = (torch.func.jvp(torch.func.grad(lambda a, b, f=f: (f(a, b)**3).sum(), (0, 1)),
                                    point, tangent)[1] for f in (ours, formula))
    assert_same(found, wanted)


def test_compile_without_a_graph_break_and_shapes_without_data():
    torch._dynamo.reset()
    x, y = case(4, size=(1, 2, 3, 3))
    results = []
    for function in (torch.compile(ours, fullgraph=True, backend='aot_eager'), ours):
        a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
        value = function(a, b)
        (value**3).sum().backward()
        results.append((value.detach(), a.grad, b.grad))
    assert_same(*results)
    assert ours(x.to('meta'), y.to('meta')).shape == x.shape


@pytest.mark.parametrize('culprit', (0, 1))
def test_nan(culprit):
    pair = case(4)
    pair[culprit][0, 0, 1, 1] = float('nan')
    with pytest.raises(ValueError, match='expected finite values, got 1 NaN'):
        ours(*pair)
    result = AveragePooling(4).project(*pair, check=False, bounds=BOUNDS)
    bad = patches(result, 4).isnan().any(1)
    assert bad.sum() == 1  # its patch, and no other
    assert patches(result, 4)[~bad].abs().max() <= 1


def test_nothing_is_left_to_clip_in_the_8_bit_file():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, 32, 32, generator=generator) * 120 + 128
    lr = (torch.rand(1, 3, 4, 4, generator=generator) * 255).round()
    lr[0, 0, 0, 0], lr[0, 1, 1, 1] = 0, 255
    operator = AveragePooling(8)
    result = operator.project(x, lr, bounds=(0, 255))
    saved, unmatched = consistent_uint8(result, lr, operator, return_unmatched=True)
    assert unmatched == 0 and torch.equal(average_pool(saved.double(), 8), lr.double())
    assert (saved - result).abs().max() < 1  # rounding alone
    plain = consistent_uint8(operator.project(x, lr), lr, operator)
    assert (saved.double() - x).square().sum() <= (plain.double() - x).square().sum() * 1.0001
    # and rounding it as any program does loses no more than rounding can
    assert (average_pool(result.round().double(), 8) - lr).abs().max() < 0.5
