"""Operators by name, foreign operators, and the equations of the paper with any of them."""
import pytest
import torch
import torch.nn.functional as F

import mmpd.operators as package
from mmpd.operators import (
    OPERATORS,
    AveragePooling,
    BlockCompressedSensing,
    Compose,
    Grayscale,
    Masking,
    SeparableResize,
    build_operator,
    decompose,
    replace_range,
)
from mmpd.operators.decomposition import apply, apply_to_any

CONFIGS = {
    'AveragePooling': dict(scale=2),
    'BlockCompressedSensing': dict(ratio=0.5, block=4),
    'CEM': dict(scale=2),
    'Compose': dict(operators=[dict(type='Grayscale'), dict(type='AveragePooling', scale=2)]),
    'Grayscale': dict(),
    'Masking': dict(mask=[[1, 0] * 4] * 8),
    'SeparableResize': dict(scale=2, kernel='lanczos'),
}


def test_public_surface():
    assert sorted(package.__all__) == sorted(set(package.__all__))
    for name in package.__all__:
        assert hasattr(package, name)
    assert set(OPERATORS.module_dict) == set(CONFIGS)
    assert set(CONFIGS) <= set(package.__all__)


@pytest.mark.parametrize('name', CONFIGS)
def test_build_by_name_and_class(name):
    operator = build_operator(dict(type=name, **CONFIGS[name]))
    assert type(operator) is OPERATORS.module_dict[name]
    same = build_operator(dict(type=type(operator), **CONFIGS[name]))
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(operator.A(x), same.A(x))


def test_defaults_fill_in_and_do_not_overrule():
    assert build_operator(dict(type='AveragePooling'), scale=4).scale == 4
    assert build_operator(dict(type='AveragePooling', scale=2), scale=4).scale == 2


def test_config_is_not_changed():
    cfg = dict(type='AveragePooling', scale=2)
    build_operator(cfg)
    assert cfg == dict(type='AveragePooling', scale=2)


@pytest.mark.parametrize('cfg, message', [
    (dict(type='Bicubic'), r"unknown type 'Bicubic', expected one of Average.*Resize"),
    (dict(scale=2), 'unknown type None'),
    (dict(type='AveragePooling'), "AveragePooling: .*missing .*'scale'"),
    (dict(type='AveragePooling', scale=2, size=3), "AveragePooling: .*'size'"),
    ('AveragePooling', "expected a dict .* got 'AveragePooling'"),
    (AveragePooling, 'expected a dict'),
    (torch.nn.Identity(), 'expected a dict'),
])
def test_refuses(cfg, message):
    with pytest.raises(ValueError, match=message):
        build_operator(cfg)


def test_objects_pass_through():
    operator = AveragePooling(2)
    assert build_operator(operator) is operator


@pytest.mark.parametrize('name', [n for n in CONFIGS if n != 'CEM'])
def test_equations_2_6_and_7(name):
    operator = build_operator(dict(type=name, **CONFIGS[name]))
    generator = torch.Generator().manual_seed(0)
    truth, raw = torch.randn(2, 2, 3, 8, 8, generator=generator, dtype=torch.float64)
    y = operator.A(truth)
    ranged, null = decompose(truth, operator)
    torch.testing.assert_close(ranged + null, truth)  # Eq. 2
    torch.testing.assert_close(operator.A(ranged), y)  # Eq. 6
    torch.testing.assert_close(operator.A(null), torch.zeros_like(y), rtol=0, atol=1e-12)
    result = replace_range(raw, y, operator)
    expected = operator.A_dagger(y) + decompose(raw, operator)[1]  # Eq. 7
    torch.testing.assert_close(result, expected)
    if operator.is_exact:  # an orthogonal projection never leads away from the truth
        assert (result - truth).norm() <= (raw - truth).norm()


class Foreign:
    """The part of deepinv's interface that is used."""

    def A(self, x):
        return F.avg_pool2d(x, 2)

    def A_dagger(self, y):
        return F.interpolate(y, scale_factor=2)


@pytest.mark.parametrize('dtype', (torch.float32, torch.float64, torch.bfloat16))
def test_foreign_operator(dtype):
    x, y = torch.rand(2, 3, 8, 8).to(dtype), torch.rand(2, 3, 4, 4).to(dtype)
    foreign = build_operator(Foreign())
    for strength in (1.0, 0.25):
        result = replace_range(x, y, foreign, strength)
        assert result.dtype == dtype
        expected = AveragePooling(2).project(x, y, strength)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize('x, y, message', [
    (torch.zeros(1, 3, 8, 8).int(), torch.zeros(1, 3, 4, 4), 'image: expected a floating.*int32'),
    (torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 4, 4).byte(), 'measurement: expected a floating'),
    (torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 4, 5), r'\(1, 3, 4, 4\).*got \(1, 3, 4, 5\)'),
    (torch.full((1, 3, 8, 8), float('nan')), torch.zeros(1, 3, 4, 4), 'image: expected finite'),
    (torch.zeros(1, 3, 8, 8), torch.full((1, 3, 4, 4), float('inf')), 'measurement: expected fin'),
])
def test_foreign_operator_refuses(x, y, message):
    with pytest.raises(ValueError, match=message):
        replace_range(x, y, Foreign())


def test_overflow_is_named_as_such():
    x = torch.full((1, 1, 2, 2), 3e38)
    with pytest.raises(ValueError, match='too large for torch.float32'):
        replace_range(x, torch.full((1, 1, 1, 1), -3e38), AveragePooling(2))


@pytest.mark.parametrize('make', [
    lambda physics: physics.Downsampling(img_size=(3, 16, 16), factor=2, filter='bicubic',
                                         padding='circular'),
    lambda physics: physics.Inpainting(img_size=(3, 16, 16), mask=0.5),
    lambda physics: physics.Decolorize(img_size=(3, 16, 16)),
], ids=('Downsampling', 'Inpainting', 'Decolorize'))
def test_deepinv(make):
    """The real package: its operators go in unchanged."""
    physics = pytest.importorskip('deepinv').physics
    torch.manual_seed(0)
    operator = make(physics)
    assert build_operator(operator) is operator
    truth, raw = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    y = operator.A(truth)
    result = replace_range(raw, y, operator)
    before, after = (operator.A(image) - y for image in (raw, result))
    assert after.norm() < 1e-3 * before.norm()


def test_deepinv_agrees_with_ours():
    """deepinv as an oracle for the operators that both have."""
    physics = pytest.importorskip('deepinv').physics
    x = torch.rand(1, 3, 16, 16)
    theirs = physics.Decolorize(img_size=(3, 16, 16))
    weights = theirs.A(torch.eye(3).view(3, 3, 1, 1)).flatten().tolist()
    ours = Grayscale(weights)
    torch.testing.assert_close(ours.A(x), theirs.A(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.A_adjoint(ours.A(x)), theirs.A_adjoint(theirs.A(x)),
                               rtol=0, atol=1e-6)


@pytest.mark.parametrize('operators, exact, tight', [
    ([Grayscale(), AveragePooling(2)], True, True),
    ([AveragePooling(2), SeparableResize(2)], True, False),
    ([SeparableResize(2), Grayscale()], True, False),
    ([SeparableResize(2), AveragePooling(2)], False, False),
    ([SeparableResize(2), Masking([[1, 0], [1, 1]])], False, False),
    ([BlockCompressedSensing(0.5, 4), BlockCompressedSensing(0.5, 1)], True, True),
    ([SeparableResize(2)], True, False), ([AveragePooling(2), package.CEM(2)], False, False),
])
def test_compose_knows_when_it_is_exact(operators, exact, tight):
    operator = Compose(operators)
    assert (operator.is_exact, operator.tight) == (exact, tight)


def test_compose_scale_gain_and_refusals():
    chain = Compose([AveragePooling(2), SeparableResize(4)])
    assert chain.scale == 8
    assert chain.noise_gain == pytest.approx(2 * SeparableResize(4).noise_gain)
    with pytest.raises(ValueError, match=r'3x3.*\(1, 12, 12\)|12, 12.*3x3'):
        Compose([AveragePooling(4), AveragePooling(2)]).A(torch.zeros(1, 1, 12, 12))
    with pytest.raises(ValueError, match='at least one'):
        Compose([])
    with pytest.raises(ValueError, match='expected mmpd operators, got Foreign'):
        Compose([Foreign()])


@pytest.mark.parametrize('make, message', [
    (lambda: Grayscale((0, 0, 0)), 'weights: expected finite numbers, not all 0'),
    (lambda: Grayscale((1, float('nan'), 1)), 'weights: expected a finite'),
    (lambda: BlockCompressedSensing(0), r'ratio: expected a number in \(0, 1\], got 0'),
    (lambda: BlockCompressedSensing(1.1), 'ratio'),
    (lambda: BlockCompressedSensing(0.5, 0), 'block: expected an integer of at least 1'),
    (lambda: BlockCompressedSensing(0.5, seed=-1), 'seed'),
    (lambda: BlockCompressedSensing(0.5, 4).A_dagger(torch.zeros(1, 9, 2, 2)), 'multiple of 8'),
    (lambda: Masking([[0, 0]]), 'only zeros'),
    (lambda: Masking('x'), "mask: expected a tensor or nested lists .* got 'x'"),
    (lambda: Masking([[1, 0], [1]]), 'mask: expected a tensor or nested lists'),
    (lambda: Masking(torch.ones(1, 1, 2, 2)), r'got \(1, 1, 2, 2\)'),
    (lambda: Masking(torch.ones(0, 2)), r'mask: expected shape .*got \(0, 2\)'),
    (lambda: Masking([[1, 0]]).A(torch.zeros(1, 3, 2, 1)), r'\(1, 1, 2\), got \(3, 2, 1\)'),
    (lambda: Grayscale((1e200, 1e200)), 'weights: expected finite numbers, not all 0'),
    (lambda: Grayscale().A_dagger(torch.zeros(1, 2, 4, 4)), 'expected 1 channel for Gray.*, got 2'),
    (lambda: BlockCompressedSensing(seed=2**63), 'seed: expected an integer of at most 9223372036'),
    (lambda: BlockCompressedSensing(block=2**16 + 1), 'block: .* integer of at most 65536'),
    (lambda: package.CEM(2**16 + 1), 'scale: expected an integer of at most 65536'),
    (lambda: SeparableResize(2**16 + 1), 'scale: expected an integer of at most 65536'),
    (lambda: Compose([dict(type='AveragePooling', scale=0)]), r'operators.*scale: expected'),
    (lambda: Masking([[0.5, 1]]), 'zeros and ones only'),
    (lambda: Masking([1, 0]), r'got \(2,\)'),
    (lambda: package.CEM(8, bound=0), 'bound'),
    (lambda: package.CEM(1), 'scale'),
])
def test_operators_refuse_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize('operator, words', [
    (Masking([[1, 0, 0, 0], [1, 0, 0, 0]]), 'Masking(mask=(1, 2, 4), known=0.250)'),
    (Grayscale((0.29904, 0.587, 0.114)), 'Grayscale(weights=(0.299, 0.587, 0.114))'),
    (BlockCompressedSensing(0.5, 4, 3), 'BlockCompressedSensing(ratio=0.5, block=4, seed=3)'),
    (package.CEM(4), 'CEM(scale=4, bound=0.01, a=-0.5)'),
    (SeparableResize(2, border='mirror'),
     "SeparableResize(scale=2, kernel='bicubic', antialias=True, border='mirror')"),
    (SeparableResize(2, 'box', False), "SeparableResize(scale=2, kernel='box', antialias=False)")])
def test_operators_tell_what_they_are(operator, words):
    assert repr(operator) == words


@pytest.mark.parametrize('total, unit_range', [(1, False), (1 + 5e-7, False), (1 - 5e-7, False),
                                               (1 + 2e-6, True), (1 - 2e-6, True), (-1, True)])
def test_grey_of_a_constant(total, unit_range):
    assert Grayscale((0.25, total - 0.25)).unit_range == unit_range


def test_a_chain_is_what_its_parts_are():
    chain = Compose([Grayscale((1.0, 2.0)), AveragePooling(2), SeparableResize(3)])
    assert chain.unit_range and not Compose([AveragePooling(2)]).unit_range
    assert chain.scale == 6 and chain.axes == {'channel', 'space'}
    assert chain.products == ('matmul', )
    assert Compose([Grayscale(), AveragePooling(2)]).axes == {'channel', 'space'}
    assert Compose([AveragePooling(2), SeparableResize(2)]).axes == {'space'}
    assert {*Compose([SeparableResize(2), package.CEM(2)]).products} == {'matmul', 'conv'}
    sensing = Compose([AveragePooling(2), BlockCompressedSensing(0.5, 4)])
    assert sensing.scale is None and sensing.unit_range
    assert Compose([AveragePooling(2), package.CEM(2)]).noise_gain is None
    grey = Compose([Grayscale((0.6, 0.8)), Grayscale((2.0, ))])
    assert grey.noise_gain == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r'multiples of 2 .*3x3 \(in a chain that was given the '
                                         r'image shape \(1, 12, 12\)\)'):
        Compose([AveragePooling(4), AveragePooling(2)]).measurement_shape((1, 12, 12))
    with pytest.raises(ValueError, match=r'given the measurement shape \(2, 3, 3\)'):
        Compose([Grayscale(), AveragePooling(4)]).image_shape((2, 3, 3))
    assert Compose([Grayscale(), AveragePooling(4)]).image_shape((1, 2, 3)) == (3, 8, 12)


class Held(torch.nn.Module):
    """A foreign operator with a filter of one dtype, and an integer."""

    def __init__(self, dtype, parameter):
        super().__init__()
        self.register_buffer('number', torch.tensor(1))
        weight = torch.full((2, 1, 2, 2), 0.25, dtype=dtype)
        if parameter:
            self.weight = torch.nn.Parameter(weight, requires_grad=False)
        else:
            self.register_buffer('weight', weight)

    def A(self, x):
        return F.conv2d(x, self.weight, stride=2, groups=2)

    def A_dagger(self, y):
        return F.interpolate(y, scale_factor=2).to(self.weight)


@pytest.mark.parametrize('parameter', (True, False))
@pytest.mark.parametrize('held', (torch.float32, torch.float64))
@pytest.mark.parametrize('given', (torch.float32, torch.float64))
def test_a_foreign_module_is_run_in_its_own_dtype(held, given, parameter):
    operator, x = Held(held, parameter), torch.rand(1, 2, 4, 4, dtype=given)
    for name in ('A', 'A_dagger'):
        result = apply(operator, name, x)
        assert result.dtype == given
        torch.testing.assert_close(result, getattr(AveragePooling(2), name)(x), rtol=0, atol=1e-6)
    assert replace_range(x, operator.A(x.to(held)), operator).dtype == given


def test_sensing_options_change_the_measurement():
    x = torch.rand(1, 1, 8, 8)
    base = BlockCompressedSensing(0.5, 4, seed=0).A(x)
    assert torch.equal(base, BlockCompressedSensing(0.5, 4, seed=0).A(x))
    assert not torch.equal(base, BlockCompressedSensing(0.5, 4, seed=1).A(x))
    assert BlockCompressedSensing(0.1, 10).count == 10  # 0.1 · 100 in floating point
    assert BlockCompressedSensing(0.25, 4).A(x).shape != base.shape


@pytest.mark.parametrize('name', ['A', 'A_dagger'])
def test_metrics_and_pictures_get_nan_where_there_was_one(name):
    operator = AveragePooling(2)
    image = torch.rand(1, 1, 4, 4)
    image[0, 0, 3, 0] = float('nan')
    with pytest.raises(ValueError, match='expected finite values, got 1'):
        getattr(operator, name)(image)
    result = apply_to_any(operator, name, image)
    bad = ~torch.isfinite(result)
    assert bad.sum() == (1 if name == 'A' else 4)
    finite = apply_to_any(operator, name, image.nan_to_num(0))
    assert torch.equal(finite, getattr(operator, name)(image.nan_to_num(0)))
    assert torch.equal(result[~bad], finite[~bad])
