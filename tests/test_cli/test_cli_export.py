"""mmpd-export: numbers and targets it refuses, what it writes and says."""
import os
from types import SimpleNamespace

import pytest
import torch
from refusals import refused

from mmpd.cli import export as export_tool


def export_args(*argv):
    return export_tool.parse_args(['model', '--out', *argv])


@pytest.mark.parametrize('argv, said', [
    (['x', '--raw', '--operator', 'box'], '--operator box: with --raw there is no PD'),
    ([''], "--out: expected a path, got ''"),
    (['x/'], "--out: expected a path that ends in a file name, got 'x/'"),
    (['.'], "--out: expected a path that ends in a file name, got '.'"),
    (['x', '--opset', '17'], '--opset: expected at least 18, got 17'),
    (['x', '--size', '0'], '--size: expected one or two positive numbers, got [0]'),
    (['x', '--size', '8', '8', '8'], '--size: expected one or two positive numbers')])
def test_numbers_that_export_refuses(argv, said, capsys):
    with pytest.raises(SystemExit):
        export_args(*argv)
    assert said in capsys.readouterr().err


def test_files_that_export_writes(tmp_path, monkeypatch):
    args = export_args(str(tmp_path / 'a.b'), '--opset', '18', '--size', '1')
    assert export_tool.check_targets(args) == dict(
        onnx=tmp_path / 'a.b.onnx', torch=tmp_path / 'a.b.pt2')
    (tmp_path / 'a.b.pt2').touch()
    refused(export_tool.check_targets, args, match=r'a.b.pt2 exists \(--overwrite replaces it\)')
    args.overwrite = True
    assert len(export_tool.check_targets(args)) == 2
    (tmp_path / 'a.b.onnx').mkdir()
    refused(export_tool.check_targets, args, match='a.b.onnx exists$')
    args.format = ['torch']
    assert list(export_tool.check_targets(args)) == ['torch']
    for name in ('a.onnx', 'a.PT2'):
        refused(export_tool.check_targets, export_args(str(tmp_path / name)),
                match=f'{name}: expected a name without {name[1:].lower()}, which is added')
    monkeypatch.setattr(os, 'access', lambda folder, mode: mode != os.W_OK)
    refused(export_tool.check_targets, args, match='cannot be written to')
    refused(export_tool.check_targets, export_args(str(tmp_path / 'none' / 'a')),
            match='no folder .*none')


@pytest.mark.parametrize('operator, expected', [
    (None, {}), ('average_pooling', dict(type='AveragePooling', scale=None)),
    ('lanczos', dict(type='SeparableResize', scale=None, kernel='lanczos'))])
def test_the_operator_that_export_gives_the_model(monkeypatch, operator, expected):
    seen = []
    monkeypatch.setattr('mmpd.apis.loading.load_model', lambda *args, **settings: seen.append(
        (args, settings)) or SimpleNamespace(model='the model'))
    argv = ['a.py', 'b.pth', '--out', 'x'] + (['--operator', operator] if operator else [])
    assert export_tool.load_model(export_tool.parse_args(argv)) == 'the model'
    assert seen == [(('a.py', 'b.pth'), dict(pd_head=dict(operator=expected)) if expected else {})]


def test_an_onnx_file_is_no_model_to_export(tmp_path, monkeypatch):
    from mmpd.models.generators import OnnxGenerator
    monkeypatch.setattr(export_tool, 'load_model', lambda args: SimpleNamespace(
        generator=OnnxGenerator.__new__(OnnxGenerator)))
    refused(export_tool.export, ['a.onnx', '--out', str(tmp_path / 'x')],
            match='a.onnx: expected a config, .* got an ONNX file')


@pytest.mark.parametrize('argv, in_size, size, sizes', [
    (['--size', '6', '8'], None, (6, 8), [(6, 8)]), (['--size', '6'], None, (6, 6), [(6, 6)]),
    ([], 16, (16, 16), [(16, 16)]), ([], None, (64, 64), [(64, 64)]),
    (['--size', '6', '8', '--dynamic'], None, (6, 8), [(6, 8), (10, 16)])])
def test_what_export_writes_and_says(tmp_path, monkeypatch, capsys, argv, in_size, size, sizes):
    """Everything is computed and compared before anything is written."""
    import mmpd.apis.export as engine
    generator = torch.nn.Conv2d(3, 3, 1)
    generator.in_size = in_size
    monkeypatch.setattr(export_tool, 'load_model', lambda args: SimpleNamespace(
        generator=generator, pd_head=None))
    network = torch.nn.Conv2d(3, 3, 1).train()
    network.operator, network.own_pd = 'A', None
    noted = []
    for name, function in (
            ('ConsistentNetwork', lambda model, size, *raw: noted.append(size) or network),
            ('export_program', lambda net, size, dynamic: (net.training, size, dynamic)),
            ('to_onnx', lambda program, opset, *own: noted.append(program) or bytes(2**20)),
            ('verify_onnx', lambda data, net, sizes: noted.append(sizes) or 2e-6),
            ('verify_program', lambda data, net, sizes: noted.append(sizes) or 0.)):
        monkeypatch.setattr(engine, name, function)
    monkeypatch.setattr(torch.export, 'save', lambda program, buffer: buffer.write(b'program'))
    assert export_tool.main(['model', '--out', str(tmp_path / 'x'), *argv]) == 0
    dynamic = '--dynamic' in argv
    assert noted == [size, (False, size, dynamic), sizes, sizes]
    first, second = capsys.readouterr().out.splitlines()
    shown = 'of any size' if dynamic else f'of {size[0]}x{size[1]}'
    assert first.startswith(f"{tmp_path}/x.onnx: 1.0 MiB, A = 'A', LR {shown}, differs from PyTor")
    assert first.endswith('by at most 2.0e-06') and second.startswith(f'{tmp_path}/x.pt2: 0.0 MiB')
    assert (tmp_path / 'x.onnx').read_bytes() == bytes(2**20)
    assert (tmp_path / 'x.pt2').read_bytes() == b'program'
