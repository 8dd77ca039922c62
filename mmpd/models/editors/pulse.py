"""PULSE as a model type, alone and with PD inside the search or behind it."""
from mmagic.models.base_models import BaseEditModel
from mmagic.registry import MODELS

from ...utils.validation import check_bool
from ..settings import check_model_parts, check_settings
from .pd_mixin import PDMixin


@MODELS.register_module()
class PULSE(BaseEditModel):
    """A model whose generator searches for its output: :class:`PULSENet`. It is never trained.

    Args:
        generator (dict): Config of the generator.
        kwargs: The other arguments of MMagic's ``BaseEditModel``.

    Example:
        >>> import torch
        >>> from mmagic.registry import MODELS
        >>> model = MODELS.build(dict(
        ...     type='PULSE',
        ...     generator=dict(type='PULSENet', in_size=8, out_size=16, style_channels=6, steps=3,
        ...                    channels={4: 8, 8: 6, 16: 4}, bad_noise_layers=()),
        ...     data_preprocessor=dict(
        ...         type='mmagic.DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3)))
        >>> lr = torch.rand(1, 3, 8, 8) * 2 - 1
        >>> image = model.forward_tensor(lr)
        >>> tuple(image.shape)
        (1, 3, 16, 16)
    """

    def __init__(self, generator, pixel_loss=None, **kwargs):
        check_model_parts(generator=generator, pixel_loss=pixel_loss, **kwargs)
        # BaseEditModel cannot be built without a loss
        super().__init__(generator, pixel_loss or dict(type='L1Loss'), **kwargs)
        check_settings(type(self), self.train_cfg, self.test_cfg)

    def forward_tensor(self, inputs, data_samples=None, **kwargs):
        """The image found, (N, C, out_size, out_size)."""
        return self.generator(inputs, **kwargs)

    def forward_train(self, inputs, data_samples=None, **kwargs):
        """PULSE has nothing to train."""
        raise RuntimeError('PULSE is not trained: it searches for each image. Use tools/test.py.')


@MODELS.register_module()
class PDPULSE(PDMixin, PULSE):
    """PULSE with PD (AAAI 2023).

    Args:
        pd_inside (bool): True: the image of every step of the search is made consistent, so that
            the search is about what the LR leaves open. Where A is PULSE's own downsampling
            the L2 loss is then zero from the first step on, and only the distance between the
            latents is left; with average pooling it still sees what bicubic weighs differently.
            False: the image found is made consistent, as with every other method.
        kwargs: The arguments of :class:`PULSE` and :class:`PDMixin`.

    Example:
        >>> import torch
        >>> from mmagic.registry import MODELS
        >>> from mmpd.operators import average_pool
        >>> model = MODELS.build(dict(
        ...     type='PDPULSE', pd_inside=True,
        ...     generator=dict(type='PULSENet', in_size=8, out_size=16, style_channels=6, steps=3,
        ...                    channels={4: 8, 8: 6, 16: 4}, bad_noise_layers=()),
        ...     data_preprocessor=dict(
        ...         type='mmagic.DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3)))
        >>> lr = torch.rand(1, 3, 8, 8) * 2 - 1
        >>> image = model.forward_tensor(lr)
        >>> tuple(image.shape), torch.allclose(average_pool(image, 2), lr, atol=1e-5)
        ((1, 3, 16, 16), True)
    """

    def __init__(self, *args, pd_inside=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.pd_inside = check_bool(pd_inside, 'pd_inside')

    def forward_raw(self, inputs, data_samples=None, **kwargs):
        """What PD is given: the image found, already consistent with ``pd_inside``."""
        if self.pd_inside:
            kwargs['project'] = self.pd_head
        return super().forward_raw(inputs, data_samples, **kwargs)
