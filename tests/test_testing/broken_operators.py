"""Operators that are wrong, each in one way, and the check of the inherited suite that says so."""
import torch
import torch.nn.functional as F

from mmpd.operators import AveragePooling
from mmpd.testing import OperatorCase

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


class NearlyTheGain(AveragePooling):
    noise_gain = 2 * (1 + 1e-7)


class NotTight(AveragePooling):
    tight = False


class UnitRange(AveragePooling):
    unit_range = True


def scaled(name, by):
    """A method that gives nearly what it should."""
    return type(f'Nearly{name}', (AveragePooling, ), {name: lambda self, tensor: getattr(
        AveragePooling, name)(self, tensor) * (1 + by)})


class NearlyADagger(AveragePooling):
    """Of which project knows nothing."""

    def A_dagger(self, y):
        return super().A_dagger(y) * (1 + 1e-4)


class WeakProject(NearlyADagger):
    """Right but for A†."""

    def project(self, x, y, strength=1.0, check=True):
        return x + self.A_dagger(y - self.A(x))


class WrongShape(AveragePooling):

    def image_shape(self, shape):
        return shape[0], shape[1] * 3, shape[2] * 3


class NoDagger(AveragePooling):
    """A†A is a projector, though of nothing."""

    def A_dagger(self, y):
        return 0 * super().A_dagger(y)


class ProjectDiffers(AveragePooling):
    """What it does to x beside the projection."""

    def project(self, x, y, strength=1.0, check=True):
        return self.change(super().project(x, y, strength, check), x, y, strength)


class NullSpaceDiffers(ProjectDiffers):

    def change(self, result, x, y, strength):
        result = result.clone()
        result[..., ::2] += 1e-4
        result[..., 1::2] -= 1e-4
        return result


class OtherDtype(ProjectDiffers):

    def change(self, result, x, y, strength):
        return result.double() if x.dtype == torch.float32 else result.float()


class OtherShape(ProjectDiffers):

    def change(self, result, x, y, strength):
        return result[..., :2]


class TouchesTheConsistent(ProjectDiffers):

    def change(self, result, x, y, strength):
        return result * (1 + 1e-4)


class AdjointOfOtherDtype(AveragePooling):

    def A_adjoint(self, y):
        return super().A_adjoint(y).float()


class MemoryMatters(ProjectDiffers):

    def change(self, result, x, y, strength):
        channels_last = x.is_contiguous(memory_format=torch.channels_last)
        strided = not channels_last and not x.is_contiguous()
        return result * (1 + 1e-9 * (strided if self.strided else channels_last))


class ChannelsLastMatters(MemoryMatters):
    strided = False


class StridesMatter(MemoryMatters):
    strided = True


class StrengthZero(ProjectDiffers):

    def change(self, result, x, y, strength):
        return result + 1e-9 * (strength == 0)


class StrengthSquared(ProjectDiffers):

    def change(self, result, x, y, strength):
        return x + (result - x) * (strength + 1e-9 * (0 < strength < 1))


class BatchMatters(ProjectDiffers):

    def change(self, result, x, y, strength):
        return result * (1 + 1e-9 * (len(x) - 1))


class HalfStaysHalf(AveragePooling):
    """One of the functions computes in what it is given."""

    def half(self, function, tensor, own):
        result = function(tensor)
        return result + result.abs() / 64 if own and tensor.dtype == torch.bfloat16 else result

    def A(self, x):
        return self.half(super().A, x, self.which == 'A')

    def A_dagger(self, y):
        return self.half(super().A_dagger, y, self.which == 'A_dagger')

    def A_adjoint(self, y):
        return self.half(super().A_adjoint, y, self.which == 'A_adjoint')


def half_stays(which):
    return type(f'Half{which}', (HalfStaysHalf, ), dict(which=which))


class HalfProject(ProjectDiffers):

    def change(self, result, x, y, strength):
        return result + result.abs() / 64 if x.dtype == torch.bfloat16 else result


class HalfBecomesFloat(ProjectDiffers):

    def change(self, result, x, y, strength):
        return result.float()


class Autocast(ProjectDiffers):

    def change(self, result, x, y, strength):
        return result * (1 + 1e-4 * torch.is_autocast_enabled('cpu'))


class Medium(ProjectDiffers):

    def change(self, result, x, y, strength):
        medium = torch.get_float32_matmul_precision() == 'medium'
        return result * (1 + 1e-4 * medium)


class SetsPrecision(ProjectDiffers):

    def change(self, result, x, y, strength):
        torch.set_float32_matmul_precision('highest')
        return result


class TakesAll(AveragePooling):
    """A batch of any kind and shape."""

    def A(self, x):
        return torch.zeros(1)

    def project(self, x, y, strength=1.0, check=True):
        return x


class Grumbles(AveragePooling):
    """Refuses without a reason."""

    def A(self, x):
        raise ValueError('no')

    def project(self, x, y, strength=1.0, check=True):
        raise ValueError('no')


class NamesOnlyOne(AveragePooling):
    """Of the sizes that do not fit; of the culprits."""

    def project(self, x, y, strength=1.0, check=True):
        wrong = y.shape != (len(x), *self.measurement_shape(x.shape[1:]))
        if wrong:
            raise ValueError(str(tuple(y.shape) if self.wrong else tuple(x.shape)))
        if not (x.isfinite().all() and y.isfinite().all()):
            raise ValueError(f'{self.culprit}: expected finite')
        return x


def names_only(**given):
    return type('NamesOnlyOne', (NamesOnlyOne, ), dict(dict(wrong=True, culprit='image'), **given))


class AlwaysChecks(AveragePooling):

    def project(self, x, y, strength=1.0, check=True):
        return super().project(x, y, strength)


class WithParameter(AveragePooling):

    def __init__(self, scale):
        super().__init__(scale)
        self.weight = torch.nn.Parameter(torch.ones(1))
        self._register_state_dict_hook(lambda module, state, *_: state.clear())


class CopiesDiffer(AveragePooling):

    def __deepcopy__(self, memo):
        return AveragePooling(1)


class PicklesDiffer(AveragePooling):

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        return AveragePooling, (1, )


class Nameless(AveragePooling):

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        return AveragePooling, (2, )

    def __repr__(self):
        return ''


class DaggerNotDifferentiable(AveragePooling):

    def _A_dagger(self, y):
        return super()._A_dagger(y.detach()) + 0 * super()._A_dagger(y)


class ProjectNotDifferentiable(ProjectDiffers):

    def change(self, result, x, y, strength):
        return result.detach() + 0 * result


class NoSecondDerivative(torch.autograd.Function):

    @staticmethod
    def forward(ctx, result):
        return result.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad


class OnceDifferentiable(ProjectDiffers):

    def change(self, result, x, y, strength):
        return NoSecondDerivative.apply(result)


class NotDifferentiable(AveragePooling):

    def _A(self, x):
        return super()._A(x.detach()) + 0 * super()._A(x)


def broken(operator):
    case = Case()
    case.operator = operator
    return case


LAYOUT = dict(shape=SHAPE, dtype=torch.float64, batch=2, memory='contiguous', device='cpu')
ONE = dict(LAYOUT, dtype=torch.float32)
SINGLE = dict(shape=SHAPE, dtype=torch.float32)
BF16 = dict(shape=SHAPE, dtype=torch.bfloat16)
ALONE = dict(shape=SHAPE)
FINITE = dict(shape=SHAPE, value=float('inf'))
PROJECT = 'test_project_is_consistent'
HALF = 'test_half_precision_is_corrected_in_float32'
# one check of a test each: operator, test, its arguments, what the check says
CHECKS = [
    (scaled('_A', 1e-9), 'test_matches_dense', ALONE, '^A: relative error'),
    (WrongShape, 'test_matches_dense', ALONE, ''),
    (scaled('_A_adjoint', 1e-9), 'test_matches_dense', ALONE, '^Aᵀ: relative error'),
    (scaled('_A_dagger', 1e-9), 'test_pseudo_inverse', ALONE, '^A†: relative error'),
    (scaled('_A_dagger', 1e-9), 'test_penrose', ALONE, r'^A A† A = A: relative error'),
    (NotTight, 'test_flags_tell_the_truth', ALONE, ''),
    (UnitRange, 'test_flags_tell_the_truth', ALONE, ''),
    (NearlyTheGain, 'test_flags_tell_the_truth', ALONE, ''),
    (AdjointOfOtherDtype, 'test_adjoint', LAYOUT, ''),
    (scaled('_A_adjoint', 1e-9), 'test_adjoint', LAYOUT, '^<A x, y> = '),
    (OtherDtype, PROJECT, LAYOUT, ''), (OtherDtype, PROJECT, ONE, ''),
    (OtherShape, PROJECT, LAYOUT, ''), (WeakProject, PROJECT, LAYOUT, '^A x̂ = y: rel'),
    (WeakProject, PROJECT, ONE, '^A x̂ = y: rel'),
    (NullSpaceDiffers, PROJECT, ONE, r'^x̂ = x \+ A†\(y - A x\): rel'),
    (NearlyADagger, 'test_projector', SINGLE, '^A†A A†A = A†A: rel'),
    (NoDagger, 'test_projector', SINGLE, r'^A \(I - A†A\) = 0: rel'),
    (TouchesTheConsistent, 'test_consistent_image_is_left_alone', SINGLE,
     '^x̂ = x where A x = y: rel'),
    (BatchMatters, 'test_images_of_a_batch_are_independent', ALONE, '^batch: rel'),
    (ChannelsLastMatters, 'test_memory_format_does_not_matter', ALONE, '^channels_last: rel'),
    (StridesMatter, 'test_memory_format_does_not_matter', ALONE, '^strided: rel'),
    (StrengthZero, 'test_strength', ALONE, '^(?!strength)'),
    (StrengthSquared, 'test_strength', ALONE, '^strength: rel'),
    (HalfBecomesFloat, HALF, BF16, ''), (HalfProject, HALF, BF16, ''),
    *((half_stays(which), HALF, BF16, '') for which in ('A', 'A_dagger', 'A_adjoint')),
    (Autocast, 'test_autocast_is_switched_off', ALONE, ''),
    (Medium, 'test_matrix_products_stay_float32', ALONE, "^under 'medium': rel"),
    (SetsPrecision, 'test_matrix_products_stay_float32', ALONE, "it is the whole process's"),
    (WithParameter, 'test_checkpoints_do_not_change', {}, ''),
    (CopiesDiffer, 'test_copies', ALONE, ''), (PicklesDiffer, 'test_copies', ALONE, ''),
    (Nameless, 'test_copies', ALONE, ''),
    # what is not refused, or not by its name
    (TakesAll, 'test_refuses_bad_shapes', dict(bad_shape=(2, 4, 7)), 'DID NOT RAISE'),
    (Grumbles, 'test_refuses_bad_shapes', dict(bad_shape=(2, 4, 7)), 'Regex'),
    (TakesAll, 'test_refuses_a_wrong_measurement', ALONE, 'DID NOT RAISE'),
    (names_only(wrong=True), 'test_refuses_a_wrong_measurement', ALONE, ''),
    (names_only(wrong=False), 'test_refuses_a_wrong_measurement', ALONE, ''),
    (TakesAll, 'test_refuses_what_is_no_batch', ALONE, 'DID NOT RAISE'),
    (Grumbles, 'test_refuses_what_is_no_batch', ALONE, 'non-empty'),
    (TakesAll, 'test_refuses_nan_and_inf', FINITE, 'DID NOT RAISE'),
    (names_only(culprit='image'), 'test_refuses_nan_and_inf', FINITE, 'measurement: expected'),
    (names_only(culprit='measurement'), 'test_refuses_nan_and_inf', FINITE, 'image: expected'),
]
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
