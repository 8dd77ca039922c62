"""Is this checkpoint, whole and sound, one of this config? Asked before any work is done."""
import difflib
import logging
from pathlib import Path

import torch
from mmagic.registry import MODELS
from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import InputError, WeightsMismatch, WeightsNotFound
from ..utils.checkpoint import compare, match_model, sizes_of, state_dict_in, strip_wrapper_prefix
from ..utils.model import unwrap
from ..utils.reader import read_checkpoint
from .settings import known_configs

__all__ = ['check_checkpoint', 'check_matches', 'fitting_config']


def check_checkpoint(path, option, resume=False):
    """Read a checkpoint, file or URL, before anything is built.

    Args:
        path (str): Where it is; a URL is downloaded.
        option (str): Where it was named.
        resume (bool): Whether it must also hold what resuming needs besides the weights.

    Returns:
        dict: Its state dict, without the data: tensors on the device 'meta'.

    Raises:
        InputError: if it cannot be had or read, or holds no state dict.
    """
    try:
        content = read_checkpoint(path)
    except WeightsNotFound as error:
        raise InputError(f'no checkpoint {path} ({option}): {error}') from error
    except WeightsMismatch as error:
        raise InputError(f'checkpoint ({option}): {error}') from error
    missing = [key for key in ('meta', 'message_hub', 'optimizer') if key not in content]
    if resume and missing:
        raise InputError(f'checkpoint {path} ({option}) has no {", ".join(missing)}: it holds '
                         'weights to start from (--cfg-options load_from=FILE), not a run')
    try:
        state = state_dict_in(content, f'checkpoint {path} ({option})')
    except WeightsMismatch as error:
        raise InputError(str(error)) from error
    return {key: value.to('meta') for key, value in state.items()}


def check_matches(model, state, path, cfg, partial=False, training=False):
    """Raise InputError unless a checkpoint has all of the model's weights and no others.

    mmengine would load what fits, and go on with random weights for the rest.

    Args:
        model (nn.Module): The model as built.
        state (dict): What :func:`check_checkpoint` returned.
        path (str): The checkpoint, for messages.
        cfg (Config): The config of the model, which says whether a run is resumed.
        partial (bool): Only log what stays as it was initialised.
        training (bool): Whether the model is to be trained from it.
    """
    differences, own = match_model(model, state, training, bool(training and cfg.get('resume')))
    parts = {key.split('.')[0] for key in strip_wrapper_prefix(state)}
    if training and getattr(unwrap(model), 'discriminator', None) is not None and (
            'discriminator' not in parts):
        print_log(f'{path} has no discriminator: it stays as initialised', logger='current')
    if 'generator_ema' in parts and not hasattr(unwrap(model), 'generator_ema'):
        print_log(f'generator_ema of {path} is not used: that would need model.use_ema=True',
                  logger='current')
    if not differences.count:
        return
    loaded = len(own) - len(differences.missing) - len(differences.reshaped)
    # of another type: mmengine would load them, cut off
    retyped = any(isinstance(given, torch.dtype) for given, _ in differences.reshaped.values())
    if partial and loaded and not retyped:
        print_log(f'--allow-partial: {loaded} of {len(own)} tensors are loaded from {path}; these '
                  f'stay as initialised: {differences.unloaded or "none"}; of the file '
                  f'{len(differences.unexpected)} are not used', logger='current',
                  level=logging.WARNING)
        return
    fitting = fitting_config(state, cfg)
    advice = f'It fits {fitting}.' if fitting else 'It fits none of the configs of mmpd.'
    if loaded and not retyped:
        advice += ' --allow-partial loads what fits'
    raise InputError(f'checkpoint {path} is not one of this config: {loaded} of {len(own)} '
                     f'tensors fit, {differences.count} not: {differences.first}. {advice}')


def fitting_config(state, cfg):
    """The config whose generator has exactly the weights in ``state``, None if there is none.

    Of several the one whose name is nearest to that of ``cfg``.
    """
    name, seen = Path(cfg.filename or '').name, {}
    paths = sorted(known_configs().values(), reverse=True, key=lambda path: difflib.SequenceMatcher(
        None, path.name, name).ratio())
    found = {key: value for key, value in strip_wrapper_prefix(state).items()
             if key.startswith('generator.')}
    prior = 'generator.generator.'
    out_size = sizes_of({key.removeprefix(prior): value for key, value in found.items()
                         if key.startswith(prior)}).get('out_size')
    for path in paths if found else ():
        try:
            generator = Config.fromfile(path).model.generator
            generator.pop('init_cfg', None)
            if out_size not in (None, generator.get('out_size')):
                continue
            if repr(generator) not in seen:
                with torch.device('meta'):
                    own = MODELS.build(generator).state_dict()
                own = {f'generator.{key}': value for key, value in own.items()}
                seen[repr(generator)] = not compare(own, found).count
        except Exception:  # a config of another kind, or one whose base is not installed
            continue
        if seen[repr(generator)]:
            return path
    return None
