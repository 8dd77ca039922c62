"""What MMagic's modules find while they are imported, and nobody else does.

A finder ahead of Python's own leaves MMagic's modules to the usual loader,
except the few that trip over today's stack: those which import packages that
super-resolution never uses, the one which spells ``np.bool8``, the one which
refuses mmcv 2.2 and later, and the first one that uses StyleGAN2's ops.
"""
import builtins
import contextlib
import re
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location

from .ext_ops import one_way_for_all_devices
from .stand_ins import PACKAGES, import_for_mmagic

__all__ = ['MMagicFinder', 'MMagicLoader', 'install_mmagic_finder', 'mmcv_accepted', 'numpy_bool8']

NAMES_A_PACKAGE = re.compile(rb'\b(' + '|'.join(PACKAGES).encode() + rb')\b')
MMCV_LIMIT = (2, 2)  # MMagic 1.2.0 asserts mmcv < 2.2.0


@contextlib.contextmanager
def numpy_bool8():
    """``np.bool8``, which NumPy 2 dropped, for the time of the import."""
    import numpy as np
    if 'bool8' not in vars(np) and int(np.__version__[0]) >= 2:
        np.bool8 = np.bool_
        try:
            yield
        finally:
            del np.bool8
    else:
        yield


@contextlib.contextmanager
def mmcv_accepted():
    """mmcv 2.2 and later passes for 2.1.0: what MMagic's super-resolution uses is the same."""
    import mmcv
    installed = mmcv.__version__
    if tuple(int(part) for part in re.findall(r'\d+', installed)) >= MMCV_LIMIT:
        mmcv.__version__ = '2.1.0'
    try:
        yield
    finally:
        mmcv.__version__ = installed


CONTEXTS = {'mmagic': mmcv_accepted, 'mmagic.utils.trans_utils': numpy_bool8,
            'mmagic.models.editors.stylegan1.stylegan1_modules': one_way_for_all_devices}


class MMagicLoader(SourceFileLoader):
    """Executes one of MMagic's modules with the import function and context it needs."""

    def exec_module(self, module):
        if NAMES_A_PACKAGE.search(self.get_data(self.path)):
            module.__dict__['__builtins__'] = {**vars(builtins), '__import__': import_for_mmagic}
        with CONTEXTS.get(self.name, contextlib.nullcontext)():
            super().exec_module(module)


class MMagicFinder:
    """Gives ``mmagic`` and its modules the loader above, where they are plain source files."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        """Part of ``sys.meta_path``; None for everything but MMagic."""
        if name.partition('.')[0] != 'mmagic':
            return None
        for finder in sys.meta_path:
            found = getattr(finder, 'find_spec', None)
            spec = None if finder is cls or found is None else found(name, path, target)
            if spec is not None:
                break
        else:
            return None
        if type(spec.loader) is not SourceFileLoader:
            return spec
        return spec_from_file_location(
            name, spec.origin, loader=MMagicLoader(name, spec.origin),
            submodule_search_locations=spec.submodule_search_locations)


def install_mmagic_finder():
    """Put :class:`MMagicFinder` first, once."""
    if MMagicFinder not in sys.meta_path:
        sys.meta_path.insert(0, MMagicFinder)
