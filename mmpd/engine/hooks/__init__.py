from .checkpoint_hooks import CleanCheckpointHook
from .panel_hook import PanelHook

__all__ = ['CleanCheckpointHook', 'PanelHook']
