"""One computation of the page: LR (and SR) in, files and figures out."""
import hashlib
import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from ..evaluation.functional import errors, psnr
from ..operators.decomposition import apply
from ..operators.resolve import infer_scale, resolve_operator
from ..utils.images import Picture, write_picture
from ..utils.validation import check_bounds, check_noise_std, check_strength, optional
from .limits import Limits
from .operators import USUAL, operator_choice
from .panels import explain, write_panels
from .uploads import load_upload, safe_stem

__all__ = ['Job', 'Result', 'run']

KEPT = 4  # predictions, so that another A or strength needs no second run of the network
_predictions = OrderedDict()


@dataclass(frozen=True)
class Job:
    """What a visitor asks for; nothing is read yet.

    Attributes:
        lr (str): Path of the LR.
        sr (str | None): Path of any method's picture of it, or None if a model is to make one.
        model (str | None): What :class:`PDInferencer` takes; never a visitor's words.
        operator (str): One of :data:`mmpd.web.operators.CHOICES`.
        strength (float): In [0, 1].
        noise_std (float | None): Of the LR's noise, in grey levels.
        bounds (tuple[float, float] | None): Of the result's values.
        limits (Limits): What is allowed.

    Raises:
        InputError: for values that cannot be; one line.

    Example:
        >>> from mmpd.web.jobs import Job
        >>> Job(lr='lr.png', sr='sr.png', strength=0.9).operator
        'average pooling'
        >>> Job(lr='lr.png')
        Traceback (most recent call last):
            ...
        mmpd.errors.InputError: choose a model, or give a picture (SR) of the LR
    """
    lr: str
    sr: str | None = None
    model: str | None = None
    operator: str = USUAL
    strength: float = 1.0
    noise_std: float | None = None
    bounds: tuple | None = None
    limits: Limits = Limits()

    def __post_init__(self):
        if not self.lr:
            raise InputError('choose an LR picture first')
        if not self.sr and not self.model:
            raise InputError('choose a model, or give a picture (SR) of the LR')
        operator_choice(self.operator)
        check_strength(self.strength)
        check_noise_std(self.noise_std, self.strength, most=255)
        optional(check_bounds, self.bounds, least=0, most=255)


@dataclass
class Result:
    """What the visitor gets.

    Attributes:
        picture (str): Path of the PNG file, exact.
        before (str): Path of x_r as PNG, the same size.
        panels (list[tuple[str, str]]): Paths and captions.
        figures (dict): ``operator``, ``made_by``, ``found`` (None, or ``name`` and ``psnr`` in dB
            of A of x_r against the LR, and ``next_name`` and ``next_psnr`` of the next kernel),
            ``scale``, ``size``, ``psnr_lr_before``, ``psnr_lr_after`` (dB, infinite if equal),
            ``lr_values``, ``lr_values_unmatched``.

    Example:
        >>> from mmpd.web.jobs import Result
        >>> figures = dict(psnr_lr_before=31.5, psnr_lr_after=float('inf'))
        >>> result = Result('lr_consistent.png', 'before.png', panels=[], figures=figures)
        >>> result.figures['psnr_lr_after']
        inf
    """
    picture: str
    before: str
    panels: list
    figures: dict


@lru_cache(maxsize=2)
def _inferencer(model):
    from ..apis import PDInferencer  # MMagic takes its time
    return PDInferencer(model, strength=0)


def predict(lr, model):
    """What a model alone makes of an LR: :class:`Picture`. The last few are remembered."""
    parts = (lr.pixels, lr.alpha) if lr.alpha is not None else (lr.pixels,)
    key = model, *((part.shape, hashlib.sha256(np.ascontiguousarray(part)).digest())
                   for part in parts)
    if key not in _predictions:
        prediction, = _inferencer(model).predict([lr])[0][:1]
        raw = Picture(prediction.raw.pixels, prediction.image.alpha, lr.icc_profile)
        while len(_predictions) >= KEPT:
            _predictions.popitem(last=False)
        _predictions[key] = raw
    _predictions.move_to_end(key)
    return _predictions[key]


def _tensor(image):
    """float64 (1, C, H, W)."""
    return torch.from_numpy(np.atleast_3d(image).transpose(2, 0, 1).astype(np.float64))[None]


def _pair(job):
    """LR and x_r that fit each other."""
    if job.sr is None:
        lr = load_upload(job.lr, job.limits, job.limits.lr_pixels)
        return lr, predict(lr, job.model)
    lr, raw = load_upload(job.lr, job.limits), load_upload(job.sr, job.limits)
    if lr.grey != raw.grey:
        kinds = ['grey' if picture.grey else 'RGB' for picture in (lr, raw)]
        raise InputError('expected LR and SR that are both grey or both RGB, got an LR that is '
                         '{} and an SR that is {}'.format(*kinds))
    if lr.alpha is not None and raw.alpha is None:
        raise InputError('expected an SR with alpha, as the LR has, got one without')
    return lr, raw


def _operator(job, lr, raw):
    """(config, library, how sure or None) of the A that was chosen, or found."""
    cfg, made_by = operator_choice(job.operator)
    if cfg != 'auto':
        return cfg, made_by, None
    from ..postprocess import identify
    best, *others = identify([(lr.pixels, raw.pixels)], recolour=True)
    found = dict(name=best.operator_name, psnr=best.psnr)
    for other in others:
        if (other.kernel, other.antialias) != (best.kernel, best.antialias):
            found.update(next_name=other.operator_name, next_psnr=other.psnr)
            break
    return dict(best.operator_cfg), best.made_by, found


def run(job, folder):
    """Do it.

    Args:
        job (Job): What.
        folder (str | Path): Empty folder for the files.

    Returns:
        Result: Paths and figures.

    Raises:
        InputError: Pictures that cannot be used or do not fit; one line.
        ValueError: from the network or the operator, likewise.

    Example:
        >>> from PIL import Image
        >>> from mmpd.web.jobs import Job, run
        >>> for name, side, grey in (('lr', 8, 100), ('sr', 32, 120)):
        ...     Image.new('L', (side, side), grey).save(f'{name}.png')
        >>> result = run(Job(lr='lr.png', sr='sr.png'), folder='.')
        >>> result.picture, result.figures['psnr_lr_after']
        ('lr_consistent.png', inf)
    """
    from ..postprocess import consistent
    folder = Path(folder)
    lr, raw = _pair(job)
    (height, width), (h, w) = raw.pixels.shape[:2], lr.pixels.shape[:2]
    if job.sr is not None and (height < h or width < w):
        raise InputError(f'the SR ({width}x{height}) is smaller than the LR ({w}x{h}): are they '
                         'swapped?')
    scale = infer_scale((height, width), (h, w))
    cfg, made_by, found = _operator(job, lr, raw)
    pixels, unmatched = consistent(
        raw.pixels, lr.pixels, operator=cfg, made_by=made_by, strength=job.strength,
        noise_std=job.noise_std, bounds=job.bounds, return_unmatched=True)
    alpha, profile = raw.alpha, lr.icc_profile or raw.icc_profile
    if lr.alpha is not None:  # which has no noise and no range of colours
        alpha = consistent(alpha, lr.alpha, operator=cfg, made_by=made_by)
    operator = resolve_operator(cfg, (height, width), (h, w))
    output = Picture(pixels, alpha, profile)
    target, before = folder / f'{safe_stem(job.lr)}_consistent.png', folder / 'before.png'
    write_picture(output, target)
    write_picture(replace(raw, icc_profile=profile), before)
    y = _tensor(lr.pixels)
    psnrs = [psnr(errors(apply(operator, 'A', _tensor(image)), y)['MSE'], cap=math.inf)
             for image in (raw.pixels, pixels)]
    figures = dict(
        operator=' '.join(str(operator).split()), made_by=made_by, found=found, scale=scale,
        size=(width, height), psnr_lr_before=psnrs[0], psnr_lr_after=psnrs[1],
        lr_values=lr.pixels.size, lr_values_unmatched=unmatched)
    panels = write_panels(explain(lr.pixels, raw.pixels, pixels, operator), folder)
    return Result(str(target), str(before), panels, figures)
