"""What the page computes: files that degrade to the LR, figures that are true."""
import base64
import io
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mmpd.errors import InputError
from mmpd.utils.images import Picture
from mmpd.web import jobs, replies
from mmpd.web.jobs import Job, run
from mmpd.web.limits import Limits
from mmpd.web.operators import AUTO, CHOICES

POOLING, BICUBIC = 'average pooling', 'bicubic, by Pillow'
SCALE = 4


def pooled(image):
    h, w = image.shape[0] // SCALE, image.shape[1] // SCALE
    return image.astype(float).reshape(h, SCALE, w, SCALE, -1).mean((1, 3)).reshape(
        h, w, *image.shape[2:])


def pictures(folder, channels=3, seed=0):
    """LR (8 x 12) and SR (32 x 48) as PNG files, the SR wrong by a tint and noise."""
    rng = np.random.default_rng(seed)
    small = rng.integers(40, 216, (8, 12, channels), dtype=np.uint8)
    noise = rng.normal(8, 10, (32, 48, channels))
    sr = (small.repeat(SCALE, 0).repeat(SCALE, 1) + noise).clip(0, 255).round().astype(np.uint8)
    for name, image in (('lr', small), ('sr', sr)):
        Image.fromarray(image[..., 0] if channels == 1 else image).save(folder / f'{name}.png')
    return str(folder / 'lr.png'), str(folder / 'sr.png')


def read(path):
    return np.asarray(Image.open(path))


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / 'out'
    folder.mkdir()
    return folder


@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_the_file_pools_to_the_lr_exactly(tmp_path, out, channels):
    lr, sr = pictures(tmp_path, channels)
    result = run(Job(lr, sr, operator=POOLING), out)
    assert result.picture == str(out / 'lr_consistent.png')
    image = read(result.picture)
    assert image.dtype == np.uint8 and (pooled(image) == read(lr)).all()  # alpha too
    assert (read(result.before) == read(sr)).all()
    colours = channels - (channels in (2, 4))
    figures = result.figures
    assert (figures['lr_values'], figures['lr_values_unmatched']) == (8 * 12 * colours, 0)
    assert (figures['scale'], figures['size']) == (4, (48, 32))
    y, x_r = (np.atleast_3d(read(path))[..., :colours].astype(float) for path in (lr, sr))
    before = 10 * math.log10(255**2 / ((pooled(x_r) - y)**2).mean())
    assert figures['psnr_lr_before'] == pytest.approx(before, abs=1e-9)
    assert figures['psnr_lr_after'] == math.inf


def test_another_a_another_picture(tmp_path, out):
    lr, sr = pictures(tmp_path)
    gt = read(sr)
    Image.fromarray(gt).resize((12, 8), Image.BICUBIC).save(lr)
    rng = np.random.default_rng(3)
    Image.fromarray((gt * 0.9 + rng.normal(10, 3, gt.shape)).clip(0, 255).astype(np.uint8)).save(sr)
    result = run(Job(lr, sr, operator=BICUBIC), out)
    again = Image.open(result.picture).resize((12, 8), Image.BICUBIC)
    assert (np.asarray(again) == read(lr)).all()
    assert result.figures['made_by'] == 'pil' and "'bicubic'" in result.figures['operator']


def test_every_a_of_the_page_can_be_used(tmp_path, out):
    lr, sr = pictures(tmp_path)
    for index, label in enumerate(list(CHOICES)[1:]):
        folder = out / str(index)
        folder.mkdir()
        figures = run(Job(lr, sr, operator=label), folder).figures
        assert figures['psnr_lr_after'] > figures['psnr_lr_before'] + 10, label


@pytest.mark.parametrize('option', [dict(strength=0.), dict(strength=0.5), dict(noise_std=20.),
                                    dict(bounds=(20, 230))])
def test_every_option_changes_the_picture(tmp_path, out, option):
    lr, sr = pictures(tmp_path)
    for name in ('plain', 'other'):
        (out / name).mkdir()
    plain = read(run(Job(lr, sr, operator=POOLING), out / 'plain').picture)
    result = run(Job(lr, sr, operator=POOLING, **option), out / 'other')
    image = read(result.picture)
    assert (image != plain).any()
    if 'bounds' in option:
        assert image.min() >= 20 and image.max() <= 230 and plain.max() > 230
        assert (pooled(image) == read(lr)).all()
    elif option == dict(strength=0.):
        assert (image == read(sr)).all()
        assert result.figures['psnr_lr_after'] == result.figures['psnr_lr_before']
    else:
        assert result.figures['lr_values_unmatched'] > 0


def test_auto_finds_the_a_and_says_how_sure_it_is(tmp_path, out):
    pytest.importorskip('mmpd.postprocess.identify')
    lr, sr = str(tmp_path / 'lr.png'), str(tmp_path / 'sr.png')
    gt = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(gt).save(sr)
    Image.fromarray(gt).resize((16, 16), Image.LANCZOS).save(lr)
    figures = run(Job(lr, sr, operator=AUTO), out).figures
    assert figures['made_by'] == 'pil' and "'lanczos'" in figures['operator']
    found = figures['found']
    assert found['psnr'] == math.inf > found['next_psnr'] and 'lanczos' in found['name']
    assert 'lanczos' not in found['next_name']
    assert 'for lanczos (antialias): exact; next: ' in replies.certainty(found)
    assert 'choose it' not in replies.certainty(found)
    assert 'choose it' in replies.certainty(dict(found, psnr=30., next_psnr=29.))


def test_panels_show_the_change_and_the_errors(tmp_path, out):
    lr, sr = pictures(tmp_path)
    result = run(Job(lr, sr, operator=POOLING), out)
    shown = {caption: read(path) for path, caption in result.panels}
    assert list(shown) == ['LR, y', 'before, x_r', 'after, x̂', 'δ = x̂ − x_r, ×5', 'A†y',
                           '|A x_r − y|', '|A x̂ − y|']
    factor = shown['after, x̂'].shape[0] // 32
    assert factor == 16

    def small(caption, step=factor):
        return shown[caption][::step, ::step].astype(int)
    x_r, x, y = (read(path).astype(int) for path in (sr, result.picture, lr))
    assert (small('LR, y', 64) == y).all() and (small('before, x_r') == x_r).all()
    assert (small('after, x̂') == x).all()
    assert (small('δ = x̂ − x_r, ×5') == (128 + 5 * (x - x_r)).clip(0, 255)).all()
    assert (small('A†y') == y.repeat(4, 0).repeat(4, 1)).all()
    before, after = (shown[caption][:, :48 * factor] for caption in ('|A x_r − y|', '|A x̂ − y|'))
    assert len(np.unique(after.reshape(-1, 3), axis=0)) == 1  # no error anywhere
    assert len(np.unique(before.reshape(-1, 3), axis=0)) > 20


def test_a_grey_pair_has_panels_too(tmp_path, out):
    assert len(run(Job(*pictures(tmp_path, 1), operator=POOLING), out).panels) == 7


@pytest.fixture
def model(tmp_path):
    """A checkpoint of a tiny RRDBNet, which is recognised by its tensors."""
    from mmagic.registry import MODELS
    torch.manual_seed(0)
    network = MODELS.build(dict(type='RRDBNet', in_channels=3, out_channels=3, mid_channels=4,
                                num_blocks=1, growth_channels=4, upscale_factor=4))
    torch.save(network.state_dict(), tmp_path / 'tiny.pth')
    jobs._predictions.clear()
    return str(tmp_path / 'tiny.pth')


def test_a_model_makes_what_is_made_consistent(tmp_path, out, model, monkeypatch):
    lr, _ = pictures(tmp_path)
    result = run(Job(lr, model=model, operator=POOLING), out)
    assert (pooled(read(result.picture)) == read(lr)).all()
    from mmpd.apis import PDInferencer
    alone = PDInferencer(model, strength=0)(lr)
    assert (read(result.before) == alone).all() and result.figures['scale'] == 4

    # another A needs no second run of the network, another LR does
    def network(name):
        raise AssertionError('it was run again')
    monkeypatch.setattr(jobs, '_inferencer', network)
    (out / 'again').mkdir()
    again = run(Job(lr, model=model, operator=BICUBIC), out / 'again')
    assert (read(again.picture) != read(result.picture)).any()
    lr, _ = pictures(tmp_path, seed=1)
    with pytest.raises(AssertionError, match='run again'):
        run(Job(lr, model=model, operator=POOLING), out)


def test_the_last_predictions_are_remembered(monkeypatch):
    """Of several samples the first, without PD; found again by all that went into them."""
    asked = []

    class Inferencer:
        def __init__(self, model, strength):
            assert strength == 0

        def predict(self, images):
            asked.append(int(images[0].pixels[0, 0, 0]))
            return [[SimpleNamespace(raw=Picture(images[0].pixels + offset), image=images[0])
                     for offset in (0, 1)]]
    monkeypatch.setattr('mmpd.apis.PDInferencer', Inferencer)
    jobs._predictions.clear()
    jobs._inferencer.cache_clear()

    def lr(value, alpha=None):
        return Picture(np.full((2, 2, 3), value, np.uint8), alpha, icc_profile=b'profile')
    try:
        for value in (1, 2, 3, 4, 1, 5):
            raw = jobs.predict(lr(value), 'm')
            assert (raw.pixels == value).all() and raw.icc_profile == b'profile'
        assert asked == [1, 2, 3, 4, 5] and len(jobs._predictions) == 4
        for value in (1, 3, 4, 5):
            jobs.predict(lr(value), 'm')
        assert asked == [1, 2, 3, 4, 5]
        jobs.predict(lr(2), 'm')  # the one that was not used for longest had to go
        alphas = [np.full((2, 2), value, np.uint8) for value in (0, 9)]
        for alpha in (*alphas, alphas[0]):
            assert (jobs.predict(lr(2, alpha), 'm').alpha == alpha).all()
        jobs.predict(lr(2), 'another')
        assert asked == [1, 2, 3, 4, 5, 2, 2, 2, 2]
    finally:
        jobs._predictions.clear()
        jobs._inferencer.cache_clear()


def test_a_picture_as_large_as_its_lr(tmp_path, out):
    lr, _ = pictures(tmp_path)
    result = run(Job(lr, lr, operator=POOLING), out)
    assert result.figures['scale'] == 1 and (read(result.picture) == read(lr)).all()


@pytest.mark.parametrize('size', [(48, 7), (11, 32)])
def test_a_picture_that_is_smaller_one_way(tmp_path, out, size):
    lr, sr = pictures(tmp_path)
    Image.open(sr).resize(size).save(sr)
    with pytest.raises(InputError, match=f'the SR .{size[0]}x{size[1]}. is smaller than the LR'):
        run(Job(lr, sr, operator=POOLING), out)


def test_an_lr_for_a_model_is_bounded(tmp_path, out):
    lr, sr = pictures(tmp_path)
    limits = Limits(lr_megapixels=95e-6)
    with pytest.raises(InputError, match='lr.png: expected at most 9.5e-05 megapixels, got 12x8'):
        run(Job(lr, model='whatever', limits=limits), out)
    run(Job(lr, sr, operator=POOLING, limits=limits), out)


@pytest.mark.parametrize('change, expected', [
    (lambda lr, sr: (sr, lr), r'the SR \(12x8\) is smaller than the LR \(48x32\): are they swa'),
    (lambda lr, sr: (lr, cropped(sr)), 'one integer multiple of those of the LR .8x12., got 32x47'),
    (lambda lr, sr: (lr, greyed(sr)), 'an LR that is RGB and an SR that is grey')])
def test_pictures_that_do_not_fit_are_refused(tmp_path, out, change, expected):
    lr, sr = change(*pictures(tmp_path))
    with pytest.raises((InputError, ValueError), match=expected):
        run(Job(lr, sr, operator=POOLING), out)
    assert not list(out.iterdir())


def test_opacity_has_no_range_of_colours_and_is_not_lost(tmp_path, out):
    lr, sr = (Image.open(path).convert('RGBA') for path in pictures(tmp_path))
    lr.save(tmp_path / 'lr.png')
    sr.save(tmp_path / 'sr.png', icc_profile=b'of the SR')
    job = Job(str(tmp_path / 'lr.png'), str(tmp_path / 'sr.png'), operator=POOLING)
    result = run(replace(job, bounds=(16, 235)), out)
    image = Image.open(result.picture)
    assert np.asarray(image)[..., 3].min() == 255 and image.info['icc_profile'] == b'of the SR'
    assert (pooled(np.asarray(image)) == np.asarray(lr)).all()
    sr.convert('RGB').save(tmp_path / 'sr.png')
    with pytest.raises(InputError, match='expected an SR with alpha, as the LR has'):
        run(job, out)


def test_auto_goes_by_detail_not_by_contrast(tmp_path, out):
    """As in mmpd.consistent and the commands."""
    rng = np.random.default_rng(0)
    gt = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
    gt = gt.resize((64, 64), Image.BICUBIC)
    gt.resize((16, 16), Image.BILINEAR).save(tmp_path / 'lr.png')
    Image.fromarray((np.asarray(gt) * 0.7 + 30).astype(np.uint8)).save(tmp_path / 'sr.png')
    figures = run(Job(*(str(tmp_path / f'{name}.png') for name in ('lr', 'sr')), operator=AUTO),
                  out).figures
    assert "'bilinear', antialias=True" in figures['operator'] and figures['made_by'] == 'pil'


def cropped(path):
    Image.open(path).crop((0, 0, 47, 32)).save(path)
    return path


def greyed(path):
    Image.open(path).convert('L').save(path)
    return path


@pytest.mark.parametrize('given, expected', [
    (dict(lr=''), 'choose an LR picture first'), (dict(sr=None), 'choose a model, or give'),
    (dict(operator='cubic'), 'A: expected'), (dict(strength=2), 'strength: expected'),
    (dict(strength='1'), 'strength: expected'), (dict(noise_std=-1), 'noise_std: expected'),
    (dict(noise_std=float('nan')), 'noise_std: expected'),
    (dict(noise_std=3, strength=0.5), 'strength: expected 1 beside noise_std=3'),
    (dict(bounds=(9, 3)), 'bounds: expected'), (dict(bounds=(0, 300)), 'bounds: expected')])
def test_a_job_is_checked_before_anything_is_read(given, expected):
    with pytest.raises(InputError, match=expected):
        Job(**{**dict(lr='lr.png', sr='sr.png'), **given})


FIELDS = dict(lr='lr.png', sr='sr.png', source=replies.OWN, model=None, operator=POOLING,
              strength=1, noise=0, low=0, high=255)


def requested(**changes):
    return replies.requested({'small': '/models/small.pth'}, Limits(), **{**FIELDS, **changes})


def test_fields_of_the_page_become_a_job():
    job = requested()
    assert (job.lr, job.sr, job.model, job.noise_std, job.bounds) == (
        'lr.png', 'sr.png', None, None, None)
    job = requested(source=replies.MODEL, model='small', noise=2, low=5)
    assert (job.sr, job.model) == (None, '/models/small.pth')
    assert (job.noise_std, job.bounds) == (2, (5, 255))


@pytest.mark.parametrize('changes, expected', [
    (dict(lr=None), 'choose an LR picture first'), (dict(sr=None), 'choose the SR picture as well'),
    (dict(source='both'), "got 'both'"), (dict(strength=None), 'strength: expected a number'),
    (dict(high=None), 'highest value: expected a number'),
    *((dict(source=replies.MODEL, model=name), 'one of the models on the page') for name in
      (None, '/models/small.pth', '../x.pth', 'realesrgan-x4plus', ''))])
def test_only_what_the_page_offers_can_be_asked_for(changes, expected):
    with pytest.raises(InputError, match=expected):
        requested(**changes)


def test_names_of_files_do_not_become_markup(tmp_path):
    path = tmp_path / '<img src=x onerror=alert(1)>.png'
    path.write_bytes(b'nothing')
    text = replies.preview(path, Limits())
    assert '<img' not in text and '&lt;img src=x' in text and 'role="alert"' in text


def test_a_preview_names_size_and_kind(tmp_path):
    lr, _ = pictures(tmp_path, 4)
    assert '<figcaption>12 × 8, RGB, alpha</figcaption>' in replies.preview(lr, Limits())
    assert replies.preview(None, Limits()) == ''


def test_a_preview_is_small(tmp_path):
    Image.new('RGB', (400, 300)).save(tmp_path / 'a.png')
    text = replies.preview(tmp_path / 'a.png', Limits())
    data = base64.b64decode(text.partition('base64,')[2].partition('"')[0])
    assert Image.open(io.BytesIO(data)).size == (160, 120)
    assert '<figcaption>400 × 300, RGB</figcaption>' in text


def test_long_words_are_cut():
    for field, source in (('model', replies.MODEL), ('source', 'x' * 99)):
        with pytest.raises(InputError, match=f"got '{'x' * 80}'$"):
            requested(**{field: 'x' * 99, 'source': source})


@pytest.mark.parametrize('apart, hint', [(2.9, True), (3., False)])
def test_an_a_that_is_well_ahead_is_sure(apart, hint):
    found = dict(name='a', psnr=30 + apart, next_name='b', next_psnr=30.)
    assert ('choose it' in replies.certainty(found)) == hint
    text = replies.certainty(dict(name='a', psnr=30.))
    assert text.endswith('closest to the LR for a: 30.00 dB')


def test_the_summary_says_what_is_missing():
    figures = dict(operator='A<4>', made_by='pil', found=None, scale=4, size=(48, 32),
                   psnr_lr_before=30., psnr_lr_after=math.inf, lr_values=100,
                   lr_values_unmatched=0)
    text = replies.summary(figures, True)
    assert 'Exact: A of the file gives all 100 values' in text and '<td>exact</td>' in text
    assert 'A&lt;4&gt;, in the arithmetic of pil' in text and '30.00 dB' in text
    assert '48 × 32, 4 times the LR' in text and 'how A was found' not in text
    plain = replies.summary(dict(figures, made_by='float'), True)
    assert 'arithmetic' not in plain
    found = replies.summary(dict(figures, found=dict(name='bicubic', psnr=40.)), True)
    assert 'how A was found' in found and 'for bicubic: 40.00 dB' in found
    text = replies.summary(dict(figures, lr_values_unmatched=3, psnr_lr_after=50.), True)
    assert '97 of the 100 values of the LR back.' in text and '3 of 100' in text
    assert 'not all of them are wanted' in replies.summary(
        dict(figures, lr_values_unmatched=3), False)
