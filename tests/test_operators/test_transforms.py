"""The projection under torch.func, forward AD, torch.compile and torch.export, small and large."""
import pytest
import torch
from torch.autograd import forward_ad

from mmpd.operators import (
    CEM,
    AveragePooling,
    BlockCompressedSensing,
    Grayscale,
    Masking,
    SeparableResize,
    average_pool,
    replicate,
)

SIZES = (16, 320)  # three simple operations; the fused pass
STRENGTH = 0.75


def formula(x, y):
    return x + STRENGTH * replicate(y - average_pool(x, 4), 4)


def ours(x, y):
    return AveragePooling(4).project(x, y, STRENGTH)


def case(size, seed=0, channels=2):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(1, channels, size, size, generator=generator, dtype=torch.float64),
            torch.randn(1, channels, size // 4, size // 4, generator=generator,
                        dtype=torch.float64))


def assert_same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('size', SIZES)
def test_jvp_and_forward_ad(size):
    point, tangent = case(size), case(size, seed=1)
    assert_same(torch.func.jvp(ours, point, tangent), torch.func.jvp(formula, point, tangent))
    for of_x, of_y in ((True, False), (False, True), (True, True)):
        with forward_ad.dual_level():
            x = forward_ad.make_dual(point[0], tangent[0]) if of_x else point[0]
            y = forward_ad.make_dual(point[1], tangent[1]) if of_y else point[1]
            found, wanted = (forward_ad.unpack_dual(f(x, y)).tangent for f in (ours, formula))
            assert_same(found, wanted)


@pytest.mark.parametrize('size', SIZES)
def test_vjp(size):
    point, (cotangent, _) = case(size), case(size, seed=1)
    (value, found), (expected, wanted) = (torch.func.vjp(f, *point) for f in (ours, formula))
    assert_same(value, expected)
    assert_same(found(cotangent), wanted(cotangent))


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('in_dims', ((0, 0), (0, None), (None, 0), (2, 1)))
def test_vmap(size, in_dims):
    pairs = [case(size, seed) for seed in range(3)]
    x, y = (torch.stack([pair[k] for pair in pairs], dim) if dim is not None else pairs[0][k]
            for k, dim in enumerate(in_dims))
    assert_same(torch.func.vmap(ours, in_dims)(x, y), torch.func.vmap(formula, in_dims)(x, y))
    found, wanted = (torch.func.vmap(torch.func.grad(lambda a, b, f=f: (f(a, b)**3).sum(), (0, 1)),
                                     in_dims)(x, y) for f in (ours, formula))
    assert_same(found, wanted)


@pytest.mark.parametrize('size', (8, 160))
def test_hessian_vector_product(size):
    """Forward over reverse."""
    point, tangent = case(size, channels=3), case(size, seed=1, channels=3)
    found, wanted = (torch.func.jvp(torch.func.grad(lambda a, b, f=f: (f(a, b)**3).sum(), (0, 1)),
                                    point, tangent)[1] for f in (ours, formula))
    assert_same(found, wanted)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('dtype', (torch.float64, torch.float32))
def test_compile_without_a_graph_break(size, dtype):
    torch._dynamo.reset()
    x, y = (tensor.to(dtype) for tensor in case(size))
    results = []
    for function in (torch.compile(ours, fullgraph=True, backend='aot_eager'), formula):
        a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
        value = function(a, b)
        (value**3).sum().backward()
        results.append((value.detach(), a.grad, b.grad))
    tolerance = 1e-11 if dtype == torch.float64 else 1e-3
    torch.testing.assert_close(*results, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('operator', (
    SeparableResize(4), CEM(4), Grayscale(), Masking(torch.eye(16)),
    BlockCompressedSensing(0.25, block=8)), ids=str)
def test_other_operators_compile_without_a_graph_break(operator):
    torch._dynamo.reset()
    (x, _), (z, _) = case(16, channels=3), case(16, seed=1, channels=3)
    x, z = x.float(), z.float()
    y = operator.A(z)
    compiled = torch.compile(operator.project, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(x, y), operator.project(x, y))
    before = torch.get_float32_matmul_precision()
    try:  # code compiled before a switch is not used after it
        torch.set_float32_matmul_precision('medium')
        torch.testing.assert_close(compiled(x, y), operator.project(x, y), rtol=0, atol=0)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize('size', SIZES)
def test_export(size):
    class Module(torch.nn.Module):
        def forward(self, x, y):
            return ours(x, y)

    program = torch.export.export(Module(), case(size))
    assert_same(program.module()(*case(size, seed=1)), formula(*case(size, seed=1)))


@pytest.mark.parametrize('operator', (SeparableResize(4), CEM(4), Grayscale()), ids=str)
def test_other_operators_under_torch_func(operator):
    x, z = case(16, channels=3)[0], case(16, seed=1, channels=3)[0]
    y = operator.A(z)
    value, tangent = torch.func.jvp(operator.project, (x, y), (z, 2 * y))
    assert_same(tangent, operator.project(z, 2 * y))  # it is linear
    together = torch.func.vmap(operator.project, (0, None))(torch.stack([x, z]), y)
    assert_same(together, torch.stack([value, operator.project(z, y)]))
