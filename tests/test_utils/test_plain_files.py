"""OpenCV reads ordinary files, and those alone."""
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mmpd.utils.plain_files import decode_plain, decode_plain_png

GT = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def chunk(name, data):
    return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))


def png(*chunks, rows=None, header=(32, 24, 8, 2, 0, 0, 0)):
    """A file with further parts before the pixels."""
    rows = b''.join(b'\0' + row.tobytes() for row in GT) if rows is None else rows
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', *header)) + b''.join(
        chunks) + chunk(b'IDAT', rows if rows[:1] == b'x' else zlib.compress(rows)) + chunk(
            b'IEND', b'')


@pytest.mark.parametrize('data', [
    png(), png() + b'behind', png(chunk(b'gAMA', struct.pack('>I', 45455))),
    png(chunk(b'tEXt', b'Comment\0x'), chunk(b'pHYs', struct.pack('>IIB', 1, 1, 0)))])
def test_ordinary_files_give_the_pixels_that_pillow_gives(tmp_path, data):
    (tmp_path / 'a.png').write_bytes(data)
    expected = np.asarray(Image.open(tmp_path / 'a.png'))
    np.testing.assert_array_equal(expected, GT)
    np.testing.assert_array_equal(decode_plain_png(data)[..., ::-1], GT)


@pytest.mark.parametrize('name, data', {
    'no PNG': b'', 'end missing': png()[:-12], 'cut': png()[:-40],
    'checksum': png()[:-14] + bytes([png()[-14] ^ 1]) + png()[-13:],
    'pixels missing': png(rows=zlib.compress(bytes(97 * 10))),
    'no pixels': png(rows=b'x'), 'transparency': png(chunk(b'tRNS', bytes(6))),
    'orientation': png(chunk(b'eXIf', b'MM\0*\0\0\0\x08\0\0')),
    'profile': png(chunk(b'iCCP', b'x\0\0' + zlib.compress(b''))),
    'animation': png(chunk(b'acTL', struct.pack('>II', 2, 0))),
    'interlaced': png(header=(32, 24, 8, 2, 0, 0, 1)), '16 bits': png(header=(32, 24, 16, 2, 0, 0,
                                                                             0)),
    'alpha': cv2.imencode('.png', np.zeros((4, 4, 4), np.uint8))[1].tobytes(),
    'grey': cv2.imencode('.png', np.zeros((4, 4), np.uint8))[1].tobytes()}.items())
def test_everything_else_is_left_to_the_general_reader(name, data):
    assert decode_plain_png(data) is None, name


def lossy(kind, image=GT, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize('data', [
    lossy('JPEG'), lossy('JPEG', quality=95, subsampling=0), lossy('JPEG', progressive=True),
    lossy('JPEG', comment=b'x', restart_marker_blocks=1), lossy('WEBP'),
    lossy('WEBP', quality=95), cv2.imencode('.jpg', GT)[1].tobytes(),
    cv2.imencode('.webp', GT, [cv2.IMWRITE_WEBP_QUALITY, 80])[1].tobytes(), png()])
def test_ordinary_lossy_files_give_the_pixels_that_pillow_gives(data):
    expected = np.asarray(Image.open(io.BytesIO(data)).convert('RGB'))
    np.testing.assert_array_equal(decode_plain(data)[..., ::-1], expected)


def cmyk():
    file = io.BytesIO()
    Image.fromarray(GT).convert('CMYK').save(file, 'JPEG')
    return file.getvalue()


def with_exif():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize('name, data', {
    'cut JPEG': lossy('JPEG')[:-2], 'short JPEG': lossy('JPEG')[:60],
    'orientation': lossy('JPEG', exif=with_exif()), 'grey JPEG': lossy('JPEG', GT[..., 0]),
    'CMYK': cmyk(),
    'cut WebP': lossy('WEBP')[:-2], 'WebP with more behind': lossy('WEBP') + b'xx',
    'lossless WebP': lossy('WEBP', lossless=True), 'WebP with EXIF': lossy('WEBP',
                                                                          exif=with_exif()),
    'WebP with alpha': lossy('WEBP', np.dstack([GT, GT[..., 0]])), 'nothing': b''}.items())
def test_other_lossy_files_are_left_to_the_general_reader(name, data):
    assert decode_plain(data) is None, name


def test_the_limit_of_pixels_holds(monkeypatch):
    monkeypatch.setenv('MMPD_MAX_PIXELS', str(32 * 24))
    assert decode_plain_png(png()) is not None
    monkeypatch.setenv('MMPD_MAX_PIXELS', str(32 * 24 - 1))
    assert decode_plain_png(png()) is None
    assert decode_plain(lossy('JPEG')) is None and decode_plain(lossy('WEBP')) is None


def test_the_loader_gives_the_same_either_way(tmp_path, monkeypatch):
    from mmpd.datasets.transforms import loading
    info = PngImagePlugin.PngInfo()
    info.add_text('Comment', 'x')
    Image.fromarray(GT).save(tmp_path / 'a.png', pnginfo=info)
    for order in ('rgb', 'bgr'):
        load = loading.LoadImageFromFile(key='gt', channel_order=order)
        fast = load(dict(gt_path=str(tmp_path / 'a.png')))['gt']
        with monkeypatch.context() as patch:
            patch.setattr(loading, 'decode_plain_png', lambda data: None)
            slow = load(dict(gt_path=str(tmp_path / 'a.png')))['gt']
        np.testing.assert_array_equal(fast, slow)
        np.testing.assert_array_equal(fast, GT if order == 'rgb' else GT[..., ::-1])
        assert fast.flags.c_contiguous and fast.flags.writeable


@pytest.mark.parametrize('data', [png()[:-14] + bytes([png()[-14] ^ 1]) + png()[-13:],
                                  lossy('JPEG')[:-2], lossy('WEBP')[:-2]])
def test_damage_is_seen_before_opencv_decodes(monkeypatch, data):
    """Some of its versions pass over it."""
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: np.zeros((24, 32, 3), np.uint8))
    assert decode_plain(data) is None
    assert decode_plain(png()) is not None
