"""Checkpoints whose keys do not depend on how a run was distributed."""
from mmagic.registry import HOOKS
from mmengine.hooks import Hook

from ...compat.checkpoints import strip_wrapper_prefix


@HOOKS.register_module()
class CleanCheckpointHook(Hook):
    """Removes the ``module.`` of DDP wrappers from the keys, when saving and when loading.

    Without it a checkpoint of ``MMSeparateDistributedDataParallel`` loads
    nothing into a model that is not wrapped, or into a wrapped one on resuming,
    and mmengine goes on from fresh weights. mmpd's model types need no hook.
    """

    def before_save_checkpoint(self, runner, checkpoint):
        """Clean what is about to be written."""
        checkpoint['state_dict'] = strip_wrapper_prefix(checkpoint['state_dict'])

    def after_load_checkpoint(self, runner, checkpoint):
        """Clean what was read, before it goes into the model."""
        if 'state_dict' in checkpoint:
            checkpoint['state_dict'] = strip_wrapper_prefix(checkpoint['state_dict'])
