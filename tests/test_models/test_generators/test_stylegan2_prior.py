"""StyleGAN2Prior: keys and images of MMagic's StyleGANv2Generator, fusion, idle paths."""
import pytest
import torch
from mmagic.registry import MODELS

from mmpd.models.generators import StyleGAN2Prior

TINY = dict(out_size=32, style_channels=12, num_mlps=2, channels={4: 10, 8: 8, 16: 6, 32: 4})


def build(**kwargs):
    torch.manual_seed(0)
    prior = StyleGAN2Prior(**{**TINY, **kwargs})
    with torch.no_grad():
        for parameter in prior.parameters():  # noise weights and biases begin at zero
            parameter.add_(0.1 * torch.randn_like(parameter))
    return prior


def pair(out_size, **kwargs):
    """MMagic's generator and ours, with the same random weights and noise."""
    kwargs = dict(out_size=out_size, style_channels=16, num_mlps=2, **kwargs)
    torch.manual_seed(0)
    reference = MODELS.build(dict(type='StyleGANv2Generator', **kwargs)).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = StyleGAN2Prior(**kwargs)
    assert list(ours.state_dict()) == list(reference.state_dict())
    ours.load_state_dict(reference.state_dict())
    return reference, ours


@pytest.mark.parametrize('out_size, kwargs', [
    (8, {}), (16, dict(bgr2rgb=True)), (64, dict(channel_multiplier=1))])
def test_images_are_those_of_mmagic(out_size, kwargs):
    reference, ours = pair(out_size, **kwargs)
    z = torch.randn(1 if out_size == 64 else 2, 16)
    noises = [torch.randn_like(noise) for noise in ours.noises()]
    with torch.no_grad():
        for options in (dict(randomize_noise=False), dict(injected_noise=noises)):
            expected = reference(z, **options)
            assert expected.shape == (len(z), 3, out_size, out_size) and expected.std() > 0.01
            torch.testing.assert_close(ours(z, **options), expected, rtol=1e-5, atol=1e-5)
        w = ours.map(z)
        for latent in (w, w[:, 0]):  # one per layer, or one for all
            result = ours(latent, input_is_latent=True, injected_noise=noises)
            torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_latents_of_single_layers_are_used_as_mmagic_uses_them():
    """MMagic takes a latent per layer by style mixing only."""
    reference, ours = pair(16)
    reference.default_style_mode = reference.eval_style_mode = 'mix'
    first, second = torch.randn(2, 1, 16)
    for index in (1, 2, 5):
        latents = torch.cat([first[:, None].repeat(1, index, 1),
                             second[:, None].repeat(1, ours.num_latents - index, 1)], 1)
        with torch.no_grad():
            expected = reference([first, second], input_is_latent=True, inject_index=index,
                                 randomize_noise=False)
            result = ours(latents, input_is_latent=True, randomize_noise=False)
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_noise_is_fresh_stored_or_given():
    prior, z = build(), torch.randn(1, 12)
    assert not torch.equal(prior(z), prior(z))
    stored = prior(z, randomize_noise=False)
    assert torch.equal(stored, prior(z, injected_noise=prior.noises()))
    other = [noise + 1 for noise in prior.noises()]
    assert (prior(z, injected_noise=other) - stored).abs().max() > 1e-3


def test_rgb_is_computed_only_when_asked_for():
    prior, calls = build(), []
    for module in (prior.to_rgb1, *prior.to_rgbs):
        module.register_forward_hook(lambda *_: calls.append(1))
    latents = prior.map(torch.randn(2, 12))
    without = prior.synthesis(latents, return_rgb=False)
    assert without.rgb is None and not calls
    with_rgb = prior.synthesis(latents)
    assert with_rgb.rgb.shape == (2, 3, 32, 32) and len(calls) == 4
    for res, width in TINY['channels'].items():
        assert without.features[res].shape == (2, width, res, res)
        assert torch.equal(without.features[res], with_rgb.features[res])


@pytest.mark.parametrize('return_rgb', [True, False])
def test_fuse_sees_and_changes_every_resolution_before_the_last(return_rgb):
    prior, seen = build(), []
    latents = prior.map(torch.randn(2, 12))
    plain = prior.synthesis(latents)

    def watch(res, out, rgb):
        seen.append(res)
        assert out.shape == (2, TINY['channels'][res], res, res)
        assert (rgb is not None) == return_rgb
        return out, rgb

    watched = prior.synthesis(latents, fuse=watch, return_rgb=return_rgb)
    assert seen == [4, 8, 16]
    assert torch.equal(watched.features[32], plain.features[32])

    def change(res, out, rgb):
        return (out * 2 if res == 8 else out), rgb

    changed = prior.synthesis(latents, fuse=change)
    assert torch.equal(changed.features[8], plain.features[8])  # features are those before fuse
    assert not torch.allclose(changed.features[16], plain.features[16])


def test_fuse_can_change_the_rgb_image_alone():
    prior = build()
    latents = prior.map(torch.randn(2, 12))
    plain = prior.synthesis(latents)
    moved = prior.synthesis(latents, fuse=lambda res, out, rgb: (out, rgb + 1))
    assert torch.equal(moved.features[32], plain.features[32])
    assert (moved.rgb - plain.rgb).abs().min() > 0.1


def test_gradients_reach_every_parameter_and_z():
    prior, z = build(), torch.randn(2, 12, requires_grad=True)
    prior(z, randomize_noise=False).square().sum().backward()
    assert z.grad.abs().sum() > 0
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_widths_come_from_config_files_too():
    prior = build(channels={str(res): width for res, width in TINY['channels'].items()})
    assert prior.constant_input.input.shape[1] == 10
    assert StyleGAN2Prior(8, 4, 1, channels={8: 6}).channels[4] == 512  # the others are config-f's


@pytest.mark.parametrize('kwargs, message', [
    (dict(out_size=24), 'out_size: expected a power of two of at least 4, got 24'),
    (dict(out_size=4), 'out_size: expected at least 8, got 4'),
    (dict(out_size=32.0), 'got 32.0'),
    (dict(out_size=2048), 'expected the width at 2048 px for out_size=2048'),
])
def test_bad_sizes(kwargs, message):
    with pytest.raises(ValueError, match=message):
        StyleGAN2Prior(**{**TINY, **kwargs})


@pytest.mark.parametrize('shape', [(2, 11), (2, 12, 1), (12,)])
def test_bad_z(shape):
    with pytest.raises(ValueError, match=r'z: expected shape \(N, 12\)'):
        build()(torch.zeros(shape))


def test_what_mmagic_asks_a_generator_for():
    prior, z = build(), torch.randn(2, 12)
    options = dict(randomize_noise=False)
    image = prior(z, **options)
    assert torch.equal(prior(z, return_noise=False, **options), image)
    found = prior(z, return_noise=True, return_latents=True, **options)
    assert torch.equal(found['fake_img'], image) and found['noise_batch'] is z
    assert torch.equal(found['latent'], prior.map(z))
    torch.manual_seed(3)
    drawn = prior(None, num_batches=3, return_latents=True)
    torch.manual_seed(3)
    assert torch.equal(drawn['noise_batch'], torch.randn(3, 12))
    assert drawn['fake_img'].shape == (3, 3, 32, 32)


def test_mmagics_stylegan2_trains_it():
    """With the path regulariser, which differentiates by the latents."""
    from mmagic.structures import DataSample
    from mmengine.logging import MessageHub
    from mmengine.optim import OptimWrapper, OptimWrapperDict
    torch.manual_seed(0)
    widths = {4: 6, 8: 4}
    model = MODELS.build(dict(
        type='StyleGAN2', data_preprocessor=dict(type='DataPreprocessor'),
        generator=dict(type='StyleGAN2Prior', out_size=8, style_channels=4, num_mlps=1,
                       channels=widths),
        discriminator=dict(type='StyleGAN2Discriminator', in_size=8, channels=widths),
        ema_config=dict(type='ExponentialMovingAverage', momentum=0.5)))
    MessageHub.get_current_instance().update_info('iter', 0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    wrappers = {name: OptimWrapper(torch.optim.SGD(getattr(model, name).parameters(), lr=0.01))
                for name in ('generator', 'discriminator')}
    batch = dict(inputs={}, data_samples=[
        DataSample(gt_img=torch.randint(256, (3, 8, 8)).float()) for _ in range(4)])
    log = model.train_step(batch, OptimWrapperDict(**wrappers))
    assert log['loss_path_regular'] > 0 and log['loss_r1_gp'] > 0
    after = model.state_dict()
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    for part in ('generator.style_mapping', 'generator.convs', 'generator.to_rgbs',
                 'generator_ema.module.convs', 'discriminator.convs', 'discriminator.final_linear'):
        assert any(key.startswith(part) for key in changed), (part, changed)
