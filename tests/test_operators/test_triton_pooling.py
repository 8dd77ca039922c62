"""The CUDA kernel: its arithmetic in Triton's interpreter, the rest where there is a GPU."""
import os
import subprocess
import sys
import time

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mmpd.operators import (
    AveragePooling,
    pooling_decomposition,
    pooling_pass,
    replicate,
    triton_pooling,
)
from mmpd.operators.base import DeferredCheck
from mmpd.utils import triton_trust

INTERPRETED = """
import torch
from mmpd.operators import AveragePooling, triton_pooling
generator = torch.Generator().manual_seed(0)
for scale, h, w in ((2, 3, 5), (8, 2, 3), (64, 1, 2)):
    for dtype in (torch.float32, torch.float16, torch.bfloat16)[:3 if scale == 8 else 1]:
        x = torch.randn(2, 1, h * scale, w * scale, generator=generator).to(dtype)
        y = torch.randn(2, 1, h, w, generator=generator)
        operator = AveragePooling(scale)
        for measurement, strength in ((y, 1.0), (None, 0.25), (y.to(dtype), 0.5)):
            out = torch.empty_like(x)
            done, error = triton_pooling.project(x, measurement, scale, strength, out, True)
            assert done
            known = torch.zeros_like(y) if measurement is None else measurement
            expected = operator.project(x, known, strength)
            # half: sums in another order may round to the neighbouring number
            tolerance = 1e-5 if dtype == torch.float32 else 1e-2
            torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(error, known.float() - operator.A(x.float()),
                                       rtol=0, atol=1e-5)
            inplace = x.clone()
            assert triton_pooling.project(inplace, measurement, scale, strength, inplace) == (
                True, None)
            assert torch.equal(inplace, out)
print('same')
"""


def test_arithmetic_in_the_interpreter():
    pytest.importorskip('triton')
    run = subprocess.run([sys.executable, '-c', INTERPRETED], capture_output=True, text=True,
                         env={**os.environ, 'TRITON_INTERPRET': '1'})
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.strip().endswith('same')


def test_cpu_images_take_the_plain_path():
    x, y = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 2, 2)
    assert not triton_pooling.usable(x, y, 8)


def test_fake_images_take_the_plain_path(monkeypatch):
    monkeypatch.setattr(triton_pooling, 'usable', lambda *args: True)
    launched = []
    monkeypatch.setattr(triton_pooling, 'project', lambda *args, **kwargs: launched.append(args))
    check = DeferredCheck()
    with FakeTensorMode():
        x, y = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 2, 2)
        result = pooling_pass.fused_projection(x, y, 8, 1.0, check=check)
        check(y - y)  # tells of nothing
    assert result.shape == x.shape and not launched


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Images on the CPU take the kernel's way."""
    monkeypatch.setattr(pooling_pass, '_is_array', lambda x: False)
    trust = triton_pooling.Trust('the Triton kernel of PD')
    monkeypatch.setattr(triton_pooling, 'TRUST', trust)
    monkeypatch.setattr(triton_pooling, 'usable', lambda x, *_: x.device not in trust.failures)


def launched(change=None):
    """A kernel's launcher in plain PyTorch, which counts its launches; ``change`` spoils it."""
    def launch(x, y, scale, strength, out, want_error):
        launch.count += 1
        operator = AveragePooling(scale)
        error = (0 if y is None else y.float()) - operator.A(x.float())
        result = (x.float() + strength * replicate(error, scale)).to(x.dtype)
        out.copy_(result if change is None else change(result))
        return error if want_error else None
    launch.count = 0
    return launch


IMAGE, LR = torch.rand(1, 3, 256, 256), torch.rand(1, 3, 32, 32)


def test_a_kernel_that_cannot_be_built_is_given_up_with_a_line(monkeypatch, caplog, as_on_a_gpu):
    def kernel():
        raise RuntimeError('Failed to find C compiler')

    monkeypatch.setattr(triton_pooling, '_kernel', kernel)
    operator = AveragePooling(8)
    for _ in range(2):
        torch.testing.assert_close(operator.A(operator.project(IMAGE, LR)), LR, rtol=0, atol=1e-5)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1 and 'Failed to find C compiler' in lines[0] and 'on cpu' in lines[0]


def test_a_kernel_that_computes_something_else_is_not_used(monkeypatch, caplog, as_on_a_gpu):
    wrong = launched(lambda result: result * 1.0002)
    monkeypatch.setattr(triton_pooling, '_launch', wrong)
    operator = AveragePooling(8)
    for _ in range(2):
        torch.testing.assert_close(operator.A(operator.project(IMAGE, LR)), LR, rtol=0, atol=1e-5)
    line, = [record.getMessage() for record in caplog.records]
    assert 'not that of plain PyTorch for scale 8' in line and wrong.count == 1


def test_a_kernel_is_compared_once_for_each_scale_and_dtype(monkeypatch, caplog, as_on_a_gpu):
    right = launched()
    monkeypatch.setattr(triton_pooling, '_launch', right)
    counts = []
    for scale, dtype in ((8, torch.float32), (8, torch.float32), (4, torch.float32),
                         (4, torch.bfloat16), (4, torch.float16)):
        operator, before = AveragePooling(scale), right.count
        operator.project(IMAGE.to(dtype), torch.rand(1, 3, 256 // scale, 256 // scale))
        counts.append(right.count - before)
    assert counts == [3, 1, 3, 3, 3] and not caplog.records


def test_too_little_memory_is_no_fault_of_the_kernel(monkeypatch, caplog, as_on_a_gpu):
    def launch(*_):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 96.00 MiB')

    monkeypatch.setattr(triton_pooling, '_launch', launch)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        AveragePooling(8).project(IMAGE, LR)
    assert not triton_pooling.TRUST.failures and not caplog.records


class OnDevice:
    """What is asked of a tensor."""

    def __init__(self, device='cuda:0', dtype=torch.float32, contiguous=True):
        self.device, self.dtype, self.contiguous = torch.device(device), dtype, contiguous
        self.is_cuda = self.device.type == 'cuda'

    def is_contiguous(self):
        return self.contiguous


@pytest.mark.parametrize('x, y, scale, changes, expected', [
    ({}, {}, 8, {}, True), ({}, None, 2, {}, True), ({}, {}, 64, {}, True),
    (dict(dtype=torch.bfloat16), dict(dtype=torch.float16), 4, {}, True),
    (dict(device='cpu'), dict(device='cpu'), 8, {}, False), ({}, {}, 1, {}, False),
    ({}, {}, 6, {}, False), ({}, {}, 12, {}, False), ({}, {}, 128, {}, False),
    (dict(dtype=torch.float64), {}, 8, {}, False), ({}, dict(dtype=torch.float64), 8, {}, False),
    ({}, dict(device='cuda:1'), 8, {}, False), (dict(contiguous=False), {}, 8, {}, False),
    ({}, {}, 8, dict(installed=False), False), ({}, {}, 8, dict(failed='cuda:0'), False),
    ({}, {}, 8, dict(failed='cuda:1'), True), ({}, {}, 8, dict(capturing=True), False),
    ({}, {}, 8, dict(capturing=True, verified=(torch.device('cuda:0'), 8, torch.float32)), True),
    ({}, {}, 8, dict(capturing=True, verified=(torch.device('cuda:0'), 4, torch.float32)), False)])
def test_what_the_kernel_can_take(monkeypatch, x, y, scale, changes, expected):
    monkeypatch.setattr(triton_trust, 'installed', lambda: changes.get('installed', True))
    monkeypatch.setattr(triton_pooling.TRUST, 'failures', {torch.device(changes['failed']): 'why'}
                        if 'failed' in changes else {})
    monkeypatch.setattr(triton_pooling.TRUST, 'verified', {changes.get('verified')})
    monkeypatch.setattr(torch.cuda, 'is_current_stream_capturing',
                        lambda: changes.get('capturing', False))
    image, measurement = OnDevice(**x), y if y is None else OnDevice(**y)
    assert triton_pooling.usable(image, measurement, scale) == expected


@pytest.mark.parametrize('scale', (2, 8, 64))
@pytest.mark.parametrize('width', (1, 2, 3, 5, 16, 17, 70))
def test_tiles_cover_the_image_without_waste(monkeypatch, scale, width):
    """Of powers of two, as Triton wants them, in the registers of one program."""
    calls, width = [], width * scale

    class Kernel:

        def __getitem__(self, grid):
            return lambda *_, **sizes: calls.append((grid, sizes))

    monkeypatch.setattr(triton_pooling, '_kernel', Kernel)
    x = torch.zeros(2, 3, 2 * scale, width)
    for y, wanted in ((None, False), (torch.zeros(2, 3, 2, width // scale), True)):
        error = triton_pooling._launch(x, y, scale, 1, x, wanted)
        assert (error is not None) == wanted and (not wanted or error.shape == y.shape)
        (rows, tiles), sizes = calls.pop()
        assert rows == 2 * 3 * 2
        columns = sizes['COLUMNS']
        assert columns & (columns - 1) == 0 and columns % scale == 0
        assert columns == scale or columns * scale <= triton_pooling.TILE
        assert (tiles - 1) * columns < width <= tiles * columns
        assert tiles == 1 or 2 * columns * scale > triton_pooling.TILE  # as wide as may be
        assert columns == scale or columns < 2 * width
        assert (sizes['S'], sizes['HAS_Y'], sizes['STORE_ERROR']) == (scale, wanted, wanted)


@pytest.mark.parametrize('dtype, small, large', [
    (torch.float32, 5e-6, 2e-5), (torch.float16, 1.5 * 2**-10, 2.5 * 2**-10),
    (torch.bfloat16, 1.5 * 2**-7, 2.5 * 2**-7)])
@pytest.mark.parametrize('where', ('error', 'error without y', 'result', 'nan'))
def test_how_far_apart_the_kernel_may_be(monkeypatch, dtype, small, large, where):
    right = launched()

    def launch(x, y, scale, strength, out, want_error):
        error = right(x, y, scale, strength, out, want_error)
        if where == 'result':  # of the largest, in steps of its dtype
            out.view(-1)[out.float().abs().argmax()] *= 1 + 2 * off
        elif where == 'nan':
            out[0, 0, 0, 0] = float('nan') if off == large else 0 + out[0, 0, 0, 0]
        elif y is None or where == 'error':
            error[0, 1, 0, 2] += off
        return error

    monkeypatch.setattr(triton_pooling, '_launch', launch)
    off = small / 4 if where == 'result' else small
    triton_pooling._verify(torch.device('cpu'), 4, dtype)
    off = large
    with pytest.raises(RuntimeError, match='its result is not that of plain PyTorch for scale 4'):
        triton_pooling._verify(torch.device('cpu'), 4, dtype)


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')


@cuda
@pytest.mark.parametrize('scale', (2, 8, 16, 64))
@pytest.mark.parametrize('dtype', triton_trust.DTYPES, ids=str)
def test_equals_the_plain_path_on_cuda(scale, dtype):
    x = torch.randn(2, 3, 3 * scale, 5 * scale, device='cuda', dtype=dtype)
    y = torch.randn(2, 3, 3, 5, device='cuda')
    assert triton_pooling.usable(x, y, scale)
    expected = pooling_decomposition(x.cpu(), y.cpu(), scale)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(pooling_decomposition(x, y, scale).cpu(), expected,
                               rtol=tolerance, atol=tolerance)


@cuda
def test_refuses_nan_on_cuda():
    x = torch.rand(1, 3, 16, 16, device='cuda')
    x[0, 0, 3, 3] = float('nan')
    with pytest.raises(ValueError, match='image: expected finite values, got 1'):
        pooling_decomposition(x, torch.rand(1, 3, 2, 2, device='cuda'), 8)


@cuda
@pytest.mark.parametrize('scale', (8, 16))
def test_gradient_on_cuda(scale):
    x = torch.randn(1, 3, 64, 64, device='cuda', requires_grad=True)
    weight = torch.randn(1, 3, 64, 64, device='cuda')
    y = torch.randn(1, 3, 64 // scale, 64 // scale, device='cuda')
    (pooling_decomposition(x, y, scale) * weight).sum().backward()
    expected = weight - replicate(AveragePooling(scale).A(weight), scale)
    torch.testing.assert_close(x.grad, expected, rtol=0, atol=1e-5)


@cuda
@pytest.mark.parametrize('scale', (8, 16))
def test_bandwidth_on_cuda(scale):
    """At least 85 % of that of a copy, best of 20 each."""
    x = torch.rand(4, 3, 2048, 2048, device='cuda')
    y = torch.rand(4, 3, 2048 // scale, 2048 // scale, device='cuda')
    out = torch.empty_like(x)

    def best(function):
        times = []
        for _ in range(20):
            torch.cuda.synchronize()
            start = time.perf_counter()
            function()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return min(times)

    triton_pooling.project(x, y, scale, 1.0, out)
    ours = best(lambda: triton_pooling.project(x, y, scale, 1.0, out))
    assert best(lambda: out.copy_(x)) / ours >= 0.85
