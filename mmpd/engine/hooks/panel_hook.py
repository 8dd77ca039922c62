"""Panels of results during validation and testing."""
import re
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import torch
from mmagic.registry import HOOKS
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import BaseLoop

from mmpd.operators import build_operator
from mmpd.visualization.panels import decomposition_panel


@HOOKS.register_module()
class PanelHook(Hook):
    """Write panels LR | x_r | δ | A† y | x̂ | GT with ×5 error maps (Figs. 4, 6 and 9).

    Files go to ``{work_dir}/{timestamp}/panels/{val,test}/{name}_{step}.png``, name being that of
    the GT or LR file (in a folder per downsampling under ``DownsamplingTestLoop``); every backend
    of the visualizer (TensorBoard, WandB ...) gets the same picture as ``panel_{mode}/{name}``.
    The image drawn is ``pred_img``, as it is saved.

    x_r and δ are shown if the samples carry ``output.raw_pred``. Models of mmpd do so with
    ``test_cfg.keep_raw=True``; the hook sets this while it is at work unless ``raw=False``.

    Args:
        interval (int): Every how many iterations of validation or test. Defaults to 1.
        max_images (int): Panels per validation or test run; all of them: -1. Defaults to 8.
        operator (dict, optional): The operator A. Defaults to that of the model's PD head,
            else average pooling of the scale that output and LR suggest.
        gain (float): Factor on the errors. Defaults to 5.
        cell (int, optional): Height of an image in the panel; see
            :func:`mmpd.visualization.panels.display_size`.
        raw (bool): Show x_r and δ. Defaults to True.
        on_val (bool): Work during validation. Defaults to True.
        on_test (bool): Work during testing. Defaults to True.
        out_dir (str, optional): Folder for the files instead of the one above.
    """

    priority = 'NORMAL'

    def __init__(self, interval=1, max_images=8, operator=None, gain=5, cell=None, raw=True,
                 on_val=True, on_test=True, out_dir=None):
        if interval < 1 or max_images < -1 or not gain > 0:
            raise ValueError('PanelHook: interval must be at least 1, max_images at least -1 and '
                             f'gain positive, got {interval}, {max_images} and {gain}')
        self.interval, self.max_images, self.operator = interval, max_images, operator
        self.gain, self.cell, self.raw = gain, cell, raw
        self.modes = [mode for mode, on in (('val', on_val), ('test', on_test)) if on]
        self.out_dir = out_dir
        self._written, self._case, self._keep_raw = 0, None, None

    def _start(self, runner, mode):
        self._written, self._case, model = 0, None, _unwrap(runner.model)
        if mode in self.modes and self.raw and hasattr(model, 'forward_raw'):
            model.test_cfg = dict(model.test_cfg or {})
            self._keep_raw = model.test_cfg.get('keep_raw', False)
            model.test_cfg['keep_raw'] = True

    def _stop(self, runner):
        if self._keep_raw is not None:
            _unwrap(runner.model).test_cfg['keep_raw'] = self._keep_raw
            self._keep_raw = None

    def before_val_epoch(self, runner):
        """Count anew, ask the model for x_r."""
        self._start(runner, 'val')

    def before_test_epoch(self, runner):
        """Count anew, ask the model for x_r."""
        self._start(runner, 'test')

    def after_val_epoch(self, runner, metrics=None):
        """Restore the model's setting."""
        self._stop(runner)

    def after_test_epoch(self, runner, metrics=None):
        """Restore the model's setting."""
        self._stop(runner)

    @master_only
    def _after_iter(self, runner, batch_idx, data_batch=None, outputs=None, mode='train'):
        if mode not in self.modes or not self.every_n_inner_iters(batch_idx, self.interval):
            return
        loop = getattr(runner, '_test_loop', None) if mode == 'test' else None
        case = getattr(loop, 'case', None)
        if case != self._case:  # DownsamplingTestLoop runs over the same images again
            self._written, self._case = 0, case
        for sample in outputs:
            if 0 <= self.max_images <= self._written:
                return
            self._write(runner, sample, mode)
            self._written += 1

    def _operator_for(self, runner, output, lr):
        if self.operator is not None:
            return build_operator(self.operator)
        head = getattr(_unwrap(runner.model), 'pd_head', None)
        if head is not None:  # a copy, for the model's own stays on its device
            operator = deepcopy(head.operator_for(output, lr))
            return operator.to('cpu') if isinstance(operator, torch.nn.Module) else operator
        scale = output.shape[-1] // lr.shape[-1]
        if tuple(output.shape[-2:]) != (lr.shape[-2] * scale, lr.shape[-1] * scale):
            return None
        return build_operator(dict(type='AveragePooling', scale=scale))

    def _write(self, runner, sample, mode):
        output, lr = sample.output.pred_img, sample.get('input')
        if lr is None:
            raise ValueError("PanelHook needs the LR 'input' in the data samples, as MMagic's "
                             'models put it there')
        output, lr = (x[None] if x.ndim == 3 else x for x in (output.float().cpu(), lr.cpu()))
        operator = self._operator_for(runner, output, lr)
        images = dict(lr=lr, output=output, raw=sample.output.get('raw_pred'),
                      gt=sample.get('gt_img'))
        panel = decomposition_panel(
            **{key: _rgb(image) for key, image in images.items() if image is not None},
            operator=operator, gain=self.gain, cell=self.cell)
        name = _name(sample, self._written)
        folder = Path(self.out_dir or Path(runner.log_dir) / 'panels') / mode / (self._case or '')
        folder.mkdir(parents=True, exist_ok=True)
        step = _iteration(runner)
        path = folder / f'{name}_{step}.png'
        written, data = cv2.imencode('.png', panel[..., ::-1])
        if not written:
            raise OSError(f'could not encode the panel {path}')
        path.write_bytes(data.tobytes())
        if self._written == 0:
            print_log(f'panels are written to {folder}', 'current')
        for backend in runner.visualizer._vis_backends.values():
            if type(backend).__name__ not in ('LocalVisBackend', 'VisBackend'):  # files: above
                parts = (f'panel_{mode}', self._case, name)
                backend.add_image('/'.join(filter(None, parts)), panel, step=step)


def _iteration(runner):
    """``runner.iter`` where there is a training loop; asking for it would build one in a test."""
    loop = getattr(runner, '_train_loop', runner)
    return loop.iter if isinstance(loop, BaseLoop) or loop is runner else 0


def _unwrap(model):
    return getattr(model, 'module', model)


def _rgb(image):
    """(H, W, 3) array in RGB of a (C, H, W) tensor in the BGR order that MMagic hands out."""
    image = torch.as_tensor(image).detach().cpu().float()
    image = image[0] if image.ndim == 4 else image
    array = image.numpy().transpose(1, 2, 0)
    return array.repeat(3, 2) if array.shape[2] == 1 else np.ascontiguousarray(array[..., ::-1])


def _name(sample, count):
    for key in ('gt_path', 'img_path'):
        path = sample.get(key)
        if path:
            path = path[0] if isinstance(path, (list, tuple)) else path
            return re.split(r'[/\\]', str(path))[-1].rsplit('.', 1)[0]
    return f'image{count}'
