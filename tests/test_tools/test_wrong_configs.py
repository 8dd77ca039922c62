"""What a config says wrongly ends the tools with one line and code 2, before any work is lost."""
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmpd.cli import run_tool
from mmpd.cli.test import test as run_test
from mmpd.cli.train import train as run_train

ROOT = Path(__file__).resolve().parents[2]
DEMO = str(ROOT / 'configs/pd_glean/pd_glean_in8out64-tiny_1xb8-400_demo.py')
SMALL = ('model.generator.style_channels=8', 'model.generator.num_mlps=1',
         'model.generator.rrdb_channels=4', 'model.generator.num_rrdbs=1',
         'model.discriminator.mid_channels=2', 'train_dataloader.batch_size=2',
         'train_cfg.max_iters=1', *(f'model.generator.channels.{2**i}=8' for i in range(2, 7)))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    (folder / 'GT').mkdir()
    rng = np.random.default_rng(0)
    for index in range(2):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
            folder / f'GT/{index}.png')
    return folder


def said(function, argv, capsys, code=2):
    with pytest.raises(SystemExit) as stop:
        run_tool(function, argv)
    assert stop.value.code == code
    # mmengine's log goes to the same stream
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(
        Path(os.sys.argv[0]).name + ': ')]
    assert len(lines) == 1, lines
    return lines[0]


def options(data, *more):
    splits = [f'{split}_dataloader.dataset.data_root={data}' for split in ('train', 'val', 'test')]
    return ['--cfg-options', *SMALL, *splits, 'default_hooks.checkpoint.save_best=None', *more]


WRONG = {
    'model type': (['model.type=PDGlean'], r"unknown model type 'PDGlean'; did you mean 'PDGLEAN'"),
    'operator': (['model.pd_head.operater.type=CEM'], r"pd_head\.operater.*'operator'"),
    'head type': (['model.pd_head.type=NoSuchHead'], r'pd_head\.type: expected one of PDHead'),
    'test_cfg': (['model.test_cfg.quantise=clip'], r"test_cfg\.quantise.*'quantize'"),
    'train_cfg': (['model.train_cfg.r1_wieght=5'], r"train_cfg\.r1_wieght.*'r1_weight'"),
    'in_size': (['model.generator.in_size=48'],
                'GLEANNet: in_size: expected a power of two.*got 48'),
    'argument': (['model.generator.num_rrdb=2'],
                 r"GLEANNet\.num_rrdb: GLEANNet has no such argument; did you mean 'num_rrdbs'"),
    'argument of the model': (['model.pd_haed.strength=1'],
                              r"PDGLEAN\.pd_haed: .*did you mean 'pd_head'"),
    'optimizer': (['optim_wrapper.generator.optimizer.type=Adamm'],
                  "unknown optimizer type 'Adamm'; did you mean 'Adam'"),
    'optimizer argument': (['optim_wrapper.generator.optimizer.learning=1'],
                           'Adam.learning: Adam has no such argument'),
    'scheduler': (['param_scheduler.type=CosineAnnealingLRR'],
                  "unknown parameter scheduler type .*did you mean 'CosineAnnealingLR'"),
    'transform': (['train_dataloader.dataset.pipeline.1.type=Flipp'],
                  "unknown transform type 'Flipp'; did you mean 'Flip'"),
    'hook': (['default_hooks.checkpoint.intervall=3'],
             "CheckpointHook.intervall.*did you mean 'interval'"),
    'metric': (['val_evaluator.0.type=PSNRR'], "unknown metric type 'PSNRR'; did you mean 'PSNR'"),
    'metric that is not measured': (['default_hooks.checkpoint.save_best=PSNRR'],
                                    "save_best: expected one of MAE, PSNR, .*mean 'PSNR'"),
    'key of a metric': (['val_evaluator.1.gt_key=gtimg'],
                        "val_evaluator: PSNR.gt_key: expected one of .*mean 'gt_img'"),
    'key of the visualizer': (['visualizer.fn_key=gt_pth'],
                              "visualizer.fn_key: expected one of .*mean 'gt_path'"),
    'result that is NaN': (['val_evaluator.1.crop_border=32'],
                           r'val_evaluator: PSNR\(crop_border=32\): .* of 64x64, got nan'),
    'level of the log': (['log_level=INFOO'], "log_level: expected one of .* got 'INFOO'"),
    'rule': (['default_hooks.checkpoint.rule=bigger'], "rule: expected one of greater, less, got"),
    'interval': (['default_hooks.checkpoint.interval=abc'],
                 "default_hooks.checkpoint.interval: expected a number, got 'abc'"),
    'no whole interval': (['default_hooks.checkpoint.interval=2.5'],
                          'CheckpointHook.interval: expected an integer of at least -1, got 2.5'),
    'hook without arguments': (['custom_hooks.0.intervall=3'],
                               'CleanCheckpointHook.intervall: .*has no such argument'),
    'weight of a loss': (['model.gan_loss.loss_weight=0,01'],
                         r'model.gan_loss.loss_weight: expected a number, got \[0, 1\]'),
    'number of a schedule': (['param_scheduler.T_max=abc'],
                             "param_scheduler.T_max: expected a number, got 'abc'"),
    'window of the log': (['log_processor.window_size=abc'],
                          "log_processor.window_size: expected a number, got 'abc'"),
    'yes or no': (['visualizer.bgr2rgb=no'],
                  "visualizer.bgr2rgb: expected True or False, got 'no'"),
    'value of MMagic': (['model.gan_loss.gan_type=foo'], 'GANLoss: GAN type foo'),
    'value of torch': (['optim_wrapper.generator.optimizer.lr=abc'], "Adam: '<=' not supported"),
    'size of a layer': (['model.discriminator.mid_channels=-1'],
                        'UNetDiscriminatorWithSpectralNorm: .*negative dimension'),
    'validation without end': (['val_dataloader.sampler.type=InfiniteSampler'],
                               'val_dataloader.sampler: expected one that ends'),
    'no preprocessor': (['model.data_preprocessor=None'], 'model.data_preprocessor: expected dict'),
    'no samples': (['train_dataloader.dataset.pipeline=[]'], 'as PackInputs makes them'),
    'no part': (['model.generator=None'], 'PDGLEAN: cfg should be a dict'),
    'prior without file': (['model.generator.init_cfg.type=Pretrained'],
                           'init_cfg.checkpoint: expected a file or address, got None'),
    'operator value': (['model.pd_head.operator.type=AveragePooling',
                        'model.pd_head.operator.scale=0'], 'scale: expected an integer of at leas'),
}


@pytest.mark.parametrize('case', WRONG)
def test_wrong_config_is_one_line_and_code_2(case, data, tmp_path, capsys):
    given, message = WRONG[case]
    line = said(run_train, [DEMO, '--work-dir', str(tmp_path), *options(
        data, f'experiment_name={case.replace(" ", "_")}', *given)], capsys)
    assert re.search(message, line), line
    assert not list(tmp_path.glob('*.pth'))


def test_what_may_be_meant_is_warned_of(data, tmp_path):
    config = tmp_path / 'mine.py'
    config.write_text(f'_base_ = {DEMO!r}\ncustom_hook = []\n')
    run_train([str(config), '--work-dir', str(tmp_path / 'run'), *options(
        data, 'experiment_name=warned',
        'optim_wrapper.generator.paramwise_cfg.custom_keys.heads.lr_mult=0.1')])
    log = ''.join(path.read_text() for path in (tmp_path / 'run').glob('*/*.log'))
    assert 'optim_wrapper.generator.paramwise_cfg.custom_keys: no parameter of generator has' in log


def test_no_model(data, tmp_path, capsys):
    config = tmp_path / 'mine.py'
    config.write_text('default_scope = "mmagic"\n')
    assert 'expected model=dict(type=...)' in said(run_train, [str(config)], capsys)


def test_missing_parts(data, tmp_path, capsys):
    config = tmp_path / 'mine.py'
    config.write_text(f'_base_ = {DEMO!r}\ntrain_dataloder = _base_.train_dataloader\n'
                      'train_dataloader = None\n')
    line = said(run_train, [str(config), '--work-dir', str(tmp_path)], capsys)
    assert 'expected train_dataloader, got none' in line and 'train_dataloder' in line


def test_a_fault_of_the_code_keeps_its_traceback(data, tmp_path, monkeypatch):
    from mmpd.models.generators import GLEANNet

    def broken(*args, **kwargs):
        raise AttributeError('a bug')

    monkeypatch.setattr(GLEANNet, '_add_latent_head', broken)
    with pytest.raises(AttributeError, match='a bug'):
        run_tool(run_train, [DEMO, '--work-dir', str(tmp_path),
                             *options(data, 'experiment_name=bug')])


def test_names_of_lr_and_gt_that_differ(data, tmp_path, capsys):
    (tmp_path / 'LR').mkdir()
    for name in ('0', '1x'):
        Image.new('RGB', (8, 8)).save(tmp_path / f'LR/{name}.png')
    config = tmp_path / 'mine.py'
    config.write_text(f'''_base_ = {DEMO!r}
load = [dict(type='LoadImageFromFile', key=key, channel_order='rgb') for key in ('gt', 'img')]
train_dataloader = dict(dataset=dict(
    data_prefix=dict(_delete_=True, gt={str(data / 'GT')!r}, img={str(tmp_path / 'LR')!r}),
    pipeline=[*load, dict(type='PackInputs')]))
''')
    line = said(run_train, [str(config), '--work-dir', str(tmp_path / 'w'), *options(
        data, 'experiment_name=names')], capsys)
    assert re.search(r"train_dataloader: no file .*LR/1\.png \(img_path of the image '1'\); "
                     r"did you mean '1x\.png'", line), line


def test_wrong_lr_size_on_an_inherited_glean_config(data, tmp_path, capsys):
    line = said(run_train, [DEMO, '--work-dir', str(tmp_path), *options(
        data, 'experiment_name=size', 'model.generator.type=GLEANStyleGANv2')], capsys)
    assert 'GLEANStyleGANv2.channels: GLEANStyleGANv2 has no such argument' in line
    config = tmp_path / 'mine.py'
    config.write_text(f'''_base_ = {DEMO!r}
model = dict(generator=dict(_delete_=True, type='GLEANStyleGANv2', in_size=16, out_size=64,
                            style_channels=8, num_mlps=1, rrdb_channels=4, num_rrdbs=1))
''')
    line = said(run_train, [str(config), '--work-dir', str(tmp_path), '--cfg-options',
                            f'train_dataloader.dataset.data_root={data}',
                            f'val_dataloader.dataset.data_root={data}',
                            'train_cfg.max_iters=1', 'experiment_name=size2'], capsys)
    assert re.search(r'do not fit the PD head|LR: expected shape \(N, C, 16, 16\)', line), line


def test_a_model_is_missed_before_the_lr_images(tmp_path, capsys):
    line = said(run_test, [DEMO, 'nothing.pth', '--lr', str(tmp_path / 'none'), '--work-dir',
                           str(tmp_path / 'w'), '--cfg-options', 'model=None'], capsys)
    assert line.endswith('expected model, got none'), line


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_folders_that_cannot_be_written(tool, data, tmp_path, capsys):
    file = tmp_path / 'file'
    file.touch()
    argv = [DEMO, '--work-dir', str(file / 'below')]
    if tool == 'test':
        argv = [DEMO, 'nothing.pth', '--work-dir', str(file / 'below')]
    line = said(run_train if tool == 'train' else run_test, argv + options(data), capsys)
    assert re.search(r'--work-dir .*below: cannot be written: Not a directory', line), line


def test_out_that_cannot_be_written(data, tmp_path, capsys):
    checkpoint, file = tmp_path / 'x.pth', tmp_path / 'file'
    file.touch()
    import torch
    torch.save(dict(state_dict=dict(a=torch.ones(1))), checkpoint)
    line = said(run_test, [DEMO, str(checkpoint), '--out', str(file / 'm.json'), '--work-dir',
                           str(tmp_path / 'w'), *options(data)], capsys)
    assert re.search(r'--out .*file: cannot be written', line), line


@pytest.mark.skipif(os.geteuid() == 0, reason='root writes everywhere')
def test_read_only_work_dir(data, tmp_path, capsys):
    (tmp_path / 'ro').mkdir(mode=0o555)
    line = said(run_train, [DEMO, '--work-dir', str(tmp_path / 'ro'), *options(data)], capsys)
    assert 'cannot be written: Permission denied' in line


def test_launcher_without_torchrun(data, tmp_path, capsys, monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR'):
        monkeypatch.delenv(name, raising=False)
    line = said(run_train, [DEMO, '--launcher', 'pytorch', '--work-dir', str(tmp_path),
                            *options(data)], capsys)
    assert 'expected to be started by torchrun' in line


def test_ctrl_c(capsys):
    def interrupted(argv):
        raise KeyboardInterrupt

    assert said(interrupted, [], capsys, code=130).endswith(': interrupted')
