"""Panels of results during validation and testing."""
import re
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import torch
from mmagic.registry import HOOKS, VISBACKENDS
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import VISBACKENDS as MMENGINE_VISBACKENDS

from mmpd.operators.resolve import infer_scale, prepare_operator
from mmpd.utils.files import write_atomically
from mmpd.utils.model import unwrap
from mmpd.utils.validation import (
    MOST_CHANNELS,
    check_bool,
    check_number,
    check_path,
    check_positive_int,
    optional,
)
from mmpd.visualization.panels import decomposition_panel

__all__ = ['PanelHook']


@HOOKS.register_module()
class PanelHook(Hook):
    """Write panels LR | x_r | δ | A† y | x̂ | GT with ×5 error maps (Figs. 4, 6 and 9).

    Files go to ``{work_dir}/{timestamp}/panels/{val,test}/{name}_{step}.png``, name being that of
    the GT or LR file, the second one of a name ``{name}.2`` (in a folder per downsampling under
    ``DownsamplingTestLoop``); every backend
    of the visualizer (TensorBoard, WandB ...) that goes by the name of its class or by one in the
    config gets the same picture as ``panel_{mode}/{name}``.
    The image drawn is ``pred_img``, as it is saved.

    x_r and δ are shown if the samples carry ``output.raw_pred``. Models of mmpd do so with
    ``test_cfg.keep_raw=True``; the hook sets this while it is at work unless ``raw=False``.

    Args:
        interval (int): Every how many iterations of validation or test. Defaults to 1.
        max_images (int): Panels per validation or test run; all of them: -1. Defaults to 8.
        operator (dict, optional): The operator A; its scale may be left to the sizes. Defaults to
            that of the model's PD head, else average pooling if the sizes allow it.
        gain (float): Factor on the errors. Defaults to 5.
        cell (int, optional): Height of an image in the panel; see
            :func:`mmpd.visualization.panels.display_size`.
        raw (bool): Show x_r and δ. Defaults to True.
        on_val (bool): Work during validation. Defaults to True.
        on_test (bool): Work during testing. Defaults to True.
        out_dir (str, optional): Folder for the files instead of the one above.

    Example:
        >>> from mmagic.registry import HOOKS
        >>> operator = dict(type='SeparableResize', kernel='bicubic')
        >>> hook = HOOKS.build(dict(type='PanelHook', max_images=4, operator=operator))
        >>> hook.max_images  # custom_hooks = [dict(type='PanelHook', max_images=4)] in a config
        4
    """

    priority = 'NORMAL'

    def __init__(self, interval=1, max_images=8, operator=None, gain=5, cell=None, raw=True,
                 on_val=True, on_test=True, out_dir=None):
        check_positive_int(interval, 'interval')
        check_positive_int(max_images, 'max_images', least=-1)
        check_number(gain, 'gain', above=0)
        optional(check_positive_int, cell, 'cell', most=MOST_CHANNELS)
        for key, value in (('raw', raw), ('on_val', on_val), ('on_test', on_test)):
            check_bool(value, key)
        optional(check_path, out_dir, 'out_dir', 'a folder')
        self.interval, self.max_images = interval, max_images
        self.operator = None if operator is None else prepare_operator(operator)
        self.gain, self.cell, self.raw = gain, cell, raw
        self.modes = [mode for mode, on in (('val', on_val), ('test', on_test)) if on]
        self.out_dir = out_dir
        self._written, self._case, self._keep_raw = 0, None, None
        self._names = set()
        self._trains = False

    def before_train(self, runner):
        """From now on ``runner.iter`` may be asked for; before, that would build a loop."""
        self._trains = True

    def _start(self, runner, mode):
        self._written, self._case, model = 0, None, unwrap(runner.model)
        self._names.clear()
        if mode in self.modes and self.raw and hasattr(model, 'forward_raw'):
            model.test_cfg = dict(model.test_cfg or {})
            self._keep_raw = model.test_cfg.get('keep_raw', False)
            model.test_cfg['keep_raw'] = True

    def _stop(self, runner):
        if self._keep_raw is not None:
            unwrap(runner.model).test_cfg['keep_raw'] = self._keep_raw
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
        case = getattr(runner.test_loop, 'case', None) if mode == 'test' else None
        if case != self._case:  # DownsamplingTestLoop runs over the same images again
            self._written, self._case = 0, case
            self._names.clear()
        for sample in outputs:
            if 0 <= self.max_images <= self._written:
                return
            self._write(runner, sample, mode)
            self._written += 1

    def _operator_for(self, runner, output, lr):
        if self.operator is not None:
            return self.operator
        head = getattr(unwrap(runner.model), 'pd_head', None)
        if head is not None:  # a copy, for the model's own stays on its device
            operator = deepcopy(head.operator_for(output, lr))
            return operator.to('cpu') if isinstance(operator, torch.nn.Module) else operator
        try:
            infer_scale(output.shape, lr.shape)
        except ValueError:  # a model that does something else
            return None
        return dict(type='AveragePooling')

    def _unused(self, name):
        """The name, with a number if another image of this run has it, in another folder say."""
        names = (name, *(f'{name}.{number}' for number in range(2, len(self._names) + 2)))
        found = next(one for one in names if one not in self._names)
        self._names.add(found)
        return found

    def panel(self, runner, sample):
        """The picture of one sample, uint8 RGB.

        Raises:
            ValueError: If it has no LR, or the operator does not fit its sizes.
        """
        output, lr = sample.output.pred_img, sample.get('input')
        if lr is None:
            raise ValueError("PanelHook needs the LR 'input' in the data samples, as MMagic's "
                             'models put it there')
        output, lr = (x[None] if x.ndim == 3 else x for x in (output.float().cpu(), lr.cpu()))
        operator = self._operator_for(runner, output, lr)
        images = dict(lr=lr, output=output, raw=sample.output.get('raw_pred'),
                      gt=sample.get('gt_img'))
        return decomposition_panel(
            **{key: _rgb(image) for key, image in images.items() if image is not None},
            operator=operator, gain=self.gain, cell=self.cell)

    def _write(self, runner, sample, mode):
        panel = self.panel(runner, sample)
        name = self._unused(_name(sample, self._written))
        folder = Path(self.out_dir or Path(runner.log_dir) / 'panels') / mode / (self._case or '')
        folder.mkdir(parents=True, exist_ok=True)
        step = runner.iter if self._trains else 0
        path = folder / f'{name}_{step}.png'
        written, data = cv2.imencode('.png', panel[..., ::-1])
        if not written:
            raise OSError(f'could not encode the panel {path}')
        write_atomically(path, data.tobytes(), sync=False)
        if self._written == 0:
            print_log(f'panels are written to {folder}', 'current')
        for backend in _backends(runner):
            if type(backend).__name__ not in ('LocalVisBackend', 'VisBackend'):  # files: above
                parts = (f'panel_{mode}', self._case, name)
                backend.add_image('/'.join(filter(None, parts)), panel, step=step)


def _backends(runner):
    """The visualizer's backends, which it hands out by name: that of the class, or a given one."""
    configs = (runner.cfg.get('visualizer') or {}).get('vis_backends') or []
    configs = [configs] if isinstance(configs, dict) else configs
    given = [config['name'] for config in configs if config.get('name')]
    names = {*MMENGINE_VISBACKENDS.module_dict, *VISBACKENDS.module_dict, *given}
    found = (runner.visualizer.get_backend(name) for name in sorted(names))
    return [backend for backend in found if backend is not None]


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
