"""Unknown or wrong settings of PD models, and generators that cannot gain PD, are refused."""
import copy

import pytest
import torch
from conftest import TINY, gan_parts, tiny_model
from mmagic.models.base_models import BaseEditModel
from mmagic.registry import MODELS
from torch import nn

from mmpd.errors import InputError
from mmpd.models.editors.probing import check_suitable

RRDB = dict(type='RRDBNet', in_channels=3, out_channels=3, mid_channels=4, num_blocks=1,
            growth_channels=2, upscale_factor=4)


def build(**kwargs):
    return MODELS.build(copy.deepcopy(dict(
        dict(type='PDModel', generator=RRDB, pixel_loss=dict(type='L1Loss')), **kwargs)))


@pytest.mark.parametrize('given, message', [
    (dict(test_cfg=dict(quantise='clip')), r"test_cfg\.quantise.*did you mean 'quantize'"),
    (dict(train_cfg=dict(r1_wieght=5)), r"train_cfg\.r1_wieght.*did you mean 'r1_weight'"),
    (dict(pd_head=dict(type='NoSuchHead')), r"pd_head\.type: expected one of PDHead, got 'NoSuch"),
    (dict(pd_head=dict(operater=dict(type='CEM', scale=4))),
     r"pd_head\.operater.*did you mean 'operator'"),
    (dict(pd_head=dict(bound=(0, 255))), r"pd_head\.bound.*did you mean 'bounds'"),
    (dict(pd_head=dict(noise_sdt=5)), r"pd_head\.noise_sdt.*did you mean 'noise_std'"),
    (dict(pd_head=dict(bounds=(255, 0))), 'bounds: expected the lower bound first'),
    (dict(pd_head=dict(noise_std=5, strength=0.5)), 'strength: expected 1 beside noise_std=5'),
    (dict(pd_head=dict(noise_std=5), test_cfg=dict(quantize='consistent')),
     r"quantize='consistent' would undo pd_head\.noise_std=5"),
    (dict(test_cfg=dict(keep_raw='False')), r'test_cfg\.keep_raw: expected True or False'),
    (dict(train_cfg=dict(disc_steps=0)), r'train_cfg\.disc_steps: expected an integer of at least'),
])
def test_settings_that_would_be_ignored(given, message):
    with pytest.raises(InputError, match=message):
        tiny_model(**given)


def test_noise_and_bounds_by_config():
    model = tiny_model(pd_head=dict(bounds=(0, 255)))
    assert model.pd_head.bounds == (0, 255) and model.quantize == 'consistent'
    model = tiny_model(pd_head=dict(noise_std=5, bounds=[0, 255]))
    assert model.pd_head.noise_std == 5 and model.quantize == 'clip'
    assert tiny_model(pd_head=dict(noise_std=0)).quantize == 'consistent'


def test_plain_models_too():
    with pytest.raises(InputError, match="r1_wieght.*did you mean 'r1_weight'"):
        tiny_model('GANPriorSR', train_cfg=dict(r1_wieght=5))


def test_mmagics_own_settings_are_known():
    tiny_model(train_cfg=dict(disc_steps=2, disc_repeat=1, disc_init_steps=0), **gan_parts(),
               test_cfg=dict(metrics=['PSNR'], crop_border=8, quantize='clip'))
    build(base='RealESRGAN', train_cfg=dict(start_iter=1000000))
    with pytest.raises(InputError, match='start_iter'):
        build(base='ESRGAN', train_cfg=dict(start_iter=1000000))


class OwnModel(BaseEditModel):
    """A model type with a setting of its own."""


def test_settings_of_foreign_types_pass_unless_they_look_like_ours():
    build(base=OwnModel, test_cfg=dict(my_own_tiles=3))
    with pytest.raises(InputError, match='quantise'):
        build(base=OwnModel, test_cfg=dict(quantise='clip'))


def test_sizes_of_mmagics_own_generator():
    for sizes in (dict(in_size=48, out_size=96), dict(in_size=64, out_size=32)):
        with pytest.raises(InputError, match='in_size: expected'):
            MODELS.build(dict(type='PDGLEAN', generator=dict(type='GLEANStyleGANv2', **sizes),
                              pixel_loss=dict(type='L1Loss')))


def test_wrong_lr_size_is_an_input_error():
    model = tiny_model('PDGLEAN', dict(
        type='GLEANStyleGANv2', in_size=8, out_size=16, style_channels=8, num_mlps=1,
        rrdb_channels=4, num_rrdbs=1))
    with pytest.raises(InputError, match=r'LR: expected shape \(N, C, 8, 8\).*got \(1, 3, 12, 12'):
        model(torch.zeros(1, 3, 12, 12))


@pytest.mark.parametrize('generator, message', [
    (dict(type='NAFNet', img_channels=3, mid_channels=4, middle_blk_num=1, enc_blk_nums=[1],
          dec_blk_nums=[1]), 'NAFNet has scale 1.*every output would be the input'),
    (dict(type='LIIFEDSRNet', encoder=dict(
        type='EDSRNet', in_channels=3, out_channels=3, mid_channels=4, num_blocks=1),
        imnet=dict(type='MLPRefiner', in_dim=4, out_dim=3, hidden_list=[4])),
     'LIIFEDSRNet, which also needs coord, cell'),
    (dict(type='BasicVSRNet', mid_channels=4, num_blocks=1, spynet_pretrained=None),
     'BasicVSRNet, which takes a sequence of frames'),
])
def test_generators_that_cannot_gain_pd(generator, message):
    with pytest.raises(InputError, match=message):
        build(generator=generator)


def test_scale_1_with_an_operator_that_loses_something():
    net = dict(type='NAFNet', img_channels=3, mid_channels=4, middle_blk_num=1, enc_blk_nums=[1],
               dec_blk_nums=[1])
    build(generator=net, pd_head=dict(operator=dict(type='Masking', mask=torch.eye(64))))
    for operator in (dict(type='AveragePooling', scale=1), dict(type='SeparableResize', scale=1)):
        with pytest.raises(InputError, match='changes nothing'):
            build(generator=net, pd_head=dict(operator=operator))


def test_operator_of_another_scale_than_the_generator():
    with pytest.raises(InputError, match='pd_head.operator: expected scale 4.*RRDBNet, got'):
        build(pd_head=dict(operator=dict(type='SeparableResize', scale=8)))


@pytest.mark.parametrize('key', ['discriminator', 'gan_loss', 'perceptual_loss'])
def test_a_forgotten_base(key):
    with pytest.raises(InputError, match=f"{key}.*base='BaseEditModel'.*give the model type"):
        build(**{key: dict(type='GANLoss', gan_type='vanilla')})


def test_unknown_bases_and_parts():
    with pytest.raises(InputError, match="base: expected.*did you mean 'ESRGAN'"):
        build(base='ESRGann')
    with pytest.raises(InputError, match="generator.type: .*did you mean 'RRDBNet'"):
        build(generator=dict(RRDB, type='RRDBnett'))


class Stateful(nn.Module):
    """Changes an attribute in its forward pass, as SwinIRNet does."""

    def __init__(self):
        super().__init__()
        self.mean, self.conv = torch.zeros(1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        self.mean = self.mean.type_as(x)
        return nn.functional.interpolate(self.conv(x - self.mean), scale_factor=2)


def test_looking_at_a_generator_leaves_it_as_it_was():
    generator = Stateful()
    before = torch.get_rng_state()
    assert check_suitable(generator) == 2
    assert torch.equal(before, torch.get_rng_state())
    assert not generator.mean.is_meta and generator.conv.weight.requires_grad
    assert generator(torch.zeros(1, 3, 4, 4)).shape == (1, 3, 8, 8)


def test_glean_generators_are_looked_at_in_their_own_size():
    assert check_suitable(MODELS.build(dict(type='GLEANNet', **{
        key: value for key, value in TINY.items() if key != 'type'}))) == 4
