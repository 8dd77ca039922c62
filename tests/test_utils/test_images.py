"""Picture files: what is kept, what is refused, and that nothing is changed on the way."""
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from mmpd.errors import InputError
from mmpd.utils.image_files import read_bytes
from mmpd.utils.images import (
    Picture,
    find_pictures,
    from_pil,
    picture_size,
    read_8bit,
    read_description,
    read_picture,
    saved_images,
    write_picture,
)
from mmpd.utils.rasters import read_raster


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize('shape', [(5, 7), (5, 7, 2), (5, 7, 3), (5, 7, 4), (1, 1), (1, 1, 3)])
@pytest.mark.parametrize('ext', ['png', 'tif', 'webp'])
def test_what_is_written_is_read_back(tmp_path, shape, ext):
    picture, path = Picture.from_array(pixels(*shape)), tmp_path / f'x.{ext}'
    write_picture(picture, path, 'mmpd {"a": 1}')
    again = read_picture(path)
    expected = picture.pixels
    if ext == 'webp' and picture.grey:  # the format has no grey
        expected = np.dstack([expected] * 3)
    assert np.array_equal(again.pixels, expected)
    assert np.array_equal(again.alpha, picture.alpha)
    assert read_description(path) == 'mmpd {"a": 1}' and picture_size(path) == shape[1::-1]
    assert read_description(__file__) is None


def test_palettes_bits_and_colour_keys_are_looked_up(tmp_path):
    index = pixels(6, 5) % 4
    image = Image.fromarray(index, 'P')
    colours = pixels(4, 3, seed=1)
    image.putpalette(colours.tobytes())
    image.save(tmp_path / 'p.png')
    assert np.array_equal(read_picture(tmp_path / 'p.png').as_array(), colours[index])
    image.save(tmp_path / 'p.png', transparency=bytes([0, 128, 255, 255]))
    seen = read_picture(tmp_path / 'p.png')
    assert np.array_equal(seen.pixels, colours[index])
    assert np.array_equal(seen.alpha, np.array([0, 128, 255, 255])[index])
    grey = Image.fromarray(index * 60)
    grey.save(tmp_path / 'key.png', transparency=60)
    seen = read_picture(tmp_path / 'key.png')
    assert np.array_equal(seen.pixels, index * 60)
    assert np.array_equal(seen.alpha, np.where(index == 1, 0, 255))
    Image.fromarray(index > 1).save(tmp_path / 'bits.png')
    assert np.array_equal(read_picture(tmp_path / 'bits.png').pixels, (index > 1) * 255)


@pytest.mark.parametrize('ext', ['jpg', 'png', 'tif'])
def test_orientation_is_carried_out(tmp_path, ext):
    array = np.repeat(np.repeat(pixels(2, 3, 3), 8, 0), 8, 1)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    path = tmp_path / f'x.{ext}'
    Image.fromarray(array).save(path, exif=exif, quality=100, subsampling=0)
    seen = read_picture(path).pixels.astype(int)
    assert np.abs(seen - np.rot90(array, -1)).max() <= (3 if ext == 'jpg' else 0)
    assert picture_size(path) == (16, 24)


def test_a_profile_is_kept(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    Image.fromarray(pixels(4, 4, 3)).save(tmp_path / 'x.png', icc_profile=profile)
    write_picture(read_picture(tmp_path / 'x.png'), tmp_path / 'y.tif')
    assert Image.open(tmp_path / 'y.tif').info['icc_profile'] == profile


def save_apng(path):
    Image.new('RGB', (4, 4)).save(path, save_all=True,
                                  append_images=[Image.new('RGB', (4, 4), 'red')])


def save_16bit_rgb(path):
    import cv2
    cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint16))


@pytest.mark.parametrize('read', [read_8bit, read_picture])
def test_planes_of_16_bits_are_refused_too(tmp_path, read):
    """Pillow takes them for 8 bits, and the pixels are nonsense."""
    tifffile = pytest.importorskip('tifffile')
    tifffile.imwrite(tmp_path / 'x.tif', np.zeros((3, 8, 8), np.uint16), photometric='rgb',
                     planarconfig='separate')
    with pytest.raises(ValueError, match='x.tif: expected .*16.bit'):
        read(tmp_path / 'x.tif')


def save_truncated(path):
    Image.fromarray(pixels(64, 64, 3)).save(path)
    path.write_bytes(path.read_bytes()[:2000])


REFUSED = {
    'text.png': (lambda path: path.write_text('no image'), 'not a readable image .of no known'),
    'empty.png': (lambda path: path.write_bytes(b''), 'not a readable image .of no known'),
    'cut.png': (save_truncated, 'not a readable image'),
    'cmyk.jpg': (lambda path: Image.new('CMYK', (4, 4)).save(path),
                 'expected grey or RGB, with or without alpha, got CMYK'),
    'lab.tif': (lambda path: Image.new('LAB', (4, 4)).save(path), 'got LAB'),
    'deep.png': (lambda path: Image.fromarray(np.zeros((4, 4), np.uint16)).save(path),
                 'expected 8 bits per channel, got 16 bits'),
    'deeprgb.png': (save_16bit_rgb, 'expected 8 bits per channel, got 16 bits'),
    'deeprgb.tif': (save_16bit_rgb, 'expected 8 bits per channel, got 16 bits'),
    'float.tif': (lambda path: Image.new('F', (4, 4)).save(path), 'got floating point'),
    'moving.png': (save_apng, 'expected one picture, got 2 frames'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_refused(tmp_path, name):
    save, message = REFUSED[name]
    save(tmp_path / name)
    with pytest.raises(ValueError, match=message) as caught:
        read_picture(tmp_path / name)
    assert name in str(caught.value) and '\n' not in str(caught.value)


def test_alpha_is_not_what_read_8bit_is_for(tmp_path):
    for mode in ('LA', 'RGBA'):
        Image.new(mode, (4, 4)).save(tmp_path / 'x.png')
        with pytest.raises(ValueError, match=f'x.png: expected 8-bit .*, got mode {mode}$'):
            read_8bit(tmp_path / 'x.png')
    Image.new('L', (4, 6)).save(tmp_path / 'x.png')
    array = read_8bit(tmp_path / 'x.png')
    assert array.shape == (6, 4) and array.flags.writeable


def test_more_bytes_than_pixels_can_have_are_not_read(tmp_path, monkeypatch):
    (tmp_path / 'x.png').write_bytes(bytes(4 * 100 + (1 << 20)))
    monkeypatch.setenv('MMPD_MAX_PIXELS', '100')
    assert len(read_bytes(tmp_path / 'x.png')) == 400 + (1 << 20)
    monkeypatch.setenv('MMPD_MAX_PIXELS', '99')
    with pytest.raises(ValueError, match=r'expected at most 1048972 bytes, got 1048976'):
        read_bytes(tmp_path / 'x.png')
    monkeypatch.setenv('MMPD_MAX_PIXELS', 'none')
    assert read_bytes(tmp_path / 'x.png')
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(ValueError, match='got a named pipe'):
        read_bytes(tmp_path / 'pipe')


def test_what_the_visualizer_saved(tmp_path):
    for time, step in ((1, 0), (2, 5)):
        folder = tmp_path / f'run/{time}/vis_data/vis_image'
        folder.mkdir(parents=True)
        for stem in ('a_b', 'c'):
            (folder / f'{stem}_{step}.png').touch()
    assert saved_images(tmp_path) == {'a_b': folder / 'a_b_5.png', 'c': folder / 'c_5.png'}
    (folder / 'c_5.png').unlink()  # what only an older test saw is not of the newest
    (folder / 'a_b_10.png').touch()
    assert saved_images(tmp_path) == {'a_b': folder / 'a_b_10.png'}


def test_more_pixels_than_allowed_are_refused_from_the_header(tmp_path, monkeypatch):
    """A file of 60 bytes that says 30,000 x 30,000: no decoder is asked."""
    def chunk(name, data):
        return (struct.pack('>I', len(data)) + name + data
                + struct.pack('>I', zlib.crc32(name + data)))
    path = tmp_path / 'x.png'
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(
        b'IHDR', struct.pack('>IIBBBBB', 30000, 30000, 8, 2, 0, 0, 0)) + chunk(b'IDAT', b''))
    monkeypatch.setattr(ImageFile.ImageFile, 'load', lambda *_: pytest.fail('decoded'))
    for read in (read_8bit, read_picture, picture_size):
        with pytest.raises(ValueError, match='x.png: expected at most 268435456 pixels, got '
                           '30000x30000 .*MMPD_MAX_PIXELS'):
            read(path)
    monkeypatch.setenv('MMPD_MAX_PIXELS', 'none')
    assert picture_size(path) == (30000, 30000)
    monkeypatch.setenv('MMPD_MAX_PIXELS', '-3')
    with pytest.raises(InputError, match='MMPD_MAX_PIXELS: expected a positive integer or none'):
        picture_size(path)


def test_the_limit_holds_for_threads_and_leaves_that_of_pillow(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
    Image.fromarray(pixels(64, 64, 3)).save(tmp_path / 'x.png')
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(read_picture, [tmp_path / 'x.png'] * 40))
    assert len(seen) == 40 and Image.MAX_IMAGE_PIXELS == 10


def damaged(path):
    """One bit of the pixels of a PNG is wrong: neither Pillow nor OpenCV says so."""
    Image.fromarray(pixels(32, 32, 3)).save(path, compress_level=0)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def cut_at_its_end(path):
    Image.fromarray(pixels(32, 32, 3)).save(path)
    path.write_bytes(path.read_bytes()[:-12])


def other_format(path):
    """Pillow would start Ghostscript."""
    path.write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n')


@pytest.mark.parametrize('make, message', [
    (damaged, 'the checksum of its part IDAT is wrong'),
    (cut_at_its_end, 'truncated: its end is missing'), (other_format, 'of no known format'),
    (os.mkfifo, 'expected a file, got a named pipe'), (os.mkdir, 'expected a file, got a folder'),
    (lambda path: path.symlink_to(path), 'Too many levels of symbolic links'),
    (lambda path: path.symlink_to('/dev/zero'), 'expected a file, got a device'),
    (lambda path: path.symlink_to('nowhere'), 'No such file or directory'),
])
def test_what_is_no_sound_file_is_said_at_once(tmp_path, make, message):
    path = tmp_path / 'x.png'
    make(path)
    for read in (read_8bit, read_picture, read_raster):
        with pytest.raises(ValueError, match=f'x.png: .*{message}'):
            read(path)
    assert find_pictures(tmp_path)[0] == [(path, Path('x.png'))]  # named, not passed over


def test_names_stay_in_one_line(tmp_path):
    path = tmp_path / 'a\nerror: b.png'
    path.write_bytes(b'')
    with pytest.raises(ValueError) as caught:
        read_picture(path)
    assert '\n' not in str(caught.value) and 'a\\nerror: b.png' in str(caught.value)


def test_what_was_done_is_noted(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(pixels(4, 6)).convert('P').save(tmp_path / 'x.png', exif=exif,
                                                   transparency=bytes([0, 9]))
    picture = read_picture(tmp_path / 'x.png')
    assert picture.notes == ('turned as its orientation says', 'its palette was looked up',
                             'what it calls transparent became alpha')
    rgb, notes = picture.as_rgb()
    assert rgb.shape == (6, 4, 3) and notes == (*picture.notes, 'its alpha was left out')
    rgb, notes = Picture(pixels(2, 3)).as_rgb()
    assert notes == ('grey became RGB', ) and (rgb == pixels(2, 3)[..., None]).all()
    Image.fromarray(pixels(4, 6, 3)).save(tmp_path / 'y.png')
    assert read_picture(tmp_path / 'y.png').as_rgb()[1] == ()


def test_an_offset_with_16_in_it_is_no_depth(tmp_path):
    """Pillow's tile of a compressed TIFF holds an offset, e.g. 216."""
    path = tmp_path / 'x.tif'
    for width in range(1, 400):
        array = pixels(1, width, 3)
        Image.fromarray(array).save(path, compression='tiff_lzw')
        with Image.open(path) as image:
            if '16' in str(image.tile[0][3]):
                break
    else:
        raise AssertionError('no such file was made')
    assert np.array_equal(read_8bit(path), array) and np.array_equal(
        read_picture(path).pixels, array)


def test_arrays_and_pil_images():
    for shape in ((3, 4, 5), (3,), (0, 4, 3), (2, 3, 4, 3)):
        with pytest.raises(ValueError, match='expected uint8 of shape'):
            Picture.from_array(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match='got float32 of shape'):
        Picture.from_array(np.zeros((4, 4), np.float32))
    array = pixels(4, 5, 4)
    assert np.array_equal(from_pil(Image.fromarray(array)).as_array(), array)
    with pytest.raises(ValueError, match='got CMYK'):
        from_pil(Image.new('CMYK', (4, 4)))


def test_pictures_are_found_in_order_with_their_names(tmp_path):
    for name in ('b.png', 'a.JPG', 'notes.txt', '.hidden.png', 'sub/c.webp', 'sub/deep/d.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()

    def names(source, **kwargs):
        found, others = find_pictures(source, **kwargs)
        assert all(path.is_file() for path, _ in found)
        return [name.as_posix() for _, name in found], others

    assert names(tmp_path) == (['a.JPG', 'b.png'], 1)
    assert names(tmp_path, recursive=True) == (
        ['a.JPG', 'b.png', 'sub/c.webp', 'sub/deep/d.png'], 1)
    assert names(tmp_path / 'notes.txt') == (['notes.txt'], 0)
    assert names(str(tmp_path / '**/*.png')) == (['b.png', 'sub/deep/d.png'], 0)
    assert names(str(tmp_path / 'sub/*/*.png')) == (['deep/d.png'], 0)
    (tmp_path / 'empty').mkdir()
    for source, message in ((tmp_path / 'empty', 'found none .its folders were not'),
                            (tmp_path / 'x', 'no such file'), (tmp_path / '*.bmp', 'found none$')):
        with pytest.raises(ValueError, match=message):
            find_pictures(source)
