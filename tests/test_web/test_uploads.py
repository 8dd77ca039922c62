"""Uploads: refused by what their first bytes say, with one line."""
import io

import numpy as np
import pytest
from PIL import Image
from png_bomb import bomb

from mmpd.errors import InputError
from mmpd.web.limits import Limits
from mmpd.web.uploads import check_header, load_upload, safe_stem

LIMITS = Limits(upload_mb=0.05, megapixels=0.01)


def picture(size=(16, 12), mode='RGB', kind='PNG', **options):
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **options)
    return file.getvalue()


def stored(folder, data, name='a.png'):
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize('kind, name', [
    ('PNG', 'a.png'), ('JPEG', 'a.JPG'), ('BMP', 'a.bmp'), ('TIFF', 'a.tif'), ('WEBP', 'a.webp')])
def test_pictures_are_read_as_they_are(tmp_path, kind, name):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    options = dict(lossless=True) if kind == 'WEBP' else {}
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    assert check_header(file.getvalue(), name, LIMITS) == (16, 12)
    read = load_upload(stored(tmp_path, file.getvalue(), name), LIMITS).pixels
    if kind == 'JPEG':
        pixels = np.asarray(Image.open(file))
    assert (read == pixels).all()


@pytest.mark.parametrize('name, data, expected', [
    ('a.txt', b'hello', r'expected a picture \(PNG, JPEG.*got a file that ends in .txt'),
    ('noname', picture(), 'a file of no type'),
    ('a.pth', b'\x80\x04pickle', 'got a file that ends in .pth'),
    ('a.svg', b'<svg/>', 'ends in .svg'),
    ('a.png', b'hello', 'not a readable picture; expected PNG, JPEG'),
    ('a.png', b'', 'not a readable picture'),
    ('a.png', picture()[:40], 'not a readable'),
    # Pillow would open these by their content, and run Ghostscript for the first one
    ('a.png', b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'not a readable'),
    ('a.png', picture(kind='GIF', mode='L'), 'not a readable picture; expected'),
    ('a.png', picture(kind='TGA'), 'not a readable picture; expected'),
    ('a.png', picture((101, 100)), 'at most 0.01 megapixels, got 101x100 = 0.0101 megapixels'),
    ('a.png', bytes(60_000), 'at most 0.05 MB, got 0.06 MB'),
    ('a.png', picture(mode='I;16'), 'expected 8 bits per channel, got 16 bits'),
    ('a.jpg', picture(mode='CMYK', kind='JPEG'), 'expected grey or RGB.*got CMYK'),
])
def test_what_cannot_be_used_is_refused(tmp_path, name, data, expected):
    with pytest.raises(InputError, match=expected) as error:
        load_upload(stored(tmp_path, data, name), LIMITS)
    assert str(error.value).startswith(name) and '\n' not in str(error.value)
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize('side, rows', [(2000, 2000), (10_000, 9), (20_000, 9)])
def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch, side, rows):  # Pillow warns, and refuses
    data = bomb(side, side, rows)
    assert len(data) < 50_000

    def unpacked(self):
        raise AssertionError('it was decoded')
    monkeypatch.setattr('PIL.ImageFile.ImageFile.load', unpacked)
    with pytest.raises(InputError, match='expected at most 1 megapixels, got'):
        load_upload(stored(tmp_path, data), Limits(megapixels=1))


def test_a_turned_tiff_is_not_unpacked_to_know_its_size(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = picture((200, 100), kind='TIFF', exif=exif, compression='tiff_lzw')

    def unpacked(self):
        raise AssertionError('it was decoded')
    monkeypatch.setattr('PIL.TiffImagePlugin.TiffImageFile.load', unpacked)
    with pytest.raises(InputError, match='got 200x100|got 100x200'):
        load_upload(stored(tmp_path, data, 'a.tif'), LIMITS)


def test_an_lr_for_a_model_may_have_a_bound_of_its_own(tmp_path):
    path = stored(tmp_path, picture((50, 50)))
    assert load_upload(path, LIMITS).pixels.shape == (50, 50, 3)
    with pytest.raises(InputError, match='at most 0.002 megapixels, got 50x50'):
        load_upload(path, LIMITS, 2000)


def test_bounds_may_be_reached(tmp_path):
    assert check_header(picture((100, 100)), 'a.png', LIMITS) == (100, 100)
    data = picture()
    for extra, fits in ((0.5, True), (-0.5, False)):
        limits = Limits(upload_mb=(len(data) + extra) / 1e6)
        for function in (lambda limits=limits: check_header(data, 'a.png', limits),
                         lambda limits=limits: load_upload(stored(tmp_path, data), limits)):
            if fits:
                assert function()
            else:
                with pytest.raises(InputError, match='a.png: expected at most .* MB, got'):
                    function()
    whole = Limits(upload_mb=5, megapixels=3, lr_megapixels=0.5)
    assert (whole.upload_bytes, whole.pixels, whole.lr_pixels) == (5_000_000, 3_000_000, 500_000)


def test_a_deleted_file_is_asked_for_again(tmp_path):
    with pytest.raises(InputError, match='a.png: the file is no longer here .*60 minutes'):
        load_upload(tmp_path / 'a.png', LIMITS)


@pytest.mark.parametrize('name, stem', [
    ('a.png', 'a'), ('../../etc/passwd', 'passwd'), ('a b<i>.png', 'a_b_i'), ('...', 'picture'),
    ('é\n\r".png', 'picture'), ('C:\\x\\y.z.png', 'y.z'), ('x' * 99 + '.png', 'x' * 60)])
def test_names_of_files_are_harmless(name, stem):
    assert safe_stem(name) == stem


@pytest.mark.parametrize('name, value', [
    ('upload_mb', 0), ('megapixels', -1), ('lr_megapixels', float('nan')), ('seconds', 0),
    ('queue', 0), ('queue', 1.5), ('keep_minutes', 0), ('disk_mb', float('inf'))])
def test_limits_are_positive(name, value):
    with pytest.raises(ValueError, match=f'{name}: expected'):
        Limits(**{name: value})
