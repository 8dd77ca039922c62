"""One operator after another."""
from torch import nn

from ..utils.validation import ArgumentError, check_sequence
from .base import LinearOperator
from .builder import OPERATORS, build_operator

__all__ = ['Compose']


def _exact(operators):
    """Whether the reversed product of the A† is the pseudo-inverse of the product.

    (A B)† = B† A† holds when the rows of B, applied first, are orthogonal and
    equally long, or when A and B act on different axes (a Kronecker product).
    """
    if not all(operator.is_exact for operator in operators):
        return False
    tight, axes = operators[0].tight, operators[0].axes
    for operator in operators[1:]:
        if not (tight or not axes & operator.axes):
            return False
        tight, axes = tight and operator.tight, axes | operator.axes
    return True


@OPERATORS.register_module()
class Compose(LinearOperator):
    """A = A_k ⋯ A_2 A_1, A† = A_1† A_2† ⋯ A_k†.

    The reversed product is the pseudo-inverse only under the conditions of
    ``_exact`` (for instance Grayscale or AveragePooling first); ``is_exact``
    says so.  Otherwise, as for masking after a bicubic resize, it is an
    approximation.  If every A_i has full row rank the result is still exactly
    consistent, since A A† = I; only the null-space part is then not the
    orthogonal projection of the input.

    Args:
        operators (Sequence[dict | LinearOperator]): In the order of application.

    Example:
        >>> import torch
        >>> from mmpd.operators import Compose
        >>> operator = Compose([dict(type='Grayscale'), dict(type='AveragePooling', scale=4)])
        >>> tuple(operator.A(torch.rand(1, 3, 16, 16)).shape)
        (1, 1, 4, 4)
        >>> operator.is_exact
        True
    """

    def __init__(self, operators):
        super().__init__()
        built = check_sequence(operators, 'operators', self._build)
        for operator in built:
            if not isinstance(operator, LinearOperator):
                raise ArgumentError('operators: expected mmpd operators, got '
                                    f'{type(operator).__name__}')
        self.operators = nn.ModuleList(built)
        self.is_exact = _exact(built)
        self.unit_range = any(operator.unit_range for operator in built)
        self.tight = all(operator.tight for operator in built)
        self.axes = frozenset().union(*(operator.axes for operator in built))
        self.products = tuple({kind for operator in built for kind in operator.products})
        scales = [operator.scale for operator in built]
        if None not in scales:
            self.scale = 1
            for scale in scales:
                self.scale *= scale

    @staticmethod
    def _build(cfg, name):
        try:
            return build_operator(cfg)
        except ValueError as error:
            raise ArgumentError(f'{name}: {error}') from error

    @property
    def noise_gain(self):
        """Product of the parts' gains: exact for tight parts, else an upper bound."""
        gain = 1.0
        for operator in self.operators:
            if operator.noise_gain is None:
                return None
            gain *= operator.noise_gain
        return gain

    def measurement_shape(self, shape):
        return self._chain(shape, 'image', [op.measurement_shape for op in self.operators])

    def image_shape(self, shape):
        return self._chain(shape, 'measurement',
                           [op.image_shape for op in reversed(self.operators)])

    @staticmethod
    def _chain(shape, name, steps):
        result = shape
        for step in steps:
            try:
                result = step(result)
            except ValueError as error:
                raise ValueError(f'{error} (in a chain that was given the {name} '
                                 f'shape {tuple(shape)})') from None
        return result

    def _A(self, x):
        for operator in self.operators:
            x = operator._A(x)
        return x

    def _A_dagger(self, y):
        for operator in reversed(self.operators):
            y = operator._A_dagger(y)
        return y

    def _A_adjoint(self, y):
        for operator in reversed(self.operators):
            y = operator._A_adjoint(y)
        return y
