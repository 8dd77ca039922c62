"""The borders of what networks and models take: the last value inside, the first one outside."""
import copy

import pytest
import torch
from conftest import gan_parts, tiny_model
from mmagic.registry import MODELS

from mmpd.errors import InputError
from mmpd.models.generators.stylegan2_prior import check_widths, log2_of, prior_channels
from mmpd.models.heads import PDHead

WIDTHS = {4: 4, 8: 4, 16: 4, 32: 4}
PRIOR = dict(style_channels=4, num_mlps=1, channels=WIDTHS)
TRUNK = dict(PRIOR, in_size=8, out_size=16, rrdb_channels=4, num_rrdbs=1, growth_channels=2)
NETS = dict(
    StyleGAN2Prior=dict(PRIOR, out_size=8), GLEANNet=TRUNK, PDNNet=TRUNK,
    PaniniNet=dict(TRUNK, latent_channels=4, representation_channels=4),
    GPENNet=dict(PRIOR, in_size=4, out_size=16, net_size=8),
    GFPGANNet=dict(PRIOR, in_size=4, out_size=16, net_size=8),
    PSPNet=dict(PRIOR, in_size=4, out_size=32, prior_size=32, encoder_size=32,
                encoder_channels=(4, 4, 4, 4), encoder_depths=(1, 1, 1, 1)),
    PULSENet=dict(in_size=4, out_size=16, style_channels=4, channels=WIDTHS, steps=1),
    DegradationEncoder=dict(channels=(4, 4)),
    DegradationMoCo=dict(encoder=dict(type='DegradationEncoder', channels=(4, 4)),
                         projection_channels=4, queue_size=4),
    StyleGAN2Discriminator=dict(in_size=8, channels=WIDTHS))
COUNT, COUNT_0 = ((1,), (0, 1.5)), ((0,), (-1,))  # integers from 1, from 0: (good, bad)
FLAG, POSITIVE = ((True, False), ('no',)), ((1e-9,), (0, 'a'))
MODE = ('mix', 'single'), ('none',)
WIDE = ((1, 1 << 4), (0, (1 << 16) + 1))
KERNEL = ((1, 2), (1, 2, 2, 1, 0, 0)), ((1, -1), (1, 2, 1), 'a', ())
SEED = ((0, 2**63 - 1), (-1, 2**63))
ENCODER = dict(
    img_channels=WIDE, rrdb_channels=WIDE, growth_channels=WIDE, num_rrdbs=((0,), (-1, 1025)),
    default_style_mode=MODE, eval_style_mode=MODE, mix_prob=((0, 1), (-0.1, 1.1)),
    freeze_prior=FLAG, with_cp=FLAG)
ARGUMENTS = dict(
    StyleGAN2Prior=dict(
        style_channels=WIDE, out_channels=WIDE, noise_size=((1, None), (0, 'a')),
        num_mlps=((0,), (-1, 1025)), lr_mlp=POSITIVE, norm_eps=POSITIVE, fp16_enabled=FLAG,
        bgr2rgb=FLAG, with_cp=FLAG, blur_kernel=KERNEL,
        channel_multiplier=((1, 2), (0, 1 << 17)), out_size=((8, 16), (4, 12, 1 << 17))),
    GLEANNet=dict(ENCODER, decoder=FLAG), PDNNet=ENCODER,
    PaniniNet=dict(
        ENCODER, reduction=WIDE, stem_channels=WIDE, latent_channels=WIDE,
        representation_channels=WIDE, fuse_size=((4, 8), (16, 2, 6)),
        degradation_encoder=((None,), ('a', dict(type='None')))),
    GPENNet=dict(narrow=((0.5, 1), (0, 1 << 17))),
    GFPGANNet=dict(fir=FLAG, freeze_prior=FLAG, net_size=((8, 16), (24, 2))),
    PSPNet=dict(prior_size=((32,), (16, 48)), encoder_size=((32, 64), (16, 48)),
                encoder_channels=(((1, 1, 1, 1),), ((4, 4, 4), (4, 4, 0, 4), 4)),
                encoder_depths=(((1, 1, 1, 2),), ((1, 1), (1, 1, 1, 1025))),
                freeze_prior=FLAG, prior_init_cfg=((None,), ('a', [3]))),
    PULSENet=dict(
        in_size=((2, 8), (1, 16)), steps=COUNT, seed=SEED, style_channels=WIDE,
        learning_rate=POSITIVE, eps=((0,), (-1e-9,)), tile_latent=FLAG,
        num_trainable_noise_layers=COUNT_0, bad_noise_layers=(((), [], (0,)), ((-1,), 3)),
        losses=((dict(L2=0), dict(L1=1)), (dict(L2=-1), dict(L3=1), {}, 3)),
        optimizer=(('adam', 'sgdm'), ('lion',)), keep=(('best',), ('worst',)),
        out_size=((8, 16), (4, 24))),
    DegradationEncoder=dict(in_channels=WIDE, image_size=COUNT,
                            channels=(((1,), [2, 3]), ((), (0,), 4)),
                            init_cfg=((None, [None]), ('a', [3]))),
    DegradationMoCo=dict(
        momentum=((0, 1), (-0.1, 1.1)), temperature=POSITIVE, projection_channels=WIDE,
        queue_size=((1, 1 << 24), (0, (1 << 24) + 1)), encoder=((), (None, dict(type='None'))),
        data_preprocessor=((None,), ('a',)), init_cfg=((None,), ('a',))),
    StyleGAN2Discriminator=dict(with_cp=FLAG, in_size=((4, 32), (2, 12)), blur_kernel=KERNEL,
                                channel_multiplier=((1, 2), (0,))))
CASES = [(kind, name, value, fits) for kind, names in ARGUMENTS.items()
         for name, sides in names.items() for fits, values in zip((True, False), sides, strict=True)
         for value in values]


@pytest.mark.parametrize('kind, name, value, fits', CASES,
                         ids=['-'.join(map(str, case)) for case in CASES])
def test_borders_of_arguments(kind, name, value, fits):
    cfg = copy.deepcopy(dict(NETS[kind], type=kind, **{name: value}) if name not in NETS[kind]
                        else dict({**NETS[kind], name: value}, type=kind))
    with torch.device('meta'):
        if fits:
            assert MODELS.build(cfg)
        else:
            with pytest.raises(ValueError, match=name):
                MODELS.build(cfg)


@pytest.mark.parametrize('size, level', [(4, 2), (8, 3), (1 << 16, 16)])
def test_powers_of_two(size, level):
    assert log2_of(size, 'size') == level
    for wrong in (size + 1, float(size), True, str(size)):
        with pytest.raises(InputError, match='size: expected a power of two of at least 4, got'):
            log2_of(wrong, 'size')


def test_sizes_and_widths_beyond_any_machine():
    with pytest.raises(InputError, match='size: expected at most 65536, got 131072'):
        log2_of(1 << 17, 'size')
    assert check_widths({'8': 1, 16: 1 << 16}) == {8: 1, 16: 1 << 16} and check_widths(None) == {}
    for channels in ({'a': 3}, {12: 3}, {8: 0}, {8: (1 << 16) + 1}, [8]):
        with pytest.raises(InputError, match='channels'):
            check_widths(channels)


def test_widths_of_config_f():
    """Karras et al. 2020: 512 up to 32 px, then halved at each doubling, times the multiplier."""
    assert prior_channels(2) == {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128,
                                 512: 64, 1024: 32}
    assert prior_channels(1, {8: 3})[64] == 256 and prior_channels(1, {8: 3})[8] == 3


def test_z_may_have_a_width_of_its_own():
    prior = MODELS.build(dict(NETS['StyleGAN2Prior'], type='StyleGAN2Prior', noise_size=3,
                              num_mlps=2))
    assert prior.map(torch.randn(2, 3)).shape == (2, 4, 4)


@pytest.mark.parametrize('mean, std', [((1, 2, 3), (4, 5)), ((1, 2), (1, 2, 3))])
def test_mean_and_std_of_different_lengths(mean, std):
    with pytest.raises(InputError, match=f'std: expected one value or {len(mean)}, as in mean'):
        PDHead(mean=mean, std=std)
    for fitting in ((mean, 5), (7, std), (mean, (4,) * len(mean))):
        PDHead(mean=fitting[0], std=fitting[1])


# setting -> (good, bad); None where it is not checked, for MMagic reads it no more
TRAIN_CFG = dict(disc_steps=COUNT, disc_repeat=COUNT_0, disc_init_steps=COUNT_0,
                 r1_weight=((0, 0.5), (-0.1, 'a')))
TEST_CFG = dict(metrics=(('PSNR', None), ()), crop_border=((3, 'a'), ()), keep_raw=FLAG,
                quantize=(('clip', 'none'), ('floor', None)),
                made_by=((None, 'float'), ('gimp',)))
SETTINGS = [(cfg, name, value, fits) for cfg, names in (
    ('train_cfg', TRAIN_CFG), ('test_cfg', TEST_CFG)) for name, sides in names.items()
    for fits, values in zip((True, False), sides, strict=True) for value in values]


@pytest.mark.parametrize('cfg, name, value, fits', SETTINGS,
                         ids=['-'.join(map(str, case)) for case in SETTINGS])
def test_borders_of_settings(cfg, name, value, fits):
    def build():
        with torch.device('meta'):
            return tiny_model(**gan_parts(), **{cfg: {name: value}})
    if fits:
        assert build()
        return
    with pytest.raises(InputError, match=f'{cfg}.{name}'):
        build()


@pytest.mark.parametrize('name, good, bad', [
    ('num_samples', *COUNT), ('seed', (None, *SEED[0]), SEED[1])])
def test_borders_of_pdns_settings(name, good, bad):
    generator = dict(NETS['PDNNet'], type='PDNNet')

    def build(value, cfg='test_cfg'):
        return tiny_model('PDN', generator, pixel_loss=None, **{cfg: {name: value}})
    for value in good:
        model = build(value)
        assert name != 'seed' or model.draw_latents(1).shape == (1, 4)
    for value in bad:
        with pytest.raises(InputError, match=f'test_cfg.{name}'):
            build(value)
    if name == 'seed':
        for value in (None, -1):  # training has one always
            with pytest.raises(InputError, match='train_cfg.seed'):
                build(value, 'train_cfg')


@pytest.mark.parametrize('start_iter, fits', [(-1, True), (0, True), (-2, False)])
def test_borders_of_real_esrgans_setting(start_iter, fits):
    cfg = dict(type='PDRealESRGAN', pixel_loss=dict(type='L1Loss'),
               generator=dict(type='MSRResNet', in_channels=3, out_channels=3, mid_channels=4,
                              num_blocks=1, upscale_factor=4),
               train_cfg=dict(start_iter=start_iter))
    if fits:
        assert MODELS.build(cfg)
        return
    with pytest.raises(InputError, match='train_cfg.start_iter'):
        MODELS.build(cfg)
