"""The free kernel is the one that made the LR; what a kernel cannot explain is named."""
import io

import numpy as np
import pytest
from PIL import Image

from mmpd.operators.kernels import taps
from mmpd.postprocess import FittedKernel, fit_kernel, free_kernel, identify
from mmpd.postprocess.block_grid import BLOCK, _cosines, block_grid
from mmpd.postprocess.free_kernel import named_kernel
from mmpd.postprocess.kernel_picture import draw_kernels
from mmpd.postprocess.verdict import give_verdict


def textures(number=3, size=96, channels=3):
    """Rich in detail, within the range: well determined kernels."""
    rng = np.random.default_rng(7)
    shape = (size, size, channels) if channels > 1 else (size, size)
    return [rng.integers(40, 216, shape).astype(np.uint8) for _ in range(number)]


def gaussian(scale, start, width, sigma, shift):
    """Gaussian weights in a window, by the formula."""
    places = np.arange(width) + start - (scale - 1) / 2
    profiles = [np.exp(-0.5 * ((places - s) / d)**2) for s, d in zip(shift, sigma, strict=True)]
    kernel = np.outer(*profiles)
    return kernel / kernel.sum()


def apply_kernel(image, kernel, scale, start):
    """By loops over the window, the image continued by its edge."""
    pad = len(kernel)
    h, w = image.shape[0] // scale, image.shape[1] // scale
    wide = np.pad(image.astype(float), ((pad, pad), (pad, pad), (0, 0))[:image.ndim], 'edge')
    out = np.zeros((h, w, *image.shape[2:]))
    for i, row in enumerate(kernel):
        for j, weight in enumerate(row):
            top, left = pad + start + i, pad + start + j
            out += weight * wide[top:top + h * scale:scale, left:left + w * scale:scale]
    return out


def to_uint8(values):
    return values.clip(0, 255).round().astype(np.uint8)


@pytest.mark.parametrize('scale, sigma, shift', [
    (4, (1.5, 1.5), (0, 0)), (4, (1.8, 1.2), (1.3, -0.7)), (3, (1.2, 1.2), (0.5, 0.5)),
    (2, (1., 1.4), (-0.4, 0))])
def test_a_blur_and_a_shift_are_recovered(scale, sigma, shift):
    start = -max(int(np.ceil(1.5 * scale)), 3)
    truth = gaussian(scale, start, scale - 2 * start, sigma, shift)
    pairs = [(to_uint8(apply_kernel(image, truth, scale, start)), image) for image in textures()]
    fitted = fit_kernel(pairs)
    assert (fitted.start, fitted.kernel.shape) == (start, truth.shape)
    assert np.abs(fitted.kernel - truth).max() < 1e-2 * truth.max()
    assert fitted.shift == pytest.approx(shift, abs=0.03)
    assert fitted.width == pytest.approx([2.355 * value for value in sigma], abs=0.25)
    assert fitted.gain == pytest.approx(1, abs=2e-3)
    assert fitted.noise_std == pytest.approx(1 / np.sqrt(12), rel=0.1)  # the LR's rounding
    results = identify(pairs)
    verdict = give_verdict(results, fitted)
    # the rest that A leaves is to be taken for noise
    if scale == 4:
        assert verdict.kind == 'kernel' and verdict.noise_std > 1
        assert ('shifted' in ' '.join(verdict.lines)) == any(shift)


def test_a_large_scale_has_coarser_weights_outside():
    scale = 16
    offsets, weights = taps(scale, 'bicubic', False)
    lr = [np.zeros((24, 24, 3))] * 2
    images = textures(4, 24 * scale)
    profile = np.zeros(64)
    profile[offsets + 24] = weights / weights.sum()
    lr = [to_uint8(apply_kernel(image, np.outer(profile, profile), scale, -24))
          for image in images]
    fitted = fit_kernel(list(zip(lr, images, strict=True)))
    assert fitted.kernel.shape == (64, 64)
    assert np.abs(fitted.kernel - np.outer(profile, profile)).max() < 2e-2 * profile.max()**2
    assert len(np.unique(fitted.kernel.round(12))) <= 36**2  # cells, not pixels
    assert fitted.gain == pytest.approx(1, abs=0.02)
    assert fitted.brightness == pytest.approx(0, abs=2)


def test_cells_tile_the_window_and_are_single_pixels_in_the_middle():
    for width in range(2, 300):
        cells = free_kernel._cells(width)
        sizes = np.diff([*cells, width])
        size = int(np.ceil(width / 32))
        assert cells[0] == 0 and sizes.min() >= 1 and sizes.max() == size
        middle = range(width)
        if size > 1:
            middle = range((width - 8) // 2, (width - 8) // 2 + 8)
        assert {*middle} <= {*cells[sizes == 1]}
        assert (sizes[:-1][sizes[:-1] != size] == 1).all()  # but for the last one
        assert (sizes == 1).sum() <= 8 + 3 * size or size == 1


@pytest.mark.parametrize('profile, width', [
    ([0, 1, 2, 1, 0], 2), ([0, 0, 3, 1, 0], 1.25), ([2, 2, 2, 2], 4), ([3, 3, 0, 0], 2),
    ([-1, 4, 4, 1, -1], 0.4 + 1 + 2 / 3)])
def test_the_width_at_half_maximum(profile, width):
    other = np.zeros(len(profile))
    other[1] = 1
    for kernel, which in ((np.outer(profile, other), 0), (np.outer(other, profile), 1)):
        fitted = FittedKernel(kernel.astype(float), -2, 2, 0., 1., 9)
        assert fitted.width[which] == pytest.approx(width)
        assert fitted.width[1 - which] == 1
        centre = np.average(np.arange(len(profile)), weights=profile) - 2 - 0.5
        assert fitted.shift[which] == pytest.approx(centre)
        assert fitted.shift[1 - which] == 1 - 2 - 0.5 and fitted.gain == sum(profile)


@pytest.mark.parametrize('size, width', [
    ((16, 20), 8), ((16, 19), 6), ((11, 14), 6), ((10, 15), 4), ((8, 10), 4), ((7, 11), 2),
    ((3, 4), 2), ((3, 3), None)])
def test_the_window_is_as_wide_as_there_are_equations_for(size, width):
    """Three for each weight: 8² * 3 = 192 = (16 - 4) (20 - 4) LR pixels look at 8 x 8 inside."""
    rng = np.random.default_rng(0)
    hr = rng.integers(60, 200, (2 * size[0], 2 * size[1])).astype(np.uint8)
    lr = to_uint8(hr.reshape(size[0], 2, size[1], 2).mean((1, 3)))
    fitted = fit_kernel([(lr, hr)])
    assert (fitted and fitted.kernel.shape) == (width and (width, width))
    if fitted:
        side = (width - 2) // 2
        assert fitted.start == -side
        assert 0.5 < fitted.values / ((size[0] - 2 * -(-side // 2)) *
                                      (size[1] - 2 * -(-side // 2))) < 1


@pytest.mark.parametrize('chunk', (1, 7, 10**9))
@pytest.mark.parametrize('channels', (1, 3))
def test_every_value_with_a_window_is_one_equation(monkeypatch, chunk, channels):
    """But for those that may have been clipped; windows of 4 x 4 around 2 x 2, by loops."""
    monkeypatch.setattr(free_kernel, 'CHUNK', 16 * chunk)
    rng = np.random.default_rng(0)
    shape = (channels, ) if channels > 1 else ()
    lr = rng.integers(0, 256, (5, 6, *shape)).astype(np.uint8)
    lr.flat[::4] = rng.choice([0, 255, 1, 254], len(lr.flat[::4]))
    hr = rng.integers(0, 256, (10, 12, *shape)).astype(np.uint8)
    found = list(free_kernel._equations(lr, hr, 999, -1, np.arange(4), 4, 2,
                                        np.random.default_rng(1)))
    assert len(found) == np.ceil(3 * 4 * channels / chunk)
    assert max(len(target) for _, target in found) <= chunk
    rows = np.concatenate([np.column_stack(part) for part in found]) + 128
    wanted = []
    for i in range(1, 4):
        for j in range(1, 5):
            for c in range(channels):
                value = np.atleast_3d(lr)[i, j, c]
                if 0 < value < 255:
                    window = np.atleast_3d(hr)[2 * i - 1:2 * i + 3, 2 * j - 1:2 * j + 3, c]
                    wanted.append([*window.ravel(), value])
    assert sorted(rows.tolist()) == sorted(np.array(wanted, float).tolist())
    cells = np.array([0, 1, 3])  # sums over cells of 1, 2 and 1 pixels
    sums = np.concatenate([values for values, _ in free_kernel._equations(
        lr, hr, 999, -1, cells, 4, 2, np.random.default_rng(1))])
    windows = rows[:, :-1].reshape(-1, 4, 4) - 128
    columns = np.stack([windows[..., 0], windows[..., 1:3].sum(2), windows[..., 3]], 2)
    expected = np.stack([columns[:, 0], columns[:, 1:3].sum(1), columns[:, 3]], 1)
    np.testing.assert_array_equal(sums, expected.reshape(len(sums), 9))


@pytest.mark.parametrize('each, wanted', [(0, 8 * 64), (600, 600), (10**6, 20**2 + 3 * 36**2)])
def test_the_work_is_bounded_and_shared(monkeypatch, each, wanted):
    """So many products of 64 + 64 numbers; pairs give in proportion to what they have."""
    counts, equations = [], free_kernel._equations
    monkeypatch.setattr(free_kernel, 'WORK', 2 * 64**2 * each)
    monkeypatch.setattr(free_kernel, '_equations', lambda *args: (
        counts.append(args[2]), equations(*args))[1])
    hr = textures(1, 80)[0]
    lr = to_uint8(hr.reshape(40, 2, 40, 2, 3).mean((1, 3)))
    fitted = fit_kernel([(lr[:24, :24, 0].copy(), hr[:48, :48, 0].copy())])
    assert counts.pop() == min(wanted, 20**2)
    fitted = fit_kernel([(lr[:24, :24, :1].copy(), hr[:48, :48, :1].copy()), (lr, hr)])
    assert fitted.values == pytest.approx(0.8 * wanted, abs=4 * (0.16 * wanted)**0.5)
    share = wanted / (20**2 + 3 * 36**2)
    assert counts == [np.ceil(20**2 * share), np.ceil(3 * 36**2 * share)]


def test_as_many_equations_as_weights_are_enough():
    """12 LR values for the 4 weights of the narrowest window, some of which may be clipped."""
    rng = np.random.default_rng(0)
    hr = rng.integers(60, 200, (6, 8)).astype(np.uint8)
    values = to_uint8(hr.reshape(3, 2, 4, 2).mean((1, 3))).ravel()
    order = np.random.default_rng(0)
    places = order.permutation(12)
    fitted = (order.random(12) >= 0.2).cumsum()
    assert fitted[-1] < 12
    for count in range(13):
        lr = np.zeros(12, np.uint8)
        lr[places[:count]] = values[places[:count]]
        enough = count and 4 <= fitted[count - 1] < count
        assert (fit_kernel([(lr.reshape(3, 4), hr)]) is not None) == enough


def test_pictures_that_say_nothing():
    flat = np.full((20, 20), 90, np.uint8), np.full((40, 40), 100, np.uint8)
    fitted = fit_kernel([flat])
    assert not fitted.kernel.any() and fitted.brightness == 90 and fitted.noise_std == 0


def test_contrast_and_brightness_are_told():
    images = textures(2)
    pairs = [(to_uint8(0.86 * image.reshape(24, 4, 24, 4, 3).mean((1, 3)) + 16), image)
             for image in images]
    fitted = fit_kernel(pairs)
    assert fitted.gain == pytest.approx(0.86, abs=0.01)
    assert fitted.brightness == pytest.approx(16, abs=1.5)
    lines = ' '.join(give_verdict(identify(pairs), fitted).lines)
    assert 'Contrast times 0.8' in lines and 'more than downsampling' in lines


def test_clipped_values_do_not_bend_the_kernel():
    images = [np.random.default_rng(3).choice([0, 255], (96, 96, 3)).astype(np.uint8)]
    means = images[0].reshape(24, 4, 24, 4, 3).mean((1, 3))
    pairs = [(to_uint8(means * 3 - 255), images[0])]
    assert (pairs[0][0] == 0).mean() > 0.05
    fitted = fit_kernel(pairs)
    assert fitted.gain == pytest.approx(3, rel=0.02)


def test_too_little_for_a_kernel_is_said():
    image = textures(1, 16, 1)[0]
    assert fit_kernel([(image[::8, ::8].copy(), image)]) is None
    with pytest.raises(ValueError, match='at least one pair'):
        fit_kernel([])
    with pytest.raises(ValueError, match='pair 1: expected the scale'):
        fit_kernel([(image[::2, ::2].copy(), image), (image[::4, ::4].copy(), image)])


def natural(number=4, size=256):
    found = []
    for seed in range(number):
        rng = np.random.default_rng(seed)
        coarse = Image.fromarray(rng.integers(0, 256, (24, 24, 3)).astype(np.uint8))
        fine = Image.fromarray(rng.integers(0, 256, (80, 80, 3)).astype(np.uint8))
        parts = [np.asarray(part.resize((size, size), Image.BICUBIC), float)
                 for part in (coarse, fine)]
        found.append(to_uint8(0.7 * parts[0] + 0.25 * parts[1] + rng.normal(0, 3, (size, size, 3))))
    return found


def lr_of(image, scale=4, method=Image.BICUBIC):
    return np.asarray(Image.fromarray(image).resize((image.shape[1] // scale,) * 2, method))


def jpeg(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, 'JPEG', quality=quality)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize('sigma', [2, 5, 10])
def test_noise_is_named_and_measured(sigma):
    rng = np.random.default_rng(1)
    pairs = [(to_uint8(lr_of(image) + rng.normal(0, sigma, (64, 64, 3))), image)
             for image in natural()]
    results = identify(pairs)
    grid = block_grid(errors_of_best(results, pairs))
    verdict = give_verdict(results, fit_kernel(pairs), grid is not None)
    assert results[0].kernel == 'bicubic'
    assert verdict.kind == 'noise' and grid is None
    assert verdict.noise_std == pytest.approx(sigma, rel=0.08)


def errors_of_best(results, pairs):
    from mmpd.postprocess.identify import errors_of
    return errors_of(results[0], pairs)


@pytest.mark.parametrize('quality', [50, 75, 90])
@pytest.mark.parametrize('cut', [(0, 0), (3, 5)])
def test_jpeg_shows_in_its_blocks(quality, cut):
    """In a file of any format, with another A than the right one too."""
    for method in (Image.BICUBIC, Image.BOX):
        errors = [(jpeg(lr_of(image), quality).astype(float) - lr_of(image, method=method))
                  [cut[0]:, cut[1]:] for image in natural()]
        assert block_grid(errors) == (-cut[0] % 8, -cut[1] % 8)


@pytest.mark.parametrize('sizes, found', [
    ([(40, 40)], True), ([(32, 40)], False), ([(32, 40), (15, 99), (40, 32)], True),
    ([(15, 400)], False), ([(400, 15)], False), ([(16, 136)], True), ([(135, 16)], False),
    ([], False)])
@pytest.mark.parametrize('channels', ((), (1, ), (3, ), (4, )))
def test_sixteen_blocks_are_needed(sizes, found, channels):
    """A row and a column of blocks less than there are, for there are as many at every offset."""
    rng = np.random.default_rng(0)
    errors, kept = [], rng.random((8, 8)) < 0.5  # coefficients
    for height, width in sizes:
        blocks = np.zeros((-(-height // 8), -(-width // 8), 8, 8))
        blocks[..., kept] = rng.normal(0, 30, (*blocks.shape[:2], kept.sum()))
        matrix = _cosines()
        plane = (matrix.T @ blocks @ matrix).transpose(0, 2, 1, 3)
        plane = plane.reshape(plane.shape[0] * 8, -1)[:height, :width]
        errors.append(plane if not channels else np.repeat(plane[..., None], *channels, 2))
    assert block_grid(errors) == ((0, 0) if found else None)


def test_the_cosine_transform_is_orthonormal_and_of_the_right_frequencies():
    matrix = _cosines()
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(BLOCK), atol=1e-12)
    for k, row in enumerate(matrix):  # as many changes of sign as its number says
        assert (np.diff(np.sign(row)) != 0).sum() == k
        assert row[0] > 0
    np.testing.assert_allclose(matrix[1] / matrix[1, 0],
                               np.cos((2 * np.arange(8) + 1) * np.pi / 16) / np.cos(np.pi / 16))


def test_verdicts_on_jpeg_and_fits():
    pairs = [(jpeg(lr_of(image), 60), image) for image in natural()]
    results, fitted = identify(pairs), fit_kernel(pairs)
    verdict = give_verdict(results, fitted, 'blocks')
    assert verdict.kind == 'jpeg' and 'JPEG (blocks)' in verdict.lines[0]
    assert verdict.noise_std == pytest.approx(255 * 10**(-results[0].psnr / 20))
    pairs = [(lr_of(image), image) for image in natural()]
    results, fitted = identify(pairs), fit_kernel(pairs)
    assert block_grid(errors_of_best(results, pairs)) is None
    verdict = give_verdict(results, fitted)
    assert (verdict.kind, verdict.noise_std) == ('exact', None)
    named = named_kernel(results[0], fitted)
    assert named.sum() == pytest.approx(1)
    without = give_verdict(results, fitted, with_gt=False)
    assert without.kind == 'bound' and 'lower bounds' in without.lines[0]
    assert 'Careful' in without.lines[1]
    assert any('the kernel is clear' in line for line in without.lines)
    flat = [(np.full((8, 8, 3), 90, np.uint8), np.full((32, 32, 3), 90, np.uint8))]
    assert give_verdict(identify(flat)).lines[0] == (
        'Average pooling gives every value back, and so does bicubic (antialias): these images do '
        'not tell which made the LR.')
    noisy = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    grey = np.full_like(noisy, 90)
    for lr, hr in ((grey[:16, :16], grey), (grey[:16, :16], noisy), (noisy[:16, :16], grey)):
        pairs = [(lr, hr)] * 9
        lines = give_verdict(identify(pairs), fit_kernel(pairs)).lines
        assert lines[-1].startswith('The free kernel says nothing') and 'nan' not in str(lines)
    unclear = give_verdict(identify(flat), with_gt=False)
    assert any('the kernel is not clear' in line for line in unclear.lines)


def test_the_picture_shows_both(tmp_path):
    pairs = [(lr_of(image), image) for image in natural(2)]
    results, fitted = identify(pairs), fit_kernel(pairs)
    draw_kernels(fitted, results[0]).save(tmp_path / 'k.png')
    image = np.asarray(Image.open(tmp_path / 'k.png')).astype(int)
    assert image.shape[2] == 3 and image.shape[1] > image.shape[0]
    red = (image[..., 0] - image[..., 2] > 100)
    third = image.shape[1] // 3
    # the middle of both kernels is red, positive; side lobes of bicubic are blue
    for panel in (red[:, :third], red[:, third:2 * third]):
        rows, columns = np.nonzero(panel)
        assert abs(columns.mean() - third / 2) < 20 and len(rows) > 500
    assert (image[..., 2] - image[..., 0] > 25).any()
