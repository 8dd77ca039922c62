"""A network in an ONNX file, computed by ONNX Runtime, as a generator."""
import json

import numpy as np
import torch
from mmagic.registry import MODELS
from torch import nn

from ...errors import MissingPackage, WeightsMismatch, WeightsNotFound, first_line
from ...utils.validation import check_path, check_strength

__all__ = ['METADATA', 'OnnxGenerator']

METADATA = 'mmpd'  # the key under which mmpd-export says what it has put into a file
SMALL = 16  # a side that networks for any size can do with


def open_session(checkpoint):
    """An ONNX file in ONNX Runtime, on the CPU, with as many threads as PyTorch has.

    Raises:
        MissingPackage: if onnxruntime is not installed.
        WeightsNotFound: if there is no such file.
        WeightsMismatch: if it cannot be read.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackage('ONNX files are computed by onnxruntime, which is not installed: '
                             'pip install "mmpd[export]"') from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # what stops it is raised
    try:
        with open(checkpoint, 'rb'):
            pass
        return onnxruntime.InferenceSession(str(checkpoint), options,
                                            providers=['CPUExecutionProvider'])
    except FileNotFoundError:
        raise WeightsNotFound(f'no checkpoint {checkpoint}') from None
    except Exception as error:  # its exceptions have no base of their own
        raise WeightsMismatch(f'{checkpoint}: ONNX Runtime {onnxruntime.__version__} cannot read '
                              f'it: {first_line(error)}') from error


def _read_note(note, checkpoint):
    """What mmpd-export noted of the PD inside, a dict, or None for none."""
    try:
        own = json.loads(note)['pd']
        sound = own is None or isinstance(own['name'], str) and (
            own['operator'] is None or isinstance(own['operator'], dict))
        if sound and own is not None:
            check_strength(own['strength'])
    except (ValueError, TypeError, KeyError):  # of JSON, of other types, of other keys
        sound = False
    if not sound:
        raise WeightsMismatch(f"{checkpoint}: expected mmpd-export's note of the PD inside "
                              '(operator, name, strength from 0 to 1) under the key '
                              f'{METADATA!r} of its metadata, got {note[:100]!r}')
    return own


@MODELS.register_module()
class OnnxGenerator(nn.Module):
    """An ONNX file: one that ``mmpd-export`` wrote, or any of the same form.

    In a config::

        model = dict(
            type='PDModel', base='BaseEditModel', pixel_loss=dict(type='L1Loss'),
            generator=dict(type='OnnxGenerator', checkpoint='network.onnx'),
            data_preprocessor=dict(type='DataPreprocessor', mean=[0.] * 3, std=[255.] * 3))

    It takes RGB in [0, 1], (1, 3, h, w), and gives as its first output RGB in [0, 1], (1, 3, s·h,
    s·w), float32. It is computed on the CPU, image by image, and cannot be trained.

    Args:
        checkpoint (str): The file.

    Attributes:
        scale (int): By how much it enlarges.
        only_size (tuple[int | None, int | None] | None): The one width and the one height that it
            takes, None for any.
        own_pd (dict | None): ``operator`` (a config, or None where only its name is known), its
            ``name`` and the ``strength`` of the PD that is in the file, by what ``mmpd-export``
            noted in it: then no model adds its own.

    Shape:
        LR (N, 3, h, w), in [0, 1]; output (N, 3, scale·h, scale·w), not clipped.

    Raises:
        MissingPackage: if onnxruntime is not installed.
        WeightsNotFound: if there is no such file.
        WeightsMismatch: if it cannot be read, or its input or output is of another form.

    Example:
        >>> import onnx
        >>> import torch
        >>> from mmpd.models.generators import OnnxGenerator
        >>> from onnx import TensorProto, helper
        >>> lr, sr = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, side, side))
        ...           for name, side in (('lr', 8), ('sr', 16)))
        >>> twice = helper.make_tensor('twice', TensorProto.FLOAT, [4], [1, 1, 2, 2])
        >>> graph = helper.make_graph(
        ...     [helper.make_node('Resize', ['lr', '', 'twice'], ['sr'])], 'nearest', [lr], [sr],
        ...     [twice])
        >>> onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)],
        ...                             ir_version=9), '2x.onnx')
        >>> generator = OnnxGenerator('2x.onnx')
        >>> generator.scale, generator.only_size, generator.own_pd
        (2, (8, 8), None)
        >>> tuple(generator(torch.rand(4, 3, 8, 8)).shape)
        (4, 3, 16, 16)
    """

    dtypes = ('float32', )

    def __init__(self, checkpoint):
        super().__init__()
        check_path(checkpoint, 'checkpoint', 'an ONNX file')
        self.checkpoint = str(checkpoint)
        self._session = open_session(checkpoint)
        self._input, output = self._checked_signature()
        note = self._session.get_modelmeta().custom_metadata_map.get(METADATA)
        self.own_pd = _read_note(note, checkpoint) if note else None
        height, width = self._input.shape[2:]
        only = tuple(side if isinstance(side, int) else None for side in (width, height))
        self.only_size = None if only == (None, None) else only
        made = tuple(output.shape[1:])
        if None in only or not all(isinstance(size, int) for size in made):
            height, width = (side if isinstance(side, int) else SMALL for side in (height, width))
            made = self._run(np.zeros((1, 3, height, width), np.float32)).shape[1:]
        self.scale = made[1] // height
        if not self.scale or made != (3, self.scale * height, self.scale * width):
            raise WeightsMismatch(f'{checkpoint}: makes {"x".join(map(str, made))} of 3x{height}x'
                                  f'{width}; expected a network that enlarges an RGB image by an '
                                  'integer')

    def _checked_signature(self):
        """What goes in and what comes out."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        image = inputs[0]
        batch, channels = (image.shape[:2] if len(image.shape) == 4 else (None, None))
        if len(inputs) > 1 or image.type != 'tensor(float)' or channels is None \
                or isinstance(channels, int) and channels != 3 \
                or isinstance(batch, int) and batch != 1 or len(outputs[0].shape) != 4:
            found = '; '.join(f'{part.name} {part.type[7:-1]}{part.shape}'
                              for part in (*inputs, outputs[0]))
            raise WeightsMismatch(f'{self.checkpoint}: expected one input lr float[1, 3, h, w] and '
                                  f'an output of four dimensions, got {found}')
        return image, outputs[0]

    def __deepcopy__(self, memo):
        """It has no weights to copy, and a session cannot be."""
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def extra_repr(self):
        return f'{self.checkpoint}, scale={self.scale}'

    def check_normalisation(self, mean, std):
        """Raise ValueError unless images in [0, 1] come in."""
        if not (np.asarray(mean) == 0).all() or not (np.asarray(std) == 255).all():
            raise ValueError('OnnxGenerator takes images in [0, 1]: expected mean 0 and std 255 in '
                             f'the data preprocessor, got {mean} and {std}')

    def _run(self, image):
        try:
            return self._session.run(None, {self._input.name: image})[0]
        except Exception as error:  # its exceptions have no base of their own
            raise RuntimeError(f'ONNX Runtime: {" ".join(str(error).split())}') from error

    def forward(self, lr):
        """Enlarge; (N, 3, h, w) -> (N, 3, scale·h, scale·w), both in [0, 1]."""
        if lr.is_meta:
            return lr.new_empty(*lr.shape[:2], *(self.scale * side for side in lr.shape[2:]))
        images = [self._run(image[None].float().numpy(force=True)) for image in lr]
        return torch.from_numpy(np.concatenate(images)).to(lr.device)
