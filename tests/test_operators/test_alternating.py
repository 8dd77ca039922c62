"""PD inside the image range by alternating projections, for operators without a formula."""
import warnings

import numpy as np
import pytest
import torch
from bounded_cases import BOUNDS, case, ours

from mmpd.operators import (
    CEM,
    AveragePooling,
    BlockCompressedSensing,
    Grayscale,
    Masking,
    SeparableResize,
    replace_range,
)
from mmpd.operators.alternating import alternating_projections


@pytest.mark.parametrize('operator, shape', [
    (SeparableResize(4), (2, 3, 16, 24)), (SeparableResize(4, 'lanczos'), (1, 1, 16, 16)),
    (Grayscale(), (2, 3, 5, 6)), (Masking([[1, 0], [0, 1]]), (1, 3, 2, 2)),
    (BlockCompressedSensing(0.25, 4), (1, 2, 8, 8))], ids=str)
def test_alternating_projections_find_the_nearest(operator, shape):
    """Optimal where x̂ = clip(x + q) with q in the range of A†, as is checked by least squares."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * 0.6 + 0.5
    y = operator.A(torch.rand(shape, generator=generator, dtype=torch.float64))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        result = operator.project(x, y, bounds=(0, 1))
    assert 0 <= result.min() and result.max() <= 1
    assert (operator.project(x, y) - x.clamp(0, 1)).abs().max() > 0.1
    assert (operator.A(result) - y).abs().max() <= 1e-4
    for _ in range(20):  # any other image of that kind is farther, at an obtuse angle
        other = torch.rand(shape, generator=generator, dtype=torch.float64)
        other = operator.project(other, y, bounds=(0, 1))
        assert ((x - result) * (other - result)).sum() < 2e-3 * x.numel()**0.5


def test_alternating_projections_equal_the_exact_ones():
    x, y = case(4)
    operator = AveragePooling(4)
    result = alternating_projections(x, y, operator.A, operator.A_dagger, *BOUNDS, tolerance=1e-9)
    torch.testing.assert_close(result, ours(x, y), rtol=0, atol=1e-6)
    box = SeparableResize(4, 'box')
    assert torch.equal(box.project(x, y, bounds=BOUNDS), ours(x, y))  # the same A


def ascent(x, target, a, dagger, low, high, iterations):
    """One image, in NumPy: Nesterov's ascent of the dual, anew whenever the error has grown."""
    q, ahead, momentum, best, before = 0, 0, 1.0, None, np.inf
    for _ in range(iterations + 1):
        image = np.clip(x + ahead, low, high)
        error = target - a @ image
        if best is None or abs(error).max() < best[0]:
            best = abs(error).max(), image
        if error @ error > before:
            momentum = 1.0
        before = error @ error
        moved = ahead + dagger @ error
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead, q, momentum = moved + (momentum - 1) / following * (moved - q), moved, following
    return best[1]


@pytest.mark.parametrize('iterations', (0, 1, 2, 3, 12, 60))
def test_alternating_projections_are_an_accelerated_ascent(iterations):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4, 9)) * np.array([1, 1, 1, 1, 1, 3, 3, 9, 9])
    dagger = np.linalg.pinv(a)
    x, target = rng.normal(size=(3, 9)) * 2, rng.uniform(0.2, 1.9, (3, 9)) @ a.T
    matrix, inverse = torch.from_numpy(a), torch.from_numpy(dagger)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        result = alternating_projections(
            torch.from_numpy(x).view(3, 1, 1, 9), torch.from_numpy(target).view(3, 1, 1, 4),
            lambda image: image @ matrix.T, lambda error: error @ inverse.T, 0.2, 1.9,
            max_iterations=iterations, tolerance=0)
    wanted = [ascent(*pair, a, dagger, 0.2, 1.9, iterations)
              for pair in zip(x, target, strict=True)]
    np.testing.assert_allclose(result.view(3, 9), wanted, rtol=0, atol=1e-9)


def test_alternating_projections_end_where_all_images_are_near_enough():
    calls = []

    def run(off, **options):
        """Identity as A, which an A† of a tenth follows in small steps."""
        calls.clear()
        target = torch.tensor([5., 5 + off]).view(2, 1, 1, 1)
        return alternating_projections(
            torch.full((2, 1, 1, 1), 5.), target, lambda image: (calls.append('A'), image)[1],
            lambda error: (calls.append('A†'), error / 10)[1], 0, 10, **options)

    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert run(0.0).tolist() == [[[[5.]]], [[[5.]]]] and calls == ['A']
        assert run(0.099, tolerance=0.01) is not None and calls == ['A']  # a tenth of ten
        result = run(0.11, tolerance=0.01)
        assert calls == ['A', 'A†'] * 1 + ['A'] and result[1] == pytest.approx(5.011)
    with pytest.warns(UserWarning, match='that A degrades to .* up to 0.01 of their') as told:
        run(4, tolerance=0.01, max_iterations=2)
    assert calls == ['A', 'A†', 'A', 'A†', 'A'] and len(told) == 1
    with pytest.warns(UserWarning):
        run(4, max_iterations=0)
    assert calls == ['A']


def test_an_lr_that_no_image_in_range_has_is_told():
    operator = SeparableResize(4)
    x, y = torch.rand(2, 1, 16, 16, dtype=torch.float64), torch.full((2, 1, 4, 4), 0.5).double()
    y[0, 0, 1, 1] = 1.8
    with pytest.warns(UserWarning, match='bounds: no image within them was found that Separable'):
        result = operator.project(x, y, bounds=(0, 1))
    assert 0 <= result.min() and result.max() <= 1
    torch.testing.assert_close(operator.A(result[1:]), y[1:], rtol=0, atol=1e-4)


def test_nan_and_divergence_stay_where_they_are():
    operator = SeparableResize(4)
    x, y = torch.rand(2, 1, 16, 16), torch.rand(2, 1, 4, 4) * 0.5 + 0.2
    x[0, 0, 3, 3] = float('nan')
    with pytest.raises(ValueError, match='image: expected finite'):
        operator.project(x, y, bounds=(0, 1))
    result = operator.project(x, y, check=False, bounds=(0, 1))
    assert result[0].isnan().any() and result[1].isfinite().all()
    with pytest.warns(UserWarning, match='no image'):  # an A† that is none
        wild = alternating_projections(x[1:], y[1:], operator.A,
                                       lambda e: -1e30 * operator.A_dagger(e), 0, 1,
                                       max_iterations=20)
    assert wild.isfinite().all() and torch.equal(wild, x[1:].clamp(0, 1))


@pytest.mark.parametrize('operator', (SeparableResize(4), CEM(4)), ids=str)
def test_gradients_through_alternating_projections_are_refused(operator):
    x, y = torch.rand(1, 1, 16, 16).requires_grad_(), torch.rand(1, 1, 4, 4)
    with pytest.raises(ValueError, match='bounds: with .* alternating projections are run, which '
                                         'are for inference'):
        replace_range(x, y, operator, bounds=(0, 1))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert replace_range(x, y, operator, bounds=(0, 1)).shape == x.shape


class Foreign:
    """Pooling by somebody else."""

    def __repr__(self):
        return 'Foreign'

    def A(self, x):
        return torch.nn.functional.avg_pool2d(x, 4)

    def A_dagger(self, y):
        return torch.nn.functional.interpolate(y, scale_factor=4)


def test_foreign_operators():
    x, y = case(4)
    result = replace_range(x, y.clamp(-0.9, 0.9), Foreign(), bounds=BOUNDS)
    expected = ours(x, y.clamp(-0.9, 0.9))
    torch.testing.assert_close(result, expected, rtol=0, atol=2e-3)
    with pytest.raises(ValueError, match='alternating projections are run'):
        replace_range(x.requires_grad_(), y, Foreign(), bounds=BOUNDS)


@pytest.mark.parametrize('bounds, message', [
    ((1, 0), r'bounds: expected the lower bound first, \(low, high\), got \(1, 0\)'),
    ((0, 0), 'the lower bound first'), (1, 'a sequence of 2 values, got 1'),
    ((0, 1, 2), 'a sequence of 2 values'), ('01', "a sequence of 2 values, got '01'"),
    ((0, float('inf')), 'a finite number, got inf'), ((0, '1'), "a finite number, got '1'"),
])
@pytest.mark.parametrize('operator', (AveragePooling(4), SeparableResize(4), Foreign()), ids=str)
def test_refuses_bad_bounds(operator, bounds, message):
    with pytest.raises(ValueError, match=message):
        replace_range(torch.rand(1, 1, 16, 16), torch.rand(1, 1, 4, 4), operator, bounds=bounds)
