"""Which A made the LR: libraries' own files are told apart, ties and errors are said."""
import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mmpd.operators import build_operator, consistent_uint8, resize_matrix
from mmpd.operators.kernels import KERNELS
from mmpd.postprocess import Candidate, identify
from mmpd.postprocess.candidate import psnr, rivals
from mmpd.postprocess.identify import _recoloured, errors_of
from mmpd.postprocess.verdict import give_verdict

SCALE = 4


def pictures(number=2, size=64, channels=3):
    """Smooth pictures with detail and edges."""
    found = []
    for seed in range(number):
        rng = np.random.default_rng(seed)
        image = cv2.resize(rng.random((9, 9, 3)) * 255, (size, size),
                           interpolation=cv2.INTER_CUBIC) + rng.normal(0, 12, (size, size, 3))
        image[: size // 2, : size // 3] += 60
        image = image.clip(0, 255).round().astype(np.uint8)
        found.append(image if channels == 3 else np.ascontiguousarray(image[..., 0]))
    return found


def by_pil(method):
    def make(image, scale):
        size = image.shape[1] // scale, image.shape[0] // scale
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling[method]))
    return make


def by_torch(mode, antialias, whole=False):
    def make(image, scale):
        x = torch.from_numpy(image).permute(2, 0, 1)[None]
        x = F.interpolate(x if whole else x.float(), scale_factor=1 / scale, mode=mode,
                          antialias=antialias, align_corners=False)
        return x.clamp(0, 255).round()[0].permute(1, 2, 0).to(torch.uint8).numpy()
    return make


def by_cv2(method):
    def make(image, scale):
        size = image.shape[1] // scale, image.shape[0] // scale
        return cv2.resize(image, size, interpolation=getattr(cv2, method))
    return make


def by_operator(rounding=np.round, **cfg):
    def make(image, scale):
        operator = build_operator(dict(cfg, scale=scale))
        measured = operator.A(torch.from_numpy(image).permute(2, 0, 1)[None].double())[0]
        return rounding(measured.permute(1, 2, 0).clamp(0, 255).numpy()).astype(np.uint8)
    return make


def half_up(values):
    return np.floor(values + 0.5)


CASES = [  # who makes it, the kernel, antialias, border, libraries that are right
    (by_pil('BICUBIC'), 'bicubic', True, 'library', {'pil'}),
    (by_pil('LANCZOS'), 'lanczos', True, 'library', {'pil'}),
    (by_pil('BILINEAR'), 'bilinear', True, 'library', {'pil', 'torch_uint8'}),
    (by_torch('bicubic', True), 'bicubic', True, 'library', {'torch', 'float'}),
    (by_torch('bicubic', True, True), 'bicubic', True, 'library',
     {'torch_uint8', 'pil'}),  # alike in nearly all values
    (by_torch('bilinear', True), 'bilinear', True, 'library', {'torch', 'float'}),
    (by_cv2('INTER_CUBIC'), 'bicubic', False, 'library', {'opencv'}),
    (by_cv2('INTER_LANCZOS4'), 'lanczos', False, 'library', {'opencv'}),
    (by_operator(type='AveragePooling'), 'average_pooling', True, 'library', {'float'}),
    (by_operator(half_up, type='AveragePooling'), 'average_pooling', True, 'library',
     {'float'}),
    (by_operator(half_up, type='SeparableResize', kernel='bicubic', border='mirror'), 'bicubic',
     True, 'mirror', {'matlab', 'float'}),
    (by_operator(type='SeparableResize', kernel='lanczos'), 'lanczos', True, 'library',
     {'float'}),
    (by_pil('NEAREST'), 'box', False, 'library', {'float', 'pil', 'torch'}),
]


@pytest.mark.parametrize('make, kernel, antialias, border, libraries', CASES)
def test_what_made_the_lr_comes_first(make, kernel, antialias, border, libraries):
    pairs = [(make(image, SCALE), image) for image in pictures()]
    results = identify(pairs)
    best = results[0]
    assert (best.kernel, best.antialias, best.border) == (kernel, antialias, border)
    assert best.made_by in libraries
    assert best.psnr > 70  # torch in float32 may round another way once in a while
    assert rivals(results)['kernel'].margin > 3
    assert [one.psnr for one in results[1:]] == sorted(
        (one.psnr for one in results[1:]), reverse=True) or results[1].same_kernel(best)
    # the contract: what is found can be used as it is
    lr, image = pairs[0]
    planes = (torch.from_numpy(part.copy()).permute(2, 0, 1)[None].float()
              for part in (image, lr))
    result, unmatched = consistent_uint8(*planes, best.operator_cfg, made_by=best.made_by,
                                         return_unmatched=True)
    assert unmatched <= 2 and result.shape[-2:] == image.shape[:2]


@pytest.mark.parametrize('make, kernel', [(by_pil('BICUBIC'), 'bicubic'),
                                          (by_pil('BILINEAR'), 'bilinear'),
                                          (by_operator(type='AveragePooling'), 'average_pooling')])
@pytest.mark.parametrize('gain, offset', [(0.9, 20), (1.1, -12), ((0.8, 1, 0.95), (9, -7, 20))])
def test_colours_that_are_off_do_not_mislead(make, kernel, gain, offset):
    pairs = []
    for image in pictures():
        shifted = 20 + image * 0.8  # not clipped
        sr = shifted * np.array(gain) + np.array(offset)
        sr = (sr + np.random.default_rng(0).normal(0, 2, image.shape)).clip(0, 255).round()
        pairs.append((make(shifted.round().astype(np.uint8), SCALE), sr.astype(np.uint8)))
    results = identify(pairs, recolour=True)
    assert (results[0].kernel, results[0].antialias) == (kernel, True)
    assert rivals(results)['kernel'].beaten


def test_a_low_contrast_alone_looks_like_a_sharper_kernel():
    image = pictures(1)[0]
    pairs = [(by_pil('BICUBIC')(image, SCALE), (image * 0.9 + 13).round().astype(np.uint8))]
    assert identify(pairs)[0].kernel == 'lanczos'
    assert identify(pairs, recolour=True)[0].kernel == 'bicubic'


def test_recolouring_does_not_turn_contrast_round():
    image = pictures(1)[0]
    results = identify([(255 - by_pil('BICUBIC')(image, SCALE), image)], recolour=True)
    assert results[0].psnr == pytest.approx(results[-1].psnr, abs=0.1)


def test_figures_are_those_of_an_independent_computation():
    pairs = [(by_pil('BICUBIC')(image, SCALE), image) for image in pictures()]
    found = {(one.kernel, one.antialias, one.border, one.made_by): one for one in identify(pairs)}
    assert len(found) == len(identify(pairs))
    one = found['bilinear', True, 'library', 'pil']
    errors = np.concatenate([(by_pil('BILINEAR')(hr, SCALE).astype(float) - lr).ravel()
                             for lr, hr in pairs])
    assert one.psnr == pytest.approx(10 * np.log10(255**2 / (errors**2).mean()), abs=1e-9)
    assert one.equal == (errors == 0).sum() and sum(one.values) == errors.size
    raw = np.concatenate([part.ravel() for part in errors_of(found['box', False, 'library', 'pil'],
                                                             pairs)])
    nearest = np.concatenate([(lr.astype(float) - hr[SCALE // 2::SCALE, SCALE // 2::SCALE]).ravel()
                              for lr, hr in pairs])
    assert np.allclose(raw, nearest)


@pytest.mark.parametrize('scale', [2, 3, 8])
def test_scales_and_grey_images(scale):
    pairs = [(by_pil('BICUBIC')(image, scale), image) for image in pictures(2, 48, 1)]
    assert pairs[0][0].ndim == 2
    best = identify(iter(pairs))[0]
    assert best.operator_cfg == dict(type='SeparableResize', scale=scale, kernel='bicubic',
                                     antialias=True, border='library')
    assert best.made_by == 'pil' and best.psnr == np.inf


def test_ties_are_in_the_order_of_what_is_usual():
    """With noise the libraries cannot be told apart: the usual one is named, whatever came out."""
    rng = np.random.default_rng(0)
    pairs = [((by_pil('BICUBIC')(image, SCALE) + rng.normal(0, 9, (16, 16, 3))).round().clip(0, 255)
              .astype(np.uint8), image) for image in pictures()]
    results = identify(pairs)
    assert results[0].made_by == 'pil' and results[0].border == 'library'
    assert rivals(results)['library'].tied
    flat = [(np.full((8, 8, 3), 90, np.uint8), np.full((32, 32, 3), 90, np.uint8))]
    results = identify(flat)
    assert all(one.psnr == np.inf for one in results)
    assert results[0].name == 'average pooling, float'
    assert rivals(results)['kernel'].tied and rivals(results)['kernel'].wins == 0


def test_errors_of_an_sr_do_not_choose_the_library():
    """They outweigh what rounding does: the usual one is named, and by how much it is worse."""
    gt = pictures(1, 32)[0]
    lr = by_pil('BICUBIC')(gt, SCALE)
    found = {}
    for seed in range(12):
        noise = np.random.default_rng(seed).normal(5, 6, gt.shape)
        results = identify([(lr, (gt + noise).round().clip(0, 255).astype(np.uint8))],
                           recolour=True)
        assert (results[0].kernel, results[0].made_by) == ('bicubic', 'pil')
        found[max(results, key=lambda one: one.psnr).made_by] = results
    assert len(found) > 1  # by chance
    lines = give_verdict(found['torch'], with_gt=False).lines
    assert any('dB better, which is too little to tell' in line for line in lines)


def test_the_border_is_judged_where_it_matters():
    """Noise hides it in the whole image, which decides only as far as 0.1 dB."""
    rng = np.random.default_rng(0)
    make = by_operator(half_up, type='SeparableResize', kernel='bicubic', border='mirror')
    pairs = []
    for image in pictures(4, 128):
        image[:, :6] = np.linspace(0, 255, 6)[:, None].astype(np.uint8)  # the rules differ much
        pairs.append(((make(image, SCALE) + rng.normal(0, 12, (32, 32, 3))).round().clip(0, 255)
                      .astype(np.uint8), image))
    results = identify(pairs)
    rival = rivals(results)['border']
    assert results[0].border == 'mirror' and rival.wins == 4
    assert rival.margin > results[0].psnr - rival.candidate.psnr


def test_what_was_done_afterwards_counts():
    def darker(number, image):
        assert number in (0, 1) and image.dtype == np.uint8
        return image // 2

    pairs = [(by_pil('BICUBIC')(image, SCALE) // 2, image) for image in pictures()]
    assert identify(pairs)[0].psnr < 20
    best = identify(pairs, afterwards=darker)[0]
    assert (best.kernel, best.made_by, best.psnr) == ('bicubic', 'pil', np.inf)


def test_only_libraries_that_are_asked_for(monkeypatch):
    pairs = [(by_pil('BICUBIC')(image, SCALE), image) for image in pictures(1)]
    assert {one.made_by for one in identify(pairs, libraries=['float'])} == {'float'}
    import sys
    monkeypatch.setitem(sys.modules, 'cv2', None)  # not installed
    assert 'opencv' not in {one.made_by for one in identify(pairs)}
    with pytest.raises(ValueError, match='libraries: expected some of float, pil'):
        identify(pairs, libraries=['opencv'])


def image_of(*shape, dtype=np.uint8):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize('pairs, message', [
    ([], 'at least one pair'),
    ([(image_of(8, 8, 3), image_of(16, 16))], 'pair 0: expected LR and HR with the same channels'),
    ([(image_of(16, 16), image_of(8, 8))], 'LR 16x16 and HR 8x8: are they swapped'),
    ([(image_of(8, 8), image_of(20, 16))], 'those of the LR, 8x8, got 16x20'),
    ([(image_of(8, 8), image_of(8, 8))], 'one multiple, 2 or more'),
    ([(image_of(8, 8), image_of(16, 16, dtype=float))], 'HR as a uint8 array .*got float64'),
    ([(image_of(8, 8), 'x.png')], 'expected HR as a uint8 array .*got str'),
    ([(image_of(8, 8), image_of(16, 16)), (image_of(8, 8), image_of(32, 32))],
     'pair 1: expected the scale of the pairs before, 2, got 4'),
])
def test_other_pairs_are_refused(pairs, message):
    with pytest.raises(ValueError, match=message):
        identify(pairs)


@pytest.mark.parametrize('scale', [2, 3, 4, 7, 8])
def test_every_a_is_tried_once(scale):
    """A border rule is tried where it makes a difference to the matrix."""
    flat = np.full((4, 4), 90, np.uint8), np.full((4 * scale, 4 * scale), 90, np.uint8)
    found = [(one.kernel, one.antialias, one.border) for one in identify([flat], ['float'])]
    assert len({*found}) == len(found)
    for kernel in KERNELS:
        for antialias in (True, False):
            name = 'average_pooling' if (kernel, antialias) == ('box', True) else kernel
            assert (name, antialias, 'library') in found
            ours, mirrored = (resize_matrix(9 * scale, scale, kernel, antialias, border)
                              for border in ('library', 'mirror'))
            inside = not (ours.view(9, 9, scale).any(2) & ~torch.eye(9, dtype=torch.bool)).any()
            both = (name, antialias, 'mirror') in found
            assert both or torch.equal(ours, mirrored)
            # in the middle of three pixels the others weigh 0, but are looked at
            assert not (both and inside and (antialias or scale % 2 == 0))


@pytest.mark.parametrize('shape', [(40, 7), (3, 90), (70, 33, 3)])
@pytest.mark.parametrize('kernel, border', [('bicubic', 'mirror'), ('average_pooling', 'library')])
def test_errors_are_those_of_the_operator(shape, kernel, border):
    """In bands of rows, which the operator has not; clipped as images are."""
    rng = np.random.default_rng(0)
    lr = rng.integers(0, 256, shape).astype(np.uint8)
    hr = rng.choice([0, 255, 90], (2 * shape[0], 2 * shape[1], *shape[2:])).astype(np.uint8)
    cfg = dict(type='AveragePooling', scale=2) if kernel == 'average_pooling' else dict(
        type='SeparableResize', scale=2, kernel=kernel, border=border)
    error, = errors_of(Candidate(cfg, 'float'), [(lr, hr)])
    planes = torch.from_numpy(np.atleast_3d(hr).astype(float)).permute(2, 0, 1)[None]
    measured = build_operator(cfg).A(planes)[0].clamp(0, 255).permute(1, 2, 0).numpy()
    assert error.shape == shape
    np.testing.assert_allclose(error, lr - measured.reshape(shape), atol=1e-10)


def test_the_rim_is_two_lr_pixels_wide():
    """One error outside, one inside."""
    hr = np.full((32, 40), 90, np.uint8)
    for place, rim in (((1, 4), 25), ((6, 3), 25), ((4, 1), 25), ((3, 8), 25), ((2, 2), 0),
                       ((5, 7), 0)):
        lr = np.full((8, 10), 90, np.uint8)
        lr[place] = 95
        one = identify([(lr, hr)], ['float'])[0]
        assert (one.squares, one.rims, one.equal, one.values) == ([25], [rim], 79, [80])


@pytest.mark.parametrize('off, equal', [(0.5, True), (0.51, False)])
def test_halves_may_be_rounded_either_way(off, equal):
    """Means of 90.25 or 90.5 to 90.51, the LR one above or below."""
    hr = np.full((8, 8), 90, np.uint8)
    hr[:4, :4].flat[:8] += 1  # 90.5
    if not equal:
        hr[:4, :4].flat[8] += 1
    for value in (90, 91):
        lr = np.full((2, 2), 90, np.uint8)
        lr[0, 0] = value
        best = next(one for one in identify([(lr, hr)], ['float'])
                    if one.kernel == 'average_pooling')
        assert best.equal == (4 if equal or value == 91 else 3)
    # what was done afterwards was done to one of the two
    best = next(one for one in identify([(lr, hr)], ['float'], afterwards=lambda _, image: image)
                if one.kernel == 'average_pooling')
    assert best.equal == (3 if equal else 4)


def test_recolouring_is_least_squares_for_each_channel():
    rng = np.random.default_rng(0)
    measured, target = torch.from_numpy(rng.random((2, 3, 5, 6)) * 100 + 70)
    found = _recoloured(measured, target)
    for ours, theirs, wanted in zip(measured.flatten(1).numpy(), found.flatten(1).numpy(),
                                    target.flatten(1).numpy(), strict=True):
        gain, offset = np.polyfit(ours, wanted, 1)
        np.testing.assert_allclose(theirs, max(gain, 0) * ours + (offset if gain > 0 else
                                                                  wanted.mean()))
    flat = torch.full((1, 2, 2), 7.).double()
    assert torch.equal(_recoloured(flat, flat + 2), flat + 2)
    steep = torch.tensor([[[0., 1., 254., 255.]]]).double()
    assert (_recoloured(steep, steep.round(decimals=-2) * 1.2).flatten() <= 255).all()
    assert _recoloured(steep, steep.sign() * 260 - 5).min() >= 0


def test_psnr_of_nothing_wrong():
    assert psnr(0) == np.inf and psnr(255**2) == 0
