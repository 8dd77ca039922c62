"""The stand-ins for mmcv's compiled ops: same values and derivatives as mmcv's references.

``mmcv.ops`` sends CUDA tensors through autograd functions around ``mmcv._ext``.
Those functions do not look at the device, so driving them with CPU tensors runs
what a GPU runs.
"""
import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.graph import saved_tensors_hooks

from mmpd.compat import ext_ops

modules = importlib.import_module('mmagic.models.editors.stylegan2.stylegan2_modules')
up_module = importlib.import_module('mmcv.ops.upfirdn2d')
act_module = importlib.import_module('mmcv.ops.fused_bias_leakyrelu')


def untouched(module):
    """A second copy of one of mmcv's modules, as it is without mmpd: the reference."""
    spec = importlib.util.spec_from_file_location(module.__name__, module.__file__)
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy


up_reference, act_reference = untouched(up_module), untouched(act_module)


@pytest.fixture(scope='module', autouse=True)
def stand_ins():
    """Have mmcv's functions call the stand-ins even where mmcv is compiled."""
    patch = pytest.MonkeyPatch()
    patch.setattr(up_module, 'ext_module', ext_ops)
    patch.setattr(act_module, 'ext_module', ext_ops)
    yield
    patch.undo()


def filtered(x, kernel, **kwargs):
    """What ``mmcv.ops.upfirdn2d`` does with a CUDA tensor."""
    return up_module._upfirdn2d_cuda(**kwargs).apply(x, kernel)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**31), batch=st.integers(1, 2), channels=st.integers(1, 3),
       size=st.tuples(st.integers(6, 9), st.integers(6, 9)),
       taps=st.tuples(st.integers(1, 4), st.integers(1, 4)), separable=st.booleans(),
       up=st.tuples(st.integers(1, 3), st.integers(1, 3)),
       down=st.tuples(st.integers(1, 3), st.integers(1, 3)),
       padding=st.tuples(*[st.integers(-1, 3)] * 4), flip=st.booleans(),
       gain=st.sampled_from([1, 0.5, 4]))
def test_upfirdn2d_equals_mmcvs_reference(seed, batch, channels, size, taps, separable, up, down,
                                          padding, flip, gain):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, channels, *size, generator=rng, dtype=torch.float64)
    kernel = torch.randn(taps[0] if separable else taps, generator=rng)
    if separable and taps[0] == 1:
        # mmcv's CUDA path makes a full 1x1 filter of it and then applies the whole gain
        gain = 1
    kwargs = dict(up=list(up), down=list(down), padding=list(padding), flip_filter=flip, gain=gain)
    expected = up_reference._upfirdn2d_ref(x, kernel, **kwargs)
    actual = filtered(x, kernel, **kwargs)
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)  # float32 filters


# StyleGAN2's uses (upsampling, downsampling, blur), then a cropping and an anisotropic one
UPFIRDN = [
    dict(up=2, padding=[2, 1, 2, 1], gain=4),
    dict(down=2, padding=[1, 1, 1, 1]),
    dict(padding=[2, 1, 2, 1]),
    dict(up=2, down=3, padding=[-1, 2, 0, -1], flip_filter=True),
    dict(up=[1, 2], down=[2, 1], padding=[0, 3, 1, 2]),
]


@pytest.mark.parametrize('kwargs', UPFIRDN, ids=range(len(UPFIRDN)))
@pytest.mark.parametrize('separable', [False, True])
def test_upfirdn2d_first_and_second_derivative(kwargs, separable):
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    kernel = torch.tensor([1., 3., 3., 1.]) / 8
    if not separable:
        kernel = torch.outer(kernel, kernel)

    def function(x):
        return filtered(x, kernel, **kwargs)

    assert gradcheck(function, x)
    assert gradgradcheck(function, x)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_upfirdn2d_keeps_half_precision(dtype):
    if OLD and dtype == torch.float16:
        pytest.skip('PyTorch 2.1 has no convolution of float16 on a CPU')
    x = torch.randn(1, 2, 8, 8)
    kernel = torch.ones(4, 4) / 16
    half = filtered(x.to(dtype), kernel, up=2, padding=[2, 1, 2, 1], gain=4)
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), filtered(x, kernel, up=2, padding=[2, 1, 2, 1],
                                                      gain=4), rtol=0.02, atol=0.02)


def activated(x, bias, slope=0.2, scale=2**0.5):
    """What ``mmcv.ops.fused_bias_leakyrelu`` does with a CUDA tensor."""
    return act_module.FusedBiasLeakyReLUFunction.apply(x, bias, slope, scale)


SHAPES = [(3, 4), (2, 3, 5), (2, 3, 4, 5)]


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('slope, scale', [(0.2, 2**0.5), (0.1, 1.0)])
def test_fused_bias_leakyrelu_equals_mmcvs_reference(shape, slope, scale):
    x, bias = torch.randn(shape), torch.randn(shape[1])
    torch.testing.assert_close(activated(x, bias, slope, scale),
                               act_reference.bias_leakyrelu_ref(x, bias, slope, scale))


@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_fused_bias_leakyrelu_first_and_second_derivative(shape):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(shape[1], dtype=torch.float64, requires_grad=True)
    assert gradcheck(activated, (x, bias))
    assert gradgradcheck(activated, (x, bias))


def test_without_a_bias_the_features_are_left_alone():
    x = torch.tensor([[-1., 2.]])
    out = ext_ops.fused_bias_leakyrelu(x, torch.ones(0), torch.ones(0), scale=1)
    assert out.tolist() == [[pytest.approx(-0.2), 2]] and x.tolist() == [[-1, 2]]


@pytest.mark.parametrize('bias', [torch.ones(1), torch.ones(3), torch.ones(1, 2)], ids=str)
def test_a_bias_that_is_not_one_value_per_channel_is_refused(bias):
    with pytest.raises(ValueError, match=r'bias: expected shape \(2,\), got \('):
        ext_ops.fused_bias_leakyrelu(torch.ones(1, 2), bias, torch.ones(0))


@pytest.mark.parametrize('act, grad', [(1, 0), (3, 2)])
def test_fused_bias_leakyrelu_refuses_what_it_cannot_do(act, grad):
    with pytest.raises(ValueError, match=f'act={act}, grad={grad}'):
        ext_ops.fused_bias_leakyrelu(torch.ones(1, 2), torch.ones(2), torch.ones(0), act, grad)


def test_r1_penalty_reaches_the_weights():
    """The double backward pass of StyleGAN2's discriminator, through both ops."""
    weight = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(3, dtype=torch.float64)
    kernel = torch.ones(4, 4) / 16
    real = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)

    def penalty(weight):
        x = activated(torch.einsum('oc,nchw->nohw', weight, real), bias)
        score = filtered(x, kernel, down=2, padding=1).pow(2).sum()
        gradient, = torch.autograd.grad(score, real, create_graph=True)
        return gradient.pow(2).sum()

    gradient, = torch.autograd.grad(penalty(weight), weight)
    step = torch.zeros_like(weight)
    step[1, 2] = 1e-5
    numeric = (penalty(weight + step) - penalty(weight - step)) / 2e-5
    torch.testing.assert_close(gradient[1, 2], numeric, rtol=1e-5, atol=1e-6)


def kept(function):
    """Shapes of what the graph of ``function()`` keeps for the backward pass."""
    shapes = []
    with saved_tensors_hooks(lambda tensor: shapes.append(tuple(tensor.shape)), lambda kept: kept):
        function()
    return shapes


OLD = torch.__version__ < '2.2'  # compared as a version
needs_lite = pytest.mark.skipif(ext_ops.has_compiled_ops(), reason='mmcv is compiled here')


@needs_lite
def test_without_the_stand_in_mmcv_ops_fail(monkeypatch):
    monkeypatch.delitem(sys.modules, ext_ops.NAME)
    with pytest.raises(ModuleNotFoundError, match=r'mmcv\._ext'):
        importlib.import_module(ext_ops.NAME)


@needs_lite
def test_installed_once_and_said_once_when_first_used(monkeypatch):
    lines = []
    monkeypatch.setattr(ext_ops, 'print_log', lambda text, **_: lines.append(text))
    monkeypatch.delitem(sys.modules, ext_ops.NAME)
    ext_ops._tell_once.cache_clear()
    ext_ops.install_ext_ops()
    module = sys.modules[ext_ops.NAME]
    ext_ops.install_ext_ops()
    assert sys.modules[ext_ops.NAME] is module
    assert module.upfirdn2d is ext_ops.upfirdn2d
    assert module.fused_bias_leakyrelu is ext_ops.fused_bias_leakyrelu
    assert not lines  # importing mmpd says nothing
    module.fused_bias_leakyrelu(torch.ones(1, 2), torch.zeros(2), torch.ones(1, 2))
    assert not lines  # without a GPU nothing is slower than with compiled ops
    if OLD:
        pytest.skip('PyTorch 2.1 pretends no GPU where there is none')
    with FakeTensorMode():
        x = torch.ones(1, 2, device='cuda')
        for _ in range(2):
            module.fused_bias_leakyrelu(x, x[0], x)
    assert len(lines) == 1 and 'upfirdn2d' in lines[0]


def test_other_ops_name_themselves_and_the_remedy():
    module = ext_ops._StandIn(ext_ops.NAME)
    with pytest.raises(RuntimeError, match=r'"deform_conv_forward".*pip install mmcv==2\.1\.0'):
        module.deform_conv_forward(torch.ones(1))
    assert not hasattr(module, '__path__')  # import machinery must see no package


@needs_lite
def test_tensors_of_every_device_take_the_stand_ins_and_keep_as_little():
    """MMagic's modules have mmcv's public functions do on a CPU what they do on a GPU."""
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    bias, kernel = torch.randn(3, requires_grad=True), torch.ones(4, 4) / 16
    uses = [lambda m: m.upfirdn2d(x, kernel, padding=(2, 1)),
            lambda m: m.upfirdn2d(x, kernel, up=2, padding=(2, 1, 2, 1), gain=4)]
    for use in uses:
        assert kept(lambda use=use: use(modules)) == [(4, 4)]  # the kernel alone
        assert kept(lambda use=use: use(up_reference)) != [(4, 4)]
        assert torch.equal(use(modules), use(up_reference))
    out = modules.fused_bias_leakyrelu(x, bias)
    assert torch.equal(out, act_reference.fused_bias_leakyrelu(x, bias))
    # what is kept is the output, which the next layer keeps anyway
    assert out.grad_fn.saved_tensors[0].data_ptr() == out.data_ptr()
    for one, other in zip(torch.autograd.grad(out.square().sum(), (x, bias)),
                          torch.autograd.grad(act_reference.fused_bias_leakyrelu(
                              x, bias).square().sum(), (x, bias)), strict=True):
        torch.testing.assert_close(one, other)


@needs_lite
def test_no_bias_is_no_bias_on_a_cpu_as_in_mmcv():
    results = []
    for module in (modules, act_reference):
        x = torch.tensor([[-1., 2.], [3., -4.]], requires_grad=True)
        out = module.fused_bias_leakyrelu(x, None)
        results.append([out, *torch.autograd.grad(out.square().sum(), x)])
    torch.testing.assert_close(*results)


def test_compiled_ops_are_not_led_anywhere(monkeypatch):
    monkeypatch.setitem(sys.modules, ext_ops.NAME, sys)  # a module that is no stand-in
    before = act_module.bias_leakyrelu_ref, up_module._upfirdn2d_ref
    with ext_ops.one_way_for_all_devices():
        pass
    assert (act_module.bias_leakyrelu_ref, up_module._upfirdn2d_ref) == before


@needs_lite
def test_an_op_of_mmcv_without_stand_in_fails_with_the_remedy():
    from mmcv.ops import nms
    with pytest.raises(RuntimeError, match=r'"nms".*compiled mmcv'):
        nms(torch.tensor([[0., 0, 1, 1]]), torch.tensor([0.5]), 0.5)


@pytest.mark.parametrize('file', ['_ext.cpython-311-x86_64-linux-gnu.so', '_ext.pyd'])
def test_compiled_mmcv_is_left_alone(monkeypatch, tmp_path, file):
    (tmp_path / file).touch()
    spec = ModuleSpec('mmcv', None, is_package=True)
    spec.submodule_search_locations.append(str(tmp_path))
    monkeypatch.setattr(ext_ops.importlib.util, 'find_spec', lambda name: spec)
    monkeypatch.delitem(sys.modules, ext_ops.NAME, raising=False)
    assert ext_ops.has_compiled_ops()
    ext_ops.install_ext_ops()
    assert ext_ops.NAME not in sys.modules


def test_without_mmcv_nothing_is_pretended(monkeypatch):
    monkeypatch.setattr(ext_ops.importlib.util, 'find_spec', lambda name: None)
    monkeypatch.delitem(sys.modules, ext_ops.NAME, raising=False)
    ext_ops.install_ext_ops()
    assert ext_ops.NAME not in sys.modules and not ext_ops.has_compiled_ops()


@needs_lite
@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_mmcvs_own_check_still_says_that_compiled_ops_are_missing():
    from mmcv.utils.ext_loader import check_ops_exist
    assert ext_ops.NAME in sys.modules and not check_ops_exist()


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_the_warning_of_every_stylegan2_convolution_is_dropped():
    from mmcv.ops.conv2d_gradfix import conv2d
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 1, 1))
        assert 'rolling back' in str(seen.pop().message)
        ext_ops.silence_rolling_back()
        conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 1, 1))
        warnings.warn('another', stacklevel=1)
        assert [str(one.message) for one in seen] == ['another']
