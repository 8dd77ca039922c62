"""DownsamplingTestLoop: one option, one column per downsampling."""
import mmpd  # noqa: F401  isort: skip  (its stand-ins come before mmagic's models)
from types import SimpleNamespace

import cv2
import mmengine.runner
import numpy as np
import pytest
import torch
from mmagic.registry import LOOPS, METRICS, TRANSFORMS
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmpd.datasets.resampling import downsample
from mmpd.engine import loops
from mmpd.engine.loops import (
    CASES,
    DEFAULTS,
    DownsamplingTestLoop,
    parse_case,
    with_downsampling,
    with_prefix,
)
from mmpd.errors import InputError

LOAD = [dict(type='LoadImageFromFile', key=key) for key in ('img', 'gt')]
PACK = dict(type='PackInputs')


class Catch(Hook):
    def after_test_epoch(self, runner, metrics=None):
        self.metrics = metrics


def run(tmp_path, name, hooks=(), **test_cfg):
    folder = tmp_path / 'gt'
    folder.mkdir(exist_ok=True)
    for index in range(2):
        gt = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f'{index}.png'), gt)
    loader = dict(num_workers=0, batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False),
                  dataset=dict(type='BasicImageDataset', data_root=str(folder),
                               data_prefix=dict(gt=''), metainfo=dict(task_name='sisr'),
                               pipeline=[LOAD[1], dict(type='LRSynthesis', scale=4), PACK]))
    runner = Runner.from_cfg(Config(dict(
        default_scope='mmagic', work_dir=str(tmp_path / name), log_level='WARNING',
        experiment_name=name,
        model=dict(type='BaseEditModel', pixel_loss=dict(type='L1Loss'), generator=dict(
            type='MSRResNet', in_channels=3, out_channels=3, mid_channels=4, num_blocks=1,
            upscale_factor=4), data_preprocessor=dict(type='DataPreprocessor')),
        test_dataloader=loader, test_evaluator=[dict(type='LRConsistency'), dict(type='MAE')],
        test_cfg=dict(dict(type='DownsamplingTestLoop'), **test_cfg),
        custom_hooks=[dict(type='PanelHook', max_images=1), *hooks])))
    catch = Catch()
    runner.register_hook(catch)
    runner.test()
    return runner, catch.metrics


def test_one_column_per_downsampling(tmp_path):
    runner, metrics = run(tmp_path, 'loop_default')
    assert {key.rsplit('/', 1)[0] for key in metrics} == set(CASES)
    for case in CASES:
        assert f'{case}/PSNR_LR' in metrics and f'{case}/MAE' in metrics
    assert len({metrics[f'{case}/L1_LR'] for case in CASES}) == len(CASES)
    panels = [p.relative_to(tmp_path) for p in (tmp_path / 'loop_default').glob('*/panels/*/*/*')]
    assert sorted(p.parent.name for p in panels) == sorted(CASES)
    for loader, case in zip(runner.test_loop.dataloaders, CASES, strict=True):
        gt = cv2.imread(str(tmp_path / 'gt' / '0.png'))
        want = downsample(gt, 4, *parse_case(case))
        np.testing.assert_array_equal(loader.dataset[0]['inputs'].permute(1, 2, 0), want)


def test_cases_are_an_option(tmp_path):
    _, metrics = run(tmp_path, 'loop_cases', cases=['bicubic(alias)'])
    assert {key.split('/')[0] for key in metrics} == {'bicubic(alias)'}


def test_own_lr_and_further_metrics(tmp_path, monkeypatch):
    _, metrics = run(tmp_path, 'loop_own', cases='own', metrics=['PSNR', dict(type='MSE')])
    assert {'PSNR', 'MSE', 'MAE', 'PSNR_LR'} <= set(metrics)
    assert not any('/' in key for key in metrics)
    lines = []
    monkeypatch.setattr(loops, 'print_log', lambda line, *_: lines.append(line))
    _, both = run(tmp_path, 'loop_both', cases=['own', 'bicubic(antialias)'], metrics='PSNR',
                  hooks=[dict(type='BasicVisualizationHook', interval=9)])
    assert 'pictures in vis_image will be those of bicubic(antialias)' in lines[0]
    assert both['PSNR'] == both['bicubic(antialias)/PSNR']  # LRSynthesis's default


@pytest.mark.parametrize('case, want', [
    ('bicubic', ('bicubic', True)), ('bicubic(alias)', ('bicubic', False)),
    ('average_pooling', ('average_pooling', True)), ('lanczos(antialias)', ('lanczos', True))])
def test_names_of_downsamplings(case, want):
    assert parse_case(case) == want


@pytest.mark.parametrize('case', ['cubic', 'bicubic()', 'bicubic(foo)', 'average_pooling(alias)',
                                  None, 'bicubic (alias)'])
def test_undefined_downsamplings(case):
    with pytest.raises(ValueError):
        parse_case(case)


def test_lr_files_are_replaced_by_synthesis():
    pipeline = [*LOAD, PACK]
    new = with_downsampling(pipeline, 'box', scale=8)
    assert new == [LOAD[1], dict(type='LRSynthesis', scale=8, kernel='box', antialias=True), PACK]
    assert pipeline == [*LOAD, PACK]
    classes = [dict(step, type=TRANSFORMS.get(step['type'])) for step in pipeline]
    assert with_downsampling(classes, 'box', scale=8)[1] == new[1]
    with pytest.raises(ValueError, match='test_cfg.scale'):
        with_downsampling(pipeline, 'box')
    with pytest.raises(ValueError, match="'gt'"):
        with_downsampling([LOAD[0], dict(type='Flip', key='gt'), PACK], 'box', scale=8)
    assert with_downsampling(LOAD, 'box', scale=8) == new[:2]  # packed elsewhere
    assert with_downsampling(new, 'box', scale=4)[1]['scale'] == 4
    made = [LOAD[1], dict(type='LRSynthesis', scale=8, made_by='pil')]
    assert with_downsampling(made, 'box') == new[:2]  # Pillow's bicubic is not its box


def test_prefixes_are_joined():
    evaluator = with_prefix([dict(type='PSNR'), dict(type='MAE', prefix='face')], 'box')
    assert [metric['prefix'] for metric in evaluator['metrics']] == ['box', 'box_face']
    for one in (dict(type='Evaluator', metrics=dict(type='PSNR')), dict(type='PSNR')):
        assert with_prefix(one, 'box') == dict(
            type='Evaluator', metrics=[dict(type='PSNR', prefix='box')])
    assert with_prefix(dict(type='PSNR'), 'own', ['PSNR', 'MAE'])['metrics'] == [
        dict(type='PSNR'), dict(type='MAE')]  # once each
    assert with_prefix(dict(type='PSNR'), 'box', [dict(type='PSNR', prefix='more')])[
        'metrics'] == [dict(type='PSNR', prefix='box'), dict(type='PSNR', prefix='box_more')]
    with pytest.raises(InputError, match='expected a prefix for the second PSNR'):
        with_prefix(dict(type='PSNR'), 'box', [dict(type='PSNR', crop_border=2)])


def test_bad_options_are_named(tmp_path):
    for wrong, message in ((dict(cases=[]), 'at least one'),
                           (dict(cases=['box', 'box(antialias)']), 'different'),
                           (dict(cases=['gauss']), 'gauss')):
        with pytest.raises(ValueError, match=message):
            run(tmp_path, f'loop_bad_{message}_{len(wrong["cases"])}', **wrong)


def test_what_is_no_config_is_refused():
    with pytest.raises(ValueError, match='test_evaluator must be a config, got int'):
        with_prefix([3], 'box')
    with pytest.raises(ValueError, match='needs the config of one test_dataloader, got list'):
        DownsamplingTestLoop(None, [dict()], [])
    for wrong in (dict(scale=0), dict(fp16='yes'), dict(cases=3), dict(cases=['gauss'])):
        with pytest.raises(InputError, match=f'^{next(iter(wrong))}: expected'):
            DownsamplingTestLoop(None, {}, [], **wrong)


def test_niqe_gets_the_order_of_mmagics_tensors():
    for name, expected in (('NIQE', dict(type='NIQE', input_order='CHW', prefix='box')),
                           ('SRFID', dict(type='SRFID', prefix='box'))):
        assert with_prefix([dict(type='PSNR')], 'box', [name])['metrics'][1] == expected


def test_niqe_runs_as_documented():
    metric = METRICS.build(dict(type='NIQE', **DEFAULTS['NIQE']))
    metric.size = 1
    image = torch.rand(3, 200, 200, generator=torch.Generator().manual_seed(0)) * 255
    metric.process(None, [dict(output=dict(pred_img=image), gt_img=image)])
    assert metric.evaluate()['NIQE'] > 0


@pytest.mark.parametrize('metrics, message', [
    ('FID', "metrics: .*'FID', which is for unconditional generators; did you mean 'SRFID'"),
    ('MS_SSIM', "'PairedMSSSIM'"), ('PSNRR', "expected a registered metric.*did you mean 'PSNR'"),
    (['SSIM', dict(type='PairedMSSSIM', scale=3)], 'metrics: PairedMSSSIM: .*scale'),
    (dict(type='MAE', mask_key='m'), 'expected a prefix for the second MAE'),
    (3, 'metrics: expected a sequence'), ([None], "metrics: expected a dict with a 'type'")])
def test_metrics_are_refused_before_an_image_is_read(tmp_path, monkeypatch, metrics, message):
    from mmagic.datasets.transforms import LoadImageFromFile
    monkeypatch.setattr(LoadImageFromFile, 'transform', lambda *_: pytest.fail('an image was read'))
    with pytest.raises(InputError, match=message):
        run(tmp_path, f'loop_metric_{str(metrics)[:5]}', metrics=metrics)


def test_metrics_that_the_config_has_already_are_measured_once(tmp_path):
    _, metrics = run(tmp_path, 'loop_twice', cases='own', metrics=['MAE', 'SSIM', 'PairedMSSSIM'])
    assert {'MAE', 'SSIM', 'MS_SSIM'} <= metrics.keys()


def test_an_operator_in_the_pipeline_gives_its_scale():
    pipeline = [LOAD[1], dict(type='LRSynthesis', operator=dict(type='CEM', scale=8)), PACK]
    assert with_downsampling(pipeline, 'box')[1] == dict(
        type='LRSynthesis', scale=8, kernel='box', antialias=True)


def test_loops_of_mmengine_run_mmagics_evaluator(tmp_path):
    """MMagic's SwinIR configs name ValLoop; in MMagic's scope that is MultiValLoop."""
    from mmagic.engine.runner import MultiTestLoop, MultiValLoop
    stub = SimpleNamespace(build_evaluator=lambda evaluator: evaluator)
    loop = LOOPS.build(dict(type='ValLoop', runner=stub, dataloader=[dict],
                            evaluator=[dict(type='PSNR')]))
    assert isinstance(loop, MultiValLoop)
    runner, metrics = run(tmp_path, 'loop_mmengine', type='TestLoop')
    assert isinstance(runner.test_loop, MultiTestLoop) and 'PSNR_LR' in metrics


@pytest.mark.parametrize('name', ['ValLoop', 'TestLoop'])
def test_evaluators_of_mmengine_get_its_loops(name):
    theirs = dict(type='mmengine.Evaluator', metrics=[])
    stub = SimpleNamespace(visualizer=SimpleNamespace(),
                           build_evaluator=lambda evaluator: SimpleNamespace())
    loader = SimpleNamespace(dataset=SimpleNamespace(metainfo={}))
    for evaluator in (theirs, [theirs], Evaluator([])):
        cfg = dict(type=name, runner=stub, dataloader=loader, evaluator=evaluator)
        assert type(LOOPS.build(cfg)) is getattr(mmengine.runner, name)
