"""The picture of a fitted kernel beside a named one: what is drawn where."""
import numpy as np
import pytest
from PIL import ImageDraw

from mmpd.postprocess import Candidate, FittedKernel
from mmpd.postprocess.kernel_picture import (
    BLACK,
    FITTED,
    GAP,
    GREY,
    GRID,
    LINE,
    MARGIN,
    NAMED,
    NEGATIVE,
    PANEL,
    POSITIVE,
    TEXT,
    draw_kernels,
)

WHITE = (255, 255, 255)


def fitted_to(kernel, start, scale):
    return FittedKernel(np.asarray(kernel, float), start, scale, 0., 2.55, 1000)


def pooling(scale):
    return Candidate(dict(type='AveragePooling', scale=scale), 'float')


def panels(fitted, candidate):
    """The three panels and the strip of titles over them, whose places are checked."""
    picture = np.asarray(draw_kernels(fitted, candidate))
    assert picture.shape == (TEXT + PANEL + GAP, GAP + 3 * (PANEL + GAP), 3)
    found = []
    for left in range(GAP, GAP + 3 * (PANEL + GAP), PANEL + GAP):
        panel = picture[TEXT:TEXT + PANEL, left:left + PANEL]
        for edge in (panel[0], panel[-1], panel[:, 0], panel[:, -1]):
            assert (edge == GREY).all()
        found.append(panel)
        assert (picture[TEXT:, left - GAP:left] == 255).all()
    assert (picture[TEXT + PANEL:] == 255).all() and (picture[TEXT:, -GAP:] == 255).all()
    return found, picture[:TEXT]


def of(panel, colour):
    return (panel == colour).all(2)


def test_weights_are_coloured_by_sign_and_size():
    """16 HR pixels of 20 pixels each; the second weight is a quarter: half as strong."""
    kernel = np.zeros((16, 16))
    kernel[3, 4], kernel[8, 4], kernel[12, 13] = 0.5, 0.125, -0.5
    (fitted, named, _), _ = panels(fitted_to(kernel, -6, 4), pooling(4))
    middle = fitted[10::20, 10::20]
    assert (middle[3, 4] == POSITIVE).all() and (middle[12, 13] == NEGATIVE).all()
    np.testing.assert_array_equal(middle[8, 4], (255 - (255 - POSITIVE) / 2).round())
    kernel[[3, 8, 12], [4, 4, 13]] = 1
    assert (middle[kernel == 0] == 255).all()
    # 1 / 16 of the largest weight, 1 / 2, over the LR pixel alone
    middle = named[10::20, 10::20].astype(int)
    own = np.zeros((16, 16), bool)
    own[6:10, 6:10] = True
    np.testing.assert_array_equal(
        middle[own], np.tile((255 - (255 - POSITIVE) * 8**-0.5).round(), (16, 1)))
    assert (middle[~own] == 255).all()


@pytest.mark.parametrize('start, scale, n, edges', [
    (-6, 4, 16, [2, 6, 10, 14]), (-3, 2, 8, [1, 3, 5, 7]), (0, 2, 2, [0]), (-4, 4, 20, [0, 4, 8, 12,
                                                                                       16])])
def test_the_grid_separates_lr_pixels_and_a_square_marks_the_own_one(start, scale, n, edges):
    (fitted, *_), _ = panels(fitted_to(np.full((n, n), 1e-9), start, scale), pooling(scale))
    assert not of(fitted, (0, 0, 0)).any()
    step, inner = PANEL // n, slice(1, -1)
    lines = {edge * step for edge in edges} - {0}
    # between the marks of the square, along one HR pixel that is no edge
    free = next(k for k in range(n) if k not in range(-start, scale - start + 1)) \
        if n > scale else None
    if free is not None:
        place = free * step + step // 2
        assert {*np.flatnonzero(of(fitted, GRID)[place, inner]) + 1} == lines
        assert {*np.flatnonzero(of(fitted, GRID)[inner, place]) + 1} == lines
    first, last = -start * step, (scale - start) * step
    black = of(fitted, BLACK)
    wanted = np.zeros_like(black)
    for edge in (first, last):
        wanted[edge:edge + 1, first:last + 1] = wanted[first:last + 1, edge:edge + 1] = True
    np.testing.assert_array_equal(black[inner, inner], wanted[inner, inner])


def test_the_curves_are_the_sums_over_rows():
    kernel = np.zeros((16, 16))
    kernel[2:6, 3], kernel[7, 9] = 0.25, -0.5  # sums 1 and -0.5
    (*_, curves), _ = panels(fitted_to(kernel, -6, 4), pooling(4))
    red, grey = of(curves, FITTED), of(curves, NAMED)
    low, high, zero = PANEL - MARGIN, MARGIN, MARGIN + (PANEL - 2 * MARGIN) * 2 / 3
    for x, y in ((3, high), (9, low), (0, zero), (15, zero)):
        assert red[round(y) - 2:round(y) + 3, 20 * x + 8:20 * x + 13].any()
    rows = np.flatnonzero(red.any(1))
    assert abs(rows[0] - high) <= 2 and abs(rows[-1] - low) <= 2
    quarter = zero - (zero - high) / 4  # each column of the pooling has 4 of 1 / 16
    assert grey[round(quarter) - 1:round(quarter) + 2, 140:180].any(0).all()
    assert np.flatnonzero(grey.any(1))[0] >= round(quarter) - 2
    assert 0 < red[:, 225].sum() <= LINE + 1
    lines = of(curves, GREY)
    assert lines[round(zero), :8].all() and lines[round(zero), -8:].all()
    assert {*np.flatnonzero(lines[1:-1].mean(0) > 0.9)} == {0, 120, 200, PANEL - 1}


def test_curves_that_are_nowhere_0_stand_over_it():
    (*_, curves), _ = panels(fitted_to([[0.1, 0.4], [0.1, 0.4]], 0, 2), pooling(2))
    red, grey = of(curves, FITTED), of(curves, NAMED)
    left, right = PANEL // 4, 3 * PANEL // 4
    height = PANEL - 2 * MARGIN  # of 0.8
    for curve, place, share in ((red, right - 2, 1), (red, left + 2, 0.25), (grey, left + 9, 0.625),
                                (grey, right - 9, 0.625)):
        row = np.flatnonzero(curve[:, place]).mean()
        assert row == pytest.approx(PANEL - MARGIN - share * height, abs=4)
    assert of(curves, GREY)[PANEL - MARGIN, 1:-1].all()


def test_titles_stand_over_their_panels_in_their_colours(monkeypatch):
    written, text = [], ImageDraw.ImageDraw.text
    monkeypatch.setattr(ImageDraw.ImageDraw, 'text', lambda self, place, title, **options: (
        written.append((title, options['fill'])), text(self, place, title, **options)))
    _, strip = panels(fitted_to(np.eye(8) / 8, -2, 4), pooling(4))
    assert written == [('fitted, 40.00 dB', FITTED), ('average pooling', NAMED),
                       ('horizontal profiles of both', BLACK)]
    ink = (strip < 250).any(2)
    rows = np.flatnonzero(ink.any(1))
    assert abs(rows.mean() - TEXT / 2) < 4
    for number in range(3):
        columns = np.flatnonzero(ink[:, number * (PANEL + GAP):(number + 1) * (PANEL + GAP)].any(0))
        assert GAP <= columns[0] <= GAP + 3
