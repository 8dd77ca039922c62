"""Stops a training, or skips a batch, when a loss or a gradient is NaN or infinite."""
import math

import torch
from mmagic.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict

from mmpd.errors import TrainingDiverged
from mmpd.utils.model import unwrap
from mmpd.utils.run_folder import last_checkpoint
from mmpd.utils.samples import file_of
from mmpd.utils.validation import check_choice, check_positive_int

__all__ = ['NaNHook']

SHOWN = 8  # files of a batch that a message names


@HOOKS.register_module()
class NaNHook(Hook):
    """Looks at the losses of every iteration.

    They are read for the log anyway, so no step waits for its GPU longer than without. The
    checks of PD heads, which can name neither loss nor file, are left to this hook.

    Args:
        on_nan (str): 'stop' (default) ends the training at the iteration whose loss is NaN or
            infinite and names loss and files. 'skip' leaves the weights, the optimisers and the
            buffers as they were before that batch (gradients are looked at too, which waits for
            the GPU in each step; with ``accumulative_counts`` all batches of an update are
            left out).
        max_skips (int): With 'skip', how many batches one after another may be skipped before
            the training ends. A GradScaler, which skips on its own, is treated as 'skip'.

    Example:
        >>> from mmagic.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='NaNHook', on_nan='skip', max_skips=3))  # in custom_hooks
        >>> hook.on_nan, hook.max_skips
        ('skip', 3)
    """

    priority = 'HIGHEST'  # before the log, averages and checkpoints get to see the losses

    def __init__(self, on_nan='stop', max_skips=10):
        check_choice(on_nan, 'on_nan', ('stop', 'skip'))
        check_positive_int(max_skips, 'max_skips')
        self.on_nan, self.max_skips = on_nan, max_skips
        self._may_skip = on_nan == 'skip'
        # counted from the start of a training
        self._skips, self._dropped, self._buffers, self._handles = None, [], {}, []

    def before_train(self, runner):
        """Take over from the PD heads, and watch the gradients if batches may be skipped."""
        self._skips = 0
        self._watch(runner, False)
        wrappers = runner.optim_wrapper
        wrappers = dict(wrappers.items()) if isinstance(wrappers, OptimWrapperDict) \
            else {'model': wrappers}
        scaled = any(getattr(wrapper, 'loss_scaler', None) is not None
                     for wrapper in wrappers.values())
        self._may_skip = scaled or self.on_nan == 'skip'
        if self.on_nan == 'skip':
            for name, wrapper in wrappers.items():
                self._handles.append(wrapper.optimizer.register_step_pre_hook(
                    lambda optimizer, *_, name=name: self._drop(optimizer, name)))

    def after_train(self, runner):
        """Give back what :meth:`before_train` took."""
        self._watch(runner, True)
        while self._handles:
            self._handles.pop().remove()

    @staticmethod
    def _watch(runner, check):
        for module in unwrap(runner.model).modules():
            if hasattr(module, 'check_in_training'):
                module.check_in_training = check

    def _drop(self, optimizer, name):
        """Gradients that are not finite: an optimiser passes over parameters without."""
        parameters = [parameter for group in optimizer.param_groups
                      for parameter in group['params'] if parameter.grad is not None]
        if not parameters:
            return
        largest = torch.stack([parameter.grad.detach().abs().max().float()
                               for parameter in parameters])
        if not torch.isfinite(largest).all():
            for parameter in parameters:
                parameter.grad = None
            self._dropped.append(name)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Remember the buffers: statistics and queues take in a batch before its loss is known."""
        self._dropped = []
        if not self._may_skip:
            return
        self._buffers = {name: buffer.detach().clone()
                         for name, buffer in unwrap(runner.model).named_buffers()}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Stop or skip if a loss is not finite.

        Raises:
            TrainingDiverged: with 'stop', or after ``max_skips`` batches one after another.
        """
        values = {key: value.item() if torch.is_tensor(value) else value
                  for key, value in (outputs or {}).items()
                  if isinstance(value, (int, float)) or torch.is_tensor(value)
                  and value.numel() == 1}
        bad = {key: value for key, value in values.items() if not math.isfinite(value)}
        if not bad and not self._dropped:
            self._skips = 0
            return
        found = [f'{key} is {value}' for key, value in bad.items()
                 if key != 'loss' or len(bad) == 1]  # the sum of the others
        found = found or [f'gradients of the {name} are not finite' for name in self._dropped]
        text = (f'iteration {runner.iter + 1}: {", ".join(found)}; the batch: '
                f'{describe(data_batch)}')
        if not self._may_skip or self._skips == self.max_skips:
            if self._may_skip:
                text += f'; {self._skips} batches before it were skipped too (max_skips)'
            kept = last_checkpoint(runner.work_dir)
            text += ('. The training ends here, with nothing written; the last good checkpoint '
                     f'is {kept}' if kept else '. The training ends here, before its first '
                     'checkpoint')
            runner.logger.error(text)
            raise TrainingDiverged(text)
        self._skips += 1
        runner.logger.warning(f'{text}. It is skipped.')
        for key in bad:  # one NaN would hide the average of a whole window in the log
            del outputs[key]
        with torch.no_grad():
            for name, buffer in unwrap(runner.model).named_buffers():
                if name != 'step_counter':  # it counts iterations, whatever came of them
                    buffer.copy_(self._buffers[name])


def describe(data_batch):
    """The files of a batch, in words."""
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    files = [file_of(sample) for sample in samples] if isinstance(samples, (list, tuple)) else []
    if not files:
        return 'its samples name no files'
    more = f' and {len(files) - SHOWN} more' if len(files) > SHOWN else ''
    return ', '.join(files[:SHOWN]) + more
