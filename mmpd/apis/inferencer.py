"""Super-resolve LR images, no GT needed."""
import logging
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from mmagic.datasets.transforms import PackInputs
from mmagic.registry import MODELS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.registry import init_default_scope

from ..utils.checkpoint import read_state_dict
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
        RuntimeError: the checkpoint is not one of this model; names the first key.
    """

    def __init__(self, config, checkpoint, device=None, cfg_options=None):
        cfg = deepcopy(config) if isinstance(config, Config) else Config.fromfile(config)
        cfg.merge_from_dict(cfg_options or {})
        init_default_scope(cfg.get('default_scope', 'mmagic'))
        model = {key: value for key, value in cfg.model.items() if key not in TRAINING_ONLY}
        self.model = MODELS.build(model)
        state = {key: value for key, value in read_state_dict(checkpoint).items()
                 if key.split('.')[0] not in TRAINING_ONLY and key != 'step_counter'}
        self.model.load_state_dict(state)
        self.device = device or get_device()
        self.model.to(self.device).eval()

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
        unmatched = int(sample.output.get('lr_unmatched', 0))
        if unmatched:
            print_log(f'{unmatched} of {lr.size} LR values are not given back by the output',
                      logger='current', level=logging.WARNING)
        image = sample.output.get('pred_samples', sample.output.pred_img)
        bgr = image.clamp(0, 255).round().to(torch.uint8)
        return bgr.flip(-3).movedim(-3, -1).contiguous().cpu().numpy()
