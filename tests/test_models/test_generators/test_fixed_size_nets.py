"""GPEN, GFP-GAN and pSp as super-resolvers: enlargement, sizes, what is trained, PD's LR."""
import pytest
import torch
import torch.nn.functional as F
from mmagic.registry import MODELS
from PIL import Image

from mmpd.models.generators.fixed_size_net import FixedSizeNet, enlarge
from mmpd.operators import AveragePooling

WIDTHS = {4: 8, 8: 8, 16: 6, 32: 6}
GPEN = dict(type='GPENNet', net_size=16, style_channels=8, num_mlps=1, channels=WIDTHS)
GFPGAN = dict(type='GFPGANNet', net_size=16, style_channels=8, num_mlps=1, channels=WIDTHS)
PSP = dict(type='PSPNet', prior_size=32, encoder_size=32, style_channels=8, num_mlps=1,
           channels=WIDTHS, encoder_channels=(4, 4, 6, 8), encoder_depths=(1, 2, 1, 1))
NETS = dict(gpen=GPEN, gfpgan=GFPGAN, gfpgan_v1=dict(GFPGAN, fir=True), psp=PSP)


class Identity(FixedSizeNet):
    """Restores nothing: what is left is the enlargement."""

    def restore(self, image):
        return image


def build(name, **kwargs):
    torch.manual_seed(0)
    net = MODELS.build({**NETS[name], 'in_size': 4, 'out_size': 32, **kwargs}).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


@pytest.mark.parametrize('kernel, pil', [
    ('bilinear', Image.Resampling.BILINEAR), ('nearest', Image.Resampling.NEAREST)])
def test_enlargement_is_that_of_pillow(kernel, pil):
    lr = torch.randn(1, 1, 6, 6)
    expected = Image.fromarray(lr[0, 0].numpy(), mode='F').resize((24, 24), pil)
    torch.testing.assert_close(enlarge(lr, 24, kernel)[0, 0], torch.tensor(
        list(expected.getdata())).view(24, 24), rtol=1e-5, atol=1e-5)


def test_both_kernels_do_what_they_say():
    lr = torch.randn(2, 3, 4, 4)
    net = Identity(4, 32, 16, 16, in_kernel='nearest', out_kernel='bilinear')
    middle = lr.repeat_interleave(4, 2).repeat_interleave(4, 3)
    expected = F.interpolate(middle, size=(32, 32), mode='bilinear', align_corners=False)
    torch.testing.assert_close(net(lr), expected)
    results = {(a, b): Identity(4, 32, 16, 16, in_kernel=a, out_kernel=b)(lr)
               for a in ('nearest', 'bilinear', 'bicubic') for b in ('nearest', 'bicubic')}
    assert len({float(x.double().square().sum()) for x in results.values()}) == 6
    assert torch.equal(Identity(4, 16, 4, 4, out_kernel='nearest')(lr), middle)


@pytest.mark.parametrize('sizes, message', [
    ((4, 30, 16, 16), 'multiple of in_size'), ((8, 8, 16, 16), 'larger than it'),
    ((32, 64, 16, 16), 'in_size of at most 16'), ((4, 8, 16, 16), 'out_size of at least 16'),
    ((0, 8, 8, 8), 'in_size'), ((4, 16.0, 8, 8), 'out_size')])
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        Identity(*sizes)


@pytest.mark.parametrize('option', ['in_kernel', 'out_kernel'])
def test_unknown_kernels_are_refused(option):
    with pytest.raises(ValueError, match=f'{option}: expected one of .*lanczos'):
        Identity(4, 16, 8, 8, **{option: 'lanczos'})


@pytest.mark.parametrize('name', NETS)
def test_shape_determinism_and_wrong_lr(name):
    net, lr = build(name), torch.randn(2, 3, 4, 4).clamp(-1, 1)
    with torch.no_grad():
        image = net(lr)
        assert image.shape == (2, 3, 32, 32) and image.std() > 1e-3
        assert torch.equal(image, net(lr))  # no fresh noise
        torch.testing.assert_close(net(lr[1:]), image[1:], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r'expected shape \(N, C, 4, 4\)'):
        net(torch.randn(1, 3, 5, 5))


@pytest.mark.parametrize('name', NETS)
def test_what_is_trained_gets_gradients_and_nothing_else(name):
    net = build(name).train()
    net(torch.randn(2, 3, 4, 4)).square().mean().backward()
    assert not [key for key, value in net.named_parameters()
                if value.requires_grad and value.grad is None]
    frozen = {key.split('.')[0] for key, value in net.named_parameters() if not value.requires_grad}
    assert frozen == (set() if name == 'gpen' else {'generator'})


@pytest.mark.parametrize('name', ['gfpgan', 'psp'])
def test_the_prior_may_be_trained(name):
    net = build(name, freeze_prior=False)
    frozen = {key for key, value in net.named_parameters() if not value.requires_grad}
    assert frozen and all('.style_mapping.' in key for key in frozen)


def test_gfpgan_changes_the_second_half_of_the_features():
    net = build('gfpgan')
    seen = {}
    net.generator.synthesis = lambda latents, modulate: seen.update(modulate=modulate) or type(
        'Rgb', (), dict(rgb=torch.zeros(1, 3, 16, 16)))
    net(torch.randn(1, 3, 4, 4))
    features = torch.randn(1, 8, 8, 8)
    changed = seen['modulate'](8, features)
    assert torch.equal(changed[:, :4], features[:, :4])
    assert (changed[:, 4:] - features[:, 4:]).abs().min() > 0


@pytest.mark.parametrize('kwargs, message', [
    (dict(net_size=24), 'net_size'), (dict(in_size=32, out_size=64), 'in_size of at most 16')])
@pytest.mark.parametrize('name', ['gpen', 'gfpgan'])
def test_network_sizes_are_checked(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(name, **kwargs)


def test_psps_encoder_is_checked():
    with pytest.raises(ValueError, match='at least 32'):
        build('psp', encoder_size=16)
    with pytest.raises(ValueError, match='prior_size: expected .* at least 32, got 16'):
        build('psp', prior_size=16)
    with pytest.raises(ValueError, match='encoder_depths: expected a sequence of 4 values'):
        build('psp', encoder_depths=(1, 1))


def test_psp_takes_a_pretrained_prior_and_its_channel_order(tmp_path):
    prior = build('psp').generator
    torch.save(dict(state_dict={f'generator_ema.{key}': value
                                for key, value in prior.state_dict().items()}), tmp_path / 'p.pth')
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'p.pth'), prefix='generator_ema')
    net = MODELS.build({**PSP, 'in_size': 4, 'out_size': 32, 'prior_init_cfg': pretrained}).eval()
    for wrong, match in ((dict(prefx='x'), "prefx: .*did you mean 'prefix'"),
                         (dict(checkpoint=5), 'checkpoint: expected a file or address, got 5'),
                         (dict(prefix=5), 'prefix: expected a string, got 5')):
        net.generator.init_cfg = {**pretrained, **wrong}
        with pytest.raises(ValueError, match=f'init_cfg.{match}'):
            net.init_weights()
    net.generator.init_cfg = pretrained
    net.init_weights()
    for key, value in net.generator.state_dict().items():
        assert torch.equal(value, prior.state_dict()[key]), key
    lr = torch.randn(1, 3, 4, 4)
    image = net(lr)
    net.generator.bgr2rgb = True
    assert torch.equal(net(lr), image.flip(1))
    assert MODELS.build({**PSP, 'in_size': 4, 'out_size': 32, 'bgr2rgb': True}).generator.bgr2rgb


@pytest.mark.parametrize('name', NETS)
def test_pd_compares_with_the_lr_itself(name):
    """Not with the enlarged one that the network sees."""
    torch.manual_seed(0)
    generator = {**NETS[name], 'in_size': 4, 'out_size': 32}
    model = MODELS.build(dict(
        type='PDModel', base='GANPriorSR', generator=generator, data_preprocessor=dict(
            type='DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3))).eval()
    lr = torch.randint(0, 256, (1, 3, 4, 4)).float()
    with torch.no_grad():
        output = model(lr / 127.5 - 1, mode='tensor')
    torch.testing.assert_close(AveragePooling(8).A(output), lr / 127.5 - 1, rtol=0, atol=1e-5)
    assert model.pd_head.operator.scale == 8
