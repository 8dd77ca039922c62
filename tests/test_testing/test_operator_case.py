"""The inherited suite must catch operators that are wrong."""
import pytest
import torch
from broken_operators import (
    CHECKS,
    FAULTS,
    FINITE,
    LAYOUT,
    PROJECT,
    SHAPE,
    SINGLE,
    AlwaysChecks,
    Careless,
    Case,
    DaggerNotDifferentiable,
    NoDagger,
    NotDifferentiable,
    OnceDifferentiable,
    ProjectNotDifferentiable,
    broken,
)

from mmpd.operators import AveragePooling
from mmpd.testing import OperatorCase, assert_close


class Copied(AveragePooling):
    """A and A† of a mask: every other pixel is known."""
    noise_gain, unit_range = 1.0, True

    def measurement_shape(self, shape):
        return shape

    image_shape = measurement_shape

    def _A(self, x):
        return torch.stack([x[..., 0], torch.zeros_like(x[..., 0])], -1)

    _A_adjoint = _A_dagger = _A


class Zero(Copied):

    def _A_dagger(self, y):
        return 0 * y


class Identity(Copied):

    def _A_dagger(self, y):
        return y.clone()


class FromElsewhere(Copied):
    """The pixel takes what the measurement holds where nothing is known."""

    def _A_dagger(self, y):
        return self._A(y + 1e-9 * y.flip(-1))


class ToElsewhere(Copied):
    """What is known goes to the other pixel as well."""

    def _A_dagger(self, y):
        return self._A(y) + 1e-9 * self._A(y).flip(-1)


class MaskCase(OperatorCase):

    def make(self):
        return self.operator(2)

    def dense(self, shape):
        return torch.diag(torch.tensor([1., 0.] * 3).double())


@pytest.mark.parametrize('operator, message', [
    (Copied, None), (Zero, 'A A† A = A'), (Identity, 'A† A A† = A†'),
    (FromElsewhere, r'\(A A†\)ᵀ = A A†'), (ToElsewhere, r'\(A† A\)ᵀ = A† A')])
def test_each_condition_of_penrose_is_looked_at(operator, message):
    case, shape = MaskCase(), (1, 3, 2)
    case.operator = operator
    if message is None:
        case.test_penrose(shape)
        case.test_pseudo_inverse(shape)
        return
    for test, words in ((case.test_penrose, message), (case.test_pseudo_inverse, 'A†')):
        with pytest.raises(AssertionError, match=f'^{words}: relative error'):
            test(shape)
    operator.is_exact = False  # and not, where nothing is claimed
    for test in (case.test_penrose, case.test_pseudo_inverse):
        with pytest.raises(pytest.skip.Exception, match='is_exact is False'):
            test(shape)


@pytest.mark.parametrize('operator, test, arguments, message', CHECKS,
                         ids=[f'{f[0].__name__}-{f[1]}' for f in CHECKS])
def test_every_check_finds_its_fault(operator, test, arguments, message):
    getattr(Case(), test)(**arguments)
    before = torch.get_float32_matmul_precision()
    with pytest.raises((AssertionError, pytest.fail.Exception), match=message):
        getattr(broken(operator), test)(**arguments)
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize('change, passes', [
    (lambda dense: dense, True), (lambda dense: dense * (1 + 1e-4), False),
    (lambda dense: torch.cat([dense[:1] * (1 + 1e-9), dense[1:]]), False),
    (lambda dense: dense + 1e-10, False)])
def test_flags_hold_for_the_matrix(change, passes):
    """Rows of sum 1, orthogonal and equally long."""
    case = Case()
    case.dense = lambda shape: change(Case().dense(shape))
    if passes:
        case.test_flags_tell_the_truth(SHAPE)
    else:
        with pytest.raises(AssertionError):
            case.test_flags_tell_the_truth(SHAPE)


@pytest.mark.parametrize('exact, claimed, passes', [
    (True, None, True), (True, 1.5, False), (False, 1.5, True)])
def test_the_gain_is_checked_where_it_is_claimed(exact, claimed, passes):
    case = broken(type('Claims', (AveragePooling, ), dict(is_exact=exact, noise_gain=claimed)))
    if passes:
        case.test_flags_tell_the_truth(SHAPE)
    else:
        with pytest.raises(AssertionError):
            case.test_flags_tell_the_truth(SHAPE)


def test_an_approximation_is_not_asked_for_consistency():
    case = broken(NoDagger)
    case.consistent = False
    for test, arguments in ((PROJECT, LAYOUT), ('test_projector', SINGLE)):
        with pytest.raises(pytest.skip.Exception, match='A† is an approximation'):
            getattr(case, test)(**arguments)


@pytest.mark.parametrize('operator', (DaggerNotDifferentiable, ProjectNotDifferentiable,
                                      OnceDifferentiable))
def test_every_derivative_is_looked_at(operator):
    with pytest.raises((RuntimeError, AssertionError)):
        broken(operator).test_gradcheck()


def test_always_checking_fails():
    with pytest.raises(ValueError, match='image: expected finite'):
        broken(AlwaysChecks).test_refuses_nan_and_inf(**FINITE)


def test_what_a_case_has_to_give():
    for call in (OperatorCase().make, lambda: OperatorCase().dense(SHAPE)):
        with pytest.raises(NotImplementedError):
            call()
    assert OperatorCase().noise_gain(AveragePooling(3), SHAPE) == 3.0


def test_images_and_measurements_of_a_case():
    case = Case()
    one, other = case.image(SHAPE), case.image(SHAPE, seed=5)
    assert one.shape == (1, *SHAPE) and one.dtype == torch.float64 and not torch.equal(one, other)
    batch = case.image(SHAPE, torch.float32, 3)
    assert batch.dtype == torch.float32 and batch.is_contiguous()
    deviations, means = batch.std((1, 2, 3)), batch.mean((1, 2, 3))
    assert (deviations.diff() < 0).all() and (means.diff().abs() > 0.1).all()
    for memory in ('channels_last', 'strided'):
        laid_out = case.image(SHAPE, torch.float32, 3, memory=memory)
        assert torch.equal(laid_out, batch) and not laid_out.is_contiguous()
        assert laid_out.is_contiguous(memory_format=torch.channels_last) == (
            memory == 'channels_last')
    y = case.measurement(SHAPE, batch=2)
    assert y.shape == (2, 2, 2, 3) and not torch.equal(y, case.make().A(case.image(SHAPE, batch=2)))
    case.full_row_rank = False
    y = case.measurement(SHAPE, batch=2)
    assert torch.equal(y, case.make().A(case.image(SHAPE, batch=2, seed=1)))


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
    assert_close(torch.tensor([3.0]), torch.tensor([2.0]), 'of 100', 0.01, 100)
    with pytest.raises(AssertionError, match='of 99: relative error 0.0101, allowed 0.01'):
        assert_close(torch.tensor([3.0]), torch.tensor([2.0]), 'of 99', 0.01, 99)
    assert_close(torch.zeros(2), torch.zeros(2), 'nothing', 0)
    with pytest.raises(AssertionError, match='of nothing'):
        assert_close(torch.tensor([1e-9]), torch.zeros(1), 'of nothing', 1)
    with pytest.raises(AssertionError):  # NaN is close to nothing
        assert_close(torch.tensor([float('nan')]), torch.tensor([1.0]), 'nan', 1)
