"""mmengine's CheckpointHook for long runs: full disks, copied folders, NaN, kills."""
import os

from mmagic.models.editors.srgan import SRGAN
from mmagic.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook

from mmpd.errors import DiskFull, TrainingDiverged, WeightsMismatch
from mmpd.utils.checkpoint import strip_wrapper_prefix
from mmpd.utils.files import disk_full, is_full
from mmpd.utils.model import unwrap
from mmpd.utils.reader import check_finite
from mmpd.utils.run_folder import last_checkpoint, remove_partial_checkpoints, write_note
from mmpd.utils.validation import check_choice, check_positive_int, refuse

__all__ = ['SafeCheckpointHook']

# metrics of super-resolution, alone or with an ending as in PSNR_LR
GREATER = ('psnr', 'ssim', 'ms_ssim')
LESS = ('mae', 'mse', 'niqe', 'lpips', 'fid', 'l1_lr', 'maxerr_lr', 'unmatched_lr')


def _names(template):
    """Whether checkpoints can be named by it."""
    try:
        return bool(template.format(1))
    except (AttributeError, LookupError, TypeError, ValueError):
        return False


@HOOKS.register_module(name='CheckpointHook')
class SafeCheckpointHook(CheckpointHook):
    """What ``type='CheckpointHook'`` means in MMagic's scope, once mmpd is imported.

    Beyond mmengine's: ``rule`` is known for the metrics of MMagic and mmpd, and the opposite one is
    refused; an outdated checkpoint is deleted after the new one is written, not before;
    weights with NaN are not written; ``last_checkpoint`` names the file relative to its folder;
    resuming goes on with SRGAN's step counter; a copied work directory leaves the files of the
    original alone; what killed runs left half-written is removed at the start.

    Args:
        on_full_disk (str): What to do when there is no room for a checkpoint: 'stop' (default)
            ends the training; 'retry' says so and goes on, and tries again at the next
            interval. The last checkpoint of a training is not done without.
        args, kwargs: Those of mmengine's CheckpointHook.

    Example:
        >>> from mmagic.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='CheckpointHook', interval=5000, on_full_disk='retry'))
        >>> type(hook).__name__, hook.interval  # default_hooks.checkpoint of a config
        ('SafeCheckpointHook', 5000)
    """

    # mmengine's defaults know no metric of super-resolution
    _default_greater_keys = (*GREATER, *CheckpointHook._default_greater_keys)
    _default_less_keys = (*LESS, *CheckpointHook._default_less_keys)

    def __init__(self, *args, on_full_disk='stop', **kwargs):
        check_choice(on_full_disk, 'on_full_disk', ('stop', 'retry'))
        for rule in () if kwargs.get('rule') is None else ([kwargs['rule']] if isinstance(
                kwargs['rule'], str) else kwargs['rule']):
            check_choice(rule, 'rule', ('greater', 'less'))
        for name, least in (('max_keep_ckpts', -1), ('save_begin', 0)):
            check_positive_int(kwargs.get(name, least), name, least=least)
        template = kwargs.get('filename_tmpl')
        if template is not None and not _names(template):
            refuse('filename_tmpl', "a name with one '{}', which stands for the number", template)
        super().__init__(*args, **kwargs)
        self.on_full_disk = on_full_disk
        opposite = dict(greater=LESS, less=GREATER)
        best = zip(self.key_indicators, self.rules, strict=True) if self.save_best else ()
        for key, rule in best:
            name = key.split('/')[-1].lower()
            if rule and any(name == known or name.startswith(f'{known}_')
                            for known in opposite[rule]):
                refuse('rule', f'the other one for save_best={key!r}, whose worst would be kept',
                       rule)

    def before_train(self, runner):
        """As mmengine's, then look at what is in the folder."""
        super().before_train(runner)
        model = unwrap(runner.model)
        if isinstance(model, SRGAN):  # disc_steps and disc_init_steps go by it; it is not saved
            model.step_counter.fill_(runner.iter)
        self._adopt_best()
        if not is_main_process():
            return
        for folder in {os.path.abspath(folder) for folder in (runner.work_dir, self.out_dir)
                       if '://' not in folder and os.path.isdir(folder)}:
            names = remove_partial_checkpoints(folder)
            if names:
                runner.logger.info(f'Removed from {folder}, left half-written by a killed run: '
                                   + ', '.join(names))

    def _adopt_best(self):
        """The best one so far is that of this folder, or none: it is deleted for a better one."""
        def own(path):
            path = path and self.file_backend.join_path(self.out_dir, os.path.basename(path))
            return path if path and self.file_backend.isfile(path) else None

        if self.save_best is not None and len(self.key_indicators) == 1:
            self.best_ckpt_path = own(self.best_ckpt_path)
        elif self.save_best is not None:
            self.best_ckpt_path_dict.update(
                (key, own(path)) for key, path in self.best_ckpt_path_dict.items())

    def before_save_checkpoint(self, runner, checkpoint):
        """Raise TrainingDiverged rather than write weights that are NaN or infinite."""
        state = checkpoint.get('state_dict', {})
        weights = strip_wrapper_prefix(dict(unwrap(runner.model).named_parameters()), state)
        try:
            check_finite(state, 'the model', infinite=False)
            check_finite({key: state[key] for key in weights if key in state}, 'the model')
            check_finite(checkpoint.get('ema_state_dict', {}), 'the averaged model')
        except WeightsMismatch as error:
            reason = str(error).split(': the run')[0]
            raise TrainingDiverged(f'{reason}: no checkpoint of it is written; the last good one '
                                   f'is {last_checkpoint(runner.work_dir)}') from error

    def _save_checkpoint_with_step(self, runner, step, meta):
        info, outdated, before = runner.message_hub, None, None
        if self.max_keep_ckpts > 0:
            before = list(self.keep_ckpt_ids)
            if step not in before[-1:]:
                outdated = before[0] if len(before) == self.max_keep_ckpts else None
                self.keep_ckpt_ids.append(step)  # as long as may be: the oldest goes
                info.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name, last = self.filename_tmpl.format(step), self.last_ckpt
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        info.update_info('last_ckpt', self.last_ckpt)
        try:
            runner.save_checkpoint(
                self.out_dir, name, self.file_client_args, save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler, meta=meta, by_epoch=self.by_epoch,
                backend_args=self.backend_args, **self.args)
            if is_main_process():
                write_note(runner.work_dir, self.last_ckpt)
        except OSError as error:
            self.last_ckpt = last
            info.update_info('last_ckpt', last)
            if before is not None:
                self.keep_ckpt_ids.clear()
                self.keep_ckpt_ids.extend(before)
                info.update_info('keep_ckpt_ids', before)
            self._do_without(runner, error, step)
            return
        if outdated is not None and self.filename_tmpl.format(outdated) != name:
            self._remove(self.file_backend.join_path(
                self.out_dir, self.filename_tmpl.format(outdated)))

    def _save_best_checkpoint(self, runner, metrics):
        """As mmengine's, but the best one so far goes once the better one is there."""
        if not self.save_best:
            return
        single, info = len(self.key_indicators) == 1, runner.message_hub.runtime_info
        before = {'': self.best_ckpt_path} if single else dict(self.best_ckpt_path_dict)
        scores = {key: value for key, value in info.items() if key.startswith('best_')}
        self._set_best(single, dict.fromkeys(before))
        try:
            super()._save_best_checkpoint(runner, metrics)
        except OSError as error:
            self._set_best(single, before)
            for key in [key for key in info if key.startswith('best_')]:
                del info[key]
            info.update(scores)
            self._do_without(runner, error, runner.epoch if self.by_epoch else runner.iter)
            return
        after = {'': self.best_ckpt_path} if single else dict(self.best_ckpt_path_dict)
        for key, path in after.items():
            if path is None:
                after[key] = before.get(key)
            elif before.get(key) not in (None, path):
                self._remove(before[key])
        self._set_best(single, after)

    def _set_best(self, single, paths):
        if single:
            self.best_ckpt_path, = paths.values()
        else:
            self.best_ckpt_path_dict = paths

    def _do_without(self, runner, error, step):
        """Go on after an error of writing, where that is wanted; raise it elsewhere."""
        if not is_full(error):
            raise error
        error = error if isinstance(error, DiskFull) else disk_full(error)
        if self.on_full_disk == 'stop' or step >= (
                runner.max_epochs if self.by_epoch else runner.max_iters):
            raise error
        runner.logger.error(f"{error}. The training goes on without it (on_full_disk='retry') and "
                            'tries again at the next interval.')

    def _remove(self, path):
        if not is_main_process():
            return
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # of deepspeed
            self.file_backend.rmtree(path)
