"""MMagic's perceptual loss, whose VGG weights can come from a local file."""
from itertools import pairwise

import torch
from mmagic.models.losses.perceptual_loss import PerceptualLoss as MMagicPerceptualLoss
from mmagic.models.losses.perceptual_loss import PerceptualVGG
from mmagic.registry import MODELS
from torch import nn
from torchvision.models import get_model_weights, vgg

from ...errors import InputError, WeightsMismatch, WeightsNotFound
from ...utils.checkpoint import read_state_dict
from ...utils.validation import (
    ArgumentError,
    check_bool,
    check_choice,
    check_dict,
    check_number,
    check_str,
    refuse,
)
from ..recompute import recomputed

DOWNLOAD = 'torchvision://'
CRITERIA = dict(l1=nn.L1Loss, mse=nn.MSELoss)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the images VGG was trained on
VGG_TYPES = tuple(f'vgg{depth}{norm}' for depth in (11, 13, 16, 19) for norm in ('', '_bn'))


def read_vgg(vgg_type, pretrained):
    """The state dict that ``pretrained`` names; torchvision's own if it is ``torchvision://``.

    Raises:
        WeightsNotFound: if it cannot be had; says which file goes where.
    """
    source = pretrained
    if pretrained.startswith(DOWNLOAD):
        if pretrained != DOWNLOAD + vgg_type:
            raise InputError(f'perceptual_loss: vgg_type {vgg_type!r} and pretrained '
                             f'{pretrained!r} are not the same network')
        source = get_model_weights(vgg_type).IMAGENET1K_V1.url
    try:
        return read_state_dict(source)
    except WeightsNotFound as error:
        raise WeightsNotFound('The perceptual loss cannot get its VGG weights: '
                              f'{error} (model.perceptual_loss.pretrained=FILE)') from error


def load_layers(vgg_type, count, state, name):
    """The first layers of a VGG's features, frozen, with weights of torchvision's layout.

    Args:
        vgg_type (str): 'vgg16', 'vgg19_bn' ...
        count (int): Number of layers.
        state (dict): Weights, with torchvision's keys; the classifier's are not needed.
        name (str): Where they come from, for messages.

    Returns:
        nn.Sequential: The layers.

    Raises:
        WeightsMismatch: if they are those of another network.
    """
    with torch.device('meta'):  # no time and memory for random weights, classifier included
        layers = getattr(vgg, vgg_type)(weights=None).features
    if len(layers) < count:
        raise InputError(f'perceptual_loss.layer_weights: {vgg_type} has the layers 0 to '
                         f'{len(layers) - 1}, got {count - 1}')
    layers = layers[:count]
    own = layers.state_dict()
    state = {key.removeprefix('features.'): value for key, value in state.items()
             if key.startswith('features.')}
    for key, value in own.items():
        if key not in state and key.endswith('num_batches_tracked'):
            state[key] = torch.zeros((), dtype=torch.long)  # torchvision's files are older
        found = tuple(state[key].shape) if key in state else 'missing'
        if found != tuple(value.shape):
            raise WeightsMismatch(
                f'perceptual_loss.pretrained: {name} is no torchvision checkpoint of {vgg_type}: '
                f'features.{key} is {found}, expected {tuple(value.shape)}')
    layers.load_state_dict({key: state[key].to(value.dtype).clone() for key, value in own.items()},
                           assign=True)
    return layers.requires_grad_(False)


class VGGFeatures(PerceptualVGG):
    """MMagic's ``PerceptualVGG`` around given layers, with its keys.

    Args:
        layer_names (Iterable[str]): Which layers' outputs to return.
        layers (nn.Sequential): The layers.
        use_input_norm (bool): Whether to normalise images in [0, 1] first.
        with_cp (bool): Compute what ends in a pooling again in the backward pass.
    """

    def __init__(self, layer_names, layers, use_input_norm=True, with_cp=False):
        nn.Module.__init__(self)  # MMagic's own builds and downloads a VGG, whatever it is told
        self.with_cp = with_cp
        self.layer_name_list, self.use_input_norm = list(layer_names), use_input_norm
        self.vgg_layers = layers
        if use_input_norm:
            for name, values in (('mean', MEAN), ('std', STD)):
                self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))

    def forward(self, x):
        """Images (N, 3, H, W) -> dict from the names of layers to their outputs."""
        if not self.with_cp:
            return super().forward(x)
        if self.use_input_norm:
            x = (x - self.mean) / self.std
        stops = [index + 1 for index, layer in enumerate(self.vgg_layers)
                 if isinstance(layer, nn.MaxPool2d)]  # behind it features are smallest
        output = {}

        def stage(x, start, stop):
            found = {}
            for index in range(start, stop):
                x = self.vgg_layers[index](x)
                if str(index) in self.layer_name_list:
                    found[str(index)] = x.clone()  # the next layer may overwrite it
            return x, found

        for start, stop in pairwise([0, *stops, len(self.vgg_layers)]):
            x, found = recomputed(stage, x, start, stop)
            output.update(found)
        return output


@MODELS.register_module(force=True)
class PerceptualLoss(MMagicPerceptualLoss):
    """MMagic's ``PerceptualLoss``, in its place in the registry, with a working ``pretrained``.

    MMagic 1.2 ignores that argument and always downloads. State-dict keys are the same.

    Args:
        layer_weights (dict[str, float]): Weight of each layer of the VGG's features.
        layer_weights_style (dict[str, float], optional): For the style loss. Defaults to
            ``layer_weights``.
        vgg_type (str): 'vgg16', 'vgg19', ...
        use_input_norm (bool): Normalise the images as VGG expects.
        perceptual_weight (float): Of the perceptual loss; 0 for none.
        style_weight (float): Of the style loss; 0 for none.
        norm_img (bool): Whether images are in [-1, 1] and are to be brought to [0, 1].
        pretrained (str): ``torchvision://vgg19`` for torchvision's download, or a local
            checkpoint, or an address, with torchvision's keys.
        criterion (str): 'l1' or 'mse'.
        with_cp (bool): Activation checkpointing: compute the VGG again in the backward pass, for
            less memory and more time. Not with batch normalisation, whose statistics would move
            twice.

    Raises:
        InputError: for unknown networks, layers or criteria.
        WeightsNotFound: if the weights cannot be had; says which file goes where.
        WeightsMismatch: if the file is one of another network.

    Example:
        >>> import torch
        >>> from mmagic.registry import MODELS
        >>> from torchvision.models import vgg
        >>> layers = torch.nn.ModuleDict(dict(features=vgg.make_layers(vgg.cfgs['A'])))
        >>> torch.save(layers.state_dict(), 'vgg11.pth')  # random: in place of torchvision's file
        >>> loss = MODELS.build(dict(
        ...     type='PerceptualLoss', vgg_type='vgg11', pretrained='vgg11.pth', style_weight=0,
        ...     layer_weights={'2': 1.0}))
        >>> image = torch.rand(1, 3, 16, 16)
        >>> perceptual, style = loss(image, image)
        >>> perceptual.item(), style
        (0.0, None)
    """

    def __init__(self, layer_weights, layer_weights_style=None, vgg_type='vgg19',
                 use_input_norm=True, perceptual_weight=1.0, style_weight=1.0, norm_img=True,
                 pretrained=f'{DOWNLOAD}vgg19', criterion='l1',
                 with_cp=False):
        nn.Module.__init__(self)
        for name, weights in (('layer_weights', layer_weights),
                              ('layer_weights_style', layer_weights_style)):
            if name == 'layer_weights' or weights is not None:
                self._check_layers(name, weights)
        check_choice(vgg_type, 'vgg_type', VGG_TYPES)
        check_str(pretrained, 'pretrained', 'a file, or torchvision://NAME')
        for name, value in (('use_input_norm', use_input_norm), ('norm_img', norm_img),
                            ('with_cp', with_cp)):
            check_bool(value, name)
        if with_cp and vgg_type.endswith('_bn'):
            raise ArgumentError(f'perceptual_loss.with_cp: expected False with {vgg_type}, whose '
                                'batch normalisation would count every image twice, got True')
        for name, value in (('perceptual_weight', perceptual_weight),
                            ('style_weight', style_weight)):
            check_number(value, name, least=0)
        criterion = criterion.lower() if isinstance(criterion, str) else criterion
        check_choice(criterion, 'criterion', tuple(CRITERIA))
        self.norm_img, self.layer_weights = norm_img, layer_weights
        self.perceptual_weight, self.style_weight = perceptual_weight, style_weight
        state = read_vgg(vgg_type, pretrained)

        def features(weights):
            layers = load_layers(vgg_type, max(map(int, weights)) + 1, state, pretrained)
            return VGGFeatures(weights, layers, use_input_norm, with_cp)

        self.vgg, self.vgg_style = features(layer_weights), None
        self.layer_weights_style = layer_weights_style or layer_weights
        if self.layer_weights_style != layer_weights:
            self.vgg_style = features(self.layer_weights_style)
        self.criterion = CRITERIA[criterion]()

    @staticmethod
    def _check_layers(name, weights):
        for layer, weight in check_dict(weights, name).items():
            if not isinstance(layer, str) or not layer.isdecimal():
                refuse(name, "keys that are numbers, e.g. {'21': 1.0}", weights)
            check_number(weight, name, least=0)
        if not weights:
            refuse(name, 'at least one layer', weights)
