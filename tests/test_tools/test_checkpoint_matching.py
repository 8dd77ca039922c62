"""A checkpoint is that of the config or it is refused; what may differ is said."""
import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY, gan_parts, tiny_model
from mmagic.registry import MODELS
from mmengine.config import Config

from mmpd.cli import weights
from mmpd.errors import InputError

CFG = Config(dict(model=dict()))


@pytest.fixture(scope='module')
def model():
    return tiny_model(**gan_parts())


@pytest.fixture
def said(monkeypatch):
    """What is logged."""
    lines = []
    monkeypatch.setattr(weights, 'print_log', lambda text, **_: lines.append(text))
    monkeypatch.setattr(weights, 'fitting_config', lambda state, cfg: None)
    return lines


def changed(state, drop=(), **tensors):
    state = {key: value for key, value in state.items() if not key.startswith(tuple(drop))}
    state.update((key.replace('__', '.'), value) for key, value in tensors.items())
    return state


WRONG = {
    'none': (lambda state: {'weight': torch.ones(1)}, '0 of .* fit, .*fits none of the configs'),
    'decoder': (lambda state: changed(state, ['generator.decoder.']),
                r'"generator.decoder\S* is not in the file.*--allow-partial'),
    'one tensor': (lambda state: changed(state, ['generator.fusion_skip.0.bias']),
                   ' fit, 1 not: "generator.fusion_skip.0.bias" is not in the file'),
    'one more': (lambda state: changed(state, generator__more=torch.ones(1)),
                 ' fit, 1 not: "generator.more" of the file is not in the model'),
    'shape': (lambda state: {**state, 'generator.fusion_skip.0.bias': torch.ones(4)},
              r'"generator.fusion_skip.0.bias" is \(4,\) in the file and \(3,\) in the model'),
    'without names': (lambda state: {key.removeprefix('generator.'): value
                                     for key, value in state.items()}, ' tensors fit, .* not: '),
}


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('case', WRONG)
def test_half_a_checkpoint_is_none(model, said, case, training):
    change, message = WRONG[case]
    with pytest.raises(InputError, match=f'checkpoint x.pth is not one of this config: .*{message}'
                       ) as stop:
        weights.check_matches(model, change(model.state_dict()), 'x.pth', CFG, training=training)
    assert '\n' not in str(stop.value)


def test_a_checkpoint_of_pdglean_is_not_one_of_pdn_nor_the_reverse(said):
    pdn = tiny_model('PDN', dict(TINY, type='PDNNet'), pixel_loss=None)
    glean = tiny_model()
    for one, other in ((pdn, glean), (glean, pdn)):
        with pytest.raises(InputError, match='is not one of this config'):
            weights.check_matches(one, other.state_dict(), 'x.pth', CFG)


MAY = {
    'itself': lambda state: dict(state),
    'the generator alone': lambda state: changed(state, ['discriminator', 'step_counter']),
    'a perceptual loss': lambda state: changed(state, perceptual_loss__vgg__mean=torch.ones(3)),
    'an average': lambda state: {**state, **{
        key.replace('generator.', 'generator_ema.', 1): value for key, value in state.items()
        if key.startswith('generator.')}},
    'DDP': lambda state: {f'module.{key}': value for key, value in state.items()},
    'separate DDP': lambda state: {key.replace('.', '.module.', 1): value
                                   for key, value in state.items()},
}


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('case', MAY)
def test_what_may_differ(model, said, case, training):
    weights.check_matches(model, MAY[case](model.state_dict()), 'x.pth', CFG, training=training)
    assert any('stays as initialised' in line for line in said) == (
        training and case == 'the generator alone')
    assert any('generator_ema of x.pth is not used' in line for line in said) == (
        case == 'an average')


def test_discriminators_count_in_training_only(model, said):
    state = model.state_dict()
    key = next(key for key in state if key.startswith('discriminator.'))
    other = {**state, key: torch.ones(1)}
    weights.check_matches(model, other, 'x.pth', CFG)
    with pytest.raises(InputError, match=re.escape(f'"{key}" is (1,) in the file')):
        weights.check_matches(model, other, 'x.pth', CFG, training=True)
    without = changed(state, ['discriminator'])
    weights.check_matches(model, without, 'x.pth', CFG, training=True)
    with pytest.raises(InputError, match='"discriminator.*is not in the file'):
        weights.check_matches(model, without, 'x.pth', Config(dict(resume=True)), training=True)
    plain = tiny_model()  # trained by a pixel loss
    weights.check_matches(plain, state, 'x.pth', CFG, training=True)


def test_averages(said):
    """A model that keeps one takes it from a plain checkpoint, but not half of one."""
    averaged, plain = tiny_model(use_ema=True), tiny_model()
    weights.check_matches(averaged, plain.state_dict(), 'x.pth', CFG)
    half = changed(averaged.state_dict(), ['generator_ema.decoder.'])
    with pytest.raises(InputError, match='"generator_ema.decoder.*is not in the file'):
        weights.check_matches(averaged, half, 'x.pth', CFG)


def test_partial_on_purpose(model, said):
    state = changed(model.state_dict(), ['generator.decoder.'], generator__more=torch.ones(1))
    weights.check_matches(model, state, 'x.pth', CFG, partial=True)
    assert re.search(r'--allow-partial: \d+ of \d+ tensors are loaded from x.pth; these stay as '
                     r'initialised: generator.decoder \(\d+\); of the file 1 are not used', said[0])
    with pytest.raises(InputError, match='is not one of this config'):
        weights.check_matches(model, {'w': torch.ones(1)}, 'x.pth', CFG, partial=True)
    state = dict(model.state_dict())
    key = next(key for key in state if key.startswith('generator.'))
    state[key] = state[key].to(torch.int8)  # of a fitting shape, mmengine would load it
    with pytest.raises(InputError, match=f'"{key}" is torch.int8 in the file') as caught:
        weights.check_matches(model, state, 'x.pth', CFG, partial=True)
    assert '--allow-partial' not in str(caught.value)


def test_the_config_that_fits_is_named():
    """Of the two that do, panini's and pd_panini's, the one whose name is nearer."""
    name = 'pd_panini/pd_panini_in8out64-tiny_1xb8-400_demo.py'
    asked = 'pd_glean/pd_glean_in8out64-tiny_1xb8-400_demo.py'
    generator = Config.fromfile(ROOT / 'configs' / name).model.generator
    with torch.device('meta'):
        state = MODELS.build(generator).state_dict()
    state = {f'generator.module.{key}': value for key, value in state.items()}
    found = weights.fitting_config(state, Config.fromfile(ROOT / 'configs' / asked))
    assert Path(found).name == Path(name).name
    state.popitem()
    assert weights.fitting_config(state, Config.fromfile(ROOT / 'configs' / asked)) is None


@pytest.mark.parametrize('value, said', [(torch.nan, 'NaN'), (torch.inf, 'infinite')])
def test_weights_that_are_no_numbers(model, tmp_path, value, said):
    state = {**model.state_dict(), 'generator.fusion_skip.0.bias': torch.full((3,), value)}
    torch.save(dict(state_dict=state), tmp_path / 'a.pth')
    with pytest.raises(InputError, match=f'3 of 3 values of "generator.fusion_skip.0.bias" are '
                                         f'{said}'):
        weights.check_checkpoint(str(tmp_path / 'a.pth'), 'load_from')
