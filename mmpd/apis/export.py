"""Restorer and PD as one graph, for ONNX Runtime and other programs that have no mmpd."""
import io
import json

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import InputError, MissingPackage
from ..models.generators.onnx_generator import METADATA
from ..operators import AveragePooling, LinearOperator, SeparableResize, resize_matrix

__all__ = ['ConsistentNetwork', 'ExportError', 'export_program', 'to_onnx', 'verify_onnx',
           'verify_program']

TOLERANCE = 1e-4  # of a value range of 1: a fortieth of a grey level


class ExportError(InputError):
    """The model cannot be exported, or what was exported computes something else."""


class ConsistentNetwork(nn.Module):
    """What a model with PD computes, in plain operations that every exporter knows.

    PDHead's own pass is an autograd function with checks of its input, neither of which belongs
    in a graph for inference: here x̂ = x_r + strength · A†(y - A x_r) is written out.

    Args:
        model (nn.Module): A model type with PD, in evaluation mode.
        size (tuple[int, int]): Height and width of the LR.
        raw (bool): Without PD: x_r alone.

    Attributes:
        own_pd (dict | None): What :class:`OnnxGenerator` should know of the PD inside.

    Shape:
        LR (N, 3, h, w), RGB in [0, 1]; output (N, 3, s·h, s·w), RGB, float32, in [0, 1] but for
        overshoots: clipping, like rounding, is left to the user, for it costs consistency.

    Raises:
        ExportError: if the operator is not mmpd's, or the model's output is not this.
    """

    def __init__(self, model, size, raw=False):
        super().__init__()
        self.generator, self.raw = model.generator, raw
        head, preprocessor = model.pd_head, model.data_preprocessor
        for name, default in (('mean', 0.), ('std', 1.)):
            value = getattr(preprocessor, name) if getattr(
                preprocessor, '_enable_normalize', False) else torch.tensor(default)
            self.register_buffer(name, value.detach().clone().float().reshape(1, -1, 1, 1))
        if not raw and (head.noise_std or head.bounds is not None):
            raise ExportError('expected a pd_head with neither noise_std nor bounds, which do not '
                              f'export, got strength {head.strength_text}')
        self.strength = head.strength
        lr = torch.linspace(0, 1, 3 * size[0] * size[1]).reshape(1, 3, *size)
        with torch.no_grad():
            normalised = (lr * 255 - self.mean) / self.std
            try:
                x_r = self.generator(normalised)
            except ValueError as error:
                raise ExportError(f'an LR of {size[0]}x{size[1]} does not fit the network: {error}'
                                  ) from error
            operator = head.operator_for(x_r, normalised)
            if not isinstance(operator, LinearOperator):
                raise ExportError(f'{type(operator).__name__} is not one of mmpd\'s operators, '
                                  'whose operations are known to export')
            self.operator = operator
            self._keep_matrices(operator, x_r.shape[-2:])
            wanted = model.forward_raw(normalised) if raw else model.forward_tensor(normalised)
            wanted = (wanted * self.std + self.mean) / 255
            difference = (self(lr) - wanted).abs().max().item()
        if not difference < TOLERANCE:
            raise ExportError(f'{type(model).__name__} is more than its generator'
                              f'{"" if raw else " followed by PD"} (they differ by '
                              f'{difference:.2g} of the range)')
        self.own_pd = None if raw else dict(
            operator=_config(operator), name=repr(operator), strength=self.strength)

    def _keep_matrices(self, operator, size):
        """Resizing in matrices of this size: they become constants of the graph."""
        self.fixed_size = isinstance(operator, SeparableResize) and not self.raw
        if not self.fixed_size:
            return
        for name, length in zip(('rows', 'columns'), size, strict=True):
            matrix = resize_matrix(length, operator.scale, operator.kernel, operator.antialias,
                                   operator.border)
            self.register_buffer(name, matrix.float())
            self.register_buffer(f'{name}_dagger', torch.linalg.pinv(matrix).float())

    def forward(self, lr):
        raw = self.generator((lr * 255 - self.mean) / self.std)
        raw = (raw * self.std + self.mean) / 255
        if self.raw:
            return raw
        if self.fixed_size:
            error = lr - self.rows @ raw @ self.columns.T
            return raw + self.strength * (self.rows_dagger @ error @ self.columns_dagger.T)
        if isinstance(self.operator, AveragePooling):  # its own reshaping fixes the size
            scale, channels = self.operator.scale, raw.shape[1]
            error = lr - F.avg_pool2d(raw, scale)
            ones = raw.new_ones(channels, 1, scale, scale)
            return raw + self.strength * F.conv_transpose2d(
                error, ones, stride=scale, groups=channels)
        return raw + self.strength * self.operator._A_dagger(lr - self.operator._A(raw))


def _config(operator):
    """The config of an operator that is made of plain numbers, or None."""
    if isinstance(operator, AveragePooling):
        return dict(type='AveragePooling', scale=operator.scale)
    if isinstance(operator, SeparableResize):
        return dict(type='SeparableResize', scale=operator.scale, kernel=operator.kernel,
                    antialias=operator.antialias, border=operator.border)
    return None


def example(size, seed=0):
    """A random LR batch of one image, RGB in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, *size, generator=generator)


def export_program(network, size, dynamic=False):
    """The network as a ``torch.export`` program.

    Args:
        network (ConsistentNetwork): In evaluation mode.
        size (tuple[int, int]): Height and width of the LR.
        dynamic (bool): Leave both sides open, which takes a fully convolutional network and an
            operator that is no matrix (average pooling).

    Returns:
        torch.export.ExportedProgram: Its input and batch of one are called ``lr``.

    Raises:
        ExportError: if torch cannot trace it; with ``dynamic`` the size may be what it cannot
            leave open.
    """
    if dynamic and network.fixed_size:
        raise ExportError(f'{network.operator!r} is a matrix for one size: give the size, or '
                          'take average pooling as A')
    shapes = None
    if dynamic:
        shapes = dict(lr={2: torch.export.Dim('height', min=2, max=1 << 14),
                          3: torch.export.Dim('width', min=2, max=1 << 14)})
    try:
        with torch.no_grad():
            return torch.export.export(network.eval(), (example(size),), dynamic_shapes=shapes)
    except Exception as error:  # tracing runs whatever a network does
        reason = str(error).strip().split('\n')[0]
        raise ExportError(f'torch.export cannot trace the network'
                          f'{" for all sizes" if dynamic else ""}: {reason}') from error


def to_onnx(program, opset=18, own_pd=None):
    """ONNX bytes of a program; its input is ``lr``, its output ``sr``.

    Args:
        program (torch.export.ExportedProgram): From :func:`export_program`.
        opset (int): Of ONNX.
        own_pd (dict, optional): :attr:`ConsistentNetwork.own_pd`, noted in the file.

    Raises:
        MissingPackage: if onnx or onnxscript is not installed.
        ExportError: if torch cannot translate it.
    """
    try:
        import onnxscript  # noqa: F401
    except Exception as error:  # with an old ml_dtypes an AttributeError
        raise MissingPackage('ONNX export needs onnx and onnxscript, which cannot be imported '
                             f'({error}): pip install "mmpd[export]"') from error
    try:
        onnx_program = torch.onnx.export(program, dynamo=True, opset_version=opset, verbose=False,
                                         input_names=['lr'], output_names=['sr'])
        model = onnx_program.model_proto
        made = next(one.version for one in model.opset_import if not one.domain)
        if made != opset:  # torch only logs why, and goes on
            raise ValueError(f'expected an opset that torch can write, got {opset}')
        model.metadata_props.add(key=METADATA, value=json.dumps(dict(pd=own_pd)))
        return model.SerializeToString()
    except Exception as error:
        reason = str(error).strip().split('\n')[0]
        raise ExportError(f'torch.onnx cannot translate the program: {reason}') from error


def _check(found, wanted, name):
    difference = (found - wanted).abs().max().item() if found.shape == wanted.shape else None
    if difference is None or not difference <= TOLERANCE:
        reason = (f'by {difference:.2g} of the range, at most {TOLERANCE:g} is allowed'
                  if difference is not None else
                  f'in shape: {tuple(found.shape)} instead of {tuple(wanted.shape)}')
        raise ExportError(f'the {name} differs from PyTorch {reason}')
    return difference


@torch.no_grad()
def verify_program(data, network, sizes):
    """Load a program from its bytes and compare it with the network on random images.

    Returns:
        float: The largest difference, of a range of 1.

    Raises:
        ExportError: if it is above 1e-4.
    """
    program = torch.export.load(io.BytesIO(data)).module()
    return max(_check(program(example(size, 1)), network(example(size, 1)), 'program')
               for size in sizes)


@torch.no_grad()
def verify_onnx(data, network, sizes):
    """Run ONNX bytes with ONNX Runtime; otherwise like :func:`verify_program`.

    Raises:
        MissingPackage: if onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackage('what was exported is checked by onnxruntime, which is not '
                             'installed: pip install "mmpd[export]"') from error
    session = onnxruntime.InferenceSession(data, providers=['CPUExecutionProvider'])
    return max(_check(torch.from_numpy(session.run(None, {'lr': example(size, 1).numpy()})[0]),
                      network(example(size, 1)), 'ONNX graph') for size in sizes)
