"""What the commands do before and beside the work, part by part: options, processes, advice."""
import errno
import os
import random
import subprocess
import sys
import threading
from argparse import ArgumentTypeError
from concurrent.futures.process import BrokenProcessPool
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config

from mmpd.cli import (
    building,
    commands,
    consistent_files,
    consistent_pairs,
    converter,
    identify,
    infer,
    make_consistent,
    model_converter,
    processes,
    run_tool,
    settings,
    weights,
)
from mmpd.cli import export as export_tool
from mmpd.cli import test as test_tool
from mmpd.cli import train as train_tool
from mmpd.cli import web as web_tool
from mmpd.cli.processes import Processes, open_pool
from mmpd.errors import InputError
from mmpd.postprocess.candidate import Candidate
from mmpd.utils.rasters import Raster
from mmpd.web.limits import Limits


def refused(call, *args, match):
    with pytest.raises(InputError, match=match) as caught:
        call(*args)
    assert '\n' not in str(caught.value)


# mmpd-train

def test_amp_goes_to_every_optimiser():
    optimizer = dict(type='Adam', lr=1e-3)
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper', optimizer=optimizer)))
    train_tool.enable_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper' and cfg.optim_wrapper.loss_scale == 'dynamic'
    cfg = Config(dict(optim_wrapper=dict(
        constructor='MultiOptimWrapperConstructor', generator=dict(optimizer=optimizer),
        discriminator=dict(type='AmpOptimWrapper', loss_scale=512., optimizer=optimizer))))
    train_tool.enable_amp(cfg)
    assert {cfg.optim_wrapper[part].type for part in ('generator', 'discriminator')} == {
        'AmpOptimWrapper'}
    assert cfg.optim_wrapper.generator.loss_scale == 'dynamic'
    assert cfg.optim_wrapper.discriminator.loss_scale == 512
    assert cfg.optim_wrapper.constructor == 'MultiOptimWrapperConstructor'
    cfg = Config(dict(optim_wrapper=dict(type='ApexOptimWrapper', optimizer=optimizer)))
    refused(train_tool.enable_amp, cfg, match='--amp works with OptimWrapper only, .* ApexOptim')


def test_the_learning_rate_follows_the_batch_size_where_there_is_one():
    cfg = Config(dict(auto_scale_lr=dict(base_batch_size=8)))
    train_tool.enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr == dict(base_batch_size=8, enable=True)
    for wrong in ({}, dict(auto_scale_lr=None), dict(auto_scale_lr=dict(enable=True))):
        refused(train_tool.enable_auto_scale_lr, Config(wrong), match='--auto-scale-lr needs')


def test_where_there_is_nothing_to_resume_the_run_starts_anew(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path)))
    assert train_tool.resume(cfg, 'auto') == (None, None)
    assert 'resume' not in cfg and 'load_from' not in cfg


def test_where_no_checkpoint_is_sound_the_newest_is_named(tmp_path):
    for index in (1, 2):
        (tmp_path / f'iter_{index}.pth').write_bytes(b'damaged')
    (tmp_path / 'last_checkpoint').write_text('iter_2.pth')
    refused(train_tool.resume, Config(dict(work_dir=str(tmp_path))), 'auto', match='iter_2.pth')


# configs

def parse(*argv):
    return train_tool.parse_args([str(part) for part in argv])


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
          dict(data_root='/nowhere', backend_args=dict(backend='petrel')), dict(data_prefix=None))
    refused(check, there, dict(there, data_prefix='LR'), match=(
        r'no data folder .*LR \(test_dataloader.dataset.data_prefix.\)'))
    refused(check, dict(there, data_root='/nowhere'), match='/nowhere .test_.*.data_root.$')
    refused(check, dict(there, ann_file='list.txt'), match='no annotation file .*list.txt')
    (tmp_path / 'list.txt').touch()
    check(dict(there, ann_file='list.txt'))


def test_the_first_file_that_is_not_there_is_named(tmp_path):
    (tmp_path / 'face_1.png').touch()

    class Images(list):
        def get_data_info(self, index):
            return dict(gt_path=str(tmp_path / self[index]), key=index, img_path='s3://x',
                        shape_path=3)

    def check(dataset, **more):
        settings.check_pairs(SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset), **more),
                             'val')

    check(Images(['face_1.png']))
    repeated = SimpleNamespace(dataset=Images(['face_1.png', 'face_2.png']))
    refused(check, repeated, match=(r"val_dataloader: no file .*face_2.png \(gt_path of the image 1"
                                    r"\); did you mean 'face_1.png'"))
    remote = Images(['face_2.png'])
    remote.backend_args = dict(backend='petrel')
    check(remote), check([1, 2])  # a data set of another kind
    with pytest.raises(InputError, match='face_2.png'):  # of several loaders one
        check(Images(), dataloaders=[SimpleNamespace(dataset=Images()),
                                     SimpleNamespace(dataset=repeated)])


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
    (dict(custom_hooks=[dict(type='NaNHook', max_skips=3)]), {})])
def test_every_training_is_watched_for_nan_once(given, expected):
    cfg = Config(given)
    settings.add_nan_hook(cfg)
    assert cfg.default_hooks == expected


def test_arguments_that_the_checkpoint_hook_would_stumble_over():
    from mmengine.hooks import CheckpointHook
    from mmengine.runner import Runner

    def check(**options):
        hooks = [object(), CheckpointHook(**{'interval': 5, **options})]
        settings.check_hooks(SimpleNamespace(hooks=hooks, save_checkpoint=Runner.save_checkpoint))

    check(), check(save_begin=3), check(save_optimizer=False, file_client_args=None)
    refused(lambda: check(intervall=5), match=(
        "CheckpointHook.intervall: CheckpointHook has no such argument; did you mean 'interval'"))


def test_an_optimiser_that_there_is_not():
    def check(**parts):
        settings.check_optimizers(Config(dict(optim_wrapper=parts)))

    check(optimizer=dict(type='Adam', lr=1)), check(generator=dict(optimizer=dict(type='SGD')))
    check(optimizer=dict(type=torch.optim.Adam))
    for wrong in (dict(optimizer=dict(type='Adamm')),
                  dict(constructor='X', generator=dict(optimizer=dict(type='Adamm')))):
        refused(lambda wrong=wrong: check(**wrong), match=(
            "unknown optimizer type 'Adamm'; did you mean 'Adam"))


def test_a_type_that_is_missing_is_shown_with_its_config():
    from mmagic.registry import MODELS
    with pytest.raises(InputError, match=r"config a.py: a type is missing in \{'scale': 3\}"), \
            building.config_errors('a.py'):
        MODELS.build(dict(scale=3))
    with pytest.raises(InputError, match='config a.py: PDHead: .*operator'), \
            building.config_errors('a.py'):
        MODELS.build(dict(type='PDHead', operator=3))
    with pytest.raises(InputError, match='a.py: GANLoss: expected the arguments .*gan_type'), \
            building.config_errors('a.py'):
        MODELS.build(dict(type='GANLoss'))
    with pytest.raises(KeyError), building.config_errors('a.py'):  # of the code, not of a config
        raise KeyError('"type"')


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


# checkpoints

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


def test_converted_weights_are_those_of_the_network(tmp_path, capsys):
    cfg = dict(type='MSRResNet', in_channels=3, out_channels=3, mid_channels=4, num_blocks=1,
               upscale_factor=2)
    from mmagic.registry import MODELS
    state = MODELS.build(cfg).state_dict()
    theirs = {f'net.{key}': value for key, value in state.items()}
    found = model_converter.rename(theirs, [(r'^net\.', ''), (r'never', 'x')])
    model_converter.check(found, cfg)
    key = next(iter(state))
    wrong = {**found, key: torch.ones(1), 'extra': torch.ones(1)}
    del wrong['conv_last.weight']
    refused(model_converter.check, wrong, cfg, match=(
        '3 tensors do not fit MSRResNet: "conv_last.weight" is missing; "extra" is unknown; '
        f'"{key}" ' r'is \(1,\), expected \(4, 3, 3, 3\)'))
    refused(model_converter.check, found, dict(cfg, upscale_factor=5), match='no such MSRResNet')
    target = tmp_path / 'out.pth'
    model_converter.write(found, cfg, Path('folder/theirs.pth'), target)
    saved = torch.load(target)
    assert torch.equal(saved['state_dict'][key], state[key])
    assert saved['meta']['converted_from'] == 'theirs.pth'
    assert f'{target}: {len(state)} tensors for ' in capsys.readouterr().out


# commands and processes

@pytest.mark.parametrize('name', commands.__all__)
def test_each_command_starts_its_own_module(monkeypatch, name):
    started = []
    monkeypatch.setattr(commands, 'import_module', lambda module, package: SimpleNamespace(
        main=lambda: started.append((module, package)) or 5))
    assert getattr(commands, name)() == 5 and started == [(f'.{name}', 'mmpd.cli')]


@pytest.mark.parametrize('missing, installed, raises', [
    ('mmengine', False, False), ('mmengine', True, True), ('mmpd.cli.x', False, True),
    (None, False, True)])
def test_a_package_that_is_missing_is_named_where_mmagic_is_not_installed(
        monkeypatch, capsys, missing, installed, raises):
    def absent(*args):
        raise ModuleNotFoundError('no', name=missing)

    monkeypatch.setattr(commands, 'import_module', absent)
    monkeypatch.setattr(commands, 'find_spec', lambda name: installed or None)
    if raises:
        with pytest.raises(ModuleNotFoundError):
            commands.make_consistent()
    else:
        assert commands.make_consistent() == 2
        said = capsys.readouterr().err
        assert said.startswith('mmpd-make-consistent needs mmengine, which is not installed: pip')


def test_one_worker_is_this_process_with_one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with open_pool(1) as run:
            found = list(run(lambda a, b: (a + b, torch.get_num_threads(), threading.get_ident()),
                             [(1, 2), (3, 4)]))
        assert found == [(3, 1, threading.get_ident()), (7, 1, threading.get_ident())]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize('launcher, names', [
    ('pytorch', ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')),
    ('slurm', ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'))])
def test_what_launchers_say_of_a_process(monkeypatch, launcher, names):
    for name in names:
        monkeypatch.delenv(name, raising=False)
    refused(Processes, launcher, match=f'--launcher {launcher}: expected {names[0]}')
    for name, value in zip(names, ('5', '8', '1'), strict=True):
        monkeypatch.setenv(name, value)
    found = Processes(launcher)
    assert (found.rank, found.world_size, found.local_rank, found.first) == (5, 8, 1, False)
    monkeypatch.setenv(names[1], 'eight')
    refused(Processes, launcher, match='as (torchrun|srun) sets them .*eight')


def test_a_process_alone_waits_for_nobody():
    alone = Processes('none')
    assert alone.connect() is None and alone.gather('x') == ['x'] and alone.close() is None
    assert alone.first and (alone.rank, alone.world_size, alone.local_rank) == (0, 1, 0)


def test_slurms_first_host_is_where_they_meet(monkeypatch):
    for name, value in (('SLURM_PROCID', '0'), ('SLURM_NTASKS', '2'), ('SLURM_LOCALID', '0'),
                        ('SLURM_STEP_NODELIST', 'node[3-4]')):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv('MASTER_ADDR', raising=False)
    monkeypatch.setenv('MASTER_PORT', '1234')
    asked, joined = [], []

    def run(command, **kwargs):
        asked.append(command)
        return SimpleNamespace(stdout='node3\nnode4\n')

    monkeypatch.setattr(subprocess, 'run', run)
    monkeypatch.setattr(torch.distributed, 'init_process_group',
                        lambda *args, **kwargs: joined.append((*args, kwargs['rank'],
                                                               kwargs['world_size'])))
    Processes('slurm').connect()
    assert asked == [['scontrol', 'show', 'hostnames', 'node[3-4]']]
    monkeypatch.setenv('MASTER_ADDR', 'head')
    Processes('slurm').connect()
    assert joined == [('gloo', 'tcp://node3:1234', 0, 2), ('gloo', 'tcp://head:1234', 0, 2)]
    monkeypatch.delenv('MASTER_ADDR')
    monkeypatch.setattr(subprocess, 'run', lambda *args, **kwargs: SimpleNamespace(stdout=''))
    refused(Processes('slurm').connect, match=r"the first host of 'node\[3-4\]' is not known")


# mmpd-infer, mmpd-test, mmpd-web

def infer_args(**changes):
    return SimpleNamespace(**{**dict(
        batch_size=1, workers=None, tile=None, tile_overlap=0, strength=None, quantize=None,
        suffix='', alias=False, border='library', operator=None, made_by=None), **changes})


@pytest.mark.parametrize('changes, match', [
    (dict(batch_size=0), '--batch-size: expected at least 1, got 0'),
    (dict(workers=0), '--workers: expected at least 1, got 0'),
    (dict(tile=0), '--tile: expected at least 1, got 0'),
    (dict(tile_overlap=-1), '--tile-overlap: expected at least 0, got -1'),
    (dict(strength=1.5), '--strength: expected a number from 0 to 1, got 1.5'),
    (dict(strength=-0.5), '--strength: expected a number from 0 to 1, got -0.5'),
    (dict(strength=0.5, quantize='consistent'), '--quantize consistent would undo --strength 0.5'),
    (dict(suffix='a/b'), '--suffix: expected part of a file name, got a/b'),
    (dict(suffix='a\\b'), '--suffix: expected part of a file name'),
    (dict(alias=True), '--alias: belongs to --operator'),
    (dict(border='mirror', operator='average_pooling'), '--border: belongs to --operator bic')])
def test_numbers_that_infer_refuses(changes, match):
    refused(infer.check_numbers, infer_args(**changes), match=match)


def test_numbers_that_infer_takes():
    for changes in ({}, dict(workers=1, tile=1, strength=0.), dict(strength=0.5),
                    dict(strength=1., quantize='consistent'),
                    dict(alias=True, border='mirror', operator='bicubic')):
        infer.check_numbers(infer_args(**changes))


@pytest.mark.parametrize('changes, expected', [
    ({}, None), (dict(operator='average_pooling'), dict(type='AveragePooling', scale=None)),
    (dict(operator='bicubic'), dict(kernel='bicubic', antialias=True, border='library')),
    (dict(operator='bicubic', alias=True), dict(antialias=False)),
    (dict(operator='lanczos', made_by='opencv'), dict(kernel='lanczos', antialias=False)),
    (dict(operator='box', made_by='opencv'), dict(kernel='box', antialias=True)),
    (dict(operator='bicubic', made_by='matlab'), dict(antialias=True, border='mirror')),
    (dict(operator='bicubic', border='mirror'), dict(border='mirror'))])
def test_the_operator_that_options_name(changes, expected):
    found = infer.operator_config(infer_args(**changes))
    assert found is None if expected is None else expected.items() <= found.items()


def test_names_of_one_output_file():
    def check(out, count=1, suffix='', ext=None):
        infer.check_file_name(SimpleNamespace(out=Path(out), suffix=suffix, ext=ext), count)

    check('a.png'), check('a.png', ext='png'), check('a.PNG')
    refused(check, 'a.png', 2, match='expected a folder for 2 images')
    refused(check, 'a.jpg', match='jpg would not keep the pixels; expected .*png')
    refused(check, 'a.png', 1, '_sr', match='names the file already')
    refused(check, 'a.png', 1, '', 'webp', match='names the file already')


def test_a_csv_of_others_is_not_replaced(tmp_path):
    path = tmp_path / 'a.csv'

    def check(overwrite=False):
        infer.check_csv(SimpleNamespace(csv=path, overwrite=overwrite))

    check()
    path.write_text('year,sales\n')
    refused(check, match='a.csv: exists, and is not of mmpd-infer')
    check(overwrite=True)
    path.write_text(','.join(infer.COLUMNS) + '\n')
    check()


def test_devices_of_several_processes(monkeypatch):
    def device(name=None, rank=0, size=1, count=2):
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: count)
        return infer.check_device(SimpleNamespace(device=name),
                                  SimpleNamespace(local_rank=rank, world_size=size))

    assert device() is None and device(size=4, count=0) is None and device('cpu') == 'cpu'
    assert [device(rank=rank, size=4) for rank in range(3)] == ['cuda:0', 'cuda:1', 'cuda:0']
    refused(device, 'gpu', match='--device gpu: ')


def test_folders_that_cannot_be_written_to(tmp_path):
    infer.check_writable([tmp_path / 'new' / 'deeper'])
    assert not (tmp_path / 'new').exists()
    (tmp_path / 'file').touch()
    refused(infer.check_writable, [tmp_path / 'file' / 'x'], match='file is not a folder')
    refused(infer.check_writable, [Path('/proc/nowhere')], match='/proc cannot be written to')


@pytest.mark.parametrize('out', ['a.csv', 'folder.json'])
def test_results_of_a_test_are_json_files(tmp_path, out):
    (tmp_path / 'folder.json').mkdir()
    refused(test_tool.check_out, str(tmp_path / out), match='a file name that ends in .json')


@pytest.mark.parametrize('argv, match', [
    (['--port', '65536'], '--port: expected 0 to 65535, got 65536'),
    (['--port', '-1'], '--port: expected 0 to 65535, got -1')])
def test_ports_of_the_page(argv, match):
    refused(web_tool._main, argv, match=match)


def test_limits_of_the_page_are_options(monkeypatch):
    served = []
    monkeypatch.setitem(sys.modules, 'mmpd.web.server', SimpleNamespace(
        serve=lambda *args: served.append(args)))
    monkeypatch.setattr(web_tool, 'find_models', lambda names, folder: (names, folder))
    web_tool._main(['--port', '65535', '--upload-mb', '0.5', '--host', '::1', '--zoo'])
    web_tool._main(['--models', 'here', '--queue', '3'])
    (models, limits, host, port), usual = served
    assert (models, limits.upload_bytes, host, port) == (([], None), 500_000, '::1', 65535)
    assert usual == ((None, Path('here')), Limits(queue=3), '127.0.0.1', 7860)


def test_local_rank_is_there_for_mmengine(tmp_path, monkeypatch):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    (tmp_path / 'a.py').write_text("model = dict(type='A')\n")
    settings.load_config(parse(tmp_path / 'a.py', '--local_rank', '3'))
    assert os.environ['LOCAL_RANK'] == '3'
    monkeypatch.delenv('LOCAL_RANK')


# all commands

def raising(error):
    def tool(argv):
        raise error
    return tool


@pytest.mark.parametrize('error, code, said', [
    (InputError('expected\n  a file'), 2, 'mmpd-x: expected a file'),
    (OSError(errno.ENOSPC, 'No space left'), 2, 'mmpd-x: '),
    (KeyboardInterrupt(), 130, 'mmpd-x: interrupted')])
def test_how_commands_end(error, code, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['/usr/bin/mmpd-x'])
    with pytest.raises(SystemExit) as ended:
        run_tool(raising(error), [])
    assert ended.value.code == code
    err = capsys.readouterr().err
    assert err.startswith(said) and err.count('\n') == 1


def test_what_commands_return_and_what_is_a_fault_of_the_code():
    assert run_tool(lambda argv: None) == 0 == run_tool(lambda argv: 0)
    assert run_tool(lambda argv: len(argv), ['a', 'b']) == 2
    for error in (OSError(errno.EACCES, 'denied'), ValueError('x')):
        with pytest.raises(type(error)):
            run_tool(raising(error))


@pytest.mark.parametrize('module, name', [
    (train_tool, 'train'), (test_tool, 'test'), (infer, 'infer'), (identify, '_main'),
    (make_consistent, 'make_consistent'), (export_tool, 'export'), (web_tool, '_main')])
def test_what_a_command_returns_is_its_exit_code(monkeypatch, module, name):
    monkeypatch.setattr(module, name, lambda argv: argv[0])
    assert module.main([3]) == 3


@pytest.mark.parametrize('module, given, missing', [
    (export_tool, ['m'], '--out'), (infer, ['m', '-o', 'x'], '-i/--input'),
    (infer, ['m', '-i', 'x'], '-o/--out'), (identify, ['--gt', 'x'], '--lr'),
    (identify, ['--lr', 'x'], '--gt --sr'), (make_consistent, ['--lr', 'x', '--sr', 'x'], '--out'),
    (make_consistent, ['--lr', 'x', '--out', 'x'], '--sr'),
    (make_consistent, ['--sr', 'x', '--out', 'x'], '--lr')])
def test_options_that_have_to_be_given(module, given, missing, capsys):
    with pytest.raises(SystemExit) as ended:
        module.main(given)
    assert ended.value.code == 2
    assert missing in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize('module, first, then', [
    (infer, 'Super-resolve a folder of LR images', 'MODEL is a config file (with CHECKPOINT)'),
    (web_tool, 'A web page that makes pictures', 'Serves the page on this machine alone'),
    (make_consistent, 'Exact colour fix', 'A "colour shift" of super-resolution'),
    (identify, 'Which A made these LR images?', '--no-kernel'), (train_tool, 'Train a model', ''),
    (test_tool, 'Test a model', '--panels'), (export_tool, 'Export a restorer', '--opset')])
def test_help(module, first, then, capsys):
    with pytest.raises(SystemExit) as ended:
        module.parse_args(['--help'])
    text = ' '.join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and first in text and then in text[text.index(first):]


def test_usual_options():
    """What the commands do where nothing is said."""
    args = infer.parse_args(['m', '-i', 'x', '-o', 'y'])
    assert (args.batch_size, args.workers, args.tile_overlap) == (1, 2, 16)
    assert not (args.recursive or args.overwrite or args.compare or args.alias)
    args = identify.parse_args(['--lr', 'x', '--gt', 'y'])
    assert args.pairs == 20 and not (args.no_kernel or args.overwrite)
    assert identify.parse_args(['--lr', 'x', '--sr', 'y', '--pairs', '0']).pairs == 0
    args = web_tool.parse_args([])
    assert (args.host, args.port, args.zoo, args.models) == ('127.0.0.1', 7860, None, None)
    args = train_tool.parse_args(['a.py'])
    assert (args.resume, args.amp, args.auto_scale_lr, args.local_rank) == (None, False, False, 0)
    assert train_tool.parse_args(['a.py', '--resume']).resume == 'auto'
    args = export_tool.parse_args(['m', '--out', 'x'])
    assert args.opset == 18 and not (args.dynamic or args.overwrite)


def test_infer_that_is_interrupted_before_it_began(monkeypatch, capsys):
    monkeypatch.setattr(infer, 'run_tool', raising(KeyboardInterrupt()))
    monkeypatch.setattr(infer, 'run_tool', lambda *args: raising(KeyboardInterrupt())(args))
    assert infer.main([]) == 130
    assert capsys.readouterr().err == 'interrupted: nothing was written\n'


def distributed(monkeypatch, launcher, names, address, port):
    for name, value in zip(names, '130', strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('MASTER_ADDR', address)
    monkeypatch.delenv('MASTER_PORT', raising=False)
    if port:
        monkeypatch.setenv('MASTER_PORT', port)
    return Processes(launcher)


@pytest.mark.parametrize('launcher, names, port, method', [
    ('slurm', ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'), None, 'tcp://head:29500'),
    ('slurm', ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'), '7', 'tcp://head:7'),
    ('pytorch', ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'), '7', 'env://')])
def test_processes_meet_tell_and_part(monkeypatch, launcher, names, port, method):
    met, parted = [], []
    monkeypatch.setattr(torch.distributed, 'init_process_group',
                        lambda *args, **kwargs: met.append((args, kwargs)))
    monkeypatch.setattr(torch.distributed, 'all_gather_object', lambda values, value: (
        values.__setitem__(slice(None), [value + rank for rank in range(len(values))])))
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: bool(met))
    monkeypatch.setattr(torch.distributed, 'destroy_process_group', lambda: parted.append(1))
    group = distributed(monkeypatch, launcher, names, 'head', port)
    group.close()
    assert not parted  # they did not meet
    group.connect()
    (args, kwargs), = met
    assert args == ('gloo', method) and (kwargs['rank'], kwargs['world_size']) == (1, 3)
    assert kwargs['timeout'] > timedelta(days=1)  # one may have much more to do than another
    assert group.gather(5) == [5, 6, 7]
    group.close()
    assert parted == [1]


def test_a_pool_has_processes_of_one_thread_and_leaves_no_job_behind(monkeypatch):
    noted = []

    class Pool:
        def __init__(self, workers, context, initializer, arguments):
            noted.append((workers, context.get_start_method(), initializer, arguments))

        def map(self, function, *arguments):
            return map(function, *arguments)

        def shutdown(self, **options):
            noted.append(options)
    monkeypatch.setattr(processes, 'ProcessPoolExecutor', Pool)
    with open_pool(3) as run:
        assert list(run(pow, [(2, 3), (3, 2), (5, 1)])) == [8, 9, 5]
        with pytest.raises(ValueError, match='zip'):
            run(pow, [(1, 2), (3, )])
        assert noted == [(3, 'spawn', torch.set_num_threads, (1, ))]
    assert noted[1:] == [dict(cancel_futures=True)]


# converters

@pytest.mark.parametrize('text, wanted', [('1/1', (1, 1)), ('2/16', (2, 16))])
def test_shards(text, wanted):
    assert converter.parse_shard(text) == wanted


@pytest.mark.parametrize('text', ['0/3', '4/3', '1', '1/2/3', 'a/2', '1/', '-1/2', '²/3'])
def test_what_is_no_shard(text):
    with pytest.raises(ArgumentTypeError, match='expected I/N with 1 <= I <= N'):
        converter.parse_shard(text)


def convert(monkeypatch, result, *argv):
    """Exit code of a converter of which ``prepare`` returns or raises ``result``."""
    calls = []

    def prepare(*args, **kwargs):
        calls.append((args, kwargs))
        if isinstance(result, BaseException):
            raise result
        return result
    monkeypatch.setattr(converter, 'prepare', prepare)
    monkeypatch.setattr(converter, 'open_source', lambda path: f'opened {path}')
    return converter.main(['SOURCE', *argv], 'What it does', 'OUT', 64, 5), calls


MANIFEST = dict(images=7, train=4, test=3, bad=0, converted={})


def test_what_a_converter_hands_on(monkeypatch, capsys):
    code, calls = convert(monkeypatch, MANIFEST)
    assert code == 0
    (args, kwargs), = calls
    assert args[:2] == ('opened SOURCE', 'OUT') and args[3:] == (None, None, 5)
    recipe = args[2]
    assert (recipe.size, list(recipe.scales), recipe.kernel, recipe.antialias) == (
        64, [], 'bicubic', True)
    assert kwargs == dict(progress=False, shard=None)  # stderr is no terminal
    assert capsys.readouterr().out.startswith('7 images in OUT (4 train, 3 test), ')
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True, raising=False)
    for quiet, progress in (([], True), (['--quiet'], False)):
        assert convert(monkeypatch, MANIFEST, *quiet)[1][0][1]['progress'] is progress


@pytest.mark.parametrize('result, code, out, err', [
    (dict(MANIFEST, bad=2, converted={'turned': 3}), 1, '3 images: turned (docs/images.md)',
     '2 images are corrupt or undersized: see OUT/report.txt'),
    (dict(images=5, bad=0, missing=9), 0, 'shard 2/3: 5 images, 0 of them bad, ', ''),
    (dict(images=5, bad=1, missing=9), 1, '9 of other shards are missing in OUT', ''),
    (ValueError('no images'), 2, '', 'error: no images'),
    (OSError('disk full'), 2, '', 'error: disk full'),
    (BrokenProcessPool('at x.png'), 2, '', 'a worker process was killed at x.png (out of memory?)'),
    (KeyboardInterrupt(), 130, '', 'interrupted: run the same command again to continue')])
def test_how_a_converter_ends(monkeypatch, capsys, result, code, out, err):
    assert convert(monkeypatch, result, '--shard', '2/3')[0] == code
    said = capsys.readouterr()
    assert out in said.out and err in said.err and bool(err) == bool(said.err)


@pytest.mark.parametrize('name, least', [('limit', 1), ('workers', 1), ('test-count', -1)])
def test_numbers_of_converters(monkeypatch, capsys, name, least):
    assert convert(monkeypatch, MANIFEST, f'--{name}', str(least))[0] == 0
    with pytest.raises(SystemExit):
        convert(monkeypatch, MANIFEST, f'--{name}={least - 1}')
    assert f'--{name} must be at least {least}, got {least - 1}' in capsys.readouterr().err


# mmpd-identify

@pytest.mark.parametrize('lr, hr, hint', [
    (['a', 'b'], ['a_sr', 'b_sr'], '; did you mean --hr-suffix=_sr?'),
    (['ax4', 'bx4'], ['a', 'b'], '; did you mean --lr-suffix=x4?'),
    (['a', 'b'], ['a_sr', 'b_hr'], ''), (['ax4', 'bx2'], ['a', 'b'], ''),
    (['a', 'b'], ['a_sr', 'a_x', 'b_x'], '; did you mean --hr-suffix=_x?')])
def test_suffixes_that_would_make_names_fit(lr, hr, hint):
    assert identify._suffix_hint(dict.fromkeys(lr), dict.fromkeys(hr)) == hint


@pytest.fixture
def folders(tmp_path):
    from PIL import Image
    for name, stems in (('lr', 'abcdefg'), ('gt', 'abcdefgh')):
        (tmp_path / name).mkdir()
        for stem in stems:
            Image.new('L', (2, 2)).save(tmp_path / name / f'{stem}.png')
    return tmp_path


def identify_args(folder, **changes):
    return SimpleNamespace(**{**dict(lr=folder / 'lr', gt=folder / 'gt', sr=None, lr_suffix='',
                                     hr_suffix='', pairs=20), **changes})


@pytest.mark.parametrize('pairs, stems', [
    (0, 'abcdefg'), (20, 'abcdefg'), (7, 'abcdefg'), (6, 'abcdef'), (3, 'ace'), (1, 'a')])
def test_pairs_are_spread_over_the_names(folders, pairs, stems):
    found, total = identify.find_pairs(identify_args(folders, pairs=pairs))
    assert ''.join(stem for stem, *_ in found) == stems and total == 7
    assert found[0][1:] == (folders / 'lr' / 'a.png', folders / 'gt' / 'a.png')


def test_three_of_the_missing_are_named(folders):
    for left, names in ((3, r'\(a, b, c\)'), (4, r'\(a, b, c …\)')):
        for stem in 'abcd'[:left]:
            (folders / 'gt' / f'{stem}.png').unlink(missing_ok=True)
        refused(identify.find_pairs, identify_args(folders), match=f'for {left} {names}')
    from PIL import Image
    Image.new('L', (2, 2)).save(folders / 'lr' / 'a.bmp')
    refused(identify.find_pairs, identify_args(folders), match="one file for 'a', got a.bmp and a")
    refused(identify.find_pairs, identify_args(folders, lr_suffix='x'),
            match="a.bmp: expected a stem that ends in 'x'")


def candidate(kernel='bicubic', antialias=True, border='library', made_by='pil', error=0., count=8):
    cfg = dict(type='SeparableResize', scale=4, kernel=kernel, antialias=antialias, border=border)
    return Candidate(cfg, made_by, [error], [count], [0], count // 2)


def test_the_table_has_its_columns_in_line():
    lines = identify._table([candidate(), *[candidate('lanczos', error=8. * rank)
                                            for rank in range(1, 15)]], 'A(GT)').splitlines()
    assert len(lines) == 13 and lines[0].split()[-3:] == ['equal', 'LR', 'values']
    assert lines[1].split() == ['1', 'bicubic', '(antialias)', 'pil', 'exact', '50.00%']
    assert lines[12].split()[0] == '12' and lines[2].split()[-2] == '48.13'
    assert len({len(line) for line in lines}) == 1 and all(line == line.rstrip() for line in lines)
    assert lines[1].index('pil') == lines[2].index('pil') == lines[0].index('made by')


VERDICT = SimpleNamespace(noise_std=None, kind='exact')


@pytest.mark.parametrize('best, verdict, expected, absent', [
    (candidate(), VERDICT, ['--operator bicubic --made-by pil --lr', "made_by='pil')",
                            'strength 1, the default'], ['--alias', '--border', '--noise-std']),
    (candidate(antialias=False, made_by='float'), VERDICT,  # as LRSynthesis makes it by itself
     ['--operator bicubic --alias --made-by float', 'antialias=False'], ['--border', 'made_by=']),
    (candidate(border='mirror', made_by='matlab'), VERDICT,
     ['--border mirror --made-by matlab', "border='mirror', made_by='matlab')"], ['--alias']),
    (candidate(), SimpleNamespace(noise_std=2.345, kind='noisy'),
     ['--noise-std 2.3 --lr', ', noise_std=2.3)', '1 - (2.3 / e)²'], ['strength 1, the']),
    (candidate(), SimpleNamespace(noise_std=None, kind='bound'), ['LRSynthesis'],
     ['strength 1', 'noise'])])
def test_advice(best, verdict, expected, absent):
    text = '\n'.join(identify._advice(best, verdict))
    assert all(part in text for part in expected), text
    assert not any(part in text for part in absent), text


@pytest.mark.parametrize('jpegs, psnr, grid, said', [
    (2, 30., None, '2 of 3 LR files are JPEG files'), (0, float('inf'), (0, 0), False),
    (0, 30., None, False), (0, 30., (0, 0), '8x8 blocks show in LR - A(GT)'),
    (0, 30., (3, 5), '8x8 blocks show in LR - A(GT), cut at (3, 5) afterwards')])
def test_how_it_is_known_that_the_lr_was_compressed(monkeypatch, jpegs, psnr, grid, said):
    class Files(list):
        pass
    files = Files('abc')
    files.jpegs = jpegs
    monkeypatch.setattr(identify, 'block_grid', lambda errors: grid)
    monkeypatch.setattr(identify, 'errors_of', lambda best, pairs: None)
    assert identify._jpeg(files, SimpleNamespace(psnr=psnr), 'GT') == said


# mmpd-make-consistent

def test_an_image_of_another_size_is_bicubic_and_of_its_type():
    generator = np.random.default_rng(0)
    for dtype, most in ((np.uint8, 255), (np.uint16, 65535), (np.float32, None)):
        array = generator.integers(0, 256, (8, 10, 3)).astype(dtype)
        array[:4] = 255 if most is None else most  # overshoots at the edge
        array[4:] = 0
        alpha = array[..., 0].copy()
        made = consistent_files.resized(Raster(array, alpha, b'icc'), (15, 12))
        assert made.pixels.shape == (12, 15, 3) and made.alpha.shape == (12, 15)
        assert made.pixels.dtype == dtype and made.icc_profile == b'icc'
        wide = torch.from_numpy(array.astype(np.float64)).permute(2, 0, 1)[None]
        wide = F.interpolate(wide, (12, 15), mode='bicubic', antialias=True)[0].permute(1, 2, 0)
        assert wide.min() < -5  # so there is something to clip
        if most:
            wide = wide.clamp(0, most).round()
        assert np.array_equal(made.pixels, wide.numpy().astype(dtype))
        assert np.array_equal(made.alpha, made.pixels[..., 0])


def test_figures_of_a_pair_are_those_of_the_whole_image():
    """Also where it is worked on in strips, and in units of the LR where pixels are floats."""
    generator = np.random.default_rng(0)
    lr = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    sr = (lr.repeat(4, 0).repeat(4, 1) * 0.8 + generator.normal(20, 9, (24, 32, 3))).clip(0, 255)
    gt = (sr + generator.normal(0, 3, sr.shape)).clip(0, 255)
    args = make_consistent.parse_args(['--lr', 'a', '--sr', 'b', '--out', 'c'])

    def psnr(one, other, peak):
        return f'{10 * np.log10(peak**2 / np.square(one.astype(float) - other).mean()):.4f}'

    def pooled(image):
        return image.astype(float).reshape(6, 4, 8, 4, 3).mean((1, 3))
    for dtype in (np.uint8, np.float64):
        images = [image.astype(dtype) for image in (lr, sr, gt)]
        peak = 255 if dtype is np.uint8 else float(np.ptp(images[0]))
        before = images[1].copy()
        made, row = consistent_files.make_consistent(
            *(Raster(image) for image in images), args.degradation, args.correction)
        assert row['psnr_lr_before'] == psnr(pooled(before), lr, peak)
        assert row['psnr_gt_before'] == psnr(before, images[2], peak)
        assert row['psnr_gt_after'] == psnr(made, images[2], peak)
        assert float(row['psnr_lr_after']) > 200 and row['lr_values_unmatched'] == '0'
        assert (row['scale'], row['made_by'], row['lr_values']) == ('4', 'float', '144')
    flat = Raster(np.full((2, 2), 3.))
    _, row = consistent_files.make_consistent(flat, Raster(np.full((4, 4), 4.)), None,
                                              args.degradation, args.correction)
    assert row['psnr_lr_before'] == '0.0000' and 'psnr_gt_before' not in row  # peak 1


@pytest.mark.parametrize('lr, sr, may_resize, found, said', [
    ((8, 6), (32, 24), False, (4, None), None), ((8, 6), (33, 24), True, (4, (32, 24)), None),
    ((8, 6), (33, 24), False, (None, None), '(--resize-sr resizes it to 32x24)'),
    ((8, 6), (33, 18), True, (None, None), 'multiple of the LR size 8x6, got 33x18'),
    ((8, 6), (9, 6), True, (1, (8, 6)), None), ((8, 6), (3, 6), True, (1, (8, 6)), None)])
def test_sizes_of_a_pair(lr, sr, may_resize, found, said):
    problems = []
    sizes = [SimpleNamespace(size=size) for size in (lr, sr)]
    assert consistent_pairs.check_sizes('x', *sizes, may_resize, problems) == found
    assert len(problems) == bool(said) and (not said or problems[0].endswith(said))


@pytest.mark.parametrize('argv, expected', [
    ([], 'float'), (['--operator', 'bicubic'], 'pil')])
def test_pairs_that_take_much_memory_are_named(monkeypatch, argv, expected):
    monkeypatch.setattr(consistent_pairs, 'LARGE', 32 * 32)
    args = make_consistent.parse_args(['--lr', 'a', '--sr', 'b', '--out', 'c', *argv])
    lr = Raster(np.zeros((8, 8), np.uint8))
    for side, warned in ((32, False), (40, expected == 'pil')):
        problems, warnings = [], []
        sr = Raster(np.zeros((side, side), np.uint8))
        consistent_pairs.check_values('x', side // 8, lr, sr, '.png', args, problems, warnings)
        assert not problems and bool(warnings) == warned
        assert not warned or f'x: {side}x{side} is worked on as a whole' in warnings[0]


def test_bounds_may_be_values_of_the_lr():
    for dtype in (np.uint8, np.float32):
        lr = Raster(np.array([[40, 200]] * 2, dtype))
        sr = Raster(np.zeros((4, 4), dtype))
        for bounds, fits in (((40, 200), True), ((41, 200), False), ((40, 199), False)):
            args = make_consistent.parse_args(['--lr', 'a', '--sr', 'b', '--out', 'c', '--bounds',
                                               *map(str, bounds)])
            problems = []
            consistent_pairs.check_values('x', 2, lr, sr, '.npy', args, problems, [])
            assert bool(problems) != fits
            assert fits or f'--bounds {bounds[0]} {bounds[1]}, got 40 to 200' in problems[0]


@pytest.mark.parametrize('argv, said', [
    (['--alias'], '--alias: average_pooling has no such variant'),
    (['--operator', 'auto', '--border', 'mirror'], '--border: auto has no such variant'),
    (['--noise-std', '3', '--strength', '0.5'], 'expected no --strength besides'),
    (['--workers', '0'], '--workers: expected at least 1, got 0'),
    (['--strength', '1.5'], '--strength: expected a number in [0, 1], got 1.5'),
    (['--operator', 'bicubic', '--made-by', 'opencv'], '--made-by=')])
def test_options_that_do_not_go_together(argv, said, capsys):
    with pytest.raises(SystemExit):
        make_consistent.parse_args(['--lr', 'a', '--sr', 'b', '--out', 'c', *argv])
    err = capsys.readouterr().err
    assert said in err or said.replace('=', '') in err


def test_options_that_do():
    def parse(*argv):
        return make_consistent.parse_args(['--lr', 'a', '--sr', 'b', '--out', 'c', *argv])
    args = parse('--workers', '1', '--noise-std', '3')
    assert args.csv == Path('c/consistency.csv') and args.correction.noise_std == 3
    assert args.degradation['type'] == 'AveragePooling'
    assert parse('--csv', 'x.csv').csv == Path('x.csv')
    assert parse('--operator', 'auto').degradation is None
    args = parse('--operator', 'bicubic', '--alias', '--border', 'mirror', '--made-by', 'float')
    assert (args.degradation['antialias'], args.degradation['border']) == (False, 'mirror')
    for made_by in ('torch', 'pil', 'torch_uint8'):
        assert parse('--operator', 'bicubic', '--made-by', made_by)


def test_pairs_that_auto_looks_at(monkeypatch, capsys):
    """Of the commonest scale, as they are, evenly chosen; GT before SR."""
    def pair(name, scale=4, resize=None):
        return SimpleNamespace(scale=scale, resize=resize, paths=dict(
            lr=f'{name}.lr', sr=f'{name}.sr', gt=f'{name}.gt'))
    monkeypatch.setattr(make_consistent, 'read_raster', lambda path: SimpleNamespace(pixels=path))
    seen = []

    def identified(images, recolour):
        seen.append(([lr for lr, _ in images], {hr[-2:] for _, hr in images}, recolour))
        return dict(type='SeparableResize', kernel='bicubic'), 'pil', 31.5, 'unsure'
    monkeypatch.setattr(make_consistent, 'identified', identified)
    args = SimpleNamespace(gt=None, made_by=None)
    pairs = [pair('one', 1), pair('two', 2), pair('odd', resize=(8, 8)),
             *[pair(str(index)) for index in range(17)]]
    cfg, made_by = make_consistent.find_operator(args, pairs)
    assert (cfg['kernel'], made_by) == ('bicubic', 'pil')
    names, kinds, recolour = seen[0]
    assert names == [f'{index}.lr' for index in (0, 3, 6, 9, 12, 15)] and len(names) <= 8
    assert kinds == {'sr'} and recolour
    said = capsys.readouterr()
    assert 'made by pil, PSNR(A(SR), LR) 31.50 dB over 6 pairs' in said.out
    assert said.err == 'warning: unsure\n'
    args = SimpleNamespace(gt='x', made_by='torch')
    assert make_consistent.find_operator(args, pairs[:4])[1] == 'torch'
    assert seen[1][1:] == ({'gt'}, False) and seen[1][0] == ['odd.lr', '0.lr']
    refused(make_consistent.find_operator, SimpleNamespace(gt=None, made_by=None), pairs[:1],
            match='expected pairs of a scale of 2 or more')


# mmpd-test, mmpd-train

def test_lr_images_alone_are_a_test_set(tmp_path):
    from PIL import Image
    Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
    cfg = Config(dict(
        model=dict(generator=dict(in_size=8), data_preprocessor=dict(), pd_head=dict(
            operator=dict(type='CEM', scale=4))),
        custom_hooks=[dict(type='BasicVisualizationHook'), dict(type='Other')]))
    test_tool.use_lr_only(cfg, str(tmp_path))
    dataset = cfg.test_dataloader.dataset
    assert dataset.data_root == str(tmp_path) and dataset.data_prefix == dict(img='')
    assert cfg.test_dataloader.sampler.shuffle is False and cfg.test_dataloader.batch_size == 1
    assert cfg.test_dataloader.num_workers == 0
    assert cfg.test_evaluator[0] == dict(type='LRConsistency', operator=dict(type='CEM', scale=4))
    assert cfg.model.data_preprocessor.data_keys == []
    assert [hook.type for hook in cfg.custom_hooks] == ['Other']
    for size in ((8, 9), (9, 8)):
        Image.new('RGB', size).save(tmp_path / 'b.png')
        refused(test_tool.use_lr_only, cfg, str(tmp_path),
                match=f'b.png: {size[0]}x{size[1]}, but this config takes 8x8 only')
    cfg.model.generator.in_size = None  # any size
    test_tool.use_lr_only(cfg, str(tmp_path))
    refused(test_tool.use_lr_only, cfg, str(tmp_path / 'none'), match='expected a folder')


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


PSNR, OURS = dict(type='PSNR', prefix='face'), dict(type='LRConsistency')


@pytest.mark.parametrize('given, expected', [
    (dict(type='Evaluator', metrics=[PSNR]), ['PSNR', 'LRConsistency']),
    (PSNR, ['PSNR', 'LRConsistency']), ([PSNR], ['PSNR', 'LRConsistency']),
    (dict(metrics=PSNR), ['PSNR', 'LRConsistency']),
    (dict(metrics=[PSNR, OURS]), None), ([OURS], None), (dict(metrics=[]), ['LRConsistency']),
    ([dict(metrics=[PSNR]), dict(metrics=[OURS])], [['PSNR', 'LRConsistency'], ['LRConsistency']]),
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


def test_names_of_sections_that_are_nearly_right():
    cfg = Config(dict(model=dict(), train_cfg=dict(max_iters=3)))
    settings._check_names(cfg, {'model.x': 1, 'quite_another': 1})
    refused(settings._check_names, cfg, {'train_cgf.max_iters': 1},
            match="has no 'train_cgf'; did you mean 'train_cfg'")
    refused(settings.check_parts, Config(dict(train_cgf=1, model=1)), 'a.py', 'model', 'train_cfg',
            match="config a.py: expected train_cfg, got none; did you mean 'train_cgf'")


@pytest.mark.parametrize('steps, kept', [((2, 1), ['2']), ((1,), ['1'])])
def test_the_first_sound_checkpoint_is_resumed(tmp_path, monkeypatch, steps, kept):
    def check(path, option, resume):
        assert resume and option.startswith('last of')
        if path == '3':
            raise InputError('3 is cut')
        return {'weight': path}
    monkeypatch.setattr(train_tool, 'resumable', lambda folder: map(str, (3, *steps)))
    monkeypatch.setattr(weights, 'check_checkpoint', check)
    cfg = Config(dict(work_dir=str(tmp_path)))
    state, said = train_tool.resume(cfg, 'auto')
    assert state == {'weight': kept[0]} and cfg.load_from == kept[0] and cfg.resume is True
    assert said == f'3 is cut. The run goes on from {kept[0]} instead.'


def test_a_checkpoint_that_was_named_is_resumed_or_refused(monkeypatch):
    asked = []
    monkeypatch.setattr(weights, 'check_checkpoint',
                        lambda *args, **kwargs: asked.append((args, kwargs)) or 'state')
    cfg = Config(dict(load_from='other.pth'))
    assert train_tool.resume(cfg, 'x.pth') == ('state', None)
    assert (cfg.resume, cfg.load_from) == (True, 'x.pth')
    assert asked == [(('x.pth', '--resume'), dict(resume=True))]


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


# mmpd-export

def export_args(*argv):
    return export_tool.parse_args(['model', '--out', *argv])


@pytest.mark.parametrize('argv, said', [
    (['x', '--opset', '17'], '--opset: expected at least 18, got 17'),
    (['x', '--size', '0'], '--size: expected one or two positive numbers, got [0]'),
    (['x', '--size', '8', '8', '8'], '--size: expected one or two positive numbers')])
def test_numbers_that_export_refuses(argv, said, capsys):
    with pytest.raises(SystemExit):
        export_args(*argv)
    assert said in capsys.readouterr().err


def test_files_that_export_writes(tmp_path, monkeypatch):
    args = export_args(str(tmp_path / 'a.b'), '--opset', '18', '--size', '1')
    assert export_tool.check_targets(args) == dict(
        onnx=tmp_path / 'a.b.onnx', torch=tmp_path / 'a.b.pt2')
    (tmp_path / 'a.b.pt2').touch()
    refused(export_tool.check_targets, args, match=r'a.b.pt2 exists \(--overwrite replaces it\)')
    args.overwrite = True
    assert len(export_tool.check_targets(args)) == 2
    (tmp_path / 'a.b.onnx').mkdir()
    refused(export_tool.check_targets, args, match='a.b.onnx exists$')
    args.format = ['torch']
    assert list(export_tool.check_targets(args)) == ['torch']
    monkeypatch.setattr(os, 'access', lambda folder, mode: mode != os.W_OK)
    refused(export_tool.check_targets, args, match='cannot be written to')
    refused(export_tool.check_targets, export_args(str(tmp_path / 'none' / 'a')),
            match='no folder .*none')


@pytest.mark.parametrize('operator, expected', [
    (None, {}), ('average_pooling', dict(type='AveragePooling', scale=None)),
    ('lanczos', dict(type='SeparableResize', scale=None, kernel='lanczos'))])
def test_the_operator_that_export_gives_the_model(monkeypatch, operator, expected):
    seen = []
    monkeypatch.setattr('mmpd.apis.loading.load_model', lambda *args, **settings: seen.append(
        (args, settings)) or SimpleNamespace(model='the model'))
    argv = ['a.py', 'b.pth', '--out', 'x'] + (['--operator', operator] if operator else [])
    assert export_tool.load_model(export_tool.parse_args(argv)) == 'the model'
    assert seen == [(('a.py', 'b.pth'), dict(pd_head=dict(operator=expected)) if expected else {})]


@pytest.mark.parametrize('argv, in_size, size, sizes', [
    (['--size', '6', '8'], None, (6, 8), [(6, 8)]), (['--size', '6'], None, (6, 6), [(6, 6)]),
    ([], 16, (16, 16), [(16, 16)]), ([], None, (64, 64), [(64, 64)]),
    (['--size', '6', '8', '--dynamic'], None, (6, 8), [(6, 8), (10, 16)])])
def test_what_export_writes_and_says(tmp_path, monkeypatch, capsys, argv, in_size, size, sizes):
    """Everything is computed and compared before anything is written."""
    import mmpd.apis.export as engine
    generator = torch.nn.Conv2d(3, 3, 1)
    generator.in_size = in_size
    monkeypatch.setattr(export_tool, 'load_model', lambda args: SimpleNamespace(
        generator=generator, pd_head=None))
    network = torch.nn.Conv2d(3, 3, 1).train()
    network.operator, network.own_pd = 'A', None
    noted = []
    for name, function in (
            ('ConsistentNetwork', lambda model, size, *raw: noted.append(size) or network),
            ('export_program', lambda net, size, dynamic: (net.training, size, dynamic)),
            ('to_onnx', lambda program, opset, *own: noted.append(program) or bytes(2**20)),
            ('verify_onnx', lambda data, net, sizes: noted.append(sizes) or 2e-6),
            ('verify_program', lambda data, net, sizes: noted.append(sizes) or 0.)):
        monkeypatch.setattr(engine, name, function)
    monkeypatch.setattr(torch.export, 'save', lambda program, buffer: buffer.write(b'program'))
    assert export_tool.main(['model', '--out', str(tmp_path / 'x'), *argv]) == 0
    dynamic = '--dynamic' in argv
    assert noted == [size, (False, size, dynamic), sizes, sizes]
    first, second = capsys.readouterr().out.splitlines()
    shown = 'of any size' if dynamic else f'of {size[0]}x{size[1]}'
    assert first.startswith(f"{tmp_path}/x.onnx: 1.0 MiB, A = 'A', LR {shown}, differs from PyTor")
    assert first.endswith('by at most 2.0e-06') and second.startswith(f'{tmp_path}/x.pt2: 0.0 MiB')
    assert (tmp_path / 'x.onnx').read_bytes() == bytes(2**20)
    assert (tmp_path / 'x.pt2').read_bytes() == b'program'


# beside the work of mmpd-infer, mmpd-identify and mmpd-make-consistent

def test_models_that_draw_samples_have_no_file_for_each(monkeypatch):
    seen = []

    def inferencer(*args, **kwargs):
        seen.append(args)
        return SimpleNamespace(model=SimpleNamespace(num_samples=2))
    monkeypatch.setattr('mmpd.apis.PDInferencer', inferencer)
    args = infer.parse_args(['m.py', 'c.pth', '-i', 'a', '-o', 'b', '--cfg-options',
                             'model.x=[1,2]'])
    refused(infer.build, args, 'cpu', match='test_cfg.num_samples=2: mmpd-infer writes one file')
    assert seen[0][:7] == ('m.py', 'c.pth', 'cpu', {'model.x': [1, 2]}, None, None, None)
    assert seen[0][7:11] == (None, None, 16, 1)
    monkeypatch.setattr('mmpd.apis.PDInferencer', lambda *args, **kwargs: SimpleNamespace(
        model=None))
    assert infer.build(args, 'cpu').model is None


def test_folders_of_outputs(tmp_path):
    (tmp_path / 'file').touch()
    jobs = [SimpleNamespace(target=tmp_path / 'a' / 'b' / 'x.png', panel=None),
            SimpleNamespace(target=tmp_path / 'a' / 'b' / 'y.png', panel=tmp_path / 'c' / 'y.png')]
    assert infer.prepare_folders(jobs) is None
    assert (tmp_path / 'a' / 'b').is_dir() and (tmp_path / 'c').is_dir()
    (tmp_path / 'c' / '.y.png.0123abcd.partial').touch()
    assert infer.prepare_folders(jobs) is None and not any((tmp_path / 'c').iterdir())
    jobs.append(SimpleNamespace(target=tmp_path / 'file' / 'z.png', panel=None))
    assert infer.prepare_folders(jobs).startswith(
        f'{tmp_path}/file: cannot be made or written to: ')


def test_names_of_outputs(tmp_path):
    from PIL import Image
    (tmp_path / 'lr').mkdir()
    for name in ('b.png', 'a.png'):
        Image.new('RGB', (2, 2)).save(tmp_path / 'lr' / name)
    (tmp_path / 'lr' / 'notes.txt').touch()

    def plan(*argv, source='lr', out='sr'):
        return infer.plan(infer.parse_args(['m', '-i', str(tmp_path / source), '-o',
                                            str(tmp_path / out), *map(str, argv)]))
    plans, others = plan('--suffix', '_x', '--ext', 'webp', '--compare')
    assert others == 1 and [one.target.name for one in plans] == ['a_x.webp', 'b_x.webp']
    assert [one.panel for one in plans] == [
        tmp_path / 'sr' / 'compare' / f'{name}_x.png' for name in 'ab']
    plans, others = plan(source='lr/a.png', out='one.png')
    assert plans[0].target == tmp_path / 'one.png' and plans[0].panel is None and others == 0
    (tmp_path / 'folder.png').mkdir()
    assert plan(source='lr/a.png', out='folder.png')[0][0].target.name == 'a.png'
    twice = infer.parse_args(['m', '-i', *[str(tmp_path / 'lr' / 'a.png')] * 2, '-o',
                              str(tmp_path / 'sr')])
    assert len(infer.plan(twice)[0]) == 1
    (tmp_path / 'sr' / 'a.png').mkdir(parents=True)
    refused(plan, match='sr/a.png: is a folder, expected a file name')
    for argv, out, message in (
            (['--csv', tmp_path / 'folder.png'], 'other', 'folder.png: is a folder'),
            (['--csv', tmp_path / 'lr' / 'a.png'], 'other', 'would replace an input image'),
            (['--recursive'], 'lr/deep/sr', 'lies in the input folder')):
        refused(lambda argv=argv, out=out: plan(*argv, out=out), match=message)
    plan(out='lr/deep/sr')  # which is not looked through


def test_a_kernel_that_could_not_be_fitted_is_not_drawn(folders, monkeypatch, capsys):
    class Found(list):
        shape, jpegs, compress = (2, (2, 2), (4, 4)), 0, None
    monkeypatch.setattr(identify, 'Pairs', lambda files: Found(files[:3]))
    monkeypatch.setattr(identify, 'absent_libraries', lambda: dict(torch='too old'))
    monkeypatch.setattr(identify, 'identify', lambda *args, **kwargs: [candidate()])
    monkeypatch.setattr(identify, 'fit_kernel', lambda pairs: None)
    monkeypatch.setattr(identify, '_jpeg', lambda *args: False)
    monkeypatch.setattr(identify, 'give_verdict', lambda *args: SimpleNamespace(
        lines=['It is so.'], noise_std=None, kind='exact'))
    argv = ['--lr', str(folders / 'lr'), '--gt', str(folders / 'gt')]
    refused(identify._main, [*argv, '--kernel-out', str(folders / 'k.png')],
            match='k.png: not written, no kernel could be fitted')
    out = capsys.readouterr().out
    assert '3 of 7 pairs, scale 2; the first: LR 2x2, GT 4x4' in out and 'It is so.' in out
    assert 'torch is not installed (too old): its resizings were not tried' in out
    assert 'Too few LR pixels to fit a free kernel' in out
    assert identify._main([*argv, '--no-kernel']) == 0
    assert 'Too few' not in capsys.readouterr().out and not (folders / 'k.png').exists()


def test_only_jpeg_files_are_compressed_again(tmp_path):
    from PIL import Image
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(image).resize((32, 32)).save(tmp_path / 'hr.png')
    Image.fromarray(image).save(tmp_path / 'a.png')
    Image.fromarray(image).save(tmp_path / 'b.jpg', quality=40, subsampling=2)
    Image.fromarray(image).convert('L').save(tmp_path / 'c.jpg', quality=90)
    Image.fromarray(image).convert('L').resize((32, 32)).save(tmp_path / 'grey.png')
    pairs = identify.Pairs([('a', tmp_path / 'a.png', tmp_path / 'hr.png'),
                            ('b', tmp_path / 'b.jpg', tmp_path / 'hr.png')])
    assert pairs.jpegs == 1 and len(pairs) == 2 and pairs.shape == (2, (16, 16, 3), (32, 32, 3))
    assert pairs.compress(0, image) is image
    assert np.array_equal(pairs.compress(1, image), np.asarray(Image.open(tmp_path / 'b.jpg')))
    assert np.array_equal(pairs[1][0], pairs.compress(1, image))
    grey = identify.Pairs([('c', tmp_path / 'c.jpg', tmp_path / 'grey.png')])
    flat = np.asarray(Image.fromarray(image).convert('L'))
    assert np.array_equal(grey.compress(0, flat), np.asarray(Image.open(tmp_path / 'c.jpg')))


def test_names_that_cannot_be_written(tmp_path):
    args = SimpleNamespace(overwrite=False, resume=False)
    for path, message in ((tmp_path, 'is a folder'), (tmp_path / ('x' * 300), 'x: '),
                          (tmp_path / 'a\udce9', 'UTF-8')):
        problems = []
        consistent_pairs.check_target(path, args, problems)
        assert len(problems) == 1 and message in problems[0]
    (tmp_path / 'there').touch()
    for name in ('overwrite', 'resume', None):
        problems = []
        options = SimpleNamespace(**{**vars(args), **({name: True} if name else {})})
        consistent_pairs.check_target(tmp_path / 'there', options, problems)
        assert len(problems) == (name is None)


def test_a_worker_that_died_is_named_with_its_pair(tmp_path):
    args = make_consistent.parse_args(['--lr', 'a', '--sr', 'b', '--out', str(tmp_path / 'out')])
    pairs = [consistent_pairs.Pair(name, {}, tmp_path / 'out' / f'{name}.png', 2, None, 'x')
             for name in 'ab']

    def run_jobs(function, jobs):
        assert [job[0] for job in jobs] == pairs
        raise BrokenProcessPool
        yield
    rows, failure = consistent_files.Run(args, pairs)(run_jobs)
    assert rows == [] and failure.startswith('a: a process of --workers died, for want of memory')
    assert (tmp_path / 'out' / 'consistency.csv').read_text().count('\n') == 1


def test_learning_rates_are_scaled_where_it_is_asked_for(tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def check(*args):
        raise Stop
    (tmp_path / 'a.py').write_text(
        "model = dict(type='A')\ntrain_dataloader = dict()\ntrain_cfg = dict()\n"
        "optim_wrapper = dict(optimizer=dict())\nauto_scale_lr = dict(base_batch_size=4)\n")
    seen = []
    load = settings.load_config
    monkeypatch.setattr(settings, 'load_config', lambda args: seen.append(load(args)) or seen[-1])
    monkeypatch.setattr(settings, 'prepare_distributed', check)
    for argv in ([], ['--auto-scale-lr']):
        with pytest.raises(Stop):
            train_tool.train([str(tmp_path / 'a.py'), '--work-dir', str(tmp_path / 'w'), *argv])
        assert ('enable' in seen[-1].auto_scale_lr) == bool(argv)
