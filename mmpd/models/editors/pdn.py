"""PDN: consistent samples from a GAN prior, trained by the adversarial loss alone."""
import torch
from mmagic.registry import MODELS
from mmengine.dist import get_dist_info
from mmengine.logging import MessageHub

from ...utils.model import unwrap
from ...utils.validation import ArgumentError
from .gan_prior_sr import GANPriorSR
from .pd_mixin import PDMixin


@MODELS.register_module()
class PDN(PDMixin, GANPriorSR):
    """The network of the paper's ablation "What If We Do Not Use Pixel-Wise losses?".

    Its generator (:class:`PDNNet`) draws a random latent in every forward
    pass, so one LR image has many outputs; PD makes all of them consistent.

    Args:
        train_cfg (dict, optional): Besides the keys of :class:`GANPriorSR`,
            ``seed`` (default 0): the latent of a training image is drawn from a
            generator seeded with it and the image's number in the run, so a
            resumed run draws the same ones, on however many processes and in
            batches of whatever size.
        test_cfg (dict, optional): Besides the keys of :class:`PDMixin`,
            ``num_samples`` (default 1): outputs per LR image. The first is
            ``pred_img``; with more than one, all are in ``pred_samples``,
            (N, num_samples, C, H, W). ``seed`` (default 0): every test image is
            drawn with it; None draws anew each time.
        kwargs: The other arguments of :class:`GANPriorSR` and :class:`PDMixin`.

    Example:
        >>> import torch
        >>> from mmagic.registry import MODELS
        >>> from mmpd.operators import average_pool
        >>> model = MODELS.build(dict(
        ...     type='PDN', test_cfg=dict(seed=None),
        ...     generator=dict(type='PDNNet', in_size=8, out_size=16, style_channels=8,
        ...                    num_mlps=1, rrdb_channels=4, num_rrdbs=1, growth_channels=4,
        ...                    channels={4: 8, 8: 8, 16: 8}),
        ...     data_preprocessor=dict(
        ...         type='mmagic.DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3)))
        >>> lr = torch.rand(1, 3, 8, 8) * 2 - 1
        >>> first, second = (model.forward_tensor(lr) for _ in range(2))  # of two latents
        >>> torch.equal(first, second)
        False
        >>> all(torch.allclose(average_pool(image, 2), lr, atol=1e-5) for image in (first, second))
        True
    """

    def __init__(self, *args, train_cfg=None, test_cfg=None, **kwargs):
        super().__init__(*args, train_cfg=train_cfg, test_cfg=test_cfg, **kwargs)
        self.num_samples = (test_cfg or {}).get('num_samples', 1)
        if not hasattr(self.generator, 'noise_size'):
            raise ArgumentError('PDN needs a generator that takes random latents, PDNNet, got '
                             f'{type(self.generator).__name__}')

    def _seed(self):
        return (self.test_cfg or {}).get('seed', 0)

    def _draw_for_training(self, batch_size, seed):
        iteration = MessageHub.get_current_instance().get_info('iter', 0)
        rank, ranks = get_dist_info()
        # mmengine's samplers deal the images out to the ranks in turn
        numbers = range(iteration * batch_size * ranks + rank,
                        (iteration + 1) * batch_size * ranks, ranks)
        size, generator = unwrap(self.generator).noise_size, torch.Generator()
        return torch.stack([
            torch.randn(size, generator=generator.manual_seed(hash((seed, number)) % 2**63))
            for number in numbers])

    def draw_latents(self, batch_size, training=False, seed=None):
        """Random z, (batch_size, noise_size), from the configured seed or ``seed``."""
        if training:
            own = (self.train_cfg or {}).get('seed', 0)
            return self._draw_for_training(batch_size, own if seed is None else seed)
        seed = self._seed() if seed is None else seed
        size = unwrap(self.generator).noise_size
        if seed is None:
            return torch.randn(batch_size, size)
        generator = torch.Generator().manual_seed(seed)
        # the same for every image, so that a result does not depend on the batch it is in
        return torch.randn(1, size, generator=generator).expand(batch_size, -1)

    def forward_raw(self, inputs, data_samples=None, training=False, seed=None):
        """x_r for one random latent per image, (N, C, sh, sw)."""
        z = self.draw_latents(len(inputs), training, seed).to(inputs.device)
        network = self.generator_ema if self.use_ema and not training else self.generator
        return network(inputs, z=z)

    def raw_samples(self, inputs, data_samples=None):
        """Yield ``num_samples`` raw predictions, each of another latent."""
        first = self._seed()
        for i in range(self.num_samples):
            yield self.forward_raw(inputs, data_samples, seed=None if first is None else first + i)

    def forward_inference(self, inputs, data_samples=None, **kwargs):
        """As :class:`PDMixin`, with ``pred_samples`` if ``num_samples`` is above 1."""
        if self.num_samples == 1:
            return super().forward_inference(inputs, data_samples, **kwargs)
        samples = [self.finish(raw, inputs, data_samples)
                   for raw in self.raw_samples(inputs, data_samples)]
        predictions = samples[0]
        predictions.set_tensor_data(
            dict(pred_samples=torch.stack([sample.pred_img for sample in samples], 1)))
        return predictions
