"""Settings of a run, looked through before it begins: data, hooks, devices, metrics."""
import logging
import os

import pytest
import torch
from mmagic.models.editors.glean import GLEANStyleGANv2
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper
from refusals import refused

from mmpd.cli import settings
from mmpd.cli import train as train_tool
from mmpd.engine.hooks import NaNHook
from mmpd.evaluation.metrics import LRConsistency


def parse(*argv):
    return train_tool.parse_args([str(part) for part in argv])


def test_a_config_without_hooks(tmp_path):
    (tmp_path / 'a.py').write_text('model = dict()\ndefault_hooks = None\n')
    cfg = settings.load_config(parse(tmp_path / 'a.py', '--work-dir', tmp_path / 'run'))
    assert cfg.work_dir == str(tmp_path / 'run')


@pytest.mark.parametrize('name, meant', [
    ('default_hook', 'default_hooks'), ('load_form', 'load_from'), ('train_config', 'train_cfg'),
    ('val_dataloder', 'val_dataloader'), ('set5_dataloader', None), ('rain100l_evaluator', None),
    ('train_pipeline', None), ('scale', None)])
def test_names_of_a_config_that_mmengine_would_pass_over(tmp_path, monkeypatch, name, meant):
    told = []
    monkeypatch.setattr(settings, 'print_log', lambda text, **_: told.append(text))
    (tmp_path / 'a.py').write_text(f'model = dict()\n{name} = dict(a=1)\n')
    settings.load_config(parse(tmp_path / 'a.py', '--work-dir', tmp_path / 'run'))
    assert told == ([] if meant is None else [
        f"config {tmp_path}/a.py: nothing reads '{name}'; did you mean '{meant}'?"])


def test_configs_that_cannot_be_read(tmp_path):
    path = tmp_path / 'a.py'
    path.write_text("model = dict(type='A', parts=[1])\nlist = [dict(a=1)]\n")
    refused(settings.load_config, parse(path, '--cfg-options', 'list.5.a=2'),
            match='--cfg-options do not fit .*a.py: ')
    path.write_text('model = 1 / 0\n')
    refused(settings.load_config, parse(path), match='config .*a.py: ZeroDivisionError: ')
    path.write_text('model = 3\n')
    refused(settings.load_config, parse(path), match=r'expected model=dict\(type=...\), got 3')


def test_an_empty_data_folder(tmp_path):
    (tmp_path / 'GT').mkdir()
    cfg = Config(dict(train_dataloader=dict(dataset=dict(dataset=dict(
        data_root=str(tmp_path), data_prefix=dict(gt='GT'))))))
    refused(settings.check_data, cfg, 'train', match=(
        r'data folder .*GT is empty \(train_dataloader.dataset.data_prefix.gt\)'))
    (tmp_path / 'GT' / 'a.png').touch()
    settings.check_data(cfg, 'train')


def test_data_that_cannot_or_need_not_be_looked_for(tmp_path):
    def check(*datasets):
        settings.check_data(Config(dict(test_dataloader=[
            None if dataset is None else dict(dataset=dataset) for dataset in datasets])), 'test')

    (tmp_path / 'GT').mkdir()
    (tmp_path / 'GT/a.png').touch()
    there = dict(data_root=str(tmp_path), data_prefix='GT')
    check(None, there, dict(data_root='s3://bucket', data_prefix=dict(gt='GT')),
          dict(data_root='/nowhere', backend_args=dict(backend='petrel')), dict(data_prefix=None),
          dict(data_root=str(tmp_path / 'GT/a.png')),
          dict(there, data_prefix='in a.h5', type=type('Own', (), {})))
    refused(check, there, dict(there, data_prefix='LR'), match=(
        r'no data folder .*LR \(test_dataloader.dataset.data_prefix.\)'))
    refused(check, dict(there, data_root='/nowhere'), match='/nowhere .test_.*.data_root.$')
    refused(check, dict(there, ann_file='list.txt'), match='no annotation file .*list.txt')
    (tmp_path / 'list.txt').touch()
    check(dict(there, ann_file='list.txt'))


def test_the_work_folder_is_where_checkpoints_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.py').write_text(
        "model = dict(type='A')\n"
        "default_hooks = dict(checkpoint=dict(type='CheckpointHook', out_dir='elsewhere'))\n")
    cfg = settings.load_config(parse(tmp_path / 'a.py', '--work-dir', tmp_path / 'run'))
    assert cfg.default_hooks.checkpoint.out_dir is None and (tmp_path / 'run').is_dir()
    cfg = settings.load_config(parse(tmp_path / 'a.py'))
    assert cfg.default_hooks.checkpoint.out_dir == 'elsewhere'
    assert cfg.work_dir == './work_dirs/a' and (tmp_path / 'work_dirs/a').is_dir()


@pytest.mark.parametrize('given, expected', [
    ({}, dict(nan=dict(type='NaNHook'))), (dict(default_hooks=dict(nan=None)), {}),
    (dict(default_hooks=dict(timer=None)), dict(timer=None, nan=dict(type='NaNHook'))),
    (dict(default_hooks=dict(nan=dict(type='NaNHook', on_nan='skip'))),
     dict(nan=dict(type='NaNHook', on_nan='skip'))),
    (dict(custom_hooks=[dict(type='NaNHook', max_skips=3)]), {}),
    (dict(custom_hooks=[dict(type=NaNHook)]), {})])
def test_every_training_is_watched_for_nan_once(given, expected):
    cfg = Config(given)
    settings.add_nan_hook(cfg)
    assert cfg.default_hooks == expected


def test_an_optimiser_that_there_is_not():
    def check(**parts):
        settings.check_optimizers(Config(dict(optim_wrapper=parts)))

    check(optimizer=dict(type='Adam', lr=1)), check(generator=dict(optimizer=dict(type='SGD')))
    check(optimizer=dict(type=torch.optim.Adam))
    for wrong in (dict(optimizer=dict(type='Adamm')),
                  dict(constructor='X', generator=dict(optimizer=dict(type='Adamm')))):
        refused(lambda wrong=wrong: check(**wrong), match=(
            "unknown optimizer type 'Adamm'; did you mean 'Adam"))


@pytest.mark.parametrize('names, message', [
    (['generator', 'discriminator'], None), (['generator'], 'expected one for discriminator too'),
    (['genrator', 'discriminator'], "genrator: expected .*; did you mean 'generator'")])
def test_every_optimizer_has_its_schedule_or_all_one(names, message):
    part, schedule = dict(optimizer=dict(type='Adam')), dict(type='StepLR')
    cfg = Config(dict(optim_wrapper=dict(constructor='X', generator=part, discriminator=part),
                      param_scheduler={name: schedule for name in names}))
    if message:
        refused(settings.check_optimizers, cfg, match=f'^param_scheduler.*{message}')
    else:
        settings.check_optimizers(cfg)


@pytest.mark.parametrize('given, message', [
    (dict(accumulative_counts=2), None),
    (dict(accumulative_counts=2.5), 'accumulative_counts: expected an integer'),
    (dict(accumulative_counts='two'), "accumulative_counts: expected an integer.* got 'two'"),
    (dict(clip_grad=None), None),
    (dict(clip_grad=dict(max_norm=1.5, norm_type=2)), None),
    (dict(clip_grad=dict(max_norm=float('inf'))), None),
    (dict(clip_grad=dict(type='value', clip_value=0.1)), None),
    (dict(clip_grad=dict(max_norm=-1)), 'clip_grad.max_norm: expected a positive number, got -1'),
    (dict(clip_grad=dict(type='value', clip_value=0)), 'clip_grad.clip_value: .*positive.* got 0'),
    (dict(clip_grad=dict(type='norms', max_norm=1)), "clip_grad.type: .*'norms'"),
    (dict(clip_grad=dict(maxnorm=1)), "clip_grad.maxnorm: .* did you mean 'max_norm'"),
    (dict(clip_grad=dict(norm_type=2)), 'clip_grad: expected max_norm'),
    (dict(clip_grad=1), 'clip_grad: expected a dict'),
    (dict(paramwise_cfg=dict(custom_keys=dict(a=dict(lr_mult=2)))), None),
    (dict(constructor='Mine', paramwise_cfg=dict(mine=1)), None),
    (dict(paramwise_cfg=dict(custom_key=1)), "paramwise_cfg.custom_key: .*mean 'custom_keys'")])
def test_what_the_first_update_would_stumble_over_or_turn_round(given, message):
    for prefix, wrapper in (('', given), (r'\.generator', dict(generator=given))):
        cfg = Config(dict(optim_wrapper=wrapper))
        if message:
            refused(settings.check_optimizers, cfg, match=f'^optim_wrapper{prefix}.{message}')
        else:
            settings.check_optimizers(cfg)


def test_gloo_on_cpus_and_no_device_for_the_wrappers(monkeypatch):
    started = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: bool(started))
    monkeypatch.setattr(torch.distributed, 'init_process_group', started.append)
    for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR'):
        monkeypatch.setenv(name, '1')
    cfg = Config(dict(launcher='pytorch', find_unused_parameters=True))
    settings.prepare_distributed(cfg)
    settings.prepare_distributed(cfg)
    assert started == ['gloo'] and cfg.env_cfg.dist_cfg.backend == 'gloo'
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel', broadcast_buffers=False, find_unused_parameters=True,
        device_ids=None)
    cfg = Config(dict(launcher='pytorch', model_wrapper_cfg=dict(type='Own', static_graph=True)))
    settings.prepare_distributed(cfg)
    assert cfg.model_wrapper_cfg == dict(type='Own', static_graph=True, device_ids=None)
    refused(settings.prepare_distributed, Config(dict(launcher='slurm')),
            match='--launcher slurm needs CUDA GPUs')
    monkeypatch.delenv('MASTER_ADDR')
    refused(settings.prepare_distributed, Config(dict(launcher='pytorch')),
            match='expected to be started by torchrun')
    cfg = Config(dict(launcher='none'))
    settings.prepare_distributed(cfg)
    assert 'env_cfg' not in cfg
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    cfg = Config(dict(launcher='slurm'))
    settings.prepare_distributed(cfg)
    assert 'model_wrapper_cfg' not in cfg  # mmengine's own way


def test_figures_as_json_has_them():
    given = dict(a=torch.tensor(2.5), b=[torch.tensor(1), (3, 'x')], c=dict(d=None))
    assert settings.to_plain(given) == dict(a=2.5, b=[1, [3, 'x']], c=dict(d=None))


def test_local_rank_is_there_for_mmengine(tmp_path, monkeypatch):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    (tmp_path / 'a.py').write_text("model = dict(type='A')\n")
    settings.load_config(parse(tmp_path / 'a.py', '--local_rank', '3'))
    assert os.environ['LOCAL_RANK'] == '3'
    monkeypatch.delenv('LOCAL_RANK')


@pytest.mark.parametrize('wrapper, amp, message', [
    (dict(type='AmpOptimWrapper', dtype='float16'), False, 'precision in float16 needs'),
    (dict(generator=dict(type='AmpOptimWrapper', dtype='float16')), False, 'in float16 needs'),
    (dict(type='OptimWrapper', dtype='float16'), True, 'in float16 needs'),
    (dict(type='OptimWrapper', dtype='float16'), False, None),
    (dict(type='AmpOptimWrapper', dtype='bfloat16'), False, None),
    (dict(type='AmpOptimWrapper'), True, None), (None, True, None)])
def test_what_needs_a_gpu(monkeypatch, wrapper, amp, message):
    cfg = Config(dict(optim_wrapper=wrapper, model=dict(generator=dict(), discriminator=None)))
    for present in (False, True):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda present=present: present)
        if message and not present:
            refused(settings.check_gpu, cfg, amp, match=message)
        else:
            settings.check_gpu(cfg, amp)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    for part in ('generator', 'discriminator'):
        refused(settings.check_gpu, Config(dict(model={part: dict(fp16_enabled=True)})),
                match=f'model.{part}.fp16_enabled=True needs a CUDA GPU')


@pytest.mark.parametrize('wrapper', [
    dict(type='OptimWrapper'), dict(type=AmpOptimWrapper),
    dict(generator=dict(type='AmpOptimWrapper'))])
@pytest.mark.parametrize('fp16', [False, True])
@pytest.mark.parametrize('kind', ['GLEANStyleGANv2', GLEANStyleGANv2, 'GLEANNet'])
def test_mixed_precision_that_mmagics_own_glean_does_not_take(monkeypatch, wrapper, fp16, kind):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    cfg = Config(dict(optim_wrapper=wrapper, model=dict(generator=dict(
        type=kind, fp16_enabled=fp16))))
    for amp in (False, True):
        if (amp or wrapper != dict(type='OptimWrapper')) and not fp16 and kind != 'GLEANNet':
            refused(settings.check_gpu, cfg, amp, match='GLEANStyleGANv2.*type=GLEANNet')
        else:
            settings.check_gpu(cfg, amp)


PSNR, OURS = dict(type='PSNR', prefix='face'), dict(type='LRConsistency')


@pytest.mark.parametrize('given, expected', [
    (dict(type='Evaluator', metrics=[PSNR]), ['PSNR', 'LRConsistency']),
    (PSNR, ['PSNR', 'LRConsistency']), ([PSNR], ['PSNR', 'LRConsistency']),
    (dict(metrics=PSNR), ['PSNR', 'LRConsistency']),
    (dict(metrics=[PSNR, OURS]), None), ([OURS], None),
    ([dict(type=LRConsistency)], None), (dict(metrics=[]), ['LRConsistency']),
    ([dict(metrics=[PSNR]), dict(metrics=[OURS])], [['PSNR', 'LRConsistency'], ['LRConsistency']]),
    ([[PSNR], [OURS]], [['PSNR', 'LRConsistency'], ['LRConsistency']]),
    (dict(metrics=None), ['LRConsistency']),
    (None, None)])
@pytest.mark.parametrize('kind', ['PDGLEAN', 'PDModel', 'SRGAN', 'NoSuchModel'])
def test_consistency_is_measured_for_models_with_pd(kind, given, expected):
    cfg = Config(dict(model=dict(type=kind), val_evaluator=given))
    before = cfg.to_dict()
    added = settings.add_consistency(cfg, 'val')
    if expected is None or not kind.startswith('PD'):
        assert added is None and cfg.to_dict() == before
        return
    assert added.startswith('val_evaluator: LRConsistency is measured too')

    def types(value):
        metrics = value['metrics'] if isinstance(value, dict) else value
        return [metric['type'] for metric in metrics]
    several = isinstance(expected[0], list)
    found = cfg.val_evaluator
    assert ([types(one) for one in found] if several else types(found)) == expected
    if not several and given:
        metrics = found['metrics'] if isinstance(found, dict) else found
        wanted = 'face' if len(expected) > 1 else None  # named as the others are
        assert metrics[-1]['prefix'] == wanted
        assert 'type' not in (given if isinstance(given, dict) and 'metrics' in given else {}) or \
            found['type'] == 'Evaluator'


def test_consistency_of_several_data_sets_has_names_of_its_own():
    cfg = Config(dict(model=dict(type='PDGLEAN'), val_evaluator=[
        dict(metrics=[dict(type='PSNR', prefix=name),
                      dict(type='PSNR', convert_to='Y', prefix=f'{name}_Y')])
        for name in ('Set5', 'Set14')]))
    settings.add_consistency(cfg, 'val')
    assert [one['metrics'][-1] for one in cfg.val_evaluator] == [
        dict(type='LRConsistency', prefix=name) for name in ('Set5', 'Set14')]


@pytest.mark.parametrize('given, message', [
    (dict(load_from=5), 'load_from: expected a file or address, got 5'),
    (dict(load_from=''), "load_from: expected a file or address, got ''"),
    (dict(resume='no'), "resume: expected True or False, got 'no'"),
    (dict(log_level='INFOO'), "log_level: expected one of DEBUG, .* got 'INFOO'"),
    (dict(randomness=dict(sed=3)), "randomness.sed: .*did you mean 'seed'"),
    (dict(randomness=dict(seed='a')), "randomness.seed: expected an integer .*got 'a'"),
    (dict(env_cfg='a'), "env_cfg: expected a dict, got 'a'"),
    (dict(env_cfg=dict(cudnn_benchmrk=True)), "env_cfg.*did you mean 'cudnn_benchmark'"),
    (dict(env_cfg=dict(mp_cfg=dict(mp_start_method='frok'))), "expected one of .*got 'frok'"),
    (dict(env_cfg=dict(mp_cfg=dict(opencv_num_threads='x'))), "threads: .* integer .*got 'x'"),
    (dict(env_cfg=dict(mp_cfg=3)), 'env_cfg.mp_cfg: expected a dict, got 3'),
    (dict(env_cfg=3), 'env_cfg: expected a dict, got 3'),
    (dict(env_cfg=dict(cudnn_benchmark='no')), "cudnn_benchmark: expected True or .*got 'no'"),
    (dict(env_cfg=dict(resource_limit='no')), "resource_limit: expected an integer .*got 'no'"),
    (dict(randomness=dict(deterministic='no')), "deterministic: expected True or .*got 'no'"),
    (dict(default_hooks=3), 'default_hooks: expected a dict, got 3'),
    (dict(default_hooks=dict(timer=3)), 'default_hooks.timer: expected a dict with .*got 3'),
    (dict(custom_hooks=3), 'custom_hooks: .*got 3'),
    (dict(custom_hooks=[dict(), 'x']), "custom_hooks: expected a dict with its type, got 'x'")])
def test_settings_of_the_run_that_mmengine_would_take_wrongly(given, message):
    refused(settings._check_runtime, Config(given), match=message)
    settings._check_runtime(Config(dict(
        load_from='a.pth', resume=True, log_level='DEBUG', randomness=dict(seed=3), env_cfg=dict(
            cudnn_benchmark=True, resource_limit=9, mp_cfg=dict(
                mp_start_method='spawn', opencv_num_threads=-1)),
        default_hooks=dict(nan=None, timer=Hook()), custom_hooks=[dict(type='A'), Hook()])))
    settings._check_runtime(Config(dict(env_cfg=None, custom_hooks=[], default_hooks={})))


@pytest.mark.parametrize('given, message', [
    (dict(optim_wrapper=3), 'optim_wrapper: expected a dict, got 3'),
    (dict(train_cfg='x'), "train_cfg: expected a dict, got 'x'"),
    (dict(model=3), 'model: expected a dict, got 3'),
    (dict(model=dict(generator=3)), 'model.generator: expected a dict, got 3'),
    (dict(train_dataloader=3), 'train_dataloader: expected a dict, got 3'),
    (dict(test_dataloader=[dict(), 3]), 'test_dataloader: expected a dict, got 3'),
    (dict(train_dataloader=dict(dataset=3)), 'train_dataloader.dataset: expected a dict, got 3'),
    (dict(val_dataloader=dict(sampler='x')), "val_dataloader.sampler: expected a dict, got 'x'"),
    (dict(val_evaluator=3), 'val_evaluator: expected a dict, got 3'),
    (dict(test_evaluator=[dict(type='PSNR'), 3]), 'test_evaluator: expected a dict, got 3')])
def test_sections_that_are_no_dicts(tmp_path, given, message):
    refused(settings._check_sections, Config({'model': {}, **given}), match=message)
    settings._check_sections(Config(dict(
        model=dict(discriminator=None), val_cfg=None, optim_wrapper=None, val_dataloader=[],
        train_dataloader=dict(dataset={}, sampler=None), test_evaluator=[{}, {}],
        val_evaluator=[[{}], [{}, {}]])))
    (tmp_path / 'a.py').write_text('model, loader = dict(), 3\ntrain_dataloader = loader\n')
    refused(settings.load_config, parse(tmp_path / 'a.py'), match='train_dataloader: expected a d')


@pytest.mark.parametrize('given, message', [
    (dict(data_root=3), 'dataset.data_root: expected a path or address, got 3'),
    (dict(data_prefix=['GT']), r"dataset.data_prefix: expected a dict, got \['GT'\]"),
    (dict(ann_file=3), 'dataset.ann_file: expected a path or address, got 3')])
def test_data_of_another_kind(given, message):
    refused(settings.check_data, Config(dict(val_dataloader=[dict(dataset=given)])), 'val',
            match=message)


@pytest.mark.parametrize('level', [*logging._nameToLevel, 15])
def test_every_level_that_logging_knows_is_one(level):
    settings._check_runtime(Config(dict(log_level=level)))


def test_the_configs_of_mmpd_are_known_wherever_one_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert 'pd_glean_x8_1xb4-100k_ffhq.py' in settings.known_configs()


def test_names_of_sections_that_are_nearly_right():
    cfg = Config(dict(model=dict(), train_cfg=dict(max_iters=3)))
    settings._check_names(cfg, {'model.x': 1, 'quite_another': 1})
    refused(settings._check_names, cfg, {'train_cgf.max_iters': 1},
            match="has no 'train_cgf'; did you mean 'train_cfg'")
    refused(settings.check_parts, Config(dict(train_cgf=1, model=1)), 'a.py', 'model', 'train_cfg',
            match="config a.py: expected train_cfg, got none; did you mean 'train_cgf'")
