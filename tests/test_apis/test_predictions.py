"""PDInferencer from inside: what is counted, named, padded, and handed back."""
import numpy as np
import pytest
import torch
from conftest import PREPROCESSOR, TINY
from mmagic.registry import MODELS
from mmengine.config import Config
from PIL import Image

from mmpd.apis import PDInferencer, inferencer, tiles
from mmpd.errors import InputError
from mmpd.operators import SeparableResize
from mmpd.operators.library_resize import LibraryResize
from mmpd.utils.images import Picture

RRDB = dict(type='RRDBNet', in_channels=3, out_channels=3, mid_channels=4, num_blocks=1,
            growth_channels=4)
BICUBIC = dict(type='SeparableResize', kernel='bicubic', scale=None)


@pytest.fixture
def make(tmp_path):
    def build(generator=RRDB, kind='BaseEditModel', options=None, **kwargs):
        cfg = dict(type=kind, generator=generator, pixel_loss=dict(type='L1Loss'),
                   data_preprocessor=PREPROCESSOR)
        torch.manual_seed(0)
        torch.save(MODELS.build(cfg).state_dict(), tmp_path / 'x.pth')
        return PDInferencer(Config(dict(model=cfg)), tmp_path / 'x.pth', device='cpu',
                            cfg_options=options, **kwargs)
    return build


def lr_image(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def figures(one, lr, output):
    """Of a picture with this output, whatever the network says."""
    def tensor(array):
        return torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1)[None]
    return one._prediction(Picture(lr), tensor(lr), tensor(output), tensor(output)).figures


def test_values_that_overshoot_are_clipped_before_they_are_compared(make):
    """As a library does: bicubic of a sharp edge leaves the range on both sides of it."""
    lr = np.zeros((6, 8, 3), np.uint8)
    lr[:, 4:] = 255
    output = lr.repeat(4, 0).repeat(4, 1)
    measured = SeparableResize(4).A(torch.from_numpy(output.astype(float)).permute(2, 0, 1)[None])
    assert measured.min() < -1 and measured.max() > 256
    measured = measured[0].permute(1, 2, 0).numpy()
    wrong, unclipped = (abs(image - lr) > 0.5 for image in (measured.clip(0, 255), measured))
    found = figures(make(operator=BICUBIC), lr, output)
    assert found['lr_values_unmatched'] == wrong.sum() < unclipped.sum()
    assert found['lr_values'] == lr.size
    mse = np.square(measured - lr).mean()  # before clipping
    assert found['psnr_lr'] == pytest.approx(10 * np.log10(255**2 / mse))


@pytest.mark.parametrize('added, unmatched', [(7, 0), (8, 1), (9, 1)])
def test_half_a_level_is_a_difference(make, added, unmatched):
    """Of 16 values that are averaged: rounding could go either way."""
    lr = np.full((2, 2, 3), 100, np.uint8)
    output = lr.repeat(4, 0).repeat(4, 1)
    output[0, 0, 0] += added
    assert figures(make(), lr, output)['lr_values_unmatched'] == unmatched


@pytest.mark.parametrize('made_by', ['pil', 'float'])
def test_the_library_that_made_the_lr_is_asked(make, made_by):
    lr, output = lr_image(4, 4, 3), lr_image(16, 16, 3, seed=1)
    found = figures(make(operator=BICUBIC, made_by=made_by), lr, output)
    planes = torch.from_numpy(output).permute(2, 0, 1)[None]
    small = LibraryResize(SeparableResize(4), 'pil')(planes)
    by_pil = (small[0].permute(1, 2, 0).numpy() != lr).sum()
    exact = SeparableResize(4).A(torch.from_numpy(output.astype(float)).permute(2, 0, 1)[None])
    rounded = (abs(exact[0].permute(1, 2, 0).numpy().clip(0, 255) - lr) > 0.5).sum()
    assert found['lr_values_unmatched'] == dict(pil=by_pil, float=rounded)[made_by]


@pytest.mark.parametrize('operator, text', [
    (dict(type='A', scale=None, gain=0.5), 'A(gain=0.5)'), (dict(type=Picture), 'Picture()'),
    ('A(\n  scale=2)', 'A( scale=2)')])
def test_operators_in_one_line(operator, text):
    assert inferencer._describe(operator) == text


def test_settings_say_how_an_output_is_made(make):
    usual = make().settings
    assert (usual['tile'], usual['made_by'], usual['strength']) == ('None', 'None', '1')
    assert usual['operator'] == 'AveragePooling()' and usual['model'] == 'config'
    assert make(tile=5, tile_overlap=2).settings['tile'] == '5+2'
    assert len(usual['weights']) == 8


@pytest.mark.parametrize('factor, multiple', [(1, 4), (2, 2), (4, 1)])
def test_sides_are_padded_to_what_the_network_takes(make, factor, multiple):
    mask = torch.zeros(5, 7)
    mask[::2] = 1
    operator = dict(type='Masking', mask=mask.tolist()) if factor == 1 else None
    one = make(dict(RRDB, upscale_factor=factor), operator=operator)
    seen = []
    one.model.generator.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    assert one(lr_image(5, 7, 3)).shape == (5 * factor, 7 * factor, 3)
    assert seen == [(1, 3, -(-5 // multiple) * multiple, -(-7 // multiple) * multiple)]


def test_padding_is_a_mirror_as_far_as_it_goes():
    image = np.arange(15.).reshape(3, 5)
    seen = []

    def network(x):
        seen.append(x[0, 0].numpy())
        return x
    tiles.forward_padded(network, torch.from_numpy(image)[None, None], 8)
    wanted = np.pad(np.pad(image, ((0, 2), (0, 3)), 'reflect'), ((0, 3), (0, 0)), 'edge')
    assert np.array_equal(seen[0], wanted)
    assert tiles.forward_padded(lambda x: x, torch.from_numpy(image)[None, None]).shape[-1] == 5


def test_networks_that_cannot_be_tiled(make):
    one = make()
    one.model.generator.tiling = 'internal'
    with pytest.raises(InputError, match='tile: RRDBNet looks at the whole picture'):
        one._check_tiling(one.model.generator)
    one.model.generator.architecture = 'HAT'
    with pytest.raises(InputError, match='tile: HAT looks at the whole picture'):
        one._check_tiling(one.model.generator)
    one.model.generator.tiling = 'supported'
    one._check_tiling(one.model.generator)
    with pytest.raises(InputError, match='tile: GLEANNet takes 8x8 only'):
        make(TINY, 'GANPriorSR', tile=4)


def test_half_precision_needs_a_gpu(make):
    with pytest.raises(InputError, match='config has fp16_enabled=True, which needs a CUDA GPU'):
        make(dict(TINY, fp16_enabled=True), 'GANPriorSR')


@pytest.mark.parametrize('name, good, bad', [
    ('tile', 1, 0), ('tile_overlap', 0, -1), ('batch_size', 1, 0), ('cfg_options', None, 3)])
def test_borders_of_arguments(make, name, good, bad):
    key = 'options' if name == 'cfg_options' else name
    assert make(**{key: good})
    with pytest.raises(InputError, match=name):
        make(**{key: bad})


def test_models_and_checkpoints_are_paths(make):
    for args, message in (((3, ), 'model: expected a config'), (('', ), 'model: expected'),
                          (('x.py', 3), 'checkpoint: expected a file or URL')):
        with pytest.raises(InputError, match=message):
            PDInferencer(*args)


def test_pictures_of_a_batch_have_one_size(make):
    one = make()
    with pytest.raises(ValueError, match='expected pictures of one size'):
        one.predict([Picture(lr_image(4, 4, 3)), Picture(lr_image(4, 5, 3))])
    seen = []
    one.model.generator.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    one.batch_size = 2
    images = [lr_image(4, 4, 3), lr_image(5, 4, 3), lr_image(4, 4, 3, seed=1),
              lr_image(4, 4, 3, seed=2)]
    results = one(images)
    assert seen == [2, 1, 1] and [result.shape[0] for result in results] == [16, 20, 16, 16]
    for image, result in zip(images, results, strict=True):  # each behind its own LR
        assert np.array_equal(result.reshape(len(image), 4, 4, 4, 3).mean((1, 3)), image)


@pytest.mark.parametrize('samples', [1, 2])
@pytest.mark.parametrize('channels', [0, 1, 2, 3, 4])
def test_tensors_come_back_as_tensors(make, samples, channels):
    one = make(dict(TINY, type='PDNNet'), 'PDN',
               options={'model.test_cfg': dict(num_samples=samples)})
    lr = lr_image(8, 8, *[channels] * bool(channels))
    array = one(lr)
    leading = (samples, ) if samples > 1 else ()
    assert array.shape == (*leading, 32, 32, *[channels] * (channels > 1))
    if channels:
        tensor = one(torch.from_numpy(lr).permute(2, 0, 1))
        assert tensor.shape == (*leading, channels, 32, 32) and tensor.is_contiguous()
        back = tensor.movedim(-3, -1).numpy()
        assert np.array_equal(back[..., 0] if channels == 1 else back, array)


def test_files_and_their_notes_are_named(make, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(inferencer, 'print_log', lambda text, **_: said.append(text))
    Image.fromarray(lr_image(8, 8, 3)).quantize(8).save(tmp_path / 'a.png')
    one = make(TINY, 'GANPriorSR')
    one(tmp_path / 'a.png')
    assert len(said) == 1 and said[0].startswith(f'{tmp_path}/a.png: ')
    with pytest.raises(ValueError, match='LR 1: 9x8, but config takes 8x8 only'):
        one([lr_image(8, 8, 3), lr_image(8, 9, 3)])
    with pytest.raises(FileNotFoundError, match='no LR image .*none.png'):
        one([lr_image(8, 8, 3), tmp_path / 'none.png'])
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='LR: .*empty'):
        one(tmp_path / 'empty')
    Image.fromarray(lr_image(9, 8, 3)).save(tmp_path / 'b.png')
    with pytest.raises(ValueError, match='b.png: 8x9, but config takes 8x8 only'):
        one([tmp_path / 'a.png', tmp_path / 'b.png'], out=tmp_path / 'sr')
    assert one([tmp_path / 'a.png'], out=tmp_path / 'sr') == [tmp_path / 'sr' / 'a.png']
    one.only_size = None, 8  # an ONNX file can have one side fixed
    one.check_size((5, 8))
    with pytest.raises(ValueError, match=r'8x9, but config takes \*x8 only'):
        one.check_size((8, 9))
