"""SeparableResize against the libraries whose kernels it names."""
import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mmpd.datasets.resampling import downsample
from mmpd.operators import AveragePooling, SeparableResize, resize, resize_matrix

SCALES = (1, 2, 3, 4, 5, 8, 16)


def pil(name):
    return lambda image, size: np.asarray(
        Image.fromarray(image).resize(size[::-1], getattr(Image.Resampling, name)))


def opencv(name):
    return lambda image, size: cv2.resize(image, size[::-1], interpolation=getattr(cv2, name))


def torch_resize(mode, antialias=False):
    return lambda image, size: F.interpolate(torch.from_numpy(image)[None, None], size, mode=mode,
                                             antialias=antialias)[0, 0].numpy()


LIBRARIES = {
    'bicubic-antialias-pil': ('bicubic', True, pil('BICUBIC')),
    'bicubic-antialias-torch': ('bicubic', True, torch_resize('bicubic', True)),
    'bicubic-alias-opencv': ('bicubic', False, opencv('INTER_CUBIC')),
    'bicubic-alias-torch': ('bicubic', False, torch_resize('bicubic')),
    'bilinear-antialias-pil': ('bilinear', True, pil('BILINEAR')),
    'bilinear-antialias-torch': ('bilinear', True, torch_resize('bilinear', True)),
    'bilinear-alias-opencv': ('bilinear', False, opencv('INTER_LINEAR')),
    'bilinear-alias-torch': ('bilinear', False, torch_resize('bilinear')),
    'lanczos-antialias-pil': ('lanczos', True, pil('LANCZOS')),
    'lanczos-alias-opencv': ('lanczos', False, opencv('INTER_LANCZOS4')),
    'box-antialias-pil': ('box', True, pil('BOX')),
    'box-antialias-opencv': ('box', True, opencv('INTER_AREA')),
    'box-alias-pil': ('box', False, pil('NEAREST')),
    'box-alias-torch': ('box', False, torch_resize('nearest-exact')),
}


@pytest.mark.parametrize('scale', SCALES)
@pytest.mark.parametrize('name', LIBRARIES)
def test_equals_the_library(name, scale):
    kernel, antialias, library = LIBRARIES[name]
    height, width = 7 * scale, 5 * scale
    image = np.random.default_rng(0).random((height, width), dtype=np.float32)
    ours = SeparableResize(scale, kernel, antialias).A(torch.from_numpy(image)[None, None])
    expected = library(image, (7, 5))
    assert np.abs(ours[0, 0].numpy() - expected).max() <= 1e-5  # border included


@pytest.mark.parametrize('name', ['bicubic-antialias-pil', 'bicubic-alias-opencv',
                                  'lanczos-antialias-pil', 'bilinear-antialias-torch'])
def test_kernels_differ(name):
    """The parity above would be empty if the options changed nothing."""
    kernel, antialias, library = LIBRARIES[name]
    image = np.random.default_rng(0).random((32, 32), dtype=np.float32)
    expected = library(image, (8, 8))
    for other in ('bicubic', 'bilinear', 'lanczos', 'box'):
        for widened in (True, False):
            result = SeparableResize(4, other, widened).A(torch.from_numpy(image)[None, None])
            same = np.abs(result[0, 0].numpy() - expected).max() <= 1e-5
            assert same == ((other, widened) == (kernel, antialias))


def test_box_is_average_pooling():
    x, y = torch.rand(1, 3, 24, 16), torch.rand(1, 3, 3, 2)
    box, pooling = SeparableResize(8, 'box'), AveragePooling(8)
    torch.testing.assert_close(box.project(x, y), pooling.project(x, y), rtol=0, atol=1e-6)
    assert box.patch_mean and not SeparableResize(8, 'box', antialias=False).patch_mean


def test_condition_numbers():
    """Bicubic 16x antialias is well conditioned along one axis: the pseudo-inverse is stable."""
    values = torch.linalg.svdvals(resize_matrix(1024, 16))
    assert (values[0] / values[-1]).item() == pytest.approx(1.45, abs=0.01)
    largest, gain, condition = SeparableResize(16).gains(1024, 1024)
    assert condition == pytest.approx(largest * gain) and condition < 2.2


def test_noise_gain_hardly_depends_on_the_size():
    operator = SeparableResize(4)
    assert operator.noise_gain == pytest.approx(operator.gains(512, 512)[1], rel=0.01)


@pytest.mark.parametrize('kernel', ('bicubic', 'bilinear', 'lanczos', 'box'))
@pytest.mark.parametrize('antialias', (True, False))
def test_consistency_in_float32_exceeds_120_db(kernel, antialias):
    operator = SeparableResize(8, kernel, antialias)
    x = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    y = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    error = (operator.A(operator.project(x, y)) - y).double()
    assert -10 * torch.log10(error.square().mean()) > 120


@pytest.mark.parametrize('arguments, message', [
    (dict(scale=2, kernel='cubic'), "expected one of bicubic.*got 'cubic'"),
    (dict(scale=1.5), 'scale: expected an integer'),
])
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SeparableResize(**arguments)


def test_matrix_refuses_a_size_that_does_not_divide():
    for arguments, message in (((10, 4), 'multiple of the scale 4, got 10'), ((8, 0), 'scale: exp'),
                               ((0, 4), 'size: expected an integer of at least 1'),
                               ((8, 4, 'cubic'), 'kernel: expected one of')):
        with pytest.raises(ValueError, match=message):
            resize_matrix(*arguments)


@pytest.mark.parametrize('antialias', (True, False))
@pytest.mark.parametrize('kernel', ('bicubic', 'bilinear', 'lanczos', 'box'))
def test_tiny_images(kernel, antialias):
    """One LR pixel: the kernel is wider than the image."""
    operator = SeparableResize(4, kernel, antialias)
    x, y = torch.rand(1, 1, 4, 4, dtype=torch.float64), torch.rand(1, 1, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(operator.A(operator.project(x, y)), y)
    torch.testing.assert_close(operator.A(torch.ones_like(x)), torch.ones_like(y))


@pytest.mark.parametrize('scale, height, width',
                         [(2, 16, 20), (3, 15, 21), (4, 8, 12), (8, 32, 24)])
def test_mirrored_border_equals_matlab_like_resize(scale, height, width):
    """MMagic's MATLABLikeResize is a port of MATLAB's imresize; it neither clips nor rounds."""
    from mmagic.datasets.transforms import MATLABLikeResize
    image = np.random.default_rng(0).random((height, width, 3))
    size = (height // scale, width // scale)
    expected = MATLABLikeResize(keys=['x'], output_shape=size)(dict(x=image))['x']
    x = torch.from_numpy(image).permute(2, 0, 1)[None]
    mirrored, library = (SeparableResize(scale, border=border).A(x)[0].permute(1, 2, 0).numpy()
                         for border in ('mirror', 'library'))
    np.testing.assert_allclose(mirrored, expected, rtol=0, atol=1e-6)
    assert np.abs(library - expected).max() > 1e-3  # at the border
    for value, border in ((mirrored, 'mirror'), (library, 'library')):
        ours = downsample(image * 255, scale, quantize=False, border=border) / 255
        np.testing.assert_allclose(ours, value, rtol=0, atol=1e-6)


@pytest.mark.parametrize('kernel, antialias', [('bicubic', True), ('lanczos', False)])
def test_the_gain_is_that_of_a_measurement_of_64_pixels(kernel, antialias):
    operator, rows = SeparableResize(2, kernel, antialias), resize_matrix(128, 2, kernel, antialias)
    axis = np.linalg.norm(np.linalg.pinv(rows.numpy()), 2)
    assert operator.noise_gain == pytest.approx(axis**2, rel=1e-12)
    other = np.linalg.norm(np.linalg.pinv(resize_matrix(12, 2, kernel, antialias).numpy()), 2)
    largest = [np.linalg.norm(resize_matrix(size, 2, kernel, antialias).numpy(), 2)
               for size in (128, 12)]
    assert operator.gains(128, 12) == pytest.approx(
        (largest[0] * largest[1], axis * other, largest[0] * largest[1] * axis * other))


def test_unknown_border_is_refused():
    with pytest.raises(ValueError, match="border.*'wrap'"):
        SeparableResize(2, border='wrap')
    with pytest.raises(ValueError, match="border.*'wrap'"):
        downsample(np.zeros((4, 4)), 2, border='wrap')


@pytest.mark.parametrize('operator', [
    SeparableResize(2), SeparableResize(3, 'lanczos', border='mirror'),
    SeparableResize(16, 'bilinear', antialias=False)], ids=str)
def test_large_images_use_the_weights_alone(operator):
    """Block by block along the diagonal: what the whole matrices give, and its derivative."""
    height, width = 528, 576
    x = torch.rand(1, 2, height, width, dtype=torch.float64, requires_grad=True)
    rows, columns = (resize_matrix(size, operator.scale, operator.kernel, operator.antialias,
                                   operator.border) for size in (height, width))
    expected, result = rows @ (x @ columns.T), operator.A(x)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)
    weight = torch.rand_like(expected)
    gradient, = torch.autograd.grad(result, x, weight)
    torch.testing.assert_close(gradient, operator.A_adjoint(weight), rtol=0, atol=1e-12)


@pytest.mark.parametrize('arguments', [
    (2, 'bicubic', True, 'library'), (64, 'box', True, 'library'), (256, 'lanczos', True, 'mirror'),
    (16, 'bilinear', False, 'library')])
def test_blocks_hold_the_weights_and_little_else(arguments):
    size, scale = 2048, arguments[0]
    used = resize_matrix(size, *arguments) != 0
    rows = 0
    for (first, last), (left, right) in resize._bands(size, *arguments):
        assert first == rows and (last - first == max(1, 128 // scale) or last == len(used))
        block = used[first:last, left:right]
        assert block.sum() == used[first:last].sum()  # all of them
        assert block[:, 0].any() and block[:, -1].any()  # no more than needed
        rows = last
    assert rows == size // scale
