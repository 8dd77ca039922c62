"""SpandrelGenerator: tiny random networks in the official formats, through PDModel."""
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmagic.registry import MODELS
from safetensors.torch import save_file

from mmpd.errors import MissingPackage, WeightsMismatch, WeightsNotFound

spandrel = pytest.importorskip('spandrel')
NORMALISED = dict(type='DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3)


def esrgan():
    from spandrel.architectures.ESRGAN import ESRGAN
    return ESRGAN(in_nc=3, out_nc=3, num_filters=8, num_blocks=2, scale=4)


def realesrgan_x2():
    """MMagic's network: its keys are those of Real-ESRGAN's own files."""
    return MODELS.build(dict(type='RRDBNet', in_channels=3, out_channels=3, mid_channels=8,
                             num_blocks=2, growth_channels=32, upscale_factor=2))


def span():
    from spandrel.architectures.SPAN import SPAN
    return SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2)


def compact():
    from spandrel.architectures.Compact import Compact
    return Compact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=2, upscale=4)


def swinir():
    from spandrel.architectures.SwinIR import SwinIR
    return SwinIR(upscale=2, img_size=16, window_size=8, embed_dim=12, depths=[2, 2],
                  num_heads=[2, 2], mlp_ratio=2, upsampler='pixelshuffle')


def grey():
    from spandrel.architectures.Compact import Compact
    return Compact(num_in_ch=1, num_out_ch=1, num_feat=8, num_conv=2, upscale=2)


NETWORKS = dict(ESRGAN=(esrgan, 4), RealESRGAN=(realesrgan_x2, 2), SPAN=(span, 2),
                RealESRGANCompact=(compact, 4), SwinIR=(swinir, 2))


def make(function, seed=0):
    torch.manual_seed(seed)
    return function().eval()


def save(net, path, container='params_ema'):
    state = net.state_dict()
    torch.save({container: state} if container else state, path)
    return str(path)


def generator(checkpoint, **kwargs):
    return MODELS.build(dict(type='SpandrelGenerator', checkpoint=checkpoint, **kwargs)).eval()


@pytest.mark.parametrize('name', NETWORKS)
def test_networks_keep_their_output(name, tmp_path):
    function, scale = NETWORKS[name]
    net = make(function)
    built = generator(save(net, tmp_path / 'net.pth'))
    assert built.scale == scale and built.channels == 3
    lr = torch.rand(2, 3, 16, 24)
    with torch.no_grad():
        wanted = net(lr)
        found = built(lr * 2 - 1)
        assert found.shape == (2, 3, 16 * scale, 24 * scale)
        # not clipped, neither by spandrel nor here
        assert (found - (wanted * 2 - 1)).abs().max() < 1e-4 * max(1, wanted.abs().max())
        assert (generator(save(net, tmp_path / 'net.pth'), mean=0, std=255)(lr) - wanted
                ).abs().max() < 1e-4 * max(1, wanted.abs().max())
    assert all(key.startswith('network.') for key in built.state_dict())


@pytest.mark.parametrize('name', NETWORKS)
def test_output_of_any_network_degrades_to_the_lr(name, tmp_path):
    function, scale = NETWORKS[name]
    path = save(make(function), tmp_path / 'net.pth')
    model = MODELS.build(dict(
        type='PDModel', base='BaseEditModel', pixel_loss=dict(type='L1Loss'),
        generator=dict(type='SpandrelGenerator', checkpoint=path),
        pd_head=dict(operator=dict(type='SeparableResize', kernel='bicubic', scale=scale)),
        data_preprocessor=NORMALISED)).eval()
    lr = torch.rand(1, 3, 9, 11) * 2 - 1
    with torch.no_grad():
        raw, output = model.forward_raw(lr), model.forward_tensor(lr)
    operator = model.pd_head.operator
    assert (operator.A(raw) - lr).abs().max() > 0.01
    assert (operator.A(output) - lr).abs().max() < 1e-5 * max(1, raw.abs().max())
    assert {key.split('.')[0] for key in model.state_dict()} == {'generator'}


@pytest.mark.parametrize('container', [None, 'params', 'params_ema', 'state_dict', 'model'])
def test_weights_are_found_wherever_programs_put_them(container, tmp_path):
    net = make(compact)
    built = generator(save(net, tmp_path / 'net.pth', container))
    lr = torch.rand(1, 3, 6, 6)
    with torch.no_grad():
        assert (built(lr * 2 - 1) - (net(lr) * 2 - 1)).abs().max() < 1e-5


def test_averaged_weights_come_first_and_wrappers_go(tmp_path):
    old, new = make(compact, 0), make(compact, 1)
    save_file({f'module.{key}': value for key, value in new.state_dict().items()},
              tmp_path / 'net.safetensors')
    torch.save(dict(params=old.state_dict(), params_ema=new.state_dict()), tmp_path / 'both.pth')
    whole = {f'generator.module.{key}': value for key, value in old.state_dict().items()}
    whole |= {f'generator_ema.{key}': value for key, value in new.state_dict().items()}
    whole |= {'generator_ema.steps': torch.tensor(3), 'discriminator.x': torch.ones(1)}
    torch.save(dict(state_dict=whole, meta=dict()), tmp_path / 'mmagic.pth')
    for name in ('net.safetensors', 'both.pth', 'mmagic.pth'):
        state = generator(str(tmp_path / name)).network.state_dict()
        assert torch.equal(state['body.0.weight'], new.body[0].weight), name


@pytest.mark.parametrize('height, width', [(1, 1), (3, 8), (8, 9), (21, 16)])
def test_sizes_are_padded_by_reflection_and_cropped(height, width, tmp_path):
    built = generator(save(make(swinir), tmp_path / 'net.pth'))
    seen = []
    built.network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    lr = torch.rand(1, 3, height, width)
    with torch.no_grad():
        assert built(lr * 2 - 1).shape == (1, 3, 2 * height, 2 * width)
    padded, need = seen[0][0, 0].numpy(), built.size_requirements
    assert padded.shape[0] % need.multiple_of == 0 and padded.shape[1] % need.multiple_of == 0
    rows, columns = padded.shape[0] - height, padded.shape[1] - width
    inner = min(rows, height - 1), min(columns, width - 1)
    wanted = np.pad(lr[0, 0].numpy(), ((0, inner[0]), (0, inner[1])), 'reflect')
    wanted = np.pad(wanted, ((0, rows - inner[0]), (0, columns - inner[1])), 'edge')
    assert np.abs(padded - wanted).max() < 1e-6


def test_square_networks_get_squares(tmp_path):
    built = generator(save(make(compact), tmp_path / 'net.pth'))
    built.size_requirements = spandrel.SizeRequirements(minimum=8, multiple_of=4, square=True)
    seen = []
    built.network.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    with torch.no_grad():
        assert built(torch.rand(1, 3, 3, 11)).shape == (1, 3, 12, 44)
    assert seen == [(1, 3, 12, 12)]


def test_gradients_reach_the_network_and_training_spares_its_weights(tmp_path):
    path = save(make(compact), tmp_path / 'net.pth')
    model = MODELS.build(dict(
        type='PDModel', base='BaseEditModel', pixel_loss=dict(type='L1Loss'),
        generator=dict(type='SpandrelGenerator', checkpoint=path), data_preprocessor=NORMALISED))
    before = model.generator.network.body[0].weight.clone()
    model.init_weights()  # as the runner does before training
    assert torch.equal(model.generator.network.body[0].weight, before)
    model.forward_tensor(torch.rand(1, 3, 4, 4)).square().mean().backward()
    assert model.generator.network.body[0].weight.grad.abs().sum() > 0


def test_networks_that_change_the_number_of_channels_are_refused(monkeypatch, tmp_path):
    path = save(make(compact), tmp_path / 'net.pth')
    found = spandrel.ModelLoader().load_from_file(path)
    found._input_channels = found.input_channels
    monkeypatch.setattr(type(found), 'input_channels', property(lambda self: 4), raising=False)
    monkeypatch.setattr(spandrel.ModelLoader, 'load_from_state_dict', lambda *_: found)
    with pytest.raises(WeightsMismatch, match='Compact makes 3 channels of 4; expected as many'):
        generator(path)


def test_normalisations_must_agree(tmp_path):
    path = save(make(compact), tmp_path / 'net.pth')
    assert 'Compact, scale=4, channels=3' in repr(generator(path))
    assert generator(path, std=0.5).std == 0.5
    with pytest.raises(ValueError, match='std: expected a positive number, got 0'):
        generator(path, std=0)
    cfg = dict(type='PDModel', base='BaseEditModel', pixel_loss=dict(type='L1Loss'),
               generator=dict(type='SpandrelGenerator', checkpoint=path),
               data_preprocessor=dict(type='DataPreprocessor', mean=[0.] * 3, std=[255.] * 3))
    with pytest.raises(ValueError, match='SpandrelGenerator has mean=127.5.*preprocessor.*0.0'):
        MODELS.build(cfg)
    cfg['generator'].update(mean=0, std=255)
    MODELS.build(cfg)


def restoration():
    from spandrel.architectures.DnCNN import DnCNN
    return DnCNN(in_nc=3, out_nc=3, nc=8, nb=17, act_mode='R')


def scale_1():
    from spandrel.architectures.Compact import Compact
    return Compact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=2, upscale=1)


@pytest.mark.parametrize('function, message', [
    (restoration, r'DnCNN \(restoration, scale 1\) does not enlarge'),
    (scale_1, r'Compact \(restoration, scale 1\) does not enlarge'),
    (lambda: torch.nn.Sequential(torch.nn.Linear(2, 2)), 'of no architecture .* 0.weight, 0.bias'),
])
def test_other_networks_are_refused_by_name(function, message, tmp_path):
    with pytest.raises(WeightsMismatch, match=message):
        generator(save(make(function), tmp_path / 'net.pth'))


class Malicious:
    def __reduce__(self):
        return exec, ('raise SystemExit("code was run")',)


def test_files_are_not_unpickled(tmp_path):
    torch.save(dict(params=make(compact).state_dict(), extra=Malicious()), tmp_path / 'net.pth')
    with pytest.raises(WeightsMismatch, match='net.pth cannot be read: its pickle asks for'):
        generator(str(tmp_path / 'net.pth'))


def test_bad_files(tmp_path):
    with pytest.raises(WeightsNotFound, match='none.pth'):
        generator(str(tmp_path / 'none.pth'))
    (tmp_path / 'text.pth').write_text('no checkpoint')
    torch.save([1], tmp_path / 'list.pth')
    torch.save(dict(epoch=3), tmp_path / 'empty.pth')
    state = make(compact).state_dict()
    state['body.2.weight'] = state['body.2.weight'][:4]
    torch.save(state, tmp_path / 'cut.pth')
    for name, message in (('text.pth', 'cannot be read'),
                          ('list.pth', 'holds no state dict: it is a list'),
                          ('empty.pth', 'holds no weights; it has: epoch'),
                          ('cut.pth', 'cannot build its network')):
        with pytest.raises(WeightsMismatch, match=message) as error:
            generator(str(tmp_path / name))
        assert name in str(error.value) and '\n' not in str(error.value)


def test_channels_are_checked(tmp_path):
    built = generator(save(make(grey), tmp_path / 'net.pth'))
    assert built(torch.rand(1, 1, 4, 4)).shape == (1, 1, 8, 8)
    with pytest.raises(ValueError, match=r'\(N, 1, h, w\), got \(1, 3, 4, 4\)'):
        built(torch.rand(1, 3, 4, 4))


def test_without_spandrel_one_line_says_what_to_install(monkeypatch, tmp_path):
    path = save(make(compact), tmp_path / 'net.pth')
    monkeypatch.setitem(sys.modules, 'spandrel', None)
    with pytest.raises(MissingPackage, match=r'pip install "mmpd\[spandrel\]"'):
        generator(path)


@pytest.mark.slow
def test_mmpd_does_not_import_spandrel():
    code = 'import sys, mmpd.models; raise SystemExit("spandrel" in sys.modules)'
    assert subprocess.run([sys.executable, '-W', 'ignore', '-c', code]).returncode == 0
