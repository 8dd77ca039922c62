"""Official checkpoints of PULSE, pSp, GFP-GAN and GPEN: converted, they give the official numbers.

tests/data/table3_official.json was written by running the public code (the commits it names) at
tiny widths, in float64, on weights that :func:`weights` makes out of the names and shapes.
"""
import importlib.util
import json
import pickle
from pathlib import Path

import pytest
import torch
from mmagic.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
OFFICIAL = json.loads((ROOT / 'tests/data/table3_official.json').read_text())
spec = importlib.util.spec_from_file_location(
    'table3_to_mmpd', ROOT / 'tools/model_converters/table3_to_mmpd.py')
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


@pytest.fixture(autouse=True)
def double(monkeypatch):
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(tool, 'FUSED_FROM', 16)  # so that 32 px have both kinds of layers
    yield
    torch.set_default_dtype(torch.float32)


def pseudo(name, shape):
    """Numbers that depend on a name, the same on every machine."""
    count = torch.Size(shape).numel()
    return torch.sin(torch.arange(count) * 1.7 + sum(map(ord, name)) % 97).reshape(shape)


def picture(size):
    return torch.sin(torch.arange(3 * size * size) * 0.37).reshape(1, 3, size, size)


def weights(lines, scaled=None):
    """The state dict of which the official code made its numbers."""
    state = {}
    for line in lines:
        key, _, shape = line.partition(' ')
        shape = [int(side) for side in shape.split('x')] if shape else []
        value = pseudo(key, shape)
        if key.endswith('kernel'):
            taps = torch.tensor([1., 3., 3., 1.] if shape[-1] == 4 else [1., 2., 1.])
            gain = 4 if 'upsample' in key or '.conv.blur' in key else 1
            value = (gain * taps[:, None] * taps / taps.sum()**2).reshape(shape)
        elif 'num_batches' in key:
            value = torch.tensor(0)
        elif 'running_var' in key:
            value = 1 + 0.5 * value
        elif key.endswith('bias') or 'running_mean' in key:
            value = 0.3 * value
        for prefix, gain in (scaled or {}).items():
            if key.startswith(prefix) and value.ndim > 1 and 'kernel' not in key:
                value = value * gain / value[0].numel()**0.5
        state[key] = value
    return state


def mapping_weights(entry):
    return {key: value * (150 if value.ndim == 2 else 30)
            for key, value in weights(entry['mapping_keys']).items()}


def content(name):
    """What lies in an official checkpoint file."""
    entry = OFFICIAL[name]
    state = weights(entry['keys'], entry.get('scaled'))
    if name == 'psp':
        return dict(state_dict=state, latent_avg=pseudo('latent_avg', (8, 16)),
                    opts=dict(encoder_type='GradualStyleEncoder', start_from_latent_avg=True))
    if name.startswith('gfpgan'):
        return dict(params_ema=state)
    return state


def numbers(image):
    flat = image.flatten()
    return flat[::max(1, len(flat) // 24)][:24].tolist()


def converted_net(name, tmp_path, capsys, **changes):
    """Through the files and the command line, as a user would."""
    entry, argv = OFFICIAL[name], []
    torch.save(content(name), tmp_path / 'official.pth')
    if name == 'pulse':
        torch.save(mapping_weights(entry), tmp_path / 'mapping.pt')
        argv = ['--mapping', str(tmp_path / 'mapping.pt'), '--samples',
                str(entry['mapping_samples'])]
    tool.main([str(tmp_path / 'official.pth'), str(tmp_path / 'ours.pth'), *argv])
    cfg = eval(capsys.readouterr().out.split('tensors for ')[1])
    file = torch.load(tmp_path / 'ours.pth', weights_only=True)
    assert file['meta']['converted_from'] == 'official.pth'
    net = MODELS.build({**cfg, **changes}).eval()
    net.load_state_dict({key.removeprefix('generator.'): value
                         for key, value in file['state_dict'].items()}, strict=True)
    return net


@pytest.mark.parametrize('name', ['gpen', 'gfpgan_clean', 'gfpgan_v1', 'psp'])
def test_converted_network_gives_the_official_image(name, tmp_path, capsys):
    entry = OFFICIAL[name]
    net = converted_net(name, tmp_path, capsys).float()  # mmcv's filter takes no other
    with torch.no_grad():
        image = net.restore(picture(entry['size']).float())
    assert image.shape == (1, 3, entry['size'], entry['size'])
    assert numbers(image) == pytest.approx(entry['output'], rel=1e-4, abs=1e-5)
    assert len(set(entry['output'])) > 20


@pytest.fixture(scope='module')
def pulse(tmp_path_factory):
    torch.set_default_dtype(torch.float64)
    entry, folder = OFFICIAL['pulse'], tmp_path_factory.mktemp('pulse')
    torch.save(mapping_weights(entry), folder / 'mapping.pt')
    tool.FUSED_FROM, before = 16, tool.FUSED_FROM
    state, cfg = tool.convert(content('pulse'), folder / 'mapping.pt', entry['mapping_samples'])
    tool.FUSED_FROM = before
    return entry, {key.removeprefix('generator.'): value for key, value in state.items()}, cfg


def test_pulses_synthesis_is_the_official_one(pulse):
    entry, state, cfg = pulse
    net = MODELS.build(cfg)
    net.load_state_dict(state)
    latents = pseudo('w', (1, 8, 6))
    noises = [pseudo(f'noise{i}', (1, 1, size, size))
              for i, size in enumerate(net.synthesis.noise_sizes())]
    with torch.no_grad():
        image = net.synthesis(latents, noises)
    assert numbers(image) == pytest.approx(entry['output'], rel=1e-6, abs=1e-8)


def test_statistics_of_the_mapping_network_are_the_official_ones(pulse, tmp_path):
    entry, state, _ = pulse
    for name in ('mean', 'std'):
        assert state[f'latent_{name}'].tolist() == pytest.approx(entry[name], rel=1e-5)
    fit = {name: torch.tensor(entry[name]) for name in ('mean', 'std')}
    torch.save(fit, tmp_path / 'gaussian_fit.pt')  # the official code keeps them so
    again, _ = tool.convert(content('pulse'), tmp_path / 'gaussian_fit.pt')
    assert again['generator.latent_std'].tolist() == entry['std']


RENAMED = dict(opt_name='optimizer', learning_rate='learning_rate', lr_schedule='lr_schedule',
               noise_type='noise_type', num_trainable_noise_layers='num_trainable_noise_layers',
               tile_latent='tile_latent', seed='seed')


@pytest.mark.parametrize('index', range(len(OFFICIAL['pulse']['runs'])))
def test_search_takes_the_official_way(pulse, index):
    """The loss of each of the first ten steps, with the official options."""
    entry, state, cfg = pulse
    options, losses = entry['runs'][index]
    mine = {RENAMED[key]: value for key, value in options.items() if key in RENAMED}
    if 'loss_str' in options:
        mine['losses'] = {term.split('*')[1]: float(term.split('*')[0])
                          for term in options['loss_str'].split('+')}
    layers = options.get('bad_noise_layers', '7').split('.')
    net = MODELS.build({'seed': 5, **cfg, 'in_size': 4, 'steps': 10,
                        'bad_noise_layers': [int(layer) for layer in layers], **mine})
    state = dict(state, latent_mean=torch.tensor(entry['mean']),
                 latent_std=torch.tensor(entry['std']))
    net.load_state_dict(state)
    totals = []
    net(picture(4), callback=lambda step, terms: totals.append(terms['TOTAL'].item()))
    assert totals == pytest.approx(losses, rel=1e-6)
    assert len(set(losses)) == 10


def test_every_option_of_the_search_changes_its_way():
    runs = [tuple(losses) for _, losses in OFFICIAL['pulse']['runs']]
    assert len(set(runs)) == len(runs)


def test_psp_without_average_latent():
    official = content('psp')
    official['opts']['start_from_latent_avg'] = False
    state, _ = tool.convert(official)
    assert state['generator.latent_avg'].abs().max() == 0
    single = dict(content('psp'), latent_avg=pseudo('latent_avg', (16, )))
    average = tool.convert(single)[0]['generator.latent_avg']
    assert torch.equal(average, single['latent_avg'].expand(8, 16))


def truncated(path):
    torch.save(content('gpen'), path)
    path.write_bytes(path.read_bytes()[:-2000])


def with_code(path):
    class Evil:
        def __reduce__(self):
            return print, ('code ran', )
    path.write_bytes(pickle.dumps(dict(state_dict=Evil())))


def changed(name, change):
    def write(path):
        official = content(name)
        change(official['params_ema'] if 'params_ema' in official
               else official['state_dict'] if 'state_dict' in official else official)
        torch.save(official, path)
    return write


BAD = {
    'truncated': (truncated, 'cannot be read'),
    'code inside': (with_code, 'cannot be read'),
    'text': (lambda path: path.write_text('hello'), 'cannot be read'),
    'a list': (lambda path: torch.save([1], path), 'holds no state dict'),
    'numbers': (lambda path: torch.save(dict(a=1), path), 'holds no state dict'),
    'another network': (lambda path: torch.save(dict(w=torch.ones(2)), path), 'of none of GPEN'),
    'one tensor gone': (changed('gpen', lambda s: s.pop('ecd1.0.2.bias')),
                        'encoder.1.2.bias" is missing'),
    'one tensor more': (changed('psp', lambda s: s.update({'encoder.x': torch.ones(1)})),
                        '"encoder.x" is unknown'),
    'another shape': (changed('gfpgan_clean', lambda s: s.update(
        {'final_conv.bias': torch.ones(9)})), '"last.bias" is (9,), expected (4,)'),
    'two sizes': (changed('gpen', lambda s: [s.pop(key) for key in list(s) if 'ecd2' in key]),
                  'only GPEN of one size'),
    'the bilinear GFP-GAN': (changed('gfpgan_v1', lambda s: s.update(
        {'conv_body_down.0.conv2.weight': torch.ones(1)})), 'neither GFPGANv1 nor GFPGANv1Clean'),
    'PULSE without mapping': (changed('pulse', lambda s: None), '--mapping'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_checkpoints_end_in_one_line(case, tmp_path, capfd):
    write, message = BAD[case]
    write(tmp_path / 'bad.pth')
    with pytest.raises(SystemExit) as stop:
        tool.main([str(tmp_path / 'bad.pth'), str(tmp_path / 'out.pth')])
    out, error = capfd.readouterr()
    assert stop.value.code == 2 and error.count('\n') == 1 and message in error
    assert 'bad.pth' in error and 'code ran' not in out
    assert not (tmp_path / 'out.pth').exists()


@pytest.mark.parametrize('kind', ['W', 'no average', 'no mapping', 'mapping of another'])
def test_what_cannot_be_converted_is_named(kind, tmp_path):
    torch.save({'dense0.weight': torch.ones(6, 6), 'dense0.bias': torch.ones(7)},
               tmp_path / 'other.pt')
    official = content('psp')
    if kind == 'W':
        official['opts']['encoder_type'] = 'BackboneEncoderUsingLastLayerIntoW'
        message, arguments = 'IntoW', ()
    elif kind == 'no average':
        official.pop('latent_avg')
        message, arguments = 'latent_avg', ()
    else:
        official = content('pulse')
        path = tmp_path / ('none.pt' if kind == 'no mapping' else 'other.pt')
        message = 'no file' if kind == 'no mapping' else 'dense0.bias'
        arguments = (path, )
    with pytest.raises(tool.ConversionError, match=message):
        tool.convert(official, *arguments)


def test_an_existing_target_is_kept(tmp_path, capsys):
    torch.save(content('gpen'), tmp_path / 'official.pth')
    target = tmp_path / 'ours.pth'
    target.write_text('mine')
    with pytest.raises(SystemExit):
        tool.main([str(tmp_path / 'official.pth'), str(target)])
    assert target.read_text() == 'mine' and '--overwrite' in capsys.readouterr().err
    tool.main([str(tmp_path / 'official.pth'), str(target), '--overwrite'])
    assert torch.load(target)['state_dict']
