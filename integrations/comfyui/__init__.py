"""Custom nodes of ComfyUI: link or copy this folder to ComfyUI/custom_nodes/mmpd."""
from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ['NODE_CLASS_MAPPINGS', 'NODE_DISPLAY_NAME_MAPPINGS']
