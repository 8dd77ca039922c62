from .panels import comparison_panel, decomposition_panel, error_map, stack_panels

__all__ = ['comparison_panel', 'decomposition_panel', 'error_map', 'stack_panels']
