"""Registries of MMagic learn where mmpd's modules are, whether they have looked already or not."""
from types import SimpleNamespace

import pytest

from mmpd import registry


def registries(imported):
    return SimpleNamespace(**{name: SimpleNamespace(_imported=imported, _locations=['mmagic'])
                              for name in registry.LOCATIONS})


def test_a_registry_that_has_not_looked_is_told_once(monkeypatch):
    found, imported = registries(False), []
    monkeypatch.setattr(registry, 'import_module',
                        lambda name: found if name == 'mmagic.registry' else imported.append(name))
    registry.announce(), registry.announce()
    assert found.MODELS._locations == ['mmagic', 'mmpd.models'] and imported == []
    assert found.LOOPS._locations == ['mmagic', 'mmpd.engine']


def test_for_one_that_has_looked_the_modules_are_imported(monkeypatch):
    found, imported = registries(True), []
    monkeypatch.setattr(registry, 'import_module',
                        lambda name: found if name == 'mmagic.registry' else imported.append(name))
    registry.announce()
    assert set(imported) == {*registry.LOCATIONS.values()}
    assert found.MODELS._locations == ['mmagic']


def test_what_mmagic_lacks_is_named_with_the_remedy(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError('no', name='einops')

    monkeypatch.setattr(registry, 'import_module', absent)
    with pytest.raises(ModuleNotFoundError, match='needs einops, which .*pip install mmpd.mmagic'):
        registry.announce()
