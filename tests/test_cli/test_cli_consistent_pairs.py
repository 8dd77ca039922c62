"""mmpd-make-consistent, before the work: sizes, values and targets of the pairs."""
from types import SimpleNamespace

import numpy as np
import pytest

from mmpd.cli import consistent_pairs, make_consistent
from mmpd.utils.rasters import Raster


@pytest.mark.parametrize('lr, sr, may_resize, found, said', [
    ((8, 6), (32, 24), False, (4, None), None), ((8, 6), (33, 24), True, (4, (32, 24)), None),
    ((8, 6), (33, 24), False, (None, None), '(--resize-sr resizes it to 32x24)'),
    ((8, 6), (33, 18), True, (None, None), 'multiple of the LR size 8x6, got 33x18'),
    ((8, 6), (9, 6), True, (1, (8, 6)), None), ((8, 6), (3, 6), True, (1, (8, 6)), None)])
def test_sizes_of_a_pair(lr, sr, may_resize, found, said):
    problems = []
    sizes = [SimpleNamespace(size=size) for size in (lr, sr)]
    assert consistent_pairs.check_sizes('x', *sizes, may_resize, problems) == found
    assert len(problems) == bool(said) and (not said or problems[0].endswith(said))


@pytest.mark.parametrize('argv, expected', [
    ([], 'float'), (['--operator', 'bicubic'], 'pil')])
def test_pairs_that_take_much_memory_are_named(monkeypatch, argv, expected):
    monkeypatch.setattr(consistent_pairs, 'LARGE', 32 * 32)
    args = make_consistent.parse_args(['--lr', 'a', '--sr', 'b', '--out', 'c', *argv])
    lr = Raster(np.zeros((8, 8), np.uint8))
    for side, warned in ((32, False), (40, expected == 'pil')):
        problems, warnings = [], []
        sr = Raster(np.zeros((side, side), np.uint8))
        consistent_pairs.check_values('x', side // 8, lr, sr, '.png', args, problems, warnings)
        assert not problems and bool(warnings) == warned
        assert not warned or f'x: {side}x{side} is worked on as a whole' in warnings[0]


def test_bounds_may_be_values_of_the_lr():
    for dtype in (np.uint8, np.float32):
        lr = Raster(np.array([[40, 200]] * 2, dtype))
        sr = Raster(np.zeros((4, 4), dtype))
        for bounds, fits in (((40, 200), True), ((41, 200), False), ((40, 199), False)):
            args = make_consistent.parse_args(['--lr', 'a', '--sr', 'b', '--out', 'c', '--bounds',
                                               *map(str, bounds)])
            problems = []
            consistent_pairs.check_values('x', 2, lr, sr, '.npy', args, problems, [])
            assert bool(problems) != fits
            assert fits or f'--bounds {bounds[0]} {bounds[1]}, got 40 to 200' in problems[0]


def test_names_that_cannot_be_written(tmp_path):
    args = SimpleNamespace(overwrite=False, resume=False)
    for path, message in ((tmp_path, 'is a folder'), (tmp_path / ('x' * 300), 'x: '),
                          (tmp_path / 'a\udce9', 'UTF-8')):
        problems = []
        consistent_pairs.check_target(path, args, problems)
        assert len(problems) == 1 and message in problems[0]
    (tmp_path / 'there').touch()
    for name in ('overwrite', 'resume', None):
        problems = []
        options = SimpleNamespace(**{**vars(args), **({name: True} if name else {})})
        consistent_pairs.check_target(tmp_path / 'there', options, problems)
        assert len(problems) == (name is None)
