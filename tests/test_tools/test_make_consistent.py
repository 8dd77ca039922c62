"""tools/make_consistent.py: exact files, all problems at once, nothing overwritten."""
import csv
import errno
import os

import cv2
import numpy as np
import pytest
from conftest import load_script
from PIL import Image

from mmpd.cli import consistent_files
from mmpd.utils.files import disk_full


@pytest.fixture(scope='module')
def tool():
    return load_script('tools/make_consistent.py')


def natural(seed, size, channels=3):
    """A smooth random picture with some noise, uint8."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.random((5, 5, 3)), (size, size), interpolation=cv2.INTER_CUBIC)
    image = (image * 255 + rng.normal(0, 5, image.shape)).clip(0, 255).round().astype(np.uint8)
    return image if channels == 3 else image[..., 0]


def pooled(image, scale):
    h, w = image.shape[0] // scale, image.shape[1] // scale
    sums = image.astype(int).reshape(h, scale, w, scale, -1).sum((1, 3))
    return sums.reshape(h, w, *image.shape[2:])


def pil_resize(image, scale, method):
    size = image.shape[1] // scale, image.shape[0] // scale
    return np.asarray(Image.fromarray(image).resize(size, method))


@pytest.fixture
def data(tmp_path):
    """Three pictures: LR by pooling, SR = GT with an error that LR contradicts."""
    for name in ('lr', 'sr', 'gt'):
        (tmp_path / name).mkdir()
    for index, (stem, scale, channels) in enumerate((('a', 4, 3), ('b.c', 8, 3), ('grey', 4, 1))):
        gt = natural(index, 32, channels)
        noise = np.random.default_rng(index).normal(6, 12, gt.shape)
        sr = (gt + noise).clip(0, 255).round().astype(np.uint8)
        lr = np.round(pooled(gt, scale) / scale**2).astype(np.uint8)
        for name, image in (('lr', lr), ('sr', sr), ('gt', gt)):
            Image.fromarray(image).save(tmp_path / name / f'{stem}.png')
    return tmp_path


def run(tool, folder, *extra):
    return tool.main(['--lr', str(folder / 'lr'), '--sr', str(folder / 'sr'),
                      '--out', str(folder / 'out'), *extra])


def rows(folder):
    with (folder / 'out' / 'consistency.csv').open() as file:
        return {row['name']: row for row in csv.DictReader(file)}


def test_written_files_pool_to_the_lr_bit_for_bit(tool, data, capsys):
    assert run(tool, data, '--gt', str(data / 'gt')) == 0
    for stem, scale in (('a', 4), ('b.c', 8), ('grey', 4)):
        out, lr, gt, sr = (np.asarray(Image.open(data / name / f'{stem}.png'))
                           for name in ('out', 'lr', 'gt', 'sr'))
        assert (pooled(out, scale) == lr.astype(int) * scale**2).all()
        assert not (pooled(sr, scale) == lr.astype(int) * scale**2).all()
        row = rows(data)[stem]
        assert (row['scale'], row['psnr_lr_after']) == (str(scale), 'inf')
        assert row['lr_values_unmatched'] == '0' and int(row['lr_values']) == lr.size
        mse = ((pooled(sr, scale) / scale**2 - lr)**2).mean()
        assert float(row['psnr_lr_before']) == pytest.approx(10 * np.log10(255**2 / mse), abs=1e-3)
        mse = ((out.astype(float) - gt)**2).mean()
        assert float(row['psnr_gt_after']) == pytest.approx(10 * np.log10(255**2 / mse), abs=1e-3)
        assert float(row['psnr_gt_after']) > float(row['psnr_gt_before'])
    output = capsys.readouterr()
    assert '3 images, A = average_pooling' in output.out and '-> inf dB' in output.out
    assert '3/3' in output.err  # the progress bar


def test_without_gt_there_are_no_gt_columns(tool, data):
    assert run(tool, data) == 0
    assert 'psnr_gt_after' not in rows(data)['a']


@pytest.mark.parametrize('arguments, method', [
    (['--operator', 'bicubic'], Image.Resampling.BICUBIC),
    (['--operator', 'lanczos'], Image.Resampling.LANCZOS),
    (['--operator', 'bilinear'], Image.Resampling.BILINEAR),
    (['--operator', 'box'], Image.Resampling.BOX),
    (['--operator', 'box', '--alias'], Image.Resampling.NEAREST),
])
def test_other_operators(tool, tmp_path, arguments, method):
    """PIL itself, downsampling the written file, gives the LR file back."""
    for name in ('lr', 'sr'):
        (tmp_path / name).mkdir()
    gt = natural(3, 64)
    sr = (gt.astype(int) * 0.9 + 20).clip(0, 255).round().astype(np.uint8)
    Image.fromarray(pil_resize(gt, 4, method)).save(tmp_path / 'lr' / 'x.png')
    Image.fromarray(sr).save(tmp_path / 'sr' / 'x.png')
    assert run(tool, tmp_path, *arguments) == 0
    row = rows(tmp_path)['x']
    assert row['lr_values_unmatched'] == '0'
    assert float(row['psnr_lr_after']) > float(row['psnr_lr_before']) + 20
    again = pil_resize(np.asarray(Image.open(tmp_path / 'out' / 'x.png')), 4, method)
    assert (again == np.asarray(Image.open(tmp_path / 'lr' / 'x.png'))).all()


@pytest.mark.parametrize('arguments, default', (
    ([], 'float'), (['--operator', 'bicubic'], 'pil'), (['--operator', 'box'], 'pil'),
    (['--operator', 'bicubic', '--alias'], 'opencv'),
    (['--operator', 'bicubic', '--border', 'mirror'], 'matlab'),
    (['--operator', 'box', '--alias'], 'float')))
def test_the_likeliest_library_is_the_default_and_is_named(tool, data, capsys, arguments, default):
    assert run(tool, data, *arguments) == 0
    assert rows(data)['a']['made_by'] == default
    assert ('one rounding' if default == 'float' else default) in capsys.readouterr().out


def test_another_library_can_be_named(tool, tmp_path):
    for name in ('lr', 'sr'):
        (tmp_path / name).mkdir()
    gt = natural(3, 64)
    lr = cv2.resize(gt, (16, 16), interpolation=cv2.INTER_LANCZOS4)
    Image.fromarray(lr).save(tmp_path / 'lr' / 'x.png')
    Image.fromarray(255 - gt).save(tmp_path / 'sr' / 'x.png')
    arguments = ('--operator', 'lanczos', '--alias', '--made-by')
    given_back = []
    for made_by in ('opencv', 'float'):
        assert run(tool, tmp_path, *arguments, made_by, '--overwrite') == 0
        written = np.asarray(Image.open(tmp_path / 'out' / 'x.png'))
        again = cv2.resize(written, (16, 16), interpolation=cv2.INTER_LANCZOS4)
        given_back.append((again == lr).all())
    assert given_back == [True, False]


def test_what_is_not_given_back_is_counted_for_each_file(tool, tmp_path, capsys):
    for name in ('lr', 'sr'):
        (tmp_path / name).mkdir()
    checkerboard = (np.indices((8, 8)).sum(0) % 2 * 255).astype(np.uint8)
    for stem, lr in (('hard', checkerboard), ('easy', np.full((8, 8), 77, np.uint8))):
        Image.fromarray(lr).save(tmp_path / 'lr' / f'{stem}.png')
        Image.fromarray(np.full((32, 32), 128, np.uint8)).save(tmp_path / 'sr' / f'{stem}.png')
    assert run(tool, tmp_path, '--operator', 'bicubic') == 0
    written = np.asarray(Image.open(tmp_path / 'out' / 'hard.png'))
    wrong = (pil_resize(written, 4, Image.Resampling.BICUBIC) != checkerboard).sum()
    assert rows(tmp_path)['hard']['lr_values_unmatched'] == str(wrong) != '0'
    assert rows(tmp_path)['easy']['lr_values_unmatched'] == '0'
    output = capsys.readouterr().out
    assert f'{wrong} of 128 LR values' in output and f'hard: {wrong} of 64' in output
    assert 'easy:' not in output


def test_border_changes_the_result(tool, data):
    written = []
    for border in ('library', 'mirror'):
        assert run(tool, data, '--operator', 'bicubic', '--border', border, '--overwrite') == 0
        written.append((data / 'out' / 'a.png').read_bytes())
    assert written[0] != written[1]


def test_operator_changes_the_result(tool, data):
    assert run(tool, data) == 0
    first = (data / 'out' / 'a.png').read_bytes()
    assert run(tool, data, '--operator', 'bicubic', '--overwrite') == 0
    assert (data / 'out' / 'a.png').read_bytes() != first


def test_all_problems_are_reported_before_anything_is_written(tool, data, capsys):
    (data / 'sr' / 'a.png').rename(data / 'sr' / 'other.png')
    Image.fromarray(natural(0, 34)).save(data / 'sr' / 'b.c.png')
    Image.fromarray(natural(0, 32)).save(data / 'sr' / 'grey.png')
    Image.fromarray(natural(0, 8)).save(data / 'lr' / 'b.c.jpg')
    assert run(tool, data, '--gt', str(data / 'gt')) == 2
    error = capsys.readouterr().err
    for expected in ('a: in --lr but not in --sr', 'other: in --sr but not in --lr',
                     'b.c: --lr has both b.c.jpg and b.c.png',
                     'b.c: expected an SR size that is one multiple of the LR size 4x4, got 34x34',
                     'grey: LR is L but SR is RGB', 'other: in --sr but not in --gt',
                     'nothing was written'):
        assert expected in error
    assert not (data / 'out').exists()


def test_gt_must_fit_and_may_hold_more(tool, data, capsys):
    Image.fromarray(natural(9, 16)).save(data / 'gt' / 'unused.png')
    assert run(tool, data, '--gt', str(data / 'gt')) == 0
    Image.fromarray(natural(0, 16)).save(data / 'gt' / 'a.png')
    assert run(tool, data, '--gt', str(data / 'gt'), '--overwrite') == 2
    assert 'a: expected a GT like SR, 32x32 RGB, got 16x16 RGB' in capsys.readouterr().err


def test_existing_output_is_kept(tool, data, capsys):
    (data / 'out').mkdir()
    (data / 'out' / 'a.png').write_bytes(b'precious')
    assert run(tool, data) == 2
    assert 'a.png: exists (--overwrite replaces it)' in capsys.readouterr().err
    assert (data / 'out' / 'a.png').read_bytes() == b'precious'
    assert len(list((data / 'out').iterdir())) == 1
    assert run(tool, data, '--overwrite') == 0
    assert (data / 'out' / 'a.png').read_bytes() != b'precious'
    assert run(tool, data) == 2  # now the CSV and all images


def test_output_must_not_be_an_input(tool, data, capsys):
    before = (data / 'sr' / 'a.png').read_bytes()
    code = tool.main(['--lr', str(data / 'lr'), '--sr', str(data / 'sr'),
                      '--out', str(data / 'sr' / '..' / 'sr'), '--overwrite'])
    assert code == 2 and 'is also the folder of --sr' in capsys.readouterr().err
    assert (data / 'sr' / 'a.png').read_bytes() == before


@pytest.mark.parametrize('make, message', [
    (lambda path: path.write_bytes(b'no image'), 'not a readable image'),
    (lambda path: path.write_bytes(path.read_bytes()[:200]), 'a.png'),
    (lambda path: Image.new('CMYK', (32, 32)).save(path, 'JPEG'),
     'alpha) or bands, got mode CMYK'),
    (lambda path: Image.fromarray(np.zeros((32, 32), np.uint16)).save(path),
     'a: LR is RGB but SR is 16-bit L'),
    # Pillow reads the next one as RGB, dropping eight bits
    (lambda path: cv2.imwrite(str(path), np.zeros((32, 32, 3), np.uint16)),
     'a: LR is RGB but SR is 16-bit RGB'),
    (lambda path: truncated_jpeg(path), 'a.png: not a readable image'),
])
def test_unusable_files(tool, data, capsys, make, message):
    make(data / 'sr' / 'a.png')
    assert run(tool, data) == 2
    assert message in capsys.readouterr().err
    assert not (data / 'out').exists()


def truncated_jpeg(path):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    encoded = cv2.imencode('.jpg', image)[1].tobytes()
    path.write_bytes(encoded[:len(encoded) // 2])


def test_16_bit_tiff_is_no_partner_of_8_bits(tool, data, capsys):
    (data / 'sr' / 'a.png').unlink()
    cv2.imwrite(str(data / 'sr' / 'a.tif'), np.zeros((32, 32, 3), np.uint16))
    assert run(tool, data) == 2
    assert 'a: LR is RGB but SR is 16-bit RGB' in capsys.readouterr().err


def test_places_that_cannot_be_written(tool, data, capsys):
    (data / 'file').write_text('')
    (data / 'out' / 'grey.png').mkdir(parents=True)
    (data / 'dead').symlink_to('nowhere')
    for folder, target in (('links', 'lr/a.png'), ('twice', 'file')):
        (data / folder).mkdir()
        for name in ('a', 'grey'):
            (data / folder / f'{name}.png').symlink_to(f'../{target}')
    for extra, message in (
            (('--out', str(data / 'file' / 'out')), f'{data / "file"} is not a folder'),
            (('--csv', str(data / 'gt')), 'gt: is a folder, expected a file name'),
            (('--csv', str(data / 'lr' / 'a.png')), 'a.png: is an input image'),
            (('--out', str(data / 'new'), '--csv', str(data / 'new')), 'a.png is an output image'),
            (('--out', str(data / 'new'), '--csv', str(data / 'new' / 'a.png')),
             'a.png is an output image'),
            (('--csv', str(data / 'new' / '..' / 'out' / 'a.png')),
             f'{data}/out/a.png is an output image'),
            (('--csv', '/proc/x/figures.csv'), '/proc cannot be written to'),
            (('--out', '/proc/x'), '/proc/x: /proc cannot be written to'),
            (('--out', str(data / ('x' * 300) / 'y')), 'at most 255 bytes, got 300'),
            (('--out', str(data / 'dead')), f'{data}/dead is not a folder'),
            (('--lr', str(data / ('x' * 300))), 'expected a folder of images'),
            (('--sr', str(data / 'lr')), 'is also the folder of --lr'),
            (('--out', str(data / 'links')), 'links/a.png: is an input image'),
            (('--out', str(data / 'twice')), f'twice/grey.png: is also {data}/twice/a.png'),
            ((), 'grey.png: is a folder')):
        before = (data / 'lr' / 'a.png').read_bytes()
        assert run(tool, data, '--overwrite', *extra) == 2
        assert message in capsys.readouterr().err
        assert (data / 'lr' / 'a.png').read_bytes() == before


@pytest.mark.parametrize('number, said', [
    (errno.EROFS, 'Read-only file system'), (errno.ENOSPC, 'No space left on device; ')])
def test_what_the_system_refuses_is_one_line(tool, data, capsys, monkeypatch, number, said):
    fsync, calls = os.fsync, []

    def refuse(handle):
        calls.append(handle)
        if len(calls) == 2:  # the CSV, after the first file
            raise OSError(number, os.strerror(number))
        fsync(handle)
    monkeypatch.setattr(os, 'fsync', refuse)
    with pytest.raises(SystemExit) as info:
        run(tool, data)
    assert info.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f'{data}/out/consistency.csv' in line and f': cannot be written: {said}' in line


def test_a_full_disk_is_said_once(tool, data, capsys, monkeypatch):
    def full(*_):
        raise disk_full(OSError(errno.ENOSPC, 'No space left on device'), 'x.csv')
    monkeypatch.setattr(consistent_files.Run, '__call__', full)
    with pytest.raises(SystemExit):
        run(tool, data)
    assert 'x.csv: cannot be written: No space left on device; ' in capsys.readouterr().err


def test_the_csv_may_be_a_device(tool, data):
    assert run(tool, data, '--overwrite', '--csv', os.devnull) == 0
    assert sorted(path.name for path in (data / 'out').iterdir()) == sorted(
        path.name for path in (data / 'lr').iterdir())


def test_missing_and_empty_folders(tool, data, capsys):
    (data / 'empty').mkdir()
    assert tool.main(['--lr', str(data / 'nowhere'), '--sr', str(data / 'empty'),
                      '--out', str(data / 'out')]) == 2
    error = capsys.readouterr().err
    assert 'nowhere: expected a folder' in error and 'found none' in error


@pytest.mark.parametrize('arguments', [['--operator', 'area'], ['--alias'], ['--border', 'mirror'],
                                       ['--scale', '2'], ['--made-by', 'gimp'],
                                       ['--operator', 'bicubic', '--made-by', 'opencv']])
def test_bad_arguments_exit_with_2(tool, data, arguments):
    with pytest.raises(SystemExit) as info:
        run(tool, data, *arguments)
    assert info.value.code == 2


def test_a_failing_write_leaves_no_half_file(tool, data, monkeypatch):
    monkeypatch.setattr(os, 'replace', lambda *_: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(OSError, match='disk full'):
        run(tool, data)
    assert [path.name for path in (data / 'out').iterdir()] == ['consistency.csv']


def test_names_in_the_csv_are_no_formulas(tool, data):
    for name in ('lr', 'sr', 'gt'):
        (data / name / 'a.png').rename(data / name / '=1+1.png')
    assert run(tool, data) == 0
    assert "'=1+1" in rows(data) and (data / 'out' / '=1+1.png').is_file()


def test_orientation_and_palette_are_seen_to_and_told(tool, tmp_path, capsys):
    """The rule of docs/images.md: the files fit as they are seen."""
    lr, sr = tmp_path / 'lr', tmp_path / 'sr'
    lr.mkdir(), sr.mkdir()
    rng, exif = np.random.default_rng(0), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rng.integers(0, 256, (8, 12), dtype=np.uint8)).convert('P').save(
        lr / 'a.png', exif=exif)
    Image.fromarray(rng.integers(0, 256, (48, 32, 3), dtype=np.uint8)).save(sr / 'a.png')
    assert tool.main(['--lr', str(lr), '--sr', str(sr), '--out', str(tmp_path / 'out')]) == 0
    said = capsys.readouterr().err
    assert f'warning: {lr}/a.png: turned as its orientation says' in said
    assert f'warning: {lr}/a.png: its palette was looked up' in said
    made = np.asarray(Image.open(tmp_path / 'out' / 'a.png')).astype(float)
    upright = np.asarray(Image.open(lr / 'a.png').convert('RGB'))[::-1].swapaxes(0, 1)
    np.testing.assert_array_equal(made.reshape(12, 4, 8, 4, 3).mean((1, 3)), upright)


def test_what_is_no_file_is_named_before_anything_is_written(tool, tmp_path, capsys):
    lr, sr = tmp_path / 'lr', tmp_path / 'sr'
    lr.mkdir(), sr.mkdir()
    bad = [b'caf\xe9.png', b'pipe.png', b'loop.png', b'folder.png']
    os.mkfifo(lr / 'pipe.png')
    (lr / 'loop.png').symlink_to('loop.png')
    (lr / 'folder.png').mkdir()
    for name in (b'caf\xe9.png', b'x\nerror: y.png', b'z' * 240 + b'.png'):
        for folder, side in ((lr, 8), (sr, 16)):
            with open(os.path.join(os.fsencode(folder), name), 'wb') as file:
                Image.new('RGB', (side, side)).save(file, 'PNG')
    for name in bad[1:]:
        Image.new('RGB', (16, 16)).save(sr / name.decode())
    assert tool.main(['--lr', str(lr), '--sr', str(sr), '--out', str(tmp_path / 'out')]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith('error: ') and 'y.png' not in line for line in lines)
    for text in ('caf\\udce9.png is not UTF-8', 'pipe.png: expected a file, got a named pipe',
                 'loop.png: not a readable image (Too many levels of symbolic links)',
                 'folder.png: expected a file, got a folder'):
        assert any(text in line for line in lines), lines
    assert not (tmp_path / 'out').exists()
    for name in bad:
        for folder in (lr, sr):
            path = os.path.join(os.fsencode(folder), name)
            os.rmdir(path) if os.path.isdir(path) else os.remove(path)
    assert tool.main(['--lr', str(lr), '--sr', str(sr), '--out', str(tmp_path / 'out')]) == 0
    assert len(list((tmp_path / 'out').glob('*.png'))) == 2
