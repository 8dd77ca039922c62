"""What is made of one raw image, and what it is called."""
import errno
import json
import os
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from raw_images import encode, folder_of, picture, run

from mmpd.datasets.preparation import Recipe, images, open_source, prepare
from mmpd.datasets.preparation import recipe as recipe_module
from mmpd.datasets.preparation.images import default_resizer, square
from mmpd.datasets.resampling import downsample

pytestmark = pytest.mark.usefixtures('one_process')


def test_hard_links_save_the_copy(tmp_path):
    root, out = folder_of(tmp_path, 2), tmp_path / 'out'
    for _ in range(2):
        assert run('ffhq', root, '--out', out, '--size', 32, '--link') == 0
        assert (out / 'GT' / '00000.png').samefile(root / '00000' / '00000.png')
        journal = (out / 'progress.jsonl').read_text()  # the second time over what is there
        (out / 'progress.jsonl').write_text(journal.splitlines()[0])
    for path in out.glob('*.*'):
        path.unlink()
    (out / 'progress.jsonl').write_text(journal.splitlines()[0].replace('"size": 32', '"size": 16'))
    assert run('ffhq', root, '--out', out, '--size', 16, '--link') == 0  # resized: made
    assert not (out / 'GT' / '00000.png').samefile(root / '00000' / '00000.png')
    assert cv2.imread(str(root / '00000' / '00000.png')).shape == (32, 32, 3)


@pytest.mark.parametrize('above', (0, 1, 2))
def test_what_another_run_tidied_away_is_written_again(tmp_path, monkeypatch, above):
    """The file, the folder of the process, that of the run."""
    root, out, replace = folder_of(tmp_path, 1), tmp_path / 'out', os.replace
    lost = []

    def tidied(source, target):
        if str(target).endswith('.png') and not lost:
            lost.append(Path(source))
            gone = [lost[0], *lost[0].parents][above]
            assert gone.suffix == '.partial' or above == 1 and gone.name == str(os.getpid())
            shutil.rmtree(gone) if above else gone.unlink()
        replace(source, target)
    monkeypatch.setattr(os, 'replace', tidied)
    assert run('ffhq', root, '--out', out, '--size', 32) == 0
    assert lost and (out / 'GT' / '00000.png').read_bytes() == encode(picture(0))
    assert os.listdir(out / 'GT') == ['00000.png']


def test_an_image_folder_that_is_gone_is_not_made_again(tmp_path, monkeypatch):
    """What was in it is lost: the data set would be listed as whole."""
    root, out = folder_of(tmp_path, 1), tmp_path / 'out'
    monkeypatch.setattr(recipe_module, 'decode', lambda *args, read=recipe_module.decode: (
        shutil.rmtree(out / 'GT'), read(*args))[1])
    with pytest.raises(FileNotFoundError):
        prepare(open_source(root), out, Recipe(32), 1, progress=False)
    assert not (out / 'GT').exists() and not (out / 'manifest.json').exists()


def test_images_side_by_side_are_those_of_one_after_the_other(tmp_path, monkeypatch):
    root = folder_of(tmp_path, 5)
    cv2.imwrite(str(root / '00000' / '00001.png'), np.full((40, 50, 3), 9, np.uint8))  # resized
    (root / '00000' / '00002.png').write_bytes(b'bad')
    size, recipe = 32 * 32 * 3, Recipe(32, [8, 4])
    write, found = recipe_module._write_images, []
    for limit, groups in ((1, [1, 1, 1, 1, 0]), (2 * size, [2, 2, 0]), (2 * size + 1, [3, 1]),
                          (99 * size, [4])):
        monkeypatch.setattr(recipe_module, 'SIDE_BY_SIDE', limit)
        seen = []
        monkeypatch.setattr(recipe_module, '_write_images', lambda images, *args, seen=seen: (
            seen.append(len(images)), write(images, *args)))
        out = tmp_path / str(limit)
        manifest = prepare(open_source(root), out, recipe, 1, progress=False)
        assert seen == groups and (manifest['images'], manifest['bad']) == (4, 1)
        found.append({path.relative_to(out): path.read_bytes() for path in out.rglob('*')
                      if path.is_file()})
    assert all(one == found[0] for one in found)
    for stem, lr in (('00001', 9), ('00003', None)):
        gt = cv2.imread(str(out / 'GT' / f'{stem}.png'))
        small = cv2.imread(str(out / 'LR_x4_bicubic_antialias' / f'{stem}.png'))
        assert np.array_equal(small, downsample(gt, 4)) and (lr is None or (small == lr).all())


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
