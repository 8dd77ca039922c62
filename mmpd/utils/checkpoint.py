"""Checkpoints: their state dicts, keys without wrappers, and loading completely or not at all."""
import re
from collections import Counter, defaultdict
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from mmengine.runner.checkpoint import get_state_dict

from ..errors import WeightsMismatch, WeightsNotFound
from .model import unwrap
from .reader import check_finite, read_checkpoint
from .validation import check_keys, check_path, check_str, type_name

__all__ = ['Differences', 'compare', 'load_completely', 'match_model', 'pretrained_cfg',
           'read_state_dict', 'sizes_of', 'state_dict_in', 'strip_wrapper_prefix']

WRAPPER = re.compile(r'(^|\.)(?:module\.)+')
COUNTERS = {'steps', 'n_averaged'}  # what averaged models keep beside ``module``


def read_state_dict(checkpoint):
    """The state dict in a checkpoint file or URL, in mmengine's format, bare, or safetensors.

    Raises:
        WeightsNotFound: if the file does not exist or the URL cannot be reached.
        WeightsMismatch: if it cannot be read safely, holds no state dict, or weights that are NaN
            or infinite.

    Example:
        >>> import torch
        >>> from mmpd.utils.checkpoint import read_state_dict
        >>> torch.save(dict(state_dict=torch.nn.Linear(2, 1).state_dict()), 'linear.pth')
        >>> sorted(read_state_dict('linear.pth'))
        ['bias', 'weight']
    """
    return state_dict_in(read_checkpoint(checkpoint), checkpoint)


def state_dict_in(content, name):
    """The state dict in what a checkpoint file holds, checked to be names and dense tensors.

    Others (sparse, quantised, without data) load nowhere, which ``strict=False`` hides.

    Args:
        content (dict): From :func:`mmpd.utils.reader.read_checkpoint`.
        name (str | Path): What to call the file in messages.

    Returns:
        dict: Keys to tensors.

    Raises:
        WeightsMismatch: if it is none; names the first key and what lies there. Or if weights are
            NaN or infinite.

    Example:
        >>> import torch
        >>> from mmpd.utils.checkpoint import state_dict_in
        >>> state_dict_in(dict(meta={}, state_dict=dict(bias=torch.zeros(1))), 'a.pth')
        {'bias': tensor([0.])}
    """
    state = content.get('state_dict', content)
    wrong = f'is a {type(state).__name__}' if not isinstance(state, dict) else (
        '' if state else 'is empty')
    for key, value in () if wrong else state.items():
        if not isinstance(key, str):
            wrong = f'has the {type(key).__name__} {key!r} for a name'
        elif not isinstance(value, torch.Tensor):
            wrong = f'has {key!r} of the type {type(value).__name__}'
        elif value.is_meta or value.is_quantized or value.layout != torch.strided:
            kind = 'a tensor without data' if value.is_meta else (
                'a quantised tensor' if value.is_quantized else 'a sparse tensor')
            wrong = f'has {kind} as {key!r}'
        if wrong:
            break
    if wrong:
        raise WeightsMismatch(f'{name} holds no state dict: expected names and dense tensors, '
                              f'{"state_dict" if state is not content else "it"} {wrong}')
    check_finite(state, name)
    return state


def strip_wrapper_prefix(state_dict, own=None):
    """Remove the ``module.`` of DDP wrappers from the keys, at whatever level.

    ``MMSeparateDistributedDataParallel`` wraps the children of a model, so its
    checkpoints have keys like ``generator.module.x``, of which a plain model
    loads nothing, silently. A child that is merely *named* ``module`` keeps its name: the model's
    keys tell it from a wrapper; without them, that it has siblings.

    Args:
        state_dict (dict): Keys to tensors.
        own (Iterable[str], optional): The keys of the model, without wrappers.

    Returns:
        dict: ``state_dict`` itself if there is nothing to remove, else a new
        one of the same type, with the same ``_metadata``.

    Raises:
        ValueError: if two keys become the same.

    Example:
        >>> import torch
        >>> from mmpd.utils.checkpoint import strip_wrapper_prefix
        >>> strip_wrapper_prefix({'generator.module.bias': torch.zeros(1)})
        {'generator.bias': tensor([0.])}
    """
    if own is None and not any(WRAPPER.search(key) for key in state_dict):
        return state_dict
    names = _without_wrappers(state_dict, own)
    if all(key == new for key, new in names.items()):
        return state_dict
    cleaned, modules = type(state_dict)(), {}
    for key, new in names.items():
        if new in cleaned:
            raise ValueError(f'The checkpoint has {new!r} both with and without the "module." of '
                             'a DDP wrapper: it is not clear which one is meant.')
        cleaned[new] = state_dict[key]
        modules.update(_modules(key, new))
    if hasattr(state_dict, '_metadata'):
        cleaned._metadata = type(state_dict._metadata)(
            (modules.get(key, key), value) for key, value in state_dict._metadata.items())
    return cleaned


def _without_wrappers(keys, own):
    """{key: key without the ``module.`` of wrappers}."""
    children = defaultdict(set)
    for key in keys:
        parts = key.split('.')
        for index, part in enumerate(parts):
            children['.'.join(parts[:index])].add(part)

    def alone(key):
        parts = key.split('.')
        return '.'.join(
            part for index, part in enumerate(parts) if part != 'module'
            or index == len(parts) - 1
            or children['.'.join(parts[:index])] - COUNTERS != {'module'})

    own = set(own or ())
    ours = {WRAPPER.sub(r'\1', key): key for key in own}
    return {key: key if key in own else ours.get(WRAPPER.sub(r'\1', key)) or alone(key)
            for key in keys}


def _modules(key, new):
    """The modules on the way to a key under their old and new names."""
    old, kept = key.split('.'), new.split('.')
    path = []
    for index in range(len(old), 0, -1):  # from the end: which parts were kept
        here = bool(kept) and old[index - 1] == kept[-1]
        path.append(('.'.join(old[:index]), '.'.join(kept)))
        if here:
            kept.pop()
    return dict(reversed(path[1:]))


def pretrained_cfg(init_cfg):
    """The ``Pretrained`` entry of an ``init_cfg`` (a dict or a list of them), or None.

    Raises:
        ArgumentError: if it has no checkpoint, or keys that are not mmengine's.

    Example:
        >>> from mmpd.utils.checkpoint import pretrained_cfg
        >>> pretrained_cfg([dict(type='Kaiming'), dict(type='Pretrained', checkpoint='prior.pth')])
        {'type': 'Pretrained', 'checkpoint': 'prior.pth'}
    """
    entries = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
    names = 'Pretrained', 'PretrainedInit'  # as registered, and of the class
    found = next((entry for entry in entries if type_name(entry) in names), None)
    if found is not None:
        check_keys(found, 'init_cfg', ('type', 'checkpoint', 'prefix', 'map_location'))
        check_path(found.get('checkpoint'), 'init_cfg.checkpoint', 'a file or address')
        if found.get('prefix'):
            check_str(found['prefix'], 'init_cfg.prefix')
    return found


class Differences(NamedTuple):
    """How a state dict differs from that of a model.

    Example:
        >>> from mmpd.utils.checkpoint import Differences
        >>> found = Differences(['fc.bias'], [], {'fc.weight': ((1, 3), (1, 2))})
        >>> found.count, found.unloaded
        (2, 'fc.bias (1), fc.weight (1)')
        >>> found.first
        '"fc.weight" is (1, 3) in the file and (1, 2) in the model; "fc.bias" is not in the file'
    """
    missing: list  # keys that only the model has
    unexpected: list  # keys that only the state dict has
    reshaped: dict  # key: (shape or type in the state dict, that in the model)

    @property
    def count(self):
        return len(self.missing) + len(self.unexpected) + len(self.reshaped)

    @property
    def first(self):
        """The first differences in words, one of each kind."""
        problems = [f'"{key}" is {given} in the file and {expected} in the model'
                    for key, (given, expected) in list(self.reshaped.items())[:1]]
        problems += [f'"{key}" is not in the file' for key in self.missing[:1]]
        problems += [f'"{key}" of the file is not in the model' for key in self.unexpected[:1]]
        return '; '.join(problems)

    @property
    def unloaded(self):
        """Which parts of the model get nothing from the state dict, with numbers of tensors."""
        parts = Counter('.'.join(key.split('.')[:2]) for key in [*self.missing, *self.reshaped])
        return ', '.join(f'{part} ({number})' for part, number in parts.items())


def compare(own, state):
    """How ``state`` differs from ``own``, the state dict of a model.

    Counters of batch normalisation, which old files lack, are not missed. Real floating point
    types are one kind: they load into each other; whole, boolean and complex numbers for such
    weights are others, which copying would cut off without a word.

    Example:
        >>> from torch import nn
        >>> from mmpd.utils.checkpoint import compare
        >>> compare(nn.Linear(2, 1).state_dict(), nn.Linear(3, 1, bias=False).state_dict())
        Differences(missing=['bias'], unexpected=[], reshaped={'weight': ((1, 3), (1, 2))})
    """
    return Differences(
        [key for key in own if key not in state and not key.endswith('num_batches_tracked')],
        [key for key in state if key not in own],
        {key: (tuple(state[key].shape), tuple(value.shape)) if state[key].shape != value.shape
         else (state[key].dtype, value.dtype) for key, value in own.items() if key in state
         and (state[key].shape != value.shape or value.is_floating_point()
              and not state[key].is_floating_point())})


def match_model(model, state, training=False, resuming=False):
    """How a checkpoint's state dict differs from a model in what the model cannot do without.

    Not compared are counters of steps, and perceptual losses, which load weights of their own;
    outside training discriminators; on starting from weights a discriminator that the
    file has not, as published generators have none; and a ``generator_ema`` of the file that
    the model does not keep.

    Args:
        model (nn.Module): The model, possibly in a wrapper.
        state (dict): Keys to tensors, on any device.
        training (bool): Whether the model is to be trained from it.
        resuming (bool): Whether a run is to go on.

    Returns:
        tuple[Differences, dict]: the differences, and the part of the model's state dict
        that was compared.

    Example:
        >>> import torch
        >>> from mmpd.utils.checkpoint import match_model
        >>> model = torch.nn.ModuleDict(dict(generator=torch.nn.Linear(2, 1)))
        >>> differences, compared = match_model(model, {'generator.module.bias': torch.zeros(1)})
        >>> differences.missing, sorted(compared)
        (['generator.weight'], ['generator.bias', 'generator.weight'])
    """
    model = unwrap(model)
    own = get_state_dict(model)
    adapt = getattr(model, 'adapt_state_dict', None)  # of GANPriorSR
    state = adapt(state) if adapt else strip_wrapper_prefix(state, own)
    parts = [{key.split('.')[0] for key in keys} for keys in (own, state)]
    ignored = {'step_counter', 'perceptual_loss'}
    if not training or not resuming and 'discriminator' not in parts[0] & parts[1]:
        ignored.add('discriminator')
    if 'generator_ema' not in parts[0]:
        ignored.add('generator_ema')
    own, state = ({key: value for key, value in keys.items() if key.split('.')[0] not in ignored
                   and key != 'generator_ema.steps'} for keys in (own, state))
    return compare(own, state), own


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
        WeightsMismatch: if it cannot be read, or if not all tensors of ``module`` are in it with
            their shapes, or it has others; names sizes that differ, then the first tensors.

    Example:
        >>> import torch
        >>> from mmpd.utils.checkpoint import load_completely
        >>> trained, prior = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
        >>> torch.save(torch.nn.ModuleDict(dict(generator_ema=trained)).state_dict(), 'prior.pth')
        >>> load_completely(prior, 'prior.pth', prefix='generator_ema')
        >>> torch.equal(prior.weight, trained.weight)
        True
    """
    try:
        state = read_state_dict(checkpoint)
    except WeightsMismatch as error:
        raise WeightsMismatch(f'{name}: {error}') from error
    except WeightsNotFound as error:
        raise WeightsNotFound(f'{name}: {error} (init_cfg.checkpoint)') from error
    own = module.state_dict()
    if prefix:
        start = re.compile(r'(module\.)*' + re.escape(prefix.rstrip('.') + '.'))
        chosen = {key[start.match(key).end():]: value for key, value in state.items()
                  if start.match(key)}
        if not chosen:
            plain = strip_wrapper_prefix(state)
            found = ', '.join(sorted({key.split('.')[0] for key in plain})[:8])
            raise WeightsMismatch(f'{name}: {checkpoint} has no keys that begin with '
                                  f'"{prefix.rstrip(".")}."; it has: {found}')
        state = chosen
    if 'steps' not in own:
        state.pop('steps', None)  # the counter of mmengine's averaged models (generator_ema)
    state = strip_wrapper_prefix(state, own)
    differences = compare(own, state)
    if differences.count:
        matched = len(own) - len(differences.missing) - len(differences.reshaped)
        raise WeightsMismatch(
            f'{name}: {_sizes(state, own)}{matched} of {len(own)} tensors match {checkpoint} '
            f'(prefix "{prefix}"): {differences.first}')
    module.load_state_dict(state)
    print_log(f'{name}: {len(own)} of {len(own)} tensors loaded from {checkpoint} '
              f'(prefix "{prefix}")', logger='current')


def sizes_of(state):
    """What the keys and shapes of a StyleGAN2 generator or discriminator say of its size.

    Example:
        >>> from mmpd.models.generators import StyleGAN2Prior
        >>> from mmpd.utils.checkpoint import sizes_of
        >>> prior = StyleGAN2Prior(8, style_channels=4, num_mlps=2, channels={4: 6, 8: 6})
        >>> sizes_of(prior.state_dict())
        {'out_size': 8, 'num_mlps': 2, 'style_channels': 4, 'width at 4 px': 6}
    """
    sizes = {}
    noises = [int(key.rsplit('_', 1)[1]) for key in state
              if re.fullmatch(r'injected_noise_\d+', key)]
    blocks = [int(key.split('.')[1]) for key in state if re.match(r'convs\.\d+\.', key)]
    if noises:  # two at each resolution but the first
        sizes['out_size'] = 2**(max(noises) // 2 + 2)
        layers = [key for key in state if re.fullmatch(r'style_mapping\.\d+\.bias', key)]
        sizes['num_mlps'] = len(layers)
        if layers:
            sizes['style_channels'] = state[layers[0]].shape[0]
        if 'constant_input.input' in state:
            sizes['width at 4 px'] = state['constant_input.input'].shape[1]
    elif blocks:
        sizes['in_size'] = 2**(max(blocks) + 2)
    return sizes


def _sizes(state, own):
    """The sizes in which two networks differ, in words, or ''."""
    given, expected = sizes_of(state), sizes_of(own)
    differing = [key for key in expected if given.get(key, expected[key]) != expected[key]]
    if not differing:
        return ''
    texts = [', '.join(f'{key} {sizes[key]}' for key in differing) for sizes in (given, expected)]
    return f'the checkpoint has {texts[0]}, the model {texts[1]}; '
