"""PULSE: the search, its options, and PD inside and behind it."""
import pytest
import torch
from mmagic.registry import MODELS
from mmagic.structures import DataSample

from mmpd.models.generators import pulse_net
from mmpd.models.generators.pulse_net import SCHEDULES, bicubic_downsample, geocross
from mmpd.models.generators.stylegan1 import StyleGAN1Mapping, latent_statistics
from mmpd.operators import AveragePooling, SeparableResize

NET = dict(type='PULSENet', in_size=4, out_size=16, style_channels=6,
           channels={4: 8, 8: 6, 16: 4}, steps=6, bad_noise_layers=(5, ))


def build(cfg=NET, **kwargs):
    torch.manual_seed(0)
    net = MODELS.build({**cfg, **kwargs})
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if 'bias' in name or 'noise' in name:
                parameter.normal_(std=0.3)
        net.latent_mean.normal_(std=0.3)
        net.latent_std.uniform_(0.5, 1.5)
    return net.eval()


def model(kind='PULSE', generator=NET, **kwargs):
    cfg = dict(type=kind, generator=generator, data_preprocessor=dict(
        type='DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3), **kwargs)
    result = MODELS.build(cfg).eval()
    result.generator.load_state_dict(build().state_dict())
    return result


@pytest.fixture
def lr():
    torch.manual_seed(1)
    return torch.randint(0, 256, (1, 3, 4, 4)) / 127.5 - 1


def search(net, lr, **kwargs):
    totals = []
    image = net(lr, callback=lambda step, terms: totals.append(terms['TOTAL'].sum().item()),
                **kwargs)
    return image, totals


def test_search_comes_nearer_to_the_lr(lr):
    image, totals = search(build(steps=40), lr)
    assert image.shape == (1, 3, 16, 16) and not image.requires_grad
    assert len(totals) == 40 and totals[-1] < 0.7 * totals[0]


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
def test_search_works_where_gradients_are_off(lr, mode):
    net = build()
    with mode():
        inside = search(net, lr.clone())[1]
    assert inside == search(build(), lr)[1] and inside[-1] < inside[0]


def test_result_depends_on_the_seed_alone(lr):
    torch.manual_seed(3)
    first, _ = search(build(), lr)
    torch.manual_seed(4)
    again, _ = search(build(), torch.cat([lr, lr.flip(2)]))
    torch.testing.assert_close(again[:1], first, rtol=1e-3, atol=1e-3)  # whatever the batch
    assert (search(build(seed=1), lr)[0] - first).abs().max() > 0.01


def test_latents_stay_on_their_sphere(lr):
    net, seen = build(steps=5), []
    start = net.start

    def keep(*args):
        latent, noises, variables = start(*args)
        seen.append((variables, [v.detach().clone() for v in variables]))
        return latent, noises, variables

    net.start = keep
    net(lr)
    variables, before = seen[0]
    assert len(variables) == 1 + 5
    for after, first in zip(variables, before, strict=True):
        dims = tuple(range(2, first.ndim))
        torch.testing.assert_close(after.detach().norm(dim=dims), first.norm(dim=dims))
        assert (after - first).abs().max() > 1e-3


@pytest.mark.parametrize('kwargs, layers, trained', [
    ({}, 5, 6), (dict(noise_type='fixed'), 5, 1), (dict(noise_type='zero'), 0, 1),
    (dict(num_trainable_noise_layers=2), 5, 3), (dict(bad_noise_layers=(0, 1)), 4, 4)])
def test_noise(kwargs, layers, trained):
    latent, noises, variables = build(**kwargs).start(2)
    assert latent.shape == (2, 6, 6) and len(noises) == 6 and len(variables) == trained
    assert sum(bool(noise.any()) for noise in noises) == layers
    assert build(tile_latent=True).start(1)[0].shape == (1, 1, 6)


OPTIONS = (dict(steps=3), dict(optimizer='adamax'), dict(learning_rate=0.1),
           dict(lr_schedule='fixed'), dict(lr_schedule='linear1cycle'), dict(losses=dict(L2=100)),
           dict(losses=dict(L1=1)), dict(noise_type='fixed'), dict(noise_type='zero'),
           dict(num_trainable_noise_layers=0), dict(bad_noise_layers=()), dict(tile_latent=True),
           dict(seed=7), dict(eps=10.))


@pytest.mark.parametrize('option', OPTIONS, ids=str)
def test_every_option_changes_the_result(option, lr):
    assert (search(build(**option), lr)[0] - search(build(), lr)[0]).abs().max() > 1e-4


@pytest.mark.parametrize('keep, wanted', [('last', 0.9), ('best', 0.1)])
def test_best_or_last(keep, wanted, lr):
    """Of a search led through images that are off by 0.5, 0.1 and 0.9."""
    exact = lr.repeat_interleave(4, 2).repeat_interleave(4, 3)
    offsets = iter((0.5, 0.1, 0.9))
    found = build(keep=keep, steps=3, losses=dict(L2=1))(
        lr, project=lambda image, lr: 0 * image + exact + next(offsets))
    torch.testing.assert_close(found, exact + wanted)


@pytest.mark.parametrize('kwargs, message', [
    (dict(optimizer='lion'), 'optimizer: expected one of adam.*lion'),
    (dict(lr_schedule='cosine'), 'lr_schedule'), (dict(noise_type='none'), 'noise_type'),
    (dict(keep='first'), 'keep'), (dict(losses=dict(LPIPS=1)), "losses.LPIPS: .*'LPIPS'"),
    (dict(losses={}), 'losses'), (dict(steps=0), 'steps'), (dict(seed=None), 'seed'),
    (dict(in_size=1), 'in_size'), (dict(in_size=3), 'multiple'), (dict(out_size=24), 'out_size'),
    (dict(out_size=2048), '2048 px')])
def test_bad_options(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


def test_wrong_lr_is_refused(lr):
    with pytest.raises(ValueError, match='expected shape'):
        build()(lr[..., :3])


@pytest.mark.parametrize('scale', [2, 4, 8])
def test_downsampling_is_bicubic_away_from_the_border(scale):
    """The border is mirrored without the edge pixel, which no other operator here does."""
    image = torch.rand(1, 3, 12 * scale, 8 * scale, dtype=torch.float64)
    expected = SeparableResize(scale=scale, kernel='bicubic').A(image)
    inside = bicubic_downsample(image, scale)
    torch.testing.assert_close(inside[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2])
    flat = bicubic_downsample(torch.full_like(image, 0.3), scale)
    torch.testing.assert_close(flat, torch.full_like(flat, 0.3))


def test_geocross_is_the_angle_between_latents():
    first, second = torch.eye(4, dtype=torch.float64)[:2]
    latents = torch.stack([first, second, first])[None]
    # two of three pairs at a right angle, both ways, out of nine with the diagonal
    expected = 4 / 9 * (torch.pi / 2)**2 * 4 / 8
    torch.testing.assert_close(geocross(latents), torch.full((1, ), expected, dtype=torch.float64),
                               rtol=1e-3, atol=1e-3)


def test_schedules():
    for schedule in ('linear1cycle', 'linear1cycledrop'):
        rates = [SCHEDULES[schedule](step, 100) for step in range(100)]
        peak = 50 if schedule == 'linear1cycle' else 45
        assert rates[0] == pytest.approx(0.1) and rates.index(max(rates)) == peak
        assert max(rates) == pytest.approx(1)
    assert rates[-1] < 0.02 < rates[90]


def test_statistics_of_latents():
    torch.manual_seed(0)
    mapping = StyleGAN1Mapping(8, 2)
    mean, std = latent_statistics(mapping, samples=1000, batch=256)
    z = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = torch.nn.Sequential(*list(mapping)[:-1])(
            z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt())
    torch.testing.assert_close(mean, before.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(std, before.std(0), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match='samples'):
        latent_statistics(mapping, samples=1)


def test_the_search_says_when_it_found_no_face(lr, monkeypatch):
    said = []
    monkeypatch.setattr(pulse_net, 'print_log', lambda message, **_: said.append(message))
    build(eps=10.)(lr)
    assert said == []
    build(eps=1e-9)(lr)
    assert '1 of 1 images came no nearer' in said[0]


def test_model_predicts_and_is_not_trained(lr):
    pulse = model()
    data = pulse.data_preprocessor(dict(
        inputs=[(lr[0] + 1) * 127.5], data_samples=[DataSample()]))
    sample, = pulse(data['inputs'], data['data_samples'], mode='predict')
    assert sample.output.pred_img.shape == (3, 16, 16)
    with pytest.raises(RuntimeError, match='not trained'):
        pulse(lr, mode='loss')


@pytest.mark.parametrize('inside', [False, True])
def test_pd_makes_the_result_consistent(lr, inside):
    pulse = model('PDPULSE', pd_inside=inside)
    with torch.no_grad():
        output = pulse(lr, mode='tensor')
    torch.testing.assert_close(AveragePooling(4).A(output), lr, rtol=0, atol=1e-5)
    assert pulse.state_dict().keys() == model().state_dict().keys()


def test_pd_inside_makes_every_step_consistent_and_takes_another_way(lr):
    after, inside = model('PDPULSE'), model('PDPULSE', pd_inside=True)
    seen = []
    head = inside.pd_head.forward
    inside.pd_head.forward = lambda *args: seen.append(head(*args)) or seen[-1]
    raw, found = after.forward_raw(lr), inside.forward_raw(lr)
    assert len(seen) == NET['steps']
    for image in seen:
        torch.testing.assert_close(AveragePooling(4).A(image), lr, rtol=0, atol=1e-5)
    torch.testing.assert_close(raw, model()(lr, mode='tensor'))  # PD behind leaves the search alone
    assert (AveragePooling(4).A(raw) - lr).abs().max() > 0.05
    assert (after.pd_head(raw, lr) - found).abs().max() > 1e-3


def test_pd_with_pulses_own_downsampling_leaves_the_latents_alone_to_search(lr):
    """What the docstring says of it: nearly no L2 from the first step on."""
    inside = model('PDPULSE', pd_inside=True, pd_head=dict(
        operator=dict(type='SeparableResize', kernel='bicubic', scale=4)))
    terms = []
    inside.forward_tensor(lr, callback=lambda step, term: terms.append(term))
    plain = []
    model().forward_tensor(lr, callback=lambda step, term: plain.append(term))
    assert max(term['TOTAL'] for term in terms) < 0.2 * min(term['TOTAL'] for term in plain)
