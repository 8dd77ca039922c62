"""PaniniNet: interpolation as in the paper, any sizes, both variants."""
import pytest
import torch
from mmagic.registry import MODELS

TINY = dict(type='PaniniNet', in_size=16, out_size=32, style_channels=12, num_mlps=1,
            rrdb_channels=4, num_rrdbs=1, growth_channels=4, latent_channels=4,
            representation_channels=6, channels={4: 10, 8: 8, 16: 6, 32: 4})
MFR = dict(TINY, fuse_size=8, stem_channels=3,
           degradation_encoder=dict(type='DegradationEncoder', channels=(4, 6), image_size=8))


def build(cfg=TINY, **kwargs):
    torch.manual_seed(0)
    net = MODELS.build({**cfg, **kwargs})
    for module in net.modules():  # the weights of StyleGAN2's noise begin at zero
        if type(module).__name__ == 'NoiseInjection':
            module.weight.data.fill_(0.1)
    return net.eval()


def lr_of(net, n=2):
    return torch.rand(n, 3, net.in_size, net.in_size) * 2 - 1


def encode(net, lr):
    """Features by resolution and latents, step by step."""
    features, feature = {}, lr
    for block in net.encoder[:-1]:
        feature = block(feature)
        features[feature.shape[-1]] = feature
    return features, net.encoder[-1](feature).view(len(lr), -1, net.style_channels)


@pytest.mark.parametrize('in_size, out_size', [(4, 8), (8, 64), (16, 32), (8, 16)])
def test_any_size(in_size, out_size):
    net = build(in_size=in_size, out_size=out_size,
                channels={4: 10, 8: 8, 16: 6, 32: 4, 64: 4})
    assert net(lr_of(net)).shape == (2, 3, out_size, out_size)
    assert len(net.fusion_out) == in_size.bit_length() - 2


@pytest.mark.parametrize('cfg', [TINY, MFR], ids=['sr', 'mfr'])
def test_features_are_interpolated_before_each_upsampling(cfg):
    """Against the same steps written out with the layers of the prior."""
    net = build(cfg)
    lr = lr_of(net)
    with torch.no_grad():
        features, latents = encode(net, lr)
        if cfg is TINY:
            flat = net.mask_generator(net.vector).expand(2, -1)
        else:
            flat = net.mask_generator(net.degradation_encoder(lr))
        prior = net.generator
        noise = [getattr(prior, f'injected_noise_{i}') for i in range(prior.num_injected_noises)]
        out = prior.conv1(prior.constant_input(latents), latents[:, 0], noise=noise[0])
        image = prior.to_rgb1(out, latents[:, 1])
        start = 0
        for level, res in enumerate((4, 8, 16)):
            if res <= net.fuse_size:
                width = prior.channels[res]
                pair = flat[:, start:start + 2 * width].reshape(2, 2, width)
                start += 2 * width
                weight = pair.exp() / pair.exp().sum(1, keepdim=True)
                fused = net.fusion_out[level](features[res])
                out = torch.einsum('nc,nchw->nchw', weight[:, 0], out) + torch.einsum(
                    'nc,nchw->nchw', weight[:, 1], fused)
            index = 2 * level + 1
            out = prior.convs[index - 1](out, latents[:, index], noise=noise[index])
            out = prior.convs[index](out, latents[:, index + 1], noise=noise[index + 1])
            image = prior.to_rgbs[level](out, latents[:, index + 2], image)
        assert start == flat.shape[1]
        torch.testing.assert_close(net(lr), image, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('cfg', [TINY, MFR], ids=['sr', 'mfr'])
def test_all_weight_on_the_prior_gives_the_prior(cfg):
    net = build(cfg)
    lr, last = lr_of(net), net.mask_generator[2]
    last.weight.data.zero_()
    start = 0
    for width in net.widths:
        last.bias.data[start:start + width], last.bias.data[start + width:start + 2 * width] = 50, 0
        start += 2 * width
    with torch.no_grad():
        plain = net.generator(encode(net, lr)[1], input_is_latent=True, randomize_noise=False)
        torch.testing.assert_close(net(lr), plain, rtol=1e-5, atol=1e-5)
        last.bias.data.zero_()
        assert (net(lr) - plain).abs().max() > 1e-3


@pytest.mark.parametrize('cfg', [TINY, MFR], ids=['sr', 'mfr'])
def test_weights_sum_to_one_and_depend_on_the_degradation(cfg):
    net = build(cfg)
    one, two = net.masks(lr_of(net, 1)), net.masks(lr_of(net, 1))
    for (m1, m2), (other, _), width in zip(one, two, net.widths, strict=True):
        assert m1.shape == (1, width, 1, 1)
        torch.testing.assert_close(m1 + m2, torch.ones_like(m1))
        assert torch.equal(m1, other) == (cfg is TINY)


@pytest.mark.parametrize('cfg', [TINY, MFR], ids=['sr', 'mfr'])
@pytest.mark.parametrize('freeze_prior', [False, True])
def test_no_trained_parameter_is_idle(cfg, freeze_prior):
    net = build(cfg, freeze_prior=freeze_prior).train()
    net(lr_of(net)).square().sum().backward()
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in net.named_parameters() if p.grad is not None}
    assert any(name.startswith('generator.') for name in trained) != freeze_prior
    idle = {name for name, p in net.named_parameters() if not p.requires_grad}
    assert all(name.startswith('generator.' if freeze_prior else 'generator.style_mapping')
               for name in idle)


def test_mfr_encoder_halves_down_to_the_fused_size():
    net = build(MFR)
    features, _ = encode(net, lr_of(net))
    assert {size: f.shape[1] for size, f in features.items()} == {8: 8, 4: 10}


def test_large_images_are_pooled_before_the_degradation_encoder():
    encoder = build(MFR).degradation_encoder
    image = torch.rand(2, 3, 16, 16)
    pooled = torch.nn.functional.avg_pool2d(image, 2)
    torch.testing.assert_close(encoder(image), encoder(pooled))
    assert encoder(image).shape == (2, 6)
    assert not torch.equal(encoder(image[..., :8, :8]), encoder(image))


@pytest.mark.parametrize('kwargs, message', [
    (dict(in_size=32), 'in_size: expected a smaller number than out_size=32, got 32'),
    (dict(in_size=12), 'in_size: expected a power of two.*12'),
    (dict(out_size=48), 'out_size: expected a power of two.*48'),
    (dict(fuse_size=32), 'fuse_size: expected at most in_size=16, got 32'),
    (dict(fuse_size=6), 'fuse_size: expected a power of two.*6'),
])
def test_bad_sizes_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


def test_lr_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r'\(N, C, 16, 16\).*8, 8'):
        build()(torch.zeros(1, 3, 8, 8))


def test_pretrained_parts_go_where_they_belong(tmp_path):
    source = build(MFR)
    state = {f'generator_ema.{k}': v for k, v in source.generator.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'prior.pth')
    state = {f'encoder_q.{k}': v for k, v in source.degradation_encoder.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'moco.pth')

    def init_cfg(file, prefix):
        return dict(type='Pretrained', checkpoint=str(tmp_path / file), prefix=prefix)

    encoder = dict(MFR['degradation_encoder'], init_cfg=init_cfg('moco.pth', 'encoder_q'))
    torch.manual_seed(5)
    net = MODELS.build(dict(MFR, degradation_encoder=encoder,
                            init_cfg=init_cfg('prior.pth', 'generator_ema')))
    pairs = [(net.generator, source.generator),
             (net.degradation_encoder, source.degradation_encoder)]

    def equal(a, b):
        return all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())

    assert not any(equal(*pair) for pair in pairs)
    net.init_weights()
    assert all(equal(*pair) for pair in pairs)
