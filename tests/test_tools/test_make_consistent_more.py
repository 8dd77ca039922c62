"""tools/make_consistent.py: names, depths and bands, alpha, auto, workers, resuming, bad input."""
import csv
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures.process import BrokenProcessPool

import cv2
import numpy as np
import pytest
from conftest import ROOT, load_script
from PIL import Image, ImageCms

from mmpd import consistent, postprocess
from mmpd.cli.consistent_pairs import propose_suffix
from mmpd.postprocess.candidate import Candidate
from mmpd.utils.rasters import Raster, encode_raster, read_raster


@pytest.fixture(scope='module')
def tool():
    return load_script('tools/make_consistent.py')


def values(shape, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == 'f':
        return rng.normal(20, 5, shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def write(folder, name, array, alpha=None, profile=None):
    folder.mkdir(exist_ok=True)
    data = encode_raster(Raster(array, alpha, profile), os.path.splitext(name)[1])
    (folder / name).write_bytes(data)


def pair(folder, name, dtype=np.uint8, bands=(3, ), scale=4, sr_name=None, seed=0):
    write(folder / 'lr', name, values((6, 8, *bands), dtype, seed))
    write(folder / 'sr', sr_name or name, values((6 * scale, 8 * scale, *bands), dtype, seed + 99))


def run(tool, folder, *extra):
    return tool.main(['--lr', str(folder / 'lr'), '--sr', str(folder / 'sr'),
                      '--out', str(folder / 'out'), *extra])


def rows(folder):
    with (folder / 'out' / 'consistency.csv').open() as file:
        return {row['name']: row for row in csv.DictReader(file)}


def pooled(array, scale=4):
    h, w = array.shape[0] // scale, array.shape[1] // scale
    kind = float if array.dtype.kind == 'f' else np.int64
    return array.astype(kind).reshape(h, scale, w, scale, -1).sum((1, 3)).reshape(
        h, w, *array.shape[2:])


def outputs(folder):
    return {path.name: path.read_bytes() for path in (folder / 'out').iterdir()}


@pytest.mark.parametrize('name, dtype, bands', [
    ('x.png', np.uint16, (3, )), ('x.png', np.uint16, ()), ('x.tif', np.uint16, (3, )),
    ('x.tif', np.uint16, ()), ('x.tif', np.uint8, (3, )), ('x.tif', np.uint16, (7, )),
    ('x.npy', np.uint8, (13, )), ('x.npy', np.uint16, (4, )), ('x.npy', np.uint16, (1, ))])
def test_integers_of_every_kind_are_exact_in_the_file(tool, tmp_path, name, dtype, bands):
    pair(tmp_path, name, dtype, bands)
    assert run(tool, tmp_path) == 0
    lr, out = (read_raster(tmp_path / folder / name).pixels for folder in ('lr', 'out'))
    assert out.dtype == dtype and out.shape == (24, 32, *bands)
    np.testing.assert_array_equal(pooled(out), lr.astype(np.int64) * 16)
    row = rows(tmp_path)['x']
    assert (row['lr_values_unmatched'], row['psnr_lr_after']) == ('0', 'inf')
    most = np.iinfo(dtype).max
    sr = read_raster(tmp_path / 'sr' / name).pixels
    mse = ((pooled(sr) / 16 - lr)**2).mean()
    assert float(row['psnr_lr_before']) == pytest.approx(10 * np.log10(most**2 / mse), abs=1e-3)


@pytest.mark.parametrize('name, dtype, bands', [
    ('x.tif', np.float32, (3, )), ('x.tif', np.float64, (5, )), ('x.npy', np.float32, (4, )),
    ('x.npy', np.float16, ()), ('x.tif', np.float32, ())])
@pytest.mark.parametrize('operator', ['average_pooling', 'bicubic'])
def test_floats_stay_floats(tool, tmp_path, name, dtype, bands, operator):
    pair(tmp_path, name, dtype, bands)
    assert run(tool, tmp_path, '--operator', operator) == 0
    lr, out = (read_raster(tmp_path / folder / name).pixels for folder in ('lr', 'out'))
    assert out.dtype == dtype
    row = rows(tmp_path)['x']
    assert row['lr_values_unmatched'] == '0' and row['made_by'] == 'float'
    if operator == 'average_pooling':
        np.testing.assert_allclose(pooled(out) / 16, lr.astype(float),
                                   atol=0.02 if dtype == np.float16 else 1e-4)
    assert float(row['psnr_lr_after']) > float(row['psnr_lr_before']) + 30


def test_16_bits_and_a_library(tool, tmp_path, capsys):
    pair(tmp_path, 'x.png', np.uint16)
    lr = cv2.resize(read_raster(tmp_path / 'sr' / 'x.png').pixels // 2 + 9000, (8, 6),
                    interpolation=cv2.INTER_CUBIC)
    write(tmp_path / 'lr', 'x.png', lr)
    assert run(tool, tmp_path, '--operator', 'bicubic', '--alias') == 0
    out = read_raster(tmp_path / 'out' / 'x.png').pixels
    np.testing.assert_array_equal(cv2.resize(out, (8, 6), interpolation=cv2.INTER_CUBIC), lr)
    assert rows(tmp_path)['x']['made_by'] == 'opencv'
    assert run(tool, tmp_path, '--operator', 'bicubic', '--made-by', 'pil', '--overwrite') == 2
    assert "made_by='pil' resizes 8 bits only" in capsys.readouterr().err


@pytest.mark.parametrize('lr_alpha', [False, True])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_alpha_of_the_sr_is_kept(tool, tmp_path, lr_alpha, dtype):
    lr, alpha = values((6, 8, 3), dtype), values((24, 32), dtype, 1)
    write(tmp_path / 'lr', 'x.png', lr, values((6, 8), dtype, 2) if lr_alpha else None)
    write(tmp_path / 'sr', 'x.png', values((24, 32, 3), dtype, 3), alpha)
    assert run(tool, tmp_path) == 0
    out = read_raster(tmp_path / 'out' / 'x.png')
    np.testing.assert_array_equal(out.alpha, alpha)
    np.testing.assert_array_equal(pooled(out.pixels), lr.astype(np.int64) * 16)


def test_suffix_is_proposed_then_used(tool, tmp_path, capsys):
    for seed, stem in enumerate(('a', 'b', 'ab')):
        pair(tmp_path, f'{stem}.png', sr_name=f'{stem}_x4.png', seed=seed)
    assert run(tool, tmp_path) == 2
    error = capsys.readouterr().err
    assert '3 of the 3 SR names without an LR end in "_x4": did you mean --sr-suffix=_x4?' in error
    assert not (tmp_path / 'out').exists()
    assert run(tool, tmp_path, '--sr-suffix=_x4') == 0
    assert sorted(outputs(tmp_path)) == ['a.png', 'ab.png', 'b.png', 'consistency.csv']
    assert run(tool, tmp_path, '--sr-suffix=_x8', '--overwrite') == 2
    assert 'a_x4: in --sr, but does not end in --sr-suffix _x8' in capsys.readouterr().err


@pytest.mark.parametrize('lr, sr, expected', [
    ('a b', 'a_out b_out', ('_out', 2)), ('a', 'b_out', None), ('a b', 'a-1 b-2 ', ('-1', 1)),
    ('a ab', 'a_out ab_out', ('_out', 2)), ('x x_1', 'x_out x_1_out', ('_out', 2))])
def test_propose_suffix(lr, sr, expected):
    assert propose_suffix(lr.split(), sr.split()) == expected


def test_sizes_that_do_not_fit(tool, tmp_path, capsys):
    write(tmp_path / 'lr', 'x.png', values((6, 8, 3)))
    write(tmp_path / 'sr', 'x.png', values((25, 34, 3), seed=1), values((25, 34), seed=2))
    assert run(tool, tmp_path) == 2
    assert ('x: expected an SR size that is one multiple of the LR size 8x6, got 34x25 '
            '(--resize-sr resizes it to 32x24)') in capsys.readouterr().err
    assert run(tool, tmp_path, '--resize-sr') == 0
    out, lr = (read_raster(tmp_path / name / 'x.png') for name in ('out', 'lr'))
    assert out.kind == 'RGBA' and out.size == (32, 24)
    assert (pooled(out.pixels) == lr.pixels.astype(int) * 16).all()
    write(tmp_path / 'sr', 'x.png', values((60, 34, 3)))  # another shape: not offered
    assert run(tool, tmp_path, '--overwrite') == 2 and 'resizes' not in capsys.readouterr().err
    assert run(tool, tmp_path, '--overwrite', '--resize-sr') == 2


def test_what_is_left_out_and_what_changes_nothing_is_told(tool, tmp_path, capsys):
    pair(tmp_path, 'x.png')
    pair(tmp_path, 'same.png', scale=1)
    for name in ('._x.png', '.DS_Store', 'y.ppm', 'z.gif', 'notes.txt', 'dir'):
        (tmp_path / 'lr' / name).touch()
    assert run(tool, tmp_path) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith('warning')] == [
        f'warning: --lr {tmp_path / "lr"}: left out, hidden or no images by their names: '
        '._x.png, dir, notes.txt … (5 in all)',
        'warning: same: the SR is no larger than the LR, whose pixels take its place']
    assert set(outputs(tmp_path)) == {'x.png', 'same.png', 'consistency.csv'}


def test_auto_of_a_library_and_of_its_depth(tool, tmp_path, capsys):
    """MATLAB has no kernels without antialias, Pillow no 16 bits."""
    pair(tmp_path, 'x.png')
    write(tmp_path / 'lr', 'x.png', values((6, 8, 3)) // 4 + 96)
    assert run(tool, tmp_path, '--operator', 'auto', '--made-by', 'matlab') == 0
    assert 'made by matlab, PSNR' in capsys.readouterr().out
    assert rows(tmp_path)['x']['made_by'] == 'matlab'
    pair(tmp_path, 'y.png', np.uint16)
    out = '--out', str(tmp_path / 'new')
    with pytest.raises(SystemExit) as ended:
        run(tool, tmp_path, '--operator', 'auto', '--made-by', 'pil', *out)
    assert ended.value.code == 2 and not (tmp_path / 'new').exists()
    assert "made_by='pil' resizes 8 bits only" in capsys.readouterr().err


def test_swapped_folders(tool, tmp_path, capsys):
    pair(tmp_path, 'x.png')
    pair(tmp_path, 'y.png')
    code = tool.main(['--lr', str(tmp_path / 'sr'), '--sr', str(tmp_path / 'lr'),
                      '--out', str(tmp_path / 'out')])
    error = capsys.readouterr().err
    assert code == 2 and 'look swapped: every LR image is larger than its SR image' in error
    assert '(1 problems)' in error and not (tmp_path / 'out').exists()
    write(tmp_path / 'sr', 'x.png', values((3, 4, 3)))
    assert run(tool, tmp_path) == 2
    error = capsys.readouterr().err
    assert 'x: the LR (8x6) is larger than the SR (4x3): are they swapped?' in error


def profile(kind):
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(*kind)).tobytes()


def test_different_profiles_are_named_and_the_lr_s_is_kept(tool, tmp_path, capsys):
    srgb, lab = profile(['sRGB']), profile(['LAB', 5000])
    write(tmp_path / 'lr', 'x.png', values((6, 8, 3)), profile=srgb)
    write(tmp_path / 'sr', 'x.png', values((24, 32, 3)), profile=lab)
    assert run(tool, tmp_path) == 0
    error = capsys.readouterr().err
    assert 'warning: x: LR and SR have different ICC profiles (sRGB built-in and Lab' in error
    assert Image.open(tmp_path / 'out' / 'x.png').info['icc_profile'] == srgb
    write(tmp_path / 'sr', 'x.png', values((24, 32, 3)), profile=srgb)
    assert run(tool, tmp_path, '--overwrite') == 0 and 'warning' not in capsys.readouterr().err


@pytest.mark.parametrize('lr, sr, message', [
    (dict(array=values((6, 8, 3))), dict(array=values((24, 32))), 'x: LR is RGB but SR is L'),
    (dict(array=values((6, 8, 3)), alpha=values((6, 8))), dict(array=values((24, 32, 3))),
     'x: LR is RGBA but SR is RGB'),
    (dict(array=values((6, 8, 3), np.uint16)), dict(array=values((24, 32, 3))),
     'x: LR is 16-bit RGB but SR is RGB'),
])
def test_mixed_modes(tool, tmp_path, capsys, lr, sr, message):
    for folder, options in (('lr', lr), ('sr', sr)):
        write(tmp_path / folder, 'x.png', **options)
    assert run(tool, tmp_path) == 2 and message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_nan_in_float_files(tool, tmp_path, capsys):
    pair(tmp_path, 'x.tif', np.float32)
    broken = values((24, 32, 3), np.float32)
    broken[3, 3] = np.nan
    write(tmp_path / 'sr', 'x.tif', broken)
    assert run(tool, tmp_path) == 2
    assert 'x.tif: expected finite values, got 3 NaN or inf' in capsys.readouterr().err


def test_strength_and_bounds_change_the_files(tool, tmp_path, capsys):
    pair(tmp_path, 'x.npy')
    write(tmp_path / 'lr', 'x.npy', values((6, 8, 3)).clip(40, 200))
    sr = read_raster(tmp_path / 'sr' / 'x.npy').pixels
    assert run(tool, tmp_path, '--strength', '0') == 0
    np.testing.assert_array_equal(read_raster(tmp_path / 'out' / 'x.npy').pixels, sr)
    assert int(rows(tmp_path)['x']['lr_values_unmatched']) > 0
    assert run(tool, tmp_path, '--noise-std', '30', '--overwrite') == 0
    noisy = read_raster(tmp_path / 'out' / 'x.npy').pixels
    np.testing.assert_array_equal(noisy, consistent(
        sr, read_raster(tmp_path / 'lr' / 'x.npy').pixels, 'average_pooling', noise_std=30))
    assert (noisy != sr).any()
    assert run(tool, tmp_path, '--bounds', '40', '200', '--overwrite') == 0
    assert (read_raster(tmp_path / 'out' / 'x.npy').pixels != noisy).any()
    out = read_raster(tmp_path / 'out' / 'x.npy').pixels
    assert (out.min(), out.max()) == (40, 200) and rows(tmp_path)['x']['psnr_lr_after'] == 'inf'
    assert run(tool, tmp_path, '--bounds', '50', '200', '--overwrite') == 2
    assert 'x: expected LR values within --bounds 50 200, got 40 to 200' in capsys.readouterr().err
    assert run(tool, tmp_path, '--bounds', '0', '300', '--overwrite') == 2
    assert 'x: bounds: expected two integers in 0..255' in capsys.readouterr().err


@pytest.mark.parametrize('with_gt', [False, True])
def test_auto(tool, tmp_path, monkeypatch, capsys, with_gt):
    seen = []

    def identify(pairs, libraries, recolour):
        assert recolour is not with_gt
        seen.extend(pairs)
        return [Candidate(dict(type='SeparableResize', kernel='lanczos', scale=4), 'pil', [9], [9],
                          [1]),
                Candidate(dict(type='SeparableResize', kernel='bicubic', scale=4), 'pil', [10],
                          [9], [1])]

    monkeypatch.setattr(postprocess, 'identify', identify, raising=False)
    for index in range(9):
        pair(tmp_path, f'{index}.png', seed=index)
        write(tmp_path / 'lr', f'{index}.png', values((6, 8, 3), seed=index) // 4 + 96)
    gt = tmp_path / ('gt' if with_gt else 'sr')
    if with_gt:
        for index in range(9):
            write(gt, f'{index}.png', values((24, 32, 3), seed=500 + index))
    extra = ['--gt', str(gt)] if with_gt else []
    assert run(tool, tmp_path, '--operator', 'auto', *extra) == 0
    assert len(seen) == 5  # every second one: at most eight
    np.testing.assert_array_equal(seen[0][1], read_raster(gt / '0.png').pixels)
    np.testing.assert_array_equal(seen[0][0], read_raster(tmp_path / 'lr' / '0.png').pixels)
    printed = capsys.readouterr()
    assert "'kernel': 'lanczos'" in printed.out
    assert ('warning: ' in printed.err and 'bicubic (antialias)' in printed.err) is not with_gt
    auto = outputs(tmp_path)
    assert run(tool, tmp_path, '--operator', 'lanczos', '--overwrite', *extra) == 0
    by_name = outputs(tmp_path)
    assert all(auto[name] == by_name[name] for name in auto if name.endswith('.png'))


@pytest.mark.slow
def test_workers_change_nothing(tool, tmp_path):
    for index in range(5):
        pair(tmp_path, f'{index}.png', seed=index)
    results = []
    for workers in ('1', '3'):
        assert run(tool, tmp_path, '--operator', 'bicubic', '--workers', workers,
                   '--overwrite') == 0
        results.append(outputs(tmp_path))
    assert results[0] == results[1] and len(results[0]) == 6


def test_an_error_in_a_worker_is_one_line(tool, tmp_path, capsys, monkeypatch):
    pair(tmp_path, 'a.png')
    pair(tmp_path, 'b.png')
    pair(tmp_path, 'c.png')
    from mmpd.cli import consistent_files
    make = consistent_files.make_file

    def changed(job, *others):
        if job.name == 'b':
            job.paths['sr'].write_bytes(b'')
        return make(job, *others)

    monkeypatch.setattr(consistent_files, 'make_file', changed)
    assert run(tool, tmp_path) == 2
    error = capsys.readouterr().err
    assert 'error: b: ' in error and '(1 images were written before)' in error
    assert sorted(outputs(tmp_path)) == ['a.png', 'consistency.csv']


def test_resume_keeps_what_is_complete(tool, tmp_path, capsys):
    for index in range(4):
        pair(tmp_path, f'{index}.png', seed=index)
    assert run(tool, tmp_path, '--resume') == 0
    whole = outputs(tmp_path)
    # as a kill leaves it: two rows, the second file not yet in place, a third row cut
    lines = whole['consistency.csv'].splitlines(keepends=True)
    (tmp_path / 'out' / 'consistency.csv').write_bytes(b''.join(lines[:3]) + lines[3][:25])
    for index in (1, 2, 3):
        (tmp_path / 'out' / f'{index}.png').unlink()
    (tmp_path / 'out' / '.1.png.0123abcd.partial').write_bytes(b'half')
    whole['.of_others.partial'] = b'whole'
    (tmp_path / 'out' / '.of_others.partial').write_bytes(b'whole')
    kept = tmp_path / 'out' / '0.png'
    os.utime(kept, (1, 1))
    capsys.readouterr()
    assert run(tool, tmp_path, '--resume') == 0
    assert outputs(tmp_path) == whole and kept.stat().st_mtime == 1
    assert '4 images (1 were complete)' in capsys.readouterr().out
    pair(tmp_path, '00.png', seed=7)  # sorts before the others
    assert run(tool, tmp_path, '--resume') == 0
    assert list(rows(tmp_path)) == ['0', '00', '1', '2', '3']


@pytest.mark.parametrize('spoil, message', [
    (lambda folder: pair(folder, 'a.png', seed=9), 'was made from other files or with other'),
    (lambda folder: (folder / 'out' / 'a.png').write_bytes(b'x'), 'is not the file that consist'),
    (lambda folder: (folder / 'out' / 'consistency.csv').unlink(), 'consistency.csv has no row of'),
    (lambda folder: (folder / 'out' / 'consistency.csv').write_text('a,b\n'), 'is no table of thi'),
    (lambda folder: (folder / 'out' / 'consistency.csv').write_bytes(b'\xff\0'), 'is no table of'),
])
def test_resume_takes_nothing_for_complete_that_is_not(tool, tmp_path, capsys, spoil, message):
    pair(tmp_path, 'a.png')
    assert run(tool, tmp_path) == 0
    spoil(tmp_path)
    before = outputs(tmp_path)
    assert run(tool, tmp_path, '--resume') == 2
    assert message in capsys.readouterr().err and outputs(tmp_path) == before


def test_resume_notices_other_settings(tool, tmp_path, capsys):
    pair(tmp_path, 'a.png')
    assert run(tool, tmp_path) == 0
    for extra in (['--strength', '0.5'], ['--operator', 'box'], ['--bounds', '0', '255']):
        assert run(tool, tmp_path, '--resume', *extra) == 2
        assert 'with other settings' in capsys.readouterr().err


@pytest.mark.slow
def test_killed_and_resumed(tmp_path):
    for index in range(40):
        pair(tmp_path, f'{index:02}.npy', np.uint8, (3, ), scale=60, seed=index)
    command = [sys.executable, str(ROOT / 'tools/make_consistent.py'), '--resume',
               *(f'--{name}={tmp_path / name}' for name in ('lr', 'sr', 'out'))]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while len(list(tmp_path.glob('out/*.npy'))) < 5 and time.time() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(tmp_path.glob('out/*.npy')))
    assert 5 <= done < 40
    assert len(rows(tmp_path)) in (done, done + 1)
    subprocess.run(command, check=True, timeout=200, stdout=subprocess.DEVNULL)
    killed = outputs(tmp_path)
    subprocess.run([*command[:2], '--overwrite', *command[3:]], check=True, timeout=200,
                   stdout=subprocess.DEVNULL)
    assert outputs(tmp_path) == killed and len(killed) == 41


@pytest.mark.parametrize('arguments', [
    ['--strength', '2'], ['--noise-std', '-1'], ['--bounds', '3', '2'], ['--workers', '0'],
    ['--resume', '--overwrite'], ['--operator', 'auto', '--alias'],
    ['--noise-std', '2', '--strength', '0.5'], ['--bounds', '0'],
    ['--noise-std', '0', '--strength', '0.5'], ['--lr', ''], ['--sr', ''], ['--out', ''],
    ['--gt', ''], ['--csv', '']])
def test_bad_arguments(tool, tmp_path, arguments, capsys):
    pair(tmp_path, 'x.png')
    with pytest.raises(SystemExit) as info:
        run(tool, tmp_path, *arguments)
    assert info.value.code == 2 and not (tmp_path / 'out').exists()
    line = capsys.readouterr().err.splitlines()[-1]
    assert any(name in line for name in arguments if name.startswith('--'))  # not --noise_std


def test_files_and_processes_that_are_gone_while_all_is_checked(
        tool, tmp_path, capsys, monkeypatch):
    pair(tmp_path, 'a.png')
    from mmpd.cli import consistent_pairs, make_consistent
    check_sizes = consistent_pairs.check_sizes

    def gone(*args):
        (tmp_path / 'sr' / 'a.png').unlink()
        return check_sizes(*args)

    monkeypatch.setattr(consistent_pairs, 'check_sizes', gone)
    assert run(tool, tmp_path) == 2
    assert 'sr/a.png: No such file or directory' in capsys.readouterr().err

    def dies(*_):
        raise BrokenProcessPool
    monkeypatch.setattr(make_consistent, 'check', dies)
    with pytest.raises(SystemExit) as info:
        run(tool, tmp_path)
    assert info.value.code == 2 and not (tmp_path / 'out').exists()
    assert 'a process of --workers died' in capsys.readouterr().err


def wide_png(path, pixels, transparent):
    """16 bits, with a colour that stands for transparency."""
    colour = 0 if pixels.ndim == 2 else 2
    size = pixels.shape[1::-1]
    lines = b''.join(b'\0' + row.astype('>u2').tobytes() for row in pixels)
    path.parent.mkdir(exist_ok=True)
    with path.open('wb') as file:
        file.write(b'\x89PNG\r\n\x1a\n')
        for name, data in ((b'IHDR', struct.pack('>IIBBBBB', *size, 16, colour, 0, 0, 0)),
                           (b'tRNS', np.asarray(transparent, '>u2').tobytes()),
                           (b'IDAT', zlib.compress(lines)), (b'IEND', b'')):
            file.write(struct.pack('>I', len(data)) + name + data)
            file.write(struct.pack('>I', zlib.crc32(name + data)))


def test_a_transparent_grey_of_16_bits_is_kept_as_alpha(tool, tmp_path, capsys):
    lr, sr = values((4, 5), np.uint16), values((8, 10), np.uint16, 1)
    wide_png(tmp_path / 'lr' / 'a.png', lr, lr[0, 0])
    wide_png(tmp_path / 'sr' / 'a.png', sr, sr[1, 2])
    assert run(tool, tmp_path) == 0
    assert 'sr/a.png: what it calls transparent became alpha' in capsys.readouterr().err
    result = read_raster(tmp_path / 'out' / 'a.png')
    assert result.kind == '16-bit LA'
    np.testing.assert_array_equal(result.alpha, np.where(sr == sr[1, 2], 0, 65535))
    np.testing.assert_array_equal(pooled(result.pixels, 2), lr.astype(np.int64) * 4)
    colour = values((8, 10, 3), np.uint16)
    wide_png(tmp_path / 'sr' / 'a.png', colour, colour[0, 0])
    assert run(tool, tmp_path, '--overwrite') == 2
    assert 'it has a transparent colour' in capsys.readouterr().err


def test_help_says_colour(tool, capsys):
    with pytest.raises(SystemExit):
        tool.main(['--help'])
    text = capsys.readouterr().out
    assert 'colour fix' in text and '"colour shift"' in text


HUGE = """
import sys
from mmpd.cli.make_consistent import main
code = main(sys.argv[1:])
# ru_maxrss would count the test's own process as well, from which this one was forked
print('PEAK', open('/proc/self/status').read().split('VmHWM:')[1].split()[0])
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
# 16 bits: 600 MB of pixels and 600 MB of file, on imports of 0.56 GB without MMagic, 0.68 with it
@pytest.mark.parametrize('suffix, dtype, most_kb', [('.png', np.uint8, 1.8e6),
                                                    ('.npy', np.uint16, 2.05e6)])
def test_memory_for_ten_thousand_squared(tmp_path, suffix, dtype, most_kb):
    rng = np.random.default_rng(0)
    most = np.iinfo(dtype).max
    lr = rng.integers(0, most + 1, (2500, 2500, 3), dtype)
    write(tmp_path / 'lr', f'x{suffix}', lr)
    write(tmp_path / 'sr', f'x{suffix}', np.kron(lr[:, :, :] // 2, np.ones((4, 4, 1), dtype)))
    done = subprocess.run(
        [sys.executable, '-c', HUGE, *(f'--{name}={tmp_path / name}' for name in
                                       ('lr', 'sr', 'out'))],
        capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split('PEAK')[1]) < most_kb, done.stdout
    out = read_raster(tmp_path / 'out' / f'x{suffix}').pixels
    for top in range(0, 2500, 100):
        np.testing.assert_array_equal(pooled(out[top * 4:top * 4 + 400]),
                                      lr[top:top + 100].astype(np.int64) * 16)
