"""PDGLEAN and its relations: keys of the plain models, consistent output."""
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, lr_batch, predict, tiny_model
from mmagic.registry import MODELS
from mmagic.structures import DataSample
from mmengine.config import Config

from mmpd.evaluation.metrics import LRConsistency
from mmpd.models.editors import pd_mixin
from mmpd.operators import SeparableResize
from mmpd.operators.library_resize import LibraryResize

UPSTREAM = sorted((ROOT / 'configs/pd_glean').glob('pd_glean_*b*_*.py'))
UPSTREAM = [path for path in UPSTREAM if 'mmagic::' in path.read_text()]


def small_upstream(path):
    """An upstream config without the losses that would download VGG weights."""
    cfg = Config.fromfile(path)
    cfg.model.perceptual_loss = None
    return cfg


@pytest.mark.parametrize('path', UPSTREAM, ids=lambda path: path.stem)
def test_upstream_config_builds_with_the_keys_of_plain_glean(path):
    cfg = small_upstream(path)
    assert cfg.model.type == 'PDGLEAN'
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
        plain = MODELS.build(dict(cfg.model, type='SRGAN'))
    assert list(model.state_dict()) == list(plain.state_dict())
    in_size, out_size = cfg.model.generator.in_size, cfg.model.generator.out_size
    raw, lr = torch.zeros(1, 3, out_size, out_size), torch.zeros(1, 3, in_size, in_size)
    assert model.pd_head.operator_for(raw, lr).scale == out_size // in_size


def test_there_are_seven_upstream_configs():
    import mmagic
    upstream = (Path(mmagic.__file__).parent / '.mim/configs/glean').glob('*.py')
    assert sorted(f'pd_{path.name}' for path in upstream) == [path.name for path in UPSTREAM]
    assert len(UPSTREAM) == 7


@pytest.mark.parametrize('strength', [1.0, 0.25])
def test_output_is_generator_output_with_pd(strength):
    model = tiny_model(pd_head=dict(strength=strength)).eval()
    lr = (lr_batch() - 127.5) / 127.5
    raw = model.generator(lr)
    expected = raw + strength * F.interpolate(lr - F.avg_pool2d(raw, 4), scale_factor=4)
    torch.testing.assert_close(model(lr), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.forward_raw(lr), raw)


def test_training_gradient_has_no_range_space_part():
    model = tiny_model()
    lr = (lr_batch() - 127.5) / 127.5
    raw = model.forward_raw(lr).detach().requires_grad_()
    model.pd_head(raw, lr).square().sum().backward()
    assert F.avg_pool2d(raw.grad, 4).abs().max() < 1e-4 * raw.grad.abs().max()
    assert raw.grad.abs().max() > 0


def test_predictions_are_8_bit_and_exactly_consistent():
    model, lr = tiny_model(), lr_batch()
    for sample, image in zip(predict(model, lr), lr, strict=True):
        saved, pred = sample.output.pred_img, sample.output.pred_float
        assert torch.equal(saved, saved.round()) and saved.min() >= 0 and saved.max() <= 255
        source = sample.input
        assert torch.equal(F.avg_pool2d(saved.double()[None], 4)[0], source.double())
        assert (F.avg_pool2d(pred[None], 4)[0] - source).abs().max() < 1e-3
        assert torch.equal(source, image)


@pytest.mark.parametrize('quantize', ['consistent', 'clip', 'none'])
def test_quantize_option_changes_the_prediction(quantize):
    lr = lr_batch()
    model = tiny_model(test_cfg=dict(quantize=quantize))
    output = predict(model, lr)[0].output
    clipped = output.pred_float.clamp(0, 255)
    expected = dict(consistent=None, clip=clipped.round(), none=clipped)[quantize]
    if expected is None:
        assert not torch.equal(output.pred_img, clipped.round())
    else:
        assert torch.equal(output.pred_img, expected)


def test_values_far_outside_the_range_are_kept_until_they_are_rounded():
    model, lr = tiny_model(test_cfg=dict(quantize='none')), lr_batch(1)
    raw = 3 * torch.randn(1, 3, 32, 32)
    result = model.finish(raw, lr / 127.5 - 1)
    expected = model.pd_head(raw, lr / 127.5 - 1) * 127.5 + 127.5
    assert expected.min() < -300 and expected.max() > 500
    torch.testing.assert_close(result.pred_float, expected, rtol=0, atol=1e-2)
    torch.testing.assert_close(result.pred_img, expected.clamp(0, 255), rtol=0, atol=1e-2)
    assert model.round_pixels(expected, lr).min() == 0
    assert tiny_model().round_pixels(expected, lr).dtype == torch.float32
    pooled = F.avg_pool2d(tiny_model().round_pixels(expected, lr).double(), 4)
    assert torch.equal(pooled, lr.double())


@pytest.mark.parametrize('beyond, whole', [((-1., 255.), True), ((0., 256.), True),
                                           ((-0.4, 255.4), False)])
def test_an_lr_of_sums_is_handed_on_whole(beyond, whole):
    """Consistency is measured against it, and MMagic would clip it."""
    lr = lr_batch(2)
    lr[1, 0, 0, :2] = torch.tensor(beyond)
    samples = predict(tiny_model(), lr)
    for sample, given in zip(samples, lr, strict=True):
        wanted = given if whole else given.clamp(0, 255)
        torch.testing.assert_close(sample.input, wanted, rtol=0, atol=1e-3)


def normalised_by(preprocessor):
    model = tiny_model(data_preprocessor=preprocessor)
    return model.pd_head.mean, model.pd_head.std


def test_the_head_undoes_the_normalisation_of_the_model():
    kind = dict(type='DataPreprocessor')
    assert normalised_by(dict(kind, mean=[1.] * 3, std=[2.] * 3)) == ([1], [2])
    assert normalised_by(kind) == ([127.5], [127.5])  # MMagic's defaults
    for preprocessor in (dict(kind, mean=None, std=None), None):
        assert normalised_by(preprocessor) == ([0], [1])
    for cfg in (dict(kind, mean=[1., 2, 3], std=[4.] * 3), dict(kind, mean=None, std=None)):
        assert normalised_by(MODELS.build(cfg)) == normalised_by(cfg)


class Sized(torch.nn.Conv2d):
    """A generator that says its sizes."""

    in_size, out_size = 3, 8


def test_sizes_without_an_integer_scale():
    generator = dict(type=Sized, in_channels=3, out_channels=3, kernel_size=1)
    with pytest.raises(ValueError, match='integer scale, but the generator has in_size 3 and out_'):
        tiny_model('PDModel', generator)


class HalfSized(torch.nn.Conv2d):
    """Says one of its sizes only."""

    in_size = 8


def test_one_size_says_nothing_of_the_scale():
    mask = torch.eye(8).tolist()
    model = tiny_model('PDModel', dict(type=HalfSized, in_channels=3, out_channels=3,
                                       kernel_size=1),
                       pd_head=dict(operator=dict(type='Masking', mask=mask)))
    assert model._generator_scale() is None


@pytest.mark.parametrize('kind', ['PDGLEAN', 'PDSRGAN'])
@pytest.mark.parametrize('key', ['train_cfg', 'test_cfg', 'pd_head'])
def test_settings_that_are_no_dict(kind, key):
    generator = None if kind == 'PDGLEAN' else dict(
        type='MSRResNet', in_channels=3, out_channels=3, mid_channels=4, num_blocks=1)
    with pytest.raises(ValueError, match=f'{key}: expected a dict, got 3'):
        tiny_model(kind, generator, **{key: 3})


def test_unknown_quantize_is_refused():
    with pytest.raises(ValueError, match="test_cfg.quantize: expected one of .*got 'floor'"):
        tiny_model(test_cfg=dict(quantize='floor'))


def test_less_strength_is_not_undone_by_rounding():
    lr = lr_batch()
    output = predict(tiny_model(pd_head=dict(strength=0.5)), lr)[0].output
    assert torch.equal(output.pred_img, output.pred_float.clamp(0, 255).round())
    with pytest.raises(ValueError, match="'consistent' would undo pd_head.strength=0.5"):
        tiny_model(pd_head=dict(strength=0.5), test_cfg=dict(quantize='consistent'))


def test_lr_that_is_not_8_bit_is_clipped_and_said_so(monkeypatch):
    said = []
    monkeypatch.setattr(pd_mixin, 'print_log', lambda text, **kwargs: said.append(text))
    model = tiny_model()
    for _ in range(3):
        output = predict(model, lr_batch() / 2 + 0.25)[0].output
        assert torch.equal(output.pred_img, output.pred_float.clamp(0, 255).round())
    assert len(said) == 1 and 'not an 8-bit image' in said[0]


@pytest.mark.parametrize('extreme', [-1, 256])
def test_an_lr_that_leaves_the_range_is_not_8_bit(extreme):
    lr = lr_batch()
    lr[0, 0, 0, 0] = extreme
    assert 'lr_unmatched' not in predict(tiny_model(), lr)[0].output
    lr[0, 0, 0, 0] = min(max(extreme, 0), 255)
    assert predict(tiny_model(), lr)[0].output.lr_unmatched == 0


def test_keep_raw_gives_the_raw_prediction():
    lr = lr_batch()
    model = tiny_model(test_cfg=dict(keep_raw=True))
    output = predict(model, lr)[0].output
    assert output.raw_pred.shape == output.pred_img.shape
    with torch.no_grad():
        raw = model.forward_raw(lr / 127.5 - 1)[0] * 127.5 + 127.5
    torch.testing.assert_close(output.raw_pred, raw, rtol=0, atol=1e-3)
    assert 'raw_pred' not in predict(tiny_model(), lr)[0].output


def test_operator_in_the_config_is_used():
    lr = (lr_batch() - 127.5) / 127.5
    head = dict(operator=dict(type='SeparableResize', kernel='bicubic', scale=4, antialias=True))
    output = tiny_model(pd_head=head)(lr)
    down = F.interpolate(output, scale_factor=0.25, mode='bicubic', antialias=True)
    torch.testing.assert_close(down, lr, rtol=0, atol=1e-4)
    assert (F.avg_pool2d(output, 4) - lr).abs().max() > 1e-3


def test_scale_that_does_not_fit_the_generator_is_refused():
    with pytest.raises(ValueError, match=r'expected scale 4.*GLEANNet.*scale=2'):
        tiny_model(pd_head=dict(operator=dict(type='AveragePooling', scale=2)))


@pytest.mark.parametrize('order', ['RGB', 'BGR'])
@pytest.mark.parametrize('quantize', ['consistent', 'clip', 'none'])
def test_a_mask_per_channel_keeps_its_channels_in_the_saved_image(order, quantize):
    """A is applied in the network's order of channels, whatever the order of the saved image."""
    mask = torch.zeros(3, 8, 8)
    mask[0], mask[1, ::2] = 1, 1  # all of the first channel is known, nothing of the third
    generator = dict(type='Conv2d', in_channels=3, out_channels=3, kernel_size=3, padding=1)
    model = tiny_model('PDModel', generator, base='BaseEditModel',
                       pd_head=dict(operator=dict(type='Masking', mask=mask.tolist())),
                       test_cfg=dict(quantize=quantize))
    y = lr_batch(1) * mask
    samples = [DataSample(metainfo=dict(img_channel_order=order), gt_img=torch.zeros(3, 8, 8))]
    with torch.no_grad():
        data = model.data_preprocessor(dict(inputs=list(y), data_samples=samples))
        raw = model.eval().forward_raw(data['inputs'])
        sample, = model(data['inputs'], data['data_samples'], mode='predict')
    raw = (raw[0] * 127.5 + 127.5)
    saved = sample.output.pred_img if order == 'BGR' else sample.output.pred_img.flip(0)
    known = mask.bool()
    assert (saved[known] - y[0][known]).abs().max() < (1e-3 if quantize == 'none' else 1e-9)
    assert (saved[~known] - raw[~known].clamp(0, 255)).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize('output_order, gt_order, network', [
    ('RGB', None, 'RGB'), ('BGR', 'RGB', 'BGR'), (None, 'RGB', 'RGB'), (None, None, 'BGR')])
def test_grey_is_coloured_in_the_order_of_saved_images(output_order, gt_order, network):
    """MMagic takes the order of the output for that of the input, which is none."""
    weights = dict(RGB=(0.299, 0.587, 0.114), BGR=(0.114, 0.587, 0.299))[network]
    operator = dict(type='Grayscale', weights=weights)
    generator = dict(type='Conv2d', in_channels=1, out_channels=3, kernel_size=3, padding=1)
    model = tiny_model(
        'PDModel', generator, base='BaseEditModel', pd_head=dict(operator=operator),
        data_preprocessor=dict(type='DataPreprocessor', output_channel_order=output_order))
    y = lr_batch(2)[:, :1]
    meta = dict(img_color_type='grayscale', **(
        dict(gt_channel_order=gt_order) if gt_order else {}))
    samples = [DataSample(metainfo=meta, gt_img=torch.zeros(3, 8, 8)) for _ in y]
    with torch.no_grad():
        data = model.data_preprocessor(dict(inputs=list(y), data_samples=samples))
        found = model.eval()(data['inputs'], data['data_samples'], mode='predict')
    metric = LRConsistency(operator=operator)
    metric.process(None, [sample.to_dict() for sample in found])
    for sample, lr, row in zip(found, y, metric.results, strict=True):
        blue, green, red = sample.output.pred_img  # as MMagic writes it
        grey = 0.299 * red + 0.587 * green + 0.114 * blue
        assert torch.equal(grey.round()[None], lr) and sample.output.lr_unmatched == 0
        assert row['PSNR_LR'] > 100 and row['PSNR_LR_8bit_rounded'] == 200


def test_the_library_that_made_the_lr_gives_it_back():
    head = dict(operator=dict(type='SeparableResize', kernel='bicubic'))
    smooth = F.interpolate(lr_batch(2, 8), scale_factor=4, mode='bicubic').clamp(0, 255).round()
    library = LibraryResize(SeparableResize(4), 'pil')
    lr = library(smooth.byte()).float()
    wrong = []
    for made_by in ('pil', None):
        model = tiny_model(pd_head=head, test_cfg=dict(made_by=made_by))
        found = predict(model, lr)
        images = torch.stack([sample.output.pred_img for sample in found]).byte()
        wrong.append((library(images) != lr).flatten(1).sum(1).tolist())
        counted = [int(sample.output.lr_unmatched) for sample in found]
        if made_by:
            assert counted == wrong[0]
    assert sum(wrong[0]) < sum(wrong[1])


def test_lr_values_that_are_not_given_back_are_counted_by_the_metric():
    """A checkerboard is beyond bicubic; the other image is not."""
    checkerboard = ((torch.arange(8)[:, None] + torch.arange(8)) % 2 * 255.).expand(3, 8, 8)
    model = tiny_model(pd_head=dict(operator=dict(type='SeparableResize', kernel='bicubic')))
    found = predict(model, torch.stack([checkerboard, torch.full((3, 8, 8), 77.)]))
    counts = [int(sample.output.lr_unmatched) for sample in found]
    saved = torch.stack([sample.output.pred_img for sample in found]).double()
    down = SeparableResize(4).A(saved)
    wrong = ((down.clamp(0, 255) - torch.stack([s.input for s in found])).abs() > 0.5)
    assert counts == wrong.flatten(1).sum(1).tolist() and counts[0] > 0 == counts[1]
    metric = LRConsistency(operator=dict(type='SeparableResize', kernel='bicubic'))
    metric.process(None, [sample.to_dict() for sample in found])
    assert metric.compute_metrics(metric.results)['Unmatched_LR_8bit'] == counts[0]
    clipped = predict(tiny_model(test_cfg=dict(quantize='clip')), lr_batch())
    assert 'lr_unmatched' not in clipped[0].output


@pytest.mark.parametrize('test_cfg, message', [
    (dict(made_by='gimp'), "made_by: expected one of float, pil.*got 'gimp'"),
    (dict(made_by='opencv'), "made_by='opencv' has no SeparableResize"),
    (dict(made_by='pil', quantize='clip'), "made_by='pil' is for .*'consistent', not 'clip'")])
def test_a_library_that_cannot_be_is_refused_when_built(test_cfg, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(pd_head=dict(operator=dict(type='SeparableResize')), test_cfg=test_cfg)
