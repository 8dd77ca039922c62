"""Panels: what is drawn where, checked pixel by pixel."""
import cv2
import numpy as np
import pytest

from mmpd.operators import AveragePooling
from mmpd.visualization import (
    comparison_panel,
    decomposition_panel,
    error_map,
    panels,
    stack_panels,
)
from mmpd.visualization.panels import MARGIN, display_size, fit


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    lr = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    gt = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return lr, gt


def contains(picture, part):
    """Whether ``part`` appears in ``picture`` exactly."""
    score = cv2.matchTemplate(picture, part, cv2.TM_SQDIFF)
    y, x = np.unravel_index(score.argmin(), score.shape)
    return (picture[y:y + part.shape[0], x:x + part.shape[1]] == part).all()


def test_error_map_is_the_colour_map_of_five_times_the_error():
    a = np.full((4, 4, 3), 100, np.uint8)
    table = cv2.cvtColor(cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None],
                                           cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)[:, 0]
    assert (error_map(a, a) == table[0]).all()
    assert (error_map(a, a + 20) == table[100]).all()
    assert (error_map(a + 20, a) == table[100]).all()  # no wrap-around of uint8
    assert (error_map(a, a + 20, gain=2) == table[40]).all()
    assert (error_map(a, a + 100) == table[255]).all()  # saturates
    one_channel = a.copy()
    one_channel[..., 0] += 30
    assert (error_map(a, one_channel) == table[50]).all()
    assert (error_map(np.full(a.shape, np.nan), a) == table[255]).all()


def test_comparison_shows_every_image_and_error_map(images):
    lr, gt = images
    result = (gt // 2 + 40).astype(np.uint8)
    picture = comparison_panel({'LR': lr, 'GLEAN': result}, gt)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    for image in (lr, result, gt, error_map(result, gt)):
        assert contains(picture, fit(image, (192, 192)))
    assert not contains(picture, fit(error_map(gt, gt), (192, 192)))
    assert (comparison_panel({'LR': lr, 'GLEAN': result}, gt, gain=2).shape == picture.shape)
    assert (comparison_panel({'LR': lr, 'GLEAN': result}, gt, gain=2) != picture).any()
    assert comparison_panel({'LR': lr, 'GLEAN': result}).shape[0] < picture.shape[0]


def test_titles_are_drawn_and_shrunk_to_fit(images):
    lr, gt = images
    short, long = (comparison_panel({title: gt}) for title in ('A', 'a' * 60))
    strip = slice(0, 25)
    assert (short[strip] < 128).any() and (long[strip] != short[strip]).any()
    assert (long[strip, 192 + MARGIN:] == 255).all()


@pytest.mark.parametrize('size, enlarged', [
    ((8, 8), True), ((4, 8), True), ((8, 4), True), ((4, 4), True), ((2, 4), False),
    ((4, 2), False), ((8, 2), False), ((2, 8), False)])
def test_pixels_are_repeated_or_averaged(size, enlarged):
    """Columns of 0 and 200 in rows that darken; nothing between them is made up."""
    image = np.zeros((4, 4, 3), np.uint8)
    image[:, 1::2] = np.array([200, 200, 100, 100])[:, None, None]
    shown = fit(image, size)
    assert shown.shape == (*size, 3)
    if enlarged:
        np.testing.assert_array_equal(
            shown, image.repeat(size[0] // 4, 0).repeat(size[1] // 4, 1))
    elif size[1] == 2:
        assert {50, 100} <= {*np.unique(shown)} and 200 not in shown
    else:
        assert shown.max() == 200 and size[0] == 2


@pytest.mark.parametrize('text, width, expected', [
    ('x', 100, 20), ('x' * 200, 100, 6), ('error of GLEAN', 60, None)])
def test_text_is_centred_black_and_as_large_as_fits(monkeypatch, text, width, expected):
    sizes, load = [], panels.ImageFont.load_default
    monkeypatch.setattr(panels.ImageFont, 'load_default',
                        lambda size: (sizes.append(size), load(size))[1])
    image = np.full((90, 160, 3), 255, np.uint8)
    drawn = panels._text(image, text, 80, 40, width, 20)
    assert image.min() == 255  # a copy
    ink = drawn[..., 0] < 128
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    assert (drawn == drawn[..., :1]).all() and (text != 'x' or drawn.min() == 0)
    assert abs(rows.mean() - 50) < 3 and abs(columns.mean() - 79.5) < 2
    assert 20 == sizes[0] >= sizes[-1] == min(sizes)
    if expected:
        assert sizes[-1] == expected
    else:  # one more would not
        assert 6 < sizes[-1] < 20 and np.ptp(columns) + 1 <= width
        draw = panels.ImageDraw.Draw(panels.Image.fromarray(image))
        assert draw.textlength(text, load(sizes[-1] + 1)) > width


@pytest.fixture
def texts(monkeypatch):
    """What is written, and where: (text, centre, top, width, height)."""
    written, text = [], panels._text
    monkeypatch.setattr(panels, '_text', lambda image, *what: (
        written.append(what), text(image, *what))[1])
    return written


@pytest.mark.parametrize('height, gain, labels, font', [
    (192, 5, ['0', '25.5', '51+'], 16), (240, 1, ['0', '128', '255+'], 20),
    (900, 51, ['0', '2.5', '5+'], 22), (60, 255, ['0', '0.5', '1+'], 10)])
def test_the_colour_bar_tells_grey_levels(texts, height, gain, labels, font):
    bar = panels.colour_bar(height, gain)
    assert bar.shape == (height, MARGIN + 5 * font, 3)
    assert [what[0] for what in texts] == labels
    tops, length = [what[2] for what in texts], height - 2 * (font // 2)
    assert tops == [height - font // 2 - round(part * length) - font // 2 for part in (0, 0.5, 1)]
    assert {what[1:2] + what[3:] for what in texts} == {
        (MARGIN + font + 2 * font, 4 * font, font)}
    colours = bar[font // 2:height - font // 2, MARGIN]
    assert (colours[0] == error_map(np.full((1, 1, 3), 255.), np.zeros((1, 1, 3)), 1)).all()
    assert (colours[-1] == error_map(np.zeros((1, 1, 3)), np.zeros((1, 1, 3)), 1)).all()
    for outside in (slice(font // 2), slice(height - font // 2, None)):
        assert (bar[outside, MARGIN] == 255).all()
    assert (bar[:, :MARGIN] == 255).all() and (bar[font:-font, MARGIN + font - 1] != 255).any()


def test_titles_and_rooms_of_a_decomposition(images, texts):
    lr, gt = images
    picture = decomposition_panel(lr, gt, gt, gt, AveragePooling(8), gain=3)
    bar = panels.colour_bar(192, 3).shape[1]
    assert picture.shape == (3 * (192 + 16 + 2 * MARGIN), 6 * (192 + MARGIN) + bar, 3)
    titles = [what[0] for what in texts if what[3] == 192]
    assert titles == ['LR y', 'raw x_r', 'x_r - A+A x_r', 'A+ y', 'output', 'GT',
                      '|raw x_r - GT| x 3', '|A+ y - GT| x 3', '|output - GT| x 3',
                      '|A x_r - y| x 3', '|A output - y| x 3']
    assert {what[1:] for what in texts if what[3] == 192} == {(96, MARGIN, 192, 16)}
    # a row without error maps has no bar
    row, side = 192 + 16 + 2 * MARGIN, 6 * (192 + MARGIN)
    assert (picture[:row, side:] == 255).all() and (picture[row:2 * row, side:] != 255).any()
    assert (picture[row:row + 16 + 2 * MARGIN, side:] == 255).all()
    assert (picture[row:2 * row, :192] == 255).all()  # nothing under the LR


def test_decomposition_parts_add_up(images):
    lr, gt = images
    raw = (gt // 3 + 60).astype(np.float32)
    operator = AveragePooling(8)
    up = lr.repeat(8, 0).repeat(8, 1).astype(np.float32)
    means = raw.reshape(8, 8, 8, 8, 3).mean((1, 3))
    delta = raw - means.repeat(8, 0).repeat(8, 1)
    output = up + delta
    picture = decomposition_panel(lr, output, raw, gt, operator)
    saved = output.clip(0, 255).round().astype(np.uint8)
    for image in (lr, raw.astype(np.uint8), up.astype(np.uint8), saved, gt,
                  (128 + delta).clip(0, 255).round().astype(np.uint8),
                  error_map(output, gt), error_map(raw, gt), error_map(up, gt),
                  error_map(means, lr.astype(np.float32))):
        assert contains(picture, fit(image, (192, 192)))
    assert contains(picture, np.zeros((192, 192, 3), np.uint8) + error_map(gt, gt)[:1, :1])


def test_the_operator_may_be_a_config_without_scale(images):
    lr, gt = images
    want = decomposition_panel(lr, gt, gt, gt, AveragePooling(8))
    for cfg in (dict(type='AveragePooling'), dict(type='AveragePooling', scale=8)):
        np.testing.assert_array_equal(decomposition_panel(lr, gt, gt, gt, cfg), want)
    with pytest.raises(ValueError, match='scale cannot be inferred.*8x8.*got 60x64'):
        decomposition_panel(lr, gt[:60], operator=dict(type='AveragePooling'))


def test_missing_parts_are_left_out(images):
    lr, gt = images
    full = decomposition_panel(lr, gt, gt, gt, AveragePooling(8))
    without = [decomposition_panel(lr, gt, None, gt, AveragePooling(8)),
               decomposition_panel(lr, gt, gt, None, AveragePooling(8)),
               decomposition_panel(lr, gt, gt, gt)]
    for picture in without:
        assert picture.shape[1] < full.shape[1]
    assert decomposition_panel(lr, gt).shape[0] < without[0].shape[0]


@pytest.mark.parametrize('shape, cell, want', [
    ((64, 64), None, (192, 192)), ((1024, 1024), None, (512, 512)), ((256, 256), None, (256, 256)),
    ((64, 32), None, (192, 96)), ((1024, 512), 1024, (1024, 512)), ((64, 64), 256, (256, 256)),
    ((100, 100), 250, (200, 200)), ((1, 1), None, (192, 192)), ((3000, 10), None, (600, 2)),
    ((400, 200), 100, (100, 50)), ((250, 100), 100, (125, 50)), ((100, 50), 40, (50, 25)),
    ((641, 641), None, (321, 321)), ((640, 640), None, (640, 640)), ((192, 4), None, (192, 4)),
])
def test_display_size(shape, cell, want):
    assert display_size(shape, cell) == want


def test_panels_are_stacked_without_loss(images):
    lr, gt = images
    a, b = comparison_panel({'LR': lr, 'x': gt}, gt), comparison_panel({'x': gt}, gt)
    stacked = stack_panels([a, b])
    assert (stacked[:a.shape[0], :a.shape[1]] == a).all()
    assert (stacked[a.shape[0] + MARGIN:-MARGIN, :b.shape[1]] == b).all()


def test_bad_input_is_named(images):
    lr, gt = images
    for call, message in (
            (lambda: comparison_panel({'x': gt / 255.}, gt), "'x'.*float64"),
            (lambda: comparison_panel({'x': gt[..., 0]}, gt), r"'x'.*\(64, 64\)"),
            (lambda: comparison_panel({'x': gt[:32]}, gt), "'x' of 32 x 64.*64 x 64"),
            (lambda: comparison_panel({}), 'at least one'),
            (lambda: stack_panels([]), 'at least one'),
            (lambda: error_map(gt, lr), r'\(64, 64, 3\).*\(8, 8, 3\)'),
            (lambda: error_map(gt, gt, 0), 'positive.*0'),
            (lambda: decomposition_panel(lr, gt, lr), "'raw'.*output"),
            (lambda: decomposition_panel(lr[0], gt), "'LR'")):
        with pytest.raises(ValueError, match=message):
            call()


def test_comparison_panel_with_consistency_errors():
    """A row of |A x - y| below the results; the LR itself has none."""
    gt = np.full((64, 64, 3), 100, np.uint8)
    lr = np.full((16, 16, 3), 100, np.uint8)

    def degrade(image):
        return image[::4, ::4]

    columns = {'LR': lr, 'right': gt, 'wrong': gt + np.uint8(50)}
    plain = comparison_panel(columns, gt=gt)
    both = comparison_panel(columns, gt=gt, degrade=degrade)
    alone = comparison_panel(columns, gt=gt, degrade=degrade, gt_errors=False)
    assert both.shape[0] == plain.shape[0] * 3 // 2 and alone.shape == plain.shape
    assert np.array_equal(both[:plain.shape[0]], plain)
    row, cell = alone[-50], 192 + 6
    assert (row[:cell] == 255).all()  # nothing below the LR
    assert row[cell + 20:2 * cell - 20].max() < 20  # the colour of no error
    assert row[2 * cell + 20:3 * cell - 20].max() > 200
    assert row[3 * cell + 20:4 * cell - 20].max() < 20
    with pytest.raises(ValueError, match='cannot subtract shapes'):
        comparison_panel(columns, gt=gt, degrade=lambda image: image)
