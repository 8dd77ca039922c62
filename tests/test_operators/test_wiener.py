"""noise_std: against dense matrices, by Monte Carlo, its limits, and what is refused."""
import pytest
import torch

from mmpd.operators import (
    CEM,
    AveragePooling,
    BlockCompressedSensing,
    Compose,
    Grayscale,
    Masking,
    SeparableResize,
    pooling_decomposition,
    replace_range,
)
from mmpd.testing.operator_case import OperatorCase

SHAPE = (3, 8, 12)
OPERATORS = [AveragePooling(2), AveragePooling(4), SeparableResize(4),
             SeparableResize(2, 'lanczos'),
             SeparableResize(4, 'box'), SeparableResize(4, antialias=False), Grayscale(),
             Grayscale((0.3, 0.5, 0.9)), BlockCompressedSensing(0.25, 4),
             Compose([Grayscale(), AveragePooling(2)])]
every = pytest.mark.parametrize('operator', OPERATORS, ids=str)


def batch(operator, seed=0, count=2, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    x, truth = torch.rand(2, count, *SHAPE, generator=generator, dtype=torch.float64)
    return x, operator.A(x + (truth - x) * spread)


@every
@pytest.mark.parametrize('noise_std', (0.01, 0.1, 0.2))
def test_equals_the_dense_wiener_filter(operator, noise_std):
    """x + τ² Aᵀ(τ² A Aᵀ + σ²)⁻¹ r, with the τ² that makes E|r|² = τ² tr(A Aᵀ) + σ² m what it is."""
    x, y = batch(operator)
    matrix = OperatorCase.materialise(operator.A, SHAPE)
    gram, eye = matrix @ matrix.T, torch.eye(len(matrix), dtype=torch.float64)
    result = replace_range(x, y, operator, noise_std=noise_std)
    for raw, known, found in zip(x, y, result, strict=True):
        r = known.flatten() - matrix @ raw.flatten()
        variance = max(0, ((r @ r - noise_std**2 * len(r)) / gram.trace()).item())
        step = variance * matrix.T @ torch.linalg.solve(variance * gram + noise_std**2 * eye, r)
        torch.testing.assert_close(found, raw + step.view(SHAPE), rtol=0, atol=1e-12)


@pytest.mark.parametrize('operator', (AveragePooling(4), SeparableResize(4)), ids=str)
@pytest.mark.parametrize('noise_std', (0.3, 1.0, 4.0))
def test_the_least_error_of_all_strengths(operator, noise_std):
    """Monte Carlo: truth = x + τ white, y = A truth + σ white; errors relative to the prior's."""
    generator, deviation, count = torch.Generator().manual_seed(0), 3.0, 40
    x = torch.randn(count, 3, 64, 64, generator=generator, dtype=torch.float64)
    truth = x + deviation * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    y = operator.A(truth)
    y = y + noise_std * torch.randn(y.shape, generator=generator, dtype=torch.float64)

    def errors(**options):
        return (replace_range(x, y, operator, **options) - truth).square().mean((1, 2, 3))

    ours = errors(noise_std=noise_std)
    scan = {k / 10: errors(strength=k / 10) for k in range(11)}
    best = min(scan, key=lambda strength: scan[strength].mean())
    differences = ours - scan[best]
    # τ² is estimated from each image, from 768 values: that loses a trace
    trace = 2e-4 * scan[best].mean()
    assert differences.mean() < 3 * differences.std() / count**0.5 + trace
    for strength in (0, 1):
        gain = scan[strength] - ours
        if abs(strength - best) > 0.15:
            assert gain.mean() > 3 * gain.std() / count**0.5
    if isinstance(operator, AveragePooling):  # one singular value, 1 / s
        ideal = deviation**2 / 16 / (deviation**2 / 16 + noise_std**2)
        assert abs(best - ideal) < 0.1
        correction = replace_range(x, y, operator, noise_std=noise_std) - x
        share = (correction / (replace_range(x, y, operator) - x)).mean((1, 2, 3))
        assert abs(share.mean() - ideal) < 0.03


def test_a_resize_weighs_its_singular_values_differently():
    operator = SeparableResize(4)
    x, y = batch(operator)
    whole = replace_range(x, y, operator) - x
    part = replace_range(x, y, operator, noise_std=0.05) - x
    share = (part * whole).sum() / whole.square().sum()
    assert 0.05 < share < 0.95 and (part - share * whole).norm() > 0.02 * whole.norm()


@every
@pytest.mark.parametrize('dtype', (torch.float32, torch.float64))
def test_no_noise_is_plain_pd_bit_for_bit(operator, dtype):
    x, y = (tensor.to(dtype) for tensor in batch(operator))
    plain = replace_range(x, y, operator)
    for noise_std in (None, 0, 0.0):
        assert torch.equal(replace_range(x, y, operator, noise_std=noise_std), plain)
    tiny = replace_range(x, y, operator, noise_std=1e-30)  # whose square underflows
    torch.testing.assert_close(tiny, plain, rtol=0, atol=1e-5)


@every
def test_noise_that_explains_the_residual_leaves_the_prior(operator):
    x, y = batch(operator, spread=0.05)
    torch.testing.assert_close(replace_range(x, y, operator, noise_std=1.), x, rtol=0, atol=1e-14)
    same = replace_range(x, operator.A(x), operator, noise_std=1e-200)  # nothing over nothing
    torch.testing.assert_close(same, x, rtol=0, atol=1e-12)


def test_each_image_of_a_batch_has_its_own_strength():
    operator = SeparableResize(4)
    pairs = [batch(operator, seed, 1, spread) for seed, spread in enumerate((0.3, 1, 1.5))]
    together = replace_range(*map(torch.cat, zip(*pairs, strict=True)), operator, noise_std=0.05)
    for one, pair in zip(together, pairs, strict=True):
        alone = replace_range(*pair, operator, noise_std=0.05)
        torch.testing.assert_close(one, alone[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize('operator', (AveragePooling(4), SeparableResize(4)), ids=str)
def test_the_strength_is_no_function_to_learn_from(operator):
    """Gradients are those of the correction with the strength that was found."""
    x, y = batch(operator)
    weight = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    x.requires_grad_(), y.requires_grad_()
    result = replace_range(x, y, operator, noise_std=0.05)
    found = torch.autograd.grad((result * weight).sum(), (x, y))
    if isinstance(operator, AveragePooling):
        change = (result - x) / (replace_range(x, y, operator) - x)
        gain = change.detach()[:, :1, :1, :1]
        expected = weight - gain * operator.A_dagger(operator.A(weight))
        torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-11)
    assert found[0].isfinite().all() and found[1].abs().sum() > 0
    # what is added to the image in the range space moves it less than it would without PD
    assert operator.A(found[0]).norm() < operator.A(weight).norm()


@pytest.mark.parametrize('size', (16, 320))
def test_large_and_small_images_and_in_place(size):
    x, y = torch.rand(2, 3, size, size), torch.rand(2, 3, size // 4, size // 4)
    result = pooling_decomposition(x, y, 4, noise_std=0.05)
    error = y - AveragePooling(4).A(x)
    gain = 1 - 0.05**2 / error.square().mean((1, 2, 3), keepdim=True)
    expected = x + AveragePooling(4).A_dagger(gain * error)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)
    written = pooling_decomposition(x, y, 4, inplace=True, noise_std=0.05)
    assert written is x
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize('culprit', ('image', 'measurement'))
@pytest.mark.parametrize('operator', (AveragePooling(4), SeparableResize(4)), ids=str)
def test_nan_is_refused(operator, culprit):
    x, y = batch(operator)
    (x if culprit == 'image' else y)[0, 0, 0, 0] = float('nan')
    with pytest.raises(ValueError, match=f'{culprit}: expected finite values, got 1'):
        replace_range(x, y, operator, noise_std=0.1)
    assert replace_range(x, y, operator, check=False, noise_std=0.1)[1].isfinite().all()


class Foreign:
    tight, noise_gain = True, 1.0

    def A(self, x):
        return x[..., ::2, ::2]

    def A_dagger(self, y):
        raise AssertionError('not before the refusal')


@pytest.mark.parametrize('operator', [
    CEM(4), Masking([[1, 0], [0, 1]]), Foreign(), Compose([SeparableResize(2), AveragePooling(2)])],
    ids=lambda operator: type(operator).__name__)
def test_unknown_singular_values_are_refused_by_name(operator):
    x = torch.rand(1, 1, 2, 2) if isinstance(operator, Masking) else torch.rand(1, 1, 8, 8)
    with pytest.raises(ValueError, match='noise_std: expected an operator whose singular values '
                                         f'are known .*, got .*{type(operator).__name__}'):
        replace_range(x, operator.A(x), operator, noise_std=0.1)
    if not isinstance(operator, Foreign):
        assert torch.equal(replace_range(x, operator.A(x), operator, noise_std=0),
                           replace_range(x, operator.A(x), operator))


@pytest.mark.parametrize('options, message', [
    (dict(noise_std=-1), r'noise_std: expected a number in \[0, .*, got -1'),
    (dict(noise_std=float('nan')), 'noise_std: expected a number .*, got nan'),
    (dict(noise_std='5'), "noise_std: expected a number .*, got '5'"),
    (dict(noise_std=2, strength=0.5), 'strength: expected 1 beside noise_std=2, .* got 0.5'),
    (dict(noise_std=0, strength=0.5), 'strength: expected 1 beside noise_std=0'),
])
@pytest.mark.parametrize('operator', (AveragePooling(4), Grayscale(), Foreign()),
                         ids=lambda operator: type(operator).__name__)
def test_refuses_bad_noise(operator, options, message):
    x = torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match=message):
        replace_range(x, operator.A(x), operator, **options)
