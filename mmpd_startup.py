"""MMagic's own tools on today's stack; ``mmpd.pth`` imports this when Python starts.

``custom_imports`` reach mmpd when a config is read.  MMagic's tools import
``mmagic.utils`` before, which fails under NumPy 2 (``np.bool8``) and mmcv 2.2,
and mmengine looks for the bases of a config (``mmagic::...``) through
``pkg_resources``, which setuptools 81 dropped.  So the first import of MMagic
imports mmpd first, if one of these three holds; otherwise nothing happens.
"""
import sys

MMCV = ('mmcv', 'mmcv-lite', 'mmcv-full', 'onedl-mmcv')


def release(*names):
    """The first two numbers of the version of whichever distribution is installed."""
    from importlib.metadata import PackageNotFoundError, version
    for name in names:
        try:
            return tuple(int(part) for part in version(name).split('.')[:2])
        except PackageNotFoundError:
            continue
    return 0, 0


def mmagic_needs_mmpd():
    """Whether MMagic 1.2.0 fails in this environment before it reads a config."""
    from importlib.util import find_spec
    return (release('numpy') >= (2, 0) or release(*MMCV) >= (2, 2)
            or find_spec('pkg_resources') is None)


class BeforeMMagic:
    """First on ``sys.meta_path`` until ``mmagic`` is imported, for which it makes way."""

    def find_spec(self, name, path=None, target=None):
        """None for everything but ``mmagic``, whose usual loader then imports mmpd first."""
        if name != 'mmagic':
            return None
        from importlib.util import find_spec
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is None or spec.loader is None or not mmagic_needs_mmpd():
            return spec
        execute = spec.loader.exec_module

        def exec_module(module):
            from mmpd.compat.mmagic_import import mmcv_accepted
            with mmcv_accepted():
                execute(module)

        spec.loader.exec_module = exec_module
        return spec


if not any(type(finder).__name__ == 'BeforeMMagic' for finder in sys.meta_path):
    sys.meta_path.insert(0, BeforeMMagic())
