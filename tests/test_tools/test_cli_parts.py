"""What the commands do before and beside the work, part by part: options, processes, advice."""
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from mmpd.cli import building, commands, infer, model_converter, settings, weights
from mmpd.cli import test as test_tool
from mmpd.cli import train as train_tool
from mmpd.cli import web as web_tool
from mmpd.cli.processes import Processes, open_pool
from mmpd.errors import InputError
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
