import builtins
import importlib.util
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader

import mmcv
import numpy as np
import pytest

from mmpd.compat.mmagic_import import (
    MMagicFinder,
    MMagicLoader,
    install_mmagic_finder,
    mmcv_accepted,
    numpy_bool8,
)
from mmpd.compat.stand_ins import import_for_mmagic


def execute(name, loader=None):
    """Execute one of MMagic's modules anew, without replacing the one that is loaded."""
    parent = importlib.import_module(name.rpartition('.')[0] or 'mmagic')
    spec = MMagicFinder.find_spec(name, None if name == 'mmagic' else parent.__path__)
    assert type(spec.loader) is MMagicLoader
    module = importlib.util.module_from_spec(spec)
    (loader(name, spec.origin) if loader else spec.loader).exec_module(module)
    return module


def test_only_modules_that_name_a_missing_package_get_the_import_function():
    import mmagic.models.editors.glean.glean_styleganv2 as plain
    import mmagic.models.editors.vico.vico_utils as wants_diffusers
    assert wants_diffusers.__dict__['__builtins__']['__import__'] is import_for_mmagic
    assert plain.__dict__['__builtins__'] in (builtins, vars(builtins))
    assert builtins.__import__ is not import_for_mmagic


def test_the_finder_is_installed_once_and_answers_for_mmagic_alone():
    install_mmagic_finder()
    assert sys.meta_path.count(MMagicFinder) == 1
    for name in ('mmagical', 'mmcv', 'diffusers', 'mmagic.no_such_module'):
        assert MMagicFinder.find_spec(name) is None
    assert importlib.util.find_spec('mmagic.utils').origin.endswith('__init__.py')


def test_trans_utils_needs_bool8_and_leaves_none_behind():
    before = 'bool8' in vars(np)
    module = execute('mmagic.utils.trans_utils')
    assert module.dtype_range[np.bool_] == (False, True)
    assert ('bool8' in vars(np)) is before
    if int(np.__version__[0]) >= 2:
        with pytest.raises(AttributeError, match='bool8'):
            execute('mmagic.utils.trans_utils', SourceFileLoader)
        with pytest.raises(KeyError), numpy_bool8():
            assert np.bool8 is np.bool_
            raise KeyError
        assert not hasattr(np, 'bool8')


def test_bool8_is_put_in_by_numpy_2_alone_and_where_it_is_not(monkeypatch):
    for version, given in (('1.26.4', None), ('2.1.0', 'its own'), ('1.26.4', 'its own')):
        with monkeypatch.context() as patch:
            patch.setattr(np, '__version__', version)
            # NumPy 1 gives it when asked and does not hold it
            patch.delitem(vars(np), 'bool8', raising=False)
            if given:
                patch.setitem(vars(np), 'bool8', given)
            with numpy_bool8():
                assert vars(np).get('bool8') == given
            assert vars(np).get('bool8') == given


def test_the_finder_goes_first_and_asks_all_the_others(monkeypatch):
    class Zipped:
        """Has MMagic without a source file."""
        spec = ModuleSpec('mmagic.zipped', loader=object())

        @classmethod
        def find_spec(cls, name, path, target):
            return cls.spec if name == 'mmagic.zipped' else None

    others = [finder for finder in sys.meta_path if finder is not MMagicFinder]
    monkeypatch.setattr(sys, 'meta_path', [object(), Zipped, *others])
    install_mmagic_finder()
    assert sys.meta_path[0] is MMagicFinder
    assert MMagicFinder.find_spec('mmagic.zipped') is Zipped.spec
    found = MMagicFinder.find_spec('mmagic')
    assert type(found.loader) is MMagicLoader and found.submodule_search_locations


@pytest.mark.parametrize('version, seen', [
    ('2.0.1', '2.0.1'), ('2.1.0', '2.1.0'), ('2.2.0', '2.1.0'), ('2.3.6', '2.1.0'),
    ('2.3.2.post2', '2.1.0'), ('2.10.0', '2.1.0'), ('3.0.0', '2.1.0'), ('1.7.2', '1.7.2')])
def test_newer_mmcv_passes_for_the_time_of_the_import(monkeypatch, version, seen):
    monkeypatch.setattr(mmcv, '__version__', version)
    with mmcv_accepted():
        assert mmcv.__version__ == seen
    assert mmcv.__version__ == version
    with pytest.raises(KeyError), mmcv_accepted():
        raise KeyError
    assert mmcv.__version__ == version


@pytest.mark.parametrize('version', ['2.2.0', '2.3.6'])
def test_mmagic_itself_refuses_what_passes_here(monkeypatch, version):
    monkeypatch.setattr(mmcv, '__version__', version)
    with pytest.raises(AssertionError, match='incompatible'):
        execute('mmagic', SourceFileLoader)
    assert execute('mmagic').__version__ == '1.2.0' and mmcv.__version__ == version


def test_mmagic_still_refuses_mmcv_1(monkeypatch):
    monkeypatch.setattr(mmcv, '__version__', '1.7.2')
    with pytest.raises(AssertionError, match='incompatible'):
        execute('mmagic')
