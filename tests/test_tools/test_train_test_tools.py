"""tools/train.py and tools/test.py in this process: wrong input, resuming, MMagic's own tool."""
import json
import re
import sys
from pathlib import Path

import mmagic
import numpy as np
import pytest
import torch
from conftest import load_script, write_gt
from mmagic.registry import MODELS
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from PIL import Image
from safetensors.torch import save_file

from mmpd.cli.test import test as run_test
from mmpd.cli.train import train as run_train
from mmpd.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'
TINY = ('model.generator.style_channels=8', 'model.generator.num_mlps=1',
        'model.generator.rrdb_channels=4', 'model.generator.num_rrdbs=1',
        'model.discriminator.mid_channels=2', 'train_dataloader.batch_size=2',
        'model.generator.channels.4=8', 'model.generator.channels.8=8',
        'model.generator.channels.16=8', 'model.generator.channels.32=8',
        'model.generator.channels.64=8')


@HOOKS.register_module(force=True)
class KeepLosses(Hook):
    """Losses of every iteration, exactly."""
    seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen.append({key: value.item() for key, value in outputs.items()})


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    write_gt(folder, 5)
    return folder


def options(data, *more, name='run'):
    splits = [f'{split}_dataloader.dataset.data_root={data}' for split in ('train', 'val', 'test')]
    return ['--cfg-options', *TINY, *splits, f'experiment_name={name}',
            'train_cfg.val_interval=100', 'default_hooks.checkpoint.save_best=None', *more]


def with_hook(config, work_dir):
    """The same config with KeepLosses, in a file: a hook cannot be given as an option."""
    path = work_dir.with_suffix('.py')
    path.write_text(f"_base_ = {str(config)!r}\ncustom_hooks = [dict(type='KeepLosses')]\n")
    return path


def train(config, data, work_dir, *more, resume=None):
    KeepLosses.seen.clear()
    extra = ['--resume', str(resume)] if resume else []
    config = with_hook(config, Path(work_dir))
    run_train([str(config), '--work-dir', str(work_dir), *extra,
                          *options(data, *more, name=Path(work_dir).name)])
    return list(KeepLosses.seen)


@pytest.mark.parametrize('method', [pytest.param('pd_glean', marks=pytest.mark.slow), 'pdn'])
def test_resuming_repeats_the_uninterrupted_run_to_the_last_digit(method, data, tmp_path):
    config, = (CONFIGS / method).glob('*_demo.py')  # with random flips; PDN draws latents as well
    every = ('train_cfg.max_iters=5', 'default_hooks.checkpoint.interval=3')
    whole = train(config, data, tmp_path / f'{method}_whole', *every)
    assert len(whole) == 5 and len({str(losses) for losses in whole}) == 5
    resumed = train(config, data, tmp_path / f'{method}_resumed', *every,
                    resume=tmp_path / f'{method}_whole' / 'iter_3.pth')
    assert resumed == whole[3:]


def test_train_then_test_with_exact_files(data, tmp_path):
    config = CONFIGS / 'pd_glean' / 'pd_glean_in8out64-tiny_1xb8-400_demo.py'
    train(config, data, tmp_path / 'run', 'train_cfg.max_iters=2')
    out = tmp_path / 'results' / 'metrics.json'
    run_test([str(config), str(tmp_path / 'run/iter_2.pth'), '--out', str(out),
                        '--work-dir', str(tmp_path / 'tested'), *options(data, name='tested')])
    metrics = json.loads(out.read_text())
    assert metrics['PSNR_LR'] > 120 and metrics['MaxErr_LR_8bit'] == 0
    assert all(isinstance(value, float) for value in metrics.values())
    log, = (tmp_path / 'tested').glob('*/*.log')
    block = log.read_text().split('Protocol:\n')[1].splitlines()
    assert block[0].startswith('  mmpd ') and 'mmagic 1.2.0' in block[0]
    for line, expected in zip(block[1:], (
            "output: PDGLEAN, A = AveragePooling(scale=8), strength 1, quantize 'consistent'",
            f"data: 5 images of {data}, LR by LRSynthesis(scale=8, kernel='bicubic', ",
            "MAE: MMagic's", "PSNR: MMagic's, 0 border pixels cropped, all channels",
            "SSIM: MMagic's, 0 border pixels cropped, all channels",
            "LRConsistency: A = AveragePooling(scale=8), float64"), strict=False):
        assert line.startswith(f'  {expected}'), (line, expected)


def test_testing_needs_no_training_data_and_writes_panels(data, tmp_path):
    config = CONFIGS / 'pd_glean' / 'pd_glean_in8out64-tiny_1xb8-400_demo.py'
    train(config, data, tmp_path / 'run', 'train_cfg.max_iters=1')
    run_test([str(config), str(tmp_path / 'run/iter_1.pth'), '--panels', '2',
                        '--work-dir', str(tmp_path / 'tested'), *options(
                            data, 'train_dataloader.dataset.data_root=nowhere',
                            name='panels')])
    panels = list((tmp_path / 'tested').glob('*/panels/test/**/*.png'))
    assert len(panels) == 2


def test_lr_images_alone_are_tested_for_consistency(tmp_path, capfd):
    config = CONFIGS / 'pd_glean' / 'pd_glean_in8out64-tiny_1xb8-400_demo.py'
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(dict(option.split('=') for option in TINY))
    for key in ('style_channels', 'num_mlps', 'rrdb_channels', 'num_rrdbs'):
        cfg.model.generator[key] = int(cfg.model.generator[key])
    cfg.model.generator.channels = {4: 8, 8: 8, 16: 8, 32: 8, 64: 8}
    cfg.model.discriminator.mid_channels = 2
    model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'x.pth')
    (tmp_path / 'lr').mkdir()
    for index in range(3):
        lr = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(lr).save(tmp_path / 'lr' / f'{index}.png')

    def test(*more, name='lr-only', folder=tmp_path / 'lr'):
        run_test([str(config), str(tmp_path / 'x.pth'), '--lr', str(folder), '--out',
                  str(tmp_path / 'metrics.json'), '--work-dir', str(tmp_path / name),
                  '--cfg-options', *TINY, f'experiment_name={name}', *more])
        return json.loads((tmp_path / 'metrics.json').read_text())
    metrics = test()
    assert metrics['PSNR_LR'] > 120 and metrics['MaxErr_LR_8bit'] == 0
    log, = (tmp_path / 'lr-only').glob('*/*.log')
    assert 'will be replaced' not in log.read_text()
    assert not [key for key in metrics if 'LR' not in key]
    assert 'Cannot find key' not in ''.join(capfd.readouterr())
    assert not list(tmp_path.rglob('vis_image'))
    metrics = test('model.pd_head.operator.type=SeparableResize',
                   'model.pd_head.operator.kernel=bicubic', name='bicubic')
    assert metrics['PSNR_LR'] > 100  # by the A of the head, not by average pooling
    log, = (tmp_path / 'bicubic').glob('*/*.log')
    assert f'{tmp_path}/metrics.json: is there, and will be replaced' in log.read_text()

    for size, mode, message in (((8, 8), 'RGBA', 'expected 8-bit grey or RGB, got mode RGBA'),
                                ((9, 8), 'RGB', '9x8, but this config takes 8x8 only')):
        Image.new(mode, size).save(tmp_path / 'lr' / 'x.png')
        with pytest.raises(InputError, match=f'--lr .*x.png: {message}'):
            test()
    with pytest.raises(InputError, match='--lr .*none: expected a folder'):
        test(folder=tmp_path / 'none')


def test_mmagics_own_tool_trains_the_same_model(data, tmp_path, monkeypatch):
    config = CONFIGS / 'pd_glean' / 'pd_glean_in8out64-tiny_1xb8-400_demo.py'
    ours = train(config, data, tmp_path / 'ours', 'train_cfg.max_iters=2')
    theirs = load_script(Path(mmagic.__file__).parent / '.mim' / 'tools' / 'train.py')
    KeepLosses.seen.clear()
    monkeypatch.setattr(sys, 'argv', [
        'train.py', str(with_hook(config, tmp_path / 'theirs')), '--work-dir',
        str(tmp_path / 'theirs'),
        *options(data, 'train_cfg.max_iters=2', name='theirs')])
    theirs.main()
    assert KeepLosses.seen == ours
    weights = [torch.load(tmp_path / name / 'iter_2.pth')['state_dict']
               for name in ('ours', 'theirs')]
    assert list(weights[0]) == list(weights[1])
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


DEMO = 'pd_glean/pd_glean_in8out64-tiny_1xb8-400_demo.py'
WRONG = {
    'config': (['pd_glean/pd_glean_x8_1xb4-100k_fhq.py'],
               'no config .*100k_fhq.py; did you mean .*pd_glean_x8_1xb4-100k_ffhq.py'),
    'data': ([DEMO, '--cfg-options', 'train_dataloader.dataset.data_root=nowhere'],
             r'no data folder nowhere \(train_dataloader.dataset.data_root\)'),
    'validation data': ([DEMO, '--cfg-options', 'train_dataloader.dataset.data_root={data}',
                         'val_dataloader.dataset.data_root={data}',
                         'val_dataloader.dataset.data_prefix.gt=images'],
                        r'no data folder .*images \(val_dataloader.dataset.data_prefix.gt\)'),
    'annotation': ([DEMO, '--cfg-options', 'train_dataloader.dataset.data_root={data}',
                    'train_dataloader.dataset.ann_file=list.txt'],
                   r'no annotation file .*list.txt \(train_dataloader'),
    'amp': ([DEMO, '--amp', '--cfg-options', 'optim_wrapper.generator.dtype=float16'],
            'mixed precision in float16 needs a CUDA GPU'),
    'fp16': (['pd_glean/pd_glean_x16-fp16_2xb8_ffhq.py'],
             'model.generator.fp16_enabled=True needs a CUDA GPU'),
    'options': ([DEMO, '--cfg-options', 'train_cfg.max_iters'], 'expected KEY=VALUE'),
    'section': ([DEMO, '--cfg-options', 'train_dataloder.batch_size=2'],
                "no 'train_dataloder'; did you mean 'train_dataloader'"),
    'resume': ([DEMO, '--resume', 'nothing.pth', '--cfg-options',
                'train_dataloader.dataset.data_root={data}',
                'val_dataloader.dataset.data_root={data}'],
               r'no checkpoint nothing.pth \(--resume\)'),
}


def run_and_read(function, argv, capsys):
    from mmpd.cli import run_tool
    with pytest.raises(SystemExit) as stop:
        run_tool(function, argv)
    assert stop.value.code == 2
    return capsys.readouterr().err.strip()


@pytest.mark.skipif(torch.cuda.is_available(), reason='some of these are fine with a GPU')
@pytest.mark.parametrize('case', WRONG)
def test_wrong_input_is_one_line_and_code_2(case, data, capsys):
    (config, *arguments), message = WRONG[case]
    arguments = [argument.format(data=data) for argument in arguments]
    said = run_and_read(run_train, [str(CONFIGS / config), *arguments], capsys)
    assert '\n' not in said

    assert re.search(message, said), said


@pytest.fixture(scope='module')
def weights():
    """What the tiny demo model consists of."""
    cfg = Config.fromfile(CONFIGS / DEMO)
    cfg.merge_from_dict(numbers(TINY))
    return MODELS.build(cfg.model).state_dict()


def numbers(pairs):
    return {key: int(value) for key, value in (pair.split('=') for pair in pairs)
            if key.startswith('model.')}


def without(state, *starts):
    return {key: value for key, value in state.items() if not key.startswith(starts)}


def partly(state):
    """Without the decoder, one tensor of another shape, one more."""
    state = without(state, 'generator.decoder.')
    key = 'generator.encoder.0.1.weight'
    return {**state, key: state[key][:1], 'generator.more': torch.ones(1)}


def test_half_a_checkpoint_is_none(data, tmp_path, capsys, weights):
    """The tools end; test_checkpoint_matching.py has what else is no whole checkpoint."""
    path = tmp_path / 'half.pth'
    torch.save(dict(state_dict=partly(dict(weights))), path)
    config, work_dir = str(CONFIGS / DEMO), str(tmp_path / 'w')
    for function, argv in (
            (run_test, [config, str(path), '--work-dir', work_dir, *options(data, name='half1')]),
            (run_train, [config, '--work-dir', work_dir,
                         *options(data, f'load_from={path}', name='half0')])):
        said = run_and_read(function, argv, capsys).splitlines()[-1]
        assert 'is not one of this config' in said and '--allow-partial' in said, said
    assert not list(tmp_path.glob('w/**/*.pth'))


def test_allow_partial_says_what_stays_random(data, tmp_path, weights):
    torch.save(dict(state_dict=partly(dict(weights))), tmp_path / 'half.pth')
    config = str(CONFIGS / DEMO)
    run_train([config, '--allow-partial', '--work-dir', str(tmp_path / 'w'), *options(
        data, f'load_from={tmp_path}/half.pth', 'train_cfg.max_iters=1', name='partial')])
    log = next((tmp_path / 'w').glob('*/*.log')).read_text()
    said, = (line for line in log.splitlines() if '--allow-partial:' in line)
    assert re.search(r'stay as initialised: .*generator.decoder \(\d+\)', said)
    assert 'generator.encoder (1)' in said and 'of the file 1 are not used' in said
    run_test([config, str(tmp_path / 'half.pth'), '--allow-partial', '--work-dir',
              str(tmp_path / 't'), *options(data, name='partial2')])


def test_a_published_generator_in_safetensors(data, tmp_path, weights):
    path = tmp_path / 'generator.safetensors'
    save_file(without(weights, 'discriminator', 'step_counter'), path)
    config = str(CONFIGS / DEMO)
    run_test([config, str(path), '--work-dir', str(tmp_path / 't'), *options(data, name='st1')])
    run_train([config, '--work-dir', str(tmp_path / 'w'), *options(
        data, f'load_from={path}', 'train_cfg.max_iters=1', name='st2')])
    log = next((tmp_path / 'w').glob('*/*.log')).read_text()
    assert 'has no discriminator: it stays as initialised' in log


def test_a_run_is_not_resumed_from_half_of_it(data, tmp_path, capsys, weights):
    rest = dict(meta=dict(epoch=0, iter=1), message_hub={}, optimizer={})
    config = str(CONFIGS / DEMO)
    torch.save(dict(state_dict=without(weights, 'discriminator.'), **rest), tmp_path / 'half.pth')
    said = run_and_read(run_train, [
        config, '--resume', str(tmp_path / 'half.pth'), '--work-dir', str(tmp_path / 'w'),
        *options(data, name='half')], capsys).splitlines()[-1]
    assert re.search('"discriminator.*is not in the file', said)
    (tmp_path / 'w/last_checkpoint').write_text(str(tmp_path / 'half.pth'))  # config: resume=True
    said = run_and_read(run_train, [
        config, '--work-dir', str(tmp_path / 'w'), *options(data, 'resume=True', name='half2')],
        capsys).splitlines()[-1]
    assert re.search('"discriminator.*is not in the file', said)


def test_an_address_is_checked_before_anything_is_built(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    for function, more in ((run_test, ['http://127.0.0.1:9/x.pth']), (run_train, [])):
        said = run_and_read(function, [
            str(CONFIGS / DEMO), *more, '--work-dir', str(tmp_path / 'w'),
            *options(data, 'load_from=http://127.0.0.1:9/x.pth', name='address')], capsys)
        assert '\n' not in said
        assert 'cannot download http://127.0.0.1:9/x.pth' in said and 'put the file at' in said
    assert not list((tmp_path / 'w').glob('*'))  # that the folder can be made was tried


def test_wrong_checkpoints(data, tmp_path, capsys):
    config = str(CONFIGS / DEMO)
    broken, evil = tmp_path / 'broken.pth', tmp_path / 'evil.pth'
    broken.write_bytes(b'not a checkpoint')
    torch.save(dict(state_dict={}, meta=Path('x')), evil)
    for path, message in ((tmp_path / 'none.pth', 'no checkpoint'), (broken, 'cannot be read'),
                          (evil, 'asks for pathlib')):
        said = run_and_read(run_test, [
            config, str(path), '--work-dir', str(tmp_path / 'w'),
            *options(data, name=path.stem)], capsys)
        assert message in said.splitlines()[-1] and path.name in said
        assert 'Traceback' not in said and 'weights_only' not in said
