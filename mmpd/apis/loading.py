"""Models for inference, from a config, a name of the model zoo or a checkpoint."""
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from mmagic.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from torch import nn

from ..errors import InputError, WeightsMismatch, first_line
from ..models.editors.pd_types import for_inference
from ..utils.checkpoint import match_model, read_state_dict, strip_wrapper_prefix
from ..utils.download import sha256_of
from ..utils.model_zoo import ModelSource, resolve_model

__all__ = ['LoadedModel', 'load_model']


@dataclass
class LoadedModel:
    """A model with PD and its weights.

    Attributes:
        model (nn.Module): On the CPU, in evaluation mode.
        name (str): Of its config, in the zoo, or of its checkpoint.
        weights (str): How the SHA-256 of the weights begins.
    """
    model: nn.Module
    name: str
    weights: str


def load_model(model, checkpoint=None, cfg_options=None, pd_head=None, test_cfg=None):
    """Build a model and load its weights, completely or not at all.

    A model without PD is given it (``PDModel``): everything comes out consistent.

    Args:
        model (Config | str | Path): A config or its file, a name of the model zoo, or a
            checkpoint whose network is recognised.
        checkpoint (str, optional): File or URL; not with a checkpoint, and not needed with a name.
        cfg_options (dict, optional): Overrides, e.g. ``{'model.pd_head.strength': 0.5}``.
        pd_head (dict, optional): Overrides of ``model.pd_head``; an operator replaces the other.
        test_cfg (dict, optional): Overrides of ``model.test_cfg``.

    Returns:
        LoadedModel: The model.

    Raises:
        InputError: no such model, or it cannot be built.
        WeightsNotFound: no such checkpoint.
        WeightsMismatch: the checkpoint is not one of this model; names the first key.
    """
    if isinstance(model, Config):
        source, cfg = ModelSource('config', None, checkpoint), deepcopy(model)
    else:
        source, cfg = resolve_model(model, checkpoint), None
    pd_head, test_cfg = dict(pd_head or {}), dict(test_cfg or {})
    if cfg is None and source.config is None:
        if cfg_options:
            raise InputError(f'{model}: a checkpoint has no config that options could change')
        return _recognised(source, pd_head, test_cfg)
    if cfg is None:
        cfg = _read_config(source.config)
    network = _build(cfg, source.name, cfg_options or {}, pd_head, test_cfg)
    checkpoint = source.checkpoint or cfg.get('load_from')
    if checkpoint is None:
        own = getattr(network.generator, 'checkpoint', None)  # SpandrelGenerator
        if own is None:
            raise InputError(f'{source.name}: a config needs a checkpoint as well')
        return LoadedModel(network.eval(), source.name, _fingerprint(own))
    _load_weights(network, checkpoint, source.name)
    return LoadedModel(network.eval(), source.name, _fingerprint(checkpoint))


def _recognised(source, pd_head, test_cfg):
    from .recognition import recognise
    found = recognise(source.checkpoint)
    own = found.model.get('pd_head')
    if found.kind == 'ONNX' and own and pd_head:
        raise InputError(
            f'{source.checkpoint}: has PD of its own ({own["operator"]["type"]}, strength '
            f'{own["strength"]:g}), which is applied once only, so {" and ".join(pd_head)} cannot '
            'be set; export the network without PD for that (mmpd-export --raw)')
    settings = dict(pd_head={**found.model.get('pd_head', {}), **pd_head},
                    test_cfg={**found.model.get('test_cfg', {}), **test_cfg})
    return LoadedModel(found.build(**settings), source.name, _fingerprint(source.checkpoint))


def _read_config(path):
    try:
        return Config.fromfile(path)
    except Exception as error:  # whatever a config file can do wrong
        raise InputError(f'config {path}: {type(error).__name__}: {first_line(error)}') from error


def _build(cfg, name, options, pd_head, test_cfg):
    """The network of a config, which ``options`` change; InputError says what is wrong with it."""
    init_default_scope(cfg.get('default_scope', 'mmagic'))
    for key in options:
        if key.split('.')[0] not in cfg:
            raise InputError(f'{key}: the config of {name} has no {key.split(".")[0]!r}')
    try:
        cfg.merge_from_dict(options)
        return _with_pd(cfg, pd_head, test_cfg)
    except InputError:
        raise
    except Exception as error:  # whatever a config and a constructor can do wrong
        raise InputError(f'{name}: the model cannot be built: '
                         f'{type(error).__name__}: {first_line(error)}') from error


def _with_pd(cfg, pd_head, test_cfg):
    model = ConfigDict(for_inference(cfg.model))
    model.pd_head = {**(model.get('pd_head') or {}), **pd_head}
    model.test_cfg = {**(model.get('test_cfg') or {}), **test_cfg}
    return MODELS.build(model)


def _load_weights(network, checkpoint, name):
    state = read_state_dict(checkpoint)
    differences, own = match_model(network, state)
    if differences.count:
        raise WeightsMismatch(f'checkpoint {checkpoint} is not one of {name}: of {len(own)} '
                              f'tensors {differences.count} differ: {differences.first}')
    state = strip_wrapper_prefix(state, own)
    network.load_state_dict({key: value for key, value in state.items() if key in own},
                            strict=False)  # match_model has seen to it


def _fingerprint(checkpoint):
    """The first eight digits of a checkpoint's SHA-256; a published name has them in it."""
    if '://' in str(checkpoint):
        return Path(str(checkpoint)).stem.rsplit('-', 1)[-1][:8]
    path = Path(checkpoint)
    return sha256_of(path.with_suffix('.bin') if path.suffix == '.param' else path)[:8]
