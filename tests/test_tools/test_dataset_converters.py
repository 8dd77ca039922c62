"""The converters on small archives in the real formats."""
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile

import cv2
import numpy as np
import pytest
from PIL import Image
from raw_images import TOOLS, encode, folder_of, make_lmdb, picture, run, snapshot

from mmpd.datasets.preparation import LMDBSource
from mmpd.datasets.resampling import downsample
from mmpd.utils.images import read_picture


def test_ffhq_folder_and_zip_give_the_same(tmp_path, capsys):
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


def test_lsun_lmdb_is_cropped_and_resized(tmp_path):
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


@pytest.mark.usefixtures('one_process')
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


def test_kill_in_the_middle_leaves_no_half_written_file(tmp_path):
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


@pytest.mark.usefixtures('one_process')
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
