"""What a config costs: the meta device gives what a real run takes."""
import mmpd  # noqa: F401  isort: skip  (its stand-ins come before mmagic's models)
import json
from pathlib import Path

import pytest
from conftest import load_script
from mmagic.models.editors.stylegan2.stylegan2_modules import ModulatedStyleConv
from mmengine.config import Config

from mmpd.models.generators.style_conv import StyleConv

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def tool():
    return load_script('tools/analysis_tools/training_cost.py')


def demo(method):
    cfg = Config.fromfile(next((ROOT / 'configs' / method).glob('*_demo.py')))
    cfg.train_dataloader.batch_size = 2
    return cfg


def test_meta_device_counts_what_a_cpu_run_takes(tool, monkeypatch):
    # a GPU's route through the style convolutions, which is what is counted
    monkeypatch.setattr(StyleConv, 'forward', ModulatedStyleConv.forward)
    shapes, real = (tool.measure(demo('pd_glean'), device) for device in ('meta', 'cpu'))
    assert shapes.pop('mmagic_bytes') is real.pop('mmagic_bytes') is None
    # a CPU's temporaries, and the other route that PD takes for small images, come on top
    assert shapes == pytest.approx(real, rel=5e-3) and real['train_flop'] > 1e9
    # weights, their gradients and Adam's two averages
    assert real['train_bytes'] > 4 * 4 * real['trainable']
    assert 4 * real['parameters'] < real['test_bytes'] < real['train_bytes']


@pytest.mark.slow
def test_pd_costs_next_to_nothing(tool):
    plain, pd = (tool.measure(demo(method)) for method in ('glean', 'pd_glean'))
    assert pd['parameters'] == plain['parameters']
    assert plain['train_flop'] <= pd['train_flop'] < 1.001 * plain['train_flop']


def test_bad_arguments(tool, capsys):
    for argv, message in ((['no.py'], 'no config no.py'), (['--tflops', '0'], 'positive')):
        with pytest.raises(SystemExit) as stop:
            tool.parse_args(argv)
        assert stop.value.code == 2 and message in capsys.readouterr().err


def test_documented_figures_are_the_measured_ones(tool):
    costs = json.loads((ROOT / 'docs' / 'training_cost.json').read_text())
    assert tool.table(costs, 10) in (ROOT / 'docs' / 'training_cost.md').read_text()
    lines = (ROOT / 'docs' / 'reproduction.md').read_text().splitlines()
    for name, cost in costs.items():
        hours = cost['train_flop'] * cost['iterations'] / 3.6e16
        memory = f'{cost["train_bytes"] / 1e9:.0f} GB ({cost["cp_bytes"] / 1e9:.0f})'
        cell = f'| {memory}, {hours:.0f} h |'
        assert sum(f'[{name}](' in line and cell in line for line in lines) == 1, name


@pytest.mark.slow
def test_a_documented_figure_is_measured_again(tool):
    costs = json.loads((ROOT / 'docs' / 'training_cost.json').read_text())
    name = 'pd_glean_x8_1xb4-100k_cat'
    again = tool.measure(ROOT / 'configs' / 'pd_glean' / f'{name}.py')
    assert again == pytest.approx(costs[name], rel=1e-3)
