"""mmpd.consistent: every kind of image, exact integers, refusals; and what 'auto' does."""
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import mmpd
from mmpd import postprocess
from mmpd.operators import AveragePooling, SeparableResize, replace_range
from mmpd.postprocess.candidate import Candidate, psnr
from mmpd.postprocess.consistent import identified, work_dtype
from mmpd.postprocess.correction import Correction, likeliest_library, row_strips


def picture(shape, dtype=np.uint8, seed=0):
    """Smooth, with texture, over most of the range."""
    rng = np.random.default_rng(seed)
    batch, (h, w, c) = shape[:-3], shape[-3:]
    images = [cv2.resize(rng.random((5, 5, c)), (w, h), interpolation=cv2.INTER_CUBIC)
              for _ in range(int(np.prod(batch)))]
    image = np.stack(images).reshape(shape) * 0.8 + 0.1 + rng.normal(0, 0.02, shape)
    if np.dtype(dtype).kind == 'f':
        return image.astype(dtype)
    most = np.iinfo(dtype).max
    return (image * most).clip(0, most).round().astype(dtype)


def pooled(image, scale):
    """Sums of patches, in integers."""
    *batch, h, w, c = image.shape
    return image.astype(np.int64).reshape(
        *batch, h // scale, scale, w // scale, scale, c).sum((-4, -2))


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('batch, channels', [((), 1), ((), 3), ((2, 3), 5)])
def test_integers_pool_to_the_lr(dtype, batch, channels):
    sr = picture((*batch, 24, 32, channels), dtype)
    lr = picture((*batch, 6, 8, channels), dtype, seed=1)
    lr[..., 0, 0, :], lr[..., 0, 1, :] = 0, np.iinfo(dtype).max
    result, unmatched = mmpd.consistent(sr, lr, 'average_pooling', return_unmatched=True)
    assert result.dtype == dtype and result.shape == sr.shape and unmatched == 0
    np.testing.assert_array_equal(pooled(result, 4), lr.astype(np.int64) * 16)
    tensors = [torch.from_numpy(a.astype(np.int64 if dtype == np.uint16 else dtype)) for a in
               (sr, lr)]
    if dtype == np.uint16:
        if not hasattr(torch, 'uint16'):
            return
        tensors = [t.to(torch.uint16) for t in tensors]
    made = mmpd.consistent(*(t.movedim(-1, -3) for t in tensors), operator='average_pooling')
    assert made.dtype == tensors[0].dtype
    np.testing.assert_array_equal(made.movedim(-3, -1).numpy(), result)


def test_the_nearest_of_all_patches_of_16_bits():
    """No patch with the sum of the LR is nearer: brute force over all moves of one unit."""
    rng = np.random.default_rng(0)
    sr = rng.integers(65500, 65536, (2, 2)).astype(np.uint16)
    lr = np.array([[65530]], np.uint16)
    best = mmpd.consistent(sr, lr, 'average_pooling').astype(int)
    cost = ((best - sr)**2).sum()
    for i in range(4):
        for j in range(4):
            other = best.ravel().copy()
            other[i] += 1
            other[j] -= 1
            if other.max() <= 65535:
                assert ((other - sr.ravel())**2).sum() >= cost


@pytest.mark.parametrize('kernel, resize', [
    ('bicubic', lambda a, size: np.asarray(Image.fromarray(a).resize(size, Image.BICUBIC))),
    ('lanczos', lambda a, size: np.asarray(Image.fromarray(a).resize(size, Image.LANCZOS))),
    ('box', lambda a, size: np.asarray(Image.fromarray(a).resize(size, Image.BOX)))])
def test_pil_gives_the_lr_back(kernel, resize):
    lr, sr = resize(picture((48, 64, 3)), (16, 12)), picture((48, 64, 3), seed=2)
    result, unmatched = mmpd.consistent(Image.fromarray(sr), Image.fromarray(lr), kernel,
                                        return_unmatched=True)
    assert unmatched == 0 and isinstance(result, Image.Image)
    np.testing.assert_array_equal(resize(np.asarray(result), (16, 12)), lr)


@pytest.mark.parametrize('made_by, flag, kernel', [('opencv', cv2.INTER_CUBIC, 'bicubic'),
                                                   ('opencv', cv2.INTER_LANCZOS4, 'lanczos')])
def test_opencv_gives_16_bits_back(made_by, flag, kernel):
    truth, sr = picture((48, 64, 3), np.uint16), picture((48, 64, 3), np.uint16, 2)
    lr = cv2.resize(truth, (16, 12), interpolation=flag)
    operator = dict(type='SeparableResize', kernel=kernel, antialias=False)
    for choice in (made_by, None):  # it is the likeliest one
        result, unmatched = mmpd.consistent(sr, lr, operator, made_by=choice,
                                            return_unmatched=True)
        assert unmatched == 0
        np.testing.assert_array_equal(cv2.resize(result, (16, 12), interpolation=flag), lr)


@pytest.mark.parametrize('made_by, border', [('float', 'library'), ('matlab', 'mirror'),
                                             ('torch', 'library')])
def test_bicubic_of_16_bits(made_by, border):
    operator = SeparableResize(4, border=border)
    truth = torch.from_numpy(picture((32, 48, 3), np.uint16).astype(float))
    lr = operator.A(truth.permute(2, 0, 1)[None])[0].permute(1, 2, 0).round().numpy()
    sr = picture((32, 48, 3), np.uint16, 3)
    result, unmatched = mmpd.consistent(sr, lr.astype(np.uint16), operator, made_by=made_by,
                                        return_unmatched=True)
    assert unmatched == 0 and result.dtype == np.uint16
    again = operator.A(torch.from_numpy(result.astype(float)).permute(2, 0, 1)[None])[0]
    assert (again.permute(1, 2, 0).numpy() - lr).__abs__().max() < 0.51


@pytest.mark.parametrize('kernel, scale', [('bicubic', 4), ('bilinear', 2), ('lanczos', 2)])
def test_clipped_pictures_of_16_bits(kernel, scale):
    """There is an image that has this LR: a part of it is white, where the SR is not."""
    operator = SeparableResize(scale, kernel)
    truth = (picture((48, 48, 1), float) * 1.5 - 0.2).clip(0, 1)[..., 0]
    assert 0.03 < (truth == 1).mean() < 0.3
    lr = operator.A(torch.from_numpy(truth * 65535)[None, None]).clamp(0, 65535).round()
    sr = torch.nn.functional.interpolate(lr, scale_factor=scale, mode='bilinear') * 0.9
    result, unmatched = mmpd.consistent(*(one[0, 0].numpy().astype(np.uint16) for one in (sr, lr)),
                                        kernel, return_unmatched=True)
    assert unmatched == 0
    again = operator.A(torch.from_numpy(result.astype(float))[None, None]).clamp(0, 65535)
    assert ((again - lr).abs() < 0.5 + 1e-6).all()


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
@pytest.mark.parametrize('operator', ['average_pooling', 'bicubic'])
def test_floats_stay_floats_in_their_unit(dtype, operator):
    sr, lr = picture((2, 16, 24, 3), dtype), picture((2, 4, 6, 3), dtype, 1)
    result, unmatched = mmpd.consistent(sr, lr, operator, return_unmatched=True)
    assert result.dtype == dtype and unmatched == 0
    cls = AveragePooling if operator == 'average_pooling' else SeparableResize
    measured = cls(4).A(torch.from_numpy(result.astype(float)).permute(0, 3, 1, 2))
    np.testing.assert_allclose(measured.permute(0, 2, 3, 1), lr,
                               atol=4e-3 if dtype == np.float16 else 1e-5)


def test_floating_point_tensors_are_differentiable():
    sr = torch.rand(1, 2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    lr = torch.rand(1, 2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, y: mmpd.consistent(x, y, 'average_pooling'), (sr, lr))


class Array(np.ndarray):
    """As imageio has one."""


def test_subclasses_are_what_they_are_of():
    sr, lr = picture((16, 16, 3)), picture((4, 4, 3), seed=1)
    expected = mmpd.consistent(sr, lr, 'average_pooling')
    for pair in ((sr.view(Array), lr), (sr, lr.view(Array))):
        np.testing.assert_array_equal(mmpd.consistent(*pair, 'average_pooling'), expected)
    floats = torch.rand(3, 8, 8), torch.rand(3, 4, 4)
    made = mmpd.consistent(torch.nn.Parameter(floats[0]), floats[1], 'average_pooling')
    assert torch.equal(made, mmpd.consistent(*floats, 'average_pooling')) and made.requires_grad


def test_strips_and_the_whole_are_the_same(monkeypatch):
    sr, lr = picture((64, 32, 3)), picture((16, 8, 3), seed=1)
    whole = mmpd.consistent(sr, lr, 'average_pooling')
    monkeypatch.setattr(postprocess.correction, 'VALUES', 32 * 3 * 4 * 3)
    assert len(row_strips(AveragePooling(4), 64, 96)) == 6  # three LR rows each, one in the last
    assert len(row_strips(SeparableResize(4), 64, 96)) == 1
    np.testing.assert_array_equal(mmpd.consistent(sr, lr, 'average_pooling'), whole)


def test_strength_blends_and_rounds():
    sr, lr = picture((16, 16, 3)), picture((4, 4, 3), seed=1)
    results = [mmpd.consistent(sr, lr, 'average_pooling', strength=s) for s in (0, 0.5, 1)]
    np.testing.assert_array_equal(results[0], sr)
    error = np.kron(lr - pooled(sr, 4) / 16, np.ones((4, 4, 1)))
    np.testing.assert_array_equal(results[1], (sr + error / 2).clip(0, 255).round())
    assert (pooled(results[2], 4) == lr.astype(int) * 16).all()
    _, unmatched = mmpd.consistent(sr, lr, 'average_pooling', strength=0.5, return_unmatched=True)
    assert unmatched == (np.abs(pooled(results[1], 4) / 16 - lr) > 0.5).sum() > 0


def test_noise_std_is_that_of_replace_range(monkeypatch):
    sr, lr = picture((64, 32, 3)), picture((16, 8, 3), seed=1)
    x, y = (torch.from_numpy(a.astype(float)).permute(2, 0, 1)[None] for a in (sr, lr))
    monkeypatch.setattr(postprocess.correction, 'VALUES', 32 * 3 * 4)  # the weight needs it whole
    for operator in (AveragePooling(4), SeparableResize(4)):
        expected = replace_range(x, y, operator, noise_std=12.)
        result = mmpd.consistent(sr, lr, operator, noise_std=12.)
        np.testing.assert_array_equal(
            result, expected.clamp(0, 255).round()[0].permute(1, 2, 0).numpy())
        floats = mmpd.consistent(x, y, operator, noise_std=12.)
        torch.testing.assert_close(floats, expected)
        assert (result != mmpd.consistent(sr, lr, operator)).any()
        np.testing.assert_array_equal(mmpd.consistent(sr, lr, operator, noise_std=0),
                                      mmpd.consistent(sr, lr, operator))


@pytest.mark.parametrize('operator', ['average_pooling', 'bicubic'])
def test_bounds_of_floats(operator):
    sr, lr = picture((16, 16, 3), np.float32), picture((4, 4, 3), np.float32, 1).clip(0.3, 0.7)
    result = mmpd.consistent(sr, lr, operator, bounds=(0.2, 0.8))
    assert result.min() >= 0.2 - 1e-6 and result.max() <= 0.8 + 1e-6 and (sr > 0.8).any()


def test_bounds_hold_and_the_lr_is_still_given_back():
    sr = picture((16, 16, 1))
    lr = picture((4, 4, 1), seed=1).clip(16, 235)
    lr[0, 0], lr[0, 1] = 16, 235
    result = mmpd.consistent(sr, lr, 'average_pooling', bounds=(16, 235))
    assert result.min() >= 16 and result.max() <= 235
    assert (pooled(result, 4) == lr.astype(int) * 16).all()
    result = mmpd.consistent(sr, lr // 4 + 90, 'bicubic', bounds=(60, 200), made_by='pil')
    assert result.min() >= 60 and result.max() <= 200
    with pytest.raises(ValueError, match='lr: expected integers in 20..235, got values in .16'):
        mmpd.consistent(sr, lr, 'average_pooling', bounds=(20, 235))


@pytest.mark.parametrize('mode', ['LA', 'RGBA'])
def test_alpha_is_that_of_the_image(mode):
    sr = Image.fromarray(picture((16, 16, 4))).convert(mode)
    lr = Image.fromarray(picture((4, 4, 4), seed=1)).convert(mode)
    opaque = lr.convert(mode[:-1])
    results = [mmpd.consistent(sr, one, 'average_pooling') for one in (lr, opaque)]
    arrays = [np.asarray(image) for image in results]
    assert results[0].mode == mode and (arrays[0] == arrays[1]).all()
    assert (arrays[0][..., -1] == np.asarray(sr)[..., -1]).all()
    colour = np.array(opaque)
    colour = colour.reshape(4, 4, -1)
    assert (pooled(arrays[0][..., :-1], 4) == colour.astype(int) * 16).all()
    if mode == 'RGBA':  # arrays and tensors: one channel more than the LR
        array = mmpd.consistent(np.asarray(sr), colour, 'average_pooling')
        assert (array == arrays[0]).all()
        tensor = mmpd.consistent(torch.from_numpy(np.array(sr)).permute(2, 0, 1),
                                 torch.from_numpy(colour).permute(2, 0, 1), 'average_pooling')
        assert (tensor.permute(1, 2, 0).numpy() == arrays[0]).all()


def test_pil_modes_of_more_bits(tmp_path):
    for dtype, mode in ((np.uint16, 'I;16'), (np.float32, 'F')):
        sr, lr = picture((16, 16, 1), dtype)[..., 0], picture((4, 4, 1), dtype, 1)[..., 0]
        result = mmpd.consistent(Image.fromarray(sr), Image.fromarray(lr), 'average_pooling')
        assert result.mode == mode
        np.testing.assert_allclose(np.asarray(result).astype(float).reshape(4, 4, 4, 4).mean(
            (1, 3)), lr, atol=1e-5)
    cv2.imwrite(str(tmp_path / 'x.png'), picture((16, 16, 3), np.uint16))
    with pytest.raises(ValueError, match='got 16-bit RGB, of which Pillow drops eight bits'):
        mmpd.consistent(Image.open(tmp_path / 'x.png'), Image.open(tmp_path / 'x.png'),
                        'average_pooling')


def test_the_colour_space_is_kept():
    lr, sr = Image.new('RGB', (4, 4), (9, 9, 9)), Image.new('RGB', (8, 8), (4, 4, 4))
    lr.info['icc_profile'] = b'lr'
    assert mmpd.consistent(sr, lr, 'average_pooling').info['icc_profile'] == b'lr'


@pytest.mark.parametrize('made_by', ['pil', None])
def test_auto_asks_which_a_made_the_lr(monkeypatch, made_by):
    seen = []

    def identify(pairs, libraries, recolour):
        assert recolour
        seen.extend(pairs)
        return [Candidate(dict(type='SeparableResize', kernel='bicubic'), made_by, [9], [9], [1]),
                Candidate(dict(type='AveragePooling'), 'float', [99], [9], [1])]

    monkeypatch.setattr(postprocess, 'identify', identify, raising=False)
    sr, lr = picture((16, 16, 3)), picture((4, 4, 3), seed=1) // 2 + 60
    result = mmpd.consistent(sr, lr)
    np.testing.assert_array_equal(seen[0][0], lr)
    np.testing.assert_array_equal(seen[0][1], sr)
    np.testing.assert_array_equal(result, mmpd.consistent(sr, lr, 'bicubic', made_by='pil'))
    mmpd.consistent(torch.from_numpy(sr)[..., 0][None], torch.from_numpy(lr)[..., 0][None])
    np.testing.assert_array_equal(seen[1][1], sr[..., 0])
    mmpd.consistent(*(torch.from_numpy(one).permute(2, 0, 1) for one in (sr, lr)))
    for ours, theirs in zip(seen.pop(), (lr, sr), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    deep = [array.astype(np.uint16) * 257 for array in (sr, lr)]  # in 8 bits, but not their library
    result = mmpd.consistent(*deep)
    np.testing.assert_array_equal(seen[2][1], sr)
    np.testing.assert_array_equal(result, mmpd.consistent(*deep, 'bicubic', made_by='float'))
    with pytest.raises(ValueError, match="'auto' expected uint8 or uint16, got float32"):
        mmpd.consistent(*(array.astype(np.float32) for array in (sr, lr)))


def found_by_hand(monkeypatch, *candidates):
    monkeypatch.setattr(postprocess, 'identify', lambda pairs, libraries, recolour: [
        Candidate(dict(type='SeparableResize', scale=4, kernel=kernel), made_by, *([mse], [1], [1]))
        for kernel, made_by, mse in candidates], raising=False)


def test_auto_takes_the_library_that_it_found_unless_one_is_given(monkeypatch):
    """One rounding is not what PIL does, nor the likeliest."""
    found_by_hand(monkeypatch, ('bicubic', 'float', 9), ('bilinear', 'pil', 99))
    rng = np.random.default_rng(0)
    sr, lr = (rng.integers(0, 256, (side, side, 3), np.uint8) for side in (16, 4))
    lr = lr // 2 + 60
    expected = [mmpd.consistent(sr, lr, 'bicubic', made_by=name) for name in ('float', 'pil')]
    assert (expected[0] != expected[1]).any()
    np.testing.assert_array_equal(mmpd.consistent(sr, lr), expected[0])
    np.testing.assert_array_equal(mmpd.consistent(sr, lr, made_by='pil'), expected[1])


@pytest.mark.parametrize('tensors', [False, True])
def test_auto_looks_at_a_whole_batch(monkeypatch, tensors):
    """Of pairs of any depth at eight, evenly chosen."""
    seen = []

    def identify(pairs, libraries, recolour):
        seen.append((pairs, libraries))
        return [Candidate(dict(type='AveragePooling'), 'float', [1], [1], [1])]

    monkeypatch.setattr(postprocess, 'identify', identify, raising=False)
    sr, lr = picture((9, 16, 16, 1)), picture((9, 4, 4, 1), seed=1)
    given = [torch.from_numpy(one).movedim(-1, -3) for one in (sr, lr)] if tensors else (sr, lr)
    mmpd.consistent(*given)
    mmpd.consistent(*given, made_by='torch')
    for (pairs, _), step in zip(seen, (2, 2), strict=True):
        for ours, theirs in zip(pairs, zip(lr[::step, ..., 0], sr[::step, ..., 0], strict=True),
                                strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert seen[1][1] == ('torch', ) and len(seen[0][1]) > 5
    deep = [array[0].astype(np.uint16) * 257 for array in (lr, sr)]
    assert identified([(lr[0], sr[0]), tuple(deep)])[1] is None
    for ours in seen[2][0]:
        assert all(np.array_equal(a, b) for a, b in zip(ours, (lr[0], sr[0]), strict=True))
    with pytest.raises(ValueError, match="made_by='pil' resizes 8 bits only"):
        identified([tuple(deep)], made_by='pil')


def test_auto_finds_what_the_library_has():
    """Bilinear with antialias by the ranking of all, of which OpenCV has none."""
    truth = picture((48, 48, 3))
    lr = np.asarray(Image.fromarray(truth).resize((12, 12), Image.BILINEAR))
    assert identified([(lr, truth)])[:2] == (
        dict(type='SeparableResize', kernel='bilinear', antialias=True, border='library'), 'pil')
    result, unmatched = mmpd.consistent(truth, lr, made_by='opencv', return_unmatched=True)
    assert unmatched == 0 and not np.array_equal(result, truth)


CLOSE = ('bicubic', 'pil', 9), ('lanczos', 'pil', 9.5)


@pytest.mark.parametrize('candidates, recolour, doubtful', [
    (CLOSE, True, True), (CLOSE, False, False), (CLOSE[:1], True, False),
    ((('bicubic', 'pil', 9), ('lanczos', 'pil', 30)), True, False),
    ((('bicubic', 'pil', 0), ('lanczos', 'pil', 0)), True, False)])
def test_auto_warns_where_another_kernel_comes_close(monkeypatch, recwarn, candidates, recolour,
                                                     doubtful):
    found_by_hand(monkeypatch, *candidates)
    sr, lr = picture((16, 16, 3)), picture((4, 4, 3), seed=1) // 2 + 60
    cfg, made_by, decibels, doubt = identified([(lr, sr)], recolour)
    assert (cfg, made_by) == (dict(type='SeparableResize', kernel='bicubic'), 'pil')
    assert decibels == psnr(candidates[0][2]) and (doubt is not None) == doubtful
    assert not doubtful or 'lanczos (antialias) explains the LR all but as well (0.23 dB' in doubt
    if recolour:
        mmpd.consistent(sr, lr)
        told = [(str(one.message), one.filename) for one in recwarn]
        assert told == [(doubt, __file__)] * doubtful


@pytest.mark.parametrize('bounds, limits', [
    (None, (0, 255)), ((0, 255), (0, 255)), ((3.0, 200), (3, 200)), ((-1, 9), None),
    ((0, 256), None), ((0.5, 9), None), ((0, 8.5), None)])
def test_bounds_of_integers(bounds, limits):
    if limits:
        found = Correction(bounds=bounds).limits(255)
        assert found == limits and all(isinstance(value, int) for value in found)
    else:
        with pytest.raises(ValueError, match=r'bounds: expected two integers in 0..255'):
            Correction(bounds=bounds).limits(255)


@pytest.mark.parametrize('dtype', (np.float16, np.float32, np.uint8, np.uint16, np.float64))
def test_integers_and_doubles_are_corrected_in_double_precision(dtype):
    wide = torch.float32 if dtype in (np.float16, np.float32) else torch.float64
    assert work_dtype(dtype) == work_dtype(np.dtype(dtype)) == wide


@pytest.mark.parametrize('tensors', (False, True))
def test_doubles_are_exact_to_their_own_precision(tensors):
    sr, lr = picture((16, 16, 3), np.float64), picture((4, 4, 3), np.float64, 1)
    pair = [torch.from_numpy(one).permute(2, 0, 1) if tensors else one for one in (sr, lr)]
    result = mmpd.consistent(*pair, 'average_pooling')
    result = result.permute(1, 2, 0).numpy() if tensors else result
    np.testing.assert_allclose(result.reshape(4, 4, 4, 4, 3).mean((1, 3)), lr, rtol=0, atol=1e-14)


@pytest.mark.parametrize('share, missed', [(0.9, 0), (1.1, 1)])
@pytest.mark.parametrize('dtype, close', [(torch.float64, 1e-5), (torch.float16, 2**-10)])
def test_what_floats_miss_is_relative_to_the_largest(monkeypatch, share, missed, dtype, close):
    """One value is off by 0.9 or 1.1 times what counts."""
    y = torch.tensor([[[[100., 1.], [2., 3.]]]], dtype=torch.float64)
    off = y.clone()
    off[..., 1, 0] += share * close * 100
    monkeypatch.setattr(postprocess.correction, 'replace_range', lambda *_, **__: off)
    monkeypatch.setattr(postprocess.correction, 'apply', lambda *_: off)
    assert Correction()(y, y, AveragePooling(1), None, dtype)[1] == missed


U8, U16 = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint16)
SMALL = np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize('image, lr, options, message', [
    (U8, torch.zeros(3, 4, 4), {}, 'expected the same type, got ndarray and Tensor'),
    ([[1]], [[1]], {}, 'image: expected a NumPy array, a PIL image or a tensor'),
    (np.ma.masked_array(U8, U8 > 9), np.ma.masked_array(SMALL), {}, 'image: expected a plain arr'),
    (U8[..., 0].view(np.matrix), SMALL[..., 0].view(np.matrix), {}, 'image: .* got matrix'),
    (U16, SMALL, {}, 'lr: expected uint16 like the image, got uint8'),
    (U8.astype(float), SMALL, {}, 'lr: expected float64 like the image, got uint8'),
    (U8.astype(int), SMALL, {}, 'image: expected one of uint8, uint16, float16'),
    (torch.zeros(3, 8, 8, dtype=torch.int32), torch.zeros(3, 4, 4), {}, 'image: expected one of'),
    (torch.zeros(8, 8), torch.zeros(4, 4), {}, r'image: expected shape \(..., C, H, W\)'),
    (SMALL, U8, {}, r'the LR \(8x8\) is larger than the image \(4x4\): are they swapped'),
    (U8[:7], SMALL, {}, 'one multiple of the LR size 4x4, got 8x7'),
    (SMALL, U8[:, :4], {}, 'one multiple of the LR size 4x8, got 4x4'),
    (SMALL, U8[:4], {}, 'one multiple of the LR size 8x4, got 4x4'),
    (U8[..., 0], SMALL, {}, r'lr: expected the axes of the image \(8, 8\), got \(4, 4, 3\)'),
    (U8, SMALL[..., :1], {}, 'lr: expected 3 channels like the image, got 1'),
    (np.zeros((2, 8, 8, 3), np.uint8), np.zeros((1, 4, 4, 3), np.uint8), {}, 'the axes of'),
    (np.full((8, 8), np.nan), np.zeros((4, 4)), {}, 'image: expected finite values, got 64 NaN'),
    (U8[:, 0, 0], SMALL, {}, r'image: expected shape \(H, W\), .*got \(8,\)'),
    (U8, SMALL[:0], {}, r'lr: expected shape \(H, W\), .*got \(0, 4, 3\)'),
    (torch.zeros(2, 3, 8, 8), torch.zeros(1, 3, 4, 4), {}, r'the axes of the image .*got'),
    (U8, SMALL, dict(operator='cubic'), 'operator: expected one of average_pooling, bicubic'),
    (U8, SMALL, dict(operator=dict(type='Pool')), "unknown type 'Pool'"),
    (U8, SMALL, dict(strength=2), r'strength: expected a number in \[0, 1\], got 2'),
    (U8, SMALL, dict(noise_std=-1), 'noise_std: expected'),
    (U8, SMALL, dict(bounds=(3, 2)), 'bounds: expected the lower bound first'),
    (U8, SMALL, dict(bounds=(3, 3)), 'bounds: expected the lower bound first'),
    (U8, SMALL, dict(bounds=(0, 256)), r'bounds: expected two integers in 0..255'),
    (U8, U8, dict(operator='auto'), "operator: 'auto' expected an image 2 or more times as large"),
    (torch.zeros(3, 8, 8, dtype=torch.bfloat16), torch.zeros(3, 4, 4, dtype=torch.bfloat16),
     dict(operator='auto'), "'auto' expected uint8 or uint16, got torch.bfloat16; name it"),
    (U8, SMALL, dict(strength=0.5, noise_std=3), 'strength: expected 1 beside noise_std=3'),
    (U8, SMALL, dict(operator='auto', made_by='gimp'), "made_by: expected one of float, pil.*gimp"),
    (U8, SMALL, dict(made_by='gimp'), "made_by: expected one of float, pil.*got 'gimp'"),
    (U16, SMALL.astype(np.uint16), dict(made_by='pil'), "made_by='pil' resizes 8 bits only"),
    (U8 + 0., SMALL + 0., dict(made_by='pil'), 'these are floating point numbers'),
    (Image.new('RGB', (8, 8)), Image.new('L', (4, 4)), {}, 'lr: expected RGB like .*, got L'),
    (Image.new('RGB', (8, 8)), Image.new('RGBA', (4, 4)), {}, 'lr: expected RGB like.*, got RGBA'),
    (Image.new('CMYK', (8, 8)), Image.new('CMYK', (4, 4)), {}, '^image: .*got mode CMYK'),
    ((np.indices((8, 8)).sum(0) % 2 * 6e4).astype(np.float16), np.full((4, 4), 6e4, np.float16),
     {}, 'image: the result goes beyond what torch.float16 ho'),
])
def test_refusals(image, lr, options, message):
    with pytest.raises(ValueError, match=message) as info:
        mmpd.consistent(image, lr, **{'operator': 'average_pooling', **options})
    assert '\n' not in str(info.value)


def test_a_palette_is_looked_up_which_is_said():
    sr, lr = (Image.fromarray(image).quantize(16) for image in (U8, SMALL))
    with pytest.warns(UserWarning) as told:
        result = mmpd.consistent(sr, lr, 'average_pooling')
    assert [str(one.message) for one in told] == [
        f'{name}: its palette was looked up' for name in ('image', 'lr')]
    assert told[0].filename == __file__
    expected = mmpd.consistent(sr.convert('RGB'), lr.convert('RGB'), 'average_pooling')
    assert result.mode == 'RGB' and np.array_equal(result, expected)


@pytest.mark.parametrize('operator, most, expected', [
    (AveragePooling(2), 255, 'float'), (SeparableResize(2), 255, 'pil'),
    (SeparableResize(2), 65535, 'float'), (SeparableResize(2), None, 'float'),
    (SeparableResize(2), 256, 'float'), (SeparableResize(2), 1, 'pil'),
    (SeparableResize(2, border='mirror'), 65535, 'matlab'),
    (SeparableResize(2, antialias=False), 65535, 'opencv'),
    (SeparableResize(2, 'box', antialias=False), 255, 'float'),
    (SeparableResize(2, antialias=False, border='mirror'), 255, 'float')])
def test_likeliest_library(operator, most, expected):
    assert likeliest_library(operator, most) == expected
    assert Correction().library(operator, most) == expected


def test_the_import_is_lazy():
    code = ('import sys; sys.modules["mmagic"] = None\nimport mmpd\nassert "torch" not in '
            'sys.modules\nmmpd.consistent\nassert "torch" in sys.modules\n'
            'assert not {"mmengine", "mmcv", "cv2"} & set(sys.modules)')
    subprocess.run([sys.executable, '-c', code], check=True, timeout=200)
    with pytest.raises(AttributeError, match='no attribute .nothing'):
        _ = mmpd.nothing
