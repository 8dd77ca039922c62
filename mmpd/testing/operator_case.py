"""The test suite that every operator inherits.

A test module subclasses :class:`OperatorCase`, gives the operator and its
matrix, built independently (by loops, by ``numpy.kron``, by another library),
and pytest runs all identities::

    class TestAveragePooling(OperatorCase):
        shapes = ((1, 4, 6), (3, 8, 4))
        bad_shapes = ((3, 7, 4), )

        def make(self):
            return AveragePooling(2)

        def dense(self, shape):
            ...  # (measurements, C·H·W) float64 matrix for an image of ``shape``

Errors are relative to the size of what is compared: 1e-12 in float64 and 1e-5
in float32.  See docs/add_operator.md.
"""
import copy
import pickle

import pytest
import torch

__all__ = ['OperatorCase', 'assert_close']

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
WIDE = (torch.float64, torch.float32)
HALF = (torch.float16, torch.bfloat16)
DEVICES = ('cpu', 'cuda') if torch.cuda.is_available() else ('cpu', )

wide = pytest.mark.parametrize('dtype', WIDE, ids=str)
half = pytest.mark.parametrize('dtype', HALF, ids=str)
layout = pytest.mark.parametrize(
    'batch, memory', ((1, 'contiguous'), (3, 'contiguous'), (3, 'channels_last'), (2, 'strided')))


def assert_close(actual, expected, what, tolerance, size=None):
    """Fail with the relative error unless ``actual`` equals ``expected``.

    ``size`` is the magnitude that the error is relative to, by default the
    largest absolute value of ``expected``; give it where zero is expected.

    Example:
        >>> import torch
        >>> from mmpd.testing import assert_close
        >>> assert_close(torch.tensor([1., 4.1]), torch.tensor([1., 4.]), 'A x', tolerance=1e-5)
        Traceback (most recent call last):
            ...
        AssertionError: A x: relative error 0.025, allowed 1e-05
    """
    assert actual.shape == expected.shape, \
        f'{what}: expected shape {tuple(expected.shape)}, got {tuple(actual.shape)}'
    actual, expected = actual.detach().cpu().double(), expected.detach().cpu().double()
    size = max(expected.abs().max().item() if size is None else float(size), 1e-300)
    error = (actual - expected).abs().max().item() / size
    assert error <= tolerance, f'{what}: relative error {error:.3g}, allowed {tolerance:g}'


class OperatorCase:
    """Identities of a linear operator and its pseudo-inverse.

    Attributes:
        shapes (Sequence[tuple]): Image shapes (C, H, W) to test, small enough
            for dense matrices, the first one the smallest; mix odd,
            rectangular and one-channel ones.
        bad_shapes (Sequence[tuple]): Image shapes (C, H, W) that it must refuse.
        full_row_rank (bool): A A† = I, so that every measurement is reachable.
        consistent (bool): A A† A = A up to rounding.  False only for
            operators whose ``A_dagger`` is an approximation even in that.

    Example:
        >>> import torch
        >>> from mmpd.operators import AveragePooling
        >>> from mmpd.testing import OperatorCase
        >>> class TestAveragePooling(OperatorCase):
        ...     shapes = ((1, 2, 2), )
        ...     def make(self):
        ...         return AveragePooling(2)
        ...     def dense(self, shape):
        ...         return torch.full((1, 4), 0.25, dtype=torch.float64)
        >>> TestAveragePooling().test_matches_dense((1, 2, 2))  # pytest runs this and the others
    """
    shapes = ()
    bad_shapes = ()
    full_row_rank = True
    consistent = True

    def make(self):
        """A fresh operator."""
        raise NotImplementedError

    def dense(self, shape):
        """Its matrix for an image of ``shape`` (C, H, W), float64, built independently."""
        raise NotImplementedError

    def noise_gain(self, operator, shape):
        """What the operator says ‖A†‖ is; for one whose gain depends on the size, at ``shape``."""
        return operator.noise_gain

    def pytest_generate_tests(self, metafunc):
        for name, values in (('shape', self.shapes), ('bad_shape', self.bad_shapes),
                             ('device', DEVICES)):
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, values, ids=str)

    # -- helpers

    def image(self, shape, dtype=torch.float64, batch=1, seed=0, memory='contiguous',
              device='cpu'):
        """Random batch of mixed content: contrast and mean differ between the images."""
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(batch, *shape, generator=generator, dtype=torch.float64)
        steps = torch.arange(batch, dtype=torch.float64).view(-1, 1, 1, 1)
        x = (x / (1 + 3 * steps) + steps / 4).to(device, dtype)
        if memory == 'channels_last':
            return x.contiguous(memory_format=torch.channels_last)
        return x.repeat_interleave(2, -1)[..., ::2] if memory == 'strided' else x

    def measurement(self, shape, seed=1, **kwargs):
        """Random measurement of an image shape, in the range of A."""
        operator = self.make()
        if self.full_row_rank:
            return self.image(operator.measurement_shape(shape), seed=seed, **kwargs)
        return operator.A(self.image(shape, seed=seed, **kwargs))

    @staticmethod
    def materialise(function, shape):
        """Matrix of a linear function of (N, C, H, W) batches, from unit vectors."""
        count = shape[0] * shape[1] * shape[2]
        basis = torch.eye(count, dtype=torch.float64).view(count, *shape)
        return function(basis).reshape(count, -1).T

    def need_consistent(self):
        if not self.consistent:
            pytest.skip('A† is an approximation: A A† A = A holds only roughly')

    # -- against the matrix

    def test_matches_dense(self, shape):
        operator, dense = self.make(), self.dense(shape)
        assert_close(self.materialise(operator.A, shape), dense, 'A', 1e-12)
        measured = operator.measurement_shape(shape)
        assert operator.image_shape(measured) == tuple(shape)
        assert_close(self.materialise(operator.A_adjoint, measured), dense.T, 'Aᵀ', 1e-12)

    def test_pseudo_inverse(self, shape):
        operator = self.make()
        if not operator.is_exact:
            pytest.skip('is_exact is False: A† is not claimed to be the pseudo-inverse')
        dagger = self.materialise(operator.A_dagger, operator.measurement_shape(shape))
        assert_close(dagger, torch.linalg.pinv(self.dense(shape)), 'A†', 1e-12)

    def test_penrose(self, shape):
        operator = self.make()
        if not operator.is_exact:
            pytest.skip('is_exact is False: A† is not claimed to be the pseudo-inverse')
        a = self.materialise(operator.A, shape)
        p = self.materialise(operator.A_dagger, operator.measurement_shape(shape))
        for what, left, right in (('A A† A = A', a @ p @ a, a), ('A† A A† = A†', p @ a @ p, p),
                                  ('(A A†)ᵀ = A A†', (a @ p).T, a @ p),
                                  ('(A† A)ᵀ = A† A', (p @ a).T, p @ a)):
            assert_close(left, right, what, 1e-12)

    def test_flags_tell_the_truth(self, shape):
        operator, dense = self.make(), self.dense(shape)
        gram = dense @ dense.T
        identity = torch.eye(len(gram), dtype=torch.float64) * gram[0, 0]
        assert operator.tight == torch.allclose(gram, identity, rtol=0, atol=1e-12)
        keeps_constants = torch.allclose(dense.sum(1), torch.ones(len(dense)).double(), atol=1e-6)
        assert operator.unit_range == (not keeps_constants)
        claimed = self.noise_gain(operator, shape)
        if operator.is_exact and claimed is not None:
            gain = torch.linalg.matrix_norm(torch.linalg.pinv(dense), 2).item()
            assert claimed == pytest.approx(gain, rel=1e-9)

    # -- identities, on batches

    @wide
    @layout
    def test_adjoint(self, shape, dtype, batch, memory, device):
        operator = self.make().to(device)
        x = self.image(shape, dtype, batch, memory=memory, device=device)
        y = self.measurement(shape, dtype=dtype, batch=batch, memory=memory, device=device)
        forward, backward = operator.A(x), operator.A_adjoint(y)
        assert forward.dtype == backward.dtype == dtype
        left = (forward.double() * y.double()).sum()
        right = (x.double() * backward.double()).sum()
        size = forward.double().norm() * y.double().norm()
        assert_close(left, right, f'<A x, y> = {left:.9g}, <x, Aᵀ y> = {right:.9g}',
                     TOLERANCE[dtype], size)

    @wide
    @layout
    def test_project_is_consistent(self, shape, dtype, batch, memory, device):
        self.need_consistent()
        operator = self.make().to(device)
        x = self.image(shape, dtype, batch, memory=memory, device=device)
        y = self.measurement(shape, dtype=dtype, batch=batch, memory=memory, device=device)
        result = operator.project(x, y)
        assert result.dtype == dtype and result.shape == x.shape
        size = max(x.abs().max(), y.abs().max())
        assert_close(operator.A(result), y, 'A x̂ = y', TOLERANCE[dtype], size)
        expected = x + operator.A_dagger(y - operator.A(x))
        assert_close(result, expected, 'x̂ = x + A†(y - A x)', TOLERANCE[dtype])

    @wide
    def test_projector(self, shape, dtype):
        self.need_consistent()
        operator, x = self.make(), self.image(shape, dtype, 3)
        once = operator.A_dagger(operator.A(x))
        size = x.abs().max()
        assert_close(operator.A_dagger(operator.A(once)), once, 'A†A A†A = A†A',
                     TOLERANCE[dtype], size)
        assert_close(operator.A(x - once), torch.zeros_like(operator.A(x)), 'A (I - A†A) = 0',
                     TOLERANCE[dtype], size)

    @wide
    def test_consistent_image_is_left_alone(self, shape, dtype):
        operator, x = self.make(), self.image(shape, dtype)
        assert_close(operator.project(x, operator.A(x)), x, 'x̂ = x where A x = y',
                     TOLERANCE[dtype])

    @wide
    def test_linear(self, shape, dtype):
        operator = self.make()
        x, z = self.image(shape, dtype, 3), self.image(shape, dtype, 3, seed=5)
        assert_close(operator.A(2 * x - 3 * z), 2 * operator.A(x) - 3 * operator.A(z), 'A linear',
                     TOLERANCE[dtype], 5 * x.abs().max())

    def test_images_of_a_batch_are_independent(self, shape):
        operator = self.make()
        x, y = self.image(shape, batch=3), self.measurement(shape, batch=3)
        together = operator.project(x, y)
        alone = torch.cat([operator.project(x[i:i + 1], y[i:i + 1]) for i in range(3)])
        assert_close(together, alone, 'batch', 1e-12)

    def test_memory_format_does_not_matter(self, shape):
        operator = self.make()
        expected = operator.project(self.image(shape, batch=2), self.measurement(shape, batch=2))
        for memory in ('channels_last', 'strided'):
            result = operator.project(self.image(shape, batch=2, memory=memory),
                                      self.measurement(shape, batch=2))
            assert_close(result, expected, memory, 1e-12)

    def test_strength(self, shape):
        operator, x, y = self.make(), self.image(shape), self.measurement(shape)
        full = operator.project(x, y)
        assert torch.equal(operator.project(x, y, strength=0.0), x)
        assert_close(operator.project(x, y, strength=0.25), x + (full - x) / 4, 'strength', 1e-12)

    # -- precision

    @half
    def test_half_precision_is_corrected_in_float32(self, shape, dtype):
        operator = self.make()
        x, y = self.image(shape, dtype, 2), self.measurement(shape, dtype=dtype, batch=2)
        result = operator.project(x, y)
        assert result.dtype == dtype
        assert torch.equal(result, operator.project(x.float(), y.float()).to(dtype))
        for function, argument in ((operator.A, x), (operator.A_dagger, y),
                                   (operator.A_adjoint, y)):
            assert torch.equal(function(argument), function(argument.float()).to(dtype))

    def test_autocast_is_switched_off(self, shape):
        operator = self.make()
        x = self.image(shape, torch.float32)
        y = self.measurement(shape, dtype=torch.float32)
        expected = operator.project(x, y)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            assert torch.equal(operator.project(x, y), expected)

    def test_matrix_products_stay_float32(self, shape):
        operator = self.make()
        x = self.image(shape, torch.float32)
        y = self.measurement(shape, dtype=torch.float32)
        expected = operator.project(x, y)
        before = torch.get_float32_matmul_precision()
        try:
            torch.set_float32_matmul_precision('medium')
            assert_close(operator.project(x, y), expected, "under 'medium'", 1e-6)
            assert torch.get_float32_matmul_precision() == 'medium', 'it is the whole process\'s'
        finally:
            torch.set_float32_matmul_precision(before)

    # -- derivatives

    def test_gradcheck(self):
        operator, shape = self.make(), self.shapes[0]
        x = self.image(shape).requires_grad_()
        y = self.measurement(shape).detach().requires_grad_()
        assert torch.autograd.gradcheck(operator.A, (x, ))
        assert torch.autograd.gradcheck(operator.A_dagger, (y, ))
        assert torch.autograd.gradcheck(lambda a, b: operator.project(a, b, 0.75), (x, y))
        # a linear map has no second derivative of its own: square it
        assert torch.autograd.gradgradcheck(lambda a, b: operator.project(a, b)**2, (x, y))

    # -- refusals

    def test_refuses_bad_shapes(self, bad_shape):
        with pytest.raises(ValueError, match=str(bad_shape[-1])):
            self.make().A(self.image(bad_shape))

    def test_refuses_a_wrong_measurement(self, shape):
        operator, x, y = self.make(), self.image(shape), self.measurement(shape)
        for wrong in (torch.cat([y, y], 2), torch.cat([y, y], 0)):
            with pytest.raises(ValueError) as info:
                operator.project(x, wrong)
            assert str(tuple(wrong.shape)) in str(info.value)
            assert str(tuple(y.shape)) in str(info.value)

    def test_refuses_what_is_no_batch(self, shape):
        operator, x = self.make(), self.image(shape)
        for bad, word in ((x[:0], 'non-empty'), (x[0], 'N, C, H, W'), (x.int(), 'int32'),
                          (x.numpy(), 'ndarray')):
            with pytest.raises(ValueError, match=word):
                operator.A(bad)

    @pytest.mark.parametrize('value', (float('nan'), float('inf'), -float('inf')))
    def test_refuses_nan_and_inf(self, shape, value):
        operator = self.make()
        x, y = self.image(shape), self.measurement(shape)
        bad_x, bad_y = x.clone(), y.clone()
        # a place that the operator looks at (a sampling without antialias skips pixels)
        place = self.dense(shape).abs().sum(0).argmax()
        bad_x.view(-1)[place] = value
        bad_y.view(-1)[-1] = value
        with pytest.raises(ValueError, match='image: expected finite'):
            operator.project(bad_x, y)
        with pytest.raises(ValueError, match='measurement: expected finite'):
            operator.project(x, bad_y)
        operator.project(bad_x, y, check=False)

    # -- as a module

    def test_checkpoints_do_not_change(self):
        operator = self.make()
        assert not list(operator.parameters()) and not operator.state_dict()

    def test_copies(self, shape):
        operator, x = self.make(), self.image(shape)
        for other in (copy.deepcopy(operator), pickle.loads(pickle.dumps(operator))):
            assert torch.equal(other(x), operator.A(x))
        assert repr(operator)
