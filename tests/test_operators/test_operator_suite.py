"""Every operator under the inherited suite, each with a matrix made without it."""
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmpd.operators import (
    CEM,
    AveragePooling,
    BlockCompressedSensing,
    Compose,
    Grayscale,
    Masking,
    SeparableResize,
    pooling_pass,
)
from mmpd.operators.base import LinearOperator
from mmpd.testing import OperatorCase


def kron_channels(matrix, channels):
    """The same spatial matrix for every channel."""
    return torch.as_tensor(np.kron(np.eye(channels), np.asarray(matrix)))


def pooling_matrix(height, width, scale):
    """Average pooling written pixel by pixel."""
    h, w = height // scale, width // scale
    matrix = np.zeros((h * w, height * width))
    for row in range(height):
        for column in range(width):
            matrix[row // scale * w + column // scale, row * width + column] = 1 / scale**2
    return matrix


class TestAveragePooling2(OperatorCase):
    shapes = ((1, 4, 6), (3, 8, 4), (2, 2, 2))
    bad_shapes = ((3, 7, 4), (3, 4, 7))
    scale = 2

    def make(self):
        return AveragePooling(self.scale)

    def dense(self, shape):
        return kron_channels(pooling_matrix(*shape[1:], self.scale), shape[0])


class TestAveragePooling3(TestAveragePooling2):
    shapes = ((1, 3, 9), (4, 15, 6))
    bad_shapes = ((3, 8, 9), )
    scale = 3


class TestAveragePooling1(TestAveragePooling2):
    shapes = ((2, 3, 4), )
    scale = 1
    bad_shapes = ()


class TestLargerAveragePooling2(TestAveragePooling2):
    """All but the smallest images are summed in another way."""

    @pytest.fixture(autouse=True)
    def all_are_larger(self, monkeypatch):
        monkeypatch.setattr(pooling_pass, 'SMALL', 0)
        monkeypatch.setattr(pooling_pass, 'PRODUCTS', 0)


class TestLargerAveragePooling3(TestLargerAveragePooling2, TestAveragePooling3):
    pass


class TestFusedAveragePooling2(TestAveragePooling2):
    """Large images take another path: block by block."""

    @pytest.fixture(autouse=True)
    def one_pass_over_several_blocks(self, monkeypatch):
        monkeypatch.setattr(pooling_pass, 'TEMPORARY_BYTES', 1)  # a block for each LR row

    def test_takes_the_fused_pass(self, monkeypatch):
        monkeypatch.setattr(pooling_pass, '_at_once', None)
        called, run = [], pooling_pass._by_blocks
        monkeypatch.setattr(pooling_pass, '_by_blocks', lambda *a: called.append(1) or run(*a))
        self.make().project(self.image(self.shapes[0]), self.measurement(self.shapes[0]))
        assert called


class TestFusedAveragePooling3(TestFusedAveragePooling2):
    shapes = ((1, 3, 9), (4, 15, 6))
    bad_shapes = ((3, 8, 9), )
    scale = 3


class ResizeCase(OperatorCase):
    """The matrix comes from torch's own resize of unit vectors, or from OpenCV's."""
    kernel, antialias, scale = 'bicubic', True, 3

    @property
    def shapes(self):
        s = self.scale
        return ((1, 3 * s, 4 * s), (2, 5 * s, 2 * s))

    @property
    def bad_shapes(self):
        return ((1, self.scale * 4 + 1, self.scale * 4), )

    def make(self):
        return SeparableResize(self.scale, self.kernel, self.antialias)

    def noise_gain(self, operator, shape):
        return operator.gains(*shape[1:])[1]

    def axis(self, size):
        eye = torch.eye(size, dtype=torch.float64).view(size, 1, size, 1).expand(-1, -1, -1, 2)
        small = F.interpolate(eye, (size // self.scale, 2), mode=self.kernel,
                              antialias=self.antialias, align_corners=False)
        return small[:, 0, :, 0].T.numpy()

    def dense(self, shape):
        return kron_channels(np.kron(self.axis(shape[1]), self.axis(shape[2])), shape[0])


class TestBicubicAntialias(ResizeCase):
    pass


def bicubic_matrix(size, scale):
    """torch's antialias bicubic along one axis."""
    case = TestBicubicAntialias()
    case.scale = scale
    return case.axis(size)


class TestBicubicAntialiasEven(ResizeCase):
    scale = 4


class TestBicubicMirrored(ResizeCase):
    """torch's resize of an image that is continued by its mirror image."""

    def make(self):
        return SeparableResize(self.scale, border='mirror')

    def axis(self, size):
        margin = 2 * self.scale  # as far as the kernel reaches
        rows = np.pad(np.arange(size), margin, mode='symmetric')
        wide = type(self).__base__.axis(self, size + 2 * margin)[2:-2]
        matrix = np.zeros((size // self.scale, size))
        for column, row in enumerate(rows):
            matrix[:, row] += wide[:, column]
        return matrix


class TestBicubicAlias(ResizeCase):
    antialias, scale = False, 2


class TestBilinearAntialias(ResizeCase):
    kernel, scale = 'bilinear', 2


class TestBilinearAlias(ResizeCase):
    kernel, antialias, scale = 'bilinear', False, 4


class TestBoxAntialias(ResizeCase):
    kernel = 'box'

    def axis(self, size):
        return np.kron(np.eye(size // self.scale), np.full((1, self.scale), 1 / self.scale))


class TestBoxAlias(ResizeCase):
    kernel, antialias = 'box', False

    def axis(self, size):
        matrix = np.zeros((size // self.scale, size))
        for i in range(len(matrix)):
            matrix[i, math.floor((i + 0.5) * self.scale)] = 1
        return matrix


class LanczosCase(ResizeCase):
    """Written as loops with math.sin."""
    kernel, lobes = 'lanczos', 3

    def axis(self, size):
        def sinc(t):
            return 1.0 if t == 0 else math.sin(math.pi * t) / (math.pi * t)

        stretch = self.scale if self.antialias else 1
        matrix = np.zeros((size // self.scale, size))
        for i in range(len(matrix)):
            centre = (i + 0.5) * self.scale - 0.5
            for j in range(-99, size + 99):
                t = (j - centre) / stretch
                if abs(t) < self.lobes and (0 <= j < size or not self.antialias):
                    matrix[i, min(max(j, 0), size - 1)] += sinc(t) * sinc(t / self.lobes)
            matrix[i] /= matrix[i].sum()
        return matrix


class TestLanczosAntialias(LanczosCase):
    pass


class TestLanczosAlias(LanczosCase):
    antialias, lobes, scale = False, 4, 2


class TestGrayscale(OperatorCase):
    shapes = ((3, 1, 2), (3, 5, 4))
    bad_shapes = ((1, 4, 4), (4, 5, 4))
    weights = (1 / 3, 1 / 3, 1 / 3)

    def make(self):
        return Grayscale(self.weights)

    def dense(self, shape):
        return torch.as_tensor(np.kron(np.array([self.weights]), np.eye(shape[1] * shape[2])))

    def test_refuses_bad_shapes(self, bad_shape):
        with pytest.raises(ValueError, match=f'expected 3 channels.*got {bad_shape[0]}'):
            self.make().A(self.image(bad_shape))


class TestLuma(TestGrayscale):
    weights = (0.299, 0.587, 0.114)


class TestChannelSum(TestGrayscale):
    weights = (1.0, 2.0, -0.5)


class TestBlockCompressedSensing(OperatorCase):
    shapes = ((1, 4, 8), (3, 8, 4))
    bad_shapes = ((1, 6, 8), )
    ratio, block, seed = 0.3, 4, 7

    def make(self):
        return BlockCompressedSensing(self.ratio, self.block, self.seed)

    def dense(self, shape):
        # the random rows are whatever A does to one block; the arrangement is made by loops
        b = self.block
        rows = self.materialise(self.make().A, (1, b, b))
        assert rows.shape[0] == math.ceil(self.ratio * b * b)
        channels, height, width = shape
        matrix = torch.zeros(channels, len(rows), height // b, width // b, *shape,
                             dtype=torch.float64)
        for c in range(channels):
            for i in range(height // b):
                for j in range(width // b):
                    matrix[c, :, i, j, c, i * b:(i + 1) * b, j * b:(j + 1) * b] = \
                        rows.view(-1, b, b)
        return matrix.view(channels * len(rows) * (height // b) * (width // b), -1)


class TestCompleteSensing(TestBlockCompressedSensing):
    ratio, block, shapes = 1.0, 2, ((2, 4, 6), )
    bad_shapes = ((2, 5, 6), )


class TestMasking(OperatorCase):
    shapes = ((1, 4, 5), (3, 4, 5))
    bad_shapes = ((3, 5, 4), )
    full_row_rank = False

    def make(self):
        return Masking([[1, 0, 0, 1, 1], [0, 0, 1, 1, 0], [1, 1, 1, 1, 0], [0, 0, 0, 0, 1]])

    def dense(self, shape):
        known = self.make().mask.flatten().double().repeat(shape[0])
        return torch.diag(known)


class TestMaskingPerChannel(TestMasking):
    shapes = ((2, 2, 3), )
    bad_shapes = ((3, 2, 3), (2, 2, 4))

    def make(self):
        return Masking(torch.tensor([[[1, 0, 1], [1, 1, 0]], [[0, 0, 1], [0, 1, 1]]]))

    def dense(self, shape):
        return torch.diag(torch.tensor([1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1, 1]).double())


class TestGreyPooling(OperatorCase):
    """Orthogonal rows first: the reversed product is the pseudo-inverse."""
    shapes = ((3, 2, 4), (3, 4, 6))
    bad_shapes = ((3, 3, 4), )

    def make(self):
        return Compose([dict(type='Grayscale'), dict(type='AveragePooling', scale=2)])

    def dense(self, shape):
        return torch.as_tensor(np.kron(np.full((1, 3), 1 / 3), pooling_matrix(*shape[1:], 2)))

    def test_is_exact(self):
        assert self.make().is_exact


class TestGreyAfterResize(TestGreyPooling):
    """Different axes: exact although the first factor is not tight."""

    def noise_gain(self, operator, shape):
        resize, grey = operator.operators
        return resize.gains(*shape[1:])[1] * grey.noise_gain

    def make(self):
        return Compose([SeparableResize(2), Grayscale((0.299, 0.587, 0.114))])

    def dense(self, shape):
        rows, columns = (bicubic_matrix(size, 2) for size in shape[1:])
        return torch.as_tensor(np.kron(np.array([[0.299, 0.587, 0.114]]), np.kron(rows, columns)))


class TestPoolingAfterResize(TestGreyPooling):
    """No factor orthogonal: consistent all the same, but not called exact."""
    shapes = ((1, 4, 8), (2, 8, 12))
    bad_shapes = ((1, 6, 8), )

    def make(self):
        return Compose([SeparableResize(2), AveragePooling(2)])

    def dense(self, shape):
        rows, columns = (bicubic_matrix(size, 2) for size in shape[1:])
        pooled = pooling_matrix(shape[1] // 2, shape[2] // 2, 2) @ np.kron(rows, columns)
        return kron_channels(pooled, shape[0])

    def test_is_exact(self):
        operator, shape = self.make(), self.shapes[0]
        assert not operator.is_exact
        dagger = self.materialise(operator.A_dagger, operator.measurement_shape(shape))
        difference = (dagger - torch.linalg.pinv(self.dense(shape))).abs().max()
        assert difference > 1e-3, 'the refusal to call it exact would be unfounded'


class TestCEM(OperatorCase):
    shapes = ((1, 8, 12), (2, 12, 8))
    bad_shapes = ((1, 8, 9), )
    consistent = False

    def make(self):
        return CEM(4)

    def dense(self, shape):
        rows, columns = (self.axis(size) for size in shape[1:])
        return kron_channels(np.kron(rows, columns), shape[0])

    @staticmethod
    def axis(size):
        """The antialias bicubic matrix with replicated instead of renormalised borders."""
        margin = 8
        wide = bicubic_matrix(size + 4 * margin, 4)[margin // 2:-margin // 2]
        matrix = wide[:, 2 * margin:-2 * margin].copy()
        matrix[:, 0] += wide[:, :2 * margin].sum(1)
        matrix[:, -1] += wide[:, -2 * margin:].sum(1)
        return matrix


class BlurAndDecimate(LinearOperator):
    """A 3 x 3 mean of every second pixel, borders replicated; no closed form is written."""
    scale = 2

    def measurement_shape(self, shape):
        self._check_divisible(shape, 2)
        return shape[0], shape[1] // 2, shape[2] // 2

    def image_shape(self, shape):
        return shape[0], shape[1] * 2, shape[2] * 2

    def _A(self, x):
        return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode='replicate'), 3, 2)


class TestNumericFallback(OperatorCase):
    shapes = ((1, 4, 6), (3, 8, 4))
    bad_shapes = ((3, 7, 4), )

    def make(self):
        return BlurAndDecimate()

    def dense(self, shape):
        def axis(size):
            matrix = np.zeros((size // 2, size))
            for row in range(size // 2):
                for tap in (-1, 0, 1):
                    matrix[row, min(max(2 * row + tap, 0), size - 1)] += 1 / 3
            return matrix

        return kron_channels(np.kron(axis(shape[1]), axis(shape[2])), shape[0])


def test_numeric_pseudo_inverse_is_refused_for_large_images():
    with pytest.raises(ValueError, match=r'BlurAndDecimate.* \(3, 64, 64\) .*12288.* at most 4096'):
        BlurAndDecimate().A_dagger(torch.zeros(1, 3, 32, 32))
