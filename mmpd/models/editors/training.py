"""What mmpd's model types do in a training step beyond MMagic's."""
import torch

from ...errors import BadSample
from ...utils.samples import file_of

__all__ = ['TrainingMixin', 'check_batch']


class _CountedOnce:
    """An OptimWrapper for one update, of which only the last backward pass counts."""

    def __init__(self, wrapper):
        self.wrapper, self.count = wrapper, wrapper.inner_count + 1

    def __getattr__(self, name):
        return getattr(self.wrapper, name)

    def backward(self, loss, **kwargs):
        self.wrapper.backward(loss, **kwargs)
        self.wrapper._inner_count = self.count


class TrainingMixin:
    """Mixed in before a subclass of MMagic's ``BaseEditModel`` or ``SRGAN``.

    Batches of images of different sizes are refused by file, and accumulated gradients are those
    of the large batch.
    """

    def train_step(self, data, optim_wrapper):
        """The model type's own, after a look at the sizes of the batch.

        Raises:
            BadSample: see :func:`check_batch`.
        """
        check_batch(data)
        return super().train_step(data, optim_wrapper)

    def d_step_with_optim(self, batch_outputs, batch_gt_data, optim_wrapper):
        """SRGAN's, with its two backward passes counted as one of ``accumulative_counts``.

        Counted twice, two accumulated batches would be an update each, of half the gradient.
        """
        once = _CountedOnce(optim_wrapper['discriminator'])
        return super().d_step_with_optim(batch_outputs, batch_gt_data, dict(discriminator=once))


def check_batch(data):
    """Refuse a training batch of images of different sizes.

    MMagic would pad the LR images, which then no longer are what their GT was made to, and end at
    the GT images without a name.

    Args:
        data (dict): ``inputs``, the LR images, and ``data_samples``, as a data loader gives them.

    Raises:
        BadSample: naming the first two files that differ, with their sizes.
    """
    inputs, samples = data.get('inputs'), data.get('data_samples')
    samples = samples if isinstance(samples, (list, tuple)) else []
    images = {'LR': inputs if isinstance(inputs, (list, tuple)) else []}
    if samples:
        images.update((key, [sample.get(key) for sample in samples]) for key in samples[0].keys())
    for key, tensors in images.items():
        if not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
            continue
        for index, tensor in enumerate(tensors):
            if tensor.shape != tensors[0].shape:
                found = ' and '.join(
                    f'{"x".join(map(str, tensors[one].shape))} '
                    f'({file_of(samples[one]) if samples else f"image {one}"})'
                    for one in (0, index))
                raise BadSample(f'a training batch: expected {key} images of one size, got {found};'
                                ' crop or resize them in train_pipeline, or set '
                                'train_dataloader.batch_size=1')
