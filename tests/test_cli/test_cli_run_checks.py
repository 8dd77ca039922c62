"""What a run that has been built would stumble over later."""
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_model
from mmagic.registry import METRICS
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from refusals import refused

from mmpd.cli import run_checks
from mmpd.errors import InputError
from mmpd.evaluation.metrics import SRFID, LRConsistency


def test_the_first_file_that_is_not_there_is_named(tmp_path):
    (tmp_path / 'face_1.png').touch()

    class Images(list):
        def get_data_info(self, index):
            return dict(gt_path=str(tmp_path / self[index]), key=index, img_path='s3://x',
                        shape_path=3)

    def check(dataset, **more):
        run_checks.check_pairs(SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset), **more),
                             'val')

    check(Images(['face_1.png']))
    repeated = SimpleNamespace(dataset=Images(['face_1.png', 'face_2.png']))
    refused(check, repeated, match=(r"val_dataloader: no file .*face_2.png \(gt_path of the image 1"
                                    r"\); did you mean 'face_1.png'"))
    remote = Images(['face_2.png'])
    remote.backend_args = dict(backend='petrel')
    check(remote), check([1, 2])  # a data set of another kind
    refused(check, Images(), match='^val_dataloader: expected images, got a data set of none')
    check(iter(()))  # of unknown length
    with pytest.raises(InputError, match='face_2.png'):  # of several loaders one
        check(Images(), dataloaders=[SimpleNamespace(dataset=Images(['face_1.png'])),
                                     SimpleNamespace(dataset=repeated)])


def test_a_validation_that_would_never_end():
    endless, other = (SimpleNamespace(sampler=sampler) for sampler in (
        InfiniteSampler([1]), DefaultSampler([1])))
    run_checks.check_end(SimpleNamespace(dataloaders=[other, SimpleNamespace()]), 'val')
    run_checks.check_end(SimpleNamespace(dataloader=other), 'val')
    for loop in (dict(dataloader=endless), dict(dataloaders=[other, endless])):
        refused(run_checks.check_end, SimpleNamespace(**loop), 'val', match=(
            'val_dataloader.sampler: expected one that ends, .*got InfiniteSampler'))
    loop = object.__new__(IterBasedTrainLoop)
    loop.dataloader = endless
    run_checks.check_end(loop, 'train')


def test_arguments_that_the_checkpoint_hook_would_stumble_over():
    def check(**options):
        hooks = [object(), CheckpointHook(**{'interval': 5, **options})]
        run_checks.check_hooks(SimpleNamespace(hooks=hooks, save_checkpoint=Runner.save_checkpoint))

    class Own(Hook):
        interval = [2, 4]

    run_checks.check_hooks(SimpleNamespace(hooks=[Own()], save_checkpoint=Runner.save_checkpoint))
    check(), check(save_begin=3), check(save_optimizer=False, file_client_args=None)
    refused(lambda: check(intervall=5), match=(
        "CheckpointHook.intervall: CheckpointHook has no such argument; did you mean 'interval'"))


def test_metrics_that_do_not_say_what_they_measure_may_measure_anything():
    class Any:
        prefix = None

    evaluator = SimpleNamespace(metrics=[Any()])
    hook = CheckpointHook(save_best='mine', rule='less')
    runner, cfg = SimpleNamespace(val_loop=SimpleNamespace(evaluator=evaluator), hooks=[hook]), {}
    run_checks.check_best(runner, cfg)
    evaluator.metrics = [METRICS.build(dict(type='PSNR', prefix='a')), LRConsistency()]
    refused(run_checks.check_best, runner, cfg,
            match='save_best: expected one of a/PSNR, PSNR_LR, .*mine')


def test_what_goes_by_a_metric_goes_by_one_that_is_measured():
    """mmengine warns at each validation that there is no such metric, and never stops early."""
    class Features(torch.nn.Module):
        pass

    evaluator = SimpleNamespace(metrics=[SRFID(network=Features(), device='cpu')])
    runner = SimpleNamespace(val_loop=SimpleNamespace(evaluator=evaluator), hooks=[])
    for wrong, cfg in (
            (CheckpointHook(save_best='FDI', rule='less'), {}),
            (EarlyStoppingHook(monitor='FDI', rule='less'), {}),
            (CheckpointHook(save_best='FID', rule='less'), dict(param_scheduler=dict(generator=[
                dict(type='ReduceOnPlateauLR', monitor='FDI')])))):
        runner.hooks = [wrong]
        refused(run_checks.check_best, runner, cfg, match=(
            r"\.(save_best|monitor): expected one of FID, FID_images, got 'FDI'; .*mean 'FID'"))
    run_checks.check_best(runner, {})


def test_nothing_is_measured():
    runner = SimpleNamespace(
        val_loop=SimpleNamespace(evaluator=SimpleNamespace(metrics=[])),
        hooks=[CheckpointHook(save_best='PSNR', rule='greater')])
    refused(run_checks.check_best, runner, {}, match='expected a metric in val_evaluator, got')


@pytest.mark.parametrize('given, message', [
    (dict(val_interval=0), 'train_cfg.val_interval: expected an integer of at least 1, got 0'),
    (dict(val_begin='abc'), "train_cfg.val_begin: expected an integer .*got 'abc'"),
    (dict(dynamic_intervals=[1, '5k']), "train_cfg.dynamic_intervals: .* got '5k'"),
    (dict(by_epoch=2), r'CheckpointHook.by_epoch \(its interval is 2\): expected False in a'),
    (dict(by_epoch=1), None),  # at the end
    (dict(param_scheduler=[dict(type='MultiStepLR')]), 'param_scheduler: MultiStepLR.by_epoch: '),
    (dict(param_scheduler=dict(a=dict(type='StepLR', convert_to_iter_based=True))), None),
    (dict(param_scheduler=dict(type='ReduceOnPlateauLR', monitor='PSNR')), None),
    (dict(param_scheduler=dict(type='StepLR', by_epoch=False)), None)])
def test_what_a_training_would_never_count(given, message):
    class Loop(IterBasedTrainLoop):
        def __init__(self, val_begin=1, val_interval=1000, dynamic_intervals=(1000,)):
            self.val_begin, self.val_interval = val_begin, val_interval
            self.dynamic_intervals = dynamic_intervals

    of_loop = {key: value for key, value in given.items() if key.endswith(('interval', 'begin',
                                                                          'intervals'))}
    hooks = [CheckpointHook(interval=given.get('by_epoch', 5), by_epoch='by_epoch' in given)]
    runner = SimpleNamespace(train_loop=Loop(**of_loop), hooks=hooks)
    if message:
        refused(run_checks.check_loop, runner, given, match=message)
    else:
        run_checks.check_loop(runner, given)


def test_two_metrics_of_one_name_are_found_before_the_run():
    """MMagic's evaluator finds them when all images are done."""
    def check(*evaluators):
        evaluators = [SimpleNamespace(metrics=[METRICS.build(cfg) for cfg in cfgs])
                      for cfgs in evaluators]
        run_checks.check_metric_names(SimpleNamespace(evaluators=evaluators), 'test')

    psnr, of_y = dict(type='PSNR'), dict(type='PSNR', convert_to='Y')
    check([psnr, dict(type='SSIM'), dict(type='LRConsistency'), dict(of_y, prefix='Y')])
    check([psnr], [dict(psnr, prefix='Set5')])
    run_checks.check_metric_names(SimpleNamespace(evaluator=SimpleNamespace(metrics=[])), 'test')
    run_checks.check_metric_names(SimpleNamespace(evaluator=SimpleNamespace(metrics=None)), 'test')
    for several in ([[psnr, of_y]], [[psnr], [psnr]]):
        refused(check, *several, match='test_evaluator: expected another prefix for the second '
                "metric 'PSNR', got None")
    refused(check, [dict(psnr, prefix=3)], match='test_evaluator: PSNR.prefix: .* string, got 3')
    consistency = dict(type='LRConsistency')
    refused(check, [consistency, consistency], match="second metric 'PSNR_LR'")

    class Named(METRICS.get('PSNR')):
        def compute_metrics(self, results):
            return {}

    run_checks.check_metric_names(SimpleNamespace(evaluator=SimpleNamespace(
        metrics=[Named(), Named()])), 'val')  # names that are not known yet
    set5 = dict(psnr, prefix='Set5')
    refused(check, [set5], [set5], match="the second metric 'Set5/PSNR', got 'Set5'")


def test_an_image_model_needs_its_preprocessor():
    run_checks.check_preprocessor(tiny_model(data_preprocessor=dict(type='DataPreprocessor')))
    run_checks.check_preprocessor(torch.nn.Identity())  # of another family
    refused(run_checks.check_preprocessor, tiny_model(data_preprocessor=None), match=(
        r'model.data_preprocessor: expected .*, got BaseDataPreprocessor'))


def test_factors_of_parameters_that_there_are_not():
    model = torch.nn.ModuleDict(dict(generator=torch.nn.ModuleDict(dict(
        encoder=torch.nn.Conv2d(1, 1, 1)))))

    def told(**wrapper):
        return run_checks.unused_factors(model, Config(dict(optim_wrapper=wrapper)))

    def part(*keys):
        return dict(optimizer=dict(type='Adam'), paramwise_cfg=dict(
            custom_keys={key: dict(lr_mult=0.1) for key in keys}))

    assert told(**part('generator.enc', 'bias', '.weight')) == []
    assert told(generator=part('enc', '.weight', 'encoder.bias')) == []
    assert told(**part('decoder')) == [
        "optim_wrapper.paramwise_cfg.custom_keys: no parameter of the model has 'decoder' in its "
        'name']
    assert told(generator=part('generator.encoder', 'bias')) == [
        'optim_wrapper.generator.paramwise_cfg.custom_keys: no parameter of generator has '
        "'generator.encoder' in its name"]
    assert told() == told(optimizer=dict(type='Adam'), paramwise_cfg=None) == []
    assert len(told(generator=part('x'), **{'.*coder': part('y')})) == 1  # a pattern, of diffusers
