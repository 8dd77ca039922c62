"""Is the LR that a dataset gives a model the one that its PD head means?"""
import logging
import random
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.logging import print_log

from ..errors import BadSample, InputError
from ..operators.decomposition import apply_to_any
from ..utils.model import unwrap
from .functional import errors

__all__ = ['lr_source', 'tell_difference', 'untouched_randomness']

SAME = 50.0  # dB: two roundings of one picture are farther apart than this only where A differs
ANOTHER = 30.0  # dB: below, it is not a question of the kernel any more
_told = set()


@contextmanager
def untouched_randomness():
    """Whatever is drawn inside, the random numbers of the run stay the same.

    Example:
        >>> import torch
        >>> from mmpd.evaluation.degradation import untouched_randomness
        >>> torch_state = torch.get_rng_state()
        >>> with untouched_randomness():
        ...     drawn = torch.rand(1)
        >>> torch.equal(torch.get_rng_state(), torch_state)
        True
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


def lr_source(dataset):
    """How the LR images of a dataset come about, in words."""
    while hasattr(dataset, 'dataset'):  # RepeatDataset and the like
        dataset = dataset.dataset
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', [])
    synthesis = [repr(step) for step in steps if type(step).__name__ == 'LRSynthesis']
    files = (getattr(dataset, 'data_prefix', None) or {}).get('img')
    # Real-ESRGAN's configs name the GT there, and make the LR of it
    read = files and (not steps or any(getattr(step, 'key', None) == 'img' for step in steps))
    return ', '.join(synthesis) or (f'files in {files}' if read else 'the pipeline')


def _compare(head, dataset, model=None):
    """(the head's operator, PSNR in dB between its A and the LR of the first image), or None."""
    with untouched_randomness():
        sample = dataset[0]
    if not {'inputs', 'data_samples'} <= sample.keys():
        raise InputError("expected samples with 'inputs' and 'data_samples', as PackInputs makes "
                         f'them at the end of the pipeline, got {", ".join(sample)}')
    lr, gt = sample['inputs'], sample['data_samples'].get('gt_img')
    lr = lr.get('img') if isinstance(lr, dict) else lr
    if gt is None or not isinstance(lr, torch.Tensor) or lr.ndim != 3 or gt.ndim != 3:
        return None
    image, target = gt[None].cpu().double(), lr[None].cpu().double()
    operator = head.operator_for(image, target)
    factor = getattr(getattr(model, 'generator', None), 'upscale_factor', None)
    wanted = [side * factor for side in target.shape[2:]] if isinstance(factor, int) else None
    if wanted and wanted != [*image.shape[2:]]:
        raise ValueError(f'upscale_factor={factor} makes {wanted[0]}x{wanted[1]} of the LR, the GT '
                         'is {}x{}'.format(*image.shape[2:]))
    device = next((b.device for b in operator.buffers()), 'cpu') if isinstance(
        operator, torch.nn.Module) else 'cpu'
    measured = apply_to_any(operator, 'A', image.to(device)).cpu()
    if lr.dtype == torch.uint8:
        measured = measured.round().clamp(0, 255)
    return operator, errors(measured, target)['PSNR']


def tell_difference(model, dataset, name):
    """Say so, once, if the LRs of a dataset are made otherwise than the PD head of a model assumes.

    That is legitimate, the paper does it (bicubic LR, pooling head); but nobody should do it
    unawares.

    Args:
        model (nn.Module): Any model; one without PD head is never told about.
        dataset (Dataset): Gives packed samples with GT; without GT nothing can be told.
        name (str): What to call it.

    Raises:
        InputError: if LR and GT do not fit the head at all.
        BadSample: if the first image cannot be used.
    """
    head = getattr(unwrap(model), 'pd_head', None)
    if head is None:
        return
    try:
        compared = _compare(head, dataset, unwrap(model))
    except BadSample:  # the image itself cannot be used
        raise
    except ValueError as error:
        raise InputError(f'{name}: the LR (by {lr_source(dataset)}) and the GT of the first image '
                         f'do not fit the PD head: {error}') from error
    if compared is None or compared[1] > SAME:
        return
    operator, psnr = compared
    key = lr_source(dataset), repr(operator)
    if key in _told:
        return
    _told.add(key)
    print_log(f'{name}: the LR is made by {key[0]}, the PD head has A = {key[1]}; on the first '
              f'image they differ by {psnr:.1f} dB PSNR. Outputs are consistent with the LR all '
              'the same; to train and test with one A, give LRSynthesis(operator=...) or '
              'pd_head.operator the other\'s', 'current',
              logging.WARNING if psnr < ANOTHER else logging.INFO)
