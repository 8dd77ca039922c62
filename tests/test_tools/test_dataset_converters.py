"""The converters on small archives in the real formats."""
import errno
import hashlib
import io
import json
import os
import re
import runpy
import signal
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import cv2
import lmdb
import numpy as np
import pytest
import torch
from PIL import Image

from mmpd.datasets.preparation import (
    LMDBSource,
    Recipe,
    engine,
    images,
    open_source,
    prepare,
)
from mmpd.datasets.preparation import recipe as recipe_module
from mmpd.datasets.preparation.images import BadImage, decode, default_resizer, square
from mmpd.datasets.preparation.images import encode as encode_png
from mmpd.datasets.preparation.journal import Journal, check_shard
from mmpd.datasets.preparation.sources import name_of
from mmpd.datasets.resampling import downsample
from mmpd.utils.images import read_picture

TOOLS = Path(__file__).parents[2] / 'tools' / 'dataset_converters'


@pytest.fixture
def processes():
    """For tests of what many processes do together."""


@pytest.fixture(autouse=True)
def in_this_process(request, monkeypatch):
    """Other tests do without worker processes, which take time and hide their lines."""
    if 'processes' not in request.fixturenames:
        monkeypatch.setattr(engine, 'ProcessPoolExecutor', Inline)


def picture(index, size=(32, 32)):
    """A smooth picture, BGR."""
    y, x = np.mgrid[:size[0], :size[1]]
    return np.stack([(x * 7 + index * 31) % 256, (y * 5) % 256, (x + y + index) % 256],
                    2).astype(np.uint8)


def encode(image, suffix='.png'):
    return cv2.imencode(suffix, image)[1].tobytes()


def run(name, *args):
    """Run a converter in this process; returns its exit code."""
    script = TOOLS / name / f'prepare_{name}.py'
    argv, sys.argv = sys.argv, [str(script), *map(str, args), '--workers', '2']
    try:
        runpy.run_path(str(script), run_name='__main__')
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = argv


def folder_of(tmp_path, count=5, size=(32, 32)):
    root = tmp_path / 'images1024x1024'
    for index in range(count):
        path = root / '00000' / f'{index:05d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(picture(index, size)))
    return root


def snapshot(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob('*')
            if path.is_file() and path.name not in ('progress.jsonl', 'manifest.json')}


def test_ffhq_folder_and_zip_give_the_same(tmp_path, capsys, processes):
    root, archive = folder_of(tmp_path), tmp_path / 'images1024x1024.zip'
    with zipfile.ZipFile(archive, 'w') as file:
        for path in root.rglob('*.png'):
            file.write(path, path.relative_to(tmp_path))
        file.writestr('__MACOSX/._00000.png', b'rubbish')
        file.writestr('README.txt', 'no image')
    options = ['--size', 32, '--scale', 4, 8, '--test-count', 2]
    outs = [tmp_path / 'a', tmp_path / 'b']
    for source, out in zip((root, archive), outs, strict=True):
        assert run('ffhq', source, '--out', out, *options) == 0
    assert snapshot(outs[0]) == snapshot(outs[1])
    for index in range(5):
        source = root / '00000' / f'{index:05d}.png'
        assert (outs[0] / 'GT' / source.name).read_bytes() == source.read_bytes()
        for scale in (4, 8):
            lr = cv2.imread(str(outs[0] / f'LR_x{scale}_bicubic_antialias' / source.name))
            np.testing.assert_array_equal(lr, downsample(picture(index), scale))
    assert (outs[0] / 'meta_info_train.txt').read_text().splitlines() == [
        f'{index:05d}.png (32,32,3)' for index in range(3)]
    assert (outs[0] / 'meta_info_test.txt').read_text().splitlines() == [
        f'{index:05d}.png (32,32,3)' for index in (3, 4)]
    manifest = json.loads((outs[1] / 'manifest.json').read_text())
    assert [manifest[key] for key in ('images', 'train', 'test', 'bad')] == [5, 3, 2, 0]
    for name, digest in manifest['gt_sha256'].items():
        assert hashlib.sha256((outs[1] / 'GT' / f'{name}.png').read_bytes()).hexdigest() == digest
    assert '5 images' in capsys.readouterr().out


def make_lmdb(path, count=7):
    pictures = {}
    environment = lmdb.open(str(path), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        for index in range(count):
            key = hashlib.sha1(str(index).encode()).hexdigest().encode()
            pictures[key.decode()] = picture(index, (32 + index, 48))
            transaction.put(key, encode(pictures[key.decode()], '.webp'))
    environment.close()
    return pictures


def test_lsun_lmdb_is_cropped_and_resized(tmp_path, processes):
    make_lmdb(tmp_path / 'cat_lmdb')
    out = tmp_path / 'lsun_cat'
    assert run('lsun', tmp_path / 'cat_lmdb', '--out', out, '--size', 32, '--test-count', 3,
               '--scale', 8, '--kernel', 'bicubic', '--no-antialias', '--resized-by', 'pil') == 0
    source = LMDBSource(tmp_path / 'cat_lmdb')
    for key in source.keys():
        image = cv2.imdecode(np.frombuffer(source.read(key), np.uint8), cv2.IMREAD_COLOR)
        h = len(image)
        cropped = image[:, (48 - h) // 2:(48 - h) // 2 + h]
        want = np.asarray(Image.fromarray(cropped).resize((32, 32), Image.LANCZOS))
        name = bytes.fromhex(key).decode()
        got = cv2.imread(str(out / 'GT' / f'{name}.png'))
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(cv2.imread(str(out / 'LR_x8_bicubic_alias' / f'{name}.png')),
                                      downsample(got, 8, 'bicubic', antialias=False))
    assert len((out / 'meta_info_train.txt').read_text().splitlines()) == 4


def test_celeba_hq_npy_jpeg_and_deltas(tmp_path, capsys):
    root = tmp_path / 'npy'
    root.mkdir()
    np.save(root / 'imgHQ00000.npy', picture(0)[..., ::-1].transpose(2, 0, 1)[None])
    np.save(root / 'imgHQ00001.npy', picture(1)[..., ::-1].transpose(2, 0, 1))
    (root / '2.jpg').write_bytes(encode(picture(2), '.jpg'))
    out = tmp_path / 'out'
    assert run('celeba_hq', root, '--out', out, '--size', 32) == 0
    np.testing.assert_array_equal(cv2.imread(str(out / 'GT' / 'imgHQ00000.png')), picture(0))
    np.testing.assert_array_equal(cv2.imread(str(out / 'GT' / 'imgHQ00001.png')), picture(1))
    assert len((out / 'meta_info_test.txt').read_text().splitlines()) == 3
    assert not (out / 'meta_info_train.txt').exists()
    deltas = tmp_path / 'deltas'
    deltas.mkdir()
    (deltas / 'deltas00000.zip').write_bytes(b'')
    assert run('celeba_hq', deltas, '--out', tmp_path / 'x') == 2
    assert 'deltas' in capsys.readouterr().err


def test_bad_images_are_listed_and_the_run_continues(tmp_path, capsys):
    root = folder_of(tmp_path, 3) / '00000'
    whole = encode(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    (root / 'cut.png').write_bytes(whole[:-200])
    jpeg = encode(picture(1), '.jpg')
    (root / 'half.jpg').write_bytes(jpeg[:len(jpeg) // 2])
    (root / 'empty.png').write_bytes(b'')
    (root / 'text.png').write_bytes(b'no image at all')
    (root / 'small.png').write_bytes(encode(picture(0, (31, 40))))
    (root / 'odd.npy').write_bytes(b'\x93NUMPY')
    header = bytearray(whole)  # more pixels than allowed, with the right checksum
    header[16:24] = struct.pack('>II', 60000, 60000)
    header[29:33] = struct.pack('>I', zlib.crc32(bytes(header[12:29])))
    (root / 'huge.png').write_bytes(header)
    (root / 'wild.npy').write_bytes(b'\x93NUMPY\x01\x00\x10\x00' + b"{'descr': (((((\n")
    (root / '._00000.png').write_bytes(b'resource fork of macOS')
    out = tmp_path / 'out'
    assert run('ffhq', root, '--out', out, '--size', 32, '--scale', 8) == 1
    report = dict(line.split('\t') for line in (out / 'report.txt').read_text().splitlines())
    assert set(report) == {'cut.png', 'half.jpg', 'empty.png', 'text.png', 'small.png', 'odd.npy',
                           'huge.png', 'wild.npy'}
    assert report['small.png'] == 'undersized: 31 x 40, needed 32 x 32'
    assert 'got 60000x60000' in report['huge.png']
    assert all('corrupt' in reason for name, reason in report.items()
               if name not in ('small.png', 'huge.png'))
    assert len(list((out / 'GT').iterdir())) == 3
    assert '8 images are corrupt or undersized' in capsys.readouterr().err
    for name in report:
        (root / name).unlink()
    assert run('ffhq', root, '--out', out, '--size', 32, '--scale', 8) == 0  # mended
    assert not (out / 'report.txt').exists()


def test_damaged_archive_members(tmp_path):
    archive = tmp_path / 'images.zip'
    with zipfile.ZipFile(archive, 'w') as file:
        for index in range(3):
            file.writestr(f'{index}.png', encode(picture(index)))
    data = bytearray(archive.read_bytes())
    at = data.find(b'IDAT') + 8
    data[at] ^= 0xff  # one wrong byte: the zip's checksum notices
    archive.write_bytes(bytes(data))
    assert run('ffhq', archive, '--out', tmp_path / 'out', '--size', 32) == 1
    assert 'CRC' in (tmp_path / 'out' / 'report.txt').read_text()


def test_finished_images_are_skipped_and_lost_ones_made_again(tmp_path, monkeypatch):
    root, out, recipe = folder_of(tmp_path), tmp_path / 'out', Recipe(32, [8])
    prepare(open_source(root), out, recipe, 1, limit=3, progress=False)
    before, stamps = snapshot(out), {p: p.stat().st_mtime_ns for p in out.rglob('*.png')}
    (out / 'GT' / '00000.png').write_bytes(b'half')
    (out / 'LR_x8_bicubic_antialias' / '00001.png').unlink()
    (out / 'GT' / '.00004.png.7777abcd.partial').write_bytes(b'left by a kill')
    with open(out / 'progress.jsonl', 'a') as journal:
        journal.write('{"key": "00000/00004.png", "na')
    made = []
    original = engine._make_chunk
    monkeypatch.setattr(engine, '_make_chunk', lambda *args: made.extend(args[1]) or
                        original(*args))
    prepare(open_source(root), out, recipe, 1, progress=False)
    assert made == [f'00000/0000{i}.png' for i in (0, 1, 3, 4)]
    after = snapshot(out)
    assert all(after[name] == data for name, data in before.items() if name.endswith('.png'))
    assert not list(out.rglob('*.7777abcd.partial'))
    untouched = out / 'GT' / '00002.png'
    assert untouched.stat().st_mtime_ns == stamps[untouched]


class Inline:
    """An executor without processes."""

    def __init__(self, *args):
        pass

    def submit(self, function, *args):
        value = function(*args)

        class Done:
            def result(self):
                return value
        return Done()

    def shutdown(self, **kwargs):
        pass


def test_kill_in_the_middle_leaves_no_half_written_file(tmp_path, processes):
    root = folder_of(tmp_path, 120, (256, 256))
    out = tmp_path / 'out'
    command = [sys.executable, str(TOOLS / 'ffhq' / 'prepare_ffhq.py'), str(root), '--out',
               str(out), '--size', '256', '--scale', '8', '--workers', '2', '--quiet']
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL)
    deadline = time.time() + 60
    while time.time() < deadline and len(list(out.glob('GT/*.png'))) < 10:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    made = list(out.glob('*/*.png'))
    assert 10 <= len(made)
    for path in made:
        read_picture(path)
    assert run('ffhq', root, '--out', out, '--size', 256, '--scale', 8) == 0
    fresh = tmp_path / 'fresh'
    assert run('ffhq', root, '--out', fresh, '--size', 256, '--scale', 8) == 0
    assert snapshot(out) == snapshot(fresh)


def test_the_bar_counts_what_is_done_and_what_was_there(tmp_path, capsys):
    root, out, recipe = folder_of(tmp_path, 5), tmp_path / 'out', Recipe(32)
    prepare(open_source(root), out, recipe, 1, limit=2, progress=False)
    assert capsys.readouterr().err == ''
    prepare(open_source(root), out, recipe, 1)
    shown = capsys.readouterr().err
    assert '2/5' in shown and '5/5' in shown and '4/5' not in shown  # a chunk of three


def test_a_limited_run_forgets_nothing(tmp_path):
    root, out = folder_of(tmp_path, 4), tmp_path / 'out'
    assert run('ffhq', root, '--out', out, '--size', 32) == 0
    stamps = {path: path.stat().st_mtime_ns for path in (out / 'GT').iterdir()}
    assert run('ffhq', root, '--out', out, '--size', 32, '--limit', 2) == 0
    assert json.loads((out / 'manifest.json').read_text())['images'] == 2
    assert run('ffhq', root, '--out', out, '--size', 32) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / 'GT').iterdir()} == stamps


def test_a_png_with_bytes_behind_its_end_is_whole(tmp_path):
    root = tmp_path / 'png'
    root.mkdir()
    (root / 'more.png').write_bytes(encode(picture(0)) + b'x' * 5000)
    (root / 'less.png').write_bytes(encode(picture(0))[:-12])
    manifest = prepare(open_source(root), tmp_path / 'out', Recipe(32), 1, progress=False)
    assert list(manifest['gt_sha256']) == ['more'] and manifest['bad'] == 1


def test_hard_links_save_the_copy(tmp_path):
    root, out = folder_of(tmp_path, 2), tmp_path / 'out'
    for _ in range(2):
        assert run('ffhq', root, '--out', out, '--size', 32, '--link') == 0
        assert (out / 'GT' / '00000.png').samefile(root / '00000' / '00000.png')
        journal = (out / 'progress.jsonl').read_text()  # the second time over what is there
        (out / 'progress.jsonl').write_text(journal.splitlines()[0])
    for path in out.glob('*.*'):
        path.unlink()
    (out / 'progress.jsonl').write_text(journal.splitlines()[0].replace('32', '16', 1))
    assert run('ffhq', root, '--out', out, '--size', 16, '--link') == 0  # resized: made
    assert not (out / 'GT' / '00000.png').samefile(root / '00000' / '00000.png')
    assert cv2.imread(str(root / '00000' / '00000.png')).shape == (32, 32, 3)


def test_linked_images_and_folders_are_those_that_the_links_lead_to(tmp_path):
    root, links = folder_of(tmp_path, 2), tmp_path / 'links' / 'deep'
    links.mkdir(parents=True)
    (links / 'x.png').symlink_to('../../images1024x1024/00000/00000.png')
    (links / 'rest').symlink_to('../../images1024x1024')
    (root / 'round').symlink_to(tmp_path / 'links')
    out = tmp_path / 'out'
    assert run('ffhq', tmp_path / 'links', '--out', out, '--size', 32, '--link') == 0
    assert sorted(path.name for path in (out / 'GT').iterdir()) == [
        '00000.png', '00001.png', 'x.png']
    assert (out / 'GT' / 'x.png').samefile(root / '00000' / '00000.png')
    assert not (out / 'GT' / 'x.png').is_symlink()


def test_nothing_is_written_over_that_no_converter_made(tmp_path, capsys):
    root = folder_of(tmp_path, 1)
    for name, content in (('GT/00000.png', 'mine'), ('LR_x8_bicubic_antialias/00000.png', 'mine'),
                          ('meta_info_train.txt', 'mine'), ('meta_info_test.txt', 'mine'),
                          ('manifest.json', 'mine'), ('report.txt', 'mine'),
                          ('progress.jsonl', 'mine'), ('progress.jsonl', '[]'),
                          ('progress.jsonl', '{"a": 1}'), ('progress.1-of-2.jsonl', '3')):
        out = tmp_path / f'{len(list(tmp_path.iterdir()))}'
        (out / name).parent.mkdir(parents=True)
        (out / name).write_text(content)
        assert run('ffhq', root, '--out', out, '--size', 32, '--scale', 8) == 2, name
        error = capsys.readouterr().err
        assert f'{out / name}: ' in error.replace(' is no journal', ': ') and error.count('\n') == 1
        assert [path for path in out.rglob('*') if path.is_file()] == [out / name]
        assert (out / name).read_text() == content
    (out / name).unlink()
    (out / 'GT').mkdir(exist_ok=True)
    (out / 'GT' / 'other.png').write_text('is in nobody\'s way')
    assert run('ffhq', root, '--out', out, '--size', 32, '--scale', 8) == 0


def test_a_replaced_raw_image_is_made_again(tmp_path):
    root, out = folder_of(tmp_path, 2), tmp_path / 'out'
    archive = tmp_path / 'x.zip'
    for source in (root, archive):
        for index in (0, 7):
            path = root / '00000' / '00001.png'
            path.write_bytes(encode(picture(index)))
            os.utime(path, (index, index))
            with zipfile.ZipFile(archive, 'w') as file:
                file.writestr('a/00001.png', path.read_bytes())
            assert run('ffhq', source, '--out', out / source.name, '--size', 32) == 0
            assert (out / source.name / 'GT' / '00001.png').read_bytes() == path.read_bytes()


def test_an_image_twice_in_an_archive_is_refused(tmp_path, capsys, recwarn):
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as file:
        for _ in range(2):
            file.writestr('a.png', encode(picture(0)))
    assert run('ffhq', tmp_path / 'x.zip', '--out', tmp_path / 'out', '--size', 32) == 2
    assert 'a.png and a.png would both become a.png' in capsys.readouterr().err


def test_tiff_files_are_images(tmp_path, capsys):
    root = tmp_path / 'raw'
    root.mkdir()
    Image.fromarray(picture(0)).save(root / 'a.tif')
    assert run('ffhq', root, '--out', tmp_path / 'out', '--size', 32) == 0
    np.testing.assert_array_equal(Image.open(tmp_path / 'out' / 'GT' / 'a.png'), picture(0))
    (root / 'a.tif').rename(root / 'a.gif')
    assert run('ffhq', root, '--out', tmp_path / 'o', '--size', 32) == 2
    assert 'raw, expected .png, .jpg' in capsys.readouterr().err


def test_what_another_run_tidied_away_is_written_again(tmp_path, monkeypatch):
    root, out, replace = folder_of(tmp_path, 1), tmp_path / 'out', os.replace
    lost = []

    def tidied(source, target):
        if str(target).endswith('.png') and not lost:
            lost.append(source)
            os.unlink(source)
        replace(source, target)
    monkeypatch.setattr(os, 'replace', tidied)
    assert run('ffhq', root, '--out', out, '--size', 32) == 0
    assert lost and (out / 'GT' / '00000.png').read_bytes() == encode(picture(0))


@pytest.mark.parametrize('options', [dict(limit=0), dict(limit=-3), dict(limit='2'),
                                     dict(workers='2'), dict(workers=0), dict(test_count='1'),
                                     dict(test_count=-2)])
def test_numbers_that_are_none_are_refused(tmp_path, options):
    (name, value), = options.items()
    with pytest.raises(ValueError, match=f'{name}: expected an integer of at least .*, got '):
        prepare(open_source(folder_of(tmp_path, 2)), tmp_path / 'out', Recipe(32), **options)
    with pytest.raises(ValueError, match="size: expected an integer of at least 1, got '32'"):
        Recipe('32')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('number', [errno.EXDEV, errno.EMLINK])
def test_where_no_link_is_possible_a_copy_is_made_and_other_errors_are_said(
        tmp_path, monkeypatch, number):
    def link(*names):
        raise OSError(number, os.strerror(number))

    root, out = folder_of(tmp_path, 1), tmp_path / 'out'
    monkeypatch.setattr(os, 'link', link)
    if number == errno.EXDEV:
        prepare(open_source(root), out, Recipe(32, link=True), 1, progress=False)
        assert (out / 'GT' / '00000.png').read_bytes() == encode(picture(0))
    else:
        with pytest.raises(OSError, match='Too many links'):
            prepare(open_source(root), out, Recipe(32, link=True), 1, progress=False)
    archive = tmp_path / 'x.zip'  # whose members are no files of their own
    with zipfile.ZipFile(archive, 'w') as file:
        file.write(root / '00000' / '00000.png', 'a.png')
    prepare(open_source(archive), tmp_path / 'y', Recipe(32, link=True), 1, progress=False)
    assert (tmp_path / 'y' / 'GT' / 'a.png').read_bytes() == encode(picture(0))


@pytest.mark.parametrize('test_count, cut', [(0, 3), (1, 2), (3, 0), (9, 0), (-1, 0)])
def test_lists_of_an_earlier_split_are_replaced(tmp_path, test_count, cut):
    root, out = folder_of(tmp_path, 3), tmp_path / 'out'
    for count in (1, test_count):
        manifest = prepare(open_source(root), out, Recipe(32), 1, test_count=count, progress=False)
    names = [f'{index:05d}.png (32,32,3)' for index in range(3)]
    for split, part in (('train', names[:cut]), ('test', names[cut:])):
        path = out / f'meta_info_{split}.txt'
        assert (path.read_text().splitlines() if path.exists() else None) == (part or None)
        assert manifest[split] == len(part)


@pytest.mark.parametrize('array, reason', [
    (np.zeros((3, 32, 32), np.float32), 'not a uint8 array .*: float32 of shape'),
    (np.zeros((4, 32, 32), np.uint8), r'uint8 of shape \(4, 32, 32\)'),
    (np.zeros((2, 3, 32, 32), np.uint8), r'uint8 of shape \(2, 3, 32, 32\)'),
    (np.zeros((1, 1, 3, 32, 32), np.uint8), 'of shape'), (np.zeros((32, 3), np.uint8), 'of shape'),
    (np.zeros((3, 0, 1 << 40), np.uint8), '^corrupt|^undersized|at most')], ids=lambda x: str(
        getattr(x, 'shape', '')))
def test_arrays_that_are_no_images_are_bad(array, reason):
    file = io.BytesIO()
    np.save(file, array)
    with pytest.raises(BadImage, match=reason):
        square(decode(file.getvalue(), 'a.npy')[0], 32)


@pytest.mark.parametrize('shape, rows, columns', [
    ((9, 4), (2, 6), (0, 4)), ((4, 9), (0, 4), (2, 6)), ((4, 4), (0, 4), (0, 4))])
def test_the_square_is_the_central_one(shape, rows, columns):
    image = picture(0, shape)
    np.testing.assert_array_equal(square(image, 4), image[slice(*rows), slice(*columns)])


def test_a_closed_source_lets_go_of_its_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / 'raw.zip', 'w') as archive:
        archive.writestr('a.png', encode(picture(0)))
    source = open_source(tmp_path / 'raw.zip')
    opened = source.handle
    source.close()
    assert opened.fp is None and source.keys() == ['a.png']  # opened again
    source.close()


def test_arrays_with_either_kind_of_header_are_read():
    image = picture(0)
    for version in ((1, 0), (2, 0)):
        file = io.BytesIO()
        np.lib.format.write_array(file, image[..., ::-1].transpose(2, 0, 1), version)
        pixels, notes = decode(file.getvalue(), 'A.NPY')
        np.testing.assert_array_equal(pixels, image)
        assert notes == ()


def test_an_archive_of_one_image_that_is_gone_or_cannot_be_encoded(tmp_path, monkeypatch):
    make_lmdb(tmp_path / 'cat', 1)
    with pytest.raises(OSError, match='the key is gone'):
        open_source(tmp_path / 'cat').read(b'no such'.hex())
    monkeypatch.setattr(cv2, 'imencode', lambda *_: (False, None))
    with pytest.raises(OSError, match='could not encode a PNG'):
        encode_png(picture(0))


@pytest.mark.parametrize('key, name', [
    (b'0a_b-C9', '0a_b-C9'), (b'a b', None), ('é'.encode('latin-1'), None), (b'a.png', None),
    (b'', None)])
def test_keys_of_an_lmdb_that_are_plain_text_name_themselves(key, name):
    assert name_of(LMDBSource('x'), key.hex()) == (key.hex() if name is None else name)


@pytest.mark.parametrize('options, name', [
    (dict(), 'LR_x8_bicubic_antialias'), (dict(antialias=False), 'LR_x8_bicubic_alias'),
    (dict(kernel='average_pooling'), 'LR_x8_average_pooling'),
    (dict(kernel='box', border='mirror'), 'LR_x8_box_antialias_mirror'),
    (dict(made_by='float'), 'LR_x8_bicubic_antialias_float'),
    (dict(made_by='torch_uint8'), 'LR_x8_bicubic_antialias')])
def test_folders_are_called_after_what_is_in_them(options, name):
    assert Recipe(32, [8, 8], **options).folders() == ['GT', name]
    assert Recipe(32, [8], gt=False, **options).folders() == [name]
    assert 'made_by' not in Recipe(32).options()


def test_without_torchs_filter_pillow_resizes(monkeypatch):
    def lacks(*args, **kwargs):
        raise NotImplementedError('lanczos')

    monkeypatch.setattr(images.F, 'interpolate', lacks)
    monkeypatch.setattr(recipe_module, 'default_resizer', default_resizer.__wrapped__)
    assert Recipe(32).resized_by == 'pil'
    with pytest.raises(ValueError, match="resized_by: expected 'pil', for this torch has no"):
        Recipe(32, resized_by='torch_uint8')
    with pytest.raises(ValueError, match='resized_by: expected one of pil, torch_uint8'):
        Recipe(32, resized_by='opencv')


class Libc:
    def __init__(self):
        self.calls = []

    def prctl(self, *args):
        self.calls.append(args)


@pytest.mark.parametrize('platform', ['linux', 'win32'])
def test_workers_compute_alone_and_end_with_the_main_process(monkeypatch, platform):
    libc, threads = Libc(), (torch.get_num_threads(), cv2.getNumThreads())
    monkeypatch.setattr(engine.ctypes, 'CDLL', lambda name: libc)
    monkeypatch.setattr(engine.sys, 'platform', platform)
    try:
        torch.set_num_threads(2), cv2.setNumThreads(2)
        engine._start_worker()
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)
        if platform == 'linux':  # (PR_SET_PDEATHSIG, ...) of linux/prctl.h
            assert libc.calls == [(1, signal.SIGKILL)]
            libc.mallopt = libc.prctl  # of glibc alone
            engine._start_worker()
            assert all(size > 1 << 24 for _, size in libc.calls[2:]) and len(libc.calls) == 4
    finally:
        torch.set_num_threads(threads[0]), cv2.setNumThreads(threads[1])
    assert platform == 'linux' or libc.calls == []


@pytest.mark.parametrize('breaks', ['first', 'last', 'at once'])
def test_a_worker_that_dies_is_told_with_its_images(breaks):
    class Breaking(Inline):
        left = dict(first=0, last=2).get(breaks, 9)

        def submit(self, function, *args):
            if breaks == 'at once':
                raise BrokenProcessPool('none')
            self.left -= 1
            return SimpleNamespace(result=self.die if self.left < 0 else lambda: args[1])

        def die(self):
            raise BrokenProcessPool('it ended')

    keys = [f'{index}\n.png' for index in range(20)]
    found, said = [], dict(first=r'from 0\\n.png to 19\\n.png',
                           last=r'from 16\\n.png to 19\\n.png').get(breaks, 'none')
    with pytest.raises(BrokenProcessPool, match=said):
        for chunk in engine._chunks(Breaking(), None, keys, None, None, 1):
            found += chunk
    assert found == (keys[:16] if breaks == 'last' else [])


def test_what_loses_nothing_is_converted_and_told_the_rest_is_bad(tmp_path, capsys):
    """The rule of docs/images.md: as inference and training."""
    root = tmp_path / 'png'
    root.mkdir()
    cv2.imwrite(str(root / 'grey.png'), picture(0)[..., 0])
    cv2.imwrite(str(root / 'alpha.png'), np.dstack([picture(0), picture(0)[..., 0]]))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(0)[..., ::-1]).save(root / 'turned.png', exif=exif)
    Image.fromarray(picture(0)[..., 0], 'P').save(root / 'palette.png')
    cv2.imwrite(str(root / 'deep.png'), picture(0).astype(np.uint16) * 257)
    Image.new('CMYK', (32, 32)).save(root / 'cmyk.jpg')
    out = tmp_path / 'out'
    assert run('ffhq', root, '--out', out, '--size', 32) == 1
    manifest = json.loads((out / 'manifest.json').read_text())
    assert manifest['converted'] == {
        'grey became RGB': 1, 'its alpha was left out': 1, 'its palette was looked up': 1,
        'turned as its orientation says': 1}
    assert '1 images: its alpha was left out' in capsys.readouterr().out
    report = dict(line.split('\t') for line in (out / 'report.txt').read_text().splitlines())
    assert report == {'deep.png': 'expected 8 bits per channel, got 16 bits',
                      'cmyk.jpg': 'expected grey or RGB, with or without alpha, got CMYK'}
    for name, expected in (('grey', np.dstack([picture(0)[..., 0]] * 3)), ('alpha', picture(0)),
                           ('turned', np.rot90(picture(0), -1))):
        image = cv2.imread(str(out / 'GT' / f'{name}.png'), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(image, expected)


def test_whatever_lies_in_the_folder_the_rest_goes_on(tmp_path):
    root, out = folder_of(tmp_path, 2) / '00000', tmp_path / 'out'
    os.mkfifo(root / 'pipe.png')
    (root / 'loop.png').symlink_to('loop.png')
    (root / 'zero.png').symlink_to('/dev/zero')
    (root / 'folder.png').mkdir()
    good = encode(picture(1))
    (root / ('x' * 240 + '.png')).write_bytes(good)
    for name in (b'caf\xe9.png', b'a b.png', b'c\nd.png 1.png'):
        with open(os.path.join(os.fsencode(root), name), 'wb') as file:
            file.write(good)
    assert run('ffhq', root, '--out', out, '--size', 32) == 1
    report = dict(line.split('\t') for line in (out / 'report.txt').read_text().splitlines())
    assert report.pop('caf\\udce9.png') == 'its name caf\\udce9.png is not UTF-8'
    assert all('cannot stand in an annotation file' in report.pop(name)
               for name in ('a b.png', 'c\\nd.png 1.png'))
    assert report == {'folder.png': 'cannot be read: expected a file, got a folder',
                      'loop.png': 'cannot be read: Too many levels of symbolic links',
                      'pipe.png': 'cannot be read: expected a file, got a named pipe',
                      'zero.png': 'cannot be read: expected a file, got a device'}
    assert json.loads((out / 'manifest.json').read_text())['images'] == 3
    assert (out / 'meta_info_train.txt').read_text().splitlines() == [
        f'{name}.png (32,32,3)' for name in ('00000', '00001', 'x' * 240)]


def test_members_of_an_archive_write_no_lines_and_eat_no_memory(tmp_path):
    def chunk(name, data):
        return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(
            name + data))
    archive, out = tmp_path / 'x.zip', tmp_path / 'out'
    bomb = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack(
        '>IIBBBBB', 30000, 30000, 8, 0, 0, 0, 0)) + chunk(
            b'IDAT', zlib.compress(bytes(1 << 20))) + chunk(b'IEND', b'')
    with zipfile.ZipFile(archive, 'w') as file:
        for name in ('a\n.png', 'evil.png (32,32,3)\nother.png', 'good.png', '../../b.png',
                     'y' * 300 + '.png'):
            file.writestr(name, encode(picture(0)))
        file.writestr('bomb.png', bomb)
    assert run('ffhq', archive, '--out', out, '--size', 32) == 1
    assert (out / 'meta_info_train.txt').read_text().splitlines() == [
        'b.png (32,32,3)', 'good.png (32,32,3)']
    report = (out / 'report.txt').read_text().splitlines()
    assert len(report) == 4 and any('got 30000x30000' in line for line in report)
    assert any('at most 255 bytes, got 304' in line for line in report)


def test_members_of_more_bytes_than_pixels_may_take_are_not_unpacked(tmp_path, monkeypatch):
    archive = tmp_path / 'x.zip'
    with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as file:
        file.writestr('a.bmp', bytes(3 << 20))
    monkeypatch.setenv('MMPD_MAX_PIXELS', '1000')
    monkeypatch.setattr(zipfile.ZipFile, 'read', lambda *_: 1 / 0)
    manifest = prepare(open_source(archive), tmp_path / 'out', Recipe(32), 1, progress=False)
    assert manifest['bad'] == 1
    assert 'expected at most 1052576 bytes, got 3145728' in (
        tmp_path / 'out' / 'report.txt').read_text()


def test_an_lmdb_cut_anywhere_is_refused_before_it_is_read(tmp_path, capsys):
    """LMDB itself ends in a bus error."""
    make_lmdb(tmp_path / 'cat')
    whole = (tmp_path / 'cat' / 'data.mdb').read_bytes()
    for size in (5000, 9000, len(whole) // 2, len(whole) - 1):
        (tmp_path / 'cat' / 'data.mdb').write_bytes(whole[:size])
        assert run('lsun', tmp_path / 'cat', '--out', tmp_path / 'out') == 2
        assert re.search(r'cat is no LMDB or damaged: truncated: (it has \d+ bytes|\d+ of \d+)',
                         capsys.readouterr().err)


def test_bad_use_is_one_line_and_exit_code_2(tmp_path, capsys):
    root = folder_of(tmp_path, 2)
    out = tmp_path / 'out'
    assert run('ffhq', root, '--out', out, '--size', 32, '--scale', 8) == 0
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'note.txt').write_text('no archive')
    make_lmdb(tmp_path / 'cat', 1)
    with zipfile.ZipFile(tmp_path / 'cat.zip', 'w') as file:
        file.write(tmp_path / 'cat' / 'data.mdb', 'cat/data.mdb')
    with zipfile.ZipFile(tmp_path / 'damaged.zip', 'w') as file:
        file.writestr('a.png', encode(picture(0), '.png'))
    data = (tmp_path / 'damaged.zip').read_bytes()
    (tmp_path / 'damaged.zip').write_bytes(data.replace(b'PK\x01\x02', b'PK\x00\x00'))
    for name, content in (('damaged', b'x' * 20000), ('hollow', b'')):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'data.mdb').write_bytes(content)
    twice = tmp_path / 'twice'
    twice.mkdir()
    for suffix in ('.png', '.jpg'):
        (twice / f'a{suffix}').write_bytes(encode(picture(0), suffix))
    for args, message in (
            ((tmp_path / 'missing', '--out', out), 'no such file or folder'),
            ((tmp_path / 'empty', '--out', tmp_path / 'o'), 'no images in'),
            ((tmp_path / 'note.txt', '--out', out), 'neither a folder'),
            ((tmp_path / 'cat.zip', '--out', out), 'unpack it'),
            ((tmp_path / 'damaged.zip', '--out', out), 'damaged.zip is damaged'),
            ((tmp_path / 'damaged', '--out', out), 'is no LMDB or damaged'),
            ((tmp_path / 'hollow', '--out', out), 'is no LMDB or damaged'),
            ((twice, '--out', tmp_path / 'o', '--size', 32), 'both become a.png'),
            ((root, '--out', out, '--size', 32, '--scale', 4), 'made with scales = [8]'),
            ((root, '--out', out, '--size', 16, '--scale', 8), 'made with size = 32'),
            ((root, '--out', out, '--size', 30, '--scale', 8), '30 is not divisible by scale 8'),
            ((root, '--out', out, '--size', 0), 'size: expected an integer of at least 1, got 0'),
            ((root, '--out', ''), "--out: expected a path, got ''"),
            (('', '--out', out), "source: expected a path, got ''"),
            ((root, '--out', tmp_path / 'note.txt'), 'note.txt is not a folder'),
            ((root, '--out', tmp_path / 'note.txt' / 'x'), 'note.txt is not a folder'),
            ((root, '--out', out, '--size', 32, '--scale'), '--scale: expected at least one'),
            ((root, '--out', out, '--kernel', 'lanczos'), '--kernel: is about LR folders'),
            ((root, '--out', out, '--no-antialias'), '--no-antialias: is about LR folders'),
            ((root, '--out', out, '--made-by', 'pil'), '--made-by: is about LR folders'),
            ((root, '--out', out, '--scale', 8, '--lr-only', '--link'), '--link: is about the GT'),
            ((root, '--out', root / 'o'), f'o lies in {root}, whose images are the raw ones'),
            ((root, '--out', root), f'{root} lies in {root}'),
            ((root, '--out', out, '--kernel', 'average_pooling', '--no-antialias', '--scale', 8,
              '--size', 32), 'antialiasing'),
            ((root, '--out', out, '--limit', 0), 'at least 1'),
            ((root, '--out', out, '--shard', '0/4'), "expected I/N with 1 <= I <= N, e.g. 2/16, "
             "got '0/4'"),
            ((root, '--out', out, '--shard', '5/4'), "got '5/4'"),
            ((root, '--out', out, '--shard', '2'), "got '2'"),
            ((root, '--out', out, '--shard', '1/-2'), "got '1/-2'"),
            ((root, '--out', out, '--size', 32, '--scale', 8, '--shard', '1/2', '--made-by', 'pil'),
             "made with made_by = 'torch_uint8'"),
            ((root, '--out', tmp_path / 'o', '--size', 32, '--scale', 8, '--made-by', 'opencv'),
             "made_by='opencv' has no SeparableResize"),
            ((root, '--out', tmp_path / 'o', '--size', 32, '--lr-only'), 'nothing to make'),
            ((root, '--out', tmp_path / 'o', '--size', 32, '--scale', 8, '--lr-only'),
             'expected a flat folder of PNG files'),
            ((out / 'GT', '--out', out, '--size', 16), 'which would be written over'),
            ((out / 'GT', '--out', out, '--size', 32, '--scale', 4, '--lr-only'),
             'made with gt = True, source = '),
            ((root, '--out', out, '--size', 32, '--scale', 8, '--lr-only'),
             'expected a flat folder')):
        capsys.readouterr()
        assert run('ffhq', *args) == 2, args
        error = capsys.readouterr().err
        assert message in error and 'Traceback' not in error


def test_lsun_must_be_told_where_to_write(tmp_path, capsys):
    assert run('lsun', tmp_path) == 2
    assert '--out' in capsys.readouterr().err


def everything(out):
    """All files, the journal and the manifest included."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob('*')
            if path.is_file()}


def with_a_bad_one(tmp_path, count=7):
    root = folder_of(tmp_path, count, (40, 32)) / '00000'
    (root / '00003.png').write_bytes(b'no image')
    return root


def test_shards_leave_what_one_run_leaves_byte_for_byte(tmp_path, capsys):
    root, outs = with_a_bad_one(tmp_path), [tmp_path / 'whole', tmp_path / 'parts']
    options = ['--size', 32, '--scale', 8, '--test-count', 2]
    assert run('ffhq', root, '--out', outs[0], *options) == 1
    for index, code, missing in ((2, 0, 5), (3, 0, 3)):
        assert run('ffhq', root, '--out', outs[1], *options, '--shard', f'{index}/3') == code
        assert '2 images, 0 of them bad' in (said := capsys.readouterr().out)
        assert f'{missing} of other shards are missing' in said
    assert not (outs[1] / 'manifest.json').exists()
    assert run('ffhq', root, '--out', outs[1], *options, '--shard', '1/3') == 1
    assert '6 images in' in capsys.readouterr().out
    assert everything(outs[0]) == everything(outs[1])
    assert [len((outs[1] / f'meta_info_{split}.txt').read_text().splitlines())
            for split in ('train', 'test')] == [4, 2]


def test_killed_shards_go_on_and_finished_ones_join(tmp_path, monkeypatch):
    root, out, recipe = with_a_bad_one(tmp_path), tmp_path / 'out', Recipe(32, [8])
    source, made = open_source(root), []
    original = engine._make_chunk
    monkeypatch.setattr(engine, '_make_chunk', lambda *args: made.append(args[1]) or
                        original(*args))

    def shard(index, count):
        made.clear()
        result = prepare(source, out, recipe, 1, progress=False, shard=(index, count))
        return sum(made, []), result

    assert shard(1, 2)[0] == [f'0000{i}.png' for i in (0, 2, 4, 6)]
    journal = out / 'progress.1-of-2.jsonl'
    lines = journal.read_text().split('\n')
    journal.write_text('\n'.join(lines[:3]) + '\n{"key": "00004.png", "na')  # killed
    (out / 'GT' / '.00004.png.0123abcd.partial').write_bytes(b'half')
    (out / 'GT' / '.00005.png.0123abcd.partial').write_bytes(b'of the other, at work')
    assert shard(1, 2)[0] == ['00004.png', '00006.png']
    assert os.listdir(out / 'GT').count('.00005.png.0123abcd.partial') == 1
    assert not (out / 'GT' / '.00004.png.0123abcd.partial').exists()
    # another number of shards knows what those have done; the last one joins them
    again, result = shard(2, 3)
    assert again == ['00001.png'] and result == dict(shard=[2, 3], images=2, missing=2, bad=0)
    (out / 'GT' / '00002.png').unlink()
    again, result = shard(2, 2)
    assert again == ['00003.png', '00005.png'] and result['missing'] == 1  # 00002
    again, result = shard(1, 2)
    assert again == ['00002.png'] and result['images'] == 6 and result['bad'] == 1
    assert [path.name for path in out.glob('progress*')] == ['progress.jsonl']
    whole = tmp_path / 'whole'
    prepare(source, whole, recipe, 1, progress=False)
    assert everything(out) == everything(whole)
    # of the finished set a shard makes its bad ones again, in case they are mended
    (root / '00003.png').write_bytes(encode(picture(3, (40, 32))))
    assert shard(1, 2)[0] == [] and shard(2, 2)[1]['bad'] == 0
    prepare(source, whole, recipe, 1, progress=False)
    assert everything(out).keys() == everything(whole).keys()
    assert (out / 'manifest.json').read_bytes() == (whole / 'manifest.json').read_bytes()


def test_more_shards_than_images_and_a_run_without_shards_afterwards(tmp_path):
    root, out, recipe = folder_of(tmp_path, 2), tmp_path / 'out', Recipe(32)
    source = open_source(root)
    assert prepare(source, out, recipe, 1, progress=False, shard=(3, 4)) == dict(
        shard=[3, 4], images=0, missing=2, bad=0)
    assert prepare(source, out, recipe, 1, progress=False, shard=(1, 4))['missing'] == 1
    stamp = (out / 'GT' / '00000.png').stat().st_mtime_ns
    assert prepare(source, out, recipe, 1, progress=False)['images'] == 2
    assert (out / 'GT' / '00000.png').stat().st_mtime_ns == stamp
    assert [path.name for path in out.glob('progress*')] == ['progress.jsonl']


def test_lr_alone_of_a_folder_that_stays_the_gt(tmp_path, capsys):
    root, out = folder_of(tmp_path, 2) / '00000', tmp_path / 'out'
    (root / 'wide.png').write_bytes(encode(picture(0, (32, 40))))
    assert run('ffhq', root, '--out', out, '--size', 32, '--scale', 8, '--lr-only') == 1
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob('*.png')) == [
        f'LR_x8_bicubic_antialias/0000{i}.png' for i in (0, 1)]
    assert (out / 'meta_info_train.txt').read_text().startswith('00000.png (32,32,3)')
    assert (out / 'report.txt').read_text() == \
        'wide.png\t32 x 40, needed 32 x 32 for LR alone\n'
    manifest = json.loads((out / 'manifest.json').read_text())
    assert manifest['gt'] is False and 'gt_sha256' not in manifest
    lr = cv2.imread(str(out / 'LR_x8_bicubic_antialias' / '00001.png'))
    np.testing.assert_array_equal(lr, downsample(picture(1), 8))
    (root / 'b.jpg').write_bytes(encode(picture(0), '.jpg'))
    capsys.readouterr()
    assert run('ffhq', root, '--out', out, '--size', 32, '--scale', 8, '--lr-only') == 2
    assert 'got b.jpg' in capsys.readouterr().err


def test_the_library_that_makes_lr_and_gt_is_in_names_and_manifest(tmp_path):
    root, out = folder_of(tmp_path, 1, (80, 80)), tmp_path / 'out'
    assert run('ffhq', root, '--out', out, '--size', 40, '--scale', 8, '--made-by', 'pil',
               '--resized-by', 'pil') == 0
    gt = np.asarray(Image.fromarray(picture(0, (80, 80))).resize((40, 40), Image.LANCZOS))
    np.testing.assert_array_equal(cv2.imread(str(out / 'GT' / '00000.png')), gt)
    np.testing.assert_array_equal(
        cv2.imread(str(out / 'LR_x8_bicubic_antialias_pil' / '00000.png')),
        np.asarray(Image.fromarray(gt).resize((5, 5), Image.BICUBIC)))
    manifest = json.loads((out / 'manifest.json').read_text())
    assert manifest['made_by'] == manifest['resized_by'] == 'pil'
    by_default = Recipe(40, [8], resized_by=default_resizer())
    assert by_default.options() == Recipe(40, [8]).options()
    close = square(picture(0, (80, 90)), 40, default_resizer())
    far = square(picture(0, (80, 90)), 40, 'pil')
    assert np.abs(close.astype(int) - far).max() <= 2 and close.flags.c_contiguous


def test_of_several_entries_of_an_image_the_mended_one_counts(tmp_path):
    header, bad, good = dict(size=32), dict(key='a', bad='cut'), dict(key='a', name='a')
    for name, entry in (('progress.jsonl', bad), ('progress.1-of-2.jsonl', bad),
                        ('progress.1-of-3.jsonl', good), ('progress.2-of-3.jsonl', bad)):
        (tmp_path / name).write_text(f'{json.dumps(header)}\n{json.dumps(entry)}\n')
    assert Journal(tmp_path, header, (1, 2)).read() == dict(a=good)
    with pytest.raises(ValueError, match='was made with size = 32: choose another output folder'):
        Journal(tmp_path, dict(size=64), (1, 2)).read()


def test_shards_that_would_list_differently_are_refused(tmp_path, capsys):
    root, out = folder_of(tmp_path, 4), tmp_path / 'out'
    options = ['--out', out, '--size', 32]
    assert run('ffhq', root, *options, '--shard', '1/2', '--test-count', 1) == 0
    for more, said in ((['--test-count', 2], 'test_count = 1'), (
            ['--test-count', 1, '--limit', 3], 'limit = None')):
        capsys.readouterr()
        assert run('ffhq', root, *options, '--shard', '2/2', *more) == 2
        error = capsys.readouterr().err
        assert f'another shard was started with {said}; expected the same' in error
        assert len(list((out / 'GT').iterdir())) == 2
    assert run('ffhq', root, *options, '--test-count', 2, '--limit', 3) == 0
    assert json.loads((out / 'manifest.json').read_text())['images'] == 3


@pytest.mark.parametrize('shard', [(0, 2), (3, 2), (1, ), 'ab', (1.0, 2), (True, 2), 1])
def test_shards_that_are_none_are_refused(shard):
    with pytest.raises(ValueError, match=r'shard: expected two integers \(i, n\)'):
        check_shard(shard)
