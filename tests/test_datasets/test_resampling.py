"""The downsampler against PIL, torch and OpenCV."""
import warnings

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmpd.datasets.resampling import BORDERS, default_library, downsample
from mmpd.operators import AveragePooling, SeparableResize, resize_matrix
from mmpd.operators.library_resize import LIBRARIES, METHODS

SIZES = [(64, 48), (32, 32), (24, 80)]
SCALES = [2, 3, 4, 8]
PIL_KERNELS = dict(bicubic=Image.BICUBIC, bilinear=Image.BILINEAR, lanczos=Image.LANCZOS,
                   box=Image.BOX)
CV2_KERNELS = dict(bicubic=cv2.INTER_CUBIC, bilinear=cv2.INTER_LINEAR, lanczos=cv2.INTER_LANCZOS4)


def image_of(size, scale, seed=0, dtype=np.uint8):
    h, w = (side // scale * scale for side in size)
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3)).astype(dtype)


def with_torch(image, scale, mode, antialias):
    x = torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1)[None]
    y = F.interpolate(x, (image.shape[0] // scale, image.shape[1] // scale), mode=mode,
                      antialias=antialias, **({} if 'nearest' in mode else
                                              dict(align_corners=False)))
    return y[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize('scale', SCALES)
@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('kernel', PIL_KERNELS)
def test_antialias_equals_pil(kernel, size, scale):
    image = image_of(size, scale)
    ours = downsample(image, scale, kernel, quantize=False)
    theirs = np.stack([np.asarray(Image.fromarray(channel.astype(np.float32)).resize(
        (image.shape[1] // scale, image.shape[0] // scale), PIL_KERNELS[kernel]))
        for channel in image.transpose(2, 0, 1)], 2)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
    saved = downsample(image, scale, kernel, made_by='float')
    pil = np.asarray(Image.fromarray(image).resize(saved.shape[1::-1], PIL_KERNELS[kernel]))
    smooth = kernel in ('box', 'bilinear')  # PIL clips between its passes: the others may overshoot
    assert np.abs(saved.astype(int) - pil).max() <= (1 if smooth else 6)
    np.testing.assert_array_equal(downsample(image, scale, kernel, made_by='pil'), pil)
    if default_library(kernel) == 'torch_uint8':
        assert np.abs(downsample(image, scale, kernel).astype(int) - pil).max() <= 1


@pytest.mark.parametrize('scale', SCALES)
@pytest.mark.parametrize('kernel', ['bicubic', 'bilinear'])
@pytest.mark.parametrize('antialias', [True, False])
def test_equals_torch(kernel, antialias, scale):
    image = image_of((48, 72), scale, dtype=np.float64)
    ours = downsample(image, scale, kernel, antialias, quantize=False)
    np.testing.assert_allclose(ours, with_torch(image, scale, kernel, antialias), atol=1e-9)


@pytest.mark.parametrize('scale', SCALES)
@pytest.mark.parametrize('kernel', CV2_KERNELS)
def test_alias_equals_opencv(kernel, scale):
    image = image_of((48, 72), scale, dtype=np.float32)
    ours = downsample(image, scale, kernel, antialias=False, quantize=False)
    theirs = cv2.resize(image, ours.shape[1::-1], interpolation=CV2_KERNELS[kernel])
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize('scale', SCALES)
def test_box_without_antialias_is_the_nearest_pixel(scale):
    image = image_of((48, 72), scale)
    ours = downsample(image, scale, 'box', antialias=False)
    np.testing.assert_array_equal(ours, with_torch(image, scale, 'nearest-exact', False))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_average_pooling_rounds_half_up_exactly(scale, h, w, seed):
    image = image_of((h * scale, w * scale), scale, seed)
    sums = image.reshape(h, scale, w, scale, 3).astype(object).sum((1, 3))
    want = np.vectorize(lambda s: (2 * s + scale**2) // (2 * scale**2))(sums)
    np.testing.assert_array_equal(downsample(image, scale, 'average_pooling'), want)
    mean = downsample(image, scale, 'average_pooling', quantize=False)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, (sums / scale**2).astype(float), rtol=1e-6)
    box = downsample(image, scale, 'box', quantize=False)
    np.testing.assert_allclose(mean, box, atol=1e-4)


def test_average_pooling_of_halves_and_of_large_scales():
    checker = np.array([[0, 1], [1, 0]], np.uint8)
    assert downsample(checker, 2, 'average_pooling')[0, 0] == 1  # 0.5 goes up
    for scale in (16, 17, 300):  # of 16 x 16 pixels the sums fit into 16 bits
        white = np.full((2 * scale, 2 * scale), 255, np.uint8)
        assert downsample(white, scale, 'average_pooling').tolist() == [[255, 255], [255, 255]]


@pytest.mark.parametrize('value, dtype, saved', [
    (60000, np.uint16, 255), (254, np.uint16, 254), (250.5, np.float16, 251), (-3, np.float32, 0),
    (300, np.float64, 255), (1 / 3, np.float64, 0)])
def test_averages_of_other_types_are_exact_and_clipped_when_saved(value, dtype, saved):
    """Sums of 64 pixels are beyond what 16 bits hold or float16 tells apart."""
    image = np.full((16, 8), value, dtype)
    found = downsample(image, 8, 'average_pooling', quantize=False)
    assert found.dtype == np.promote_types(dtype, np.float32)
    np.testing.assert_allclose(found, dtype(value), rtol=1e-15)
    assert downsample(image, 8, 'average_pooling').tolist() == [[saved], [saved]]


@pytest.mark.parametrize('kernel', ['bicubic', 'bilinear', 'lanczos', 'box'])
@pytest.mark.parametrize('antialias', [True, False])
def test_constants_and_scale_one_are_kept(kernel, antialias):
    grey = np.full((32, 16, 3), 137, np.uint8)
    assert (downsample(grey, 4, kernel, antialias) == 137).all()
    noise = image_of((9, 7), 1)
    np.testing.assert_array_equal(downsample(noise, 1, kernel, antialias), noise)


def test_quantize_and_antialias_change_the_result():
    image = image_of((32, 32), 4)
    plain = downsample(image, 4, 'bicubic', quantize=False)
    np.testing.assert_array_equal(downsample(image, 4, made_by='float'),
                                  np.floor(np.clip(plain, 0, 255) + .5))
    assert np.abs(plain - downsample(image, 4, antialias=False, quantize=False)).max() > 10


def test_overshoot_is_clipped_only_when_quantised():
    edge = np.zeros((32, 32), np.uint8)
    edge[:, 16:] = 255
    plain = downsample(edge, 4, 'lanczos', quantize=False)
    assert plain.min() < -1 and plain.max() > 256
    saved = downsample(edge, 4, 'lanczos')
    assert saved.min() == 0 and saved.max() == 255


@pytest.mark.parametrize('args, message', [
    ((np.zeros((30, 32, 3), np.uint8), 8), '30 x 32.*scale 8'),
    ((np.zeros((32, 32), np.uint8), 0), 'scale: expected an integer of at least 1, got 0'),
    ((np.zeros((32, 32), np.uint8), 2.5), 'scale: expected an integer of at least 1, got 2.5'),
    ((np.zeros((32, 32), np.uint8), 2, 'cubic'), 'bicubic.*cubic'),
    ((np.zeros((32, 32), np.uint8), 2, 'average_pooling', False), 'antialiasing'),
    ((np.zeros((4, 32, 32, 3), np.uint8), 2), r'\(4, 32, 32, 3\)'),
    ((np.zeros((32, 32), np.int32), 2), 'int32'),
    ((np.zeros((0, 32), np.uint8), 2), '0 x 32'), ((np.zeros((32, 0), np.uint8), 2), '32 x 0'),
    ((np.full((4, 4), np.nan), 2), 'expected finite values, got NaN or inf'),
    ((np.zeros((4, 4), np.uint8), 2, 'box', True, 'no'), 'quantize: expected True or False'),
    ((np.zeros((32, 30), np.uint8), 4), '32 x 30'), ((np.zeros(32, np.uint8), 2), r'\(32,\)'),
])
def test_bad_input_is_named(args, message):
    with pytest.raises(ValueError, match=message):
        downsample(*args)


@pytest.mark.parametrize('scale', [2, 3, 8])
@pytest.mark.parametrize('antialias', [True, False])
@pytest.mark.parametrize('kernel', ['bicubic', 'bilinear', 'lanczos', 'box'])
@pytest.mark.parametrize('border', BORDERS)
def test_equals_the_operator_of_the_same_name(kernel, antialias, scale, border):
    image = image_of((48, 72), scale, dtype=np.float64)
    x = torch.from_numpy(image).permute(2, 0, 1)[None]
    y = SeparableResize(scale, kernel, antialias, border).A(x)[0].permute(1, 2, 0)
    np.testing.assert_allclose(
        downsample(image, scale, kernel, antialias, quantize=False, border=border), y, atol=1e-9)
    pooled = AveragePooling(scale).A(x)[0].permute(1, 2, 0)
    np.testing.assert_allclose(downsample(image, scale, 'average_pooling', quantize=False), pooled,
                               atol=1e-9)


def in_integers(image, scale, kernel):
    """What torch does with uint8: weights of 15 bits, rows rounded and clipped, then columns."""
    for _ in range(2):
        image = image.swapaxes(0, 1).astype(np.int64)  # the width comes first
        weights = resize_matrix(len(image), scale, kernel).numpy()
        bits = next(b for b in range(22) if int(0.5 + weights.max() * 2**(b + 1)) >= 2**15)
        weights = np.trunc(weights * 2**bits + np.copysign(0.5, weights)).astype(np.int64)
        image = (np.tensordot(weights, image, 1) + (1 << bits - 1) >> bits).clip(0, 255)
    return image


@pytest.mark.parametrize('kernel', ['bicubic', 'bilinear'])
@pytest.mark.parametrize('scale, size', [(8, (64, 96)), (16, (64, 48)), (3, (27, 33))])
def test_the_default_is_integer_arithmetic_the_same_on_every_machine(kernel, scale, size):
    noise = image_of(size, scale)
    edges = (noise > 127).astype(np.uint8) * 255
    for image in (noise, edges, noise[..., 0], noise[..., :1], np.repeat(noise, 2, axis=2)):
        np.testing.assert_array_equal(
            downsample(image, scale, kernel), in_integers(image, scale, kernel))


@pytest.mark.parametrize('made_by', LIBRARIES)
def test_libraries_are_those_of_library_resize(made_by):
    image = image_of((32, 48), 4, seed=2)
    border = 'mirror' if made_by == 'matlab' else 'library'
    ours = {}
    for kernel, antialias in METHODS.get(made_by, {('bicubic', True): 0}):
        ours[kernel, antialias] = downsample(image, 4, kernel, antialias, True, border, made_by)
        exact = downsample(image, 4, kernel, antialias, False, border).clip(0, 255)
        assert ours[kernel, antialias].dtype == np.uint8
        assert np.abs(ours[kernel, antialias] - exact).max() < 7
    if made_by == 'opencv':
        np.testing.assert_array_equal(ours['bicubic', False], cv2.resize(
            image, (12, 8), interpolation=cv2.INTER_CUBIC))
        np.testing.assert_array_equal(downsample(image, 4, 'average_pooling', made_by='opencv'),
                                      cv2.resize(image, (12, 8), interpolation=cv2.INTER_AREA))
    if made_by == 'float':
        np.testing.assert_array_equal(ours['bicubic', True], np.floor(exact + 0.5))


def test_flipped_and_read_only_images_are_taken():
    image = image_of((32, 48), 4)
    image.flags.writeable = False
    np.testing.assert_array_equal(downsample(image[:, ::-1], 4), downsample(image, 4)[:, ::-1])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        small = downsample(image, 4)
    assert small.flags.c_contiguous
    np.testing.assert_array_equal(downsample(image.copy()[:, ::-1], 4), small[:, ::-1])


@pytest.mark.parametrize('kernel', PIL_KERNELS)
@pytest.mark.parametrize('antialias', [True, False])
def test_an_lr_of_one_pixel_is_narrower_than_any_kernel(kernel, antialias):
    image = image_of((8, 16), 8, dtype=np.float64)
    x = torch.from_numpy(image).permute(2, 0, 1)[None]
    y = SeparableResize(8, kernel, antialias).A(x)[0].permute(1, 2, 0)
    np.testing.assert_allclose(downsample(image, 8, kernel, antialias, quantize=False), y,
                               atol=1e-9)


@pytest.mark.parametrize('options, message', [
    (dict(made_by='PIL'), "made_by: expected one of float, pil, .*'PIL'"),
    (dict(made_by='pil', antialias=False), "made_by='pil' has no .*antialias=False"),
    (dict(made_by='torch_uint8', kernel='lanczos'), "'torch_uint8' has no .*it has bicubic"),
    (dict(made_by='pil', border='mirror'), "border='library'"),
    (dict(made_by='pil', quantize=False), "None or 'float' with quantize=False"),
    (dict(made_by='pil', image=np.zeros((8, 8), np.float32)), 'expected a uint8 image'),
    (dict(image=np.zeros((8, 8, 0), np.uint8)), r'pixels and channels, got shape \(8, 8, 0\)')])
def test_what_a_library_does_not_have_is_refused(options, message):
    image = options.pop('image', np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match=message):
        downsample(image, 4, **options)
