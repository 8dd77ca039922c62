"""The systems of Table 3 under the test command, side by side, and all at once."""
import mmpd  # noqa: F401  isort: skip  (its stand-ins come before mmagic's models)
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import load_script
from mmagic.registry import MODELS
from mmengine.config import Config

from mmpd.apis import PDInferencer
from mmpd.cli.test import test as run_test
from mmpd.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
table3, cost, compare = (load_script(f'tools/{name}.py') for name in (
    'benchmark/table3', 'benchmark/table3_cost', 'analysis_tools/compare_results'))

WIDTHS = {4: 8, 8: 8, 16: 6, 32: 6, 64: 4}
TINY = dict(
    gpen=dict(net_size=32, style_channels=8, num_mlps=1, channels=WIDTHS),
    gfpgan=dict(net_size=32, style_channels=8, num_mlps=1, channels=WIDTHS),
    psp=dict(prior_size=64, encoder_size=32, style_channels=8, num_mlps=1, channels=WIDTHS,
             encoder_channels=(4, 4, 6, 8), encoder_depths=(1, 1, 1, 1)),
    pulse=dict(style_channels=6, channels=WIDTHS, steps=3))
SYSTEMS = ('pulse_100steps', 'psp_ir-se50', 'gfpgan_clean', 'gpen_bfr-512')
NAMES = [f'{pd}{system}_x16_celeba-hq' for system in SYSTEMS for pd in ('', 'pd_')]
NAMES.insert(2, 'pd_pulse_inside-100steps_x16_celeba-hq')


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    """Small versions of all systems: configs, checkpoints, GT images of 64 px."""
    root = tmp_path_factory.mktemp('table3')
    (root / 'data' / 'GT').mkdir(parents=True)
    for index in range(2):
        image = cv2.resize(np.random.default_rng(index).integers(
            0, 256, (8, 8, 3), dtype=np.uint8), (64, 64), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(root / 'data' / 'GT' / f'{index}.png'), image)
    (root / 'data' / 'meta_info_test.txt').write_text('0.png (64, 64, 3)\n1.png (64, 64, 3)\n')
    (root / 'configs').mkdir()
    (root / 'checkpoints').mkdir()
    for name in NAMES:
        system = name.removeprefix('pd_').split('_')[0]
        generator = dict(in_size=4, out_size=64, **TINY[system])
        path = root / 'configs' / f'{name}.py'
        path.write_text(f"_base_ = '{table3.config_of(name)}'\n"
                        f'model = dict(generator={generator!r})\n'
                        f"test_dataloader = dict(num_workers=0, persistent_workers=False, "
                        f"dataset=dict(data_root='{root}/data'))\n"
                        "visualizer = dict(img_keys=['pred_img'])\n")
        if not name.startswith('pd_'):
            torch.manual_seed(0)
            model = MODELS.build(Config.fromfile(path).model)
            torch.save(dict(state_dict=model.state_dict()), root / 'checkpoints' / f'{name}.pth')
    return root


@pytest.mark.parametrize('name', NAMES)
def test_every_system_runs_under_the_test_command(name, world):
    checkpoint = table3.find_checkpoint(world / 'checkpoints', name)
    assert checkpoint.stem == table3.weights_of(name)[-1]
    out = world / f'{name}.json'
    run_test([str(world / 'configs' / f'{name}.py'), str(checkpoint), '--out', str(out),
              '--work-dir', str(world / 'work' / name), '--cfg-options',
              f'experiment_name={name}'])
    metrics = json.loads(out.read_text())
    assert np.isfinite(metrics['PSNR']) and metrics['SSIM'] <= 1
    if name.startswith('pd_'):
        assert metrics['PSNR_LR'] > 100 or metrics['MaxErr_LR_8bit'] == 0
    else:
        assert metrics['PSNR_LR'] < 60


def test_results_side_by_side(world):
    """As Figures 1, 5 and 11 are made."""
    runs = [name for name in NAMES if list((world / 'work' / name).glob('**/vis_image/*.png'))]
    if len(runs) < 2:
        pytest.skip('the tests above did not run')
    argv = [part for name in runs for part in ('--run', f'{name}={world / "work" / name}')]
    out = world / 'figure.png'
    assert compare.main([*argv, '--gt', str(world / 'data' / 'GT'), '--scale', '16', '--out',
                         str(out)]) == 0
    assert cv2.imread(str(out)).shape[1] > 64 * (len(runs) + 2)


@pytest.mark.parametrize('name', ['pd_gpen_bfr-512_x16_celeba-hq', 'pulse_100steps_x16_celeba-hq'])
def test_one_lr_without_gt(name, world):
    checkpoint = table3.find_checkpoint(world / 'checkpoints', name)
    infer = PDInferencer(str(world / 'configs' / f'{name}.py'), str(checkpoint), device='cpu')
    lr = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = infer(lr)
    assert image.shape == (64, 64, 3)
    assert np.array_equal(image.reshape(4, 16, 4, 16, 3).mean((1, 3)), lr)  # without PD it is added


@pytest.mark.parametrize('name, other', [
    ('gpen_bfr-512_x16_celeba-hq', 'gfpgan_clean_x16_celeba-hq'),
    pytest.param('pulse_100steps_x16_celeba-hq', 'psp_ir-se50_x16_celeba-hq',
                 marks=pytest.mark.slow)])
def test_weights_of_another_system_are_one_error(name, other, world):
    with pytest.raises(InputError, match='is not one of this config'):
        run_test([str(world / 'configs' / f'{name}.py'),
                  str(world / 'checkpoints' / f'{other}.pth'), '--work-dir', str(world / 'wrong'),
                  '--cfg-options', f'experiment_name=x{name}'])


def test_where_checkpoints_are_looked_for(tmp_path):
    name = 'pd_gpen_bfr-512_x16_celeba-hq'
    assert table3.find_checkpoint(tmp_path, name) is None
    plain = tmp_path / 'gpen_bfr-512_x16_celeba-hq.pth'
    plain.touch()
    assert table3.find_checkpoint(tmp_path, name) == plain
    (tmp_path / f'{name}.pth').touch()
    assert table3.find_checkpoint(tmp_path, name) == tmp_path / f'{name}.pth'
    assert table3.weights_of('pd_pulse_inside-100steps_x16_celeba-hq')[-1] == \
        'pulse_100steps_x16_celeba-hq'
    trained = 'pd_glean_x16_1xb4-300k_ffhq'
    (tmp_path / 'glean_x16_1xb4-300k_ffhq.pth').touch()
    assert table3.find_checkpoint(tmp_path, trained) is None  # trained without PD: another row
    (tmp_path / trained).mkdir()
    for iteration in (95000, 300000, 5000):
        (tmp_path / trained / f'iter_{iteration}.pth').touch()
    assert table3.find_checkpoint(tmp_path, trained).name == 'iter_300000.pth'
    published = tmp_path / f'{trained}_20260101-0123abcd.pth'
    published.touch()
    assert table3.find_checkpoint(tmp_path, trained) == published
    (tmp_path / f'{trained}_20260102-0123abcd.pth').touch()
    with pytest.raises(table3.InputError, match='2 checkpoints of pd_glean'):
        table3.find_checkpoint(tmp_path, trained)


def fake_tests(monkeypatch, failing=()):
    """In place of tools/test.py: a result file as it leaves one, or a failure."""
    calls = []

    def call(command):
        config, checkpoint, work = command[2], command[3], Path(command[5])
        calls.append((Path(config).stem, Path(checkpoint).name, command[7:]))
        if work.name in failing:
            return 1
        result = work / '20260101_000000' / '20260101_000000.json'
        result.parent.mkdir(parents=True)
        result.write_text(json.dumps(dict(PSNR=25.5, SSIM=0.75, MS_SSIM=0.8, FID=20.)))
        return 0

    monkeypatch.setattr(table3.subprocess, 'call', call)
    return calls


def test_all_rows_with_a_checkpoint_are_tested_and_the_others_listed(tmp_path, monkeypatch, capsys):
    for system in ('gpen_bfr-512', 'pulse_100steps'):
        (tmp_path / f'{system}_x16_celeba-hq.pth').touch()
    calls = fake_tests(monkeypatch, failing=['gpen_bfr-512_x16_celeba-hq'])
    argv = ['--checkpoints', str(tmp_path), '--work-dirs', str(tmp_path / 'work')]
    assert table3.main([*argv, '--cfg-options', 'a.b=1']) == 1  # one failed
    out = capsys.readouterr().out
    assert [name for name, *_ in calls] == [
        'pulse_100steps_x16_celeba-hq', 'pd_pulse_100steps_x16_celeba-hq',
        'pd_pulse_inside-100steps_x16_celeba-hq', 'gpen_bfr-512_x16_celeba-hq',
        'pd_gpen_bfr-512_x16_celeba-hq']
    assert all('a.b=1' in options and 'test_cfg.metrics=SRFID,PairedMSSSIM' in options
               for *_, options in calls)
    for method in ('pSp', 'pSp w/ PD', 'GFPGAN', 'Panini', 'GLEAN w/ PD'):
        assert f'{method}: skipped, no ' in out
        assert f'| Face | {method} | missing' in out
    assert 'failed: GPEN\n' in out and '| Face | GPEN | missing (26.07)' in out
    assert '| Face | PULSE | 25.50 (21.68) | 0.750 (0.676) | 0.800 (0.596) | 20.00 (42.71) |' in out
    assert '| Face | GPEN w/ PD | 25.50 | 0.750 | 0.800 | 20.00 |' in out


def test_some_rows_or_none(tmp_path, monkeypatch, capsys):
    (tmp_path / 'gpen_bfr-512_x16_celeba-hq.pth').touch()
    calls = fake_tests(monkeypatch)
    argv = ['--checkpoints', str(tmp_path), '--work-dirs', str(tmp_path / 'work')]
    assert table3.main([*argv, '--dry-run']) == 0 and not calls
    assert table3.main([*argv, '--rows', 'pd_gpen_bfr-512_x16_celeba-hq', '--metrics', '',
                        '--format', 'json', '--out', str(tmp_path / 'table.json')]) == 0
    assert len(calls) == 1 and not any('metrics' in option for option in calls[0][2])
    rows = json.loads((tmp_path / 'table.json').read_text())['rows']
    assert len(rows) == 13 and sum(row['ours']['PSNR'] is not None for row in rows) == 1
    for bad, message in ((['--checkpoints', str(tmp_path / 'none')], 'no folder'),
                         ([*argv, '--rows', 'gpen'], 'gpen is no row of Table 3')):
        with pytest.raises(SystemExit) as stop:
            table3.main(bad)
        error = capsys.readouterr().err
        assert stop.value.code == 2 and message in error and error.count('\n') == 1


def test_cost_of_an_image(world):
    costs = cost.costs_tool()
    results = {name: cost.measure_image(Config.fromfile(world / 'configs' / f'{name}.py'), costs)
               for name in ('gpen_bfr-512_x16_celeba-hq', 'pulse_100steps_x16_celeba-hq')}
    for result in results.values():
        assert result['test_bytes'] > 4 * result['parameters'] > 0 and result['seconds'] > 0
        result['training'] = None
    text = cost.table(results)
    assert text.count('\n') == 3 and '| - | - |' in text
    assert results['pulse_100steps_x16_celeba-hq']['steps'] == 3


def test_documented_costs_are_the_measured_ones():
    results = json.loads((ROOT / 'docs' / 'table3_cost.json').read_text())
    assert cost.table(results) in (ROOT / 'docs' / 'table3_cost.md').read_text()
    assert [Path(name).name for name in cost.CONFIGS] == list(results)
