"""PDHead: what it adds to the operators (range, precision, options, no state)."""
import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from mmagic.registry import MODELS
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmpd.models.heads import PDHead, pd_head
from mmpd.operators import (
    AveragePooling,
    BlockCompressedSensing,
    Grayscale,
    Masking,
    SeparableResize,
    consistent_uint8,
    replace_range,
)
from mmpd.operators.base import DeferredCheck


def batch(operator, size=16, seed=0, dtype=torch.float32):
    """A raw prediction and a measurement of another image, both normalised to [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    raw, truth = torch.rand(2, 2, 3, size, size, generator=generator, dtype=torch.float64)
    return (raw * 2 - 1).to(dtype), (operator.A(truth) * 2 - 1).to(dtype), truth


OPERATORS = [AveragePooling(4), SeparableResize(4), Grayscale(), Grayscale((0.2, 0.2, 0.2)),
             BlockCompressedSensing(0.25, 4), Masking(torch.eye(16))]


@pytest.mark.parametrize('operator', OPERATORS, ids=lambda op: type(op).__name__)
def test_output_is_consistent_whatever_the_range(operator):
    """The measurement belongs to images in [0, 1], normalised like an image."""
    raw, lr, truth = batch(operator)
    result = PDHead(operator)(raw, lr)
    torch.testing.assert_close(operator.A((result.double() + 1) / 2), operator.A(truth),
                               rtol=0, atol=1e-5)
    # minus its range-space part the output is the raw prediction
    null = [image - operator.A_dagger(operator.A(image)) for image in
            ((result.double() + 1) / 2, (raw.double() + 1) / 2)]
    torch.testing.assert_close(*null, rtol=0, atol=1e-5)


def test_applied_in_the_wrong_range_it_would_not_be():
    """Why unit_range exists: A(2x - 1) is not 2 A x - 1 for sensing matrices."""
    operator = BlockCompressedSensing(0.25, 4)
    raw, lr, truth = batch(operator)
    wrong = operator.project(raw, lr)
    assert (operator.A((wrong.double() + 1) / 2) - operator.A(truth)).abs().max() > 0.1


def test_default_is_average_pooling_with_the_scale_of_the_input():
    for scale in (2, 8):
        raw, lr, _ = batch(AveragePooling(scale))
        torch.testing.assert_close(PDHead()(raw, lr), AveragePooling(scale).project(raw, lr))
    with pytest.raises(ValueError, match='16x16'):
        PDHead()(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 5, 5))


@pytest.mark.parametrize('kind', ['AveragePooling', 'SeparableResize'])
@pytest.mark.parametrize('scale', [dict(), dict(scale=None)], ids=['left out', 'None'])
def test_the_scale_of_any_config_may_be_left_to_the_sizes(kind, scale):
    head = PDHead(dict(type=kind, **scale))
    before = copy.deepcopy(head.__dict__)
    for size in (2, 8):
        raw, lr, _ = batch(AveragePooling(size))
        expected = PDHead(dict(type=kind, scale=size))(raw, lr)
        assert torch.equal(head(raw, lr), expected)
        assert head.operator_for(raw, lr).scale == size
    assert head.__dict__ == before and head.operator is None and kind in repr(head)


def test_by_config_through_the_registry():
    head = MODELS.build(dict(type='PDHead', operator=dict(type='SeparableResize', scale=4,
                                                          kernel='lanczos')))
    assert head.operator.kernel == 'lanczos'
    raw, lr, _ = batch(AveragePooling(4))
    assert not torch.allclose(head(raw, lr), PDHead()(raw, lr), atol=1e-2)


@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16, torch.float32))
def test_result_is_float32(dtype):
    raw, lr, _ = batch(AveragePooling(4), dtype=dtype)
    result = PDHead(dict(type='AveragePooling', scale=4))(raw, lr)
    assert result.dtype == torch.float32
    error = AveragePooling(4).A(result.double()) - lr.double()
    assert error.abs().max() < 1e-6  # the float32 result keeps what half precision would round off


def test_float64_stays():
    raw, lr, _ = batch(AveragePooling(4), dtype=torch.float64)
    assert PDHead()(raw, lr).dtype == torch.float64
    assert PDHead()(raw.float(), lr).dtype == torch.float64


@pytest.mark.parametrize('operator', [AveragePooling(4), SeparableResize(4)], ids=str)
def test_autocast_and_half_models_change_nothing(operator):
    raw, lr, _ = batch(operator)
    head = PDHead(operator)
    expected = head(raw, lr)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(head(raw, lr), expected)
    assert torch.equal(copy.deepcopy(head).half()(raw, lr), expected)
    assert torch.equal(copy.deepcopy(head).double()(raw, lr), expected)


@pytest.mark.parametrize('operator', OPERATORS, ids=lambda op: type(op).__name__)
def test_strength(operator):
    raw, lr, _ = batch(operator)
    full, none = PDHead(operator)(raw, lr), PDHead(operator, strength=0)(raw, lr)
    torch.testing.assert_close(none, raw, rtol=0, atol=1e-6)
    torch.testing.assert_close(PDHead(operator, strength=0.3)(raw, lr), raw + 0.3 * (full - raw),
                               rtol=0, atol=1e-5)


def test_mean_and_std_matter_for_unit_range_only():
    raw, lr, _ = batch(Grayscale((0.2, 0.2, 0.2)))
    ranges = dict(mean=127.5, std=127.5), dict(mean=0.0, std=255.0)
    sums, means = ([PDHead(operator, **r)(raw, lr) for r in ranges]
                   for operator in (Grayscale((0.2, 0.2, 0.2)), Grayscale()))
    assert not torch.allclose(*sums, atol=1e-3)
    assert torch.equal(*means)


def test_mean_and_std_per_channel():
    """A mask hides pixels at 0, whatever each channel is normalised with."""
    mean, std = torch.tensor([120.0, 100.0, 80.0]), torch.tensor([60.0, 50.0, 40.0])
    operator = Masking(torch.eye(16))
    generator = torch.Generator().manual_seed(0)
    raw, truth = torch.rand(2, 1, 3, 16, 16, generator=generator)

    def normalise(image):
        return (image * 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)

    head = PDHead(operator, mean=mean.tolist(), std=std.tolist())
    result = head(normalise(raw), normalise(operator.A(truth)))
    expected = normalise(operator.project(raw, operator.A(truth)))
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match='same mean and std'):
        PDHead(BlockCompressedSensing(0.25, 4), mean=mean.tolist())(raw, torch.zeros(1, 12, 4, 4))


NORMALISATIONS = [dict(), dict(mean=0.0, std=255.0), dict(mean=0.0, std=1.0),
                  dict(mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))]


@pytest.mark.parametrize('normalisation', NORMALISATIONS, ids=str)
@pytest.mark.parametrize('operator', [AveragePooling(4), SeparableResize(4),
                                      Grayscale((0.2, 0.2, 0.2))], ids=str)
def test_noise_and_bounds_are_in_grey_levels(operator, normalisation):
    """Whatever the images are normalised with."""
    generator = torch.Generator().manual_seed(0)
    raw, truth = torch.rand(2, 2, 3, 16, 16, generator=generator, dtype=torch.float64) * 255
    raw = (raw - 128) * 1.2 + 128
    lr = operator.A(truth)
    mean, std = (torch.tensor(normalisation.get(key, 127.5), dtype=torch.float64).view(1, -1, 1, 1)
                 for key in ('mean', 'std'))
    if lr.shape[1] == 1 and mean.numel() > 1:
        pytest.skip('one grey value cannot be normalised for three channels')
    for options in (dict(noise_std=20), dict(bounds=(0, 255)), dict(bounds=(16, 235), strength=0.5),
                    dict(noise_std=20, bounds=(0, 255))):
        head = PDHead(operator, **options, **normalisation)
        result = head((raw - mean) / std, (lr - mean) / std) * std + mean
        expected = replace_range(raw, lr, operator, **options)
        torch.testing.assert_close(result, expected, rtol=0, atol=0.03)  # of the iteration
        if 'bounds' in options:
            low, high = options['bounds']
            assert low - 1e-9 < result.min() and result.max() < high + 1e-9
        else:
            torch.testing.assert_close(result, expected, rtol=0, atol=1e-9)
    for text in ('by noise_std 20', 'within [0, 255]'):
        assert text in repr(head)


def test_bounds_in_training():
    """Nothing is left to clip, and what a bound holds learns nothing."""
    raw, lr, _ = batch(AveragePooling(4))
    raw = (raw * 2).requires_grad_()
    result = PDHead(bounds=(0, 255)).train()(raw, lr)
    assert result.abs().max() <= 1 and (PDHead()(raw, lr).abs() > 1).any()
    torch.testing.assert_close(AveragePooling(4).A(result), lr, rtol=0, atol=1e-6)
    result.square().sum().backward()
    held = result.abs() == 1
    assert held.any() and not raw.grad[held].any() and raw.grad[~held].abs().sum() > 0
    with pytest.raises(ValueError, match='bounds: with SeparableResize.* are for inference'):
        PDHead(SeparableResize(4), bounds=(0, 255)).train()(raw, lr)


def test_an_lr_outside_the_bounds_is_refused():
    raw, lr, _ = batch(AveragePooling(4))
    with pytest.raises(ValueError, match='bounds: expected a range that holds the LR'):
        PDHead(bounds=(0, 1))(raw, lr)


def test_checkpoints_do_not_change():
    head = PDHead(dict(type='SeparableResize', scale=4))
    assert not head.state_dict() and not list(head.parameters())
    net = nn.Sequential(nn.Conv2d(3, 3, 1))
    keys = set(net.state_dict())
    net.add_module('pd_head', head)
    assert set(net.state_dict()) == keys


def test_gradient_reaches_the_network_and_the_lr():
    raw, lr, _ = batch(AveragePooling(4))
    raw.requires_grad_(), lr.requires_grad_()
    PDHead()(raw, lr).square().sum().backward()
    assert raw.grad.abs().sum() > 0 and lr.grad.abs().sum() > 0
    # nothing can be learnt in the range space: that part is the LR's
    torch.testing.assert_close(AveragePooling(4).A(raw.grad), torch.zeros_like(lr),
                               rtol=0, atol=1e-5)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('culprit', ['image', 'measurement'])
def test_nan_is_refused(training, culprit):
    raw, lr, _ = batch(AveragePooling(4))
    (raw if culprit == 'image' else lr)[0, 0, 0, 0] = float('inf')
    with pytest.raises(ValueError, match=f'{culprit}: expected finite values, got 1 NaN or inf'):
        PDHead().train(training)(raw, lr)


def test_overflow_in_mixed_precision_training_is_left_to_the_scaler():
    raw, lr, _ = batch(AveragePooling(4))
    raw[0, 0, 0, 0] = float('inf')
    assert not torch.isfinite(PDHead().train()(raw.half(), lr)).all()
    with pytest.raises(ValueError, match='image: expected finite values'):
        PDHead().eval()(raw.half(), lr)


@pytest.mark.parametrize('arguments, message', [
    (dict(strength=1.5), r'strength: expected a number in \[0, 1\], got 1.5'),
    (dict(strength=-0.1), 'strength'),
    (dict(strength=float('nan')), 'strength'),
    (dict(strength='0.5'), "strength: expected a number in .*, got '0.5'"),
    (dict(noise_std=-1), r'noise_std: expected a number in \[0, 255\], got -1'),
    (dict(noise_std=5, strength=0.5), 'strength: expected 1 beside noise_std=5'),
    (dict(bounds=(-1, 1)), r'bounds: expected a number in \[0, 255\], got -1'),
    (dict(bounds=(255, 0)), 'bounds: expected the lower bound first'),
    (dict(bounds=255), 'bounds: expected a sequence of 2 values, got 255'),
    (dict(std=0), 'std'),
    (dict(std=(1., float('nan'), 1.)), 'std'),
    (dict(operator=dict(type='Nothing')), "unknown type 'Nothing'"),
    (dict(operator='AveragePooling'), 'expected a dict'),
])
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        PDHead(**arguments)


@pytest.mark.parametrize('raw, lr, message', [
    (torch.zeros(1, 3, 8, 8).byte(), torch.zeros(1, 3, 2, 2), 'raw: expected a floating.*uint8'),
    (torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 2, 2).long(), 'lr: expected a floating.*int64'),
    (torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 4, 4), r'\(1, 3, 2, 2\).*got \(1, 3, 4, 4\)'),
    (torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 2, 2), r'got \(1, 1, 2, 2\)'),
    (torch.zeros(2, 3, 8, 8), torch.zeros(1, 3, 2, 2), r'\(2, 3, 2, 2\)'),
    (torch.zeros(1, 3, 8, 8).numpy(), torch.zeros(1, 3, 2, 2), 'raw: expected a torch.Tensor'),
    (torch.zeros(1, 3, 8, 8), None, 'lr: expected a floating point tensor, got NoneType'),
    (torch.zeros(3, 8, 8), torch.zeros(3, 2, 2), r'raw: expected shape \(N, C, H, W\)'),
])
def test_refuses_bad_input(raw, lr, message):
    with pytest.raises(ValueError, match=message):
        PDHead(AveragePooling(4))(raw, lr)


def test_an_empty_lr_is_refused_where_the_scale_is_inferred():
    with pytest.raises(ValueError, match='the scale cannot be inferred.*0x0'):
        PDHead()(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 0, 0))


def test_a_cast_of_the_model_does_not_shorten_the_normalisation():
    options = dict(operator=Grayscale((0.5, 0.5, 0.5)), mean=123.675, std=58.395)
    raw, lr, _ = batch(AveragePooling(1))
    lr = lr[:, :1]
    assert torch.equal(PDHead(**options).half()(raw, lr), PDHead(**options)(raw, lr))


def test_shapes_without_data():
    raw, lr, _ = batch(AveragePooling(4))
    result = PDHead()(raw.to('meta'), lr.to('meta'))
    assert result.is_meta and result.shape == raw.shape


def test_shapes_without_data_leave_the_head_as_it_was():
    head = PDHead(dict(type=Foreign, scale=None))
    raw, lr, _ = batch(AveragePooling(4))
    assert head(raw.to('meta'), lr.to('meta')).is_meta
    torch.testing.assert_close(head(raw, lr), PDHead()(raw, lr))
    with torch.device('meta'):
        raw_meta = torch.zeros(1, 3, 85, 85)
        assert PDHead(dict(type='SeparableResize'))(raw_meta, torch.zeros(1, 3, 5, 5)).is_meta
    raw, lr, _ = batch(AveragePooling(17), size=85)
    assert torch.isfinite(PDHead(dict(type='SeparableResize'))(raw, lr)).all()


class Foreign(nn.Module):
    """Like deepinv's: a persistent buffer and a parameter that are not the head's business."""

    def __init__(self, scale, gain=1.0):
        super().__init__()
        self.scale = scale
        self.register_buffer('filter', torch.full((1, 1, scale, scale), gain / scale**2))
        self.weight = nn.Parameter(torch.ones(1))

    def A(self, x):
        filters = self.filter.expand(x.shape[1], 1, -1, -1)
        return nn.functional.conv2d(x, filters, stride=self.scale, groups=x.shape[1])

    def A_dagger(self, y):
        gain = self.filter.sum()
        return nn.functional.interpolate(y, scale_factor=self.scale) / gain


def test_a_foreign_operator_is_left_as_it_is():
    operator = Foreign(4)
    keys = list(operator.state_dict())
    head = PDHead(operator)
    raw, lr, _ = batch(AveragePooling(4))
    head(raw, lr)
    assert list(operator.state_dict()) == keys == ['weight', 'filter']
    assert operator.weight.requires_grad and head.operator is operator
    assert not head.state_dict() and not list(head.parameters()) and not list(head.buffers())
    net = nn.Sequential(nn.Conv2d(3, 3, 1), head)
    assert net.load_state_dict(net.state_dict(), strict=True)
    assert set(net.state_dict()) == {'0.weight', '0.bias'}
    head.operator = other = Foreign(2)  # another one is held in the same way
    assert head.operator is other and not head.state_dict()


def test_the_operator_moves_with_the_head():
    for head in (PDHead(Foreign(4)), PDHead(Masking(torch.eye(16)))):
        nn.Sequential(head).to('meta')
        buffers = list(head.operator.buffers())
        assert buffers and all(buffer.is_meta for buffer in buffers)
    head = nn.Sequential(PDHead(Foreign(4))).double()[0]
    assert head.operator.filter.dtype == torch.float64


def test_copies_have_an_operator_of_their_own_and_two_heads_may_share_one():
    operator = Foreign(4)
    one, two = PDHead(operator), PDHead(operator, strength=0.5)
    raw, lr, _ = batch(AveragePooling(4))
    expected = one(raw, lr)
    for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert torch.equal(other(raw, lr), expected)
        assert other.operator is not operator
        assert torch.equal(other.operator.filter, operator.filter)
    torch.testing.assert_close(two(raw, lr), raw + (expected - raw) / 2, rtol=0, atol=1e-6)
    assert one.operator is two.operator is operator


def test_the_range_is_found_out_for_each_scale():
    """A sum over patches keeps constants for a scale of 1 only."""
    class Sum(Foreign):
        def __init__(self, scale):
            super().__init__(scale, gain=scale**2)

    head = PDHead(dict(type=Sum))
    for scale in (1, 4):
        raw, truth = torch.rand(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        y = Sum(scale).A(truth)
        result = head(raw * 2 - 1, y * 2 - 1)
        torch.testing.assert_close(Sum(scale).A((result + 1) / 2), y, rtol=0, atol=1e-4)


@pytest.mark.parametrize('gain, undone', ((1 + 2.4e-5, True), (1 - 1e-5, True), (1 + 4e-7, False)))
def test_the_range_is_decided_by_the_precision_of_the_dtype(gain, undone):
    """deepinv's Decolorize maps 1 to 1 + 2.4e-5: a hundred times a rounding error."""
    operator = Foreign(4, gain=gain)
    raw, truth = torch.rand(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    y = operator.A(truth)
    head = PDHead(operator)
    result = (head(raw * 2 - 1, y * 2 - 1) + 1) / 2
    assert list(head._unit_range.values()) == [undone]
    assert (operator.A(result) - y).abs().max() < 1e-6


@pytest.mark.parametrize('size', (16, 256))
@pytest.mark.parametrize('dtype', (torch.float32, torch.float64))
def test_a_training_step_does_not_wait_for_its_gpu(monkeypatch, size, dtype):
    """Counted on the CPU, as if it were one: values that Python looks at."""
    class Looks(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            Looks.count += func.overloadpacket.__name__ in (
                '_local_scalar_dense', 'is_nonzero', 'nonzero', 'item')
            return func(*args, **(kwargs or {}))

    monkeypatch.setattr(pd_head, 'reading_waits', lambda tensor: True)
    monkeypatch.setattr(pd_head, 'deferred_check', DeferredCheck())
    raw, lr = torch.rand(1, 3, size, size, dtype=dtype), torch.rand(1, 3, size // 4, size // 4)
    head = PDHead(dict(type='AveragePooling', scale=4)).train()
    with Looks():
        for _ in range(3):
            head(raw.clone().requires_grad_(), lr.to(dtype)).sum().backward()
    assert Looks.count == 0
    raw[0, 0, 0, 0] = float('nan')
    head(raw, lr.to(dtype))
    with pytest.raises(ValueError, match='earlier batch'):  # told, but later
        head(raw, lr.to(dtype))
    with pytest.raises(ValueError, match='image: expected finite values, got 1'):
        head.eval()(raw, lr.to(dtype))


def test_deepinv_decolorize_is_consistent_up_to_rounding(physics):
    operator = physics.Decolorize()
    raw, truth = torch.rand(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    y = operator.A(truth)
    result = (PDHead(operator)(raw * 2 - 1, y * 2 - 1) + 1) / 2
    error = (operator.A(result).double() - y).square().mean()
    assert -10 * error.log10() > 130  # dB; 98 where the range is not undone


def test_threads_with_images_of_different_sizes():
    head, cases = PDHead(), [batch(AveragePooling(s), seed=s)[:2] for s in (1, 2, 4, 8)]
    expected = [PDHead(AveragePooling(s))(*case) for s, case in zip((1, 2, 4, 8), cases,
                                                                    strict=True)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            for ours, want in zip(pool.map(lambda case: head(*case), cases), expected,
                                  strict=True):
                assert torch.equal(ours, want)


@pytest.fixture(scope='module')
def physics():
    return pytest.importorskip('deepinv').physics


def downsampling(physics):
    return physics.Downsampling(img_size=(3, 16, 16), factor=4, filter='bicubic',
                                padding='circular')


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_deepinv_operator(physics, dtype):
    operator = downsampling(physics)  # its filter is float32
    generator = torch.Generator().manual_seed(0)
    raw, truth = torch.rand(2, 1, 3, 16, 16, generator=generator) * 2 - 1
    lr = operator.A(truth)
    result = PDHead(operator)(raw.to(dtype), lr.to(dtype))
    assert result.dtype == dtype
    error = operator.A(result.float()) - lr
    assert error.norm() < 1e-3 * (operator.A(raw) - lr).norm()


def test_deepinv_operator_leaves_checkpoints_alone(physics):
    head = PDHead(downsampling(physics))
    assert not head.state_dict() and head.operator.state_dict()


def test_deepinv_operator_that_changes_constants_is_applied_in_0_1(physics):
    operator = physics.CompressedSensing(m=40, img_size=(3, 8, 8))
    generator = torch.Generator().manual_seed(0)
    raw, truth = torch.rand(2, 1, 3, 8, 8, generator=generator)
    measured = operator.A(truth)
    result = PDHead(operator)(raw * 2 - 1, measured * 2 - 1)  # normalised like an image
    error = operator.A((result + 1) / 2) - measured
    assert error.norm() < 1e-3 * (operator.A(raw) - measured).norm()


def test_deepinv_operator_rounds_to_8_bits(physics):
    operator = downsampling(physics)
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 255
    lr = operator.A(image).round().clamp(0, 255)
    result, unmatched = consistent_uint8(image, lr, operator, return_unmatched=True)
    assert unmatched == int(((operator.A(result.float()) - lr).abs() > 0.5 - 1e-6).sum())
    assert unmatched < lr.numel() / 2
