"""LRConsistency on data samples as MMagic's models make them."""
import json

import mmpd  # noqa: F401  isort: skip  (its stand-ins come before mmagic's models)
import numpy as np
import pytest
import torch
from mmagic.models import DataPreprocessor
from mmagic.registry import METRICS
from mmagic.structures import DataSample
from skimage.metrics import peak_signal_noise_ratio

from mmpd.evaluation.functional import PSNR_CAP, errors, psnr
from mmpd.operators import build_operator


def build(**kwargs):
    return METRICS.build(dict(type='LRConsistency', **kwargs))


def sample(pred, lr, **output):
    return dict(input=torch.as_tensor(lr), output=dict(pred_img=torch.as_tensor(pred), **output))


def evaluate(metric, samples):
    metric.process(None, samples)
    metric.size = len(samples)
    return metric.evaluate()


def pooled(image, scale):
    c, h, w = image.shape
    return np.asarray(image, np.float64).reshape(
        c, h // scale, scale, w // scale, scale).mean((2, 4))


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    pred = rng.uniform(-20, 275, (3, 32, 48)).astype(np.float32)
    return pred, rng.integers(0, 256, (3, 4, 6)).astype(np.float32)


def test_values_against_numpy_and_skimage(pair):
    pred, lr = pair
    clipped = pred.clip(0, 255)
    got = evaluate(build(), [sample(clipped, lr, pred_float=torch.from_numpy(pred))])
    saved = np.rint(clipped)
    rounded = np.floor(pooled(saved, 8) + 0.5)
    for suffix, down in (('', pooled(pred, 8)), ('_8bit', pooled(saved, 8)),
                         ('_8bit_rounded', rounded)):
        want = peak_signal_noise_ratio(lr / 255., down / 255, data_range=1)
        assert got[f'PSNR_LR{suffix}'] == pytest.approx(want, abs=1e-5)
    for suffix, image in (('', pred), ('_8bit', saved)):
        error = np.abs(pooled(image, 8) - lr) / 255
        assert got[f'L1_LR{suffix}'] == pytest.approx(error.mean())
        assert got[f'MSE_LR{suffix}'] == pytest.approx((error**2).mean())
    assert got['MaxErr_LR_8bit'] == pytest.approx(np.abs(pooled(saved, 8) - lr).max())
    assert got['MaxErr_LR_8bit_rounded'] == pytest.approx(np.abs(rounded - lr).max())
    assert set(got) == {'PSNR_LR', 'L1_LR', 'MSE_LR', 'PSNR_LR_8bit', 'L1_LR_8bit', 'MSE_LR_8bit',
                        'MaxErr_LR_8bit', 'PSNR_LR_8bit_rounded', 'MaxErr_LR_8bit_rounded'}
    assert all(type(value) is float for value in got.values())
    json.loads(json.dumps(got, allow_nan=False))


def test_without_pred_float_the_prediction_itself_is_measured(pair):
    pred, lr = pair
    pred = pred.clip(0, 255)
    got = evaluate(build(), [sample(pred, lr)])
    error = np.abs(pooled(pred, 8) - lr) / 255
    assert got['L1_LR'] == pytest.approx(error.mean())
    assert got['L1_LR_8bit'] != got['L1_LR']


def test_means_and_maxima_over_images(pair):
    pred, lr = pair
    samples = [sample(pred, lr), sample(pred * 0.5, lr)]
    each = [evaluate(build(), [s]) for s in samples]
    both = evaluate(build(), samples)
    assert both['PSNR_LR'] == pytest.approx((each[0]['PSNR_LR'] + each[1]['PSNR_LR']) / 2)
    assert both['MaxErr_LR_8bit'] == max(e['MaxErr_LR_8bit'] for e in each)


def test_perfect_consistency_is_finite_and_survives_the_preprocessor():
    lr = torch.randint(0, 256, (1, 3, 4, 4)).float()
    preprocessor = DataPreprocessor(mean=[127.5] * 3, std=[127.5] * 3)
    normalised = preprocessor(dict(inputs=[lr[0]], data_samples=[DataSample()]))
    destructed = preprocessor.destruct(normalised['inputs'], normalised['data_samples'])
    image = lr.repeat_interleave(8, 2).repeat_interleave(8, 3)
    got = evaluate(build(), [sample(image, destructed)])
    assert got['PSNR_LR'] == got['PSNR_LR_8bit'] == got['PSNR_LR_8bit_rounded'] == PSNR_CAP
    assert got['MaxErr_LR_8bit'] == got['MSE_LR'] == 0


def test_float32_pd_lands_where_the_paper_says():
    lr = torch.randint(0, 256, (3, 8, 8)) / 127.5 - 1
    raw = torch.rand(3, 64, 64) * 2 - 1
    up = lambda x: x.repeat_interleave(8, 1).repeat_interleave(8, 2)  # noqa: E731
    down = torch.nn.functional.avg_pool2d
    pd = (up(lr) + raw - up(down(raw, 8))) * 127.5 + 127.5
    got = evaluate(build(), [sample(pd.clamp(0, 255), lr * 127.5 + 127.5, pred_float=pd)])
    assert 130 < got['PSNR_LR'] < PSNR_CAP
    assert got['PSNR_LR_8bit'] < 80  # appendix B: clipping and rounding break it


def test_what_the_preprocessor_adds_is_taken_away_and_no_more(pair):
    lr = pair[1]
    image = lr.repeat(8, 1).repeat(8, 2)
    assert evaluate(build(), [sample(image, lr + 0.0009)])['PSNR_LR'] == PSNR_CAP
    assert evaluate(build(), [sample(image, lr - 0.0009)])['PSNR_LR'] == PSNR_CAP
    assert evaluate(build(), [sample(image, lr - 0.0011)])['PSNR_LR'] < PSNR_CAP


def test_non_8bit_lr_is_not_rounded(pair):
    pred, lr = pair
    got = evaluate(build(), [sample(pred, lr + 0.25)])
    assert got['L1_LR'] == pytest.approx((np.abs(pooled(pred, 8) - lr - .25) / 255).mean())


def test_another_operator_and_colour_order(pair):
    pred, lr = pair

    class FirstChannel:
        def A(self, x):
            return x[:, :1]

        def A_dagger(self, y):
            return torch.cat([y, 0 * y, 0 * y], 1)

    rgb = {**sample(pred, pred[2:]), 'img_output_channel_order': 'RGB'}
    assert evaluate(build(operator=FirstChannel()), [rgb])['L1_LR'] == 0
    assert evaluate(build(operator=FirstChannel()), [sample(pred, pred[:1])])['L1_LR'] == 0
    assert evaluate(build(operator=FirstChannel()), [sample(pred, pred[2:])])['L1_LR'] > 0.1
    fixed = build(operator=dict(type='AveragePooling', scale=8))
    assert evaluate(fixed, [sample(pred, lr)]) == evaluate(build(), [sample(pred, lr)])


@pytest.mark.parametrize('kind', ['AveragePooling', 'SeparableResize', 'CEM'])
def test_the_scale_may_be_left_to_the_sizes(pair, kind):
    pred, lr = pair
    want = evaluate(build(operator=dict(type=kind, scale=8)), [sample(pred, lr)])
    for cfg in (dict(type=kind), dict(type=kind, scale=None)):
        assert evaluate(build(operator=cfg), [sample(pred, lr)]) == want
    with pytest.raises(ValueError, match="unknown type 'Nothing'"):
        build(operator=dict(type='Nothing'))


def test_nan_stays_nan_and_psnr_is_capped(pair):
    pred, lr = pair
    pred = pred.copy()
    pred[0, 0, 0] = np.nan
    assert np.isnan(evaluate(build(), [sample(pred, lr)])['PSNR_LR'])
    assert np.isnan(psnr(float('nan'))) and psnr(0.) == PSNR_CAP
    assert psnr(0.01) == pytest.approx(20)


def test_bad_input_is_named(pair):
    pred, lr = pair
    with pytest.raises(ValueError, match='5x6.*32x48'):
        build().process(None, [sample(pred, np.zeros((3, 5, 6), np.float32))])
    with pytest.raises(ValueError, match="'input'.*output"):
        build().process(None, [dict(output=dict(pred_img=torch.from_numpy(pred)))])
    with pytest.raises(ValueError, match="'pred_img'.*other"):
        build().process(None, [dict(input=torch.from_numpy(lr), output=dict(other=1))])
    with pytest.raises(ValueError, match=r'\(32, 48\)'):
        build().process(None, [sample(pred[0], lr)])
    with pytest.raises(ValueError, match=r'cannot compare shapes \(3, 4\) and \(4,\)'):
        errors(torch.zeros(3, 4), torch.zeros(4))


def test_the_lr_that_one_would_make_of_the_saved_image_is_clipped(pair):
    """Bicubic overshoots at edges between black and white."""
    operator = build_operator(dict(type='SeparableResize', scale=8))
    edges = torch.from_numpy(pair[0] > 127).double() * 255
    edges[:, :, :20] = 0
    edges[:, :, 20:] = 255
    lr = operator.A(edges[None])[0]
    assert lr.min() < -1 and lr.max() > 256
    got = evaluate(build(operator=operator), [sample(edges, lr.round().clamp(0, 255))])
    assert got['MaxErr_LR_8bit_rounded'] == 0 and got['PSNR_LR_8bit_rounded'] == PSNR_CAP
    assert got['MaxErr_LR_8bit'] > 1


def test_values_that_were_not_met_are_summed_over_the_images_that_count_them(pair):
    samples = [sample(*pair, **output) for output in (
        dict(lr_unmatched=2), dict(), dict(lr_unmatched=torch.tensor(3)))]
    found = evaluate(build(), samples)
    assert found['Unmatched_LR_8bit'] == 5 and {*found} == {*build().names}
    assert 'Unmatched_LR_8bit' not in evaluate(build(), samples[1:2])


def test_prefix():
    got = evaluate(build(prefix='box'), [sample(torch.zeros(3, 8, 8), torch.zeros(3, 1, 1))])
    assert 'box/PSNR_LR' in got
