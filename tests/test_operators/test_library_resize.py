"""8-bit images that the library which made the LR degrades to it, to the last bit."""
import sys
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from skimage import data

from mmpd.operators import (
    CEM,
    AveragePooling,
    SeparableResize,
    consistent_uint8,
    row_refinement,
)
from mmpd.operators.library_resize import LIBRARIES, METHODS, LibraryResize

CASES = [(made_by, kernel, antialias) for made_by, methods in METHODS.items()
         for kernel, antialias in methods]


def batch(array):
    """(H, W, C) uint8 -> (1, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))[None]


def as_users_call_it(array, scale, made_by, kernel, antialias):
    """(H, W, 3) uint8 -> (h, w, 3) uint8, by the library's own resizing of a whole picture."""
    size = array.shape[1] // scale, array.shape[0] // scale
    method = METHODS[made_by][kernel, antialias]
    if made_by == 'pil':
        return np.asarray(Image.fromarray(array).resize(size, getattr(Image.Resampling, method)))
    if made_by == 'opencv':
        cv2 = pytest.importorskip('cv2')
        return cv2.resize(array, size, interpolation=getattr(cv2, method))
    if made_by == 'matlab':  # an explicit mirror instead of a folded matrix
        pad = 4 * scale
        wide = np.pad(array.astype(np.float64), ((pad, pad), (pad, pad), (0, 0)), 'symmetric')
        small = SeparableResize(scale, kernel).A(batch(wide))[0].permute(1, 2, 0).numpy()
        return np.floor(small[4:-4, 4:-4].clip(0, 255) + 0.5).astype(np.uint8)
    image = batch(array)
    options = {} if method in ('area', 'nearest-exact') else dict(antialias=antialias)
    if made_by == 'torch_uint8':
        small = F.interpolate(image, size=size[::-1], mode=method, **options)
    else:
        small = F.interpolate(image.float(), size=size[::-1], mode=method, **options)
        small = small.clamp(0, 255).round().to(torch.uint8)
    return small[0].permute(1, 2, 0).numpy()


def guess(lr, scale):
    """An SR image as networks make it: sharpened, overshooting, not consistent."""
    size = lr.shape[1] * scale, lr.shape[0] * scale
    wide = Image.fromarray(lr).resize(size, Image.Resampling.BICUBIC)
    return batch(np.asarray(wide.filter(ImageFilter.UnsharpMask(scale, 150, 0)))).float()


def crop(name, side, top=0, left=0):
    return np.ascontiguousarray(getattr(data, name)()[top:top + side, left:left + side])


@pytest.mark.parametrize('made_by, kernel, antialias', CASES)
def test_is_what_the_library_makes_of_a_picture(made_by, kernel, antialias):
    picture = crop('astronaut', 96, 0, 150)[:, :72]
    picture = picture // 128 * 255  # hard edges overshoot in between
    expected = as_users_call_it(picture, 4, made_by, kernel, antialias)
    border = 'mirror' if made_by == 'matlab' else 'library'
    library = LibraryResize(SeparableResize(4, kernel, antialias, border), made_by)
    assert torch.equal(library(batch(picture)), batch(expected))
    both = torch.cat([batch(picture), batch(picture).flip(1)])
    assert torch.equal(library(both), torch.cat([batch(expected), batch(expected).flip(1)]))


@pytest.mark.parametrize('made_by, kernel, antialias', CASES)
@pytest.mark.parametrize('memory', (torch.contiguous_format, torch.channels_last))
def test_lrs_of_one_pixel(made_by, kernel, antialias, memory):
    """PyTorch 2.15 stops at an internal assertion for 3 or 4 planes of uint8."""
    border = 'mirror' if made_by == 'matlab' else 'library'
    for scale in (1, 5, 8):
        library = LibraryResize(SeparableResize(scale, kernel, antialias, border), made_by)
        for n, channels in ((1, 1), (1, 2), (1, 3), (1, 4), (2, 3), (3, 4)):
            image = torch.randint(0, 256, (n, channels, scale, scale), dtype=torch.uint8)
            planes = [library(image[:, c:c + 1].clone()) for c in range(channels)]
            assert torch.equal(library(image.contiguous(memory_format=memory)),
                               torch.cat(planes, 1))


@pytest.mark.parametrize('made_by, kernel, antialias', CASES)
@pytest.mark.parametrize('scale', (2, 4))
def test_the_library_gives_the_lr_back(made_by, kernel, antialias, scale):
    picture = crop('astronaut', 160, 0, 120)  # with saturated black and white
    lr = as_users_call_it(picture, scale, made_by, kernel, antialias)
    border = 'mirror' if made_by == 'matlab' else 'library'
    operator = SeparableResize(scale, kernel, antialias, border)
    result, unmatched = consistent_uint8(guess(lr, scale), batch(lr), operator, made_by=made_by,
                                         return_unmatched=True)
    written = np.ascontiguousarray(result[0].permute(1, 2, 0).numpy())
    again = as_users_call_it(written, scale, made_by, kernel, antialias)
    assert unmatched == (again != lr).sum() == 0


@pytest.mark.parametrize('made_by, kernel, antialias', CASES)
@pytest.mark.parametrize('scale', (2, 3))
def test_parts_of_a_picture_are_resized_again(monkeypatch, made_by, kernel, antialias, scale):
    """Windows that change, also at corners and borders: as if the whole were resized."""
    monkeypatch.setattr(row_refinement, 'PARTS', 1e9)
    border = 'mirror' if made_by == 'matlab' else 'library'
    operator = SeparableResize(scale, kernel, antialias, border)
    library = LibraryResize(operator, made_by)
    random = np.random.default_rng(0)
    image = torch.from_numpy(random.integers(0, 256, (2, 3, 28 * scale, 31 * scale), np.uint8))
    before = library(image).contiguous()
    matrices = operator._factors('A', *image.shape[-2:], torch.zeros(()))
    (top, height), (left, width) = (
        (start, weights.shape[1]) for start, weights in map(row_refinement._taps, matrices))
    places = [(0, 0, 0, 0), (1, 2, 27, 30), (0, 1, 0, 15), (0, 1, 13, 30), (1, 0, 0, 15),
              (1, 0, 15, 17), (0, 2, 20, 4), (0, 2, 13, 15)]
    for n, c, i, j in places:
        window = image[n, c, top[i]:top[i] + height, left[j]:left[j] + width]
        window.copy_(torch.from_numpy(random.integers(0, 256, window.shape, np.uint8)))
    changed = torch.tensor([((n * 3 + c) * 28 + i) * 31 + j for n, c, i, j in places])
    again = before.clone()
    for some in changed[:4], changed[4:7], changed[7:]:  # borders alone, both, the interior alone
        again = row_refinement._resize_parts(library, image, again, some, max(height, width))
    assert torch.equal(again, library(image)) and not torch.equal(again, before)


def test_the_whole_is_the_proof(monkeypatch):
    """Where parts seem to fit, or are the last that was looked at, the whole decides."""
    operator = SeparableResize(2, 'lanczos')
    lr = torch.randint(100, 150, (1, 1, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    image = F.interpolate(lr.float(), scale_factor=2)
    library, sizes = LibraryResize(operator, 'pil'), []
    monkeypatch.setattr(row_refinement, 'MANY', 1e9)
    but_two = lr.clone()
    but_two[0, 0, 3, 3:5] += 1
    for seen in (lr, but_two):
        monkeypatch.setattr(row_refinement, '_resize_parts',
                            lambda *a, seen=seen: sizes.append(1) or seen.clone())
        result, unmatched = consistent_uint8(image, lr, operator, 3, True, 'pil')
        assert sizes and unmatched == (library(result) != lr).sum()


@pytest.mark.parametrize('name, scale, kernel', (
    ('astronaut', 4, 'bicubic'), ('coffee', 2, 'bicubic'), ('astronaut', 8, 'lanczos')))
def test_pil_rounds_between_its_passes(name, scale, kernel):
    """One rounding of A x is another LR."""
    picture = crop(name, 256)
    lr = as_users_call_it(picture, scale, 'pil', kernel, True)
    operator, image = SeparableResize(scale, kernel), guess(lr, scale)
    unmatched = [(LibraryResize(operator, 'pil')(consistent_uint8(
        image, batch(lr), operator, made_by=made_by)) != batch(lr)).sum().item()
        for made_by in ('pil', None)]
    assert unmatched[0] == 0
    assert unmatched[1] > 20


def test_average_pooling_by_pil_is_rounded_twice():
    """BOX rounds the rows first, so patches of the right mean are not enough."""
    picture = crop('coffee', 128, 100, 200)
    lr = as_users_call_it(picture, 4, 'pil', 'box', True)
    operator, library = AveragePooling(4), LibraryResize(AveragePooling(4), 'pil')
    exact = consistent_uint8(guess(lr, 4), batch(lr), operator)
    assert (library(exact) != batch(lr)).sum() > 50
    result, unmatched = consistent_uint8(guess(lr, 4), batch(lr), operator, made_by='pil',
                                         return_unmatched=True)
    assert unmatched == 0 and torch.equal(library(result), batch(lr))
    # where the library rounds once, the exact patches are the answer
    for made_by in ('opencv', 'torch', 'matlab'):
        assert torch.equal(consistent_uint8(guess(lr, 4), batch(lr), operator, made_by=made_by),
                           exact)


def checkerboard():
    return (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 255


def noise(levels):
    seed = torch.Generator().manual_seed(0)
    return torch.randint(0, levels, (16, 16), generator=seed) * (255 // (levels - 1))


@pytest.mark.parametrize('lr', (checkerboard(), noise(2), noise(256)),
                         ids=('checkerboard', 'black and white', 'all levels'))
def test_what_the_library_cannot_make_is_counted(lr):
    lr, operator = lr[None, None].byte(), SeparableResize(4)
    image = torch.full((1, 1, 4 * lr.shape[2], 4 * lr.shape[3]), 128.0)
    result, unmatched = consistent_uint8(image, lr, operator, made_by='pil', return_unmatched=True)
    assert unmatched == (LibraryResize(operator, 'pil')(result) != lr).sum() > 0
    # of all iterates it is the best one
    for iterations in (0, 1, 2, 5):
        _, fewer = consistent_uint8(image, lr, operator, iterations, True, 'pil')
        assert unmatched <= fewer


@pytest.mark.parametrize('channels', (1, 2, 3, 4))
@pytest.mark.parametrize('method', ('bicubic', 'box'))
def test_pil_takes_each_channel_for_itself_in_any_memory(channels, method):
    """Four are not a picture with alpha, which PIL would multiply by it."""
    image = torch.randint(0, 256, (2, channels, 16, 24), dtype=torch.uint8,
                          generator=torch.Generator().manual_seed(0))
    library = LibraryResize(SeparableResize(4, method), 'pil')
    planes = [[np.asarray(Image.fromarray(plane.numpy()).resize((6, 4), getattr(
        Image.Resampling, method.upper()))) for plane in one] for one in image]
    for memory in (torch.contiguous_format, torch.channels_last):
        result = library(image.contiguous(memory_format=memory))
        assert torch.equal(result, torch.from_numpy(np.array(planes)))


@pytest.mark.parametrize('made_by', ('torch', 'opencv', 'matlab'))
@pytest.mark.parametrize('most', (255, 65535))
def test_values_stay_within_the_range(made_by, most):
    """Edges overshoot; 16 bits are int32."""
    antialias = made_by == 'matlab'
    operator = SeparableResize(2, 'bicubic', antialias, 'mirror' if antialias else 'library')
    image = torch.zeros(1, 1, 8, 16, dtype=torch.uint8 if most == 255 else torch.int32)
    image[..., 4:9] = most
    image[..., 12] = 7
    result = LibraryResize(operator, made_by, most)(image)
    assert result.dtype == image.dtype and result.shape == (1, 1, 4, 8)
    exact = operator.A(image.double())
    assert exact.min() < -1 and exact.max() > most + 1
    apart = (result - exact.clamp(0, most)).abs().max()
    assert apart <= 0.5 + 1e-6 * most + (made_by == 'opencv')


@pytest.mark.parametrize('made_by, method, between', [
    ('pil', 'bicubic', True), ('pil', 'nearest', False), ('torch_uint8', 'bicubic', True),
    ('torch', 'bicubic', False), ('opencv', 'area', False)])
def test_who_rounds_between_the_passes(made_by, method, between):
    operator = SeparableResize(4, 'bicubic' if method == 'bicubic' else 'box', method != 'nearest')
    assert LibraryResize(operator, made_by).rounds_between == between


def test_eight_bits_only():
    for made_by in ('pil', 'torch_uint8'):
        assert LibraryResize(SeparableResize(4), made_by, 255).most == 255
        with pytest.raises(ValueError, match='resizes 8 bits only; for 16 bits expected one of '
                                             'float, torch, opencv, matlab'):
            LibraryResize(SeparableResize(4), made_by, 256)
    LibraryResize(SeparableResize(4, 'box', border='mirror'), 'pil')  # it looks at no border


def test_grey_pictures_and_batches():
    lr = batch(as_users_call_it(crop('coffee', 64), 4, 'pil', 'bicubic', True))
    image = guess(lr[0].permute(1, 2, 0).numpy(), 4)
    lr, image = lr[0, :, None], image[0, :, None]  # three grey pictures
    operator = SeparableResize(4)
    result, unmatched = consistent_uint8(image, lr, operator, made_by='pil', return_unmatched=True)
    assert unmatched == 0 and torch.equal(LibraryResize(operator, 'pil')(result), lr)


@pytest.mark.parametrize('made_by, operator, message', (
    ('photoshop', SeparableResize(4), "expected one of float, pil, torch.*got 'photoshop'"),
    ('pil', SeparableResize(4, antialias=False), "made_by='pil' has no Separable.*it has bicubic"),
    ('pil', SeparableResize(4, border='mirror'), "with border='library'"),
    ('matlab', SeparableResize(4), "with border='mirror'"),
    ('torch', SeparableResize(4, 'lanczos'), "made_by='torch' has no"),
    ('opencv', SeparableResize(4), r'it has bicubic \(alias\)'),
    ('pil', CEM(4), 'expected SeparableResize or AveragePooling as the operator, got CEM')))
def test_refuses_what_the_library_does_not_have(made_by, operator, message):
    with pytest.raises(ValueError, match=message):
        consistent_uint8(torch.rand(1, 1, 16, 16), torch.zeros(1, 1, 4, 4), operator,
                         made_by=made_by)
    assert len(LIBRARIES) == 6


def test_says_that_opencv_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv2', None)
    with pytest.raises(ValueError, match="made_by='opencv' needs OpenCV"):
        LibraryResize(AveragePooling(4), 'opencv')


def test_fast_enough():
    """1024² by PIL within some seconds of processor time."""
    picture = np.asarray(Image.fromarray(data.astronaut()).resize((1024, 1024)))
    lr = as_users_call_it(picture, 4, 'pil', 'bicubic', True)
    image, start = guess(lr, 4), time.process_time()
    _, unmatched = consistent_uint8(image, batch(lr), SeparableResize(4), made_by='pil',
                                    return_unmatched=True)
    assert unmatched == 0 and time.process_time() - start < 10
