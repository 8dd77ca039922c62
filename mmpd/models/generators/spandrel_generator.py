"""Any super-resolution network that spandrel reads, as a generator."""
import numpy as np
import torch.nn.functional as F
from mmagic.registry import MODELS
from mmengine.logging import print_log
from torch import nn

from ...errors import MissingPackage, WeightsMismatch
from ...utils.foreign import generator_weights, read_content
from ...utils.validation import check_number, check_path


def load_spandrel(checkpoint, state=None):
    """Find out the architecture of a checkpoint and build it.

    The file is read by mmpd (weights only, no code in it is run) and only its
    tensors are handed to spandrel.

    Args:
        checkpoint (str | Path): File of ``torch.save`` or safetensors, or a URL.
        state (dict, optional): Its weights, if they were read already.

    Returns:
        spandrel.ImageModelDescriptor: The network with what is known of it.

    Raises:
        MissingPackage: if spandrel is not installed.
        WeightsNotFound: if there is no such file.
        WeightsMismatch: if it cannot be read, is of no architecture that
            spandrel knows, or of one that does not enlarge images.
    """
    try:
        import spandrel
    except ImportError as error:
        raise MissingPackage('checkpoints of other programs are recognised by spandrel, which is '
                             'not installed: pip install "mmpd[spandrel]"') from error
    if state is None:
        state = generator_weights(read_content(checkpoint), checkpoint)
    try:
        found = spandrel.ModelLoader().load_from_state_dict(dict(state))
    except spandrel.UnsupportedModelError as error:
        raise WeightsMismatch(
            f'{checkpoint}: of no architecture that spandrel {spandrel.__version__} knows; '
            f'its tensors are {", ".join(list(state)[:3])} …') from error
    except Exception as error:  # sizes are deduced from whatever tensors there are
        reason = str(error).strip().split('\n')[0]
        raise WeightsMismatch(f'{checkpoint}: spandrel cannot build its network: '
                              f'{type(error).__name__}: {reason}') from error
    name = found.architecture.name
    if found.purpose == 'Inpainting' or found.scale == 1:
        raise WeightsMismatch(f'{checkpoint}: {name} ({found.purpose.lower()}, scale '
                              f'{found.scale}) does not enlarge images; expected a '
                              'super-resolution network')
    if found.input_channels != found.output_channels:
        raise WeightsMismatch(f'{checkpoint}: {name} makes {found.output_channels} channels of '
                              f'{found.input_channels}; expected as many as it takes')
    return found


@MODELS.register_module()
class SpandrelGenerator(nn.Module):
    """A pretrained network of another program: ESRGAN, SwinIR, HAT, DAT, SPAN, CRAFT …

    The architecture and its settings are found out from the weights (see
    spandrel's list of architectures).  In a config::

        model = dict(
            type='PDModel', base='BaseEditModel', pixel_loss=dict(type='L1Loss'),
            generator=dict(type='SpandrelGenerator', checkpoint='4x_network.pth'),
            data_preprocessor=dict(type='DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3))

    Such networks work on RGB images in [0, 1], models of mmpd in [-1, 1]: the
    range is converted on the way in and out.  Sizes that the network cannot
    take (a minimum, a multiple of its window, squares only) are padded at the
    right and the bottom, by reflection as far as the image goes and by its
    border beyond, and the result is cropped, as spandrel itself does.

    Args:
        checkpoint (str): File or URL. It is needed to build the model even where
            trained weights are loaded afterwards, for it says what to build.
        mean (float): Mean of the model's data preprocessor in 0..255; the same
            for all channels.
        std (float): Its std. 0 and 255 for a model that works in [0, 1].

    Attributes:
        network (nn.Module): The network; its keys are spandrel's.
        architecture (str): Its name.
        scale (int): By how much it enlarges.
        channels (int): Of image and LR, mostly 3.
        size_requirements: ``minimum``, ``multiple_of`` and ``square``.
        tiling (str): 'supported', 'discouraged' or 'internal'.
        dtypes (tuple[str]): The precisions that spandrel vouches for.

    Shape:
        LR (N, channels, h, w), normalised; output (N, channels, scale·h,
        scale·w), not clipped.

    Raises:
        See :func:`load_spandrel`.

    Example:
        >>> import torch
        >>> from mmagic.registry import MODELS
        >>> from mmpd.models.generators import SpandrelGenerator
        >>> network = MODELS.build(dict(
        ...     type='RRDBNet', in_channels=3, out_channels=3, mid_channels=8, num_blocks=1))
        >>> torch.save(network.state_dict(), '4x_network.pth')
        >>> generator = SpandrelGenerator('4x_network.pth')
        >>> generator.architecture, tuple(generator(torch.rand(1, 3, 8, 8)).shape)
        ('ESRGAN', (1, 3, 32, 32))
    """

    # no init_weights: mmengine calls those of all children before training

    def __init__(self, checkpoint, mean=127.5, std=127.5):
        super().__init__()
        check_path(checkpoint, 'checkpoint', 'a file or URL')
        mean, std = check_number(mean, 'mean'), check_number(std, 'std', above=0)
        found = load_spandrel(checkpoint)
        self.checkpoint, self.mean, self.std = str(checkpoint), mean, std
        self.architecture, self.scale = found.architecture.name, found.scale
        self.channels = found.input_channels
        self.size_requirements, self.tiling = found.size_requirements, found.tiling.name.lower()
        self.dtypes = ('float32', *['bfloat16'] * found.supports_bfloat16,
                       *['float16'] * found.supports_half)
        self.network = found.model
        # what a network returns beside the image is dropped by this function of spandrel's;
        # calling the descriptor itself would clip the image and cut its gradient
        self._call = found._call_fn
        print_log(f'{checkpoint}: {self.architecture} ({", ".join(found.tags)}), scale '
                  f'{self.scale}', logger='current')

    def extra_repr(self):
        return f'{self.architecture}, scale={self.scale}, channels={self.channels}'

    def check_normalisation(self, mean, std):
        """Raise ValueError unless these are the mean and std that the generator undoes."""
        for name, value in (('mean', mean), ('std', std)):
            own, values = getattr(self, name), np.asarray(value, float).ravel()
            if not (values == own).all():
                raise ValueError(f'SpandrelGenerator has {name}={own:g}, but the data '
                                 f'preprocessor {values.tolist()}: give the generator the same')

    def _pad(self, image):
        height, width = image.shape[-2:]
        right, bottom = self.size_requirements.get_padding(width, height)
        mirrored = min(right, width - 1), min(bottom, height - 1)
        if any(mirrored):
            image = F.pad(image, (0, mirrored[0], 0, mirrored[1]), mode='reflect')
        rest = right - mirrored[0], bottom - mirrored[1]
        return F.pad(image, (0, rest[0], 0, rest[1]), mode='replicate') if any(rest) else image

    def forward(self, lr):
        """Enlarge; (N, channels, h, w) -> (N, channels, scale·h, scale·w), both normalised."""
        if lr.dim() != 4 or lr.shape[1] != self.channels:
            raise ValueError(f'{self.architecture}: expected LR images of shape (N, '
                             f'{self.channels}, h, w), got {tuple(lr.shape)}')
        height, width = (side * self.scale for side in lr.shape[-2:])
        image = self._call(self.network, self._pad((lr * self.std + self.mean) / 255))
        return (image[..., :height, :width] * 255 - self.mean) / self.std
