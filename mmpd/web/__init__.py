"""The web page: what stands behind it needs no Gradio, only ``page`` and ``server`` do."""

__all__ = ['jobs', 'limits', 'uploads']
