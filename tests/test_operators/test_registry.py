"""OPERATORS, which is used as mmengine's registries are."""
import pytest

from mmpd.operators import AveragePooling
from mmpd.operators.builder import OperatorRegistry


def test_decorator_function_names_and_force():
    registry = OperatorRegistry()

    @registry.register_module()
    class One:
        pass

    @registry.register_module(name=['two', 'zwei'])
    class Two:
        pass

    assert registry.register_module(module=AveragePooling) is AveragePooling
    assert registry.register_module('pool', module=AveragePooling) is AveragePooling
    assert len(registry) == 5 and 'One' in registry and 'Two' not in registry
    assert registry.get('zwei') is registry.module_dict['two'] is Two
    assert registry.get('nothing') is None and 'zwei' in repr(registry)
    with pytest.raises(KeyError, match='One is already registered, by .*test_registry'):
        registry.register_module(name='One', module=Two)
    registry.register_module(name='One', force=True, module=Two)
    assert registry.get('One') is Two


def test_forgotten_brackets_are_told():
    with pytest.raises(TypeError, match='expected a name, got <class'):
        @OperatorRegistry().register_module
        class Forgotten:
            pass
