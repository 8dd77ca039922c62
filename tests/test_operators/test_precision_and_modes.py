"""What a user switches on around an operator: inference mode, reduced precision, in-place work."""
import pytest
import torch

from mmpd.operators import CEM, AveragePooling, BlockCompressedSensing, SeparableResize
from mmpd.operators.base import full_precision

OPERATORS = [SeparableResize(5), BlockCompressedSensing(0.25, 5), CEM(5), AveragePooling(5)]


@pytest.mark.parametrize('operator', OPERATORS, ids=lambda operator: type(operator).__name__)
def test_what_inference_mode_caches_serves_training(operator):
    x = torch.rand(1, 1, 45, 45)  # a size that no other test caches
    with torch.inference_mode():
        y = operator.A(x)
        operator.project(x, y)
        adjoint = operator.A_adjoint(y)
    leaf = x.clone().requires_grad_()
    operator.project(leaf, y.clone()).sum().backward()
    assert torch.isfinite(leaf.grad).all()
    torch.testing.assert_close(adjoint, operator.A_adjoint(y.clone()))


new_switches = pytest.mark.skipif(not hasattr(torch.backends, 'fp32_precision'),
                                  reason='this torch has the older switches only')


@new_switches
@pytest.mark.parametrize('switch, value', [('cuda.matmul', 'tf32'), ('mkldnn.matmul', 'bf16')])
def test_new_precision_switches_are_respected_and_put_back(switch, value):
    """Mixing them with the older ones raises in torch."""
    setting = torch.backends
    for part in switch.split('.'):
        setting = getattr(setting, part)
    x, y = torch.rand(1, 3, 160, 160), torch.rand(1, 3, 20, 20)
    expected = AveragePooling(8).project(x, y)
    before = setting.fp32_precision
    try:
        setting.fp32_precision = value
        with full_precision(switch.split('.')[0].replace('mkldnn', 'cpu')):
            assert setting.fp32_precision == 'ieee'
        assert torch.equal(AveragePooling(8).project(x, y), expected)
        assert setting.fp32_precision == value
    finally:
        setting.fp32_precision = before


@new_switches
def test_the_older_switch_may_be_used_around_it():
    before = torch.backends.cuda.matmul.allow_tf32
    x, y = torch.rand(1, 3, 160, 160), torch.rand(1, 3, 20, 20)
    try:
        for allowed in (True, False):
            torch.backends.cuda.matmul.allow_tf32 = allowed
            AveragePooling(8).project(x, y)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def test_in_place_refuses_before_it_overwrites():
    x, y = torch.rand(1, 3, 512, 512), torch.rand(1, 3, 64, 64)
    x[0, 2, -1, -1] = float('nan')
    before = x.clone()
    with pytest.raises(ValueError, match='image: expected finite values, got 1'):
        AveragePooling(8).project(x, y, inplace=True)
    assert torch.equal(x.nan_to_num(), before.nan_to_num())


@pytest.mark.parametrize('strength', [-0.1, 1.5, float('nan'), '0.5'])
@pytest.mark.parametrize('operator', [AveragePooling(2), SeparableResize(2)], ids=str)
def test_strength_is_checked(operator, strength):
    with pytest.raises(ValueError, match='strength: expected a number in'):
        operator.project(torch.rand(1, 1, 4, 4), torch.rand(1, 1, 2, 2), strength)
