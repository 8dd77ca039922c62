"""8-bit output: exact, optimal, and honest where it cannot be exact."""
import itertools
import time
from functools import lru_cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpd.operators import (
    CEM,
    AveragePooling,
    Compose,
    Grayscale,
    LinearOperator,
    Masking,
    SeparableResize,
    clip_uint8,
    consistent_uint8,
    resize_matrix,
    row_refinement,
)
from mmpd.operators.quantize import consistent_integers


def pooled_exactly(image, scale):
    """Patch sums in integers, divided by s²: no rounding anywhere."""
    n, c, height, width = image.shape
    patches = image.long().view(n, c, height // scale, scale, width // scale, scale)
    sums = patches.sum((3, 5))
    assert (sums % scale**2 == 0).all()
    return sums // scale**2


def random_case(seed, scale, h, w, spread, n=1, c=2):
    rng = np.random.default_rng(seed)
    lr = rng.choice([0, 1, 128, 254, 255, rng.integers(256)], (n, c, h, w))
    image = rng.normal(rng.uniform(0, 255), spread, (n, c, h * scale, w * scale))
    image = np.where(rng.random(image.shape) < 0.2, np.round(image), image)  # ties
    return torch.as_tensor(image.clip(-900, 1100)), torch.as_tensor(lr.astype(np.uint8))


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), scale=st.integers(1, 12), h=st.integers(1, 4),
       w=st.integers(1, 4), spread=st.sampled_from((0.0, 0.3, 20.0, 300.0)),
       dtype=st.sampled_from((torch.float32, torch.float64, torch.float16)))
def test_pooling_gives_the_lr_back(seed, scale, h, w, spread, dtype):
    image, lr = random_case(seed, scale, h, w, spread)
    result, unmatched = consistent_uint8(image.to(dtype), lr, AveragePooling(scale),
                                         return_unmatched=True)
    assert result.dtype == torch.uint8 and result.shape == image.shape and unmatched == 0
    assert torch.equal(pooled_exactly(result, scale), lr.long())


@pytest.mark.parametrize('scale', (2, 3, 8, 16, 32, 64))
def test_scales_and_extremes(scale):
    image = torch.randn(2, 3, scale * 2, scale * 3) * 400 + 100
    lr = torch.tensor([0, 255, 1, 254, 7, 128] * 6, dtype=torch.uint8).view(2, 3, 2, 3)
    result = consistent_uint8(image, lr, AveragePooling(scale))
    assert torch.equal(pooled_exactly(result, scale), lr.long())


@lru_cache(4)
def vectors(low, high, count):
    return np.array(list(itertools.product(range(low, high + 1), repeat=count)))


def cheapest_by_brute_force(values, total, low, high):
    """Least squared distance over all integer vectors in [low, high]^n with the given sum."""
    grid = vectors(low, high, len(values))
    grid = grid[grid.sum(1) == total]
    return ((grid - values)**2).sum(1).min() if len(grid) else None


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), near=st.sampled_from((0, 3, 255)))
def test_optimal_on_2x2_patches(seed, near):
    """Every integer patch in a window that provably holds the optimum is tried."""
    rng = np.random.default_rng(seed)
    low, high = (0, 12) if near < 255 else (243, 255)
    lr = int(np.clip(near + rng.integers(-3, 4), low, high))
    values = np.round(rng.uniform(low - 5, high + 5, 4), rng.integers(0, 3))
    image = torch.as_tensor(values).view(1, 1, 2, 2)
    result = consistent_uint8(image, torch.tensor([[[[lr]]]], dtype=torch.uint8),
                              AveragePooling(2)).double()
    # neither the result nor the optimum (the shift is at most 17) leaves the window
    window = (0, 22) if near < 255 else (233, 255)
    best = cheapest_by_brute_force(values, 4 * lr, *window)
    assert ((result - image)**2).sum().item() == pytest.approx(best, abs=1e-9)


def cheapest_by_dynamic_programming(values, total):
    """The same optimum over the full 0..255, pixel by pixel over all partial sums."""
    cost = np.full(total + 1, np.inf)
    cost[0] = 0
    for value in values:
        step = (np.arange(256) - value)**2
        following = np.full(total + 1, np.inf)
        for level in range(min(255, total) + 1):
            following[level:] = np.minimum(following[level:],
                                           cost[:total + 1 - level] + step[level])
        cost = following
    return cost[total]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from((1.0, 60.0, 300.0)))
def test_optimal_on_3x3_patches_over_the_full_range(seed, spread):
    image, lr = random_case(seed, 3, 1, 1, spread, c=1)
    result = consistent_uint8(image, lr, AveragePooling(3)).double()
    best = cheapest_by_dynamic_programming(image.flatten().numpy(), 9 * int(lr))
    assert ((result - image)**2).sum().item() == pytest.approx(best, rel=1e-9, abs=1e-9)


def test_closer_than_a_shift_and_no_farther_than_needed():
    """A consistent 8-bit image comes back unchanged."""
    image = torch.randint(0, 256, (1, 3, 32, 32)).float()
    block = image.view(1, 3, 4, 8, 4, 8)
    lr = block.mean((3, 5)).floor()
    image = consistent_uint8(image, lr, AveragePooling(8))
    assert torch.equal(consistent_uint8(image.float(), lr, AveragePooling(8)), image)


def test_paper_appendix_b():
    """y = 0, x = (-0.5, 0.5): clipping gives (0, 0.5), whose mean is not y."""
    values = torch.tensor([-0.5, 0.5, -0.5, 0.5]).view(1, 1, 2, 2) * 255
    lr = torch.zeros(1, 1, 1, 1)
    assert clip_uint8(values).float().mean() > 60
    assert consistent_uint8(values, lr, AveragePooling(2)).sum() == 0


def test_box_resize_is_exact_too():
    image, lr = torch.rand(1, 3, 32, 32) * 255, torch.randint(0, 256, (1, 3, 4, 4))
    result = consistent_uint8(image, lr.to(torch.uint8), SeparableResize(8, 'box'))
    assert torch.equal(pooled_exactly(result, 8), lr)


@pytest.mark.parametrize('operator', [
    SeparableResize(4), SeparableResize(4, 'lanczos'), SeparableResize(4, 'bilinear'),
    SeparableResize(3, 'box', antialias=False), Grayscale((0.299, 0.587, 0.114)), CEM(4),
    Compose([Grayscale(), AveragePooling(4)])
], ids=str)
def test_general_operators_match_a_natural_image(operator):
    generator = torch.Generator().manual_seed(0)
    size = 32 * operator.scale
    smooth = F.interpolate(torch.rand(1, 3, 6, 6, generator=generator), (size, size),
                           mode='bicubic').clamp(0, 1) * 255
    lr = operator.A(smooth).round().clamp(0, 255)
    guess = smooth + 30 * torch.randn(smooth.shape, generator=generator)
    result, unmatched = consistent_uint8(guess, lr, operator, return_unmatched=True)
    assert unmatched == 0
    assert torch.equal(operator.A(result.double()).round().clamp(0, 255), lr.double())
    assert (operator.A(clip_uint8(guess).double()).round() != lr).sum() > 0


@pytest.mark.parametrize('kernel', ['bicubic', 'bilinear', 'lanczos'])
@pytest.mark.parametrize('scale', [2, 4])
def test_kernels_without_antialias_match_nearly_all(kernel, scale):
    """They look at few pixels, so rounding has little to work with."""
    generator = torch.Generator().manual_seed(0)
    operator = SeparableResize(scale, kernel, antialias=False)
    image = torch.rand(1, 3, 64, 64, generator=generator) * 255
    lr = operator.A(torch.rand(1, 3, 64, 64, generator=generator) * 100 + 70).round()
    result, unmatched = consistent_uint8(image, lr, operator, return_unmatched=True)
    assert unmatched <= 0.001 * lr.numel()
    assert unmatched == (operator.A(result.double()).round() != lr).sum()
    again = consistent_uint8(image, lr, operator)
    assert torch.equal(result, again)


@pytest.mark.parametrize('operator', [
    Grayscale((0.299, 0.587, 0.114)), Compose([Grayscale(), AveragePooling(2)])], ids=str)
@pytest.mark.parametrize('spread', (5, 127))
def test_nearly_black_and_white_values_are_matched(operator, spread):
    """0 and 255 hold the channels that weigh most: what is left has to do all."""
    generator = torch.Generator().manual_seed(0)
    lr = torch.randint(0, 256, (2, 1, 16 // operator.scale, 16 // operator.scale),
                       generator=generator)
    lr[:, :, :3] = torch.tensor([0, 1, 254])[:, None]
    guess = 127.5 + spread * torch.randn(2, 3, 16, 16, generator=generator)
    result, unmatched = consistent_uint8(operator.project(guess, lr.float()), lr.byte(), operator,
                                         return_unmatched=True)
    assert unmatched == 0 and torch.equal(operator.A(result.double()).round(), lr.double())


def test_unmatched_pixels_are_counted():
    """A black and white checkerboard is beyond what bicubic downsampling can give."""
    operator = SeparableResize(4)
    lr = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 255
    lr = lr.view(1, 1, 8, 8).to(torch.uint8)
    result, unmatched = consistent_uint8(torch.full((1, 1, 32, 32), 128.0), lr, operator,
                                         return_unmatched=True)
    measured = operator.A(result.double()).round().clamp(0, 255)
    assert unmatched == (measured != lr).sum() > 0


def test_halfway_values_are_avoided():
    """cv2 rounds 0.5 up and torch to even: only what both give back is matched."""
    operator = SeparableResize(4, 'bilinear', antialias=False)
    generator = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.rand(1, 3, 9, 9, generator=generator) * 255, (96, 96),
                           mode='bicubic').clamp(0, 255).round()
    lr = (operator.A(smooth) + 0.5).floor()
    assert (operator.A(smooth).round() != lr).sum() > 100
    result, unmatched = consistent_uint8(smooth, lr, operator, return_unmatched=True)
    measured = operator.A(result.double())
    assert unmatched == 0
    assert torch.equal(measured.round(), lr.double())
    assert torch.equal((measured + 0.5).floor(), lr.double())


@pytest.mark.parametrize('iterations', [-1, 1.5, None])
def test_refuses_iterations(iterations):
    with pytest.raises(ValueError, match='max_iterations: expected an integer of at least 0'):
        consistent_uint8(IMAGE, LR, SeparableResize(2), iterations)


def test_operator_by_config_and_no_operator():
    cfg = dict(type='AveragePooling', scale=2)
    assert torch.equal(consistent_uint8(IMAGE, LR, cfg),
                       consistent_uint8(IMAGE, LR, AveragePooling(2)))
    with pytest.raises(ValueError, match='operator: expected .* got None'):
        consistent_uint8(IMAGE, LR, None)


@pytest.mark.parametrize('many, at_once', [(1e9, 0), (0, row_refinement.AT_ONCE)])
def test_refinement_is_bounded(monkeypatch, many, at_once):
    operator = SeparableResize(4)
    calls, moves = [], []
    original = operator.A
    operator.A = lambda x: calls.append(1) or original(x)
    for name in ('_move', '_move_all'):
        move = getattr(row_refinement, name)
        monkeypatch.setattr(row_refinement, name, lambda *a, move=move: moves.append(1) or move(*a))
    monkeypatch.setattr(row_refinement, 'MANY', many)
    lr = torch.tensor([[[[0, 255], [255, 0]]]], dtype=torch.uint8)
    consistent_uint8(torch.rand(1, 1, 8, 8) * 255, lr, operator, max_iterations=3)
    assert len(moves) == 3 + 1  # the last one is for nothing, and its result is not looked at
    # of the image, of what is rounded, of what is moved at once, and in float64 for the count
    assert len(calls) == 3 + at_once


@pytest.mark.parametrize('operator', [
    SeparableResize(2), SeparableResize(4, 'lanczos', border='mirror'),
    SeparableResize(8, 'bilinear', antialias=False)], ids=str)
@pytest.mark.parametrize('most', (255, 65535))
def test_what_a_move_changes_is_what_a_measures(operator, most, monkeypatch):
    """Only the LR values that see a pixel are measured again: the sum is A of the image."""
    found, original = [], row_refinement._measure_change

    def look(measured, touched, change, seen_by, shape):
        before = measured.clone()
        original(measured, touched, change, seen_by, shape)
        difference = torch.zeros(shape, dtype=torch.float64)
        difference.view(-1)[touched] = change.double()
        assert torch.allclose(measured - before, operator.A(difference).to(measured.dtype),
                              rtol=0, atol=row_refinement.ROUGH / 4)
        found.append(int((measured != before).sum()))

    monkeypatch.setattr(row_refinement, '_measure_change', look)
    monkeypatch.setattr(row_refinement, 'MANY', 1e9)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 32, 48, generator=generator) * most
    lr = torch.randint(most + 1, (2, 3, 32 // operator.scale, 48 // operator.scale),
                       generator=generator)
    row_refinement.refine_rows(image, lr.double(), operator, 2, most=most)
    assert found and max(found) > 0


def thresholds(shape, count):
    """Those of the module, (H, W)."""
    along = [np.arange(length) * step for length, step in zip(
        shape, (row_refinement.ROW, row_refinement.COLUMN), strict=True)]
    return (along[0][:, None] + along[1] + count * row_refinement.ITERATION) % 1


def test_thresholds_are_spread_evenly():
    """Of 16 neighbours about as many lie below a level as should."""
    rows, columns = torch.arange(5, 45), torch.arange(3, 63)
    found = row_refinement._thresholds(rows, columns, 7, torch.float64)
    assert torch.allclose(found, torch.from_numpy(thresholds((45, 63), 7)[5:, 3:]), atol=1e-9)
    assert torch.equal(row_refinement._thresholds(rows[None], columns[None], 7,
                                                   torch.float64)[0], found)
    for level in (0.125, 0.25, 0.5, 0.75):
        below = F.avg_pool2d((found < level).double()[None, None], 4, 1) * 16
        assert below.mean() == pytest.approx(16 * level, abs=0.1)
        assert below.std() < 0.5 * (16 * level * (1 - level))**0.5  # of independent ones


@pytest.mark.parametrize('rounds_between', (False, True))
@pytest.mark.parametrize('kernel, border, power', [('bicubic', 'library', 1),
                                                   ('lanczos', 'mirror', 0.5)])
def test_a_move_by_loops(rounds_between, kernel, border, power):
    """Along w |w|^power of pixels that are free, as far as the unit's edge and a bit beyond."""
    bounds = 10, 320
    rng = np.random.default_rng(0)
    before = rng.choice([10, 320, 60, 61, 100, 180], (2, 3, 12, 16)).astype(float)
    before[1, 2] = 310  # clipped on the way
    lr = rng.integers(0, 256, (2, 3, 6, 8)).astype(float)
    places = [(0, 0, 0, 0), (1, 2, 5, 7), (1, 0, 3, 3), (1, 0, 3, 4), (0, 1, 2, 6), (1, 2, 2, 2)]
    ups = [True, False, True, False, True, True]
    rows, columns = (resize_matrix(size, 2, kernel, True, border).numpy() for size in (12, 16))
    change, held = np.zeros_like(before), 0
    for (n, c, i, j), up in zip(places, ups, strict=True):
        middle, row, sign = before[n, c] @ columns[j], rows[i], 1 if up else -1
        if rounds_between:
            clipped = (sign * row > 0) & (middle >= 255.5) | (sign * row <= 0) & (middle <= -0.5)
            held += (clipped & (row != 0)).sum()
            middle, row = np.clip(np.floor(middle + 0.5), 0, 255), row * ~clipped
        # as far as 0.5 - INSIDE from the LR value
        missing = sign * (lr[n, c, i, j] - middle @ rows[i]) - 0.5 + row_refinement.INSIDE
        weight = sign * np.outer(row, columns[j])
        weight[(weight > 0) & (before[n, c] >= 320) | (weight <= 0) & (before[n, c] <= 10)] = 0
        share = row_refinement.DAMPING * max(missing, row_refinement.INSIDE / 2)
        reach = max((abs(weight)**(2 + power)).sum(), 1e-9)
        change[n, c] += weight * abs(weight)**power * share / reach
    assert held or not rounds_between
    pixels, buffer = torch.from_numpy(before.copy()), torch.zeros(before.size).double()
    axes = [row_refinement._taps(torch.from_numpy(matrix)) for matrix in (rows, columns)]
    n, c, i, j = torch.tensor(places).T
    touched, moved = row_refinement._move(
        pixels, torch.from_numpy(lr), (n * 3 + c, i, j), torch.tensor(ups), axes, buffer, 3,
        power, bounds, rounds_between)
    assert len(touched.unique()) == len(touched) and not buffer.any()
    expected = np.where(change, np.clip(np.floor(before + change + thresholds((12, 16), 3)),
                                        *bounds), before)
    np.testing.assert_array_equal(pixels.numpy(), expected)
    np.testing.assert_array_equal(touched.numpy(), np.flatnonzero(expected != before))
    np.testing.assert_array_equal(moved.numpy(), (expected - before).flat[touched.numpy()])


@pytest.mark.parametrize('operator, inside', [
    (SeparableResize(2), 0.4), (SeparableResize(2, 'lanczos', border='mirror'), 0),
    (SeparableResize(3, 'bicubic', antialias=False), 0)], ids=str)
def test_a_move_of_the_whole_image(operator, inside):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(20, 236, (2, 3, 1044, 36), generator=generator).double()
    gap = torch.randint(-2, 3, (2, 3, 1044 // operator.scale, 36 // operator.scale),
                        generator=generator).double()
    matrices = list(operator._factors('A', 1044, 36, pixels))
    rows, columns = (matrix.numpy() for matrix in matrices)
    missing = np.sign(gap.numpy()) * (abs(gap.numpy()) - 0.5 + inside) * row_refinement.DAMPING
    reach = (abs(rows)**2.5).sum(1)[:, None] * (abs(columns)**2.5).sum(1)
    change = (rows * abs(rows)**0.5).T @ (missing / reach) @ (columns * abs(columns)**0.5)
    expected = np.clip(np.floor(pixels.numpy() + change + thresholds((1044, 36), 5)), 20, 230)
    buffer = torch.zeros(pixels.numel()).double()
    row_refinement._move_all(pixels, gap, matrices, operator._bands(pixels), buffer, 5, 0.5,
                             (20, 230), inside)
    assert not buffer.any()
    assert (pixels.numpy() != expected).mean() < 1e-4  # where rounding errors decide


@pytest.mark.parametrize('matrix', [
    [[0, 1, 2, 0, 0], [0, 0, 3, 4, 0]], [[1, 0, 2, 0, 0], [0, 0, 0, 0, 5], [0, 0, 0, 0, 0]],
    np.eye(3).tolist()])
def test_taps_are_the_rows_of_a_matrix(matrix):
    matrix = torch.tensor(matrix, dtype=torch.float64)
    start, weights = row_refinement._taps(matrix)
    again = torch.zeros_like(matrix)
    for i, (first, row) in enumerate(zip(start, weights, strict=True)):
        again[i, first:first + len(row)] = row
    assert torch.equal(again, matrix)
    used = [row.nonzero().flatten() for row in matrix if row.any()]
    assert weights.shape[1] == max(int(places[-1] - places[0]) + 1 for places in used)


def test_the_search_ends_where_it_gets_no_further(monkeypatch):
    measured, differs = [], row_refinement.differs
    monkeypatch.setattr(row_refinement, 'PATIENCE', 4)
    monkeypatch.setattr(row_refinement, 'differs',
                        lambda *args: measured.append(1) or differs(*args))
    image, lr = torch.zeros(1, 1, 16, 16), torch.full((1, 1, 4, 4), 200.)
    _, unmatched = row_refinement.refine_rows(image, lr, SeparableResize(4), 100, bounds=(0, 9))
    assert unmatched == 16 and len(measured) == 1 + 4


@pytest.mark.parametrize('most', (255, 65535))
def test_which_values_are_rounded_to_another(most):
    lr = torch.tensor([most, most, 0, 0, 7, 7, 7, 7]).double()
    measured = lr + torch.tensor([40, -0.4, -30, 0.6, 0.49, 0.495, -0.49, -0.495])
    found = row_refinement.differs(measured, lr, 0.0075, most)
    assert found.tolist() == [False, False, False, True, False, True, False, True]


@pytest.mark.parametrize('most, dtype', [(255, torch.uint8), (1023, torch.int32),
                                         (65535, torch.int32)])
def test_integers_of_any_depth(most, dtype):
    generator = torch.Generator().manual_seed(0)
    for operator in (AveragePooling(2), SeparableResize(2), Grayscale((0.299, 0.587, 0.114))):
        shape = operator.measurement_shape((3, 8, 8))
        lr = torch.randint(most // 4, most // 4 * 3, (1, *shape), generator=generator).double()
        lr.view(-1)[0] = most if isinstance(operator, AveragePooling) else most // 2
        image = torch.rand(1, 3, 8, 8, generator=generator) * most
        result, unmatched = consistent_integers(image, lr, operator, most, return_unmatched=True)
        assert result.dtype == dtype and unmatched == 0
        assert 0 <= result.min() and result.max() <= most
        assert torch.equal(operator.A(result.double()).round(), lr)
    with pytest.raises(ValueError, match=rf'units of 0..{most} .at most {128 * (most + 1)} beyond'):
        consistent_integers(image * 0 + 129 * (most + 1) + most, lr, operator, most)
    for largest in (-128 * (most + 1), 128 * (most + 1) + most):
        consistent_integers(image * 0 + largest, lr, operator, most, max_iterations=0)
    with pytest.raises(ValueError, match='units of'):
        consistent_integers(image * 0 - 128 * (most + 1) - 300, lr, operator, most)


@pytest.mark.parametrize('bounds', [(16, 235), (0, 200), (30, 255)])
@pytest.mark.parametrize('operator', [AveragePooling(2), SeparableResize(2),
                                      Grayscale((0.299, 0.587, 0.114))], ids=str)
def test_bounds_are_kept_and_the_lr_given_back(operator, bounds):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, 16, 16, generator=generator) * 200 + 128
    lr = torch.randint(90, 130, (1, *operator.measurement_shape((3, 16, 16))), generator=generator)
    result, unmatched = consistent_integers(image, lr.to(torch.uint8), operator, 255, bounds,
                                            return_unmatched=True)
    assert unmatched == 0 and torch.equal(operator.A(result.double()).round().long(), lr)
    assert bounds[0] <= result.min() and result.max() <= bounds[1]
    assert (result == bounds[0]).any() and (result == bounds[1]).any()
    lr.view(-1)[3] = 255
    if bounds[1] < 255:
        for dtype in (torch.uint8, torch.float32):
            with pytest.raises(ValueError, match=f'lr: expected integers in {bounds[0]}..'):
                consistent_integers(image, lr.to(dtype), operator, 255, bounds)


def test_a_missing_pixel_is_kept():
    mask = torch.zeros(4, 4)
    mask[1, 2] = 1
    lr = mask[None, None] * 200
    image = torch.full((1, 1, 4, 4), 50.4)
    result, unmatched = consistent_uint8(image, lr, Masking(mask), return_unmatched=True)
    assert unmatched == 0 and result[0, 0, 1, 2] == 200 and (result == 50).sum() == 15


def test_clip_uint8():
    values = torch.tensor([-3.0, 0.4, 0.6, 254.6, 300.0]).view(1, 1, 1, 5)
    assert clip_uint8(values).flatten().tolist() == [0, 0, 1, 255, 255]


IMAGE, LR = torch.full((1, 1, 4, 4), 9.0), torch.full((1, 1, 2, 2), 9.0)


@pytest.mark.parametrize('image, lr, message', [
    (IMAGE.byte(), LR, r'image: expected a floating point tensor, got torch\.uint8'),
    (IMAGE * float('nan'), LR, 'image: expected finite values .* got range .nan'),
    (IMAGE * float('inf'), LR, 'got range .inf'),
    (IMAGE * 5000, LR, r'units of 0\.\.255 .* got range .45000, 45000'),
    (IMAGE[0], LR, 'N, C, H, W'),
    (IMAGE[:0], LR, 'non-empty'),
    (IMAGE, LR / 2, r'lr: expected integers in 0\.\.255'),
    (IMAGE, LR * 100, r'got values in \[900, 900\]'),
    (IMAGE, LR * float('nan'), 'lr: expected integers'),
    (IMAGE, LR.int(), 'lr: expected a floating point tensor, got torch.int32'),
    (IMAGE, LR.numpy(), 'lr: expected a torch.Tensor, got ndarray'),
    (IMAGE, LR[..., :1], r'expected shape \(1, 1, 2, 2\).*got \(1, 1, 2, 1\)'),
    (IMAGE[..., :3], LR, 'multiples of 2.*got 4x3'),
])
def test_refuses(image, lr, message):
    with pytest.raises(ValueError, match=message):
        consistent_uint8(image, lr, AveragePooling(2))


def test_a_foreign_operator_works():
    class Halving:  # the two methods of deepinv's LinearPhysics, nothing else

        def A(self, x):
            return F.avg_pool2d(x, 2)

        def A_dagger(self, y):
            return F.interpolate(y, scale_factor=2)

    assert not isinstance(Halving(), LinearOperator)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, 8, 8, generator=generator) * 255
    lr = torch.full((1, 1, 4, 4), 77.0)
    result, unmatched = consistent_uint8(image, lr, Halving(), return_unmatched=True)
    assert unmatched == 0 and (F.avg_pool2d(result.float(), 2).round() == 77).all()
    with pytest.raises(ValueError, match='got'):
        consistent_uint8(image, lr[..., :3], Halving())


@pytest.mark.parametrize('scale', (2, 8))
def test_fast_enough(scale):
    """Under 2 s for 1024² on two cores: processor time, which other programs do not lengthen."""
    image = torch.rand(1, 3, 1024, 1024) * 400 - 70
    lr = torch.randint(0, 256, (1, 3, 1024 // scale, 1024 // scale)).to(torch.uint8)
    times = []
    for _ in range(3):
        start = time.process_time()
        consistent_uint8(image, lr, AveragePooling(scale))
        times.append(time.process_time() - start)
    assert min(times) < 2 * 2
