from .checkpoint_hooks import CleanCheckpointHook
from .nan_hook import NaNHook
from .panel_hook import PanelHook
from .safe_checkpoint_hook import SafeCheckpointHook

__all__ = ['CleanCheckpointHook', 'NaNHook', 'PanelHook', 'SafeCheckpointHook']
