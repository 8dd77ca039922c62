"""What a user switches on around an operator: inference mode, reduced precision, fake tensors."""
import threading
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from mmpd.operators import (
    CEM,
    AveragePooling,
    BlockCompressedSensing,
    Compose,
    Grayscale,
    LinearOperator,
    Masking,
    SeparableResize,
    base,
    pooling_pass,
    resolve_operator,
)

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


def switch_of(name):
    setting = torch.backends
    for part in name.split('.'):
        setting = getattr(setting, part)
    return setting


@new_switches
@pytest.mark.parametrize('switch, value, kind', [
    ('cuda.matmul', 'tf32', 'matmul'), ('mkldnn.matmul', 'bf16', 'matmul'),
    ('cudnn.conv', 'tf32', 'conv'), ('mkldnn.conv', 'bf16', 'conv')])
def test_reduced_precision_is_computed_in_float64(switch, value, kind):
    """The switches are the whole process's: read, and never written."""
    setting, device = switch_of(switch), 'cpu' if 'mkldnn' in switch else 'cuda'
    before = setting.fp32_precision
    try:
        setting.fp32_precision = 'ieee'
        assert base.full_dtype(torch.float32, device, (kind, )) == torch.float32
        setting.fp32_precision = value
        assert base.full_dtype(torch.float32, device, (kind, )) == torch.float64
        assert base.full_dtype(torch.float32, device, ()) == torch.float32
        x = torch.rand(1, 3, 160, 160)
        for operator in (AveragePooling(8), SeparableResize(8), CEM(8), BlockCompressedSensing()):
            y = operator.A(torch.rand(1, 3, 160, 160))
            expected = operator.project(x.double(), y.double())
            torch.testing.assert_close(operator.project(x, y).double(), expected, rtol=0, atol=1e-5)
            wide = x.contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(operator.project(wide, y).double(), expected, rtol=0,
                                       atol=1e-5)
            assert operator.project(x, y).dtype == torch.float32
            assert setting.fp32_precision == value
    finally:
        setting.fp32_precision = before


def backends(**switches):
    """torch.backends with switches by their dotted names, and no others."""
    found = SimpleNamespace()
    for name, value in switches.items():
        *path, last = name.split('__')
        at = found
        for part in path:
            at.__dict__.setdefault(part, SimpleNamespace())
            at = getattr(at, part)
        setattr(at, last, value)
    return found


OLD = [('cpu', 'conv', True, 'highest', False), ('cuda', 'conv', True, 'highest', True),
       ('cuda', 'conv', False, 'medium', False), ('cpu', 'matmul', True, 'highest', False),
       ('cpu', 'matmul', False, 'high', True), ('cuda', 'matmul', False, 'medium', True),
       ('meta', 'matmul', True, 'medium', False), ('mps', 'conv', True, 'medium', False)]


@pytest.mark.parametrize('device, kind, tf32, matmul, reduced', OLD)
def test_the_switches_of_older_versions(monkeypatch, device, kind, tf32, matmul, reduced):
    monkeypatch.setattr(torch, 'backends', backends(cudnn__allow_tf32=tf32))
    monkeypatch.setattr(torch, 'get_float32_matmul_precision', lambda: matmul)
    wanted = torch.float64 if reduced else torch.float32
    assert base.full_dtype(torch.float32, device, (kind, )) == wanted
    assert base.full_dtype(torch.float64, device, (kind, )) == torch.float64


@pytest.mark.parametrize('value, reduced', [('none', False), ('ieee', False), ('tf32', True),
                                            ('bf16', True)])
@pytest.mark.parametrize('name, device, kind', [
    ('cuda__matmul', 'cuda', 'matmul'), ('cudnn__conv', 'cuda', 'conv'),
    ('mkldnn__matmul', 'cpu', 'matmul'), ('mkldnn__conv', 'cpu', 'conv')])
def test_the_switches_of_newer_versions(monkeypatch, name, device, kind, value, reduced):
    names = ('cuda__matmul', 'cudnn__conv', 'mkldnn__matmul', 'mkldnn__conv')
    monkeypatch.setattr(torch, 'backends', backends(fp32_precision='none', **{
        f'{one}__fp32_precision': value if one == name else 'none' for one in names}))
    others = {'matmul', 'conv'} - {kind}
    assert base.full_dtype(torch.float32, device, others) == torch.float32
    assert base.full_dtype(torch.float32, device, (*others, kind)) == (
        torch.float64 if reduced else torch.float32)
    assert base.full_dtype(torch.float32, 'meta', (kind, )) == torch.float32


@pytest.mark.parametrize('older', (False, True))
def test_whether_autocast_is_on(monkeypatch, older):
    for cpu in (True, False):
        with torch.autocast('cpu', torch.bfloat16, enabled=cpu), monkeypatch.context() as patch:
            if older:  # before 2.4 it is not asked for a device
                patch.setattr(torch, 'is_autocast_enabled', partial(bool, not cpu))
                patch.setattr(torch, 'is_autocast_cpu_enabled', partial(bool, cpu))
                assert base.autocasts('cuda') is not cpu
            assert base.autocasts('cpu') is cpu
    assert base.autocasts('meta') is False
    with base.no_autocast('meta'), torch.autocast('cpu', torch.bfloat16):
        assert base.autocasts('cpu')
        with base.no_autocast('cpu'):
            assert not base.autocasts('cpu')


class Watched(SeparableResize):
    """Runs a function in the middle of a projection."""

    def _A(self, x):
        self.meanwhile(x)
        return super()._A(x)


@new_switches
def test_another_thread_keeps_its_precision():
    """Process-wide switches, put back by the first of two threads, took the second's precision."""
    operator, setting = Watched(5), torch.backends.mkldnn.matmul
    x, y = torch.rand(1, 1, 45, 45), torch.rand(1, 1, 9, 9)
    seen, before = [], setting.fp32_precision
    expected = SeparableResize(5).project(x, y)

    def other_thread(_):
        operator.meanwhile = lambda image: seen.append((setting.fp32_precision, image.dtype))
        thread = threading.Thread(target=operator.project, args=(x, y))
        thread.start()
        thread.join()

    try:
        setting.fp32_precision = 'bf16'
        operator.meanwhile = other_thread
        torch.testing.assert_close(operator.project(x, y), expected, rtol=0, atol=1e-6)
        assert seen == [('bf16', torch.float64)] and setting.fp32_precision == 'bf16'
    finally:
        setting.fp32_precision = before


def all_operators():
    return [SeparableResize(3), SeparableResize(3, border='mirror'), CEM(3),
            BlockCompressedSensing(0.25, 3), AveragePooling(3), Grayscale((0.2, 0.3, 0.5)),
            Every(2.0), Compose([Grayscale(), SeparableResize(3)])]


class Numeric(LinearOperator):
    """No closed forms; what it does depends on a plain attribute and on a buffer."""

    def __init__(self, gain):
        super().__init__()
        self.gain = gain
        self.register_buffer('weights', torch.tensor([1.0, 3.0]), persistent=False)

    def measurement_shape(self, shape):
        return shape[0], shape[1], shape[2] // 3

    def image_shape(self, shape):
        return shape[0], shape[1], shape[2] * 3

    def _A(self, x):
        first, second = self.weights.to(x)
        return self.gain * (first * x[..., ::3] + second * x[..., 1::3])


class Every(Numeric):
    """Without a buffer, which would be a real tensor among fake ones."""

    def _A(self, x):
        return self.gain * x[..., ::3] - x[..., 2::3]


@pytest.mark.parametrize('number', range(len(all_operators())))
@pytest.mark.parametrize('fake', (True, False), ids=('fake', 'meta'))
def test_shapes_alone_do_not_spoil_what_is_kept(number, fake):
    size = (1, 3, 6, 18 + 3 * number + 60 * fake)  # kept for no other test
    operator = all_operators()[number]
    with FakeTensorMode() if fake else torch.device('meta'):
        x = torch.rand(size)
        y = operator.A(x)
        assert y.shape[1:] == operator.measurement_shape(size[1:])
        for result in (operator.project(x, y), operator.A_dagger(y)):
            assert result.shape == size and result.is_meta != fake
    x, y = torch.rand(size, dtype=torch.float64), y.new_zeros(y.shape, device='cpu') if not fake \
        else torch.zeros(y.shape)
    result = operator.project(x, y.double())
    fresh = all_operators()[number].project(x, y.double())
    assert type(result) is torch.Tensor and torch.equal(result, fresh)
    with FakeTensorMode() if fake else torch.device('meta'):  # and the other way round
        x = torch.rand(size)
        assert operator.project(x, operator.A(x)).shape == size


def test_operators_from_configs_are_not_kept_from_fake_mode():
    cfg = dict(type='Masking', mask=[[1, 0], [1, 1]])
    for _ in range(2):
        with FakeTensorMode():
            try:
                resolve_operator(cfg, (2, 2), (2, 2))
            except RuntimeError:  # it looks at the values of its mask
                pass
        operator = resolve_operator(cfg, (2, 2), (2, 2))
        assert type(operator.mask) is torch.Tensor and type(operator) is Masking


def test_the_numeric_pseudo_inverse_follows_what_the_operator_depends_on():
    operator, x, y = Numeric(2.0), torch.rand(1, 1, 2, 6).double(), torch.rand(1, 1, 2, 2).double()
    for change in (lambda: None, lambda: setattr(operator, 'gain', 5.0),
                   lambda: operator.weights.mul_(-0.5),
                   lambda: setattr(operator, '_A', lambda image: image[..., 2::3])):
        change()
        for _ in range(2):
            torch.testing.assert_close(operator.A(operator.project(x, y)), y, rtol=0, atol=1e-12)


def test_the_numeric_pseudo_inverse_is_kept(monkeypatch):
    calls, operator, y = [], Numeric(2.0), torch.rand(1, 1, 2, 2)
    original = torch.linalg.pinv
    monkeypatch.setattr(torch.linalg, 'pinv', lambda *args: calls.append(1) or original(*args))
    for dtype in (torch.float32, torch.float64, torch.float32):
        operator.A_dagger(y.to(dtype))
    assert len(calls) == 1


def test_a_numeric_operator_made_in_inference_mode():
    with torch.inference_mode():
        operator = Numeric(3.0)
        operator.A_dagger(torch.rand(1, 1, 2, 2))
    x, y = torch.rand(1, 1, 2, 6).double(), torch.rand(1, 1, 2, 2).double()
    torch.testing.assert_close(operator.A(operator.project(x, y)), y, rtol=0, atol=1e-12)


def test_the_fallback_adjoint_has_a_gradient_only_where_one_is_wanted():
    operator, y = Numeric(2.0), torch.rand(1, 1, 2, 2, requires_grad=True)
    assert operator.A_adjoint(y).requires_grad
    assert not operator.A_adjoint(y.detach()).requires_grad
    with torch.no_grad():
        assert not operator.A_adjoint(y).requires_grad


class Synchronisations(TorchDispatchMode):
    """Counts what waits for a GPU: values that Python looks at."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.count += name in ('_local_scalar_dense', 'is_nonzero', 'nonzero', 'item')
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('operator', [AveragePooling(4), SeparableResize(4)], ids=str)
@pytest.mark.parametrize('size', (16, 256))
def test_the_deferred_check_does_not_wait(operator, size):
    x = torch.rand(1, 3, size, size, requires_grad=True)
    y = torch.rand(1, 3, size // 4, size // 4)
    counts = []
    for check in (base.DeferredCheck(), False, True):
        with Synchronisations() as mode:
            operator.project(x, y, check=check).sum().backward()
        counts.append(mode.count)
    assert counts[:2] == [0, 0] and counts[2] >= 1


@pytest.mark.parametrize('size', (16, 256))
@pytest.mark.parametrize('value', (float('nan'), float('inf')))
def test_the_deferred_check_tells_one_call_later(size, value):
    check, operator = base.DeferredCheck(), AveragePooling(4)
    x, y = torch.rand(1, 3, size, size), torch.rand(1, 3, size // 4, size // 4)
    bad = x.clone()
    bad[0, 1, 2, 3] = value
    operator.project(x, y, check=check)
    operator.project(bad, y, check=check)
    with pytest.raises(ValueError, match='earlier batch: expected finite values'):
        operator.project(x, y, check=check)
    operator.project(x, y, check=check)  # told once


class Event:
    """A GPU's: whether what came before has been done."""
    done = False

    def query(self):
        return self.done


def test_the_deferred_check_looks_at_what_has_arrived():
    """In the order of the batches; what is still queued on the GPU is left for later."""
    check, events = base.DeferredCheck(), [Event() for _ in range(3)]
    small = torch.zeros(1)
    for value, event in zip((1., float('nan'), 2.), events, strict=True):
        check._pending.append((torch.tensor(value), event))
    check.tell()
    assert len(check._pending) == 3
    events[0].done = events[2].done = True
    check.tell()
    assert len(check._pending) == 2
    events[1].done = True
    with pytest.raises(ValueError, match='earlier batch'):
        check(small)
    assert not check._pending  # told once
    check(small)
    check(small.to('meta'))
    assert not check._pending
    check(-torch.tensor([1., float('inf'), 2.]))
    with pytest.raises(ValueError, match='earlier batch'):
        check.tell()


def test_a_finite_sum_that_overflows_is_no_fault():
    base.check_finite(torch.full((4, ), 3e38))
    base.check_finite(torch.full((4, ), float('nan'), device='meta'))
    with pytest.raises(ValueError, match='image: expected finite values, got 2 NaN or inf among 3'):
        base.check_finite(torch.tensor([float('nan')]), torch.tensor([float('inf'), 1, -torch.inf]))
    with pytest.raises(ValueError, match='measurement: expected finite values, got 1 NaN'):
        base.check_finite(torch.tensor([torch.inf]), torch.ones(2), torch.tensor([torch.nan, 1.]))
    with pytest.raises(ValueError, match=r'too large for torch.float32 \(largest .x. 3\)'):
        base.check_finite(torch.tensor([torch.inf]), torch.tensor([1., -3.]), torch.ones(1))


def test_run_check_calls_what_it_is_given():
    bad, calls = torch.tensor([torch.nan]), []
    base.run_check(False, bad, bad, bad)
    base.run_check(lambda *args: calls.append(args), bad, 1, 2)
    assert calls == [(bad, 1, 2)]
    with pytest.raises(ValueError, match='image: expected finite'):
        base.run_check(True, bad, bad, bad)


def test_an_operator_without_its_methods_says_so():
    operator, x = LinearOperator(), torch.rand(1, 1, 2, 2)
    for call in (operator.A, operator.A_dagger, operator._A):
        with pytest.raises(NotImplementedError):
            call(x)
    operator.measurement_shape = operator.image_shape = lambda shape: shape
    with pytest.raises(NotImplementedError):
        operator.A(x)


def test_the_limit_of_numeric_pseudo_inverses(monkeypatch):
    operator, y = Numeric(2.0), torch.rand(1, 1, 2, 2)  # of images of 12 numbers
    monkeypatch.setattr(base, 'DENSE_LIMIT', 12)
    assert operator.A_dagger(y).shape == (1, 1, 2, 6)
    monkeypatch.setattr(base, 'DENSE_LIMIT', 11)
    with pytest.raises(ValueError, match=r'\(1, 2, 6\) is too large .*12 numbers, at most 11'):
        operator.A_dagger(y)


def test_small_changes_of_an_operator_are_seen():
    operator, y = Numeric(2.0), torch.rand(1, 1, 2, 2, dtype=torch.float64)
    first = operator.A_dagger(y)
    operator.gain *= 1 + 1e-9
    torch.testing.assert_close(operator.A_dagger(y), first * (1 - 1e-9), rtol=1e-12, atol=0)


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


@pytest.mark.parametrize('options', [dict(), dict(check=base.DeferredCheck()), dict(bounds=(0, 1)),
                                     dict(strength=0.5), dict(noise_std=0.1)],
                         ids=' '.join)
@pytest.mark.parametrize('memory', (torch.contiguous_format, torch.channels_last))
def test_in_place_refuses_before_it_overwrites(options, memory):
    x, y = torch.rand(1, 3, 64, 64).contiguous(memory_format=memory), torch.rand(1, 3, 8, 8)
    x[0, 2, -1, -1] = float('nan')
    before = x.clone()
    with pytest.raises(ValueError, match='image: expected finite values, got 1'):
        AveragePooling(8).project(x, y, inplace=True, **options)
    assert torch.equal(x.nan_to_num(), before.nan_to_num())
    assert AveragePooling(8).project(x, y, inplace=True, check=False) is x


def test_in_place_reads_the_image_once_less_where_it_is_taken_at_once(monkeypatch):
    x, y = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 8, 8)
    monkeypatch.setattr(pooling_pass, 'average_pool', None)
    AveragePooling(8).project(x, y, inplace=True)


@pytest.mark.parametrize('strength', [-0.1, 1.5, float('nan'), '0.5'])
@pytest.mark.parametrize('operator', [AveragePooling(2), SeparableResize(2)], ids=str)
def test_strength_is_checked(operator, strength):
    with pytest.raises(ValueError, match='strength: expected a number in'):
        operator.project(torch.rand(1, 1, 4, 4), torch.rand(1, 1, 2, 2), strength)
