"""mmpd-make-consistent, file by file: resizing, figures, a worker that died."""
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import torch
import torch.nn.functional as F

from mmpd.cli import consistent_files, consistent_pairs, make_consistent
from mmpd.utils.rasters import Raster


def test_an_image_of_another_size_is_bicubic_and_of_its_type():
    generator = np.random.default_rng(0)
    for dtype, most in ((np.uint8, 255), (np.uint16, 65535), (np.float32, None)):
        array = generator.integers(0, 256, (8, 10, 3)).astype(dtype)
        array[:4] = 255 if most is None else most  # overshoots at the edge
        array[4:] = 0
        alpha = array[..., 0].copy()
        made = consistent_files.resized(Raster(array, alpha, b'icc'), (15, 12))
        assert made.pixels.shape == (12, 15, 3) and made.alpha.shape == (12, 15)
        assert made.pixels.dtype == dtype and made.icc_profile == b'icc'
        wide = torch.from_numpy(array.astype(np.float64)).permute(2, 0, 1)[None]
        wide = F.interpolate(wide, (12, 15), mode='bicubic', antialias=True)[0].permute(1, 2, 0)
        assert wide.min() < -5  # so there is something to clip
        if most:
            wide = wide.clamp(0, most).round()
        assert np.array_equal(made.pixels, wide.numpy().astype(dtype))
        assert np.array_equal(made.alpha, made.pixels[..., 0])


def test_figures_of_a_pair_are_those_of_the_whole_image():
    """Also where it is worked on in strips, and in units of the LR where pixels are floats."""
    generator = np.random.default_rng(0)
    lr = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    sr = (lr.repeat(4, 0).repeat(4, 1) * 0.8 + generator.normal(20, 9, (24, 32, 3))).clip(0, 255)
    gt = (sr + generator.normal(0, 3, sr.shape)).clip(0, 255)
    args = make_consistent.parse_args(['--lr', 'a', '--sr', 'b', '--out', 'c'])

    def psnr(one, other, peak):
        return f'{10 * np.log10(peak**2 / np.square(one.astype(float) - other).mean()):.4f}'

    def pooled(image):
        return image.astype(float).reshape(6, 4, 8, 4, 3).mean((1, 3))
    for dtype in (np.uint8, np.float64):
        images = [image.astype(dtype) for image in (lr, sr, gt)]
        peak = 255 if dtype is np.uint8 else float(np.ptp(images[0]))
        before = images[1].copy()
        made, row = consistent_files.make_consistent(
            *(Raster(image) for image in images), args.degradation, args.correction)
        assert row['psnr_lr_before'] == psnr(pooled(before), lr, peak)
        assert row['psnr_gt_before'] == psnr(before, images[2], peak)
        assert row['psnr_gt_after'] == psnr(made, images[2], peak)
        assert float(row['psnr_lr_after']) > 200 and row['lr_values_unmatched'] == '0'
        assert (row['scale'], row['made_by'], row['lr_values']) == ('4', 'float', '144')
    flat = Raster(np.full((2, 2), 3.))
    _, row = consistent_files.make_consistent(flat, Raster(np.full((4, 4), 4.)), None,
                                              args.degradation, args.correction)
    assert row['psnr_lr_before'] == '0.0000' and 'psnr_gt_before' not in row  # peak 1


def test_a_worker_that_died_is_named_with_its_pair(tmp_path):
    args = make_consistent.parse_args(['--lr', 'a', '--sr', 'b', '--out', str(tmp_path / 'out')])
    pairs = [consistent_pairs.Pair(name, {}, tmp_path / 'out' / f'{name}.png', 2, None, 'x')
             for name in 'ab']

    def run_jobs(function, jobs):
        assert [job[0] for job in jobs] == pairs
        raise BrokenProcessPool
        yield
    rows, failure = consistent_files.Run(args, pairs)(run_jobs)
    assert rows == [] and failure.startswith('a: a process of --workers died, for want of memory')
    assert (tmp_path / 'out' / 'consistency.csv').read_text().count('\n') == 1
