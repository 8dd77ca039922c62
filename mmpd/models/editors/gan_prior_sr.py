"""SRGAN as GAN-prior super-resolution needs it: the prior really loads."""
import logging
from copy import deepcopy

from mmagic.models.editors.srgan import SRGAN
from mmagic.models.losses.gan_loss import r1_gradient_penalty_loss
from mmagic.registry import MODELS
from mmengine.logging import print_log
from mmengine.runner.checkpoint import get_state_dict

from ...utils.checkpoint import load_completely, pretrained_cfg, strip_wrapper_prefix
from ...utils.model import unwrap
from ...utils.validation import check_bool, check_dict, optional
from ..generators.glean_net import check_lr, check_sizes
from ..settings import check_model_parts, check_settings
from .training import TrainingMixin


@MODELS.register_module()
class GANPriorSR(TrainingMixin, SRGAN):
    """MMagic's SRGAN for generators that hold a pretrained StyleGAN2.

    What it adds: the pretrained prior and discriminator are checked to load
    completely (MMagic 1.2 gives the prior's checkpoint to a module whose keys
    all begin with ``generator.``, matches nothing, and says nothing); the pixel
    loss is optional; R1 regularisation and an averaged generator are there for
    those who want them; checkpoints written under separate DDP wrappers have
    the same keys as those of one process.

    Args:
        generator (dict): Config of the generator. ``init_cfg`` of type
            ``Pretrained`` names the StyleGAN2 checkpoint of its prior.
        pixel_loss (dict, optional): Config of the pixel loss, None for none.
        train_cfg (dict, optional): MMagic's keys, and ``r1_weight`` (default 0):
            weight of the R1 penalty on real images, e.g. 5.0 for γ = 10.
        use_ema (bool): Keep ``generator_ema``, an averaged copy used for
            validation and testing; needs MMagic's
            ``ExponentialMovingAverageHook(module_keys='generator_ema', interval=1)``.
        kwargs: The other arguments of MMagic's SRGAN.

    Raises:
        WeightsNotFound: from ``init_weights``, if the weights of the prior or the
            discriminator cannot be had.
        WeightsMismatch: from ``init_weights``, if they do not load completely.

    Example:
        >>> import torch
        >>> from mmagic.registry import MODELS
        >>> model = MODELS.build(dict(
        ...     type='GANPriorSR', pixel_loss=dict(type='L1Loss'),
        ...     generator=dict(type='GLEANNet', in_size=8, out_size=16, style_channels=8,
        ...                    num_mlps=1, rrdb_channels=4, num_rrdbs=1, growth_channels=4,
        ...                    channels={4: 8, 8: 8, 16: 8}),
        ...     data_preprocessor=dict(
        ...         type='mmagic.DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3)))
        >>> lr = torch.rand(1, 3, 8, 8) * 2 - 1
        >>> image = model.forward_tensor(lr)
        >>> tuple(image.shape)  # no PD; init_cfg of the generator would name the prior's checkpoint
        (1, 3, 16, 16)
    """

    def __init__(self, generator, pixel_loss=None, train_cfg=None, use_ema=False, **kwargs):
        check_model_parts(generator=generator, pixel_loss=pixel_loss, **kwargs)
        optional(check_dict, train_cfg, 'train_cfg')
        check_bool(use_ema, 'use_ema')
        generator, self._prior_cfg = self._split_prior(generator)
        self._discriminator_cfg = None
        if kwargs.get('discriminator'):
            kwargs['discriminator'], self._discriminator_cfg = self._split_pretrained(
                kwargs['discriminator'])
        placeholder = pixel_loss or dict(type='L1Loss')  # SRGAN cannot be built without one
        super().__init__(generator=generator, pixel_loss=placeholder, train_cfg=train_cfg, **kwargs)
        if not pixel_loss:
            del self.pixel_loss  # a child that is None would stop MMSeparateDistributedDataParallel
            self.pixel_loss = None
        check_settings(type(self), train_cfg, self.test_cfg)
        self.r1_weight = (train_cfg or {}).get('r1_weight', 0)
        self.use_ema = use_ema
        if use_ema:
            # as trainable as the generator, so that distributed wrappers treat both alike; no
            # optimiser has it
            self.generator_ema = deepcopy(self.generator)
        self._prior_is_random = False
        self._register_load_state_dict_pre_hook(self._clean_keys)

    @staticmethod
    def _split_pretrained(cfg):
        """Take a ``Pretrained`` init_cfg out of a module's config."""
        init_cfg = pretrained_cfg(cfg.get('init_cfg')) if isinstance(cfg, dict) else None
        if init_cfg is None:
            return cfg, None
        return {key: value for key, value in cfg.items() if key != 'init_cfg'}, init_cfg

    @classmethod
    def _split_prior(cls, cfg):
        """Only MMagic's own generator needs help; ours load their prior themselves."""
        kind = cfg.get('type') if isinstance(cfg, dict) else None
        if getattr(kind, '__name__', str(kind)).split('.')[-1] == 'GLEANStyleGANv2':
            check_sizes(cfg.get('in_size'), cfg.get('out_size'))
            return cls._split_pretrained(cfg)
        return cfg, None

    def init_weights(self):
        """Initialise, then load prior and discriminator, each completely or not at all."""
        if self._is_init:
            return
        prior = getattr(unwrap(self.generator), 'generator', None)
        self._prior_is_random = prior is not None and not self._prior_cfg and not pretrained_cfg(
            getattr(prior, 'init_cfg', None))
        super().init_weights()
        if self._prior_cfg:
            load_completely(unwrap(self.generator).generator, self._prior_cfg['checkpoint'],
                       self._prior_cfg.get('prefix') or '')
        if self._discriminator_cfg:
            load_completely(unwrap(self.discriminator), self._discriminator_cfg['checkpoint'],
                       self._discriminator_cfg.get('prefix') or '', name='discriminator')
        if self.use_ema:
            unwrap(self.generator_ema).load_state_dict(unwrap(self.generator).state_dict())

    def forward_tensor(self, inputs, data_samples=None, training=False):
        """The generator's output; outside training that of ``generator_ema`` if there is one.

        Args:
            inputs (Tensor): LR images, (N, C, in_size, in_size), in [-1, 1].
            data_samples (DataSample, optional): Not used.
            training (bool): Whether called from the training step.

        Returns:
            Tensor: (N, C, out_size, out_size).
        """
        in_size = getattr(unwrap(self.generator), 'in_size', None)
        if in_size is not None:  # MMagic's own generator would end in an assertion
            check_lr(inputs, in_size)
        if inputs.device.type == 'cpu' and getattr(
                getattr(unwrap(self.generator), 'generator', None), 'fp16_enabled', False):
            raise RuntimeError('The generator has fp16_enabled=True, which needs a CUDA GPU; on a '
                               'CPU set model.generator.fp16_enabled=False and '
                               'model.discriminator.fp16_enabled=False.')
        if self.use_ema and not training:
            return self.generator_ema(inputs)
        return super().forward_tensor(inputs, data_samples, training=training)

    def train_step(self, data, optim_wrapper):
        """SRGAN's training step; the first one says if a random prior is frozen."""
        if self._prior_is_random:
            self._prior_is_random = False
            prior = unwrap(self.generator).generator
            if not any(parameter.requires_grad for parameter in prior.parameters()):
                print_log('The prior is frozen and random, and will stay so: '
                          'model.generator.init_cfg names no checkpoint, and none was loaded. Name '
                          'one, or train the prior (model.generator.freeze_prior=False).',
                          logger='current', level=logging.WARNING)
        return super().train_step(data, optim_wrapper)

    def d_step_real(self, batch_outputs, batch_gt_data):
        """GAN loss on real images, with the R1 penalty if ``train_cfg.r1_weight`` is set."""
        loss = super().d_step_real(batch_outputs, batch_gt_data)
        if self.r1_weight:
            loss = loss + self.r1_weight * r1_gradient_penalty_loss(
                self.discriminator, batch_gt_data, norm_mode='HWC')
        return loss

    def state_dict(self, *args, destination=None, prefix='', keep_vars=False):
        """As always, without the ``module.`` that separate DDP wrappers put into keys."""
        if args:  # as torch took them once
            destination, prefix, keep_vars = (*args, destination, prefix, keep_vars)[:3]
        state = super().state_dict(prefix=prefix, keep_vars=keep_vars)
        state = strip_wrapper_prefix(state, get_state_dict(self, prefix=prefix))
        if destination is None:
            return state
        destination.update(state)  # of a module that holds this one
        if hasattr(destination, '_metadata'):
            destination._metadata.update(state._metadata)
        return destination

    def adapt_state_dict(self, state_dict, prefix=''):
        """A state dict in the keys of this model, of which ``prefix`` goes before all.

        Without the ``module.`` of wrappers; a plain or published checkpoint gives its
        generator to ``generator_ema`` too.

        Args:
            state_dict (dict): Keys to tensors.
            prefix (str): What the modules around this one put before the keys.

        Returns:
            dict: ``state_dict`` itself if there is nothing to change.
        """
        adapted = strip_wrapper_prefix(state_dict, get_state_dict(self, prefix=prefix))
        averaged, trained = f'{prefix}generator_ema.', f'{prefix}generator.'
        if self.use_ema and not any(key.startswith(averaged) for key in adapted):
            copies = {averaged + key[len(trained):]: value for key, value in adapted.items()
                      if key.startswith(trained)}
            if copies:
                adapted = type(adapted)({**adapted, **copies})
        return adapted

    def _clean_keys(self, state_dict, prefix, *_):
        adapted = self.adapt_state_dict(state_dict, prefix)
        if any(key.startswith(f'{prefix}generator.generator.') for key in adapted):
            self._prior_is_random = False
        if adapted is not state_dict:
            state_dict.clear()
            state_dict.update(adapted)
