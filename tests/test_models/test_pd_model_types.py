"""PD behind MMagic's other super-resolution models, and PDN."""
import pickle

import pytest
import torch
import torch.nn.functional as F
from conftest import lr_batch, pdn, predict, tiny_model, train_steps
from mmagic.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MessageHub

from mmpd.models.editors import PDMixin

CONFIGS = {
    'edsr/edsr_x4c64b16_1xb16-300k_div2k.py': 'BaseEditModel',
    'swinir/swinir_x2s48w8d6e180_8xb4-lr2e-4-500k_div2k.py': 'BaseEditModel',
    'srgan_resnet/srgan_x4c64b16_1xb16-1000k_div2k.py': 'SRGAN',
    'esrgan/esrgan_x4c64b23g32_1xb16-400k_div2k.py': 'ESRGAN',
}


def inherited(tmp_path, name, base):
    """What a user writes on top of a config of MMagic."""
    path = tmp_path / 'pd.py'
    path.write_text(f"_base_ = 'mmagic::{name}'\n"
                    "custom_imports = dict(imports=['mmpd'], allow_failed_imports=False)\n"
                    f"model = dict(type='PDModel', base='{base}')\n")
    cfg = Config.fromfile(path).model
    for key in ('perceptual_loss', 'discriminator'):  # downloads of VGG weights, and a fixed 128 px
        if key in cfg:
            cfg[key] = None
    generator = cfg.generator
    if generator.type in ('RRDBNet', 'EDSRNet', 'MSRResNet'):
        generator.num_blocks = 1
    if generator.type == 'SwinIRNet':
        generator.update(depths=[1], num_heads=[2], embed_dim=8, img_size=16)
    return cfg


@pytest.mark.parametrize('name, base', CONFIGS.items(), ids=[name[:6] for name in CONFIGS])
def test_inherited_model_gains_pd_and_keeps_its_keys(name, base, tmp_path):
    cfg = inherited(tmp_path, name, base)
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    plain_cfg = {key: value for key, value in cfg.items() if key != 'base'}
    plain = MODELS.build(dict(plain_cfg, type=base))
    assert isinstance(model, PDMixin) and isinstance(model, MODELS.get(base))
    model.load_state_dict(plain.state_dict(), strict=True)
    lr = lr_batch(2, 16)
    for sample, image in zip(predict(model, lr), lr.flip(1), strict=True):
        saved = sample.output.pred_img.double()
        scale = saved.shape[-1] // 16
        assert scale == (2 if 'x2' in name else 4)
        order = image if torch.equal(sample.input.round(), image) else image.flip(0)
        assert torch.equal(F.avg_pool2d(saved[None], scale)[0], order.double())


def test_bases_that_cannot_be():
    with pytest.raises(ValueError, match="'NoSuchModel'"):
        MODELS.build(dict(type='PDModel', base='NoSuchModel'))
    with pytest.raises(ValueError, match='base: expected .*BaseEditModel'):
        MODELS.build(dict(type='PDModel', base='MSRResNet'))
    for base in (None, 3, ''):
        with pytest.raises(ValueError, match='base: expected a model type or its name'):
            MODELS.build(dict(type='PDModel', base=base))
    with pytest.raises(ValueError, match="base: expected BaseEditModel, .* got 'EDVR', whose"):
        MODELS.build(dict(type='PDModel', base='EDVR', pixel_loss=dict(type='L1Loss'),
                          generator=dict(type='MSRResNet', in_channels=3, out_channels=3,
                                         mid_channels=4, num_blocks=1)))


def test_declared_types_are_classes_of_their_own():
    """They pickle, `isinstance` works, and a config may name them as well as PDModel."""
    generator = dict(type='MSRResNet', in_channels=3, out_channels=3, mid_channels=4, num_blocks=1,
                     upscale_factor=4)
    for base, name in (('BaseEditModel', 'PDEdit'), ('SRGAN', 'PDSRGAN'), ('ESRGAN', 'PDESRGAN'),
                       ('RealESRGAN', 'PDRealESRGAN')):
        cls, kwargs = MODELS.get(name), dict(generator=generator, pixel_loss=dict(type='L1Loss'))
        model = tiny_model('PDModel', base=base, **kwargs)
        assert type(model) is cls and isinstance(model, MODELS.get(base))
        assert type(tiny_model(name, **kwargs)) is cls
        assert pickle.loads(pickle.dumps(cls)) is cls
    copied = pickle.loads(pickle.dumps(model))
    assert torch.equal(predict(copied, lr_batch())[0].output.pred_img,
                       predict(model, lr_batch())[0].output.pred_img)


def test_a_type_of_ones_own_gains_pd():
    @MODELS.register_module(force=True)
    class OwnModel(MODELS.get('BaseEditModel')):
        pass

    generator = dict(type='MSRResNet', in_channels=3, out_channels=3, mid_channels=4, num_blocks=1,
                     upscale_factor=4)
    kwargs = dict(generator=generator, pixel_loss=dict(type='L1Loss'))
    first, second = (tiny_model('PDModel', base='OwnModel', **kwargs) for _ in range(2))
    assert type(first) is type(second) and isinstance(first, OwnModel)


def test_pdn_samples_differ_and_are_all_consistent():
    model, lr = pdn(test_cfg=dict(num_samples=3)), lr_batch()
    for sample in predict(model, lr):
        samples = sample.output.pred_samples
        assert samples.shape == (3, 3, 32, 32)
        assert torch.equal(samples[0], sample.output.pred_img)
        assert not torch.equal(samples[0], samples[1])
        pooled = F.avg_pool2d(samples.double(), 4)
        assert torch.equal(pooled, sample.input.double().expand_as(pooled))


def test_pdn_is_seeded_at_test_time():
    lr = lr_batch()
    image = predict(pdn(), lr)[0].output.pred_img
    assert torch.equal(image, predict(pdn(), lr)[0].output.pred_img)
    other = predict(pdn(test_cfg=dict(seed=7)), lr)[0].output.pred_img
    assert not torch.equal(image, other)
    assert torch.equal(image, predict(pdn(test_cfg=dict(seed=0)), lr)[0].output.pred_img)
    sampled = predict(pdn(test_cfg=dict(num_samples=2, seed=6)), lr)[0].output.pred_samples
    assert torch.equal(sampled[1], other)  # the second sample is the first of the next seed
    unseeded = pdn(test_cfg=dict(seed=None))
    torch.manual_seed(1)
    first = predict(unseeded, lr)[0].output.pred_img
    assert not torch.equal(first, predict(unseeded, lr)[0].output.pred_img)


def test_pdn_result_does_not_depend_on_the_batch():
    lr = lr_batch(3)
    together = predict(pdn(), lr)[1].output.pred_img
    alone = predict(pdn(), lr[1:2])[0].output.pred_img
    assert (together - alone).abs().max() <= 1  # convolutions of another batch size round otherwise


def test_pdn_needs_a_generator_with_latents():
    with pytest.raises(ValueError, match='PDNNet, got GLEANNet'):
        tiny_model('PDN', pixel_loss=None)


def test_pdn_latents_depend_on_the_iteration_and_nothing_else():
    model, hub = pdn(), MessageHub.get_current_instance()
    hub.update_info('iter', 3)
    first = model.draw_latents(2, training=True)
    torch.rand(5)
    assert torch.equal(first, model.draw_latents(2, training=True))
    hub.update_info('iter', 4)
    assert not torch.equal(first, model.draw_latents(2, training=True))


def test_pdn_trains_on_the_adversarial_loss_alone():
    assert set(train_steps(pdn())[-1]) == {'loss_gan', 'loss_d_real', 'loss_d_fake'}


def test_pdn_refuses_no_samples():
    with pytest.raises(ValueError, match='num_samples.*got 0'):
        pdn(test_cfg=dict(num_samples=0))
