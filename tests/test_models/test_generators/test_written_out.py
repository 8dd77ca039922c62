"""Networks written out with functions of PyTorch, from nothing but their weights.

What is compared is each layer's stride, padding, slope and bias: a network that differs in one of
them still has the right shapes, and loads no published weights.
"""
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmagic.models.editors.stylegan2.stylegan2_modules import ModulatedStyleConv
from mmagic.registry import MODELS

from mmpd.models.generators import pulse_net
from mmpd.models.generators.gfpgan_net import (
    BilinearStyleConv,
    BilinearStyleGAN2Prior,
    ResidualBlock,
)
from mmpd.models.generators.panini_net import SharedCBAM
from mmpd.models.generators.psp_encoder import GradualStyleEncoder, SqueezeExcitation
from mmpd.models.generators.stylegan1 import (
    StyleGAN1Layer,
    StyleGAN1Mapping,
    StyleGAN1Synthesis,
    stylegan1_channels,
)

WIDTHS = {4: 8, 8: 8, 16: 6, 32: 6}


class Weights:
    """A state dict that notes what was used of it."""

    def __init__(self, module):
        torch.manual_seed(1)
        with torch.no_grad():
            for name, value in module.state_dict().items():
                if value.is_floating_point():  # biases and statistics that count
                    value.copy_(0.5 * torch.randn_like(value))
                    if name.endswith('running_var'):
                        value.abs_().add_(0.5)
        self.values, self.used = module.state_dict(), set()

    def __call__(self, key):
        self.used.add(key)
        return self.values[key]

    def conv(self, x, name, stride=1, bias=True, padding=None):
        weight = self(f'{name}.weight')
        return F.conv2d(x, weight, self(f'{name}.bias') if bias else None, stride,
                        weight.shape[-1] // 2 if padding is None else padding)

    def linear(self, x, name):
        return F.linear(x, self(f'{name}.weight'), self(f'{name}.bias'))

    def norm(self, x, name):
        return F.batch_norm(x, *(self(f'{name}.{key}') for key in (
            'running_mean', 'running_var', 'weight', 'bias')))

    def unused(self, *parts):
        return {key for key in self.values.keys() - self.used
                if not key.endswith('num_batches_tracked') and not key.startswith(parts)}


def test_degradation_encoder():
    net = MODELS.build(dict(type='DegradationEncoder', channels=(4, 6), image_size=16)).eval()
    weights, x = Weights(net), torch.randn(2, 3, 16, 16)
    feature = x
    for index, stride in ((0, 1), (3, 1), (6, 2), (9, 1)):
        feature = weights.norm(weights.conv(feature, f'body.{index}', stride), f'body.{index + 1}')
        feature = F.leaky_relu(feature, 0.1)
    torch.testing.assert_close(net(x), feature.mean((2, 3)))
    assert not weights.unused()


def attention(weights, x, name):
    """Channel and spatial attention with one convolution before both."""
    x = weights.conv(x, f'{name}conv')

    def gate(pooled):
        hidden = weights.linear(pooled, f'{name}channel_gate.0').relu()
        return weights.linear(hidden, f'{name}channel_gate.2')
    both = gate(x.mean((2, 3))) + gate(x.flatten(2).max(2)[0])
    x = weights.conv(x * both.sigmoid().view(*both.shape, 1, 1), f'{name}conv')
    pooled = torch.stack([x.max(1)[0], x.mean(1)], 1)
    spatial = weights.conv(pooled, f'{name}spatial_gate.0', bias=False)
    return x * weights.norm(spatial, f'{name}spatial_gate.1').sigmoid()


@pytest.mark.parametrize('channels, narrow', [(4, 1), (16, 2)])
def test_shared_attention(channels, narrow):
    module = SharedCBAM(channels, 8).eval()
    weights, x = Weights(module), torch.randn(2, channels, 9, 9)
    torch.testing.assert_close(module(x), attention(weights, x, ''), rtol=1e-4, atol=1e-5)
    assert weights('channel_gate.0.weight').shape == (narrow, channels)
    assert weights('spatial_gate.0.weight').shape == (1, 2, 7, 7) and not weights.unused()


def test_statistics_of_the_attention_follow_slowly():
    module = SharedCBAM(4, 8).train()
    seen = []
    module.spatial_gate[0].register_forward_hook(lambda *args: seen.append(args[-1]))
    module(3 + torch.randn(2, 4, 9, 9))
    moved = module.spatial_gate[1].running_mean / seen[0].mean()
    assert 0 < moved < 0.05


@pytest.mark.parametrize('fuse_size', [16, 4])
def test_paninis_encoder(fuse_size):
    net = MODELS.build(dict(
        type='PaniniNet', in_size=16, out_size=32, style_channels=8, num_mlps=1, rrdb_channels=4,
        num_rrdbs=1, growth_channels=4, latent_channels=5, representation_channels=6,
        stem_channels=3, fuse_size=fuse_size, channels=WIDTHS)).eval()
    weights, lr = Weights(net), torch.randn(2, 3, 16, 16)

    def conv(x, name, stride=1):
        return F.leaky_relu(weights.conv(x, name, stride), 0.2)
    feature = net.encoder[0][0](lr)  # the RRDBs are compared with MMagic's, of GLEAN
    feature = conv(attention(weights, feature, 'encoder.0.1.'), 'encoder.0.2')
    for index in (4, 6) if fuse_size == 4 else ():
        feature = conv(feature, f'encoder.0.{index}', 2)
    encoded = [feature]
    for index in (1, 2) if fuse_size == 16 else ():
        encoded.insert(0, conv(encoded[0], f'encoder.{index}.0', 2))
    assert [value.shape[1:] for value in encoded] == [
        (WIDTHS[res], res, res) for res in (4, 8, 16) if res <= fuse_size]
    if fuse_size == 4:  # the width doubles as the side halves
        assert [weights(f'encoder.0.{index}.weight').shape[0] for index in (2, 4, 6)] == [3, 6, 8]
    last = f'encoder.{len(encoded)}'
    latents = weights.linear(conv(encoded[0], f'{last}.0').flatten(1), f'{last}.3')
    flat = weights.linear(F.leaky_relu(weights.linear(weights('vector'), 'mask_generator.0'), 0.1),
                          'mask_generator.2')
    start, shares = 0, []
    for res in (4, 8, 16)[:len(encoded)]:
        shares.append(flat[:, start:start + 2 * WIDTHS[res]].view(2, -1).softmax(0))
        start += 2 * WIDTHS[res]

    def fuse(res, out, rgb):
        if res <= fuse_size:
            level = (4, 8, 16).index(res)
            of_prior, of_encoder = (share.view(1, -1, 1, 1) for share in shares[level])
            out = of_prior * out + of_encoder * weights.conv(encoded[level], f'fusion_out.{level}')
        return out, rgb
    expected = net.generator.synthesis(latents.view(2, -1, 8), fuse=fuse).rgb
    torch.testing.assert_close(net(lr), expected, rtol=1e-4, atol=1e-4)
    assert not weights.unused('generator.', 'encoder.0.0.') and start == flat.shape[1]


KERNEL = torch.tensor([1., 3, 3, 1])


def blurred(x, before, after):
    kernel = (KERNEL[:, None] * KERNEL / KERNEL.sum()**2).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(F.pad(x, (before, after) * 2), kernel, groups=x.shape[1])


def residual_block(weights, x, name, mode):
    def resized(x, *padding):
        if mode == 'fir':
            return blurred(x, *padding)
        return F.interpolate(x, scale_factor=2 if mode == 'up' else 0.5, mode='bilinear')
    stride, padding = (2, 0) if mode == 'fir' else (1, 1)
    out = F.leaky_relu(weights.conv(x, f'{name}conv1'), 0.2)
    out = F.leaky_relu(weights.conv(resized(out, 2, 2), f'{name}conv2', stride, padding=padding),
                       0.2)
    return out + weights.conv(resized(x, 1, 1), f'{name}skip', stride, bias=False)


@pytest.mark.parametrize('mode, side', [('up', 16), ('down', 4), ('fir', 4)])
def test_residual_block(mode, side):
    block = ResidualBlock(3, 5, mode)
    weights, x = Weights(block), torch.randn(2, 3, 8, 8)
    for buffer in block.buffers():  # of the filter, which Weights changed
        buffer.copy_(KERNEL[:, None] * KERNEL / 64)
    expected = residual_block(weights, x, '', mode)
    assert expected.shape == (2, 5, side, side)
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)
    assert not weights.unused('blur')


@pytest.mark.parametrize('fir', [False, True])
def test_gfpgan(fir):
    net = MODELS.build(dict(type='GFPGANNet', in_size=4, out_size=16, net_size=16, fir=fir,
                            style_channels=8, num_mlps=1, channels=WIDTHS)).eval()
    kept = {name: value.clone() for name, value in net.state_dict().items() if 'kernel' in name}
    weights, image = Weights(net), torch.randn(2, 3, 16, 16)
    net.load_state_dict(kept, strict=False)
    assert any(name.startswith('generator.') for name in kept) == fir  # no filter but bilinear
    feature, skips, conditions = F.leaky_relu(weights.conv(image, 'first'), 0.2), [], {}
    for index in range(2):
        feature = residual_block(weights, feature, f'down.{index}.', 'fir' if fir else 'down')
        skips.append(feature)
    feature = F.leaky_relu(weights.conv(feature, 'last'), 0.2)
    latents = weights.linear(feature.flatten(1), 'to_latents').view(2, -1, 8)
    for index in range(2):
        feature = residual_block(weights, feature + skips[1 - index], f'up.{index}.', 'up')
        conditions[8 * 2**index] = [
            weights.conv(F.leaky_relu(weights.conv(feature, f'{kind}.{index}.0'), 0.2),
                         f'{kind}.{index}.2') for kind in ('gains', 'shifts')]
        assert feature.shape[1] == WIDTHS[8 * 2**index] // 2

    def modulate(res, features):
        features, (gain, shift) = features.clone(), conditions[res]
        half = features.shape[1] // 2
        features[:, half:] = features[:, half:] * gain + shift
        return features
    expected = net.generator.synthesis(latents, modulate=modulate).rgb
    torch.testing.assert_close(net.restore(image), expected, rtol=1e-4, atol=1e-4)
    assert not weights.unused('generator.', *(f'down.{index}.blur' for index in range(2)))
    assert net.generator.num_latents == 6


def test_the_clean_priors_convolutions_enlarge_bilinearly():
    ours, theirs = (kind(3, 5, 3, 8, **options) for kind, options in (
        (BilinearStyleConv, dict(upsample=True)), (ModulatedStyleConv, dict(upsample=False))))
    theirs.load_state_dict(ours.state_dict(), strict=True)  # no filter among the weights
    x, style = torch.randn(2, 3, 4, 4), torch.randn(2, 8)
    noise = torch.randn(1, 1, 8, 8)
    larger = F.interpolate(x, size=(8, 8), mode='bilinear', align_corners=False)
    torch.testing.assert_close(ours(x, style, noise=noise), theirs(larger, style, noise=noise))

    prior = BilinearStyleGAN2Prior(8, 4, 1, channels={4: 4, 8: 4})
    assert not [key for key in prior.state_dict() if 'upsample' in key or 'blur' in key]
    image = torch.randn(1, 3, 4, 4)
    enlarged, = (prior.to_rgbs[0].upsample(image), )
    torch.testing.assert_close(enlarged, F.interpolate(image, size=(8, 8), mode='bilinear'))


@pytest.mark.parametrize('name', ['GPENNet', 'GFPGANNet', 'PSPNet'])
def test_random_latents_have_unit_length_before_they_are_mapped(name):
    options = dict(prior_size=32, encoder_size=32, encoder_channels=(4, 4, 6, 8),
                   encoder_depths=(1, 1, 1, 1)) if name == 'PSPNet' else dict(net_size=32)
    net = MODELS.build(dict(type=name, in_size=4, out_size=32, style_channels=8, num_mlps=1,
                            channels=WIDTHS, **options))
    z = 0.01 * torch.randn(3, 8)
    torch.testing.assert_close(net.generator.style_mapping[0](z).square().mean(1), torch.ones(3),
                               rtol=1e-3, atol=1e-3)


def test_gpens_features_go_into_both_convolutions_of_their_resolution():
    net = MODELS.build(dict(type='GPENNet', in_size=4, out_size=16, net_size=16, style_channels=8,
                            num_mlps=1, channels=WIDTHS)).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    image = torch.randn(2, 3, 16, 16)
    of_16 = net.encoder[0](image)
    of_8 = net.encoder[1](of_16)
    of_4 = net.encoder[2](of_8)
    latents = net.generator.map(net.final_linear(of_4))
    expected = net.generator.synthesis(latents, [of_4, of_8, of_8, of_16, of_16]).rgb
    assert torch.equal(net.restore(image), expected)
    features = torch.randn(2, 8, 4, 4)
    both = net.generator.conv1.noise_injector(features, of_4)
    torch.testing.assert_close(both, torch.cat([
        features, net.generator.conv1.noise_injector.weight * of_4], 1))
    assert not any('injected_noise' in key for key in net.state_dict())


def test_widths_of_gpen():
    with torch.device('meta'):
        whole = MODELS.build(dict(type='GPENNet', in_size=64, out_size=2048, net_size=2048))
        half = MODELS.build(dict(type='GPENNet', in_size=64, out_size=256, net_size=256,
                                 channel_multiplier=1, narrow=0.5))
    widths = whole.generator.channels
    assert [widths[res] for res in (64, 1024, 2048)] == [512, 32, 16]
    assert half.generator.channels[256] == half.encoder[0][0].conv.out_channels == 32


def test_psps_encoder():
    net = GradualStyleEncoder(9, 32, 8, (4, 4, 6, 8), (2, 1, 2, 1)).eval()
    weights, image = Weights(net), torch.randn(2, 3, 32, 32)

    def prelu(x, name):
        return F.prelu(x, weights(f'{name}.weight'))
    feature = prelu(weights.norm(weights.conv(image, 'input_layer.0', bias=False), 'input_layer.1'),
                    'input_layer.2')
    tapped, width = [], 4
    for index, (stage, stride) in enumerate(((4, 2), (4, 1), (6, 2), (8, 2), (8, 1), (8, 2))):
        name, x = f'body.{index}.res_layer', feature
        x = weights.conv(weights.norm(x, f'{name}.0'), f'{name}.1', bias=False)
        x = weights.conv(prelu(x, f'{name}.2'), f'{name}.3', stride, bias=False)
        x = weights.norm(x, f'{name}.4')
        hidden = weights.conv(x.mean((2, 3), keepdim=True), f'{name}.5.fc1', bias=False).relu()
        x = x * weights.conv(hidden, f'{name}.5.fc2', bias=False).sigmoid()
        if stage == width:
            shortcut = feature[:, :, ::stride, ::stride]
        else:
            shortcut = weights.norm(weights.conv(
                feature, f'body.{index}.shortcut_layer.0', stride, bias=False),
                f'body.{index}.shortcut_layer.1')
        feature, width = x + shortcut, stage
        if index in (2, 4):  # the last of the second and of the third stage
            tapped.append(feature)
    assert [value.shape[2] for value in (*tapped, feature)] == [8, 4, 2]
    levels = [feature]
    for fine, name in ((tapped[1], 'latlayer1'), (tapped[0], 'latlayer2')):
        side = fine.shape[2:]
        levels.append(weights.conv(fine, name) + F.interpolate(
            levels[-1], size=side, mode='bilinear', align_corners=True))
    latents = []
    for index in range(9):
        level = 0 if index < 3 else 1 if index < 7 else 2
        x = levels[level]
        for layer in range((1, 2, 3)[level]):
            x = F.leaky_relu(weights.conv(x, f'styles.{index}.convs.{2 * layer}', 2), 0.01)
        linear = net.styles[index].linear  # equalised: MMagic's layer
        latents.append(linear(x.flatten(1)))
    torch.testing.assert_close(net(image), torch.stack(latents, 1), rtol=1e-4, atol=1e-4)
    assert not {key for key in weights.unused() if '.linear.' not in key}


def test_squeezed_widths():
    assert [SqueezeExcitation(channels).fc1.out_channels for channels in (8, 32, 64)] == [1, 2, 4]


@pytest.mark.parametrize('arguments, message', [
    (dict(num_latents=9, size=16), 'size: expected at least 32, got 16'),
    (dict(num_latents=7, size=32), 'num_latents: expected at least 8.*got 7'),
    (dict(num_latents=8, channels=(4, 4, 4)), 'expected four stages, got 3 and 4'),
    (dict(num_latents=8, depths=(1, 1)), 'expected four stages, got 4 and 2')])
def test_wrong_arguments_of_psps_encoder(arguments, message):
    with torch.device('meta'):
        with pytest.raises(ValueError, match=message):
            GradualStyleEncoder(**arguments)
        GradualStyleEncoder(8, 32)


def stylegan1_layer(weights, x, latent, noise, name, kind):
    weight = weights(f'{name}weight')
    if kind == 'constant':
        x = weight.repeat(len(latent), 1, 1, 1)
    elif kind == 'up':
        x = F.conv_transpose2d(x, weight, stride=2, padding=1)
        kernel = torch.tensor([[1., 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
        x = F.conv2d(x, kernel.repeat(x.shape[1], 1, 1, 1), padding=1, groups=x.shape[1])
    else:
        x = F.conv2d(x, weight, padding=1)
    x = x + weights(f'{name}bias').view(1, -1, 1, 1)
    x = F.leaky_relu(x + weights(f'{name}noise_weight').view(1, -1, 1, 1) * noise, 0.2)
    x = (x - x.mean((2, 3), keepdim=True)) / (
        x.var((2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
    gain, shift = weights.linear(latent, f'{name}style').unflatten(1, (2, -1)).unbind(1)
    return x * (1 + gain[..., None, None]) + shift[..., None, None]


def test_stylegan1():
    net = StyleGAN1Synthesis(16, 5, {4: 8, 8: 6, 16: 4})
    assert net.noise_sizes() == [4, 4, 8, 8, 16, 16] and net.num_latents == 6
    weights, latents = Weights(net), torch.randn(2, 6, 5)
    noises = [torch.randn(2, 1, size, size) for size in net.noise_sizes()]
    x = None
    for index, kind in enumerate(('constant', 'plain', 'up', 'plain', 'up', 'plain')):
        x = stylegan1_layer(weights, x, latents[:, index], noises[index], f'layers.{index}.', kind)
    expected = weights.conv(x, 'to_rgb')
    torch.testing.assert_close(net(latents, noises), expected, rtol=1e-4, atol=1e-4)
    assert not weights.unused()
    with pytest.raises(ValueError, match='expected the width at 2048 px'):
        StyleGAN1Synthesis(2048, 5, {4: 8})


def test_widths_of_stylegan1_are_nvlabs():
    widths = stylegan1_channels({'8': 7})
    assert widths == {4: 512, 8: 7, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64, 512: 32, 1024: 16}


@pytest.mark.parametrize('in_channels, upsample', [(0, False), (32, False), (32, True)])
def test_first_weights_of_stylegan1_keep_the_variance(in_channels, upsample):
    """He's initialisation: the mean square behind a layer is twice that before it."""
    torch.manual_seed(0)
    layer = StyleGAN1Layer(in_channels, 64, 4, upsample)
    assert not layer.bias.any() and not layer.noise_weight.any()
    if not in_channels:
        square = layer.weight.square().mean()
    else:
        x = torch.randn(4, in_channels, 16, 16)
        square = (F.conv_transpose2d(x, layer.weight, stride=2, padding=1) if upsample else
                  F.conv2d(x, layer.weight))[..., 2:-2, 2:-2].square().mean()
    assert square.item() == pytest.approx(2, rel=0.15)


def test_mapping_of_stylegan1():
    net = StyleGAN1Mapping(5, 2)
    weights, z = Weights(net), torch.randn(3, 5)
    x = z / (z.square().mean(1, keepdim=True)).sqrt()
    for index in (0, 2):
        x = F.leaky_relu(weights.linear(x, f'{index}'), 0.2)
    torch.testing.assert_close(net(z), x, rtol=1e-4, atol=1e-5)
    assert net(torch.zeros(1, 5)).isfinite().all() and not weights.unused()


RATES = dict(fixed=([0, 1], [1, 1]), linear1cycle=([0, 0.5, 1], [0.1, 1, 0.1]),
             linear1cycledrop=([0, 0.45, 0.9, 1], [0.1, 1, 0.1, 0.001]))


@pytest.mark.parametrize('schedule', RATES)
def test_pulses_learning_rates_are_lines_between_corners(schedule):
    for step in range(41):
        assert pulse_net.SCHEDULES[schedule](step, 40) == pytest.approx(
            np.interp(step / 40, *RATES[schedule]))


@pytest.mark.parametrize('options', [
    {}, dict(losses=dict(L1=2, GEOCROSS=0.5), lr_schedule='fixed', optimizer='sgdm',
             learning_rate=0.01), dict(tile_latent=True, bad_noise_layers=(0,), seed=3)], ids=str)
def test_pulses_search(options):
    net = MODELS.build(dict(type='PULSENet', in_size=4, out_size=16, style_channels=6, steps=7,
                            channels={4: 8, 8: 6, 16: 4}, **options))
    Weights(net.synthesis)
    net.latent_mean.copy_(torch.randn(6))
    lr = torch.rand(1, 3, 4, 4) * 2 - 1
    generator = torch.Generator().manual_seed(options.get('seed', 0))
    tiled = options.get('tile_latent')
    latent = torch.randn(1, 1 if tiled else 6, 6, generator=generator)
    noises, bad = [], options.get('bad_noise_layers', ())
    for index, size in enumerate((4, 4, 8, 8, 16, 16)):
        noises.append(torch.zeros(1, 1, size, size) if index in bad else
                      torch.randn(1, 1, size, size, generator=generator))
    variables = [latent, *(noises[index] for index in range(5) if index not in bad)]
    radii = [value.flatten(2).norm(dim=2) for value in variables]
    for variable in variables:
        variable.requires_grad_()
    rate = options.get('learning_rate', 0.4)
    optimizer = (torch.optim.SGD(variables, lr=rate, momentum=0.9)
                 if 'optimizer' in options else torch.optim.Adam(variables, lr=rate))
    weighted = options.get('losses', dict(L2=100, GEOCROSS=0.05))
    shape = RATES[options.get('lr_schedule', 'linear1cycledrop')]
    for step in range(7):
        optimizer.param_groups[0]['lr'] = rate * np.interp(step / 7, *shape)
        latents = F.leaky_relu(latent.expand(1, 6, 6) * net.latent_std + net.latent_mean, 0.2)
        image = net.synthesis(latents, noises)
        small = pulse_net.bicubic_downsample((image + 1) / 2, 4)
        error = small - (lr + 1) / 2
        loss = 0
        for name, weight in weighted.items():
            loss = loss + weight * dict(
                L2=error.square().mean().clamp(min=2e-3), L1=10 * error.abs().mean(),
                GEOCROSS=pulse_net.geocross(latents)[0])[name]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for variable, radius in zip(variables, radii, strict=True):
                length = variable.flatten(2).norm(dim=2)
                variable.mul_((radius / length).view(
                    *length.shape, *[1] * (variable.ndim - 2)))
    torch.testing.assert_close(net(lr), image.detach(), rtol=1e-3, atol=1e-3)
