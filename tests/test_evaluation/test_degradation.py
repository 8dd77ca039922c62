"""LRConsistency takes the A of the model; a pipeline with another A is told about, once."""
import logging
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import lr_batch, predict, tiny_model
from mmagic.registry import METRICS, TRANSFORMS
from mmagic.structures import DataSample
from mmengine.config import Config

from mmpd.cli.settings import add_consistency
from mmpd.errors import BadSample, InputError
from mmpd.evaluation import degradation
from mmpd.operators import build_operator

BICUBIC = dict(type='SeparableResize', scale=4)
POOLING = dict(type='AveragePooling', scale=4)


class Pairs:
    """A data set of one picture, noise, and its LR by some operator."""

    def __init__(self, operator, size=32, draws=False):
        self.data_prefix = dict(img=str(operator))
        self.operator, self.size, self.draws = build_operator(operator), size, draws

    def __len__(self):
        return 1

    def __getitem__(self, index):
        if index:
            raise IndexError('there is one picture')
        if self.draws:
            torch.rand(1), np.random.rand(), random.random()
        generator = torch.Generator().manual_seed(0)
        gt = torch.randint(0, 256, (1, 3, self.size, self.size), generator=generator)
        lr = self.operator.A(gt.float()).round().clamp(0, 255)
        return dict(inputs=lr[0].to(torch.uint8),
                    data_samples=DataSample(gt_img=gt[0].to(torch.uint8)))


class Loader:
    def __init__(self, dataset):
        self.dataset = dataset


@pytest.fixture
def lines(monkeypatch):
    told = []
    monkeypatch.setattr(degradation, '_told', set())
    monkeypatch.setattr(degradation, 'print_log',
                        lambda text, logger, level=logging.INFO: told.append((text, level)))
    return told


def test_the_same_operator_needs_no_word(lines):
    for operator in (POOLING, BICUBIC):
        model = tiny_model(pd_head=dict(operator=operator))
        degradation.tell_difference(model, Pairs(operator), 'x')
    assert lines == []


def test_another_operator_is_told_about_once(lines):
    model = tiny_model(pd_head=dict(operator=POOLING))
    for _ in range(2):
        degradation.tell_difference(model, Pairs(BICUBIC), 'train_dataloader')
    degradation.tell_difference(model, Pairs(dict(BICUBIC, antialias=False)), 'val_dataloader')
    (text, level), (_, other) = lines
    assert text.startswith(f'train_dataloader: the LR is made by files in {BICUBIC}, the PD head '
                           'has A = AveragePooling(scale=4); on the first image they differ by ')
    assert level == logging.INFO  # the paper's own setting
    # of noise one pixel and the mean of many have little in common
    assert other == logging.WARNING


@pytest.mark.parametrize('key, words', [('img', 'files in GT'), ('gt', 'the pipeline')])
def test_files_that_no_step_reads_are_not_the_lr(key, words):
    step = TRANSFORMS.build(dict(type='LoadImageFromFile', key=key))
    dataset = SimpleNamespace(data_prefix=dict(img='GT'),
                              pipeline=SimpleNamespace(transforms=[step]))
    assert degradation.lr_source(SimpleNamespace(dataset=dataset)) == words


def test_models_without_pd_and_data_without_gt_are_left_alone(lines):
    degradation.tell_difference(tiny_model('GANPriorSR'), Pairs(BICUBIC), 'x')

    class NoGT(Pairs):
        def __getitem__(self, index):
            return dict(super().__getitem__(index), data_samples=DataSample())

    degradation.tell_difference(tiny_model(), NoGT(BICUBIC), 'x')
    assert lines == []


@pytest.mark.parametrize('inputs, gt, told', [
    (lambda lr: dict(img=lr), lambda gt: gt, 1),  # of a data set with several inputs
    (lambda lr: dict(mask=lr), lambda gt: gt, 0),
    (lambda lr: lr.numpy(), lambda gt: gt, 0),
    (lambda lr: lr[None], lambda gt: gt, 0), (lambda lr: lr, lambda gt: gt[None], 0)],
    ids=['dict', 'no LR', 'array', 'frames', 'frames of the GT'])
def test_only_pairs_of_single_images_are_compared(lines, inputs, gt, told):
    class Others(Pairs):
        def __getitem__(self, index):
            found = super().__getitem__(index)
            sample = DataSample()
            sample.set_data(dict(gt_img=gt(found['data_samples'].gt_img)))
            return dict(inputs=inputs(found['inputs']), data_samples=sample)

    degradation.tell_difference(tiny_model(), Others(BICUBIC), 'x')
    assert len(lines) == told


def test_a_pipeline_that_packs_nothing():
    class Unpacked(Pairs):
        def __getitem__(self, index):
            return dict(gt=1, gt_path='a.png')

    with pytest.raises(InputError, match="'data_samples', as PackInputs .* got gt, gt_path"):
        degradation.tell_difference(tiny_model(), Unpacked(BICUBIC), 'x')


@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32])
def test_an_lr_of_8_bits_is_rounded_and_clipped_as_a_file_is(dtype):
    """Bicubic overshoots at edges between black and white; a float LR is A x itself."""
    class Edges(Pairs):
        def __getitem__(self, index):
            gt = torch.zeros(3, 32, 32)
            gt[:, :, 11:] = 255
            lr = self.operator.A(gt[None])[0]
            assert lr.min() < -1 and lr.max() > 256
            lr = lr.round().clamp(0, 255).to(dtype) if dtype == torch.uint8 else lr
            return dict(inputs=lr, data_samples=DataSample(gt_img=gt.to(torch.uint8)))

    head = tiny_model(pd_head=dict(operator=BICUBIC)).pd_head
    assert degradation._compare(head, Edges(BICUBIC))[1] > 130


def test_an_operator_need_be_no_module():
    foreign = SimpleNamespace(A=build_operator(POOLING).A)
    head = SimpleNamespace(operator_for=lambda *_: foreign)
    assert degradation._compare(head, Pairs(POOLING)) == (foreign, 200)


def test_sizes_that_do_not_fit_are_an_input_error(lines):
    with pytest.raises(InputError, match='val_dataloader.*do not fit the PD head: .*multiples of'):
        degradation.tell_difference(
            tiny_model(), Pairs(dict(type='AveragePooling', scale=2), 34), 'val_dataloader')

    class Bad:
        def __getitem__(self, index):
            raise BadSample('0.png: expected 8 bits per channel, got 16 bits')

    with pytest.raises(BadSample, match='^0.png: expected 8 bits'):  # it is not the head
        degradation.tell_difference(tiny_model(), Bad(), 'val_dataloader')


def test_a_network_for_another_scale_is_an_input_error(lines):
    model = tiny_model()
    model.generator.upscale_factor = 8  # the pictures are to be enlarged 4 times
    with pytest.raises(InputError, match='upscale_factor=8 makes 64x64 of the LR, the GT is 32x32'):
        degradation.tell_difference(model, Pairs(POOLING), 'x')


def test_looking_changes_no_random_number(lines):
    model = tiny_model()  # seeds torch itself
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    degradation.tell_difference(model, Pairs(POOLING, draws=True), 'x')
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1]) and states[2] == random.getstate()


@pytest.mark.parametrize('operator', [BICUBIC, POOLING], ids=lambda cfg: cfg['type'])
def test_the_metric_measures_with_the_operator_of_the_model(operator, lines):
    model = tiny_model(pd_head=dict(operator=operator))
    metric = METRICS.build(dict(type='LRConsistency'))
    metric.prepare(model, Loader(Pairs(operator)))
    assert metric.operator is not model.pd_head.operator
    samples = predict(model, lr_batch(size=8))
    metric.process(None, [sample.to_dict() for sample in samples])
    metric.size = len(samples)
    assert metric.evaluate()['PSNR_LR'] > 100
    assert repr(model.pd_head.operator) in metric.protocol
    assert lines == []
    metric.prepare(model, Loader(Pairs(POOLING if operator is BICUBIC else BICUBIC)))
    assert [text.split(':')[0] for text, _ in lines] == ['evaluation']


def test_a_named_operator_and_plain_models_keep_theirs(lines):
    metric = METRICS.build(dict(type='LRConsistency', operator=POOLING))
    metric.prepare(tiny_model(pd_head=dict(operator=BICUBIC)), Loader(Pairs(BICUBIC)))
    assert 'AveragePooling(scale=4)' in metric.protocol
    metric = METRICS.build(dict(type='LRConsistency'))
    metric.prepare(tiny_model('GANPriorSR'), Loader(Pairs(BICUBIC)))
    assert metric.operator == dict(type='AveragePooling')


PSNR = dict(type='PSNR')


@pytest.mark.parametrize('given, expected', [
    (PSNR, [PSNR, dict(type='LRConsistency', prefix=None)]),
    ([PSNR], [PSNR, dict(type='LRConsistency', prefix=None)]),
    (dict(type='Evaluator', metrics=[PSNR]),
     dict(type='Evaluator', metrics=[PSNR, dict(type='LRConsistency', prefix=None)])),
    ([dict(type='Evaluator', metrics=[dict(PSNR, prefix='Set5')])],
     [dict(type='Evaluator', metrics=[dict(PSNR, prefix='Set5'),
                                      dict(type='LRConsistency', prefix='Set5')])]),
    ([dict(type='LRConsistency', operator=POOLING)],
     [dict(type='LRConsistency', operator=POOLING)]),
])
def test_the_tools_add_the_metric(given, expected):
    cfg = Config(dict(model=dict(type='PDModel'), val_evaluator=given))
    add_consistency(cfg, 'val')
    assert Config(dict(val_evaluator=expected)).val_evaluator == cfg.val_evaluator
    plain = Config(dict(model=dict(type='SRGAN'), val_evaluator=given))
    add_consistency(plain, 'val')
    assert plain.val_evaluator == Config(dict(val_evaluator=given)).val_evaluator


def test_the_random_numbers_of_gpus_stay_the_same_too(monkeypatch):
    """A network that a rehearsal runs there draws noise."""
    states = ['of GPU 0', 'of GPU 1']
    for name, function in (('is_initialized', lambda: True),
                           ('get_rng_state_all', lambda: list(states)),
                           ('set_rng_state_all', lambda given: states.__setitem__(
                               slice(None), given))):
        monkeypatch.setattr(torch.cuda, name, function)
    with pytest.raises(KeyError), degradation.untouched_randomness():
        states[1] = 'drawn from'
        raise KeyError
    assert states == ['of GPU 0', 'of GPU 1']
