"""Super-resolve LR images, no GT needed."""
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from mmagic.datasets.transforms import PackInputs
from mmagic.registry import MODELS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope

from ..errors import WeightsMismatch
from ..utils.checkpoint import match_model, read_state_dict, strip_wrapper_prefix
from ..utils.images import read_8bit

TRAINING_ONLY = ('discriminator', 'gan_loss', 'perceptual_loss')


class PDInferencer:
    """A trained model for use outside the runner.

    ``mmagic.apis.MMagicInferencer`` resizes every input to 32 x 32 unless its
    config says otherwise, and imports much that super-resolution does not need.

    Args:
        config (str | Config): Config of the model, or its file.
        checkpoint (str): File or URL.
        device (str, optional): Defaults to a GPU if there is one.
        cfg_options (dict, optional): Overrides, e.g. ``{'model.pd_head.strength': 0.5}``.

    Raises:
        FileNotFoundError: no such checkpoint.
        RuntimeError: the checkpoint cannot be read, or is not one of this model; names the
            first key.
    """

    def __init__(self, config, checkpoint, device=None, cfg_options=None):
        cfg = deepcopy(config) if isinstance(config, Config) else Config.fromfile(config)
        cfg.merge_from_dict(cfg_options or {})
        init_default_scope(cfg.get('default_scope', 'mmagic'))
        model = {key: value for key, value in cfg.model.items() if key not in TRAINING_ONLY}
        self.model = MODELS.build(model)
        self._load(checkpoint)
        self.device = device or get_device()
        self.model.to(self.device).eval()

    def _load(self, checkpoint):
        state = read_state_dict(checkpoint)
        differences, own = match_model(self.model, state)
        if differences.count:
            raise WeightsMismatch(f'{checkpoint} is not a checkpoint of this model: '
                                  f'{len(own)} tensors, {differences.count} differ: '
                                  f'{differences.first}')
        state = strip_wrapper_prefix(state, own)
        self.model.load_state_dict({key: value for key, value in state.items() if key in own},
                                   strict=False)  # match_model has seen to it

    @torch.no_grad()
    def __call__(self, lr):
        """Super-resolve one image.

        Args:
            lr (str | Path | ndarray): File (grey is taken as RGB of equal channels), or
                (h, w, 3) uint8 RGB.

        Returns:
            ndarray: (H, W, 3) uint8 RGB; with the default ``test_cfg.quantize`` its
            average pooling is ``lr`` exactly. With several samples per LR
            (:class:`PDN`, ``test_cfg.num_samples``) (num_samples, H, W, 3).

        Raises:
            FileNotFoundError: no such file.
            ValueError: not an 8-bit RGB image, or not of the model's in_size.
        """
        if isinstance(lr, (str, Path)):
            if not Path(lr).is_file():
                raise FileNotFoundError(f'no LR image {lr}')
            lr = read_8bit(lr)
            lr = np.stack([lr] * 3, -1) if lr.ndim == 2 else lr
        if not isinstance(lr, np.ndarray):
            raise ValueError(f'LR: expected a file or an array, got {type(lr).__name__}')
        if lr.dtype != np.uint8 or lr.ndim != 3 or lr.shape[2] != 3:
            raise ValueError('LR: expected (h, w, 3) uint8 RGB, '
                             f'got {lr.dtype} of shape {lr.shape}')
        packed = PackInputs()(dict(img=np.ascontiguousarray(lr), img_channel_order='rgb'))
        data = self.model.data_preprocessor(
            dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']]))
        sample, = self.model(data['inputs'], data['data_samples'], mode='predict')
        image = sample.output.get('pred_samples', sample.output.pred_img)
        bgr = image.clamp(0, 255).round().to(torch.uint8)
        return bgr.flip(-3).movedim(-3, -1).contiguous().cpu().numpy()
