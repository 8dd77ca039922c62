from .panel_hook import PanelHook  # noqa: F401
