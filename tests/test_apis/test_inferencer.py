"""PDInferencer: files and arrays, exactly consistent output, clear refusals."""
import cv2
import numpy as np
import pytest
import torch
from mmagic.registry import MODELS
from mmengine.config import Config
from PIL import Image

from mmpd.apis.inferencer import PDInferencer

MODEL = dict(
    type='PDGLEAN',
    generator=dict(
        type='GLEANNet', in_size=8, out_size=32, style_channels=16, num_mlps=1, rrdb_channels=8,
        num_rrdbs=1, growth_channels=4, channels={4: 8, 8: 8, 16: 8, 32: 8}),
    discriminator=dict(type='UNetDiscriminatorWithSpectralNorm', in_channels=3, mid_channels=4),
    gan_loss=dict(type='GANLoss', gan_type='vanilla', loss_weight=1e-2),
    pixel_loss=dict(type='L1Loss'),
    data_preprocessor=dict(type='DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3))


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('checkpoint') / 'pd.pth'
    torch.save(dict(state_dict=MODELS.build(MODEL).state_dict()), path)
    return str(path)


def lr_image(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def test_output_pools_to_the_input(checkpoint, tmp_path):
    inferencer = PDInferencer(Config(dict(model=MODEL)), checkpoint, device='cpu')
    lr = lr_image()
    image = inferencer(lr)
    assert image.dtype == np.uint8 and image.shape == (32, 32, 3)
    assert np.array_equal(image.reshape(8, 4, 8, 4, 3).mean((1, 3)), lr)
    Image.fromarray(lr).save(tmp_path / 'lr.png')
    assert np.array_equal(inferencer(tmp_path / 'lr.png'), image)
    Image.fromarray(lr[..., 0]).save(tmp_path / 'grey.png')
    assert np.array_equal(inferencer(tmp_path / 'grey.png'), inferencer(lr[..., :1].repeat(3, 2)))


def test_options_reach_the_model(checkpoint):
    raw = PDInferencer(Config(dict(model=MODEL)), checkpoint, device='cpu',
                       cfg_options={'model.pd_head': dict(strength=0.0)})
    assert not np.array_equal(raw(lr_image()).reshape(8, 4, 8, 4, 3).mean((1, 3)), lr_image())


def test_several_samples(tmp_path):
    generator = {**MODEL['generator'], 'type': 'PDNNet'}
    cfg = Config(dict(model=dict(MODEL, type='PDN', pixel_loss=None, generator=generator)))
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), tmp_path / 'pdn.pth')
    options = {'model.test_cfg': dict(num_samples=3)}
    images = PDInferencer(cfg, str(tmp_path / 'pdn.pth'), device='cpu', cfg_options=options)(
        lr_image())
    assert images.shape == (3, 32, 32, 3) and images.dtype == np.uint8
    assert not np.array_equal(images[0], images[1])
    for image in images:
        assert np.array_equal(image.reshape(8, 4, 8, 4, 3).mean((1, 3)), lr_image())
    assert 'num_samples' not in cfg.model.get('test_cfg', {})  # the caller's config is left alone


def test_refusals(checkpoint, tmp_path):
    inferencer = PDInferencer(Config(dict(model=MODEL)), checkpoint, device='cpu')
    with pytest.raises(FileNotFoundError, match='nothing.png'):
        inferencer(tmp_path / 'nothing.png')
    for name, picture, mode in (('alpha.png', np.zeros((8, 8, 4), np.uint8), 'RGBA'),
                                ('deep.png', np.zeros((8, 8, 3), np.uint16), '16-bit RGB')):
        cv2.imwrite(str(tmp_path / name), picture)
        with pytest.raises(ValueError, match=f'{name}: expected 8-bit .*, got mode {mode}'):
            inferencer(tmp_path / name)
    with pytest.raises(ValueError, match='uint8 RGB, got float64'):
        inferencer(lr_image() / 255)
    with pytest.raises(ValueError, match=r'expected shape \(N, C, 8, 8\)'):
        inferencer(np.zeros((16, 16, 3), np.uint8))
    other = dict(MODEL, generator=dict(MODEL['generator'], in_size=16))
    with pytest.raises(RuntimeError, match='not a checkpoint of this model: .* tensors, 22 differ: .*is not in'):
        PDInferencer(Config(dict(model=other)), checkpoint, device='cpu')
    with pytest.raises(FileNotFoundError, match='none.pth'):
        PDInferencer(Config(dict(model=MODEL)), str(tmp_path / 'none.pth'), device='cpu')
