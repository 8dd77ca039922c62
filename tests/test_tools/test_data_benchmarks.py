"""The benchmarks of the data path run, report what they should, and refuse bad arguments."""
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import load_script


@pytest.fixture(scope='module')
def converter():
    return load_script('tools/analysis_tools/benchmark_converter.py')


@pytest.fixture(scope='module')
def data():
    return load_script('tools/benchmark/data.py')


@pytest.fixture(scope='module')
def measuring():
    return load_script('tools/benchmark/measuring.py')


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_converter_and_loop_make_the_same_files(converter, tmp_path):
    sources = converter.make_sources(tmp_path, 2, 96)
    args = converter.parse_args(['--images', '2', '--size', '96', '--workers', '1'])
    for mode, (kind, shrink, *_) in converter.MODES.items():
        made = {}
        for who, function in converter.both(mode, sources, args).items():
            out = tmp_path / mode / who
            function(out)
            made[who] = sorted((path.stem, len(cv2.imread(str(path))))
                               for path in out.rglob('*.png'))
        assert made['converter'] == made['loop'], mode
        count = 2 * (converter.SMALL if kind == 'lmdb' else 1)
        assert len(made['loop']) == count * len({size for _, size in made['loop']})
        assert {size for _, size in made['loop']} <= {96 // shrink, 96 // shrink // 8}


def test_converter_benchmark(converter, tmp_path, capsys):
    assert converter.main(['--images', '2', '--size', '96', '--rounds', '2', '--workers', '1',
                           '--modes', 'LR only', 'GT linked, and LR', '--out',
                           str(tmp_path / 'speed')]) == 0
    text = (tmp_path / 'speed.md').read_text()
    assert text.strip() in capsys.readouterr().out
    report = json.loads((tmp_path / 'speed.json').read_text())
    assert report['versions']['torch'] == torch.__version__.split('+')[0] or torch.__version__
    assert {'machine', 'load', 'commit', 'date'} <= set(report)
    for mode, row in report['modes'].items():
        speed = row['images_per_second']
        assert row['ratio']['low'] <= row['ratio']['median'] <= row['ratio']['high']
        assert speed['loop']['median'] > 0 and f'| {mode} |' in text
    assert 'cpu_ratio_to_lr_only' in report['modes']['GT linked, and LR']
    for wrong in (['--size', '100'], ['--rounds', '0'], ['--out', str(tmp_path / 'no' / 'x')],
                  ['--modes', 'fast']):
        with pytest.raises(SystemExit) as stop:
            converter.main(wrong)
        assert stop.value.code == 2


def test_data_benchmark(data, tmp_path, capsys):
    assert data.main(['--size', '64', '--gt-size', '64', '--configs', 'pd_glean_x8_1xb4-100k_ffhq',
                      '--images', '2', '--rounds', '2', '--repeats', '1',
                      '--workers', '1', '--seconds', '0.05', '--tflops', '100', '--out',
                      str(tmp_path / 'data')]) == 0
    report = json.loads((tmp_path / 'data.json').read_text())
    text = (tmp_path / 'data.md').read_text()
    assert report['synthesis'][data.PEER]['ratio'] == dict(median=1, low=1, high=1, least=1,
                                                              rounds=2)
    assert {'PIL BICUBIC', "MMagic's MATLABLikeResize"} <= set(report['synthesis'])
    assert report['pixels']['LR by pil']['other'] == 0 < report['pixels']['LR by float']['other']
    assert report['pixels']['LR by float']['largest'] <= report['pixels']['LR by pil']['largest']
    (name, row), = report['loader'].items()
    assert list(row['stages_ms']) == ['LoadImageFromFile', 'Flip', 'LRSynthesis', 'PackInputs',
                                      'all']
    assert row['batch'] == 4 and row['images_per_second']['1']['median'] > 0
    need, = row['needs']
    assert need['step_ms'] == pytest.approx(row['flop'] / 1e11)
    assert f"| {need['workers']} |" in text and name in text
    capsys.readouterr()
    for wrong in (['--tflops', '0'], ['--configs', 'glean'], ['--size', '100'],
                  ['--out', str(tmp_path / 'no' / 'x')]):
        with pytest.raises(SystemExit) as stop:
            data.main(wrong)
        assert stop.value.code == 2


def test_workers_needed(data):
    """4 images in 0.1 s are 40 per second; four times as many, at 30 each, want six workers."""
    need = data.workers_needed(flop=10e12, batch=4, per_worker=30, tflops=100, margin=4)
    assert need == dict(tflops=100, step_ms=pytest.approx(100), images_per_second=40, workers=6)


def test_compared_methods_give_the_same_image(data):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    made = {name: function() for name, function in data.methods(image, 8).items()}
    peer = made[data.PEER][0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(made['LRSynthesis, bicubic (torch_uint8)'], peer)
    np.testing.assert_array_equal(made["LRSynthesis, bicubic, made_by='pil'"],
                                  np.asarray(made['PIL BICUBIC']))


def test_rounds_are_interleaved_and_compared_one_by_one(measuring):
    called = []
    times = measuring.interleaved({name: lambda name=name: called.append(name) for name in 'ab'},
                                  rounds=6, warm_up=1, measure=lambda function: function() or 2)
    assert times == dict(a=[2] * 6, b=[2] * 6)
    pairs = [''.join(called[i:i + 2]) for i in range(0, 14, 2)]
    assert set(pairs) == {'ab', 'ba'}
    assert measuring.ratio([1, 9], [1, 3]) == dict(median=2, low=1.5, high=2.5, least=1, rounds=2)


def test_cpu_time_counts_the_processes_that_were_started(measuring):
    import subprocess
    import sys
    wall, cpu = measuring.measured(lambda: subprocess.run(
        [sys.executable, '-S', '-c', 'sum(range(3_000_000))'], check=True))
    assert 0.01 < cpu < 30 and wall > 0


def test_the_pages_are_what_the_scripts_print(converter, data):
    docs = Path(__file__).parents[2] / 'docs'
    for name, tool in (('benchmark_converter', converter), ('benchmark_data', data)):
        report = json.loads((docs / f'{name}.json').read_text())
        assert tool.markdown(report) == (docs / f'{name}.md').read_text().rstrip('\n')
