"""The benchmark tools run, report what they should, and refuse bad arguments."""
import json

import numpy as np
import pytest
import torch
from conftest import load_script
from PIL import Image


@pytest.fixture(scope='module')
def pd_head():
    return load_script('tools/benchmark/pd_head.py')


@pytest.fixture(scope='module')
def validate():
    return load_script('tools/benchmark/validate_theory.py')


@pytest.fixture(autouse=True)
def threads():
    """The tools set the number of threads for their process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(tool, out, *arguments):
    assert tool.main([*arguments, '--device', 'cpu', '--out', str(out)]) == 0
    return json.loads(out.with_suffix('.json').read_text()), out.with_suffix('.md').read_text()


def test_pd_head_benchmark(pd_head, tmp_path, capsys):
    report, text = run(pd_head, tmp_path / 'speed', '--sizes', '32', '160', '--scales', '8',
                       '--batches', '1', '2', '--rounds', '3', '--threads', '1')
    assert len(report['cases']) == 4
    assert {(c['batch'], c['size'], c['scale']) for c in report['cases']} == \
        {(1, 32, 8), (1, 160, 8), (2, 32, 8), (2, 160, 8)}
    for case in report['cases']:
        rows = case['methods']
        assert {'clone', 'ours', 'ours in place', 'ours forward + backward', 'paper formula',
                'README formula', 'CEM', 'SeparableResize bicubic'} <= set(rows)
        assert all(row['rounds'] == 3 and row['least_ms'] <= row['median_ms']
                   for row in rows.values())
        assert rows['clone']['times_clone'] == 1
        # Python's own memory counts too: 128 B, 1 % of the smaller image, on Python 3.14
        assert rows['clone']['memory_images'] == pytest.approx(1, abs=0.02)
        # NumPy's buffers are as large as so small an image
        extra = 0.6 if case['size'] == 160 else 1.6
        assert rows['ours in place']['memory_images'] < extra
        assert 1 < rows['ours']['memory_images'] < 1 + extra
        assert rows['paper formula']['memory_images'] > 2
    assert report['threads'] == 1 and report['torch'] == torch.__version__
    assert '| CEM |' in text and 'CEM / ours:' in text and text.strip() in capsys.readouterr().out


def test_compared_methods_compute_the_same(pd_head):
    x, y = torch.rand(2, 3, 32, 48), torch.rand(2, 3, 4, 6)
    functions = pd_head.methods(x, y, 8)
    expected = functions['ours']()
    for name in ('paper formula', 'README formula', 'ours, no check', 'ours in place'):
        torch.testing.assert_close(functions[name](), expected, rtol=0, atol=1e-6)
    assert functions['ours forward + backward']().shape == x.shape


def test_block_sizes(pd_head, tmp_path, monkeypatch):
    monkeypatch.setattr(pd_head.pooling, 'TEMPORARY_BYTES', 1)  # restored after the test
    report, _ = run(pd_head, tmp_path / 'blocks', '--sizes', '32', '--scales', '8', '--batches',
                    '1', '--rounds', '1', '--blocks', '64', '128')
    assert set(report['cases'][0]['methods']) == {'clone', '64 KiB', '128 KiB'}


def test_table_1_on_noise(validate, tmp_path):
    report, text = run(validate, tmp_path / 'theory', '--network', 'noise', '--count', '2',
                       '--size', '512', '--timings', '2')
    rows = report['operators']
    assert report['count'] == 2 and len(rows) == 14
    assert rows['PD']['psnr_lr'] >= 145.7  # the paper's figure
    for name, row in rows.items():
        if name != 'CEM':
            assert row['psnr_lr'] == 'inf' or row['psnr_lr_least'] > 120
            assert row['psnr_lr_raw'] < 20
    assert 42 < rows['CEM']['psnr_lr'] < 110
    assert '| PD |' in text and '| 145.7 |' in text and '| 42.2 |' in text


def test_table_1_on_an_untrained_network(validate, tmp_path):
    """Panini as backbone, as in the paper's validation."""
    report, text = run(validate, tmp_path / 'theory', '--count', '2', '--size', '64',
                       '--timings', '1')
    assert report['operators']['PD']['psnr_lr'] >= 145.7 > report['operators']['PD']['psnr_lr_raw']
    assert 'untrained PaniniNet with few channels' in text


def test_images_are_used(validate, tmp_path):
    folder = tmp_path / 'gt'
    folder.mkdir()
    arguments = ('--network', 'noise', '--count', '2', '--size', '64', '--timings', '1')
    random, _ = run(validate, tmp_path / 'a', *arguments)
    rng = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / f'{index}.png')
    given, _ = run(validate, tmp_path / 'b', *arguments, '--images', str(folder))
    assert given['count'] == 2
    assert given['operators']['CEM']['psnr_lr'] != random['operators']['CEM']['psnr_lr']


@pytest.mark.parametrize('arguments, message', [
    (['--images', 'nowhere'], 'expected a folder'),
    (['--size', '100', '--scale', '8'], 'expected a multiple'),
    (['--count', '0'], 'positive'),
    (['--scale', '1'], 'expected at least 2, got 1'),
    (['--device', 'tpu'], 'invalid choice'),
    (['--out', 'nowhere/x'], 'does not exist'),
])
def test_validate_refuses(validate, capsys, arguments, message):
    with pytest.raises(SystemExit) as info:
        validate.main(arguments)
    assert info.value.code == 2 and message in capsys.readouterr().err


def test_validate_names_every_image_of_another_size(validate, tmp_path, capsys):
    for name, side in (('a', 32), ('b', 64), ('c', 16)):
        Image.new('RGB', (side, side)).save(tmp_path / f'{name}.png')
    with pytest.raises(SystemExit) as info:
        validate.main(['--images', str(tmp_path), '--size', '64'])
    error = capsys.readouterr().err
    assert info.value.code == 2 and 'a.png is 32x32' in error and 'c.png is 16x16' in error


@pytest.mark.parametrize('arguments, message', [
    (['--sizes', '100'], 'expected multiples of --scales'),
    (['--rounds', '0'], 'positive integers'),
    (['--threads', '0'], 'positive integers'),
    (['--scales', '1', '8'], 'expected at least 2, got 1'),
    (['--device', 'tpu'], 'invalid choice'),
    (['--out', 'nowhere/x'], 'does not exist'),
])
def test_pd_head_refuses(pd_head, capsys, arguments, message):
    with pytest.raises(SystemExit) as info:
        pd_head.main(arguments)
    assert info.value.code == 2 and message in capsys.readouterr().err


def test_noise_table(tmp_path, capsys):
    tool = load_script('tools/benchmark/noise.py')
    folder = tmp_path / 'gt'
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels.repeat(6, 0).repeat(6, 1)).save(folder / 'a.png')
    out = tmp_path / 'noise.md'
    arguments = ['--gt', str(folder), '--sigmas', '0', '50', '--jpeg', '50']
    assert tool.main([*arguments, '--out', str(out)]) == 0
    text = out.read_text()
    assert text.strip() in capsys.readouterr().out and text.count('| σ = 0 |') == 4
    for table in text.split('## ')[1:]:
        rows = {line.split(' | ')[0].strip('| '): line.split(' | ')[1:]
                for line in table.splitlines()[4:] if line.startswith('|')}
        assert set(rows) == {'σ = 0', 'σ = 50', 'rounded to 8 bits', 'JPEG, quality 50'}
        _, raw, full, best, ours = rows['σ = 0']
        assert full == best.split()[0] == ours.strip(' |') and float(full) > float(raw)
        assert float(rows['σ = 50'][4].strip(' |')) > float(rows['σ = 50'][2])
        assert rows['σ = 50'][0] == '50.00' and float(rows['JPEG, quality 50'][0]) > 1
    (folder / 'a.png').unlink()
    assert tool.main(arguments) == 2
    assert 'expected pictures' in capsys.readouterr().err
    for wrong in (['--sigmas', '-1'], ['--scale', '1'], ['--jpeg', '0'], ['--gt', 'nosuch']):
        with pytest.raises(SystemExit, match='2'):
            tool.main(wrong)
