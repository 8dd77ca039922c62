"""What network a checkpoint file holds, so that it can be used without a config."""
import ast
from dataclasses import dataclass, field
from pathlib import Path

import torch
from mmagic.registry import MODELS
from mmengine.registry import init_default_scope

from ..errors import WeightsMismatch
from ..models.editors.pd_types import TRAINING_ONLY, for_inference
from ..models.generators import OnnxGenerator
from ..models.generators.spandrel_generator import load_spandrel
from ..operators import build_operator
from ..utils.checkpoint import Differences, compare, state_dict_in
from ..utils.foreign import generator_weights, read_content
from ..utils.ncnn import read_rrdb

__all__ = ['RecognisedModel', 'recognise', 'rrdbnet_config']


@dataclass
class RecognisedModel:
    """What a checkpoint file holds.

    Attributes:
        kind (str): 'mmpd' (a checkpoint of mmengine that carries its config), 'RRDBNet'
            (MMagic's own network: ESRGAN, Real-ESRGAN, BSRGAN's keys, ncnn files), 'ONNX' or
            'spandrel'.
        architecture (str): For messages, e.g. 'SwinIR'.
        scale (int | None): By how much it enlarges; None where only its config says so.
        model (dict): Config of a model type with PD (``PDModel`` …), for ``MODELS.build``.
        weights (dict | None): State dict of the whole model, or None where the generator loads
            the file itself.
    """
    kind: str
    architecture: str
    scale: int
    model: dict
    weights: dict = field(repr=False)

    def build(self, **settings):
        """The model in evaluation mode, with its weights.

        Args:
            settings: Set in the model's config, e.g. ``pd_head=dict(operator=...)``.

        Returns:
            nn.Module: On the CPU.

        Raises:
            WeightsMismatch: if a tensor is missing, superfluous, or of another shape or type.
        """
        init_default_scope('mmagic')
        model = MODELS.build(dict(self.model, **settings))
        if self.weights is not None:
            unlike = Differences([], [], compare(model.state_dict(), self.weights).reshaped)
            if unlike.count:  # of another type, which would be cut off without a word
                raise WeightsMismatch(unlike.first)
            try:
                model.load_state_dict(self.weights)
            except RuntimeError as error:
                raise WeightsMismatch(' '.join(str(error).split())) from error
        return model.eval()


def _pd_model(generator, mean, std):
    return dict(
        type='PDModel', base='BaseEditModel', generator=generator,
        pixel_loss=dict(type='L1Loss'),
        data_preprocessor=dict(type='DataPreprocessor', mean=[mean] * 3, std=[std] * 3))


def _rrdbnet(generator, state):
    return RecognisedModel(
        'RRDBNet', f'RRDBNet with {generator["num_blocks"]} blocks', generator['upscale_factor'],
        _pd_model(generator, 0., 255.),
        {f'generator.{key}': value for key, value in state.items()})


def _onnx(path):
    generator = OnnxGenerator(path)
    model = _pd_model(dict(type='OnnxGenerator', checkpoint=path), 0., 255.)
    if generator.own_pd is not None:
        operator = generator.own_pd['operator']
        if operator is None:
            raise WeightsMismatch(
                f'{path}: has PD of its own, whose A ({generator.own_pd["name"]}) cannot be made '
                'from the file, so no 8-bit file could be rounded by it: export the network '
                'without PD (mmpd-export --raw)')
        try:
            build_operator(operator)
        except ValueError as error:  # of another version, say
            raise WeightsMismatch(f'{path}: its PD: {error}') from error
        model['pd_head'] = dict(operator=operator, strength=generator.own_pd['strength'])
    return RecognisedModel('ONNX', 'an ONNX file', generator.scale, model, None)


def rrdbnet_config(state):
    """The config of MMagic's RRDBNet that has exactly these tensors, or None.

    Args:
        state (dict): Names and tensors. Those of Real-ESRGAN's own files are the same.
    """
    try:
        mid, channels_in = state['conv_first.weight'].shape[:2]
        growth = state['body.0.rdb1.conv1.weight'].shape[0]
        channels_out = state['conv_last.weight'].shape[0]
    except KeyError:
        return None
    factor = {1: 4, 4: 2, 16: 1}.get(channels_in / channels_out)
    if factor is None:
        return None
    blocks = len({key.split('.')[1] for key in state if key.startswith('body.')})
    config = dict(type='RRDBNet', in_channels=channels_out, out_channels=channels_out,
                  mid_channels=mid, num_blocks=blocks, growth_channels=growth,
                  upscale_factor=factor)
    with torch.device('meta'):
        wanted = MODELS.build(config).state_dict()
    same = state.keys() == wanted.keys() and all(
        state[key].shape == value.shape for key, value in wanted.items())
    return config if same else None


def _literal(node):
    """The value of an expression of constants, lists, dicts and ``dict(...)``; nothing is run."""
    if isinstance(node, ast.Call):
        parts = [_literal(item) for item in node.args]  # dict({4: 8})
        parts += [{item.arg: _literal(item.value)} for item in node.keywords]
        if getattr(node.func, 'id', None) != 'dict' or not all(
                isinstance(part, dict) and None not in part for part in parts):
            raise ValueError('not a constant')
        return {key: value for part in parts for key, value in part.items()}
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [_literal(item) for item in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    if isinstance(node, ast.Dict):
        return {_literal(key): _literal(value)
                for key, value in zip(node.keys, node.values, strict=True)}
    return ast.literal_eval(node)


def _config_model(content):
    """The model's config that mmengine keeps in its checkpoints as text, or None."""
    text = (content.get('meta') or {}).get('cfg') if isinstance(content.get('meta'), dict) else None
    if not isinstance(text, str):
        return None
    try:
        for statement in ast.parse(text).body:
            if isinstance(statement, ast.Assign) and getattr(
                    statement.targets[0], 'id', None) == 'model':
                return _literal(statement.value)
    except (SyntaxError, ValueError, RecursionError):
        pass
    return None


def _mmengine_checkpoint(content, path):
    """A checkpoint of a run, its config in it; None if there is none or it is of another type."""
    model = _config_model(content)
    kind = MODELS.get(model['type']) if isinstance(
        model, dict) and isinstance(model.get('type'), str) else None
    if kind is None or not isinstance(content.get('state_dict'), dict):
        return None
    weights = {key: value for key, value in state_dict_in(content, path).items()
               if key.split('.')[0] not in TRAINING_ONLY and key != 'step_counter'}
    architecture = (model.get('generator') or {}).get('type', model['type'])
    return RecognisedModel('mmpd', str(architecture), None, for_inference(model), weights)


def recognise(path):
    """Find out what network a file holds.

    Args:
        path (str | Path): A checkpoint of this package or of MMagic, one of another program
            (``*.pth``, ``*.pt``, ``*.ckpt``, ``*.safetensors``), ncnn's ``*.param`` or ``*.bin``,
            or ``*.onnx``.

    Returns:
        RecognisedModel: What to build. PD is in it, with average pooling as A, unless its own
        config says otherwise.

    Raises:
        WeightsNotFound: if there is no such file.
        WeightsMismatch: if it cannot be read safely, or the network is not known or does not
            enlarge images; names it.
        NcnnError: if ncnn files are damaged or hold another network.
        MissingPackage: if spandrel or onnxruntime would be needed and is not installed.
    """
    path = str(path)
    if path.endswith(('.param', '.bin')):
        state, generator = read_rrdb(Path(path).with_suffix('.param'))
        return _rrdbnet(generator, state)
    if path.endswith('.onnx'):
        return _onnx(path)
    content = read_content(path)
    found = _mmengine_checkpoint(content, path)
    if found:
        return found
    state = generator_weights(content, path)
    generator = rrdbnet_config(state)
    if generator and generator['upscale_factor'] > 1:
        return _rrdbnet(generator, state)
    try:
        descriptor = load_spandrel(path, state)
    except WeightsMismatch as error:
        if 'meta' not in content:
            raise
        raise WeightsMismatch(f'{path}: a checkpoint of mmengine without a usable config in it, '
                              'and the network is not recognised: name its config too') from error
    return RecognisedModel(
        'spandrel', descriptor.architecture.name, descriptor.scale,
        _pd_model(dict(type='SpandrelGenerator', checkpoint=path), 127.5, 127.5), None)
