"""Checkpoints of other programs: read without running code, their weights found."""
import pickle
from urllib.error import URLError

import torch
from safetensors.torch import load_file

from ..errors import WeightsMismatch, WeightsNotFound
from .checkpoint import strip_wrapper_prefix

__all__ = ['generator_weights', 'read_content']

# where programs keep the weights, the averaged ones first
CONTAINERS = ('params_ema', 'params-ema', 'params', 'state_dict', 'model_state_dict', 'model',
              'net')
GENERATORS = ('generator_ema.', 'generator.', 'netG.')


def read_content(path):
    """What a checkpoint file holds; nothing in it is run (``weights_only``).

    mmengine's own loader does not ask for that where it downloads.

    Args:
        path (str | Path): File of ``torch.save`` or safetensors, or a URL.

    Returns:
        dict: The content.

    Raises:
        WeightsNotFound: if there is no such file, or it cannot be downloaded.
        WeightsMismatch: if it cannot be read safely, or does not hold a dict.
    """
    try:
        if str(path).endswith('.safetensors'):
            content = load_file(path)
        elif '://' in str(path):
            content = torch.hub.load_state_dict_from_url(
                str(path), map_location='cpu', weights_only=True)
        else:
            content = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError as error:
        raise WeightsNotFound(f'no checkpoint {path}') from error
    except URLError as error:
        raise WeightsNotFound(f'cannot download {path}: {error}') from error
    except Exception as error:  # zip, pickle, tensor and refusal errors have no common base
        reason = str(error).strip().split('\n')[0]
        if isinstance(error, pickle.UnpicklingError):
            reason = 'it holds more than weights, or is no checkpoint at all, and is not unpickled'
        raise WeightsMismatch(f'checkpoint {path} cannot be read: {reason}') from error
    if not isinstance(content, dict) or not content:
        raise WeightsMismatch(f'checkpoint {path} holds no weights but a {type(content).__name__}')
    return content


def generator_weights(content, path):
    """The weights of the network that makes the image, in whatever container they lie.

    Args:
        content (dict): From :func:`read_content`.
        path (str | Path): Its file, for messages.

    Returns:
        dict[str, Tensor]: Of ``generator_ema`` or ``generator`` where the checkpoint is that of
        a whole model of MMagic, without wrappers' and these prefixes.

    Raises:
        WeightsMismatch: if there are none.
    """
    state = content
    for _ in range(2):  # {'model': {'params_ema': {...}}}
        name = next((key for key in CONTAINERS if isinstance(state.get(key), dict)), None)
        if name is None:
            break
        state = state[name]
    state = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    if not state:
        raise WeightsMismatch(f'checkpoint {path} holds no weights; it has: '
                              f'{", ".join(map(str, list(content)[:8]))}')
    state = strip_wrapper_prefix(state)
    for prefix in GENERATORS:
        part = {key[len(prefix):]: value for key, value in state.items() if key.startswith(prefix)}
        if part:
            part.pop('steps', None)  # the counter of mmengine's averaged models
            return part
    return state
