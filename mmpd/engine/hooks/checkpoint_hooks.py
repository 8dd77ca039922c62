"""Checkpoints whose keys do not depend on how a run was distributed."""
from mmagic.registry import HOOKS
from mmengine.hooks import EMAHook, Hook
from mmengine.runner.checkpoint import get_state_dict, load_state_dict

from ...utils.checkpoint import strip_wrapper_prefix

AVERAGED = 'module.'  # mmengine's averaged models keep the model under this name


@HOOKS.register_module()
class CleanCheckpointHook(Hook):
    """Removes the ``module.`` of DDP wrappers from the keys, when saving and when loading.

    Without it a checkpoint of ``MMSeparateDistributedDataParallel`` loads
    nothing into a model that is not wrapped, or into a wrapped one on resuming,
    and mmengine goes on from fresh weights. mmpd's model types need no hook.
    The averaged weights of mmengine's EMAHook are treated likewise. Optimisers
    are saved under the names of the children and need nothing.

    Example:
        >>> from types import SimpleNamespace
        >>> import torch
        >>> from mmagic.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='CleanCheckpointHook'))  # custom_hooks = [dict(...)]
        >>> model = torch.nn.ModuleDict(dict(generator=torch.nn.Linear(1, 1)))
        >>> checkpoint = dict(state_dict={'generator.module.bias': torch.zeros(1)})
        >>> hook.before_save_checkpoint(SimpleNamespace(model=model), checkpoint)
        >>> list(checkpoint['state_dict'])
        ['generator.bias']
    """

    priority = 'LOW'  # after EMAHook, which exchanges its weights with the model's by key

    def before_save_checkpoint(self, runner, checkpoint):
        """Clean what is about to be written."""
        self._clean(checkpoint, runner.model)

    def after_load_checkpoint(self, runner, checkpoint):
        """Clean what was read, before it goes into the model."""
        averaged = self._clean(checkpoint, runner.model)
        if averaged and runner._resume:
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):  # mmengine's loader looks into wrappers, EMAHook not
                    load_state_dict(hook.ema_model, averaged, strict=hook.strict_load)

    @staticmethod
    def _clean(checkpoint, model):
        own = get_state_dict(model)
        if 'state_dict' in checkpoint:
            checkpoint['state_dict'] = strip_wrapper_prefix(checkpoint['state_dict'], own)
        averaged = checkpoint.get('ema_state_dict')
        if averaged:
            own = ['steps', *(AVERAGED + key for key in own)]
            checkpoint['ema_state_dict'] = strip_wrapper_prefix(averaged, own)
        return checkpoint.get('ema_state_dict')
