"""What the ranking of A's and the fitted kernel say about an LR: words and one noise level."""
import math
from dataclasses import dataclass

import numpy as np

from .candidate import CLEAR, psnr, rivals
from .free_kernel import named_kernel

__all__ = ['Verdict', 'give_verdict']

FITS = 50.  # dB: less than a grey level, as between two libraries or versions of one
ROUNDED = 47.  # dB that a free kernel reaches where nothing but rounding was added
SHIFTED = 0.1  # HR pixels
BETTER = 1.  # dB by which a free kernel has to beat the named ones


@dataclass
class Verdict:
    """What made the LR.

    Attributes:
        kind (str): 'exact' (every LR value is given back), 'fits', 'kernel' (none of the named
            ones, but a kernel), 'noise' or 'jpeg' (no kernel at all); 'bound' without GT.
        noise_std (float | None): What to give as the LR's noise, in grey levels; None for none
            (strength 1), or unknown.
        lines (list[str]): The same in words.
    """
    kind: str
    noise_std: float | None
    lines: list


def give_verdict(results, fitted=None, jpeg=False, with_gt=True, error=None):
    """Judge what :func:`identify` and :func:`fit_kernel` found.

    Args:
        results (list[Candidate]): The ranking.
        fitted (FittedKernel, optional): The free kernel.
        jpeg (bool | str): Whether the LR was compressed; a text says how that is known.
        with_gt (bool): The HR images are ground truth, not some method's results.
        error (float, optional): RMS of LR less A(HR), in grey levels, for the best A. Defaults to
            that of its PSNR; it is another one if the ranking took account of JPEG.

    Returns:
        Verdict: With lines on the fit, the rivals and the free kernel.
    """
    best = results[0]
    error = 255 * 10**(-best.psnr / 20) if error is None else error
    reached = psnr(error**2)
    how = f' ({jpeg})' if isinstance(jpeg, str) else ''
    free = fitted is not None and fitted.psnr > reached + BETTER
    name = best.operator_name[0].upper() + best.operator_name[1:]
    kind, noise = 'fits', None
    if not with_gt:
        kind = 'bound'
        lines = [f'Without GT the figures are lower bounds: LR less A(SR) is {error:.2f} grey '
                 "levels (RMS), and the SR's own errors may be any part of it. The ranking holds "
                 'as far as they favour no A (enlarged LRs favour narrow kernels).']
        if reached >= FITS:
            lines.append('Careful: the SR agrees with the LR as if it had been made to, with this '
                         'A. Then this is the A of the method, whatever made the LR.')
        lines.append(f'The noise of the LR is {error:.1f} grey levels at most.'
                     f'{" It was compressed by JPEG" + how + "." if jpeg else ""}')
    elif math.isinf(reached):
        kind = 'exact'
        rival = rivals(results).get('kernel')
        lines = [f'{name} made the LR: every value is given back.'
                 if rival is None or not math.isinf(rival.candidate.psnr) else
                 f'{name} gives every value back, and so does {rival.candidate.operator_name}: '
                 'these images do not tell which made the LR.']
    elif reached >= FITS:
        lines = [f'{name} made the LR, but for rounding: {best.equal / sum(best.values):.2%} of '
                 'the values are given back.']
    elif free and fitted.psnr >= ROUNDED:
        kind, noise = 'kernel', error
        lines = ['None of the known A made the LR, but one kernel explains it up to rounding '
                 f'({fitted.psnr:.1f} against {reached:.1f} dB). {name} comes closest; it misses '
                 f'the LR by {error:.2f} grey levels (RMS).']
    else:
        kind, noise = 'jpeg' if jpeg else 'noise', error
        what = f'compressed by JPEG{how}' if jpeg else 'noisy'
        if jpeg and best.psnr >= FITS:
            lines = [f'{name}, then JPEG{how}, made the LR: compressed as the files are, A(GT) '
                     f'gives back {best.equal / sum(best.values):.2%} of its values. JPEG changed '
                     f'it by {error:.2f} grey levels (standard deviation).']
        elif free:
            lines = [f'A free kernel does better than {best.operator_name} ({fitted.psnr:.1f} '
                     f'against {reached:.1f} dB), but it does not fit either: the LR is {what}, '
                     f'{fitted.noise_std:.2f} grey levels (standard deviation) of which no kernel '
                     f'explains. {name} misses it by {error:.2f}.']
        else:
            start = 'No A fits' + (', a free kernel does no better' if fitted is not None else '')
            lines = [f'{start}: the LR is {what}, by {error:.2f} grey levels (standard deviation).']
        if jpeg and best.psnr < FITS:
            lines.append('JPEG drops fine detail, as a softer kernel does: of kernels that come '
                         'close, the sharper one may be the right one.')
    lines += _rival_lines(results)
    if not with_gt:
        clear = rivals(results)['kernel'].beaten
        lines.append(f'So the kernel is {"clear" if clear else "not clear"} (clear: {CLEAR:g} dB, '
                     'and in nine of ten pairs).')
    if fitted is not None:
        lines += _kernel_lines(fitted, best, with_gt)
    return Verdict(kind, noise, lines)


def _rival_lines(results):
    pairs, lines = len(results[0].squares), []
    for kind, rival in rivals(results).items():
        question, other = dict(
            kernel=('The kernel', rival.candidate.operator_name),
            border=('The border rule, at the edges', rival.candidate.border),
            library=('The library', rival.candidate.made_by))[kind]
        share = f'better in {rival.wins} of {pairs}'
        if rival.margin < 0:
            lines.append(f'{question}: {other} is {-rival.margin:.2f} dB better, which is too '
                         f'little to tell: the usual one stands first ({share}).')
        elif rival.tied:
            lines.append(f'{question}: a tie, {other} is within 0.1 dB ({share}).')
        elif math.isinf(rival.margin):
            lines.append(f'{question}: exact, {other} is not ({rival.candidate.psnr:.2f} dB in '
                         f'all); {share}.')
        else:
            lines.append(f'{question}: {rival.margin:.2f} dB before {other}, {share}.')
    return lines


def _kernel_lines(fitted, best, with_gt):
    named = named_kernel(best, fitted)
    likeness = (named * fitted.kernel).sum() / np.sqrt(
        (named**2).sum() * (fitted.kernel**2).sum() + 1e-30)
    if fitted.flat:
        return [f'The free kernel says nothing: LR or {"GT" if with_gt else "SR"} has no detail.']
    down, right = fitted.shift
    tall, wide = fitted.width
    which, other = ('LR', 'GT') if with_gt else ('LR or the SR', 'other')
    lines = [f'Free kernel, {len(fitted.kernel)}x{len(fitted.kernel)} weights from '
             f'{fitted.values} LR values: {fitted.psnr:.2f} dB, likeness to '
             f'{best.operator_name} {likeness:.3f}.',
             f'Its centre is {abs(down):.2f} HR pixels {"below" if down > 0 else "above"} and '
             f'{abs(right):.2f} to the {"right" if right > 0 else "left"} of the middle of the LR '
             f'pixel; it is {tall:.1f} high and {wide:.1f} wide at half maximum (LR pixel '
             f'{fitted.scale}).']
    if max(abs(down), abs(right)) > SHIFTED:
        lines.append(f'So the {which} is shifted against the {other}, by ({down:.2f}, '
                     f'{right:.2f}) HR pixels: not cut alike, or made with corners aligned.')
    if abs(fitted.gain - 1) > 0.01 or abs(fitted.brightness) > 1:
        lines.append(f'Contrast times {fitted.gain:.3f}, brightness {fitted.brightness:+.1f}: '
                     + ('more than downsampling was done to it (a colour range, a colour profile).'
                        if with_gt else "the SR's colours differ."))
    return lines
