"""The comparators: what each guarantees, and that it is what its NumPy / SciPy / cv2 twin gives."""
import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage

from mmpd.operators import AveragePooling, Grayscale, SeparableResize
from mmpd.postprocess import (
    adain,
    additive_constraint,
    average_colour_fix,
    iterative_back_projection,
    multiplicative_constraint,
    scaled_additive_constraint,
    softmax_constraint,
    wavelet,
)

CONSTRAINTS = (additive_constraint, multiplicative_constraint, scaled_additive_constraint,
               softmax_constraint)
ALL = (adain, wavelet, average_colour_fix, iterative_back_projection, *CONSTRAINTS)


def pair(scale=4, size=(8, 6), n=2, seed=0, dtype=torch.float64):
    """A smooth picture with detail, 0..255, and an LR that is not its own."""
    rng = np.random.default_rng(seed)
    shape = (n, 3, size[0] * scale, size[1] * scale)
    sr = ndimage.gaussian_filter(rng.standard_normal(shape), (0, 0, 2, 2)) * 300 + 120
    sr = (sr + rng.standard_normal(shape) * 8).clip(0, 255)
    lr = sr.reshape(n, 3, size[0], scale, size[1], scale).mean((3, 5))
    lr = (lr + rng.standard_normal(lr.shape) * 12 + 5).clip(0, 255)
    return torch.from_numpy(sr).to(dtype), torch.from_numpy(lr).to(dtype)


def planes(function, image):
    """Apply ``function`` to every (H, W) plane of a tensor."""
    found = [[function(plane) for plane in picture] for picture in image.numpy()]
    return torch.from_numpy(np.array(found))


def cv2_enlarged(image, size):
    return planes(lambda plane: cv2.resize(plane, size[::-1], interpolation=cv2.INTER_CUBIC), image)


@pytest.mark.parametrize('function', ALL)
@pytest.mark.parametrize('dtype', (torch.float32, torch.float64))
def test_kept(function, dtype):
    """Size, dtype, the given tensors; and every picture of a batch is for itself."""
    sr, lr = pair(dtype=dtype)
    before = sr.clone(), lr.clone()
    result = function(sr, lr, AveragePooling(4))
    assert result.shape == sr.shape and result.dtype == dtype and result.isfinite().all()
    assert torch.equal(sr, before[0]) and torch.equal(lr, before[1])
    assert (result - sr).abs().max() > 1
    torch.testing.assert_close(function(sr[1:], lr[1:], dict(type='AveragePooling')), result[1:])


@pytest.mark.parametrize('function', ALL)
def test_closer_to_the_lr(function):
    sr, lr = pair()
    before, after = (F.avg_pool2d(image, 4) - lr for image in
                     (sr, function(sr, lr, AveragePooling(4))))
    assert after.square().mean() < before.square().mean()


@pytest.mark.parametrize('function', ALL)
@pytest.mark.parametrize('change,message', (
    (lambda sr, lr: (sr[..., :-1], lr), 'scale'),
    (lambda sr, lr: (sr, lr[:1]), 'lr: expected 2 images of 3 channels'),
    (lambda sr, lr: (sr, lr[:, :1]), 'lr: expected 2 images of 3 channels'),
    (lambda sr, lr: (sr.byte(), lr), 'sr: expected a floating point'),
    (lambda sr, lr: (sr, lr[0]), r'lr: expected shape \(N, C, H, W\)'),
    (lambda sr, lr: (sr * float('nan'), lr), 'sr: expected finite'),
    (lambda sr, lr: (sr, lr / 0), 'lr: expected finite'),
))
def test_refuses(function, change, message):
    with pytest.raises(ValueError, match=message):
        function(*change(*pair()), AveragePooling(4))


def test_adain_matches_statistics():
    sr, lr = pair()
    enlarged = cv2_enlarged(lr, sr.shape[-2:])
    result = adain(sr, lr, eps=1e-14).numpy()
    for wanted, got in zip(enlarged.numpy().reshape(6, -1), result.reshape(6, -1), strict=True):
        assert got.mean() == pytest.approx(wanted.mean(), rel=1e-9)
        assert got.std() == pytest.approx(wanted.std(), rel=1e-9)
    # an affine map of the pixels, as StableSR's with its eps
    x, z = sr.numpy() / 255, enlarged.numpy() / 255
    stats = [(image.mean((2, 3), keepdims=True),
              np.sqrt(image.var((2, 3), keepdims=True, ddof=1) + 1e-5)) for image in (x, z)]
    expected = ((x - stats[0][0]) / stats[0][1] * stats[1][1] + stats[1][0]) * 255
    np.testing.assert_allclose(adain(sr, lr).numpy(), expected, atol=1e-8)
    with pytest.raises(ValueError, match='eps'):
        adain(sr, lr, eps=0)


@pytest.mark.parametrize('levels', (1, 3, 5))
def test_wavelet_is_scipys_a_trous(levels):
    sr, lr = pair()

    def low(plane):
        for level in range(levels):
            kernel = np.zeros(2**(level + 1) + 1)
            kernel[[0, 2**level, -1]] = 0.25, 0.5, 0.25
            for axis in (0, 1):
                plane = ndimage.correlate1d(plane, kernel, axis, mode='nearest')
        return plane

    enlarged = cv2_enlarged(lr, sr.shape[-2:])
    expected = sr - planes(low, sr) + planes(low, enlarged)
    torch.testing.assert_close(wavelet(sr, lr, levels=levels), expected)
    with pytest.raises(ValueError, match='levels'):
        wavelet(sr, lr, levels=0)


def test_wavelet_keeps_detail_and_takes_the_colour():
    sr, lr = torch.full((1, 1, 256, 256), 90.), torch.full((1, 1, 64, 64), 120.)
    torch.testing.assert_close(wavelet(sr, lr), torch.full_like(sr, 120))
    sr[..., 128, 128] += 100
    detail = wavelet(sr, lr)
    assert detail[..., 128, 128] - 120 == pytest.approx(100, abs=1)


@pytest.mark.parametrize('percent,size', ((100, (8, 6)), (50, (8, 6)), (12.5, (16, 24)),
                                          (12.5, (9, 13)), (33, (7, 10)), (1, (8, 6)),
                                          (20.1, (10, 10))))
def test_average_colour_fix_is_cv2s(percent, size):
    sr, lr = pair(size=size)
    small = [max(int(np.ceil(side * percent / 100)), 1) for side in size]

    def area(image):
        return planes(lambda plane: cv2.resize(plane, small[::-1], interpolation=cv2.INTER_AREA),
                      image)

    expected = sr + cv2_enlarged(area(lr) - area(sr), sr.shape[-2:])
    # cv2 has its weights in float32
    torch.testing.assert_close(average_colour_fix(sr, lr, percent=percent), expected, rtol=0,
                               atol=2e-4)
    if percent == 100:
        torch.testing.assert_close(
            iterative_back_projection(sr, lr, AveragePooling(4), iterations=1), expected, rtol=0,
            atol=2e-4)


@pytest.mark.parametrize('percent', (0, -1, 101, float('nan')))
def test_average_colour_fix_refuses(percent):
    with pytest.raises(ValueError, match='percent'):
        average_colour_fix(*pair(), percent=percent)


@pytest.mark.parametrize('operator', (AveragePooling(4), SeparableResize(4)))
@pytest.mark.parametrize('kernel', ('bicubic', 'bilinear', 'nearest'))
def test_iterative_back_projection_converges(operator, kernel):
    sr, lr = pair()
    error = [(operator.A(iterative_back_projection(sr, lr, operator, n, kernel)) - lr).norm()
             for n in (1, 2, 8, 120)]
    start = (operator.A(sr) - lr).norm()
    assert start > error[0] > error[1] * 0.999999 or error[1] < 1e-9
    assert error[3] < error[2] + 1e-9 and error[3] < 1e-2 * start


def test_iterative_back_projection_by_numpy():
    sr, lr = pair()
    x = sr.numpy()
    for _ in range(3):
        small = x.reshape(2, 3, 8, 4, 6, 4).mean((3, 5))
        x = x + 0.7 * cv2_enlarged(lr - small, sr.shape[-2:]).numpy()
    result = iterative_back_projection(sr, lr, AveragePooling(4), iterations=3, step=0.7)
    np.testing.assert_allclose(result.numpy(), x, atol=1e-3)


@pytest.mark.parametrize('scale,size', ((4, 4), (4, 6), (3, 5), (2, 8)))
def test_back_projection_kernel(scale, size):
    """h_BP on LR pixels spread over the HR grid: SciPy's correlation; a box of the scale is PD."""
    sr, lr = pair(scale)
    operator = AveragePooling(scale)
    rng = np.random.default_rng(1)
    kernel = rng.random((size, size))
    margin = size  # LR pixels
    error = np.pad((lr - operator.A(sr)).numpy(), ((0, 0), (0, 0), *[(margin, margin)] * 2),
                   mode='edge')
    spread = np.zeros((*error.shape[:2], *(side * scale for side in error.shape[2:])))
    # the centre of an LR pixel: on a pixel (odd scale) or behind one (even scale)
    spread[..., (scale - 1) // 2::scale, (scale - 1) // 2::scale] = error
    origin = 0 if scale % 2 else -1
    spread = planes(lambda plane: ndimage.convolve(plane, kernel, mode='constant',
                                                   origin=origin), torch.from_numpy(spread))
    cut = margin * scale
    expected = sr + spread[..., cut:-cut, cut:-cut]
    result = iterative_back_projection(sr, lr, operator, 1, torch.from_numpy(kernel))
    torch.testing.assert_close(result, expected)
    for box in (torch.ones(scale, scale), 'nearest'):
        torch.testing.assert_close(iterative_back_projection(sr, lr, operator, 1, box),
                                   operator.project(sr, lr))


@pytest.mark.parametrize('kwargs,message', (
    (dict(kernel=torch.ones(3, 3)), 'size is even'), (dict(kernel=torch.ones(4)), 'kernel'),
    (dict(kernel=torch.ones(0, 0)), 'square'), (dict(kernel=torch.ones(4, 6)), 'square'),
    (dict(kernel=torch.full((4, 4), torch.inf)), 'finite'), (dict(kernel='lanczos'), 'kernel'),
    (dict(iterations=0), 'iterations'), (dict(step=0), 'step'),
    (dict(operator=AveragePooling(2)), 'expected shape'), (dict(operator=Grayscale()), 'lr')))
def test_iterative_back_projection_refuses(kwargs, message):
    arguments = dict(operator=AveragePooling(4)) | kwargs
    with pytest.raises(ValueError, match=message):
        iterative_back_projection(*pair(), **arguments)


@pytest.mark.parametrize('function', CONSTRAINTS)
@pytest.mark.parametrize('seed', range(3))
def test_constraint_layers_give_the_mean(function, seed):
    sr, lr = pair(seed=seed)
    sr[0, 0, :8] = 0
    sr[0, 1, :8] = 255
    sr[1, 0, :4] = lr[1, 0, 0] = 0
    lr[1, 1, 0] = 255
    result = function(sr, lr, AveragePooling(4))
    torch.testing.assert_close(F.avg_pool2d(result, 4), lr, rtol=0, atol=1e-9)
    # another name of the same A
    torch.testing.assert_close(function(sr, lr, SeparableResize(4, 'box')), result)


def test_additive_constraint_is_pd():
    sr, lr = pair()
    torch.testing.assert_close(additive_constraint(sr, lr, AveragePooling(4)),
                               AveragePooling(4).project(sr, lr))


def test_constraint_layers_by_numpy():
    """The formulas of the papers, patch by patch, on their ranges."""
    sr, lr = pair()
    found = {f: f(sr, lr, AveragePooling(4)).numpy() for f in CONSTRAINTS}
    for n, c, i, j in np.ndindex(*lr.shape):
        area = n, c, slice(4 * i, 4 * i + 4), slice(4 * j, 4 * j + 4)
        x, y = sr.numpy()[area], lr.numpy()[n, c, i, j]
        np.testing.assert_allclose(found[multiplicative_constraint][area], x * y / x.mean(),
                                   atol=1e-9)
        e = np.exp(x / 255)
        np.testing.assert_allclose(found[softmax_constraint][area], e * y / e.mean(), atol=1e-9)
        u, v = x / 127.5 - 1, y / 127.5 - 1  # Geiss and Hardin: in [-1, 1]
        sigma = np.sign(u.mean() - v)
        u = u + (v - u.mean()) * (sigma + u) / (sigma + u.mean())
        np.testing.assert_allclose(found[scaled_additive_constraint][area], (u + 1) * 127.5,
                                   atol=1e-9)
    f = np.exp(3 * sr.numpy()[0, 0, :4, :4] / 255)
    np.testing.assert_allclose(
        softmax_constraint(sr, lr, AveragePooling(4), factor=3).numpy()[0, 0, :4, :4],
        f * lr[0, 0, 0, 0].item() / f.mean(), atol=1e-9)


def test_scaled_additive_constraint_stays_in_the_range():
    rng = np.random.default_rng(0)
    sr = torch.from_numpy(rng.choice([0, 3, 128, 250, 255], (1, 3, 32, 32)).astype(float))
    lr = torch.from_numpy(rng.choice([0, 1, 128, 254, 255], (1, 3, 8, 8)).astype(float))
    operator = AveragePooling(4)
    result = scaled_additive_constraint(sr, lr, operator)
    assert result.min() >= 0 and result.max() <= 255
    outside = additive_constraint(sr, lr, operator)
    assert outside.min() < 0 and outside.max() > 255
    torch.testing.assert_close(F.avg_pool2d(result, 4), lr)
    torch.testing.assert_close(
        scaled_additive_constraint(sr / 255, lr / 255, operator, bounds=(0, 1)), result / 255)


@pytest.mark.parametrize('function,change,message', (
    (multiplicative_constraint, lambda sr, lr: (sr - 300, lr), 'sr: expected values in'),
    (multiplicative_constraint, lambda sr, lr: (sr, lr - 300), 'lr: expected values in'),
    (softmax_constraint, lambda sr, lr: (sr, lr - 300), 'lr: expected values in'),
    (scaled_additive_constraint, lambda sr, lr: (sr - 300, lr), 'sr: expected values in'),
    (scaled_additive_constraint, lambda sr, lr: (sr, lr + 300), 'lr: expected values in'),
))
def test_constraint_layers_refuse_values(function, change, message):
    with pytest.raises(ValueError, match=message):
        function(*change(*pair()), AveragePooling(4))


@pytest.mark.parametrize('function', CONSTRAINTS)
def test_constraint_layers_are_for_average_pooling(function):
    with pytest.raises(ValueError, match='made for AveragePooling, got SeparableResize'):
        function(*pair(), SeparableResize(4))
    with pytest.raises(ValueError, match=r'measurement: expected shape \(2, 3, 16, 12\)'):
        function(*pair(), AveragePooling(2))
    with pytest.raises(ValueError, match='bounds'):
        scaled_additive_constraint(*pair(), AveragePooling(4), bounds=(1, 0))


def test_enlargement_is_opencvs_bicubic_not_pils():
    """What the parity above stands on: a = -0.75."""
    _, lr = pair()
    ours = F.interpolate(lr, scale_factor=4, mode='bicubic')
    torch.testing.assert_close(ours, cv2_enlarged(lr, (32, 24)), rtol=0, atol=1e-3)
    pil = planes(lambda plane: np.asarray(Image.fromarray(plane.astype(np.float32)).resize(
        (24, 32), Image.BICUBIC)), lr)
    assert (ours - pil).abs().max() > 0.1
