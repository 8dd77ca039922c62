"""PDInferencer: what goes in and comes out, exact consistency, clear refusals."""
import copy
import logging
import pickle

import cv2
import numpy as np
import pytest
import torch
from conftest import PREPROCESSOR, ROOT, TINY, tiny_model
from mmagic.registry import MODELS
from mmagic.structures import DataSample
from mmengine.config import Config
from PIL import Image

from mmpd.apis import PDInferencer, precision
from mmpd.errors import InputError
from mmpd.models.generators import PULSENet
from mmpd.utils.images import Picture

GAN = dict(
    discriminator=dict(type='UNetDiscriminatorWithSpectralNorm', in_channels=3, mid_channels=4),
    gan_loss=dict(type='GANLoss', gan_type='vanilla', loss_weight=1e-2))
MODEL = dict(type='PDGLEAN', generator=TINY, pixel_loss=dict(type='L1Loss'),
             data_preprocessor=PREPROCESSOR, **GAN)
RRDB = dict(type='RRDBNet', in_channels=3, out_channels=3, mid_channels=4, num_blocks=1,
            growth_channels=4)
PLAIN = dict(type='BaseEditModel', pixel_loss=dict(type='L1Loss'), data_preprocessor=dict(
    type='DataPreprocessor', mean=[0., 0., 0.], std=[255., 255., 255.]))


def save(model, path):
    torch.manual_seed(0)
    torch.save(dict(state_dict=MODELS.build(model).state_dict()), path)
    return str(path)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save(MODEL, tmp_path_factory.mktemp('checkpoint') / 'pd.pth')


@pytest.fixture(scope='module')
def inferencer(checkpoint):
    return PDInferencer(Config(dict(model=MODEL)), checkpoint, device='cpu', batch_size=2)


def convolutional(folder, scale=4, **kwargs):
    """A PDInferencer of a network without PD for any size."""
    model = dict(PLAIN, generator=dict(RRDB, upscale_factor=scale))
    return PDInferencer(Config(dict(model=model)), save(model, folder / f'x{scale}.pth'),
                        device='cpu', **kwargs)


def lr_image(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape or (8, 8, 3), dtype=np.uint8)


def pooled(image, scale=4):
    h, w = (side // scale for side in image.shape[:2])
    return image.astype(float).reshape(h, scale, w, scale, -1).mean((1, 3)).squeeze()


def test_output_pools_to_the_input_and_is_the_models(inferencer, checkpoint):
    lr = lr_image()
    image = inferencer(lr)
    assert image.dtype == np.uint8 and image.shape == (32, 32, 3)
    assert np.array_equal(pooled(image), lr)
    model = tiny_model()
    model.load_state_dict({key: value for key, value in torch.load(checkpoint)['state_dict'].items()
                           if not key.startswith('discriminator')})
    sample = DataSample(metainfo=dict(img_channel_order='RGB'), gt_img=torch.zeros(3, 4, 4))
    data = model.data_preprocessor(dict(
        inputs=[torch.from_numpy(lr.transpose(2, 0, 1).copy())], data_samples=[sample]))
    with torch.no_grad():
        predicted = model.eval()(data['inputs'], data['data_samples'], mode='predict')
    bgr = predicted[0].output.pred_img.numpy().transpose(1, 2, 0)
    assert np.array_equal(image, bgr[..., ::-1])


def test_whatever_holds_pixels_gives_the_same(inferencer, tmp_path):
    images = [lr_image(seed=seed) for seed in range(3)]
    expected = [inferencer(image) for image in images]
    assert not np.array_equal(expected[0], expected[1])
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f'{index}.png')
    paths = [tmp_path / f'{index}.png' for index in range(3)]
    tensors = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2))

    def same(results):
        return all(np.array_equal(*pair) for pair in zip(results, expected, strict=True))

    assert same([inferencer(path) for path in paths])
    assert same(inferencer(paths)) and same(inferencer([str(path) for path in paths]))
    found = inferencer(tmp_path)
    assert list(found) == ['0.png', '1.png', '2.png'] and same(found.values())
    assert same(inferencer(str(tmp_path / '*.png')).values())
    assert same(inferencer(np.stack(images))) and same(inferencer(images))
    assert same(inferencer([Image.fromarray(image) for image in images]))
    results = inferencer(tensors)
    assert all(isinstance(result, torch.Tensor) for result in results)
    assert same([result.permute(1, 2, 0).numpy() for result in results])
    assert same([inferencer(tensor).permute(1, 2, 0).numpy() for tensor in tensors])
    assert np.array_equal(inferencer(images[0][..., 0]), inferencer(images[0][..., :1]))


def test_grey_and_alpha_stay_what_they_are(inferencer):
    for shape in ((8, 8), (8, 8, 2), (8, 8, 4)):
        lr = lr_image(*shape)
        image = inferencer(lr)
        assert image.shape == (32, 32, *shape[2:])
        assert np.array_equal(pooled(image), lr)
    colour = inferencer(lr[..., :3])
    assert np.array_equal(image[..., :3], colour)
    solid = np.dstack([lr[..., :3], np.full((8, 8), 255, np.uint8)])
    assert (inferencer(solid)[..., 3] == 255).all()
    # a mixed batch is what its members are alone
    lrs = [lr_image(8, 8), lr_image(8, 8, 4)]
    for alone, together in zip(map(inferencer, lrs), inferencer(lrs), strict=True):
        assert np.array_equal(alone, together)
    raw = inferencer.predict([Picture(lrs[0])])[0][0].raw.pixels
    rgb = inferencer.predict([Picture(np.dstack([lrs[0]] * 3))])[0][0].raw.pixels
    assert np.abs(raw - rgb.astype(float).mean(2)).max() <= 1


def test_figures_are_those_of_the_saved_pixels(inferencer):
    lr = lr_image()
    prediction = inferencer.predict([Picture(lr)])[0][0]
    mse = ((pooled(prediction.raw.pixels) - lr)**2).mean()
    assert prediction.figures['psnr_lr_raw'] == pytest.approx(10 * np.log10(255**2 / mse))
    assert prediction.figures['psnr_lr'] == float('inf')
    assert prediction.figures['lr_values'] == lr.size
    assert prediction.figures['lr_values_unmatched'] == 0


def test_settings_reach_the_model(checkpoint):
    def run(**kwargs):
        inferencer = PDInferencer(Config(dict(model=MODEL)), checkpoint, device='cpu', **kwargs)
        return inferencer.predict([Picture(lr_image())])[0][0], inferencer.settings

    usual, _ = run()
    raw, settings = run(strength=0.)
    assert np.array_equal(raw.image.pixels, usual.raw.pixels)
    assert settings['strength'] == '0' and settings['quantize'] == 'clip'
    assert np.array_equal(run(cfg_options={'model.pd_head': dict(strength=0.)})[0].image.pixels,
                          raw.image.pixels)
    clipped, _ = run(quantize='clip')
    assert 40 < clipped.figures['psnr_lr'] < 90
    operator = dict(type='SeparableResize', kernel='bicubic', scale=None)
    bicubic, settings = run(operator=operator)
    assert settings['operator'] == "SeparableResize(kernel='bicubic')"
    assert bicubic.figures['psnr_lr'] > 30 > bicubic.figures['psnr_lr_raw']
    down = torch.nn.functional.interpolate(
        torch.from_numpy(bicubic.image.pixels.astype(float).transpose(2, 0, 1))[None], size=(8, 8),
        mode='bicubic', antialias=True)[0].permute(1, 2, 0).numpy()
    wrong = np.abs(down.clip(0, 255) - lr_image()) > 0.5
    assert wrong.sum() == pytest.approx(bicubic.figures['lr_values_unmatched'], abs=2)
    for wrong, message in ((dict(cfg_options={'modell.x': 1}), "no 'modell'"),
                           (dict(cfg_options={'model.pd_head': dict(strenght=0.)}), 'strenght'),
                           (dict(strength=0.5, quantize='consistent'), 'would undo'),
                           (dict(batch_size=0), 'batch_size: expected an integer of at least 1'),
                           (dict(operator=dict(type='Nothing', scale=2)), 'Nothing'),
                           (dict(tile=8), 'takes 8x8 only; tiles are')):
        with pytest.raises(InputError, match=message):
            run(**wrong)


@pytest.mark.parametrize('generator', [
    TINY, dict(TINY, type='PDNNet'), dict(RRDB, upscale_factor=4)], ids=lambda part: part['type'])
def test_a_network_in_bfloat16_is_as_consistent(generator, tmp_path):
    model = dict(PLAIN, generator=generator)
    path = save(model, tmp_path / 'x.pth')
    exact, narrow = (PDInferencer(Config(dict(model=dict(model))), path, device='cpu', dtype=dtype)
                     for dtype in ('float32', 'bfloat16'))
    batch = [Picture(lr_image(seed=seed)) for seed in range(2)]
    seen = []
    watching = narrow.model.generator.register_forward_hook(
        lambda _, __, out: seen.append(out.dtype))
    for inferencer in (exact, narrow):
        for (prediction, ), picture in zip(inferencer.predict(batch), batch, strict=True):
            assert np.array_equal(pooled(prediction.image.pixels), picture.pixels)
            assert prediction.figures['psnr_lr'] == float('inf')
            assert prediction.figures['lr_values_unmatched'] == 0
    assert seen == [torch.float32]  # what PD is given
    assert {parameter.dtype for parameter in narrow.model.generator.parameters()} == {
        torch.bfloat16}
    assert narrow.settings == dict(exact.settings, dtype='bfloat16')
    assert narrow.predict([]) == []

    def image(inferencer):
        torch.manual_seed(0)  # PDNNet draws
        return inferencer(batch[0].pixels)

    watching.remove()
    for inferencer in (exact, narrow):
        for copied in (copy.deepcopy(inferencer), pickle.loads(pickle.dumps(inferencer))):
            assert np.array_equal(image(copied), image(inferencer))


def test_the_float_image_is_as_consistent_in_bfloat16(checkpoint):
    lr = torch.from_numpy(lr_image(2, 3, 8, 8)) / 127.5 - 1
    errors = []
    for dtype in ('float32', 'bfloat16'):
        model = PDInferencer(Config(dict(model=MODEL)), checkpoint, device='cpu', dtype=dtype).model
        with torch.no_grad():
            image = model.forward_tensor(lr)
        assert image.dtype == torch.float32
        errors.append(torch.nn.functional.avg_pool2d(image.double(), 4) - lr.double())
    exact, narrow = (error.abs().max().item() for error in errors)
    assert exact < 1e-6 and narrow < 1e-6  # bfloat16 itself keeps 4e-3


def test_precisions_that_are_refused(checkpoint, monkeypatch):
    def load(dtype):
        return PDInferencer(Config(dict(model=MODEL)), checkpoint, device='cpu', dtype=dtype)

    with pytest.raises(InputError, match='dtype: expected one of float32, bfloat16, float16, got'):
        load('bf16')
    with pytest.raises(InputError, match='dtype: float16 needs a CUDA GPU, and the device is cpu'):
        load('float16')
    monkeypatch.setattr(precision, '_cpu_has_bfloat16', lambda: False)
    with pytest.raises(InputError, match='dtype: bfloat16 needs a processor that computes in it'):
        load('bfloat16')
    with pytest.raises(InputError, match=r'x \(PULSENet\) computes in float32 only, got'):
        precision.narrow(PULSENet(in_size=8, out_size=16, style_channels=6, steps=3,
                                  channels={4: 8, 8: 6, 16: 4}, bad_noise_layers=()),
                         torch.bfloat16, 'x')

    class Float(torch.nn.Module):  # as MMagic's ModulatedToRGB
        def forward(self, x):
            return x.float()

    class Real(torch.nn.Module):
        def forward(self, x):
            if x.is_meta and x.dtype == torch.bfloat16:
                raise RuntimeError('not implemented for meta')
            return x

    conv = torch.nn.Conv2d(3, 3, 1)
    with pytest.raises(InputError, match=r'dtype: x \(Sequential\) does not compute in bfloat16 '
                                         r'\(Input type .*\); expected float32'):
        precision.narrow(torch.nn.Sequential(conv, Float(), conv), torch.bfloat16, 'x')
    for last in (Float(), Real()):
        precision.narrow(torch.nn.Sequential(conv, last), torch.bfloat16, 'x')


def test_float16_is_near_too():
    network = tiny_model().generator.eval()
    lr = torch.rand(1, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        exact = network(lr)
        precision.narrow(network, torch.float16, 'x')
        assert 1e-8 < (network(lr) - exact).square().mean().sqrt() / exact.std() < 1e-2


def test_several_samples(tmp_path):
    cfg = Config(dict(model=dict(
        MODEL, type='PDN', pixel_loss=None, generator={**TINY, 'type': 'PDNNet'})))
    checkpoint = save(cfg.model, tmp_path / 'pdn.pth')
    options = {'model.test_cfg': dict(num_samples=3)}
    images = PDInferencer(cfg, checkpoint, device='cpu', cfg_options=options)(lr_image())
    assert images.shape == (3, 32, 32, 3) and images.dtype == np.uint8
    assert not np.array_equal(images[0], images[1])
    for image in images:
        assert np.array_equal(pooled(image), lr_image())
    assert 'num_samples' not in cfg.model.get('test_cfg', {})  # the caller's config is left alone


@pytest.mark.parametrize('scale', [2, 4])
@pytest.mark.parametrize('size', [(1, 1), (1, 5), (7, 6), (13, 8)])
def test_networks_for_any_size_get_pd_and_take_any_size(tmp_path, scale, size):
    inferencer = convolutional(tmp_path, scale)
    lr = lr_image(*size, 3)
    image = inferencer(lr)
    assert image.shape == (size[0] * scale, size[1] * scale, 3)
    assert np.array_equal(pooled(image, scale), lr.squeeze())


def test_tiles_join_without_a_trace_where_the_network_looks_no_farther(tmp_path):
    lr = lr_image(23, 17, 3)
    whole = convolutional(tmp_path)
    # 5 + 1 + 4 convolutions at full size see 10 pixels; those behind the upsampling less
    tiled = convolutional(tmp_path, tile=6, tile_overlap=12, batch_size=3)
    whole, tiled = (x.predict([Picture(lr)])[0][0] for x in (whole, tiled))
    assert np.abs(whole.raw.pixels.astype(int) - tiled.raw.pixels).max() <= 1
    assert np.array_equal(pooled(tiled.image.pixels), lr)
    rough = convolutional(tmp_path, tile=6, tile_overlap=0).predict([Picture(lr)])[0][0]
    assert not np.array_equal(rough.raw.pixels, whole.raw.pixels)
    assert np.array_equal(pooled(rough.image.pixels), lr)  # exact across the seams


def test_nothing_is_said_about_a_missing_gt(inferencer, capsys, caplog):
    with caplog.at_level(logging.WARNING):
        inferencer(lr_image())
    output = capsys.readouterr()
    assert 'gt_img' not in output.out + output.err + caplog.text


def test_files_are_written_and_kept(inferencer, tmp_path):
    (tmp_path / 'lr' / 'deep').mkdir(parents=True)
    for index, name in enumerate(('a.png', 'deep/b.png')):
        Image.fromarray(lr_image(seed=index)).save(tmp_path / 'lr' / name)
    files = inferencer(tmp_path / 'lr', out=tmp_path / 'sr', recursive=True)
    assert files == [tmp_path / 'sr/a.png', tmp_path / 'sr/deep/b.png']
    for index, file in enumerate(files):
        assert np.array_equal(np.asarray(Image.open(file)), inferencer(lr_image(seed=index)))
    before = files[0].stat().st_mtime_ns
    inferencer(tmp_path / 'lr', out=tmp_path / 'sr', recursive=True)
    assert files[0].stat().st_mtime_ns == before
    Image.fromarray(lr_image()).save(files[0])
    with pytest.raises(ValueError, match='a.png: exists, and is not of mmpd-infer'):
        inferencer(tmp_path / 'lr', out=tmp_path / 'sr')
    inferencer(tmp_path / 'lr', out=tmp_path / 'sr', overwrite=True)
    with pytest.raises(ValueError, match='only files and folders have names'):
        inferencer(lr_image(), out=tmp_path / 'sr')


def test_refusals(inferencer, checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing.png'):
        inferencer(tmp_path / 'nothing.png')
    cv2.imwrite(str(tmp_path / 'deep.png'), np.zeros((8, 8, 3), np.uint16))
    with pytest.raises(ValueError, match='deep.png: expected 8 bits per channel, got 16 bits'):
        inferencer(tmp_path / 'deep.png')
    for wrong, message in ((lr_image() / 255, 'LR: expected uint8 .*got float64'),
                           ([lr_image(), lr_image(8, 8, 5)], 'LR 1: expected uint8'),
                           (torch.zeros(3, 8, 8), 'LR: expected a uint8 tensor'),
                           (3, 'LR: expected a file, an array, a PIL image or a tensor, got int'),
                           (Image.new('CMYK', (8, 8)), 'LR: expected grey or RGB'),
                           (lr_image(16, 8, 3), 'LR: 8x16, but config takes 8x8 only')):
        with pytest.raises(ValueError, match=message):
            inferencer(wrong)
    other = dict(MODEL, generator=dict(MODEL['generator'], in_size=16))
    with pytest.raises(RuntimeError, match='not one of config: .* 22 differ: .*is not in the file'):
        PDInferencer(Config(dict(model=other)), checkpoint, device='cpu')
    with pytest.raises(FileNotFoundError, match='none.pth'):
        PDInferencer(Config(dict(model=MODEL)), str(tmp_path / 'none.pth'), device='cpu')
    with pytest.raises(InputError, match='a config needs a checkpoint as well'):
        PDInferencer(Config(dict(model=MODEL)))
    diverged = PDInferencer(Config(dict(model=MODEL)), checkpoint, device='cpu')
    for parameter in diverged.model.parameters():
        parameter.data.fill_(float('nan'))
    with pytest.raises(ValueError, match='finite'):
        diverged(lr_image())


def test_mmagics_inferencer_takes_our_configs(tmp_path):
    """As documented in docs/inference.md: the LR goes in as it is, the file pools to it."""
    apis = pytest.importorskip('mmagic.apis', exc_type=ImportError)
    config = tmp_path / 'mine.py'
    base = ROOT / 'configs/pd_glean/pd_glean_in8out64-tiny_1xb8-400_demo.py'
    config.write_text(f'_base_ = {str(base)!r}\nmodel = dict(generator=dict(\n'
                      '    style_channels=8, num_mlps=1, rrdb_channels=4, num_rrdbs=1, channels={'
                      'size: 8 for size in (4, 8, 16, 32, 64)}),\n'
                      '    discriminator=dict(mid_channels=2))\n')
    checkpoint = save(Config.fromfile(config).model, tmp_path / 'mine.pth')
    Image.fromarray(lr_image()).save(tmp_path / 'lr.png')
    inferencer = apis.MMagicInferencer(
        model_name='glean', model_config=str(config), model_ckpt=checkpoint,
        device=torch.device('cpu'))
    inferencer.infer(img=str(tmp_path / 'lr.png'), result_out_dir=str(tmp_path / 'sr' / 'lr.png'))
    image = np.asarray(Image.open(tmp_path / 'sr' / 'lr.png'))
    assert image.shape == (64, 64, 3) and np.array_equal(pooled(image, 8), lr_image())
    own = PDInferencer(config, checkpoint, device='cpu')
    assert np.array_equal(image, own(lr_image()))
