"""The operator for an image and its LR: one rule, one message, no trace of other callers."""
import threading
import time

import pytest
import torch

from mmpd.operators import (
    OPERATORS,
    AveragePooling,
    Compose,
    LinearOperator,
    Masking,
    consistent_uint8,
    infer_scale,
    resize_matrix,
    resolve_operator,
)
from mmpd.operators import resolve as module
from mmpd.operators.resolve import prepare_operator

IMAGE, LR = (1, 3, 16, 24), (1, 3, 4, 6)


class WithDefault(AveragePooling):

    def __init__(self, scale=2):
        super().__init__(scale)


class Optional(AveragePooling):

    def __init__(self, factor=3, scale=None):
        super().__init__(scale)
        self.factor = factor
        self.register_buffer('filter', torch.ones(2), persistent=False)


@pytest.mark.parametrize('cfg', [
    dict(type='AveragePooling'), dict(type='AveragePooling', scale=None),
    dict(type=AveragePooling), dict(type='SeparableResize', kernel='lanczos'), dict(type='CEM'),
    dict(type=WithDefault, scale=None), dict(type=Optional), dict(type=Optional, factor=5)],
    ids=str)
def test_scale_from_the_sizes(cfg):
    before = dict(cfg)
    assert prepare_operator(cfg) is cfg
    operator = resolve_operator(cfg, IMAGE, LR)
    assert operator.scale == 4 and operator.A(torch.rand(IMAGE)).shape == LR
    assert resolve_operator(cfg, IMAGE[2:], LR[2:]) is operator  # kept
    assert resolve_operator(cfg, (32, 32), (4, 4)).scale == 8
    assert cfg == before


@pytest.mark.parametrize('cfg, scale', [
    (dict(type='AveragePooling', scale=2), 2), (dict(type=WithDefault), 2),
    (dict(type='Grayscale'), 1)])
def test_what_is_complete_does_not_look_at_the_sizes(cfg, scale):
    assert isinstance(prepare_operator(cfg), LinearOperator)
    assert resolve_operator(cfg, (7, 5), (3, 2)).scale == scale


def test_objects_are_returned_as_they_are():
    operator = AveragePooling(2)
    assert resolve_operator(operator, IMAGE, LR) is prepare_operator(operator) is operator


@pytest.mark.parametrize('image, lr', [((16, 24), (4, 8)), ((16, 24), (5, 6)), ((4, 6), (16, 24)),
                                       ((16, 24), (0, 0)), ((0, 0), (4, 6)), ((16, 16), (4, 5)),
                                       ((16, 24), (0, 6)), ((16, 24), (4, 0)), ((0, 24), (4, 6)),
                                       ((16, 0), (4, 6))])
def test_sizes_that_do_not_fit(image, lr):
    message = (r'the scale cannot be inferred: .*\({}x{}\), got {}x{}'.format(*lr, *image))
    with pytest.raises(ValueError, match=message):
        infer_scale(image, lr)
    with pytest.raises(ValueError, match=message):
        resolve_operator(dict(type='AveragePooling'), (1, 3, *image), (1, 3, *lr))


def test_scale_one():
    assert infer_scale((3, 5), (3, 5)) == 1


@pytest.mark.parametrize('cfg, message', [
    (dict(type='Nothing'), "unknown type 'Nothing'"), (dict(scale=None), 'unknown type None'),
    (dict(type=['AveragePooling']), 'unknown type'),
    (dict(type='AveragePooling', size=3), "AveragePooling: .*'size'"),
    (dict(type='Grayscale', scale=None), "Grayscale: .*'scale'"), (None, 'expected a dict'),
    (dict(type='SeparableResize', scale=4, kernel='cubic'), "got 'cubic'"),
    (dict(type='SeparableResize', kernel='cubic'), "SeparableResize: kernel: .* got 'cubic'"),
    (dict(type='SeparableResize', scale=None, border='none'), "border: .* got 'none'")])
def test_faults_are_found_before_there_is_an_image(cfg, message):
    for call in (prepare_operator, lambda cfg: resolve_operator(cfg, IMAGE, LR)):
        with pytest.raises(ValueError, match=message):
            call(cfg)


def test_an_operator_may_take_few_scales():
    class Eightfold(AveragePooling):
        def __init__(self, scale):
            if scale != 8:
                raise ValueError(f'scale: expected 8, got {scale}')
            super().__init__(scale)

    assert prepare_operator(dict(type=Eightfold)) == dict(type=Eightfold)


def test_what_differs_is_not_shared():
    kinds = [dict(type='AveragePooling'), dict(type=WithDefault, scale=4),
             dict(type='SeparableResize'), dict(type='SeparableResize', antialias=False),
             dict(type='SeparableResize', antialias=0), dict(type='Masking', mask=[[1, 0]]),
             dict(type='Masking', mask=[[0, 1]]), dict(type='Compose', operators=[
                 dict(type='Grayscale'), dict(type='AveragePooling', scale=4)])]
    operators = [resolve_operator(cfg, IMAGE, LR) for cfg in kinds]
    assert len(set(map(id, operators))) == len(kinds)
    again = [resolve_operator(cfg, IMAGE, LR) for cfg in kinds]
    assert list(map(id, again)) == list(map(id, operators))


def test_what_is_in_use_is_kept_longest():
    used = resolve_operator(dict(type='AveragePooling'), IMAGE, LR)
    for factor in range(100, 100 + module.LIMIT):
        resolve_operator(dict(type=Optional, factor=factor), IMAGE, LR)
        assert resolve_operator(dict(type='AveragePooling'), IMAGE, LR) is used


def test_tensors_and_operators_in_a_config_are_neither_kept_nor_moved():
    mask = torch.ones(2, 2, dtype=torch.bool)
    cfg = dict(type='Masking', mask=mask)
    full = resolve_operator(cfg, (2, 2), (2, 2))
    mask[0, 0] = False  # the config now says something else, the operator made of it does not
    assert full.mask.all()
    assert not resolve_operator(cfg, (2, 2), (2, 2)).mask.all()
    inner = Masking(mask)
    chain = resolve_operator(dict(type='Compose', operators=[inner]), (2, 2), (2, 2), 'meta')
    assert isinstance(chain, Compose) and chain.operators[0].mask.is_meta and not inner.mask.is_meta


def test_a_first_call_on_meta_or_in_inference_mode_spoils_nothing():
    cfg = dict(type=Optional, factor=11)  # met by no other test
    with torch.inference_mode(), torch.device('meta'):
        assert resolve_operator(cfg, IMAGE, LR, 'meta').filter.is_meta
        operator = resolve_operator(cfg, IMAGE, LR)
        matrix = resize_matrix(85, 17)
    assert operator.filter.device.type == matrix.device.type == 'cpu'
    assert not operator.filter.is_inference() and not matrix.is_inference()
    assert resolve_operator(cfg, IMAGE, LR) is operator


def test_threads_get_one_operator(monkeypatch):
    made, barrier = [], threading.Barrier(4)
    build = module.build_operator

    def slowly(cfg):
        made.append(cfg)
        time.sleep(0.05)  # the others come while it is built
        return build(cfg)

    monkeypatch.setattr(module, 'build_operator', slowly)
    found = []

    def work():
        barrier.wait()
        found.append(resolve_operator(dict(type=Optional, factor=13), IMAGE, LR))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(map(id, found))) == len(made) == 1


def test_the_cache_is_bounded():
    for scale in range(1, module.LIMIT + 9):
        assert resolve_operator(dict(type='AveragePooling'), (scale, scale), (1, 1)).scale == scale
    assert len(module._built) == module.LIMIT


def test_rounding_takes_a_config_without_scale():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, 8, 8, generator=generator) * 255
    lr = torch.randint(0, 256, (1, 1, 2, 2), generator=generator)
    result = consistent_uint8(image, lr.float(), dict(type='AveragePooling'))
    assert torch.equal(result, consistent_uint8(image, lr.float(), AveragePooling(4)))


def test_a_registered_class_is_resolved_by_name():
    try:
        OPERATORS.register_module(name='Mine', module=Optional)
        assert type(resolve_operator(dict(type='Mine'), IMAGE, LR)) is Optional
    finally:
        del OPERATORS.module_dict['Mine']
