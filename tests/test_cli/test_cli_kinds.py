"""What an argument's annotation or default rules out is refused; whatever else may be passes."""
# ruff: noqa: UP006, UP007, UP035, UP045  as MMagic and mmengine write them
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple, Union

import mmagic
import pytest
from mmagic.registry import HOOKS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from refusals import refused

from mmpd.cli.kinds import check_kinds


class Base:
    def __init__(self, scale: int = 2, inherited: float = 1.0, hidden: int = 3):
        pass


@MODELS.register_module(force=True)
@HOOKS.register_module(force=True)
class Annotated(Base):
    def __init__(self, scale: 'Union[str, float]', one: float, flag: bool, hidden, default=1,
                 some: Optional[int] = None, pair: Union[int, Tuple[int, ...]] = 1,
                 row: Sequence[float] = (), listed: List[int] = (), nothing: None = None,
                 bare: List = (), new: 'int | None' = None, nested: dict = None, word: str = '',
                 words: Union[str, List[str], None] = None, table: Dict[str, int] = None,
                 either: Union[str, Dict] = '', path: Union[str, Path] = '', **kwargs):
        super().__init__(**kwargs)


@MODELS.register_module(force=True)
class Unclear(Base):
    def __init__(self, one: 'Undefined', default=1):  # noqa: F821
        pass


init_default_scope('mmagic')


def check(**given):
    check_kinds(Config(dict(model=given)))


@pytest.mark.parametrize('key, value, expected', [
    ('one', 'abc', 'a number'), ('one', [0, 5], 'a number'), ('one', dict(a=1), 'a number'),
    ('flag', 'no', 'True or False'), ('some', '3', 'a number'), ('pair', 'abc', 'numbers'),
    ('row', 'abc', 'numbers'), ('listed', 'abc', 'numbers'), ('new', (1, 2), 'a number'),
    ('inherited', 'x', 'a number'), ('word', 3, 'text'), ('word', True, 'text'),
    ('words', 3, 'text or a list of text'), ('nested', 2.5, 'a dict'), ('table', 1, 'a dict'),
    ('either', 1, 'text or a dict')])
def test_what_an_annotation_rules_out(key, value, expected):
    for kind in ('Annotated', Annotated):
        refused(check_kinds, Config(dict(model={'type': kind, key: value})),
                match=f'^model.{key}: expected {expected}, got ')


@pytest.mark.parametrize('given', [
    dict(scale='half'), dict(one=3), dict(one=True), dict(one=None), dict(flag=1), dict(some=2.5),
    dict(pair=(1, 2)), dict(pair=[1, 2]), dict(row=[]), dict(hidden='x'), dict(default='x'),
    dict(word=['x']), dict(words=('x', )), dict(path=3), dict(nothing='x'), dict(bare='x'),
    dict(other='x'), dict(nested='x')])
def test_what_may_be_or_is_not_known(given):
    """Where a subclass says nothing of an argument, its base has no say either; nor has the default
    of a type of one's own."""
    check(type='Annotated', **given)
    check(type='Unclear', **given)
    check(type='NotThere', **given)
    check(**given)


def test_parts_of_parts_are_looked_at():
    part = dict(type='Annotated', one='x')
    refused(check_kinds, Config(dict(model=dict(type='Annotated', nested=dict(one=part)))),
            match='^model.nested.one.one: ')
    refused(check_kinds, Config(dict(custom_hooks=[dict(type='TimerHook'), part])),
            match='^custom_hooks.1.one: expected a number')
    check_kinds(Config(dict(custom_hooks=None, model=None, val_dataloader=3, mine=part)))


@pytest.mark.parametrize('given, message', [
    (dict(model=dict(type='GANLoss', loss_weight='1')), 'model.loss_weight: expected a number'),
    (dict(param_scheduler=[dict(type='MultiStepLR', milestones='9')]),
     r"param_scheduler.0.milestones: expected numbers, got '9'"),
    (dict(log_processor=dict(type='LogProcessor', window_size='epoch')), 'window_size: .* number'),
    (dict(visualizer=dict(type='ConcatImageVisualizer', bgr2rgb='no')), 'bgr2rgb: expected True'),
    (dict(train_dataloader=dict(dataset=dict(pipeline=[dict(type='Flip', flip_ratio='half')]))),
     'train_dataloader.dataset.pipeline.0.flip_ratio: expected a number'),
    (dict(train_dataloader=dict(pin_memory='no')), 'train_dataloader.pin_memory: expected True or'),
    (dict(test_dataloader=[dict(num_workers=2), dict(num_workers='2')]),
     "test_dataloader.num_workers: expected a number, got '2'"),
    (dict(default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_last='no'))),
     'default_hooks.checkpoint.save_last: expected True or False'),  # mmpd's, which hands it on
    (dict(train_cfg=dict(type='IterBasedTrainLoop', max_iters='1e5')), 'train_cfg.max_iters: '),
    (dict(default_hooks=dict(checkpoint=dict(type='CheckpointHook', published_keys=3))),
     'checkpoint.published_keys: expected text or a list of text, got 3'),
    (dict(val_evaluator=dict(type='PSNR', prefix=3)), 'val_evaluator.prefix: expected text, got 3'),
    *((dict(train_dataloader=dict(dataset={'type': 'BasicImageDataset', key: 3})),
       f'train_dataloader.dataset.{key}: expected {words}, got 3')
      for key, words in (('metainfo', 'a dict'), ('filename_tmpl', 'a dict'),
                         ('ann_file', 'text')))])
def test_arguments_of_mmagic_and_mmengine(given, message):
    refused(check_kinds, Config(given), match=message)


def test_a_default_tells_nothing_of_lists(monkeypatch):
    """A size of one number may be two."""
    monkeypatch.setattr('mmpd.cli.kinds.KNOWN', (__name__, ))
    refused(check_kinds, Config(dict(model=dict(type='Annotated', default='x'))),
            match='model.default: expected a number')
    check(type='Annotated', default=[1, 2])


def test_a_docstring_allows_more_than_its_annotation():
    check_kinds(Config(dict(param_scheduler=dict(type='OneCycleLR', eta_max=[1e-3, 1e-4]))))
    refused(check_kinds, Config(dict(param_scheduler=dict(type='OneCycleLR', eta_max='x'))),
            match='eta_max: expected a number')


@pytest.mark.parametrize('folder', [
    Path(mmagic.__file__).parent / '.mim/configs', Path(__file__).parents[2] / 'configs'],
    ids=['mmagic', 'mmpd'])
def test_no_config_there_is_has_such_a_value(folder):
    paths, read = sorted(folder.glob('[!_]*/*.py')), 0
    for path in paths:
        try:
            cfg = Config.fromfile(path)
        except Exception:  # of a package that is not installed
            continue
        check_kinds(cfg)
        read += 1
    assert read > 0.8 * len(paths) > 40
