"""The ops as Triton kernels: arithmetic in Triton's interpreter, what they take, compilation."""
import os
import re
import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from mmpd.compat import ext_ops, triton_ops
from mmpd.errors import InputError
from mmpd.utils import triton_trust

INTERPRETED = """
import importlib
import torch
from mmpd.compat import ext_ops, triton_ops
activation_module, resampling_module = (importlib.import_module('mmcv.ops.' + name) for name in (
    'fused_bias_leakyrelu', 'upfirdn2d'))

random = torch.Generator().manual_seed(0)
triton_ops.TILE, triton_ops.ROWS, triton_ops.ROW = 32, 2, 8  # several tiles of small images
torch.cuda.is_current_stream_capturing = lambda: False
f32, f16, bf16 = torch.float32, torch.float16, torch.bfloat16


def tensor(*shape, dtype=f32, last=False):
    values = torch.randn(*shape, generator=random).to(dtype)
    return values.contiguous(memory_format=torch.channels_last) if last else values


def same(ours, plain, dtype):
    assert ours.dtype == dtype and ours.shape == plain.shape, (ours.shape, plain.shape)
    tolerance = 1e-5 if dtype == f32 else 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(ours.double(), plain, rtol=tolerance, atol=4 * tolerance)


def resampled(shape, taps, up, down, pads, flip, gain, dtype=f32, last=False, weights=None):
    x, kernel = tensor(*shape, dtype=dtype, last=last), tensor(*taps, dtype=weights or dtype)
    rest = *up, *down, *pads, flip, gain
    ours = triton_ops._resampled(x, kernel, *rest, last)
    same(ours, ext_ops.plain_upfirdn2d(x.double(), kernel.double(), *rest), dtype)
    assert ours.is_contiguous(memory_format=torch.channels_last if last else
                              torch.contiguous_format)


# blur, upsampling, downsampling as in StyleGAN2; then factors, cropping, odd filters, layouts
resampled((1, 2, 3, 9), (4, 4), (1, 1), (1, 1), (2, 1, 2, 1), False, 1)
resampled((1, 1, 3, 5), (4, 4), (2, 2), (1, 1), (2, 1, 2, 1), False, 4., bf16)
resampled((1, 1, 6, 9), (4, 4), (1, 1), (2, 2), (1, 1, 1, 1), True, 0.5, f16)
resampled((2, 3, 4, 3), (2, 3), (1, 1), (1, 1), (0, 2, 1, -1), False, 1.5, f32, True)
resampled((2, 3, 3, 2), (3, 2), (2, 2), (1, 1), (1, 2, 0, 1), True, 1.5, bf16, True)
resampled((2, 3, 4, 5), (2, 3), (1, 2), (2, 1), (-1, 2, 3, 0), False, 1)
resampled((1, 2, 6, 7), (3, 4), (2, 2), (3, 3), (-1, 2, 0, -1), True, -2)
resampled((1, 1, 4, 4), (1, 4), (2, 1), (2, 1), (-3, 4, 0, 0), False, 1, f32, False, bf16)
resampled((1, 1, 4, 4), (4, 1), (1, 3), (1, 2), (0, 0, 4, -2), False, 1, bf16, False, f32)
resampled((1, 1, 2, 2), (2, 2), (4, 4), (1, 1), (3, 3, 1, 5), False, 1)
resampled((1, 1, 3, 2), (7, 8), (4, 4), (1, 1), (5, 4, 3, 6), True, 1)
resampled((1, 1, 3, 3), (1, 1), (1, 1), (1, 1), (0, 0, -1, 0), False, 3)
x, kernel = tensor(1, 1, 3, 4), tensor(3, 2).T
same(triton_ops._resampled(x, kernel, 1, 1, 1, 1, 1, 1, 1, 1, True, 1, False),
     ext_ops.plain_upfirdn2d(x.double(), kernel.double(), 1, 1, 1, 1, 1, 1, 1, 1, True, 1), f32)

SHAPES = ((3, 40), False), ((70, 3), False), ((2, 3, 50), False), ((3, 4, 3, 5), False), (
    (3, 4, 3, 5), True), ((1, 40, 1, 2), True), ((2, 2, 2, 2, 3), False)
for shape, last in SHAPES:
    for dtype in (f32, f16, bf16)[:3 if last else 1]:
        for grad in (0, 1):
            for bias in (tensor(shape[1], dtype=dtype), torch.empty(0, dtype=dtype)):
                x, refer = (tensor(*shape, dtype=dtype, last=last) for _ in range(2))
                refer[:, 0] = 0  # takes the slope
                rest = 3, grad, 0.1, 1.5
                ours = triton_ops._activated(x, bias, refer if grad else bias[:0], *rest[1:],
                                             triton_ops._is_last(x))
                same(ours, ext_ops.plain_bias_leakyrelu(
                    x.double(), bias.double(), refer.double(), *rest), dtype)
                assert ours.stride() == x.stride()

# below mmcv's autograd functions, with second derivatives
def derivatives(kernels):
    takes = triton_ops._takes
    triton_ops._takes = lambda x: kernels and not triton_ops._is_differentiated(x)
    random.manual_seed(1)
    x, bias = tensor(1, 2, 3, 4).requires_grad_(), tensor(2).requires_grad_()
    kernel, weight = tensor(2, 2), tensor(1, 2, 3, 4)
    out = resampling_module._upfirdn2d_cuda(up=2, down=1, padding=[1, 0, 0, 1], gain=2.).apply(
        activation_module.FusedBiasLeakyReLUFunction.apply(x * weight, bias, 0.2, 2**0.5), kernel)
    first = torch.autograd.grad(out.square().sum(), (x, bias), create_graph=True)
    second = torch.autograd.grad(sum(one.square().sum() for one in first), (x, bias))
    triton_ops._takes = takes
    return out, *first, *second


ran = []
for name in ('activate', 'resample'):
    def counted(*arguments, function=getattr(triton_ops, name), name=name):
        out = function(*arguments)
        assert out is not None
        ran.append(name)
        return out
    setattr(triton_ops, name, counted)
for ours, plain in zip(derivatives(True), derivatives(False)):
    torch.testing.assert_close(ours, plain)
assert ran.count('activate') >= 4 and ran.count('resample') >= 4, ran
print('same')
"""


def needs_triton(*version):
    """Skip where Triton is missing or too old: its interpreter and compiler were called otherwise.
    """
    found = pytest.importorskip('triton').__version__
    if tuple(map(int, re.findall(r'\d+', found)[:2])) < version:
        pytest.skip(f'Triton {found} is too old')


def test_arithmetic_in_the_interpreter():
    needs_triton(3, 0)
    run = subprocess.run([sys.executable, '-c', INTERPRETED], capture_output=True, text=True,
                         env={**os.environ, 'TRITON_INTERPRET': '1'})
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.splitlines()[-1].startswith('same')


OLD = torch.__version__ < '2.2'  # compared as a version; it pretends no GPU where there is none
needs_fake_gpu = pytest.mark.skipif(OLD, reason='PyTorch 2.1 pretends no GPU')
LAST = torch.channels_last


@pytest.fixture
def trusts(monkeypatch):
    """As on a GPU that no kernel has run on yet, switched on."""
    for name in ('ACTIVATION', 'RESAMPLING'):
        monkeypatch.setattr(triton_ops, name, triton_trust.Trust(f'the Triton kernel of {name}'))
    monkeypatch.setattr(triton_trust, 'installed', lambda: True)
    monkeypatch.setattr(torch.cuda, 'is_current_stream_capturing', lambda: False)
    monkeypatch.setattr(triton_ops, 'switched_on', lambda: True)
    return triton_ops


@pytest.fixture
def fake_gpu(trusts, monkeypatch):
    """Tensors of a GPU without their values."""
    monkeypatch.setattr(triton_ops, 'PLAIN', (FakeTensor, ))
    with FakeTensorMode(), torch.no_grad():
        yield lambda *shape, dtype=torch.float32, device='cuda:0': torch.empty(
            shape, dtype=dtype, device=device)


@needs_fake_gpu
@pytest.mark.parametrize('changes, expected', [
    (dict(), True), (dict(format=LAST), True), (dict(dtype=torch.float16), True),
    (dict(dtype=torch.bfloat16, weights=torch.float32), True),
    (dict(dtype=torch.float64), False), (dict(weights=torch.float64), False),
    (dict(device='cpu'), False), (dict(other='cuda:1'), False), (dict(other='cpu'), False),
    (dict(taps=(1, 8)), True), (dict(taps=(8, 1)), True), (dict(taps=(1, 9)), False),
    (dict(taps=(9, 1)), False), (dict(taps=(4, )), False), (dict(taps=(0, 4)), False),
    (dict(up=(1, 4)), True),
    (dict(up=(4, 5)), False), (dict(up=(5, 1)), False), (dict(down=(4, 1)), True),
    (dict(down=(5, 1)), False), (dict(down=(1, 5)), False), (dict(down=(1, 0)), False),
    (dict(up=(0, 1)), False), (dict(view=lambda x: x[..., ::2]), False),
    (dict(view=lambda x: x[0]), False), (dict(view=lambda x: x[:0]), False),
    (dict(view=lambda x: x[None]), False),
    (dict(view=lambda x: x.transpose(2, 3)), False), (dict(pads=(-2, -2, 0, 0)), True),
    (dict(pads=(0, 0, -2, -2)), True), (dict(pads=(-3, -2, 0, 0)), False),
    (dict(pads=(0, 0, -2, -3)), False), (dict(gradient=0), False), (dict(gradient=1), False),
    (dict(compiling=True), False), (dict(tracing=True), False), (dict(off=True), False),
    (dict(installed=False), False), (dict(fails=True), False), (dict(plain=True), False)])
def test_what_resampling_takes(fake_gpu, monkeypatch, changes, expected):
    options = dict(dtype=torch.float32, weights=None, device='cuda:0', other=None, taps=(4, 4),
                   up=(1, 1), down=(1, 1), pads=(0, 0, 0, 0), format=None, view=lambda x: x)
    o = type('Options', (), {**options, **changes})
    x = fake_gpu(2, 3, 8, 8, dtype=o.dtype, device=o.device)
    x = o.view(x.contiguous(memory_format=o.format) if o.format else x)
    kernel = fake_gpu(*o.taps, dtype=o.weights or o.dtype, device=o.other or o.device)
    on_the_way(monkeypatch, changes, (x, kernel), triton_ops.RESAMPLING)
    assert triton_ops.can_resample(x, kernel, *o.up, *o.down, *o.pads, False, 1) == expected


def on_the_way(monkeypatch, changes, tensors, trust):
    """What both ops look at besides the tensors' form."""
    if 'gradient' in changes:
        tensors[changes['gradient']].requires_grad_()
        monkeypatch.setattr(torch, 'is_grad_enabled', lambda: True)
    if 'compiling' in changes:
        monkeypatch.setattr(triton_ops, '_is_compiling', lambda: True)
    if 'tracing' in changes:
        monkeypatch.setattr(torch.jit, 'is_tracing', lambda: True)
    if 'off' in changes:
        monkeypatch.setattr(triton_ops, 'switched_on', lambda: False)
    if 'installed' in changes:
        monkeypatch.setattr(triton_trust, 'installed', lambda: False)
    if 'fails' in changes:
        trust.failures[torch.device('cuda:0')] = 'why'
    if 'plain' in changes:
        monkeypatch.undo()
        assert FakeTensor not in triton_ops.PLAIN
        monkeypatch.setattr(triton_ops, 'switched_on', lambda: True)


@needs_fake_gpu
@pytest.mark.parametrize('grad', (0, 1))
@pytest.mark.parametrize('changes, expected', [
    (dict(), True), (dict(bias=()), True), (dict(format=LAST, refer_format=LAST), True),
    (dict(shape=(2, 3)), True), (dict(shape=(2, 3, 5)), True), (dict(shape=(2, 3, 2, 4, 5)), True),
    (dict(shape=(3, )), False), (dict(shape=(0, 3, 4)), False), (dict(bias=(2, )), False),
    (dict(dtype=torch.bfloat16), True), (dict(dtype=torch.float64), False),
    (dict(bias_dtype=torch.float16), False), (dict(device='cpu'), False),
    (dict(other='cuda:1'), False), (dict(view=lambda x: x[..., ::2]), False),
    (dict(view=lambda x: x.transpose(1, 2)), False), (dict(bias_step=2), False),
    (dict(alpha=0.), True), (dict(alpha=-0.1), False), (dict(gradient=0), False),
    (dict(gradient=1), False), (dict(gradient=2), 'forward'), (dict(format=LAST), 'forward'),
    (dict(refer_format=LAST), 'forward'), (dict(refer_dtype=torch.float16), 'forward'),
    (dict(refer_shape=(2, 3, 4, 1)), 'forward'), (dict(compiling=True), False),
    (dict(tracing=True), False), (dict(off=True), False), (dict(installed=False), False),
    (dict(fails=True), False), (dict(plain=True), False)])
def test_what_the_activation_takes(fake_gpu, monkeypatch, grad, changes, expected):
    options = dict(shape=(2, 3, 4, 5), dtype=torch.float32, bias=(3, ), bias_dtype=None,
                   device='cuda:0', other=None, format=None, view=lambda x: x, bias_step=1,
                   alpha=0.2, refer_format=None, refer_dtype=None, refer_shape=None)
    o = type('Options', (), {**options, **changes})
    x = fake_gpu(*o.shape, dtype=o.dtype, device=o.device)
    x = o.view(x.contiguous(memory_format=o.format) if o.format else x)
    size = o.bias[0] if o.bias else 0
    bias = fake_gpu(size * o.bias_step, dtype=o.bias_dtype or o.dtype,
                    device=o.other or o.device)[::o.bias_step]
    refer = fake_gpu(*(o.refer_shape or x.shape), dtype=o.refer_dtype or o.dtype, device=o.device)
    refer = refer.contiguous(memory_format=o.refer_format) if o.refer_format else refer
    on_the_way(monkeypatch, changes, (x, bias, refer), triton_ops.ACTIVATION)
    expected = not grad if expected == 'forward' else expected
    assert triton_ops.can_activate(x, bias, refer, 3, grad, o.alpha, 1.) == expected


@needs_fake_gpu
def test_tensors_without_values_take_the_plain_way(trusts, monkeypatch):
    monkeypatch.setattr(triton_ops, 'resample', None)
    monkeypatch.setattr(triton_ops, 'activate', None)
    with FakeTensorMode():
        x, kernel = torch.ones(1, 2, 4, 4, device='cuda'), torch.ones(4, 4, device='cuda')
        assert ext_ops.upfirdn2d(x, kernel, 2, 2, 1, 1, 2, 1, 2, 1, False, 4.).shape[2:] == (8, 8)
        assert ext_ops.fused_bias_leakyrelu(x, x[0, :, 0, 0], x).shape == x.shape


@pytest.mark.parametrize('value, expected', [(None, False), ('0', False), ('1', True),
                                             (' 1 ', True)])
def test_the_switch(monkeypatch, value, expected):
    monkeypatch.delenv('MMPD_TRITON_OPS', raising=False)
    if value is not None:
        monkeypatch.setenv('MMPD_TRITON_OPS', value)
    assert triton_ops.switched_on.__wrapped__() is expected


@pytest.mark.parametrize('value', ('yes', '', '2', '01'))
def test_the_switch_is_0_or_1(monkeypatch, value):
    monkeypatch.setenv('MMPD_TRITON_OPS', value)
    with pytest.raises(InputError, match=f"^MMPD_TRITON_OPS: expected 0 or 1, got '{value}'$"):
        triton_ops.switched_on.__wrapped__()


@pytest.mark.parametrize('on', (False, True))
def test_what_runs_is_told(monkeypatch, on):
    lines = []
    monkeypatch.setattr(ext_ops, 'print_log', lambda text, **_: lines.append(text))
    monkeypatch.setattr(triton_ops, 'switched_on', lambda: on)
    ext_ops._tell_once.__wrapped__()
    assert ('as Triton kernels' in lines[0]) == on and 'plain PyTorch' in lines[0]


@pytest.fixture
def launched(trusts, monkeypatch):
    """CPU tensors take the kernels' way, whose launchers are plain PyTorch that counts."""
    counts = dict(activate=0, resample=0)

    def activated(x, bias, refer, grad, alpha, scale, last):
        counts['activate'] += 1
        out = ext_ops.plain_bias_leakyrelu(x.double(), bias.double(), refer.double(), 3, grad,
                                           alpha, scale).to(x.dtype)
        return counts.get('spoil', lambda out: out)(out)

    def resampled(x, kernel, *rest):
        counts['resample'] += 1
        out = ext_ops.plain_upfirdn2d(x.double(), kernel.double(), *rest[:-1]).to(x.dtype)
        return counts.get('spoil', lambda out: out)(out)

    monkeypatch.setattr(triton_ops, '_takes', lambda x: True)
    monkeypatch.setattr(triton_ops, '_activated', activated)
    monkeypatch.setattr(triton_ops, '_resampled', resampled)
    return counts


X, KERNEL, BIAS = (torch.randn(shape, generator=torch.Generator().manual_seed(0))
                   for shape in ((2, 3, 6, 7), (3, 4), (3, )))
REST = 2, 1, 1, 2, 1, 2, 0, -1, False, 1.5


def both(x=X, kernel=KERNEL, bias=BIAS, grad=0, flip=False):
    """Results of both ops, and of their plain forms."""
    rest, refer = (*REST[:-2], flip, 1.5), x.flip(0)
    return ((ext_ops.upfirdn2d(x, kernel, *rest),
             ext_ops.fused_bias_leakyrelu(x, bias, refer, grad=grad)),
            (ext_ops.plain_upfirdn2d(x, kernel, *rest),
             ext_ops.plain_bias_leakyrelu(x, bias, refer, grad=grad)))


def test_each_variant_is_compared_before_it_is_used(launched, caplog):
    found = []
    for options in (dict(), dict(), dict(x=X.bfloat16(), kernel=KERNEL.bfloat16(),
                                         bias=BIAS.bfloat16()),
                    dict(x=X.contiguous(memory_format=LAST)), dict(grad=1, flip=True), dict(),
                    dict(bias=BIAS[:0], kernel=KERNEL.half())):
        before = dict(launched)
        ours, plain = both(**options)
        for one, other in zip(ours, plain, strict=True):
            tolerance = 0.02 if one.dtype == torch.bfloat16 or 'kernel' in options else 1e-5
            torch.testing.assert_close(one, other, rtol=tolerance,
                                       atol=tolerance * max(1, other.abs().max().item()))
        found.append({name: launched[name] - before[name] for name in launched})
    first, known = dict(activate=3, resample=3), dict(activate=1, resample=1)
    assert found == [first, known, first, first, first, known, first] and not caplog.records


@pytest.mark.parametrize('spoil', [
    lambda out: out * 1.0002, lambda out: out + 3e-4, lambda out: out.roll(1, -1),
    lambda out: out * float('nan')])
def test_a_kernel_that_computes_something_else_is_not_used(launched, caplog, spoil):
    launched['spoil'] = spoil
    for _ in range(2):
        for one, other in zip(*both(), strict=True):
            assert torch.equal(one, other)
    assert (launched['activate'], launched['resample']) == (1, 1)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    for line, name in zip(lines, ('RESAMPLING', 'ACTIVATION'), strict=True):
        assert f'the Triton kernel of {name} cannot be used on cpu, plain PyTorch runs' in line
        assert 'its result is not that of plain PyTorch for a small image of torch.float32' in line


@pytest.mark.parametrize('taps', ((4, 4), (8, 1), (1, 8)), ids=str)
@pytest.mark.parametrize('factors', ((1, 1, 1, 1), (2, 1, 1, 1), (1, 1, 4, 3)), ids=str)
def test_what_is_compared_takes_several_tiles(launched, factors, taps):
    results = []
    launched['spoil'] = lambda out: results.append(out) or out
    ext_ops.fused_bias_leakyrelu(X, BIAS, X)
    one, two, _ = results
    assert one[0, 0].numel() > triton_ops.TILE
    wide = 1 << (two[0, 0].numel() - 1).bit_length()
    assert two[0, 0].numel() < wide and two[:, :, 0, 0].numel() > triton_ops.TILE // wide
    ext_ops.upfirdn2d(X, torch.ones(taps), *factors, 3, 3, 3, 3, False, 1.)
    for out in results[3:5]:
        assert out.shape[2] > triton_ops.ROWS and out.shape[3] > triton_ops.ROW
    assert len(results) == 6
    for out in (one, two, *results[3:5]):  # of values that differ
        assert out.unique().numel() > 0.9 * out.count_nonzero()


def test_one_spoiled_value_is_noticed_wherever_it_is(launched):
    """In every row of tiles, channel and image that is compared."""
    for place in (0, 0.3, 0.6, 0.999):
        def spoil(out, place=place):
            out.view(-1)[int(place * out.numel())] += 1e-3
            return out
        launched['spoil'] = spoil
        for trust in (triton_ops.ACTIVATION, triton_ops.RESAMPLING):
            trust.failures.clear()
        both()
        assert triton_ops.ACTIVATION.failures and triton_ops.RESAMPLING.failures


class Kernel:
    """Takes down how it is launched."""

    def __init__(self):
        self.calls = []

    def __getitem__(self, grid):
        return lambda *arguments, **sizes: self.calls.append((grid, arguments, sizes))


def is_power_of_two(*sizes):
    return all(size > 0 and size & (size - 1) == 0 for size in sizes)


@pytest.mark.parametrize('shape, last, rows, columns', [
    ((2, 3), False, 2, 3), ((5, 2000), False, 5, 2000), ((2, 3, 1), False, 6, 1),
    ((2, 3, 4, 5), False, 6, 20), ((1, 1, 7, 9), False, 1, 63),
    ((2, 3, 64, 64), False, 6, 4096), ((2, 3, 4, 5), True, 40, 3),
    ((1, 1025, 3, 5), True, 15, 1025), ((600, 4, 2, 2), False, 2400, 4)])
def test_tiles_cover_what_is_activated(monkeypatch, shape, last, rows, columns):
    kernel = Kernel()
    monkeypatch.setattr(triton_ops, '_kernels', lambda: (kernel, None))
    x = torch.zeros(shape)
    x = x.contiguous(memory_format=LAST) if last else x
    last = triton_ops._is_last(x)
    for grad in (0, 1):
        bias = torch.zeros(0 if grad else shape[1])
        out = triton_ops._activated(x, bias, x, grad, 0.2, 2, last)
        (programs, ), arguments, sizes = kernel.calls.pop()
        assert arguments[4:7] == (rows, columns, shape[1]) and out.stride() == x.stride()
        high, wide = sizes['ROWS'], sizes['COLUMNS']
        assert is_power_of_two(high, wide) and high * wide == triton_ops.TILE
        assert wide == triton_ops.TILE or wide // 2 < columns <= wide
        assert programs == -(-rows // high) * -(-columns // wide)
        assert (sizes['BIAS'], sizes['GRAD'], sizes['LAST']) == (not grad, bool(grad), last)


@pytest.mark.parametrize('shape, last, up, planes, across', [
    ((2, 3, 4, 5), False, 1, 6, 5), ((1, 2, 3, 70), False, 2, 2, 140),
    ((2, 3, 4, 5), True, 1, 2, 15), ((1, 2, 1, 300), False, 1, 2, 300),
    ((1, 1, 300, 1), False, 1, 1, 1), ((2, 70, 4, 5), True, 2, 2, 700)])
def test_tiles_cover_what_is_resampled(monkeypatch, shape, last, up, planes, across):
    kernel = Kernel()
    monkeypatch.setattr(triton_ops, '_kernels', lambda: (None, kernel))
    x = torch.zeros(shape)
    x = x.contiguous(memory_format=LAST) if last else x
    out = triton_ops._resampled(x, torch.ones(3, 3), up, up, 1, 1, 1, 1, 1, 1, True, 1, last)
    assert out.shape[2:] == (shape[2] * up, shape[3] * up)
    (programs, ), arguments, sizes = kernel.calls.pop()
    high, wide = sizes['ROWS'], sizes['COLUMNS']
    assert is_power_of_two(high, wide) and high * wide <= triton_ops.ROWS * triton_ops.ROW
    assert wide == triton_ops.ROW or wide // 2 < across <= wide
    assert high == triton_ops.ROWS * triton_ops.ROW // wide or high // 2 < out.shape[2] <= high
    assert programs == planes * -(-out.shape[2] // high) * -(-across // wide)
    assert arguments[7] == (shape[1] if last else 1)  # so many values side by side
    assert all(start >= 0 for start in arguments[8:12])


COMPILED = """
import sys
import warnings
from mmpd.compat import triton_ops
from mmpd.operators import triton_pooling
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

warnings.simplefilter('ignore')
NAMES = dict(f32='*fp32', f16='*fp16', bf16='*bf16')


def built(kernel, numbers, aligned, capability, pointer, **constants):
    signature, attributes = {}, {}
    for place, name in enumerate(kernel.arg_names):
        kind = 'constexpr' if name in constants else NAMES[pointer] if name.endswith(
            '_ptr') else 'fp32' if name in numbers else 'i32'
        signature[name] = kind
        if kind.startswith('*') or name in aligned:
            attributes[place, ] = [['tt.divisibility', 16]]
    return compile(ASTSource(kernel, signature, constants, attributes),
                   target=GPUTarget('cuda', capability, 32)).asm


activate, resample = triton_ops._kernels()
for capability in (80, 90):
    for pointer in NAMES:
        for grad, last in ((False, False), (True, True)):
            asm = built(activate, ('slope', 'gain'), ('columns', ), capability, pointer,
                        BIAS=not grad, GRAD=grad, LAST=last, ROWS=1, COLUMNS=triton_ops.TILE)
            print(len(asm['cubin']), 'st.global.v4' in asm['ptx'])
    for pointer, up, down, inner in (('f32', 2, 1, 1), ('f16', 1, 2, 1), ('bf16', 1, 1, None)):
        constants = {} if inner is None else dict(inner=inner)
        asm = built(resample, ('gain', ), ('inner', ), capability, pointer, UP_Y=up, UP_X=up,
                    DOWN_Y=down, DOWN_X=down, TAPS_Y=4, TAPS_X=4, FLIP=False,
                    ROWS=triton_ops.ROWS, COLUMNS=triton_ops.ROW, **constants)
        print(len(asm['cubin']), ('st.global.v' in asm['ptx']) == (inner is None))
    asm = built(triton_pooling._kernel(), ('strength', ), ('width', ), capability, 'f32', S=8,
                COLUMNS=512, HAS_Y=True, STORE_ERROR=True)
    print(len(asm['cubin']), 'st.global.v4' in asm['ptx'])
"""


@pytest.mark.slow
def test_kernels_compile_without_a_gpu(tmp_path):
    """To machine code for A100 and H100, with wide stores where memory is aligned."""
    needs_triton(3, 3)
    run = subprocess.run([sys.executable, '-c', COMPILED], capture_output=True, text=True,
                         env={**os.environ, 'TRITON_CACHE_DIR': str(tmp_path)})
    assert run.returncode == 0, run.stderr[-3000:]
    rows = [line.split() for line in run.stdout.splitlines() if line]
    assert len(rows) == 20 and all(int(size) > 1000 for size, _ in rows)
    assert {wide for _, wide in rows} == {'True'}


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')


@cuda
@pytest.mark.parametrize('dtype', triton_trust.DTYPES, ids=str)
@pytest.mark.parametrize('format', (torch.contiguous_format, LAST), ids=str)
def test_equal_the_plain_ops_on_cuda(monkeypatch, dtype, format):
    monkeypatch.setattr(triton_ops, 'switched_on', lambda: True)
    x = torch.randn(2, 16, 33, 150, device='cuda').to(dtype, memory_format=format)
    kernel, bias = KERNEL.cuda().to(dtype), torch.randn(16, device='cuda', dtype=dtype)
    assert triton_ops.can_resample(x, kernel, *REST)
    assert triton_ops.can_activate(x, bias, x, 3, 1, 0.2, 1.)
    wide = (x.double(), kernel.double(), bias.double())
    for grad in (0, 1):
        for one, other in zip(both(x, kernel, bias, grad)[0], both(*wide, grad)[1], strict=True):
            tolerance = 1e-5 if dtype == torch.float32 else 1e-2
            assert one.dtype == dtype and one.is_contiguous(memory_format=format)
            torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance)
    assert not triton_ops.ACTIVATION.failures and not triton_ops.RESAMPLING.failures
