"""What is exported is what the model computes, or it is refused and said why."""
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from conftest import tiny_model
from torch import nn

from mmpd.apis import export as engine
from mmpd.operators import build_operator

CONV = dict(type='RRDBNet', in_channels=3, out_channels=3, mid_channels=4, num_blocks=1,
            growth_channels=2)


def model(operator=None, preprocessor=None, **head):
    return tiny_model('PDEdit', CONV, pd_head=dict(operator=operator, **head),
                      data_preprocessor=preprocessor or dict(type='DataPreprocessor')).eval()


class Halves(nn.Module):
    """A foreign operator: every fourth pixel."""

    scale = 4

    def A(self, x):
        return x[..., ::4, ::4]

    def A_dagger(self, y):
        return nn.functional.conv_transpose2d(
            y, torch.ones(3, 1, 1, 1), stride=4, groups=3, output_padding=3)


@pytest.mark.parametrize('operator', [
    dict(type='SeparableResize', scale=4, kernel='lanczos', antialias=False),
    dict(type='SeparableResize', scale=4, kernel='bicubic', border='mirror'),
    dict(type='AveragePooling', scale=4), dict(type='CEM', scale=4)], ids=lambda cfg: cfg['type'])
@pytest.mark.parametrize('strength', [1, 0.25])
def test_every_operator_in_plain_operations(operator, strength):
    one = model(operator, strength=strength)
    network = engine.ConsistentNetwork(one, (6, 9))
    lr = torch.rand(2, 3, 6, 9)
    with torch.no_grad():
        wanted = one.forward_tensor(lr * 2 - 1) / 2 + 0.5
        torch.testing.assert_close(network(lr), wanted, rtol=0, atol=1e-5)
    assert network.fixed_size == (operator['type'] == 'SeparableResize')
    own = network.own_pd
    assert own['strength'] == strength and operator['type'] in own['name']
    if operator['type'] == 'CEM':  # which is more than plain numbers
        assert own['operator'] is None
    else:
        assert repr(build_operator(own['operator'])) == repr(build_operator(operator))
    raw = engine.ConsistentNetwork(one, (6, 9), raw=True)
    with torch.no_grad():
        wanted = one.forward_raw(lr * 2 - 1) / 2 + 0.5
        torch.testing.assert_close(raw(lr), wanted, rtol=0, atol=1e-5)
    assert raw.own_pd is None and not raw.fixed_size


@pytest.mark.parametrize('preprocessor', [
    dict(type='DataPreprocessor', mean=None, std=None),
    dict(type='DataPreprocessor', mean=[10., 20, 30], std=[100., 200, 300])], ids=str)
def test_whatever_the_model_is_normalised_with(preprocessor):
    one = model(preprocessor=preprocessor)
    network = engine.ConsistentNetwork(one, (4, 4))
    lr = torch.rand(1, 3, 4, 4)
    mean, std = (torch.tensor(preprocessor[key] or default).view(1, -1, 1, 1)
                 for key, default in (('mean', 0.), ('std', 1.)))
    with torch.no_grad():
        wanted = one.forward_tensor((lr * 255 - mean) / std) * std + mean
        torch.testing.assert_close(network(lr) * 255, wanted, rtol=1e-4, atol=1e-2)
    assert not network.state_dict().keys() & {'rows', 'columns'}


@pytest.mark.parametrize('head, message', [
    (dict(noise_std=5), 'got strength by noise_std 5'),
    (dict(bounds=(0, 255)), 'got strength 1 within'),
    (dict(operator=Halves()), "Halves is not one of mmpd's operators")])
def test_what_does_not_export(head, message):
    with pytest.raises(engine.ExportError, match=message):
        engine.ConsistentNetwork(model(**head), (4, 4))


@pytest.mark.parametrize('added, fits', [(1e-5, True), (1e-2, False), (float('nan'), False)])
def test_models_that_are_more_than_their_generator(added, fits, monkeypatch):
    one = model()
    head = one.pd_head.forward
    monkeypatch.setattr(one.pd_head, 'forward', lambda raw, lr: head(raw, lr) + added)
    if fits:
        engine.ConsistentNetwork(one, (4, 4))
        return
    with pytest.raises(engine.ExportError, match='PDEdit is more than its generator'):
        engine.ConsistentNetwork(one, (4, 4))


@pytest.mark.parametrize('apart, message', [
    (9e-5, None), (1.1e-4, 'by 0.00011 of the range, at most 0.0001 is allowed'),
    (float('nan'), 'by nan of the range')])
def test_what_was_exported_is_compared(apart, message):
    lr = engine.example((2, 3), 5)
    assert torch.equal(lr, engine.example((2, 3), 5)) and lr.shape == (1, 3, 2, 3)
    assert not torch.equal(lr, engine.example((2, 3), 6))
    if message is None:
        assert engine._check(lr + apart, lr, 'graph') == pytest.approx(apart, rel=0.01)
        return
    with pytest.raises(engine.ExportError, match=f'the graph differs from PyTorch {message}'):
        engine._check(lr - apart, lr, 'graph')
    with pytest.raises(engine.ExportError, match=r'shape: \(1, 3, 2, 3\) instead of \(1, 3, 2\)'):
        engine._check(lr, lr[..., 0], 'graph')


def test_networks_that_cannot_be_traced(monkeypatch):
    def fails(*args, **options):
        raise RuntimeError(' a reason\nand its trace')
    network = nn.Conv2d(3, 3, 1).train()
    network.fixed_size = False
    seen = []
    monkeypatch.setattr(torch.export, 'export', lambda net, args, dynamic_shapes: seen.append(
        (net.training, args[0].shape, dynamic_shapes)))
    engine.export_program(network, (2, 3))
    engine.export_program(network, (2, 3), dynamic=True)
    (training, shape, fixed), (_, _, open_sizes) = seen
    assert not training and shape == (1, 3, 2, 3) and fixed is None
    assert {axis: (dim.min, dim.max) for axis, dim in open_sizes['lr'].items()} == {
        2: (2, 16384), 3: (2, 16384)}
    monkeypatch.setattr(torch.export, 'export', fails)
    for dynamic, words in ((False, ''), (True, ' for all sizes')):
        with pytest.raises(engine.ExportError, match=f'cannot trace the network{words}: a reason$'):
            engine.export_program(network, (2, 3), dynamic)
    monkeypatch.setitem(sys.modules, 'onnxscript', ModuleType('onnxscript'))
    monkeypatch.setattr(torch.onnx, 'export', fails)
    with pytest.raises(engine.ExportError, match='torch.onnx cannot translate .*: a reason$'):
        engine.to_onnx(None)


def test_an_opset_that_torch_does_not_write_is_not_replaced_by_another(monkeypatch):
    onnx = pytest.importorskip('onnx')
    made = SimpleNamespace(model_proto=onnx.ModelProto(opset_import=[
        onnx.OperatorSetIdProto(domain='', version=18)]))
    monkeypatch.setitem(sys.modules, 'onnxscript', ModuleType('onnxscript'))
    monkeypatch.setattr(torch.onnx, 'export', lambda *args, **kwargs: made)
    assert engine.to_onnx(None)
    with pytest.raises(engine.ExportError, match='expected an opset that torch can write, got 99'):
        engine.to_onnx(None, 99)
