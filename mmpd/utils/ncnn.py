"""RRDB networks (ESRGAN, Real-ESRGAN, RealSR) from ncnn's param and bin files.

The param file is text: a graph of layers.  The bin file holds, convolution by convolution, a
four-byte flag (0x01306B47: the weights follow as float16, padded to four bytes; 0: as float32),
the weights and the biases, always float32.  Only networks that compute exactly what MMagic's
RRDBNet computes are taken: the graph is compared node by node, not merely counted.
"""
import math
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError

__all__ = ['NcnnError', 'read_rrdb']

MAGIC = '7767517'
FLOAT32, FLOAT16 = 0, 0x01306B47
SLOPE, RESIDUAL = 0.2, 0.2  # of RRDBNet's leaky ReLU and of its residual branches
PARAM_LIMIT = 16 << 20  # bytes; those of 23 blocks take 0.1 MB
CONVOLUTION = {1: 3, 2: 1, 3: 1, 4: 1, 5: 1}  # kernel, dilation, stride, padding, bias
OTHER_SIDE = {11: 1, 12: 2, 13: 3, 14: 4, 15: 4, 16: 4}  # defaults to the key it maps to
NAMES = {1: 'kernel size', 2: 'dilation', 3: 'stride', 4: 'padding', 5: 'bias'}


class NcnnError(InputError, ValueError):
    """The files are damaged, or hold another network than an RRDBNet."""


class Layer:
    """One line of a param file.

    Args:
        line (str): ``type name #inputs #outputs inputs… outputs… key=value…``.
        path (Path): Its file, for messages.
    """

    def __init__(self, line, path):
        self.path, words = path, line.split()
        try:
            self.kind, self.name = words[:2]
            inputs, outputs = int(words[2]), int(words[3])
            if min(inputs, outputs) < 0 or len(words) < 4 + inputs + outputs:
                raise ValueError
            self.inputs = words[4:4 + inputs]
            self.outputs = words[4 + inputs:4 + inputs + outputs]
            self.values = dict(self._value(word) for word in words[4 + inputs + outputs:])
        except (ValueError, IndexError):
            raise NcnnError(f'{path}: not a line of an ncnn graph: "{line[:80]}"') from None

    @staticmethod
    def _value(word):
        """``key=value``; arrays are ``-23300-key=length,values``."""
        key, _, text = word.partition('=')
        key, numbers = int(key), [float(part) for part in text.split(',')]
        if key <= -23300:
            if len(numbers) != numbers[0] + 1:
                raise ValueError
            return -23300 - key, tuple(numbers[1:])
        number, = numbers
        return key, int(number) if number.is_integer() else number

    def get(self, key, default=0):
        """A setting, with ncnn's default."""
        value = self.values.get(key, default)
        if isinstance(value, tuple) != isinstance(default, tuple):
            raise NcnnError(f'{self.path}: {self}: expected '
                            f'{"several numbers" if default == () else "a number"} as setting '
                            f'{key}, got {value}')
        return value

    def __str__(self):
        return f'layer "{self.name}" ({self.kind})'


class Graph:
    """Expressions by number: equal expressions have equal numbers.

    Two networks compute the same if the numbers of their outputs are equal.  A
    sum is a set of terms with coefficients, however it was written.
    """

    def __init__(self):
        self.numbers, self.expressions = {}, []

    def __len__(self):
        return len(self.expressions)

    def add(self, *expression):
        if expression not in self.numbers:
            self.numbers[expression] = len(self.expressions)
            self.expressions.append(expression)
        return self.numbers[expression]

    def total(self, *terms):
        """Σ coefficient · expression."""
        flat = []
        for coefficient, node in terms:
            kind, *rest = self.expressions[node]
            if kind == 'sum' and len(rest[0]) == 1:  # a product with a number, to be merged
                (inner, node), = rest[0]
                coefficient *= inner
            flat.append((round(coefficient, 6), node))
        return self.add('sum', tuple(sorted(flat)))

    def activated(self, node, slope):
        return self.add('leaky ReLU', round(slope, 6), node)

    def rrdb(self, blocks):
        """RRDBNet with so many blocks; convolutions are numbered as they are run."""
        count = iter(range(15 * blocks + 6))

        def conv(node, activate=False):
            node = self.add('conv', next(count), node)
            return self.activated(node, SLOPE) if activate else node

        first = x = conv(self.add('input'))
        for _ in range(blocks):
            block = x
            for _ in range(3):
                dense = [x]
                for _ in range(4):
                    joined = self.add('concat', tuple(dense)) if len(dense) > 1 else x
                    dense.append(conv(joined, activate=True))
                x = self.total((RESIDUAL, conv(self.add('concat', tuple(dense)))), (1, x))
            x = self.total((RESIDUAL, x), (1, block))
        x = self.total((1, first), (1, conv(x)))
        for _ in range(2):
            x = conv(self.add('nearest', 2, x), activate=True)
        return conv(conv(x, activate=True))


def _read_layers(path):
    try:
        if path.stat().st_size > PARAM_LIMIT:
            raise NcnnError(f'{path}: {path.stat().st_size} bytes are too many for an ncnn graph')
        lines = path.read_text('ascii').splitlines()
    except FileNotFoundError:
        raise NcnnError(f'{path}: no such file') from None
    except (OSError, UnicodeDecodeError) as error:
        raise NcnnError(f'{path}: cannot be read as an ncnn param file: {error}') from error
    if not lines or lines[0].strip() != MAGIC:
        raise NcnnError(f'{path}: not an ncnn param file: expected {MAGIC} in its first line')
    try:
        count = int(lines[1].split()[0])
    except (IndexError, ValueError):
        raise NcnnError(f'{path}: no layer count in its second line') from None
    layers = [Layer(line, path) for line in lines[2:] if line.strip()]
    if len(layers) != count:
        raise NcnnError(f'{path}: {count} layers expected, {len(layers)} found: is it complete?')
    return layers


def _convolution_widths(layers, path):
    """(output, input) channels of every convolution."""
    widths = []
    for layer in (layer for layer in layers if layer.kind == 'Convolution'):
        wrong = [(key, layer.get(key)) for key, value in CONVOLUTION.items()
                 if layer.get(key, {2: 1, 3: 1}.get(key, 0)) != value]
        wrong += [(other, layer.get(key)) for key, other in OTHER_SIDE.items()
                  if layer.get(key, layer.get(other, CONVOLUTION[other])) != CONVOLUTION[other]]
        if wrong:
            key, value = wrong[0]
            raise NcnnError(f'{path}: {layer} has {NAMES[key]} {value}, expected '
                            f'{CONVOLUTION[key]}: this is not an RRDBNet')
        if layer.get(8):
            raise NcnnError(f'{path}: {layer} is quantised to 8 bits; only float weights are read')
        out, weights = layer.get(0), layer.get(6)
        if not (isinstance(out, int) and isinstance(weights, int) and min(out, weights) > 0
                and weights % (9 * out) == 0):
            raise NcnnError(f'{path}: {layer} cannot have {weights} weights for {out} channels')
        widths.append((out, weights // (9 * out)))
    return widths


def _inputs_of(layer, blobs, path):
    """Expressions that a layer takes, as many as its kind does."""
    try:
        inputs = [blobs[name] for name in layer.inputs]
    except KeyError as error:
        raise NcnnError(f'{path}: {layer} takes {error}, which no layer before it gives') from None
    arity = 0 if layer.kind == 'Input' else 1
    if layer.kind not in ('Concat', 'Eltwise', 'BinaryOp') and len(inputs) != arity:
        raise NcnnError(f'{path}: {layer} has {len(inputs)} inputs, expected {arity}')
    return inputs


def _convolved(graph, layer, number, node):
    """A convolution and its activation."""
    node, activation = graph.add('conv', number, node), layer.get(9)
    if activation == 2:
        return graph.activated(node, *(layer.get(10, ()) or (math.nan,))[:1])
    return graph.add('activation', activation, node) if activation else node


def _weighted(graph, layer, inputs, path):
    factors = layer.get(1, ()) or (1,) * len(inputs)
    if len(factors) != len(inputs):
        raise NcnnError(f'{path}: {layer} has {len(factors)} factors for {len(inputs)} inputs')
    return graph.total(*zip(factors, inputs, strict=True))


def _expression(graph, layer, inputs, convolutions, path):
    """The number of what a layer computes, ``convolutions`` of them being before it."""
    kind, setting = layer.kind, layer.get
    if kind == 'Input':
        return graph.add('input')
    if kind in ('Split', 'Noop'):
        return inputs[0]
    if kind == 'Convolution':
        return _convolved(graph, layer, convolutions, inputs[0])
    if kind == 'ReLU':
        return graph.activated(inputs[0], setting(0))
    if kind == 'Concat' and setting(0) == 0:
        return graph.add('concat', tuple(inputs))
    if kind == 'Eltwise' and setting(0) == 1:
        return _weighted(graph, layer, inputs, path)
    if kind == 'BinaryOp' and setting(0) == 0 and len(inputs) == 2:
        return graph.total(*((1, node) for node in inputs))
    if kind == 'BinaryOp' and (setting(0), setting(1), len(inputs)) == (2, 1, 1):
        return graph.total((setting(2), inputs[0]))
    if kind == 'Interp' and setting(0) == 1 and setting(1) == setting(2):  # nearest neighbour
        return graph.add('nearest', setting(1), inputs[0])
    raise NcnnError(f'{path}: {layer} is no part of an RRDBNet')


def _check_graph(layers, blocks, path):
    """Raise NcnnError unless the layers compute RRDBNet's function; names the first that does not.
    """
    graph = Graph()
    wanted = graph.rrdb(blocks)
    expected, blobs, convolutions, node = len(graph), {}, 0, None
    for layer in layers:
        node = _expression(graph, layer, _inputs_of(layer, blobs, path), convolutions, path)
        convolutions += layer.kind == 'Convolution'
        kind, *rest = graph.expressions[node]
        scaled = kind == 'sum' and len(rest[0]) == 1  # becomes part of a sum
        if node >= expected and not scaled:
            inside = layer.kind == 'Convolution' and not layer.get(9)  # its ReLU may be a layer
            raise NcnnError(f'{path}: {layer} does not do what an RRDBNet of {blocks} blocks does '
                            f'there{f" (convolution {convolutions})" if inside else ""}')
        blobs.update((name, node) for name in layer.outputs)
    if node != wanted:
        raise NcnnError(f'{path}: the graph ends at {layers[-1]}, before that of an RRDBNet of '
                        f'{blocks} blocks')


def _keys(blocks):
    """RRDBNet's convolutions in the order in which they run."""
    yield 'conv_first'
    for block in range(blocks):
        for rdb in range(1, 4):
            yield from (f'body.{block}.rdb{rdb}.conv{conv}' for conv in range(1, 6))
    yield from ('conv_body', 'conv_up1', 'conv_up2', 'conv_hr', 'conv_last')


def _expected_widths(blocks, channels_in, channels_out, mid, growth):
    dense = [(growth if conv < 4 else mid, mid + conv * growth) for conv in range(5)]
    return [(mid, channels_in), *dense * 3 * blocks, *[(mid, mid)] * 4, (channels_out, mid)]


def _read_weights(path, widths, names):
    """(weight, bias) of every convolution; each size is checked before anything is allocated."""
    try:
        size = path.stat().st_size
        longest = sum(4 + 4 * out * (9 * wide + 1) for out, wide in widths)
        if size > longest:
            raise NcnnError(f'{path}: {size} bytes, at most {longest} expected: it belongs to '
                            'another param file')
        data = memoryview(path.read_bytes())
    except FileNotFoundError:
        raise NcnnError(f'{path}: no such file') from None
    except OSError as error:
        raise NcnnError(f'{path}: cannot be read: {error}') from error
    position = 0

    def take(count, dtype, name):
        nonlocal position
        used = count * np.dtype(dtype).itemsize
        if position + used > len(data):
            raise NcnnError(f'{path}: ends within convolution {name}: {used} bytes expected at '
                            f'{position}, {len(data) - position} left')
        values = np.frombuffer(data, dtype, count, position)
        position += -(-used // 4) * 4
        return values

    for (out, wide), name in zip(widths, names, strict=True):
        flag = int(take(1, '<u4', name)[0])
        if flag not in (FLOAT32, FLOAT16):
            raise NcnnError(f'{path}: convolution {name} is stored in an unknown way (flag '
                            f'{flag:#010x}; float16 is {FLOAT16:#010x}, float32 0)')
        weight = take(out * wide * 9, '<f2' if flag == FLOAT16 else '<f4', name)
        bias = take(out, '<f4', name)
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise NcnnError(f'{path}: convolution {name} has weights that are not finite')
        yield name, weight.reshape(out, wide, 3, 3), bias
    if position != len(data):
        raise NcnnError(f'{path}: {len(data) - position} bytes are left over after the last '
                        'convolution: it belongs to another param file')


def read_rrdb(param, weights=None):
    """Read an RRDB network in ncnn's format.

    Args:
        param (str | Path): The graph, ``*.param``.
        weights (str | Path, optional): The weights; by default the ``*.bin`` beside it.

    Returns:
        tuple[dict, dict]: State dict of MMagic's ``RRDBNet``, float32, and the config of that
        network. It works on RGB images in [0, 1].

    Raises:
        NcnnError: A file is missing or damaged, or holds another network; says where.
    """
    param = Path(param)
    weights = param.with_suffix('.bin') if weights is None else Path(weights)
    layers = _read_layers(param)
    widths = _convolution_widths(layers, param)
    blocks, rest = divmod(len(widths) - 6, 15)
    if rest or blocks < 1:
        unknown = next((layer for layer in layers if layer.kind not in (
            'Input', 'Split', 'Noop', 'Convolution', 'Concat', 'Eltwise', 'BinaryOp', 'Interp',
            'ReLU')), None)
        raise NcnnError(f'{param}: not an RRDBNet, which has 6 + 15 n convolutions: found '
                        f'{len(widths)}' + (f', and {unknown}' if unknown else ''))
    _check_graph(layers, blocks, param)
    (mid, channels_in), growth, channels_out = widths[0], widths[1][0], widths[-1][0]
    names = list(_keys(blocks))
    for name, found, wanted in zip(
            names, widths, _expected_widths(blocks, channels_in, channels_out, mid, growth),
            strict=True):
        if found != wanted:
            raise NcnnError(f'{param}: convolution {name} has {found[1]} -> {found[0]} channels, '
                            f'expected {wanted[1]} -> {wanted[0]}')
    state = {}
    for name, weight, bias in _read_weights(weights, widths, names):
        state[f'{name}.weight'] = torch.from_numpy(weight.astype(np.float32))
        state[f'{name}.bias'] = torch.from_numpy(bias.astype(np.float32))
    return state, dict(type='RRDBNet', in_channels=channels_in, out_channels=channels_out,
                       mid_channels=mid, num_blocks=blocks, growth_channels=growth,
                       upscale_factor=4)
