"""Files of any depth and number of bands: nothing lost either way, refusals in one line."""
import pickle
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from mmpd.utils.rasters import (
    Raster,
    encode_raster,
    output_suffix,
    profile_name,
    raster_from_pil,
    read_raster,
)

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()


def values(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == 'f':
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


@pytest.mark.parametrize('suffix, bands, alpha, dtype', [
    *(('.png', bands, alpha, dtype) for bands in (1, 3) for alpha in (False, True)
      for dtype in ('uint8', 'uint16')),
    *(('.tif', bands, alpha, dtype) for bands in (1, 3, 7) for alpha in (False, True)
      for dtype in ('uint8', 'uint16', 'float32', 'float64')),
    *(('.npy', bands, False, dtype) for bands in (1, 4) for dtype in ('uint8', 'uint16', 'float16',
                                                                      'float32', 'float64')),
])
def test_what_is_written_is_read_again(tmp_path, suffix, bands, alpha, dtype):
    shape = (9, 11) if bands == 1 else (9, 11, bands)
    raster = Raster(values(shape, dtype), values((9, 11), dtype, 1) if alpha else None, PROFILE)
    path = tmp_path / f'x{suffix}'
    path.write_bytes(encode_raster(raster, suffix))
    again = read_raster(path)
    assert again.pixels.dtype == dtype and again.kind == raster.kind and again.size == (11, 9)
    np.testing.assert_array_equal(again.pixels, raster.pixels)
    if alpha:
        np.testing.assert_array_equal(again.alpha, raster.alpha)
    if suffix != '.npy':
        assert again.icc_profile == PROFILE


@pytest.mark.parametrize('channels', [3, 4])
def test_16_bit_png_is_what_opencv_says(tmp_path, channels):
    """Both directions, past the first block of rows."""
    array = values((300, 7, channels), 'uint16')
    order = [2, 1, 0, 3][:channels]
    alpha = array[..., 3] if channels == 4 else None
    (tmp_path / 'x.png').write_bytes(encode_raster(Raster(array[..., :3], alpha), '.png'))
    read = cv2.imread(str(tmp_path / 'x.png'), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read[..., order], array)
    cv2.imwrite(str(tmp_path / 'y.png'), array[..., order])
    np.testing.assert_array_equal(read_raster(tmp_path / 'y.png').pixels, array[..., :3])


@pytest.mark.parametrize('options', [
    dict(compression='zlib', predictor=True), dict(byteorder='>'), dict(tile=(16, 16)),
    dict(planarconfig='separate')])
def test_tiff_of_others(tmp_path, options):
    array = values((40, 36, 3), 'uint16')
    data = np.moveaxis(array, -1, 0) if 'planarconfig' in options else array
    tifffile.imwrite(tmp_path / 'x.tif', data, photometric='rgb', **options)
    raster = read_raster(tmp_path / 'x.tif')
    assert raster.kind == '16-bit RGB' and raster.pixels.dtype.isnative
    np.testing.assert_array_equal(raster.pixels, array)


def test_lzw_tiff_goes_to_opencv_where_imagecodecs_is_missing(tmp_path):
    array = values((12, 16, 3), 'uint16')
    cv2.imwrite(str(tmp_path / 'x.tif'), array[..., ::-1])  # LZW is its default
    np.testing.assert_array_equal(read_raster(tmp_path / 'x.tif').pixels, array)


@pytest.mark.parametrize('bands, dtype', [(3, 'uint8'), (1, 'uint16'), (4, 'uint16')])
def test_places_on_the_earth_stay(tmp_path, bands, dtype):
    """GeoTIFF tags go through, whichever library reads and writes."""
    array = values((8, 8) if bands == 1 else (8, 8, bands), dtype)
    scale, names = (10., 10., 0.), 'WGS 84|'
    tifffile.imwrite(tmp_path / 'x.tif', array, photometric='rgb' if bands == 3 else 'minisblack',
                     planarconfig='contig' if bands > 1 else None, extratags=[
                         (33550, 12, 3, scale, True), (34737, 2, None, names, True),
                         (34735, 3, 4, (1, 1, 0, 0), True)])
    (tmp_path / 'y.tif').write_bytes(encode_raster(read_raster(tmp_path / 'x.tif'), '.tif'))
    with tifffile.TiffFile(tmp_path / 'y.tif') as file:
        tags = file.pages[0].tags
        assert (tags[33550].value, tags[34737].value, tags[34735].value) == (
            scale, names, (1, 1, 0, 0))
        np.testing.assert_array_equal(file.asarray(), array)


def png_with(colour_type, depth, raw, extra=b''):
    def chunk(name, data):
        return (struct.pack('>I', len(data)) + name + data
                + struct.pack('>I', zlib.crc32(name + data)))
    return (b'\x89PNG\r\n\x1a\n'
            + chunk(b'IHDR', struct.pack('>IIBBBBB', 2, 1, depth, colour_type, 0, 0, 0)) + extra
            + chunk(b'IDAT', zlib.compress(raw)) + chunk(b'IEND', b''))


def test_16_bit_grey_with_alpha(tmp_path):
    numbers = np.array([1000, 65535, 300, 7], '>u2')
    (tmp_path / 'x.png').write_bytes(png_with(4, 16, b'\0' + numbers.tobytes()))
    raster = read_raster(tmp_path / 'x.png')
    assert raster.kind == '16-bit LA'
    assert (raster.pixels.tolist(), raster.alpha.tolist()) == ([[1000, 300]], [[65535, 7]])


def test_a_transparent_colour_becomes_alpha(tmp_path):
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    image.save(tmp_path / 'x.png', transparency=(4, 5, 6))
    raster = read_raster(tmp_path / 'x.png')
    assert raster.kind == 'RGBA' and raster.alpha.tolist() == [[255, 0]]


def nan(path):
    array = np.ones((4, 4, 3), np.float32)
    array[0, 0, 0], array[1, 2, 1] = np.nan, np.inf
    return array


@pytest.mark.parametrize('name, make, message', [
    ('x.npy', lambda p: np.save(p, nan(p)), 'expected finite values, got 2 NaN or inf among 48'),
    ('x.tif', lambda p: tifffile.imwrite(p, nan(p), photometric='rgb'), 'got 2 NaN or inf'),
    ('x.npy', lambda p: np.save(p, np.ones((4, 4), int)), 'float64, got int64'),
    ('x.npy', lambda p: np.save(p, np.ones(4, np.uint8)), '(H, W, C), got shape (4,)'),
    ('x.npy', lambda p: np.save(p, np.array({}), allow_pickle=True), 'not a readable image'),
    ('x.npy', lambda p: p.write_bytes(b'no'), 'not a readable image'),
    ('x.tif', lambda p: p.write_bytes(b'II*\0 no'), 'not a readable image'),
    ('x.tif', lambda p: p.write_bytes(b'no'), 'not a readable image'),
    ('x.tif', lambda p: tifffile.imwrite(p, np.zeros((5, 8, 8), np.float32),
                                              photometric='minisblack'), 'expected one picture'),
    ('x.tif', lambda p: Image.new('L', (4, 4)).save(
        p, save_all=True, append_images=[Image.new('L', (4, 4))]), 'got 2 frames'),
    ('x.tif', lambda p: Image.new('CMYK', (4, 4)).save(p), 'got mode CMYK'),
    ('x.tif', lambda p: tifffile.imwrite(p, np.zeros((8, 8), np.int16)),
     'got signed or 32-bit integers'),
    ('x.tif', lambda p: tifffile.imwrite(p, np.zeros((8, 8, 3), np.float32), photometric='ycbcr'),
     'or bands, got YCBCR'),
    ('x.tif', lambda p: [tifffile.imwrite(p, np.zeros((size, 8, 3), np.float32), append=size > 4,
                                          photometric='rgb', metadata=None)
                         for size in (4, 8)], 'expected one picture, got 2'),
])
def test_refusals(tmp_path, name, make, message):
    make(tmp_path / name)
    with pytest.raises(ValueError) as info:
        read_raster(tmp_path / name)
    assert message in str(info.value) and name in str(info.value)
    assert '\n' not in str(info.value)


class Bomb:
    """What runs when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, 'w')


@pytest.mark.parametrize('save', [
    lambda path, bomb: path.write_bytes(pickle.dumps(bomb)),
    lambda path, bomb: np.save(path, np.array([[bomb]], object), allow_pickle=True)],
    ids=('pickle', 'array'))
def test_nothing_in_an_array_file_is_run(tmp_path, save):
    save(tmp_path / 'x.npy', Bomb(str(tmp_path / 'ran')))
    with pytest.raises(ValueError, match='x.npy: not a readable image'):
        read_raster(tmp_path / 'x.npy')
    assert not (tmp_path / 'ran').exists()


def test_16_bit_colour_of_pil_alone_would_lose_eight(tmp_path):
    (tmp_path / 'x.png').write_bytes(encode_raster(Raster(values((8, 8, 3), 'uint16')), '.png'))
    with Image.open(tmp_path / 'x.png') as image, pytest.raises(
            ValueError, match='got 16-bit RGB, of which Pillow drops eight bits; expected a PNG'):
        raster_from_pil(image)


def test_integers_of_older_pillows(tmp_path):
    """16-bit grey PNG files that Pillow before 11.3 opens as mode I, of 32 bits."""
    array = values((4, 4), 'uint16')
    Image.fromarray(array).save(tmp_path / 'x.png')
    image = Image.fromarray(array.astype(np.int32))
    image.format = 'PNG'
    raster = raster_from_pil(image)
    assert raster.kind == '16-bit L' and raster.pixels.dtype == np.uint16
    np.testing.assert_array_equal(raster.pixels, array)
    image.info['transparency'] = int(array[1, 2])
    np.testing.assert_array_equal(raster_from_pil(image).alpha,
                                  np.where(array == array[1, 2], 0, 65535))
    image.format = 'TIFF'
    image.tag_v2 = {}
    with pytest.raises(ValueError, match='got signed or 32-bit integers'):
        raster_from_pil(image)


def test_names_of_profiles():
    assert profile_name(None) == 'none' and 'sRGB' in profile_name(PROFILE)
    assert profile_name(PROFILE[:40]) == profile_name(b'') == 'without a name'


def test_truncated_16_bit_png(tmp_path):
    cv2.imwrite(str(tmp_path / 'x.png'), values((64, 64, 3), 'uint16'))
    data = (tmp_path / 'x.png').read_bytes()
    (tmp_path / 'x.png').write_bytes(data[:len(data) // 2])
    with pytest.raises(ValueError, match='x.png: not a readable image'):
        read_raster(tmp_path / 'x.png')


@pytest.mark.parametrize('missing, name, remedy', [
    (['cv2'], 'x.png', 'a 16-bit RGB PNG needs opencv-python, which is not installed: '
     'pip install opencv-python'),
    (['tifffile', 'cv2'], 'x.tif', 'needs tifffile, which is not installed: pip install tifffile'),
])
def test_missing_packages_are_named(tmp_path, monkeypatch, missing, name, remedy):
    array = values((8, 8, 3), 'uint16')
    (tmp_path / name).write_bytes(encode_raster(Raster(array), name[1:]))
    for module in missing:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError) as info:
        read_raster(tmp_path / name)
    assert str(info.value).endswith(remedy) and name in str(info.value)


def test_without_tifffile_opencv_reads_and_writes(tmp_path, monkeypatch):
    array = values((8, 8, 3), 'uint16')
    monkeypatch.setitem(sys.modules, 'tifffile', None)
    (tmp_path / 'x.tif').write_bytes(encode_raster(Raster(array), '.tif'))
    np.testing.assert_array_equal(read_raster(tmp_path / 'x.tif').pixels, array)
    for raster in (Raster(values((8, 8), 'float64')), Raster(values((8, 8, 3), 'float32'))):
        (tmp_path / 'x.tif').write_bytes(encode_raster(raster, '.tif'))
        again = read_raster(tmp_path / 'x.tif')
        np.testing.assert_array_equal(again.pixels, raster.pixels)
        assert again.kind == raster.kind
    place = {33550: (12, (10., 10., 0.))}
    for raster, kind in ((Raster(values((8, 8, 5), 'uint16')), '16-bit with 5 bands'),
                         (Raster(array, values((8, 8), 'uint16')), '16-bit RGBA'),
                         (Raster(array, tags=place), '16-bit RGB')):
        with pytest.raises(ValueError, match=f'a {kind} TIFF needs tifffile'):
            encode_raster(raster, '.tif')


@pytest.mark.parametrize('raster', [Raster(np.zeros((4, 4), np.float32)),
                                    Raster(np.zeros((4, 4, 5), np.uint8))])
def test_what_a_png_cannot_hold(raster):
    with pytest.raises(ValueError, match='a PNG cannot hold .*TIFF can'):
        encode_raster(raster, '.png')


@pytest.mark.parametrize('name, suffix', [('a.TIF', '.TIF'), ('a.npy', '.npy'), ('a.jpg', '.png'),
                                          ('a.b.png', '.png')])
def test_formats_of_outputs(name, suffix):
    assert output_suffix(name) == suffix


def test_one_limit_for_pixels_and_not_that_of_pillow(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
    Image.new('L', (8, 8)).save(tmp_path / 'x.png')
    np.save(tmp_path / 'x.npy', np.zeros((8, 8), np.uint8))
    tifffile.imwrite(tmp_path / 'x.tif', np.zeros((8, 8, 3), np.float32), photometric='rgb')
    for name in ('x.png', 'x.npy', 'x.tif'):
        assert read_raster(tmp_path / name).size == (8, 8)
        assert Image.MAX_IMAGE_PIXELS == 10
    monkeypatch.setenv('MMPD_MAX_PIXELS', '63')
    for name in ('x.png', 'x.npy', 'x.tif'):
        with pytest.raises(ValueError, match=f'{name}: expected at most 63 pixels, got 8x8'):
            read_raster(tmp_path / name)


def test_the_size_of_an_array_is_looked_at_before_there_is_one(tmp_path):
    """A header of 128 bytes, which says 900 million values."""
    np.save(tmp_path / 'x.npy', np.zeros((1, 1), np.uint8))
    data = (tmp_path / 'x.npy').read_bytes()
    (tmp_path / 'x.npy').write_bytes(data.replace(b'(1, 1), }        ', b'(30000, 30000), }'))
    with pytest.raises(ValueError, match='x.npy: (expected at most|not a readable image)'):
        read_raster(tmp_path / 'x.npy')


@pytest.mark.parametrize('how', range(1, 9))
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
@pytest.mark.parametrize('name', ['x.png', 'x.tif', 'x.jpg'])
def test_orientation_is_carried_out_at_any_depth(tmp_path, how, dtype, name):
    """What Pillow makes of the same picture of 8 bits, turned by the same tag."""
    from PIL import ImageOps
    if dtype != 'uint8' and name == 'x.jpg' or dtype == 'float32' and name != 'x.tif':
        pytest.skip('no such file')
    array = np.repeat(np.repeat(np.arange(6, dtype='uint8').reshape(2, 3) * 40, 8, 0), 8, 1)
    array = np.dstack([array, 255 - array, array])
    exif, path = Image.Exif(), tmp_path / name
    exif[0x0112] = how
    Image.fromarray(array).save(tmp_path / 'plain.png', exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / 'plain.png')))
    if dtype == 'uint8':
        Image.fromarray(array).save(path, exif=exif, quality=100, subsampling=0)
    elif name == 'x.tif':
        tifffile.imwrite(path, array.astype(dtype), photometric='rgb',
                         extratags=[(0x0112, 3, 1, how, True)])
    else:
        data = encode_raster(Raster(array.astype(dtype)), '.png').tobytes()
        block = exif.tobytes().removeprefix(b'Exif\0\0')
        chunk = (struct.pack('>I', len(block)) + b'eXIf' + block
                 + struct.pack('>I', zlib.crc32(b'eXIf' + block)))
        path.write_bytes(data[:33] + chunk + data[33:])
    raster = read_raster(path)
    error = np.abs(raster.pixels.astype(float) - expected).max()
    assert error <= (3 if name == 'x.jpg' else 0)
    assert raster.notes == (('turned as its orientation says', ) if how > 1 else ())


@pytest.mark.parametrize('how', range(1, 9))
@pytest.mark.parametrize('dtype', ['uint8', '<u2', '>u2', 'float32'])
def test_grey_tiff_files_that_pillow_maps_are_turned_too(tmp_path, how, dtype):
    """Uncompressed, in one strip: it takes their lines for columns, and says nothing."""
    array = np.arange(20).reshape(4, 5).astype(dtype) * 7
    tifffile.imwrite(tmp_path / 'x.tif', array, byteorder='>' if '>' in dtype else '<',
                     metadata=None, extratags=[(0x0112, 3, 1, how, True)])
    expected = array.T if how > 4 else array
    expected = expected[::-1] if how in (3, 4, 7, 8) else expected
    expected = expected[:, ::-1] if how in (2, 3, 6, 7) else expected
    np.testing.assert_array_equal(read_raster(tmp_path / 'x.tif').pixels, expected)
    if dtype == 'uint8':
        from mmpd.utils.images import picture_size, read_picture
        np.testing.assert_array_equal(read_picture(tmp_path / 'x.tif').pixels, expected)
        assert picture_size(tmp_path / 'x.tif') == expected.shape[::-1]


def test_palettes_are_looked_up_as_the_other_reader_does(tmp_path):
    from mmpd.utils.images import read_picture
    index, path = values((6, 5), 'uint8') % 4, tmp_path / 'x.png'
    image = Image.fromarray(index, 'P')
    image.putpalette(values((4, 3), 'uint8', 1).tobytes())
    for options in ({}, dict(transparency=bytes([0, 128, 255, 255]))):
        image.save(path, **options)
        raster, picture = read_raster(path), read_picture(path)
        np.testing.assert_array_equal(raster.pixels, picture.pixels)
        np.testing.assert_array_equal(raster.alpha, picture.alpha)
        assert raster.notes == picture.notes and 'its palette was looked up' in raster.notes
    Image.fromarray(index > 1).save(path)
    np.testing.assert_array_equal(read_raster(path).pixels, (index > 1) * 255)
