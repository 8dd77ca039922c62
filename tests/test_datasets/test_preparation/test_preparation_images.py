"""What is decoded, and the square that is cut out of it."""
import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image
from raw_images import encode, picture, run

from mmpd.datasets.preparation import Recipe, open_source, prepare
from mmpd.datasets.preparation.images import BadImage, decode, square

pytestmark = pytest.mark.usefixtures('one_process')


def test_a_png_with_bytes_behind_its_end_is_whole(tmp_path):
    root = tmp_path / 'png'
    root.mkdir()
    (root / 'more.png').write_bytes(encode(picture(0)) + b'x' * 5000)
    (root / 'less.png').write_bytes(encode(picture(0))[:-12])
    manifest = prepare(open_source(root), tmp_path / 'out', Recipe(32), 1, progress=False)
    assert list(manifest['gt_sha256']) == ['more'] and manifest['bad'] == 1


def test_tiff_files_are_images(tmp_path, capsys):
    root = tmp_path / 'raw'
    root.mkdir()
    Image.fromarray(picture(0)).save(root / 'a.tif')
    assert run('ffhq', root, '--out', tmp_path / 'out', '--size', 32) == 0
    np.testing.assert_array_equal(Image.open(tmp_path / 'out' / 'GT' / 'a.png'), picture(0))
    (root / 'a.tif').rename(root / 'a.gif')
    assert run('ffhq', root, '--out', tmp_path / 'o', '--size', 32) == 2
    assert 'raw, expected .png, .jpg' in capsys.readouterr().err


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


def test_arrays_with_either_kind_of_header_are_read():
    image = picture(0)
    for version in ((1, 0), (2, 0)):
        file = io.BytesIO()
        np.lib.format.write_array(file, image[..., ::-1].transpose(2, 0, 1), version)
        pixels, notes = decode(file.getvalue(), 'A.NPY')
        np.testing.assert_array_equal(pixels, image)
        assert notes == ()


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
