"""The operator for an image and its LR, whose sizes give the scale that a config leaves out."""
import inspect
import threading
from copy import deepcopy
from functools import lru_cache

import torch

from .base import is_plain
from .builder import argument_error, build_operator, operator_class

__all__ = ['infer_scale', 'prepare_operator', 'resolve_operator']

LIMIT = 32
TRIED = (2, 4, 8, 16, 3)  # scales with which the other arguments of an operator are checked
_built = {}  # (config, scale, device) -> operator, that of the last call last
_lock = threading.RLock()  # an operator may resolve others while it is built


def infer_scale(image_shape, lr_shape):
    """The ratio of the sizes of an image and its LR.

    Args:
        image_shape (Sequence[int]): (..., H, W).
        lr_shape (Sequence[int]): (..., h, w).

    Returns:
        int: H / h = W / w.

    Raises:
        ValueError: If they are not one integer of at least 1.

    Example:
        >>> from mmpd.operators import infer_scale
        >>> infer_scale((3, 64, 96), (3, 16, 24))
        4
    """
    (height, width), (h, w) = image_shape[-2:], lr_shape[-2:]
    if not height or not width or not h or not w or height % h or width % w \
            or height // h != width // w:
        raise ValueError('the scale cannot be inferred: expected an image whose sides are one '
                         f'integer multiple of those of the LR ({h}x{w}), got {height}x{width}')
    return height // h


_signature = lru_cache(maxsize=64)(inspect.signature)  # slow, and asked for with every image


def _needs_scale(operator):
    """Whether it is a config whose class takes a ``scale``, which the config leaves out or None."""
    if not isinstance(operator, dict) or operator.get('scale') is not None:
        return False
    cls = operator_class(operator)
    signature = _signature(cls)
    parameter = signature.parameters.get('scale')
    if parameter is None:
        return False
    if 'scale' not in operator and parameter.default not in (None, parameter.empty):
        return False
    try:
        signature.bind(**{key: value for key, value in operator.items()
                          if key not in ('type', 'scale')}, scale=None)
    except TypeError as error:
        raise argument_error(cls, operator, error) from error
    return True


def prepare_operator(operator):
    """What can be made, and every fault that can be found, before there is an image.

    Args:
        operator (dict | object): See :func:`resolve_operator`.

    Returns:
        dict | object: The operator; the config if its scale is to be inferred.

    Raises:
        ValueError: Unknown name, wrong arguments, or not an operator.
    """
    if not _needs_scale(operator):
        return build_operator(operator)
    first = None
    for scale in TRIED:
        try:
            _build(operator, scale, 'cpu')
            return operator
        except ValueError as error:
            first = first or error
    raise first  # of other arguments than the scale, most likely


def resolve_operator(operator, image_shape, lr_shape, device='cpu'):
    """The operator for an image and its LR.

    Args:
        operator (dict | object): An operator, which is returned as it is, or a config, see
            :func:`build_operator`, in which the ``scale`` may be left out or None.
        image_shape (Sequence[int]): (..., H, W).
        lr_shape (Sequence[int]): (..., h, w).
        device (torch.device | str): Where the buffers of an operator made from a config lie.

    Returns:
        object: The operator. What is made from a config of plain data is kept and shared: do not
        change it.

    Raises:
        ValueError: If the config is wrong or its scale cannot be inferred.

    Example:
        >>> from mmpd.operators import resolve_operator
        >>> resolve_operator(dict(type='AveragePooling'), (1, 3, 32, 32), (1, 3, 8, 8))
        AveragePooling(scale=4)
    """
    if not isinstance(operator, dict):
        return build_operator(operator)  # checks it
    scale = infer_scale(image_shape, lr_shape) if _needs_scale(operator) else None
    device = torch.device(device)
    try:
        key = _content(operator), scale, device
    except TypeError:  # a tensor, say, which may be another one tomorrow
        return _build(operator, scale, device)
    if not is_plain():  # its buffers would be fake
        return _build(operator, scale, device)
    with _lock:
        made = _built.pop(key, None)
        if made is None:
            made = _build(operator, scale, device)
            if len(_built) >= LIMIT:
                del _built[next(iter(_built))]
        _built[key] = made
        return made


def _content(value):
    """A hashable stand-in for a value of a config, equal where the content is.

    Raises:
        TypeError: If it holds anything but plain data.
    """
    if isinstance(value, dict):
        return dict, frozenset((key, _content(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return list, tuple(_content(item) for item in value)
    if value is None or isinstance(value, (bool, int, float, str, type)):
        return type(value), value  # 1, 1.0 and True are equal
    raise TypeError(type(value).__name__)


def _build(cfg, scale, device):
    # what is made in inference mode or on a context's device would not serve the next caller
    with torch.inference_mode(False), torch.device('cpu'):
        # a copy, so that no operator or tensor in the config is moved to the device
        made = build_operator(deepcopy(cfg if scale is None else {**cfg, 'scale': scale}))
    return made.to(device) if isinstance(made, torch.nn.Module) else made
