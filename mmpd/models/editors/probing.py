"""What a generator makes of an LR image, found without computing anything."""
import inspect
import re
from copy import deepcopy

import torch

from ...utils.model import unwrap
from ...utils.validation import ArgumentError

__all__ = ['check_suitable', 'is_identity', 'probe']

FRAMES = (2, 4, 5, 7)  # what MMagic's networks for videos take
# what networks for sequences say of an image (N, C, H, W)
TOO_FEW_AXES = r'not enough values to unpack|too many indices for tensor of dimension 4'
PROBE = 64  # a side that windows of 7 and 8 px, their padding and five halvings can do with


def probe(generator, frames=()):
    """An LR image and what the generator makes of it, on the meta device.

    Args:
        generator (nn.Module): Any network.
        frames (Sequence[int]): Numbers of frames to try, for a sequence in place of an image.

    Returns:
        tuple[Tensor, Any] | Exception: LR and output; or the last error, if the network cannot
        be run on the meta device, or not on images of that many channels.
    """
    side, error = getattr(generator, 'in_size', None) or PROBE, None
    first = next((module.in_channels for module in generator.modules()
                  if isinstance(module, torch.nn.Conv2d)), 3)
    sizes = [(number, channels) for channels in (3, 1, first) for number in frames or [None]]
    for number, channels in sizes:
        shape = (1, channels, side, side) if number is None else (1, number, channels, side, side)
        image = torch.empty(shape, device='meta')
        try:
            with torch.no_grad(), torch.device('meta'):
                return image, _meta_copy(generator)(image)
        except Exception as caught:  # whatever a foreign network may raise
            error = caught
    return error


def _meta_copy(module):
    """A copy without values; forward passes of some networks change their attributes."""
    copied = {id(tensor): torch.empty_like(tensor, device='meta')
              for tensor in [*module.parameters(), *module.buffers()]}
    copied.update((id(parameter), torch.nn.Parameter(copied[id(parameter)], False))
                  for parameter in module.parameters())
    return deepcopy(module, copied)


def check_suitable(generator, named=None):
    """Refuse a generator that does not make one image out of one.

    Args:
        generator (nn.Module): Of the model.
        named (int, optional): Its scale, if it says its sizes: then it is not run.

    Returns:
        int | None: Its scale; None if that cannot be told without running it for good.

    Raises:
        ArgumentError: says what kind of network it is.
    """
    name = type(unwrap(generator)).__name__
    forward = inspect.signature(unwrap(generator).forward).parameters.values()
    needed = [parameter.name for parameter in forward if parameter.default is parameter.empty
              and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD,
                                     parameter.KEYWORD_ONLY)]
    if len(needed) > 1:
        raise ArgumentError(f'generator: expected a network that makes one SR image of one LR '
                            f'image, got {name}, which also needs {", ".join(needed[1:])}')
    if named is not None:
        return named
    probed = probe(generator)
    if isinstance(probed, Exception):
        if re.search(TOO_FEW_AXES, str(probed)) or not isinstance(
                probe(generator, FRAMES), Exception):
            raise ArgumentError(f'generator: expected a network for single images, got {name}, '
                                'which takes a sequence of frames')
        if "data type 'str'" in str(probed):  # it looks for named images in a dict
            raise ArgumentError(f'generator: expected a network for single images, got {name}, '
                                'which takes several')
        return None
    lr, output = probed
    if not isinstance(output, torch.Tensor):
        raise ArgumentError(f'generator: expected a network that returns one image, got {name}, '
                            f'which returns a {type(output).__name__}')
    scale, rest = divmod(output.shape[-1], lr.shape[-1])
    if output.ndim != 4 or output.shape[-1] != output.shape[-2] or rest or not scale:
        raise ArgumentError(f'generator: expected a network that enlarges an image by an integer, '
                            f'got {name}, which makes {tuple(output.shape)} of {tuple(lr.shape)}')
    return scale


@torch.no_grad()
def is_identity(operator):
    """Whether an operator of scale 1 changes nothing, so that PD would return the input."""
    if getattr(operator, 'scale', None) != 1:
        return False
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0), device='cpu')
    try:
        return torch.allclose(operator.A(image), image, atol=1e-6)
    except (ValueError, RuntimeError):  # other sizes or channels: Masking, Grayscale
        return False
