"""Checkpoints: reading them, keys without wrappers, and loading completely or not at all."""
import re
from urllib.error import URLError

from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import load_file
from torch.hub import get_dir

from ..errors import WeightsMismatch, WeightsNotFound

__all__ = ['load_completely', 'pretrained_cfg', 'read_state_dict', 'strip_wrapper_prefix']

WRAPPER = re.compile(r'(^|\.)(?:module\.)+')


def read_state_dict(checkpoint):
    """The state dict in a checkpoint file or URL, in mmengine's format, bare, or safetensors.

    Raises:
        WeightsNotFound: if the file does not exist or the URL cannot be reached.
        RuntimeError: if it cannot be read safely, or holds no state dict.
    """
    try:
        if str(checkpoint).endswith('.safetensors'):  # mmengine does not know the format
            content = load_file(checkpoint)
        else:
            content = CheckpointLoader.load_checkpoint(
                checkpoint, map_location='cpu', logger='silent')
    except FileNotFoundError as error:
        raise WeightsNotFound(f'pretrained weights: no file {checkpoint}') from error
    except URLError as error:
        raise WeightsNotFound(
            f'pretrained weights: cannot download {checkpoint}: {error}. Without network put the '
            f'file into {get_dir()}/checkpoints/, or name a local file in init_cfg.checkpoint.'
        ) from error
    except Exception as error:  # zip, pickle, tensor and refusal errors have no common base
        reason = str(error).strip().split('\n')[0]
        raise WeightsMismatch(
            f'pretrained weights: {checkpoint} cannot be read: {reason}') from error
    state = content.get('state_dict', content) if isinstance(content, dict) else None
    if not state or not all(hasattr(value, 'shape') for value in state.values()):
        raise WeightsMismatch(f'pretrained weights: {checkpoint} holds no state dict')
    return strip_wrapper_prefix(state)


def strip_wrapper_prefix(state_dict):
    """Remove the ``module.`` of DDP wrappers from the keys, at whatever level.

    ``MMSeparateDistributedDataParallel`` wraps the children of a model, so its
    checkpoints have keys like ``generator.module.x``, of which a plain model
    loads nothing, silently.

    Args:
        state_dict (dict): Keys to tensors.

    Returns:
        dict: ``state_dict`` itself if there is nothing to remove, else a new
        one of the same type, with the same ``_metadata``.

    Raises:
        ValueError: if two keys become the same.
    """
    if not any(WRAPPER.search(key) for key in state_dict):
        return state_dict
    cleaned = type(state_dict)()
    for key, value in state_dict.items():
        new = WRAPPER.sub(r'\1', key)
        if new in cleaned:
            raise ValueError(f'The checkpoint has {new!r} both with and without the "module." of '
                             'a DDP wrapper: it is not clear which one is meant.')
        cleaned[new] = value
    if hasattr(state_dict, '_metadata'):
        cleaned._metadata = type(state_dict._metadata)(
            (WRAPPER.sub(r'\1', f'{key}.')[:-1] if key else key, value)
            for key, value in state_dict._metadata.items())
    return cleaned


def pretrained_cfg(init_cfg):
    """The ``Pretrained`` entry of an ``init_cfg`` (a dict or a list of them), or None."""
    entries = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
    return next((entry for entry in entries if entry and entry.get('type') == 'Pretrained'), None)


def load_completely(module, checkpoint, prefix='', name='prior'):
    """Load a pretrained network into ``module``, strictly, and say so in the log.

    MMagic's ``init_cfg`` loads with ``strict=False``, so that a prior none of
    whose keys match stays random, without a word.

    Args:
        module (nn.Module): A StyleGAN2 generator or discriminator.
        checkpoint (str): File or URL.
        prefix (str): Which part of the checkpoint to take, e.g. 'generator_ema'.
        name (str): What to call it in messages.

    Raises:
        WeightsNotFound: if the checkpoint cannot be had.
        WeightsMismatch: if not all tensors of ``module`` are in the checkpoint with
            their shapes, or the checkpoint has others; names the first ones.
    """
    state = read_state_dict(checkpoint)
    if prefix:
        start = prefix.rstrip('.') + '.'
        chosen = {key[len(start):]: value for key, value in state.items() if key.startswith(start)}
        if not chosen:
            found = ', '.join(sorted({key.split('.')[0] for key in state})[:8])
            raise WeightsMismatch(f'{name}: {checkpoint} has no keys that begin with "{start}"; '
                               f'it has: {found}')
        state = chosen
    own = module.state_dict()
    if 'steps' not in own:
        state.pop('steps', None)  # the counter of mmengine's averaged models (generator_ema)
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    differing = [key for key in own if key in state and own[key].shape != state[key].shape]
    if missing or unexpected or differing:
        matched = len(own) - len(missing) - len(differing)
        problems = []
        if differing:
            key = differing[0]
            problems.append(f'"{key}" is {tuple(state[key].shape)} in the file and '
                            f'{tuple(own[key].shape)} in the model')
        if missing:
            problems.append(f'"{missing[0]}" is not in the file')
        if unexpected:
            problems.append(f'"{unexpected[0]}" of the file is not in the model')
        raise WeightsMismatch(
            f'{name}: {matched} of {len(own)} tensors match {checkpoint} (prefix "{prefix}"): '
            + '; '.join(problems) + '. Is it for another out_size or other channels?')
    module.load_state_dict(state)
    print_log(f'{name}: {len(own)} of {len(own)} tensors loaded from {checkpoint} '
              f'(prefix "{prefix}")', logger='current')
