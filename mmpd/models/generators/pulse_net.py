"""PULSE: the latents of StyleGAN whose image, downsampled, is the LR."""
import logging
from functools import partial

import torch
import torch.nn.functional as F
from mmagic.registry import MODELS
from mmengine.logging import print_log
from mmengine.model import BaseModule

from ...utils.validation import (
    MOST_CHANNELS,
    check_bool,
    check_choice,
    check_keys,
    check_number,
    check_positive_int,
    check_sequence,
    refuse,
)
from ..settings import check_init_cfg
from .glean_net import check_lr
from .stylegan1 import StyleGAN1Synthesis
from .stylegan2_prior import check_widths

OPTIMIZERS = dict(
    adam=torch.optim.Adam, adamax=torch.optim.Adamax, sgd=torch.optim.SGD,
    sgdm=partial(torch.optim.SGD, momentum=0.9))


def ramp(step, steps):
    """0.1 up to 1 in the middle and down again."""
    return (9 * (1 - abs(2 * step / steps - 1)) + 1) / 10


def ramp_and_drop(step, steps):
    """The same over the first nine tenths, then on down to 0.001."""
    if step < 0.9 * steps:
        return ramp(step, 0.9 * steps)
    return 0.1 + (step - 0.9 * steps) / (0.1 * steps) * (0.001 - 0.1)


SCHEDULES = dict(fixed=lambda step, steps: 1., linear1cycle=ramp, linear1cycledrop=ramp_and_drop)
NOISE = ('trainable', 'fixed', 'zero')
KEEP = ('last', 'best')


def norm_per_latent(tensor):
    """Length over all dimensions behind the first two."""
    return (tensor.square().sum(tuple(range(2, tensor.ndim)), keepdim=True) + 1e-9).sqrt()


def bicubic_downsample(image, scale):
    """Bicubic (a = -0.5), antialiased, mirrored at the border without the edge (as PULSE does)."""
    x = ((torch.arange(4 * scale, device=image.device) - 2 * scale + 0.5) / scale).abs()
    kernel = torch.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2)
    kernel = (kernel / kernel.sum()).to(image.dtype)
    before = 3 * scale // 2
    pad, channels = (before, 3 * scale - before), image.shape[1]
    image = F.conv2d(F.pad(image, (0, 0, *pad), 'reflect'),
                     kernel.view(1, 1, -1, 1).expand(channels, -1, -1, -1),
                     stride=(scale, 1), groups=channels)
    return F.conv2d(F.pad(image, (*pad, 0, 0), 'reflect'),
                    kernel.view(1, 1, 1, -1).expand(channels, -1, -1, -1),
                    stride=(1, scale), groups=channels)


def geocross(latents):
    """Mean squared geodesic distance of all pairs of an image's latents, (N, L, C) -> (N, )."""
    first, second = latents[:, None], latents[:, :, None]
    apart = ((first - second).square().sum(-1) + 1e-9).sqrt()
    together = ((first + second).square().sum(-1) + 1e-9).sqrt()
    angle = 2 * torch.atan2(apart, together)
    return (angle.square() * latents.shape[-1]).mean((1, 2)) / 8


@MODELS.register_module()
class PULSENet(BaseModule):
    """PULSE (Menon et al., CVPR 2020): super-resolution by search, without training.

    Gradient descent over the latents of StyleGAN1, kept on the sphere they begin on, and over
    some of its noise. The latents are seen through a Gaussian fitted to what the mapping network
    gives. Defaults are those of the official code. Every image begins with the same random
    latents, whatever batch it is in.

    Args:
        in_size (int): Side of the LR image, at least 2.
        out_size (int): Side of the output, a power of two and a multiple of in_size.
        style_channels (int), channels (dict, optional): See :class:`StyleGAN1Synthesis`.
        steps (int): Of the search.
        optimizer (str): 'adam', 'adamax', 'sgd' or 'sgdm' (with momentum 0.9).
        learning_rate (float): Its largest learning rate.
        lr_schedule (str): 'linear1cycledrop', 'linear1cycle' or 'fixed'.
        losses (dict[str, float], optional): Weights of 'L2' and 'L1' (ten times the mean absolute
            error) between the downsampled image and the LR, in [0, 1], and of 'GEOCROSS' between
            the latents. Defaults to 100 for L2 and 0.05 for GEOCROSS.
        eps (float): An L1 or L2 below it is good enough; a warning says when L2 stayed above.
        noise_type (str): 'trainable', 'fixed' or 'zero'.
        num_trainable_noise_layers (int): How many layers, from the coarsest, if trainable.
        bad_noise_layers (Sequence[int]): Layers without noise.
        tile_latent (bool): One latent for all layers.
        seed (int): Of latents and noise.
        keep (str): Which image is the result: 'last', as the official code has it, or 'best', that
            of the smallest loss.
        init_cfg (dict, optional): See ``BaseModule``.

    Raises:
        ValueError: for sizes that do not fit each other, or an unknown option.

    Example:
        >>> import torch
        >>> from mmpd.models.generators import PULSENet
        >>> network = PULSENet(in_size=8, out_size=16, style_channels=6, steps=3,
        ...                    channels={4: 8, 8: 6, 16: 4})
        >>> losses = []
        >>> image = network(torch.rand(1, 3, 8, 8) * 2 - 1,
        ...                 callback=lambda step, terms: losses.append(terms['TOTAL']))
        >>> tuple(image.shape), len(losses)
        ((1, 3, 16, 16), 3)
    """

    dtypes = ('float32', )  # the search goes by gradients

    def __init__(self, in_size, out_size, style_channels=512, channels=None, steps=100,
                 optimizer='adam', learning_rate=0.4, lr_schedule='linear1cycledrop', losses=None,
                 eps=2e-3, noise_type='trainable', num_trainable_noise_layers=5,
                 bad_noise_layers=(17, ), tile_latent=False, seed=0, keep='last', init_cfg=None):
        super().__init__(init_cfg=check_init_cfg(init_cfg))
        check_positive_int(in_size, 'in_size', least=2)
        check_positive_int(steps, 'steps')
        check_positive_int(seed, 'seed', least=0, most=2**63 - 1)
        check_positive_int(style_channels, 'style_channels', most=MOST_CHANNELS)
        channels = check_widths(channels)
        check_number(learning_rate, 'learning_rate', above=0)
        check_number(eps, 'eps', least=0)
        check_bool(tile_latent, 'tile_latent')
        for name, value, allowed in (('optimizer', optimizer, OPTIMIZERS), ('keep', keep, KEEP),
                                     ('lr_schedule', lr_schedule, SCHEDULES),
                                     ('noise_type', noise_type, NOISE)):
            check_choice(value, name, allowed)
        if bad_noise_layers not in ((), []):
            check_sequence(bad_noise_layers, 'bad_noise_layers', check_positive_int, least=0)
        check_positive_int(num_trainable_noise_layers, 'num_trainable_noise_layers', least=0)
        losses = dict(L2=100, GEOCROSS=0.05) if losses is None else losses
        self.losses = dict(check_keys(losses, 'losses', ('L2', 'L1', 'GEOCROSS')))
        for name, weight in self.losses.items():
            check_number(weight, f'losses.{name}', least=0)
        if not losses:
            refuse('losses', 'weights of L2, L1 or GEOCROSS', losses)
        self.synthesis = StyleGAN1Synthesis(out_size, style_channels, channels)
        if in_size >= out_size or out_size % in_size:
            refuse('out_size', f'a multiple of in_size={in_size}, larger than it', out_size)
        self.requires_grad_(False)
        self.register_buffer('latent_mean', torch.zeros(style_channels))
        self.register_buffer('latent_std', torch.ones(style_channels))
        self.in_size, self.out_size, self.seed, self.keep = in_size, out_size, seed, keep
        self.steps, self.learning_rate, self.eps = steps, learning_rate, eps
        self.optimizer, self.lr_schedule = optimizer, lr_schedule
        self.noise_type, self.num_trainable = noise_type, num_trainable_noise_layers
        self.bad_noise_layers, self.tile_latent = set(bad_noise_layers), tile_latent

    def start(self, count, like=None):
        """Random latents and noise.

        Args:
            count (int): Images; all begin alike.
            like (Tensor, optional): Has the device and type of the results; they are drawn on the
                CPU.

        Returns:
            tuple[Tensor, list[Tensor], list[Tensor]]: Latents (count, L or 1, style_channels),
            noise of each layer (count, 1, H, W), and which of these are to be optimised.
        """
        generator = torch.Generator().manual_seed(self.seed)

        def draw(*shape):
            value = torch.randn(1, *shape, generator=generator)
            value = value if like is None else value.to(like)
            return value.repeat(count, *[1] * len(shape))

        layers = self.synthesis.num_latents
        latent = draw(1 if self.tile_latent else layers, self.synthesis.style_channels)
        noises, trainable = [], [latent]
        for index, size in enumerate(self.synthesis.noise_sizes()):
            if self.noise_type == 'zero' or index in self.bad_noise_layers:
                noises.append(latent.new_zeros(count, 1, size, size))
                continue
            noises.append(draw(1, size, size))
            if self.noise_type == 'trainable' and index < self.num_trainable:
                trainable.append(noises[-1])
        return latent, noises, [tensor.requires_grad_() for tensor in trainable]

    def loss_terms(self, latents, image, lr):
        """Each loss per image, unweighted; ``image`` and ``lr`` in [0, 1]."""
        difference = bicubic_downsample(image, self.out_size // self.in_size) - lr
        terms = dict(L2=lambda: difference.square().mean((1, 2, 3)),
                     L1=lambda: 10 * difference.abs().mean((1, 2, 3)).clamp(min=self.eps),
                     GEOCROSS=lambda: geocross(latents))
        return {name: terms[name]() for name in {'L2': 0, **self.losses}}

    def forward(self, lr, project=None, callback=None):
        """Search.

        Args:
            lr (Tensor): (N, 3, in_size, in_size), in [-1, 1].
            project (callable, optional): ``project(image, lr)`` makes each step's image consistent
                before the losses see it, in [-1, 1].
            callback (callable, optional): ``callback(step, terms)`` gets the losses of each step,
                per image, with 'TOTAL'.

        Returns:
            Tensor: (N, 3, out_size, out_size).

        Raises:
            ValueError: for another size.
        """
        check_lr(lr, self.in_size)
        with torch.inference_mode(False), torch.enable_grad():
            return self._search(lr.detach().clone(), project, callback)

    def _search(self, lr, project, callback):
        latent, noises, variables = self.start(len(lr), lr)
        radii = [norm_per_latent(variable.detach()) for variable in variables]
        optimizer = OPTIMIZERS[self.optimizer](variables, lr=self.learning_rate)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, partial(SCHEDULES[self.lr_schedule], steps=self.steps))
        kept = lr.new_empty(len(lr), 3, self.out_size, self.out_size)
        least, nearest = (lr.new_full((len(lr), ), torch.inf) for _ in range(2))
        for step in range(self.steps):
            optimizer.zero_grad()
            latents = latent.expand(-1, self.synthesis.num_latents, -1)
            latents = F.leaky_relu(latents * self.latent_std + self.latent_mean, 0.2)
            image = self.synthesis(latents, noises)
            if project is not None:
                image = project(image, lr)
            terms = self.loss_terms(latents, (image + 1) / 2, (lr + 1) / 2)
            nearest = torch.minimum(nearest, terms['L2'].detach())
            terms['L2'] = terms['L2'].clamp(min=self.eps)
            total = sum(weight * terms[name] for name, weight in self.losses.items())
            if callback is not None:
                callback(step, {name: term.detach() for name, term in terms.items()} | dict(
                    TOTAL=total.detach()))
            better = (total < least) | (self.keep == 'last')
            least = torch.where(better, total, least).detach()
            kept[better] = image.detach()[better]
            total.sum().backward()
            optimizer.step()
            scheduler.step()
            with torch.no_grad():
                for variable, radius in zip(variables, radii, strict=True):
                    variable.div_(norm_per_latent(variable)).mul_(radius)
        missed = int((nearest > self.eps).sum())
        if missed:
            print_log(f'PULSE: {missed} of {len(lr)} images came no nearer to the LR than an L2 of '
                      f'{nearest.max():.2g} (eps={self.eps})', logger='current',
                      level=logging.WARNING)
        return kept
