"""The converter of official Panini checkpoints, on the names and shapes of the official networks.

tests/data/panini_official_keys.json lists them; it was written by running the public code
(jianzhangcs/panini), whose outputs are those of PaniniNet for the converted state dicts.
"""
import json
from pathlib import Path

import pytest
import torch
from conftest import load_script
from mmagic.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
KEYS = json.loads((ROOT / 'tests/data/panini_official_keys.json').read_text())
tool = load_script('tools/model_converters/panini_to_mmpd.py')


def official(name, device='meta'):
    """A state dict with the official names and shapes."""
    state = {}
    for line in KEYS[name]:
        key, _, shape = line.partition(' ')
        size = [int(side) for side in shape.split('x')] if shape else []
        state[key] = torch.empty(size, device=device)
    return state


@pytest.mark.parametrize('name, dropped', [('Panini_SR', 0), ('Panini_MFR', 4)])
def test_every_tensor_of_the_generator_finds_its_place(name, dropped):
    state, cfg = tool.convert_generator(official(name))
    with torch.device('meta'):
        wanted = MODELS.build(cfg).state_dict()
    assert list(state.keys() ^ wanted.keys()) == []
    assert all(state[key].shape == value.shape for key, value in wanted.items())
    assert len(state) == len(KEYS[name]) - dropped


def test_moco_becomes_degradation_moco():
    state, cfg = tool.convert({f'module.{k}': v for k, v in official('moco').items()})
    assert cfg['type'] == 'DegradationMoCo' and cfg['queue_size'] == 8192
    with torch.device('meta'):
        MODELS.build(cfg).load_state_dict(state, strict=True, assign=True)


TINY = dict(type='PaniniNet', in_size=8, out_size=16, style_channels=8, num_mlps=1,
            rrdb_channels=8, num_rrdbs=1, growth_channels=4, channels={4: 6, 8: 6, 16: 4})
TINY_MFR = dict(TINY, fuse_size=4, stem_channels=3,
                degradation_encoder=dict(type='DegradationEncoder', channels=(4, 6)))
BACK = {  # ours -> official, written down apart from the converter's table
    'vector': 'choice_vector', 'mask_generator.0': 'AFS_maskGen.mapping.0',
    'mask_generator.2': 'AFS_maskGen.mapping.2',
    'encoder.0.1.conv': 'encoder.0.1.fea_preprocess',
    'encoder.0.1.channel_gate.0': 'encoder.0.1.ChannelGate.mlp.1',
    'encoder.0.1.channel_gate.2': 'encoder.0.1.ChannelGate.mlp.3',
    'encoder.0.1.spatial_gate.0': 'encoder.0.1.SpatialGate.spatial.conv',
    'encoder.0.1.spatial_gate.1': 'encoder.0.1.SpatialGate.spatial.bn',
    'degradation_encoder.body': 'deg_encoder.E'}


def officially_named(net):
    renamed = {}
    for key, value in net.state_dict().items():
        for ours, theirs in BACK.items():
            if key == ours or key.startswith(f'{ours}.'):
                key = theirs + key[len(ours):]
        renamed[key] = value
    return renamed


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(tool, 'SR', TINY)
    monkeypatch.setattr(tool, 'MFR', TINY_MFR)


@pytest.mark.parametrize('cfg', [TINY, TINY_MFR], ids=['sr', 'mfr'])
def test_converted_file_gives_the_same_images(cfg, tiny, tmp_path, capsys):
    torch.manual_seed(0)
    net = MODELS.build(cfg).eval()
    state = {f'generator.{key}': value for key, value in officially_named(net).items()}
    if cfg is TINY_MFR:
        state['generator.deg_encoder.mlp.0.weight'] = torch.zeros(6, 6)
    state['discriminator.convs.0.weight'] = torch.ones(2)
    state['perceptual_loss.vgg.mean'] = torch.ones(3)
    assert not any('vector' in key and 'choice' not in key for key in state)
    torch.save(dict(state_dict=state, meta=dict(epoch=1), optimizer={}), tmp_path / 'official.pth')
    tool.main([str(tmp_path / 'official.pth'), str(tmp_path / 'new/ours.pth')])
    assert 'PaniniNet' in capsys.readouterr().out
    converted = torch.load(tmp_path / 'new/ours.pth')
    assert 'optimizer' not in converted
    assert {key.split('.')[0] for key in converted['state_dict']} == {'generator', 'discriminator'}

    torch.manual_seed(1)
    model = MODELS.build(dict(
        type='PDPanini', generator=cfg, data_preprocessor=dict(
            type='DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3))).eval()
    lr = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert not torch.equal(model.generator(lr), net(lr))
        model.load_state_dict({key: value for key, value in converted['state_dict'].items()
                               if key.startswith('generator.')}, strict=True)
        assert torch.equal(model.generator(lr), net(lr))


def test_a_generator_alone_is_recognised(tiny):
    net = MODELS.build(TINY)
    state, _ = tool.convert(officially_named(net))
    assert {key.removeprefix('generator.') for key in state} == set(net.state_dict())


def drop_one(state):
    del state['fusion_out.0.bias']


def add_one(state):
    state['fusion_out.9.bias'] = torch.zeros(1)


def reshape_one(state):
    state['choice_vector'] = torch.zeros(1, 8)


@pytest.mark.parametrize('change, message', [
    (drop_one, '1 tensors do not fit PaniniNet: "fusion_out.0.bias" is missing'),
    (add_one, '"fusion_out.9.bias" is unknown'),
    (reshape_one, r'"vector" is \(1, 8\), expected \(1, 256\)'),
    (lambda state: state.pop('choice_vector'), 'expected "choice_vector".*or "deg_encoder."'),
])
def test_what_does_not_fit_is_named(change, message):
    state = official('Panini_SR')
    change(state)
    with pytest.raises(tool.ConversionError, match=message):
        tool.convert(state)


def make_nothing(path):
    pass


def make_text(path):
    path.write_text('no checkpoint')


def make_other(path):
    torch.save(dict(state_dict={'backbone.conv.weight': torch.zeros(1)}), path)


def make_list(path):
    torch.save([1, 2], path)


@pytest.mark.parametrize('make, message', [
    (make_nothing, 'no file'), (make_text, 'cannot be read'),
    (make_other, 'no keys of a generator; it has: backbone'), (make_list, 'no state dict')])
def test_bad_files_end_with_one_line_and_code_2(make, message, tmp_path, capsys):
    make(tmp_path / 'source.pth')
    with pytest.raises(SystemExit) as stop:
        tool.main([str(tmp_path / 'source.pth'), str(tmp_path / 'target.pth')])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.count('\n') == 1
    assert not (tmp_path / 'target.pth').exists()


def test_an_existing_target_is_kept_unless_told_otherwise(tiny, tmp_path, capsys):
    source, target = tmp_path / 'source.pth', tmp_path / 'target.pth'
    torch.save(dict(state_dict=officially_named(MODELS.build(TINY))), source)
    target.write_text('precious')
    with pytest.raises(SystemExit):
        tool.main([str(source), str(target)])
    assert target.read_text() == 'precious' and '--overwrite' in capsys.readouterr().err
    tool.main([str(source), str(target), '--overwrite'])
    assert torch.load(target)['meta']['converted_from'] == 'source.pth'
