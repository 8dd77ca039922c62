"""Keys lose the prefixes of DDP wrappers, at every level."""
from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.runner.checkpoint import load_checkpoint, save_checkpoint
from torch import nn

from mmpd.utils.checkpoint import strip_wrapper_prefix


@pytest.mark.parametrize('key, expected', [
    ('generator.module.conv.weight', 'generator.conv.weight'),
    ('module.generator.conv.weight', 'generator.conv.weight'),
    ('module.generator.module.conv.weight', 'generator.conv.weight'),
    ('module.module.generator.conv.weight', 'generator.conv.weight'),
    ('generator.submodule.weight', 'generator.submodule.weight'),
    ('generator.module_list.0.weight', 'generator.module_list.0.weight'),
])
def test_prefixes_at_every_level(key, expected):
    assert list(strip_wrapper_prefix({key: 1})) == [expected]


class Pair(nn.Module):
    """Two children, of which one may be wrapped as MMSeparateDistributedDataParallel does."""

    def __init__(self, wrapped=False):
        super().__init__()
        self.generator = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
        self.discriminator = nn.Linear(2, 1)
        if wrapped:
            wrapper = nn.Module()
            wrapper.module = self.generator
            self.generator = wrapper


@settings(deadline=None, max_examples=25)
@given(names=st.lists(st.sampled_from(['generator', 'module_list', 'conv', 'step_counter', '0']),
                      min_size=1, max_size=4),
       wrapped=st.sets(st.integers(0, 4)))
def test_stripping_undoes_wrapping(names, wrapped):
    key = '.'.join(f'module.{name}' if i in wrapped else name for i, name in enumerate(names))
    assert strip_wrapper_prefix({key: 0}) == {'.'.join(names): 0}


def test_clean_dicts_are_returned_as_they_are():
    clean = Pair().state_dict()
    assert strip_wrapper_prefix(clean) is clean


def test_type_order_and_metadata_are_kept():
    cleaned, plain = strip_wrapper_prefix(Pair(wrapped=True).state_dict()), Pair().state_dict()
    assert isinstance(cleaned, OrderedDict) and set(cleaned) == set(plain)
    assert cleaned._metadata['generator.1'] == {'version': 2}  # BatchNorm's counter needs it
    Pair().load_state_dict(cleaned)


def test_two_keys_never_become_one_in_silence():
    with pytest.raises(ValueError, match="'g.w' both with and without"):
        strip_wrapper_prefix({'g.w': 1, 'g.module.w': 2}, own=['g.w'])


@pytest.mark.parametrize('key, own, expected', [
    ('g.module.w', ['g.module.w'], 'g.module.w'),
    ('g.module.module.w', ['g.module.w'], 'g.module.w'),
    ('module.g.module.module.w', ['g.module.w'], 'g.module.w'),
    ('g.w', ['g.module.w'], 'g.module.w'),  # published without the model at hand
    ('g.module.w', ['g.w'], 'g.w'),
    ('other.module.w', ['g.w'], 'other.w')])
def test_the_models_keys_tell_a_wrapper_from_a_child_of_that_name(key, own, expected):
    assert list(strip_wrapper_prefix({key: 1}, own)) == [expected]


def test_a_child_named_module_has_siblings():
    """Without the model's keys: all of a wrapper is in its ``module``."""
    state = {'g.module.w': 1, 'g.head.w': 2, 'd.module.w': 3, 'e.module.w': 4, 'e.steps': 5}
    assert list(strip_wrapper_prefix(state)) == [
        'g.module.w', 'g.head.w', 'd.w', 'e.w', 'e.steps']
    assert list(strip_wrapper_prefix({'g.module.module.w': 1, 'g.module.head.w': 2})) == [
        'g.module.w', 'g.head.w']


def test_the_fault_and_the_cure(tmp_path):
    """Wrapped keys load nothing, without an error; cleaned keys load everything."""
    source, path = Pair(wrapped=True), str(tmp_path / 'ddp.pth')
    model = Pair()
    before = model.generator[0].weight.clone()
    save_checkpoint(dict(state_dict=source.state_dict()), path)
    load_checkpoint(model, path, strict=False)
    assert torch.equal(model.generator[0].weight, before)
    save_checkpoint(dict(state_dict=strip_wrapper_prefix(source.state_dict())), path)
    load_checkpoint(model, path, strict=True)
    assert torch.equal(model.generator[0].weight, source.generator.module[0].weight)
