"""MMagic's perceptual loss, whose VGG weights can come from a local file."""
from contextlib import contextmanager
from functools import partial
from urllib.error import URLError

from mmagic.models.losses.perceptual_loss import PerceptualLoss as MMagicPerceptualLoss
from mmagic.registry import MODELS
from torch.hub import get_dir
from torchvision.models import get_model_weights, vgg

from ...errors import WeightsMismatch, WeightsNotFound
from ...utils.checkpoint import read_state_dict
from ...utils.validation import check_choice, check_dict, check_number, check_str, refuse

DOWNLOAD = 'torchvision://'
VGG_TYPES = tuple(f'vgg{depth}{norm}' for depth in (11, 13, 16, 19) for norm in ('', '_bn'))


def _load(build, path, **_):
    """A VGG without classifier weights, from a checkpoint of torchvision's layout."""
    network = build(weights=None)
    own, state = network.features.state_dict(), read_state_dict(path)
    state = {key.removeprefix('features.'): value for key, value in state.items()
             if key.startswith('features.')}
    for key, value in own.items():
        found = tuple(state[key].shape) if key in state else 'missing'
        if found != tuple(value.shape):
            raise WeightsMismatch(
                f'perceptual_loss.pretrained: {path} is no torchvision checkpoint of '
                f'{build.__name__}: features.{key} is {found}, expected {tuple(value.shape)}')
    network.features.load_state_dict({key: state[key] for key in own})
    return network


@contextmanager
def _weights(vgg_type, pretrained):
    """Inside, torchvision's ``vgg_type(pretrained=True)`` gives the weights in ``pretrained``."""
    build, local = getattr(vgg, vgg_type), not pretrained.startswith(DOWNLOAD)
    weights = get_model_weights(vgg_type).IMAGENET1K_V1
    # torchvision deprecated the pretrained=True that MMagic gives
    setattr(vgg, vgg_type, partial(_load, build, pretrained) if local
            else lambda **_: build(weights=weights))
    try:
        yield
    except (URLError, OSError) as error:
        if local:
            raise
        raise WeightsNotFound(
            f'The perceptual loss cannot get its VGG weights ({pretrained}): {error}. Without '
            f'network: get {weights.url} and put it into {get_dir()}/checkpoints/, or name the '
            'file with model.perceptual_loss.pretrained=FILE.') from error
    finally:
        setattr(vgg, vgg_type, build)


@MODELS.register_module(force=True)
class PerceptualLoss(MMagicPerceptualLoss):
    """MMagic's ``PerceptualLoss``, in its place in the registry, with a working ``pretrained``.

    MMagic 1.2 ignores that argument and always downloads.

    Args:
        layer_weights (dict[str, float]): Weight of each layer of the VGG's features.
        vgg_type (str): 'vgg16', 'vgg19', ...
        pretrained (str): ``torchvision://vgg19`` for torchvision's download, or a local
            checkpoint with torchvision's keys.
        kwargs: The other arguments of MMagic's ``PerceptualLoss``.

    Raises:
        WeightsNotFound: if the weights cannot be had; says which file goes where.
        WeightsMismatch: if the file is one of another network.
    """

    def __init__(self, layer_weights, *args, vgg_type='vgg19',
                 pretrained=f'{DOWNLOAD}vgg19', **kwargs):
        for layer, weight in check_dict(layer_weights, 'layer_weights').items():
            if not isinstance(layer, str) or not layer.isdecimal():
                refuse('layer_weights', "keys that are numbers, e.g. {'21': 1.0}", layer_weights)
            check_number(weight, 'layer_weights', least=0)
        if not layer_weights:
            refuse('layer_weights', 'at least one layer', layer_weights)
        check_choice(vgg_type, 'vgg_type', VGG_TYPES)
        check_str(pretrained, 'pretrained', 'a file, or torchvision://NAME')
        with _weights(vgg_type, pretrained):
            super().__init__(layer_weights, *args, vgg_type=vgg_type, pretrained=pretrained,
                             **kwargs)
