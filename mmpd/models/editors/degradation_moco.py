"""Contrastive training of Panini's degradation encoder."""
from copy import deepcopy

import torch
import torch.nn.functional as F
from mmagic.registry import MODELS
from mmengine.dist import all_gather, broadcast, get_rank, get_world_size
from mmengine.model import BaseModel
from torch import nn

from ...utils.model import check_part
from ...utils.validation import (
    MOST_CHANNELS,
    check_number,
    check_positive_int,
    optional,
)
from ..settings import check_init_cfg


@MODELS.register_module()
class DegradationMoCo(BaseModel):
    """Momentum contrast (He et al. 2020) between degradations (Wang et al., AAAI 2022).

    Two crops of one degraded image show different things, degraded alike: they are
    pulled together and pushed away from a queue of crops of other images. What the
    encoder learns to describe is the degradation. A checkpoint serves
    :class:`PaniniNet` through ``degradation_encoder.init_cfg`` with
    ``prefix='encoder_q'``.

    Args:
        encoder (dict): Config of a :class:`DegradationEncoder`.
        projection_channels (int): Width of the vectors that are compared.
        queue_size (int): Negative samples kept.
        momentum (float): Of the key encoder's average, in [0, 1].
        temperature (float): Of the softmax over similarities.
        data_preprocessor (dict, optional): As for every MMagic model.

    Raises:
        ValueError: for a momentum or temperature out of range.

    Example:
        >>> import torch
        >>> from mmagic.registry import MODELS
        >>> model = MODELS.build(dict(
        ...     type='DegradationMoCo', projection_channels=5, queue_size=8,
        ...     encoder=dict(type='DegradationEncoder', channels=(4, 6), image_size=16)))
        >>> crops = dict(img=torch.rand(2, 3, 16, 16), key_img=torch.rand(2, 3, 16, 16))
        >>> list(model(crops, mode='loss'))
        ['loss_contrast', 'accuracy']
    """

    def __init__(self, encoder, projection_channels=256, queue_size=8192, momentum=0.999,
                 temperature=0.07, data_preprocessor=None, init_cfg=None):
        optional(check_part, data_preprocessor, 'data_preprocessor')
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=check_init_cfg(init_cfg))
        check_number(momentum, 'momentum', least=0, most=1)
        check_number(temperature, 'temperature', above=0)
        check_positive_int(projection_channels, 'projection_channels', most=MOST_CHANNELS)
        check_positive_int(queue_size, 'queue_size', most=1 << 24)
        check_part(encoder, 'encoder')
        self.queue_size, self.momentum, self.temperature = queue_size, momentum, temperature
        self.encoder_q = MODELS.build(encoder)
        channels = self.encoder_q.out_channels
        self.projection_q = nn.Sequential(
            nn.Linear(channels, channels), nn.LeakyReLU(0.1, inplace=True),
            nn.Linear(channels, projection_channels))
        self.encoder_k = deepcopy(self.encoder_q).requires_grad_(False)
        self.projection_k = deepcopy(self.projection_q).requires_grad_(False)
        self.register_buffer('queue', F.normalize(torch.randn(projection_channels, queue_size), 0))
        self.register_buffer('queue_ptr', torch.zeros(1, dtype=torch.long))

    def _pairs(self):
        return ((self.encoder_q, self.encoder_k), (self.projection_q, self.projection_k))

    def init_weights(self):
        """Initialise, and begin with a key encoder that equals the query encoder."""
        if self._is_init:
            return
        super().init_weights()
        for query, key in self._pairs():
            for source, target in zip(query.parameters(), key.parameters(), strict=True):
                target.data.copy_(source.data)

    @torch.no_grad()
    def update_key_encoder(self):
        """key <- momentum * key + (1 - momentum) * query."""
        for query, key in self._pairs():
            for source, target in zip(query.parameters(), key.parameters(), strict=True):
                target.lerp_(source, 1 - self.momentum)

    @torch.no_grad()
    def keys(self, images):
        """Unit vectors of the key images, (N, projection_channels).

        Among several processes the images are shuffled first, so that batch normalisation cannot
        tell which key belongs to which query.
        """
        size, own = len(images), None
        if get_world_size() > 1:
            images = torch.cat(all_gather(images))
            order = torch.randperm(len(images), device=images.device)
            broadcast(order)
            own = slice(get_rank() * size, (get_rank() + 1) * size)
            images = images[order[own]]
        keys = F.normalize(self.projection_k(self.encoder_k(images)), dim=1)
        if own is not None:
            keys = torch.cat(all_gather(keys))[order.argsort()[own]]
        return keys

    @torch.no_grad()
    def enqueue(self, keys):
        """Put keys (N, projection_channels) into the queue, in place of the oldest."""
        if get_world_size() > 1:  # those of all ranks, in the order in which one would see them
            keys = torch.stack(all_gather(keys), 1).flatten(0, 1)
        if len(keys) > self.queue_size:
            raise ValueError(f'queue_size: expected at least the batch size of {len(keys)}, '
                             f'got {self.queue_size}')
        index = (self.queue_ptr + torch.arange(len(keys), device=keys.device)) % self.queue_size
        self.queue[:, index] = keys.T
        self.queue_ptr[0] = (self.queue_ptr[0] + len(keys)) % self.queue_size

    def forward(self, inputs, data_samples=None, mode='tensor'):
        """Contrast pairs of crops, or represent images.

        Args:
            inputs (dict | Tensor): ``img`` and ``key_img``, crops of the same degraded images,
                (N, C, H, W) each, in [-1, 1]; with mode 'tensor' the images alone will do.
            data_samples (list, optional): Not used.
            mode (str): 'loss' or 'tensor'.

        Returns:
            dict | Tensor: the loss and the accuracy of telling the pair from the queue, in
            percent; or representations, (N, channels[-1]).

        Raises:
            ValueError: for another mode, or pairs that are not there.
        """
        if mode == 'tensor':
            return self.encoder_q(inputs['img'] if isinstance(inputs, dict) else inputs)
        if mode != 'loss':
            raise ValueError(f"mode: expected 'loss' or 'tensor', got {mode!r}")
        if not isinstance(inputs, dict) or not {'img', 'key_img'} <= inputs.keys():
            raise ValueError("inputs: expected two crops, 'img' and 'key_img'; pack them with "
                             "PackInputs(keys=['img', 'key_img'])")
        query = F.normalize(self.projection_q(self.encoder_q(inputs['img'])), dim=1)
        self.update_key_encoder()
        keys = self.keys(inputs['key_img'])
        positive = (query * keys).sum(1, keepdim=True)
        logits = torch.cat([positive, query @ self.queue.clone()], 1) / self.temperature
        target = logits.new_zeros(len(logits), dtype=torch.long)
        self.enqueue(keys)
        accuracy = (logits.argmax(1) == 0).float().mean() * 100
        return dict(loss_contrast=F.cross_entropy(logits, target), accuracy=accuracy)
