"""A degradation that may have made an LR, how well it explains it, and what comes close to it."""
import math
from dataclasses import dataclass, field

from ..operators import build_operator
from .correction import likeliest_library

__all__ = ['TIE', 'Candidate', 'Rival', 'psnr', 'rivals']

TIE = 0.1  # dB: what differs by less is as good
# in this order where one is as good as the other, after the likeliest one of that A
USUAL = ('pil', 'opencv', 'torch', 'torch_uint8', 'matlab', 'float')


def psnr(mse):
    """PSNR in dB of a mean squared error in grey levels of 0..255."""
    return 10 * math.log10(255**2 / mse) if mse else math.inf


@dataclass
class Candidate:
    """A degradation, and how well it explains the LR images.

    Attributes:
        operator_cfg (dict): For :func:`mmpd.operators.build_operator`.
        made_by (str): 'float' or a library, as :func:`mmpd.operators.consistent_uint8` takes it.
        squares (list[float]): Sum of the squared errors of each pair, in grey levels.
        values (list[int]): Number of LR values of each pair.
        rims (list[float]): Sum of the squared errors in the outermost LR pixels of each pair, where
            border rules differ.
        equal (int): How many LR values are given back.
    """
    operator_cfg: dict
    made_by: str
    squares: list = field(default_factory=list)
    values: list = field(default_factory=list)
    rims: list = field(default_factory=list)
    equal: int = 0

    @property
    def psnr(self):
        """dB of A(HR) against LR over all pairs, rounded as the library does; inf if equal."""
        return psnr(sum(self.squares) / sum(self.values))

    @property
    def kernel(self):
        """'average_pooling', or the kernel of the resizing."""
        return self.operator_cfg.get('kernel', 'average_pooling')

    @property
    def antialias(self):
        """Whether the kernel is widened by the scale."""
        return self.operator_cfg.get('antialias', True)

    @property
    def border(self):
        """'library' or 'mirror'."""
        return self.operator_cfg.get('border', 'library')

    def same_kernel(self, other):
        """Whether kernel and antialias are those of ``other``."""
        return (self.kernel, self.antialias) == (other.kernel, other.antialias)

    @property
    def operator_name(self):
        """A in words."""
        if self.kernel == 'average_pooling':
            return 'average pooling'
        if (self.kernel, self.antialias) == ('box', False):
            return 'nearest pixel'
        return (f'{self.kernel} ({"antialias" if self.antialias else "alias"})'
                f'{", mirrored border" if self.border == "mirror" else ""}')

    @property
    def name(self):
        """A and its library in words."""
        return f'{self.operator_name}, {self.made_by}'

    @property
    def usual(self):
        """Sorts by how often such an LR is met, the most frequent first."""
        first = self.made_by != likeliest_library(build_operator(self.operator_cfg))
        kernel = self.kernel != 'average_pooling'  # bilinear (alias) of scale 2 is it, too
        return self.border == 'mirror', first, kernel, USUAL.index(self.made_by)


@dataclass
class Rival:
    """What might be meant in place of the first candidate.

    Attributes:
        candidate (Candidate): It.
        margin (float): By how many dB it is worse; for the border, in the outermost LR pixels.
        wins (int): For how many pairs it is strictly worse.
    """
    candidate: Candidate
    margin: float
    wins: int

    @property
    def tied(self):
        """Whether the difference says nothing."""
        return self.margin < TIE


def rivals(results):
    """How sure the first candidate is: what comes closest to it that differs in one respect.

    Args:
        results (list[Candidate]): Of :func:`identify`.

    Returns:
        dict[str, Rival]: For the 'kernel' (and antialias), for the 'border' of the same kernel, for
        the 'library' of the same A; without those that have no rival.
    """
    best = results[0]

    found = {}
    for one in results[1:]:
        kind = ('kernel' if not one.same_kernel(best) else
                'border' if one.border != best.border else 'library')
        if kind not in found:
            ours, theirs = ((best.rims, one.rims) if kind == 'border' else
                            (best.squares, one.squares))
            found[kind] = Rival(one, _ratio(sum(theirs), sum(ours)),
                                sum(a < b for a, b in zip(ours, theirs, strict=True)))
    return found


def _ratio(theirs, ours):
    """In dB, 0 if both are 0."""
    if theirs == ours:
        return 0.
    return math.inf if not ours else -math.inf if not theirs else 10 * math.log10(theirs / ours)
