"""Where Triton kernels are used: what is asked before, and what happens after a failure."""
import pytest
import torch

from mmpd.utils import triton_trust
from mmpd.utils.triton_trust import Trust, require_same

DEVICE, OTHER = torch.device('cuda:0'), torch.device('cuda:1')


@pytest.mark.parametrize('found', (None, object()))
def test_whether_triton_is_there(monkeypatch, found):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: {'triton': found}[name])
    assert triton_trust.installed.__wrapped__() == (found is not None)


@pytest.mark.parametrize('changes, expected', [
    ({}, True), (dict(installed=False), False), (dict(failed=DEVICE), False),
    (dict(failed=OTHER), True), (dict(capturing=True), False),
    (dict(capturing=True, verified=(DEVICE, 8, torch.float32)), True),
    (dict(capturing=True, verified=(DEVICE, 4, torch.float32)), False),
    (dict(capturing=True, verified=(OTHER, 8, torch.float32)), False)])
def test_when_a_kernel_may_be_launched(monkeypatch, changes, expected):
    trust = Trust('the kernel')
    monkeypatch.setattr(triton_trust, 'installed', lambda: changes.get('installed', True))
    monkeypatch.setattr(torch.cuda, 'is_current_stream_capturing',
                        lambda: changes.get('capturing', False))
    if 'failed' in changes:
        trust.failures[changes['failed']] = 'why'
    trust.verified.add(changes.get('verified'))
    assert trust.usable(DEVICE, (8, torch.float32)) == expected


def test_each_variant_is_compared_once_on_each_device(caplog):
    trust, calls = Trust('the kernel'), []
    for device, variant in ((DEVICE, (1, )), (DEVICE, (1, )), (DEVICE, (2, )), (OTHER, (1, ))):
        assert trust.run(device, variant, lambda: calls.append('compared'),
                         lambda: calls.append('ran') or 7) == (True, 7)
    assert calls == ['compared', 'ran', 'ran', 'compared', 'ran', 'compared', 'ran']
    assert not caplog.records and not trust.failures


@pytest.mark.parametrize('when', ('verify', 'launch'))
def test_a_failure_is_told_once_and_ends_the_use_on_that_device(caplog, when):
    def fails():
        raise RuntimeError('Failed to find C compiler')

    trust = Trust('the kernel of sums')
    functions = dict(verify=lambda: None, launch=lambda: 3)
    functions[when] = fails
    assert trust.run(DEVICE, (1, ), **functions) == (False, None)
    assert list(trust.failures) == [DEVICE] and trust.verified == (
        set() if when == 'verify' else {(DEVICE, 1)})
    line, = [record.getMessage() for record in caplog.records]
    assert line == ('the kernel of sums cannot be used on cuda:0, plain PyTorch runs instead: '
                    'Failed to find C compiler')


def test_too_little_memory_is_no_fault_of_the_kernel(caplog):
    def launch():
        raise torch.cuda.OutOfMemoryError('CUDA Out of memory. Tried to allocate 96.00 MiB')

    trust = Trust('the kernel')
    with pytest.raises(torch.cuda.OutOfMemoryError):
        trust.run(DEVICE, (1, ), lambda: None, launch)
    assert not trust.failures and not caplog.records


@pytest.mark.parametrize('dtype, small, large', [
    (torch.float32, 9e-6, 1.1e-5), (torch.float16, 1.9 * 2**-10, 2.1 * 2**-10),
    (torch.bfloat16, 1.9 * 2**-7, 2.1 * 2**-7)])
def test_how_far_apart_results_may_be(dtype, small, large):
    require_same(small, dtype, 'it')
    for apart in (large, float('nan')):
        with pytest.raises(RuntimeError, match='its result is not that of plain PyTorch for it'):
            require_same(apart, dtype, 'it')
