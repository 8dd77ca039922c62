"""mmpd-identify as a user meets it: table, verdict, options that work, one line for each fault."""
import csv

import numpy as np
import pytest
from conftest import load_script
from PIL import Image


@pytest.fixture(scope='module')
def tool():
    return load_script('tools/identify.py')


@pytest.fixture
def data(tmp_path):
    """Three GT pictures, their bicubic LR by PIL, and SR that are not far from the GT."""
    for name in ('lr', 'gt', 'sr', 'jpg', 'noisy'):
        (tmp_path / name).mkdir()
    for seed, stem in enumerate('abc'):
        rng = np.random.default_rng(seed)
        coarse = Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8))
        gt = np.asarray(coarse.resize((128, 128), Image.BICUBIC)) + rng.normal(0, 6, (128, 128, 3))
        gt = Image.fromarray(gt.clip(0, 255).round().astype(np.uint8))
        lr = gt.resize((32, 32), Image.BICUBIC)
        gt.save(tmp_path / 'gt' / f'{stem}.png')
        lr.save(tmp_path / 'lr' / f'{stem}.png')
        lr.save(tmp_path / 'jpg' / f'{stem}.jpg', quality=70)
        for name, image, sigma in (('sr', gt, 4), ('noisy', lr, 6)):
            values = np.asarray(image) + rng.normal(0, sigma, (image.height, image.width, 3))
            Image.fromarray(values.clip(0, 255).round().astype(np.uint8)).save(
                tmp_path / name / f'{stem}.png')
    return tmp_path


def run(tool, data, lr='lr', gt='gt', *extra, option='--gt'):
    return tool.main(['--lr', str(data / lr), option, str(data / gt), *map(str, extra)])


def test_table_verdict_files_and_options(tool, data, capsys):
    files = data / 'all.csv', data / 'kernel.png'
    (data / 'lr' / 'notes.txt').touch()
    assert run(tool, data, 'lr', 'gt', '--csv', files[0], '--kernel-out', files[1]) == 0
    out = capsys.readouterr().out
    assert f'--lr {data / "lr"}: 1 other files are no images by their names: left out' in out
    assert '3 pairs, scale 4; the first: LR 32x32, GT 128x128' in out
    assert ' 1  bicubic (antialias)' in out and 'exact' in out
    assert 'every value is given back' in out and 'strength 1' in out
    assert 'mmpd-make-consistent --operator bicubic --made-by pil --lr' in out
    assert ("pd_head=dict(operator=dict(type='SeparableResize', scale=4, kernel='bicubic', "
            "antialias=True, border='library'))") in out
    assert ("dict(type='LRSynthesis', scale=4, kernel='bicubic', antialias=True, "
            "border='library', made_by='pil')") in out
    with files[0].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 25 and rows[0]['made_by'] == 'pil' and rows[0]['psnr'] == 'inf'
    assert int(rows[0]['lr_values_equal']) == 3 * 32 * 32 * 3
    assert Image.open(files[1]).format == 'PNG'
    with pytest.raises(SystemExit):  # nothing is overwritten
        run(tool, data, 'lr', 'gt', '--csv', files[0])
    assert 'exists (--overwrite replaces it)' in capsys.readouterr().err


def test_the_options_and_lines_can_be_used(tool, data, capsys):
    from mmpd.cli import make_consistent
    from mmpd.datasets.transforms import LRSynthesis
    from mmpd.models.heads import PDHead
    run(tool, data, 'lr', 'gt', '--no-kernel')
    lines = capsys.readouterr().out.splitlines()
    command = next(line for line in lines if 'mmpd-make-consistent' in line).split()[1:]
    command = command[:command.index('--lr')]
    assert make_consistent.main(['--lr', str(data / 'lr'), '--sr', str(data / 'sr'), '--out',
                                 str(data / 'out'), *command]) == 0
    for stem in 'abc':
        made = Image.open(data / 'out' / f'{stem}.png').resize((32, 32), Image.BICUBIC)
        assert np.array_equal(np.asarray(made), np.asarray(Image.open(data / 'lr' / f'{stem}.png')))
    head = next(line for line in lines if 'pd_head=' in line).split('pd_head=')[1]
    assert PDHead(**eval(head)).strength == 1
    synthesis = eval(next(line for line in lines if 'LRSynthesis' in line).split('data:')[1])
    synthesis.pop('type')
    lr = LRSynthesis(**synthesis).transform(
        dict(gt=np.asarray(Image.open(data / 'gt' / 'a.png'))))['img']
    assert np.array_equal(lr, np.asarray(Image.open(data / 'lr' / 'a.png')))


def test_noise(tool, data, capsys):
    run(tool, data, 'noisy')
    out = capsys.readouterr().out
    assert 'No A fits' in out and 'the LR is noisy' in out
    std = float(out.split('--noise-std ')[1].split()[0])
    assert std == pytest.approx(6, abs=0.5) and f'noise_std={std}' in out


def test_jpeg_files_are_compared_as_compressed(tool, data, capsys):
    run(tool, data, 'jpg')
    out = capsys.readouterr().out
    assert 'PSNR(JPEG(A(GT)), LR)' in out and ' 1  bicubic (antialias)' in out
    assert 'Bicubic (antialias), then JPEG (3 of 3 LR files are JPEG files), made the LR' in out
    assert '--made-by pil --noise-std' in out
    # as PNG files the tables are lost, the blocks are not
    for path in (data / 'jpg').glob('*.jpg'):
        Image.open(path).save(path.with_suffix('.png'))
        path.unlink()
    run(tool, data, 'jpg')
    out = capsys.readouterr().out
    assert 'compressed by JPEG (8x8 blocks show in LR - A(GT))' in out
    assert 'a softer kernel' in out and '--noise-std' in out


def test_without_gt_the_figures_are_bounds(tool, data, capsys):
    run(tool, data, 'lr', 'sr', option='--sr')
    out = capsys.readouterr().out
    assert 'LR 32x32, SR 128x128' in out and 'PSNR(A(SR), LR)' in out
    assert 'lower bounds' in out and '--noise-std' not in out
    assert ' 1  bicubic (antialias)' in out or ' 1  lanczos (antialias)' in out
    assert 'better in' in out  # how sure that is


def test_a_sample_of_the_pairs(tool, data, capsys):
    run(tool, data, 'lr', 'gt', '--pairs', 2, '--no-kernel')
    assert '2 of 3 pairs, scale 4' in capsys.readouterr().out
    (data / 'lr' / 'b.png').unlink()  # GT may hold more
    run(tool, data, 'lr', 'gt', '--no-kernel')
    assert '2 pairs, scale 4' in capsys.readouterr().out


def refused(tool, data, capsys, *args, **kwargs):
    with pytest.raises(SystemExit) as error:
        run(tool, data, *args, **kwargs)
    assert error.value.code == 2
    captured = capsys.readouterr()
    assert 'Traceback' not in captured.err and ' A ' not in captured.out
    return captured.err.strip().splitlines()[-1]


def test_names_that_do_not_fit(tool, data, capsys):
    for path in (data / 'sr').iterdir():
        path.rename(path.with_stem(f'{path.stem}_out'))
    line = refused(tool, data, capsys, 'lr', 'sr', option='--sr')
    assert 'expected an image for each of the 3 of --lr, got none for 3 (a, b, c); did you mean ' \
        '--hr-suffix=_out?' in line
    assert run(tool, data, 'lr', 'sr', '--hr-suffix=_out', '--no-kernel', option='--sr') == 0
    capsys.readouterr()
    for path in (data / 'lr').iterdir():
        path.rename(path.with_stem(f'{path.stem}x4'))
    assert 'did you mean --lr-suffix=x4?' in refused(tool, data, capsys)
    assert run(tool, data, 'lr', 'gt', '--lr-suffix=x4', '--no-kernel') == 0


def test_wrong_images(tool, data, capsys):
    assert 'are they swapped' in refused(tool, data, capsys, 'gt', 'lr')
    assert 'expected a folder of images' in refused(tool, data, capsys, 'none')
    assert 'one multiple' in refused(tool, data, capsys, 'lr', 'lr')
    Image.open(data / 'gt' / 'b.png').convert('L').save(data / 'gt' / 'b.png')
    assert refused(tool, data, capsys).endswith('b: expected LR and HR with the same channels, '
                                                'got 3 and grey')
    Image.open(data / 'gt' / 'a.png').resize((64, 64)).save(data / 'gt' / 'b.png')
    assert 'b: expected the scale of a, 4, got 2' in refused(tool, data, capsys)
    (data / 'gt' / 'b.png').write_bytes(b'no image')
    assert 'not a readable image' in refused(tool, data, capsys)


def test_a_folder_that_cannot_be_written_is_named_first(tool, data, capsys, monkeypatch):
    monkeypatch.setattr('mmpd.cli.identify.folder_fault', lambda folder: f'no {folder.name}')
    monkeypatch.setattr('mmpd.cli.identify.Pairs', None)
    for option in ('--csv', '--kernel-out'):
        assert f'no {data.name}' in refused(tool, data, capsys, 'lr', 'gt', option, data / 'x.png')


def test_wrong_outputs(tool, data, capsys):
    for extra, message in (
            (['--kernel-out', data / 'k.jpg'], 'expected a name that ends in .png'),
            (['--kernel-out', data / 'k.png', '--no-kernel'], 'no kernel with --no-kernel'),
            (['--csv', data / 'none' / 'x.csv'], 'there is no folder'),
            (['--csv', data], 'is a folder'),
            (['--kernel-out', data / 'gt' / 'a.png'], 'is an input image'),
            (['--kernel-out', data / 'k.png', '--csv', data / 'k.png'], 'is --kernel-out too'),
            (['--pairs', -1], 'at least 0')):
        assert message in refused(tool, data, capsys, 'lr', 'gt', *extra)
