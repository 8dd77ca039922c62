"""The degradation encoder of Panini's multi-degradation variant (MFR)."""
import torch.nn.functional as F
from mmagic.registry import MODELS
from mmengine.model import BaseModule
from torch import nn

from ...utils.checkpoint import load_completely, pretrained_cfg
from ...utils.validation import MOST_CHANNELS, check_positive_int, check_sequence
from ..settings import check_init_cfg


@MODELS.register_module()
class DegradationEncoder(BaseModule):
    """Describes how an image is degraded, whatever it shows (Wang et al., AAAI 2022).

    Pretrained by contrast, see :class:`DegradationMoCo`.

    Args:
        in_channels (int): Channels of the image.
        channels (Sequence[int]): Width of each stage; every stage after the first halves the
            image. The last one is the width of the representation.
        image_size (int): Larger images are average-pooled to this side first.
        init_cfg (dict, optional): ``dict(type='Pretrained', checkpoint=..., prefix='encoder_q')``
            takes the encoder out of a checkpoint of :class:`DegradationMoCo`, completely or with
            an error.

    Example:
        >>> import torch
        >>> from mmpd.models.generators import DegradationEncoder
        >>> encoder = DegradationEncoder(channels=(4, 6), image_size=16)
        >>> tuple(encoder(torch.rand(1, 3, 32, 32)).shape)
        (1, 6)
    """

    def __init__(self, in_channels=3, channels=(64, 128, 256), image_size=256, init_cfg=None):
        super().__init__(init_cfg=check_init_cfg(init_cfg))
        check_positive_int(in_channels, 'in_channels', most=MOST_CHANNELS)
        channels = check_sequence(channels, 'channels', check_positive_int, most=MOST_CHANNELS)
        check_positive_int(image_size, 'image_size')
        self.image_size, self.out_channels = image_size, channels[-1]
        layers, previous = [], in_channels
        for stage, width in enumerate(channels):
            for stride in (2 if stage else 1, 1):
                layers += [nn.Conv2d(previous, width, 3, stride, 1), nn.BatchNorm2d(width),
                           nn.LeakyReLU(0.1, inplace=True)]
                previous = width
        self.body = nn.Sequential(*layers)

    def init_weights(self):
        """Load the pretrained checkpoint of ``init_cfg``, if there is one."""
        pretrained = pretrained_cfg(self.init_cfg)
        if pretrained and not self._is_init:
            load_completely(self, pretrained['checkpoint'], pretrained.get('prefix') or '',
                       name='degradation encoder')
            self._is_init = True
        else:
            super().init_weights()

    def forward(self, image):
        """Represent the degradation of each image.

        Args:
            image (Tensor): (N, in_channels, H, W), in [-1, 1].

        Returns:
            Tensor: (N, channels[-1]).
        """
        size = tuple(min(side, self.image_size) for side in image.shape[2:])
        if size != image.shape[2:]:
            image = F.adaptive_avg_pool2d(image, size)
        return self.body(image).mean((2, 3))
