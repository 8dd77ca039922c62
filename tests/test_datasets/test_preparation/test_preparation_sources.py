"""Folders, zip files and LMDBs of raw images."""
import os
import re
import zipfile

import cv2
import pytest
from raw_images import encode, folder_of, make_lmdb, picture, run

from mmpd.datasets.preparation import LMDBSource, Recipe, open_source, prepare
from mmpd.datasets.preparation.images import encode as encode_png
from mmpd.datasets.preparation.sources import name_of

pytestmark = pytest.mark.usefixtures('one_process')


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


def test_a_closed_source_lets_go_of_its_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / 'raw.zip', 'w') as archive:
        archive.writestr('a.png', encode(picture(0)))
    source = open_source(tmp_path / 'raw.zip')
    opened = source.handle
    source.close()
    assert opened.fp is None and source.keys() == ['a.png']  # opened again
    source.close()


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
