"""CEM, the comparator of Table 1: right in the interior, inexact by filter length and border."""
import cv2
import numpy as np
import pytest
import torch

from mmpd.operators import CEM, AveragePooling, SeparableResize, resize_matrix
from mmpd.operators.cem import _filters


def psnr(error):
    return -10 * torch.log10(error.double().square().mean()).item()


@pytest.mark.parametrize('scale', (2, 3, 8))
def test_interior_is_bicubic_antialias(scale):
    x = torch.rand(1, 3, 12 * scale, 10 * scale, dtype=torch.float64)
    ours, exact = CEM(scale).A(x), SeparableResize(scale).A(x)
    torch.testing.assert_close(ours[..., 2:-2, 2:-2], exact[..., 2:-2, 2:-2])
    assert (ours - exact).abs().max() > 1e-4  # the border rules differ


@pytest.mark.parametrize('scale', (2, 3, 4, 8))
def test_consistent_in_the_interior_only(scale):
    generator = torch.Generator().manual_seed(0)
    operator = CEM(scale)
    x = torch.rand(1, 1, 48 * scale, 48 * scale, generator=generator)
    y = torch.rand(1, 1, 48, 48, generator=generator)
    error = operator.A(operator.project(x, y)) - y
    assert psnr(error[..., 16:-16, 16:-16]) > 110
    # white noise: the official code gives 71 at 8x and 1024², the paper reports 42.2
    assert 45 < psnr(error) < 90
    assert psnr(AveragePooling(scale).A(AveragePooling(scale).project(x, y)) - y) > 140


def test_constants_are_kept():
    operator = CEM(4)
    flat = torch.full((1, 1, 10, 12), 0.3, dtype=torch.float64)
    torch.testing.assert_close(operator.A_dagger(flat), torch.full((1, 1, 40, 48), 0.3).double(),
                               rtol=0, atol=1e-5)


def test_inverse_filter_is_the_inverse():
    """(h hᵀ) * (h hᵀ)⁻¹ is a unit impulse up to the part of the filter that was cut off."""
    h, inverse = _filters(4, 0.01, -0.5)
    impulse = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    impulse[..., 20, 20] = 1
    up = torch.nn.functional.conv_transpose2d(
        torch.nn.functional.conv2d(impulse, inverse, padding=inverse.shape[-1] // 2), h, stride=4)
    down = torch.nn.functional.conv2d(up, h, stride=4)
    middle = down[..., 8:-8, 8:-8]
    assert middle.max() == pytest.approx(1, abs=1e-5)
    assert middle.abs().sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize('scale', (2, 3, 4))
@pytest.mark.parametrize('bound', (0.01, 0.5, 1.0))
def test_the_inverse_filter_is_one_over_the_bounded_spectrum(scale, bound):
    """h hᵀ from the rows of the exact operator, far from the border; its cosine series is real."""
    rows = resize_matrix(32 * scale, scale)
    around = (rows[10:23] @ rows[16]).numpy()  # six lags on either side
    lags, frequencies = np.arange(-6, 7), np.arange(64) / 64
    spectrum = np.cos(2 * np.pi * np.outer(frequencies, lags)) @ around
    wanted = 1 / np.maximum(np.outer(spectrum, spectrum), bound / scale**2)
    inverse = _filters(scale, bound, -0.5)[1][0, 0]
    half, odd = divmod(len(inverse), 2)
    assert odd and inverse.shape == (2 * half + 1, 2 * half + 1)
    wave = torch.from_numpy(np.exp(2j * np.pi * np.outer(frequencies, np.arange(-half, half + 1))))
    found = (wave @ inverse.to(wave.dtype) @ wave.T).numpy()
    # what is cut off is as small as the kernel is smooth where it meets the bound
    np.testing.assert_allclose(found, wanted, rtol=0.02 if bound == 0.5 else 2e-5)
    if bound == 1:  # nothing but constants is left as it is
        assert len(inverse) == 1
    elif bound < 0.1:  # no ring is kept that weighs nothing, and none dropped that does
        total = inverse.abs().sum()
        assert total - inverse[1:-1, 1:-1].abs().sum() > 1e-6 * total
        assert len(inverse) > 20


@pytest.mark.parametrize('scale', (2, 3, 8))
def test_the_authors_kernel(scale):
    """Theirs is cv2's bicubic enlargement of an impulse, for which a = -0.75."""
    impulse = np.zeros((1, 9), np.float64)
    impulse[0, 4] = 1
    row = cv2.resize(impulse, (9 * scale, 1), interpolation=cv2.INTER_CUBIC)[0]
    row = row[np.abs(row) > 1e-9]
    h, _ = _filters(scale, 0.01, -0.75)
    expected = np.outer(row, row) / row.sum()**2
    ours = h[0, 0].numpy()
    ours = ours[np.ix_(*(np.abs(ours).sum(axis) > 1e-9 for axis in (1, 0)))]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)
    assert (CEM(scale)._filters(h)[0] - h).abs().max() > 1e-5


@pytest.mark.parametrize('arguments', [dict(bound=0), dict(bound=2), dict(a=0.5), dict(a=-2)])
def test_refuses_arguments(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        CEM(4, **arguments)


def test_the_bound_limits_the_gain():
    """|h hᵀ| of a constant is 1: with bound 1 nothing is amplified beyond that of constants."""
    checker = (torch.arange(24)[:, None] + torch.arange(24)) % 2 * 2.0 - 1
    weak, strong = (CEM(4, bound).A_dagger(checker.view(1, 1, 24, 24)) for bound in (1.0, 0.001))
    assert weak.norm() < 0.8 * strong.norm()
