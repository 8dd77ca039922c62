"""Checkpoints before they are loaded: what will not do, and which config fits."""
import random
from types import SimpleNamespace

import pytest
import torch
from refusals import refused

from mmpd.cli import weights
from mmpd.errors import InputError


@pytest.mark.parametrize('content, resume, match', [
    (dict(state_dict=dict(a=torch.ones(1))), True, 'has no meta, message_hub, optimizer: it holds'),
    (dict(state_dict=dict(a=torch.ones(1)), meta={}, message_hub={}), True, 'has no optimizer: '),
    (dict(state_dict={}), False, 'holds no state dict'),
    (dict(state_dict=dict(a=[1])), False, 'holds no state dict')])
def test_checkpoints_that_will_not_do(tmp_path, content, resume, match):
    path = tmp_path / 'x.pth'
    torch.save(content, path)
    with pytest.raises(InputError, match=f'x.pth \\(load_from\\).*{match}'):
        weights.check_checkpoint(path, 'load_from', resume)


def test_only_shapes_are_kept_of_a_checkpoint(tmp_path):
    torch.save(dict(a=torch.tensor([float('nan')])), tmp_path / 'x.pth')
    refused(weights.check_checkpoint, tmp_path / 'x.pth', 'load_from',
            match=r'checkpoint \(load_from\): .*x.pth: 1 of 1 values of "a" are NaN')
    torch.save(dict(a=torch.ones(2, 3)), tmp_path / 'x.pth')
    state = weights.check_checkpoint(tmp_path / 'x.pth', 'load_from')
    assert state['a'].device.type == 'meta' and state['a'].shape == (2, 3)
    refused(weights.check_checkpoint, tmp_path / 'none.pth', 'load_from', match='no checkpoint')


def test_the_nearest_of_the_configs_that_fit_is_named(monkeypatch, tmp_path):
    from conftest import TINY, tiny_model
    state = tiny_model('GANPriorSR').state_dict()
    paths = {}
    for name, changes in (('glean_x4_cat', {}), ('glean_x4_church', {}),
                          ('glean_x4_catt', dict(rrdb_channels=4)),
                          ('glean_x2_cat', dict(out_size=16))):
        generator = dict(TINY, **changes, init_cfg=dict(type='Pretrained', checkpoint='none.pth'))
        paths[name] = tmp_path / f'{name}.py'
        paths[name].write_text(f"model = dict(type='PDGLEAN', generator={generator!r})\n")
    (tmp_path / 'other.py').write_text("model = dict(type='X')\n")
    paths['other'] = tmp_path / 'other.py'
    shuffled = random.Random(0).sample(sorted(paths.items()), len(paths))
    monkeypatch.setattr(weights, 'known_configs', lambda: dict(shuffled))
    for name in ('cat', 'church'):
        cfg = SimpleNamespace(filename=f'/x/glean_x4_{name}t.py')
        assert weights.fitting_config(state, cfg) == paths[f'glean_x4_{name}']
    assert weights.fitting_config({}, cfg) is None
    assert weights.fitting_config({'generator.x': torch.ones(1)}, cfg) is None
    wrapped = {f'module.{key}': value for key, value in state.items()}
    assert weights.fitting_config(wrapped, SimpleNamespace(filename=None)) is not None
