"""Checkpoints of other programs: read without running code, their weights found."""
import torch

from ..errors import WeightsMismatch
from .checkpoint import state_dict_in, strip_wrapper_prefix
from .reader import read_checkpoint

__all__ = ['generator_weights', 'read_content']

# where programs keep the weights, the averaged ones first
CONTAINERS = ('params_ema', 'params-ema', 'params', 'state_dict', 'model_state_dict', 'model',
              'net')
GENERATORS = ('generator_ema.', 'generator.', 'netG.')


def read_content(path):
    """What a checkpoint file holds; nothing in it is run.

    Args:
        path (str | Path): File of ``torch.save`` or safetensors, or a URL.

    Returns:
        dict: The content.

    Raises:
        WeightsNotFound: if there is no such file, or it cannot be downloaded.
        WeightsMismatch: if it cannot be read safely, or does not hold a dict.
    """
    content = read_checkpoint(path)
    if not content:
        raise WeightsMismatch(f'checkpoint {path} holds no weights')
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
    state = strip_wrapper_prefix(state_dict_in(dict(state_dict=state), path))
    for prefix in GENERATORS:
        part = {key[len(prefix):]: value for key, value in state.items() if key.startswith(prefix)}
        if part:
            part.pop('steps', None)  # the counter of mmengine's averaged models
            return part
    return state
