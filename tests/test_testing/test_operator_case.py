"""The inherited suite must catch operators that are wrong."""
import pytest
import torch
import torch.nn.functional as F

from mmpd.operators import AveragePooling
from mmpd.testing import OperatorCase, assert_close

SHAPE = (2, 4, 6)


class Case(OperatorCase):
    shapes = (SHAPE, )
    operator = AveragePooling

    def make(self):
        return self.operator(2)

    def dense(self, shape):
        eye = torch.eye(shape[0] * shape[1] * shape[2], dtype=torch.float64)
        return F.avg_pool2d(eye.view(-1, *shape), 2).flatten(1).T


class BicubicUp(AveragePooling):
    """The fault most often seen: an interpolation called the pseudo-inverse."""

    def _A_dagger(self, y):
        return F.interpolate(y, scale_factor=2, mode='bicubic')


class UnscaledAdjoint(AveragePooling):

    def _A_adjoint(self, y):
        return self._A_dagger(y)


class Shifted(AveragePooling):

    def _A(self, x):
        return super()._A(x.roll(1, -1))


class Affine(AveragePooling):

    def _A(self, x):
        return super()._A(x) + 1e-3


class MixesBatch(AveragePooling):

    def _A(self, x):
        y = super()._A(x)
        return y + 0.01 * (y.mean(0, keepdim=True) - y)


class Careless(AveragePooling):
    """Computes in whatever it is given, and looks at nothing."""

    def _run(self, function, tensor):
        return function(tensor)

    def project(self, x, y, strength=1.0, check=True):
        return x + self._A_dagger(y - F.avg_pool2d(x, 2))


class Stateful(AveragePooling):

    def __init__(self, scale):
        super().__init__(scale)
        self.register_buffer('kernel', torch.ones(1))


class WrongGain(AveragePooling):
    noise_gain = 1.0


class NotDifferentiable(AveragePooling):

    def _A(self, x):
        return super()._A(x.detach()) + 0 * super()._A(x)


def broken(operator):
    case = Case()
    case.operator = operator
    return case


LAYOUT = dict(shape=SHAPE, dtype=torch.float64, batch=2, memory='contiguous', device='cpu')
FAULTS = [
    (BicubicUp, 'test_pseudo_inverse', dict(shape=SHAPE)),
    (BicubicUp, 'test_penrose', dict(shape=SHAPE)),
    (UnscaledAdjoint, 'test_matches_dense', dict(shape=SHAPE)),
    (UnscaledAdjoint, 'test_adjoint', LAYOUT),
    (Shifted, 'test_matches_dense', dict(shape=SHAPE)),
    (Shifted, 'test_adjoint', LAYOUT),
    (Shifted, 'test_project_is_consistent', LAYOUT),
    (Affine, 'test_linear', dict(shape=SHAPE, dtype=torch.float32)),
    (Affine, 'test_projector', dict(shape=SHAPE, dtype=torch.float32)),
    (MixesBatch, 'test_project_is_consistent', LAYOUT),
    (Careless, 'test_half_precision_is_corrected_in_float32',
     dict(shape=SHAPE, dtype=torch.bfloat16)),
    (Careless, 'test_strength', dict(shape=SHAPE)),
    (Stateful, 'test_checkpoints_do_not_change', {}),
    (WrongGain, 'test_flags_tell_the_truth', dict(shape=SHAPE)),
]


@pytest.mark.parametrize('operator, test, arguments', FAULTS,
                         ids=[f'{f[0].__name__}-{f[1]}' for f in FAULTS])
def test_a_broken_operator_fails(operator, test, arguments):
    getattr(Case(), test)(**arguments)  # the sound one passes
    with pytest.raises(AssertionError):
        getattr(broken(operator), test)(**arguments)


def test_missing_checks_fail():
    with pytest.raises(BaseException, match='DID NOT RAISE'):
        broken(Careless).test_refuses_nan_and_inf(SHAPE, float('nan'))


def test_missing_gradient_fails():
    Case().test_gradcheck()
    with pytest.raises((RuntimeError, AssertionError)):
        broken(NotDifferentiable).test_gradcheck()


def test_assert_close_is_relative_and_tells_the_error():
    assert_close(torch.tensor([1000.001]), torch.tensor([1000.0]), 'near', 1e-5)
    with pytest.raises(AssertionError, match='far: relative error 0.5'):
        assert_close(torch.tensor([3.0]), torch.tensor([2.0]), 'far', 1e-5)
    with pytest.raises(AssertionError, match='expected shape'):
        assert_close(torch.zeros(2), torch.zeros(3), 'shape', 1)
    with pytest.raises(AssertionError):  # NaN is close to nothing
        assert_close(torch.tensor([float('nan')]), torch.tensor([1.0]), 'nan', 1)
