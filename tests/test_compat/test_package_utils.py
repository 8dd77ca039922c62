"""Installed packages are found without pkg_resources, as mmengine finds them with it."""
import importlib.util
import pkgutil
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import mmagic
import mmengine.config.config
import mmengine.fileio
import mmengine.utils
import pytest
from mmengine.config import Config
from mmengine.utils import package_utils as theirs

from mmpd.compat import package_utils as ours
from mmpd.compat.ext_ops import has_compiled_ops


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages: one plain, one of another name, one without modules."""
    for module in ('plain_pkg', 'other_module'):
        (tmp_path / module).mkdir()
        (tmp_path / module / '__init__.py').touch()
    for name, top in (('plain_pkg', 'plain_pkg\n'), ('dist_name', 'other_module\n'),
                      ('nameless', None), ('elsewhere', 'mmagic\n'), ('gone', 'no_such_module\n')):
        info = tmp_path / f'{name}-1.0.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n')
        if top:
            (info / 'top_level.txt').write_text(top)
    (tmp_path / 'on_path').mkdir()
    (tmp_path / 'on_path' / '__init__.py').touch()
    (tmp_path / 'a_namespace').mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize('package, folder', [
    ('plain_pkg', 'plain_pkg'), ('dist_name', 'other_module'), ('on_path', 'on_path'),
    ('gone', 'no_such_module')])
def test_paths(site, package, folder):
    assert ours.get_installed_path(package) == str(site / folder)
    assert ours.is_installed(package)


def test_an_editable_install_is_found_where_it_is(site):
    assert ours.get_installed_path('elsewhere') == str(Path(mmagic.__file__).parent)


def test_what_is_not_there(site):
    assert not ours.is_installed('no_such_package') and not ours.is_installed('a_namespace')
    with pytest.raises(PackageNotFoundError, match='no_such_package'):
        ours.get_installed_path('no_such_package')
    with pytest.raises(RuntimeError, match='a_namespace is a namespace package'):
        ours.get_installed_path('a_namespace')
    with pytest.raises(ValueError, match='can not infer the module name of nameless'):
        ours.get_installed_path('nameless')
    assert ours.package2module('dist_name') == 'other_module'


def original():
    """mmengine's module as it is on disk, without what mmpd put in."""
    spec = importlib.util.find_spec('mmengine.utils.package_utils')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mmengine_uses_them_only_where_pkg_resources_is_missing(monkeypatch):
    upstream = original()
    holders = [theirs, mmengine.utils, mmengine.config.config]
    foreign = SimpleNamespace(is_installed=upstream.is_installed)
    monkeypatch.setitem(sys.modules, 'no_mmengine', foreign)
    wants = 'pkg_resources' in upstream.get_installed_path.__code__.co_names
    for present in (True, False):
        for holder in holders:
            for name in ('is_installed', 'get_installed_path'):
                monkeypatch.setattr(holder, name, getattr(upstream, name))
        monkeypatch.setattr(ours, 'find_spec', {'pkg_resources': present or None}.get)
        ours.replace_pkg_resources()
        for holder in holders:
            assert (holder.get_installed_path is ours.get_installed_path) is (
                wants and not present)
            assert (holder.is_installed is ours.is_installed) is (wants and not present)
        assert foreign.is_installed is upstream.is_installed
        assert not hasattr(mmengine.fileio, 'is_installed')


def test_what_mmengine_asks_of_pkgutil_is_there_where_python_dropped_it(monkeypatch):
    monkeypatch.delattr(pkgutil, 'find_loader', raising=False)  # Python 3.14 has none
    ours.replace_find_loader()
    assert pkgutil.find_loader('mmengine') is mmengine.__spec__.loader
    assert pkgutil.find_loader('no_such_package') is None
    assert mmengine.utils.dl_utils.mmcv_full_available() == has_compiled_ops()
    given = pkgutil.find_loader = SimpleNamespace()
    ours.replace_find_loader()
    assert pkgutil.find_loader is given


def test_the_bases_of_mmagic_are_found(tmp_path, monkeypatch):
    (tmp_path / 'config.py').write_text("_base_ = 'mmagic::glean/glean_x8_2xb8_cat.py'\n")
    monkeypatch.setattr(mmengine.config.config, 'is_installed', ours.is_installed)
    monkeypatch.setattr(mmengine.config.config, 'get_installed_path', ours.get_installed_path)
    assert Config.fromfile(tmp_path / 'config.py').model.type == 'SRGAN'
    if importlib.util.find_spec('pkg_resources') is None:
        assert 'pkg_resources' not in sys.modules
