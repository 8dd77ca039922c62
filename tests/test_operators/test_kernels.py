"""The table of kernels: what both users of it rely on."""
import numpy as np
import pytest

from mmpd.datasets import resampling
from mmpd.operators.kernels import BORDERS, KERNELS, RADIUS, check_kernel, kernel_value, taps

BOTH = [(kernel, antialias) for kernel in KERNELS for antialias in (True, False)]


@pytest.mark.parametrize('kernel, antialias', BOTH)
def test_kernels_are_symmetric_end_at_the_radius_and_sum_to_one(kernel, antialias):
    radius = RADIUS[kernel, antialias]
    t = np.linspace(0, radius + 1, 1001)
    value = kernel_value(kernel, antialias, t)
    np.testing.assert_array_equal(value, kernel_value(kernel, antialias, -t))
    assert kernel_value(kernel, antialias, np.zeros(1)) == 1 and not value[t >= radius].any()
    assert value[t < radius * 0.99].any()
    assert kernel_value(kernel, antialias, np.array([radius])) == pytest.approx(0, abs=1e-15)
    shifted = [kernel_value(kernel, antialias, np.arange(-5, 6) + shift).sum()
               for shift in (0, 0.1, 0.25, 0.4)]
    # Lanczos is not a partition of unity: within 2 % only
    np.testing.assert_allclose(shifted, 1, atol=0.02 if kernel == 'lanczos' else 1e-12)


def test_the_parameter_of_bicubic():
    """Keys: the slope at 1 is a, whatever the side."""
    t, step = np.array([1 - 1e-6, 1 + 1e-6]), 2e-6
    for antialias, usual in ((True, -0.5), (False, -0.75)):
        for a in (None, usual, -0.3):
            low, high = kernel_value('bicubic', antialias, t, a)
            assert (high - low) / step == pytest.approx(usual if a is None else a, abs=1e-4)


@pytest.mark.parametrize('kernel, antialias', BOTH)
@pytest.mark.parametrize('scale', [1, 2, 3, 8])
def test_taps_are_centred_and_complete(kernel, antialias, scale):
    offsets, weights = taps(scale, kernel, antialias)
    stretch = scale if antialias else 1
    wide = np.arange(-10 * scale, 11 * scale)
    distances = (wide - (scale - 1) / 2) / stretch
    expected = {o: w for o, w in zip(wide, kernel_value(kernel, antialias, distances), strict=True)
                if abs(w) > 1e-12}
    if (kernel, antialias) == ('box', False):
        expected = {scale // 2: 1}
    found = {o: w for o, w in zip(offsets, weights, strict=True) if abs(w) > 1e-12}
    assert found == pytest.approx(expected)
    if antialias:
        assert len(offsets) % scale == 0 and len(offsets) // scale % 2 == 1
    elif kernel != 'box':
        assert len(offsets) == 2 * RADIUS[kernel, antialias]


def test_downsampling_knows_the_same_names():
    assert resampling.KERNELS == ('average_pooling', *KERNELS) and resampling.BORDERS is BORDERS
    with pytest.raises(ValueError, match="kernel: expected one of bicubic.*got 'average_pooling'"):
        check_kernel('average_pooling')
    with pytest.raises(ValueError, match="border: expected one of library, mirror, got 'wrap'"):
        check_kernel('box', 'wrap')
