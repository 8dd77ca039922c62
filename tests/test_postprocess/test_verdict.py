"""What is said of a ranking and a fitted kernel, on rankings made by hand."""
import math

import numpy as np
import pytest

from mmpd.postprocess import Candidate, FittedKernel
from mmpd.postprocess.candidate import Rival, psnr, rivals
from mmpd.postprocess.free_kernel import named_kernel
from mmpd.postprocess.verdict import give_verdict

BICUBIC = dict(type='SeparableResize', scale=4, kernel='bicubic')
LANCZOS = dict(BICUBIC, kernel='lanczos')


def candidate(mse, cfg=BICUBIC, made_by='pil', pairs=10, values=100, rim=None, equal=0):
    """``mse`` of every pair, or of each."""
    squares = [one * values for one in (mse if isinstance(mse, list) else [mse] * pairs)]
    rims = squares if rim is None else [rim] * len(squares)
    return Candidate(cfg, made_by, squares, [values] * len(squares), rims, equal)


def ranking(mse, **kwargs):
    """Bicubic and far behind Lanczos."""
    return [candidate(mse, **kwargs), candidate(90 + 9 * mse, LANCZOS)]


def fitted_to(candidate, noise_std, gain=1., brightness=0., shift=(0, 0)):
    """The kernel of a candidate, moved in its window."""
    fitted = FittedKernel(np.zeros((16, 16)), -6, 4, brightness, noise_std, 1000)
    fitted.kernel = np.roll(named_kernel(candidate, fitted), shift, (0, 1))
    fitted.kernel *= gain / fitted.kernel.sum()
    return fitted


def mse_of(decibels):
    return 255**2 / 10**(decibels / 10)


@pytest.mark.parametrize('reached, free, jpeg, kind, beginning', [
    (math.inf, None, False, 'exact', 'Bicubic (antialias) made the LR: every value'),
    (math.inf, 60, 'blocks', 'exact', 'Bicubic (antialias) made the LR: every value'),
    (50.01, None, False, 'fits', 'Bicubic (antialias) made the LR, but for rounding: 25.00% of'),
    (50.01, 60, False, 'fits', 'Bicubic (antialias) made the LR, but for rounding: 25.00% of'),
    (49.9, None, False, 'noise', 'No A fits: the LR is noisy, by 0.82 grey levels'),
    (45, 47.01, False, 'kernel', 'None of the known A made the LR, but one kernel'),
    (46.2, 47.1, False, 'noise', 'No A fits, a free kernel does no better: the LR is noisy'),
    (42, 46.9, False, 'noise', 'A free kernel does better than bicubic (antialias) (46.9 against '
                               '42.0 dB), but it does not fit either: the LR is noisy'),
    (42, 46.9, True, 'jpeg', 'A free kernel does better than bicubic (antialias) (46.9 against '
                             '42.0 dB), but it does not fit either: the LR is compressed by JPEG'),
    (42, None, 'blocks', 'jpeg', 'No A fits: the LR is compressed by JPEG (blocks), by 2.03 grey'),
])
def test_kinds(reached, free, jpeg, kind, beginning):
    results = ranking(mse_of(reached), equal=250)
    fitted = None if free is None else fitted_to(results[0], mse_of(free)**0.5)
    verdict = give_verdict(results, fitted, jpeg)
    assert verdict.kind == kind and verdict.lines[0].startswith(beginning)
    noise = None if kind in ('exact', 'fits') else pytest.approx(mse_of(reached)**0.5)
    assert verdict.noise_std == noise
    text = ' '.join(verdict.lines)
    assert ('JPEG drops fine detail' in text) == (kind == 'jpeg')
    assert ('Free kernel, 16x16 weights from 1000 LR values' in text) == (free is not None)
    assert 'shifted' not in text and 'Contrast' not in text and 'So the kernel' not in text
    assert 'The kernel: ' in text  # the rivals


def test_noise_of_jpeg_is_what_it_changed():
    """The ranking took account of JPEG: what it misses is no longer the noise."""
    verdict = give_verdict(ranking(mse_of(50.5), equal=900), None, 'all files are', error=3.)
    assert (verdict.kind, verdict.noise_std) == ('jpeg', 3.)
    assert verdict.lines[0].startswith('Bicubic (antialias), then JPEG (all files are), made the '
                                       'LR: compressed as the files are, A(GT) gives back 90.00%')
    assert 'by 3.00 grey levels' in verdict.lines[0]
    assert not any('JPEG drops fine detail' in line for line in verdict.lines)
    verdict = give_verdict(ranking(mse_of(49.5)), None, True, error=3.)
    assert verdict.lines[0].startswith('No A fits: the LR is compressed by JPEG, by 3.00')
    assert any('JPEG drops fine detail' in line for line in verdict.lines)


def std_of(decibels):
    """The standard deviation whose PSNR is that number exactly."""
    near = 255 * 10**(-decibels / 20)
    return next(std for std in near + np.spacing(near) * np.arange(-9, 9)
                if psnr(std**2) == decibels)


@pytest.mark.parametrize('reached, free, kind', [
    (50, None, 'fits'), (45, 47, 'kernel'), (46, 47, 'noise')])
def test_limits_belong_to_the_better_kind(reached, free, kind):
    """But a free kernel has to be better by more than a decibel."""
    results = ranking(mse_of(reached))
    fitted = None if free is None else fitted_to(results[0], std_of(free))
    verdict = give_verdict(results, fitted, error=std_of(reached))
    assert verdict.kind == kind
    assert free != 47 or ('a free kernel does no better' in verdict.lines[0]) == (kind == 'noise')
    lines = give_verdict(results, error=std_of(reached), with_gt=False).lines
    assert any('Careful' in line for line in lines) == (reached == 50)


@pytest.mark.parametrize('reached, careful', [(49.9, False), (50.1, True)])
@pytest.mark.parametrize('lanczos, clear', [(3., True), (1.01, False)])
def test_without_gt_it_is_a_bound(reached, careful, lanczos, clear):
    mse = mse_of(reached)
    results = [candidate(mse), candidate(lanczos * mse, LANCZOS)]
    verdict = give_verdict(results, with_gt=False, jpeg='blocks' if careful else False)
    assert (verdict.kind, verdict.noise_std) == ('bound', None)
    text = ' '.join(verdict.lines)
    assert f'LR less A(SR) is {mse**0.5:.2f} grey levels' in verdict.lines[0]
    assert ('Careful: the SR agrees' in text) == careful
    assert ('It was compressed by JPEG (blocks).' in text) == careful
    assert f'So the kernel is {"clear" if clear else "not clear"}' in verdict.lines[-1]


@pytest.mark.parametrize('gain, brightness, told', [
    (1, 0, False), (1.009, 0.9, False), (0.991, -0.9, False), (1.02, 0, True), (0.98, 0, True),
    (1, 1.5, True), (1, -1.5, True)])
@pytest.mark.parametrize('with_gt', (True, False))
def test_contrast_and_brightness(gain, brightness, told, with_gt):
    results = ranking(4)
    lines = give_verdict(results, fitted_to(results[0], 2, gain, brightness), with_gt=with_gt).lines
    reason = 'more than downsampling' if with_gt else "the SR's colours differ"
    assert (f'Contrast times {gain:.3f}, brightness {brightness:+.1f}: {reason}'
            in lines[-1]) == told


@pytest.mark.parametrize('shift, words', [
    ((0, 0), None), ((1, 0), '1.00 HR pixels below and 0.00'), ((0, -2), '2.00 to the left of'),
    ((-1, 2), '1.00 HR pixels above and 2.00 to the right')])
def test_a_shift_is_told(shift, words):
    pooling = candidate(4, dict(type='AveragePooling', scale=4), 'float')
    fitted = fitted_to(pooling, 2, shift=shift)
    lines = give_verdict([pooling, candidate(90, LANCZOS)], fitted).lines
    text = ' '.join(lines)
    assert ('So the LR is shifted against the GT, by '
            f'({shift[0]:.2f}, {shift[1]:.2f}) HR pixels' in text) == any(shift)
    assert words is None or words in text
    # a kernel of 16 equal weights, of which so many lie in the named one's
    shared = (4 - abs(shift[0])) * (4 - abs(shift[1]))
    assert f'likeness to average pooling {shared / 16:.3f}' in text
    assert 'it is 4.0 high and 4.0 wide at half maximum (LR pixel 4)' in text


def test_a_shift_smaller_than_a_tenth_is_none():
    results = ranking(4)
    fitted = fitted_to(results[0], 2)
    for share, told in ((0.09, False), (0.11, True)):
        moved = fitted_to(results[0], 2)
        moved.kernel = (1 - share) * fitted.kernel + share * np.roll(fitted.kernel, -1, 1)
        lines = give_verdict(results, moved).lines
        assert any('is shifted against' in line for line in lines) == told


@pytest.mark.parametrize('other, line', [
    (candidate(1.2 * 4, LANCZOS), 'The kernel: 0.79 dB before lanczos (antialias), better in 10 of '
                                  '10.'),
    (candidate([8.2, *[3.55] * 9], LANCZOS),
     'The kernel: a tie, lanczos (antialias) is within 0.1 dB (better in 1 of 10).'),
    (candidate(0.9 * 4, LANCZOS),
     'The kernel: lanczos (antialias) is 0.46 dB better, which is too little to tell: the usual '
     'one stands first (better in 0 of 10).'),
    (candidate(8, BICUBIC, 'torch'), 'The library: 3.01 dB before torch, better in 10 of 10.'),
    (candidate(4.1, dict(BICUBIC, border='mirror'), 'float', rim=800),
     'The border rule, at the edges: 3.01 dB before mirror, better in 10 of 10.'),
])
def test_rivals_are_told(other, line):
    far = candidate(900, dict(BICUBIC, antialias=False))
    assert line in give_verdict([candidate(4), other, far]).lines


def test_a_rival_of_an_exact_one():
    lines = give_verdict([candidate(0), candidate(6.5025, LANCZOS)]).lines
    assert 'The kernel: exact, lanczos (antialias) is not (40.00 dB in all); better in 10 of 10.' \
        in lines
    tie = give_verdict([candidate(0), candidate(0, LANCZOS)]).lines
    assert 'The kernel: a tie, lanczos (antialias) is within 0.1 dB (better in 0 of 10).' in tie


def test_rivals_differ_in_one_respect_each():
    results = [candidate(4), candidate(4.1, BICUBIC, 'torch'), candidate(4.2, BICUBIC, 'float'),
               candidate(5, dict(BICUBIC, border='mirror'), 'matlab', rim=3200),
               candidate(6, dict(BICUBIC, antialias=False)), candidate(7, LANCZOS)]
    found = rivals(results)
    assert {kind: rival.candidate for kind, rival in found.items()} == dict(
        library=results[1], border=results[3], kernel=results[4])
    assert found['border'].margin == pytest.approx(10 * math.log10(8))  # at the rim
    assert found['kernel'].margin == pytest.approx(10 * math.log10(1.5))


@pytest.mark.parametrize('margin, wins, beaten', [
    (0.6, 10, True), (0.6, 9, True), (0.6, 8, False), (0.4, 10, False), (0.09, 10, False),
    (-0.3, 0, False)])
def test_a_rival_is_beaten_by_half_a_decibel_in_nine_of_ten(margin, wins, beaten):
    """Of ten pairs, in some of which it is the better one."""
    better = 10 - wins
    lost = [3.9] * better
    won = [(40 * 10**(margin / 10) - sum(lost)) / wins] * wins if wins else []
    others = lost + won if wins else [4 * 10**(margin / 10)] * 10
    rival = rivals([candidate(4), candidate(others, LANCZOS)])['kernel']
    assert rival.margin == pytest.approx(margin) and rival.wins == wins
    assert rival.beaten == beaten and rival.tied == (margin < 0.1)


@pytest.mark.parametrize('margin, wins, tied, beaten', [
    (0.1, 10, False, False), (0.5, 9, False, True), (0.5, 8, False, False)])
def test_limits_of_a_margin(margin, wins, tied, beaten):
    rival = Rival(candidate(4), margin, wins)
    assert (rival.tied, rival.beaten) == (tied, beaten)


@pytest.mark.parametrize('ours, theirs, margin', [(0, 0, 0.), (0, 2, math.inf), (2, 0, -math.inf),
                                                  (2, 2, 0.)])
def test_margins_of_nothing(ours, theirs, margin):
    assert rivals([candidate(ours), candidate(theirs, LANCZOS)])['kernel'].margin == margin


def test_psnr():
    assert psnr(0) == math.inf and psnr(255**2) == 0 and psnr(2.55**2) == pytest.approx(40)
    fitted = fitted_to(candidate(1), 2.55)
    assert fitted.psnr == pytest.approx(40)


@pytest.mark.parametrize('cfg, name', [
    (dict(type='AveragePooling', scale=2), 'average pooling'), (BICUBIC, 'bicubic (antialias)'),
    (dict(BICUBIC, antialias=False, border='library'), 'bicubic (alias)'),
    (dict(BICUBIC, border='mirror'), 'bicubic (antialias), mirrored border'),
    (dict(BICUBIC, kernel='box', antialias=False), 'nearest pixel'),
    (dict(BICUBIC, kernel='box'), 'box (antialias)')])
def test_names(cfg, name):
    one = Candidate(cfg, 'pil')
    assert (one.operator_name, one.name) == (name, f'{name}, pil')


def test_what_is_usual():
    """The likeliest library of a kernel first, then pooling, then the libraries as they are met."""
    pooling, mirror = dict(type='AveragePooling', scale=2), dict(BICUBIC, border='mirror')
    nearest = dict(BICUBIC, kernel='box', antialias=False)
    order = [(pooling, 'float'), (BICUBIC, 'pil'), (pooling, 'torch'), (BICUBIC, 'opencv'),
             (BICUBIC, 'torch'), (BICUBIC, 'torch_uint8'), (BICUBIC, 'matlab'), (BICUBIC, 'float'),
             (mirror, 'matlab'), (mirror, 'float')]
    for ordered in (order, [(nearest, 'float'), (nearest, 'pil')],
                    [(dict(BICUBIC, antialias=False), 'opencv'),
                     (dict(BICUBIC, antialias=False), 'torch')]):
        candidates = [Candidate(*one) for one in ordered]
        assert sorted(reversed(candidates), key=lambda one: one.usual) == candidates
