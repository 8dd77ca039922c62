"""What a config costs: the meta device gives what a real run takes."""
import mmpd  # noqa: F401  isort: skip  (its stand-ins come before mmagic's models)
import json
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from conftest import load_script
from mmagic.models.editors.stylegan2.stylegan2_modules import ModulatedStyleConv
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmpd.models.generators.style_conv import StyleConv

ROOT = Path(__file__).resolve().parents[2]
has_fallthrough = pytest.mark.skipif(not hasattr(torch.library, 'fallthrough_kernel'),
                                     reason='PyTorch 2.2')


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


def small(name):
    """One of the paper's configs with a small network."""
    cfg = Config.fromfile(next((ROOT / 'configs').glob(f'*/{name}.py')))
    widths = {4: 16, 8: 16, 16: 16, 32: 16}
    cfg.model.generator.update(in_size=16, out_size=32, style_channels=16, num_mlps=1,
                               rrdb_channels=32, num_rrdbs=1, growth_channels=16, channels=widths)
    cfg.model.discriminator.update(in_size=32, channels=widths)
    cfg.train_dataloader.batch_size = 16
    return cfg


@pytest.mark.parametrize('method', ['glean', 'panini', 'pdn'])
def test_checkpointing_reaches_every_part(tool, method):
    cfg = tool.with_checkpointing(small(f'{method}_x8-alias_1xb4-100k_ffhq'))
    parts = [cfg.model.get(part) for part in ('generator', 'discriminator', 'perceptual_loss')]
    assert all(part.with_cp for part in parts if part)
    assert tool.build(cfg, 'meta').generator.generator.with_cp


class Seen(TorchDispatchMode):
    """What is computed, of which types."""

    def __init__(self):
        super().__init__()
        self.ops = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        taken, given = ([(leaf.dtype, tuple(leaf.shape)) for leaf in tree_leaves(tree)
                         if isinstance(leaf, torch.Tensor)] for tree in ((args, kwargs), result))
        moved = str(func) == 'aten._to_copy.default' and taken == given  # to the device
        if given and not moved:
            # the rest of what is given: statistics of batch normalisation, one number per channel
            self.ops.append((str(func), taken, given[:1]))
        return result


def forward_passes(tool, cfg, device):
    """What the forward passes of a training step compute under autocast of a device."""
    init_default_scope('mmagic')
    model, mode = tool.build(cfg, 'meta').train(), tool.fake_mode()
    tool.make_fake(model, mode, device)
    with mode, Seen() as seen:
        lr, gt = (torch.empty(1, 3, size, size, device=device) for size in (16, 32))
        with torch.autocast(device, torch.bfloat16):
            image = model.forward_train(lr)
        with torch.autocast(device, torch.bfloat16):
            model.g_step(image, gt)
            model.d_step_real(image.detach(), gt)
    return seen.ops


@contextmanager
def as_with_a_gpu():
    with (mock.patch('mmengine.runner.amp.get_device', lambda: 'cuda'),
          mock.patch('torch.cuda.amp.common.amp_definitely_not_available', lambda: False),
          mock.patch('torch.cuda.is_bf16_supported', lambda: True)):
        yield


@has_fallthrough
@pytest.mark.parametrize('name', [
    'pdn_x8-alias_1xb4-100k_ffhq',
    *(pytest.param(f'{method}_x8_1xb4-100k_ffhq', marks=pytest.mark.slow)
      for method in ('pd_glean', 'pd_panini'))])
def test_casts_are_those_of_a_gpu(tool, name):
    with tool.cuda_autocast():
        counted = forward_passes(tool, small(name), 'cpu')
    with as_with_a_gpu():
        real = forward_passes(tool, small(name), 'cuda')
    assert counted == real
    assert any(torch.bfloat16 in dict(given) for _, _, given in real)


OPERATIONS = dict(
    conv=lambda x, half: F.conv2d(x, x), product=lambda x, half: x[0, 0] @ half[0, 0],
    vector=lambda x, half: torch.mv(x[0, 0], half[0, 0, 0]),
    dot=lambda x, half: torch.dot(x[0, 0, 0], half[0, 0, 0]),
    concatenated=lambda x, half: torch.cat([x, half]),
    stacked=lambda x, half: torch.stack([half, half]),
    padded=lambda x, half: F.pad(half, (1, 1, 1, 1), 'reflect'),
    softmax=lambda x, half: half.softmax(1), total=lambda x, half: half.sum(),
    double=lambda x, half: x.double().norm(2, 1), integers=lambda x, half: x.long().sum(1),
    norm=lambda x, half: half.norm(2, 1, True), power=lambda x, half: half**2,
    given=lambda x, half: half.sum(1, dtype=torch.float64), mean=lambda x, half: half.mean(),
    larger=lambda x, half: F.interpolate(half, scale_factor=2, mode='bilinear'),
    loss=lambda x, half: F.mse_loss(half, x), normed=lambda x, half: F.layer_norm(half, (4, )))


@has_fallthrough
@pytest.mark.parametrize('operation', OPERATIONS.values(), ids=OPERATIONS)
def test_operations_are_cast_as_on_a_gpu(tool, operation):
    found = []
    for device, way in (('cpu', tool.cuda_autocast()), ('cuda', as_with_a_gpu())):
        with way, tool.fake_mode(), torch.autocast(device, torch.bfloat16):
            x = torch.empty(1, 1, 4, 4, device=device)
            found.append(operation(x, x.bfloat16()).dtype)
    assert found[0] == found[1]


@has_fallthrough
def test_cpus_cast_as_before_afterwards(tool):
    def kind():
        with torch.autocast('cpu', torch.bfloat16):
            return torch.ones(2, dtype=torch.bfloat16).softmax(0).dtype

    with tool.cuda_autocast():
        assert kind() == torch.float32
    assert kind() == torch.bfloat16


@has_fallthrough
@pytest.mark.parametrize('with_cp', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_amp_is_counted_as_a_cpu_run_takes_it(tool, monkeypatch, with_cp):
    monkeypatch.setattr(StyleConv, 'forward', ModulatedStyleConv.forward)
    init_default_scope('mmagic')
    cfg = small('pd_glean_x8_1xb4-100k_ffhq')
    cfg.model.perceptual_loss = None
    cfg = tool.with_checkpointing(cfg) if with_cp else cfg
    full, counted, real = (tool.peak(*tool.trainer(cfg, 'meta')), tool.amp_peak(cfg),
                           tool.amp_peak(cfg, fake=False))
    assert counted == pytest.approx(real, rel=1e-3)
    assert counted < (0.95 if with_cp else 0.8) * full


@pytest.mark.slow
def test_pd_costs_next_to_nothing(tool):
    plain, pd = (tool.measure(demo(method)) for method in ('glean', 'pd_glean'))
    assert pd['parameters'] == plain['parameters']
    assert plain['train_flop'] <= pd['train_flop'] < 1.001 * plain['train_flop']


def test_bad_arguments(tool, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('a', 'b'):
        Path(name).mkdir()
        Path(name, 'x.py').touch()
    for argv, message in ((['no.py'], 'no config no.py'), (['--tflops', '0'], 'positive'),
                          (['--tflops', 'nan'], 'positive'),
                          (['a/x.py', 'b/x.py'], 'different names, got x twice'),
                          (['--out', 'a/x.py/y'], '--out: ')):
        with pytest.raises(SystemExit) as stop:
            tool.parse_args(argv)
        assert stop.value.code == 2 and message in capsys.readouterr().err


def test_documented_figures_are_the_measured_ones(tool):
    costs = json.loads((ROOT / 'docs' / 'training_cost.json').read_text())
    assert tool.table(costs, 10) in (ROOT / 'docs' / 'training_cost.md').read_text()
    text = (ROOT / 'docs' / 'reproduction.md').read_text()
    glean = {key: f'{size / 1e9:.1f}' for key, size in costs['pd_glean_x8_1xb4-100k_ffhq'].items()}
    assert ('{amp_bytes} GB for 8x faces in bf16, and less than 10 GB only with `with_cp`: '
            '{amp_cp_bytes} GB, where float32 with `with_cp` takes {cp_bytes}.'.format(**glean)
            ) in text.replace('\n', ' ')
    more = max(cost['cp_flop'] / cost['train_flop'] for cost in costs.values())
    assert f'at most {more:.2f} times the arithmetic' in text
    fits = costs['pdn_x8-alias_1xb4-100k_ffhq']['cp_bytes'] / 1e9
    assert f'PDN with `with_cp` ({fits:.1f} GB)' in text
    lines = text.splitlines()
    for name, cost in costs.items():
        hours = cost['train_flop'] * cost['iterations'] / 3.6e16
        memory = f'{cost["train_bytes"] / 1e9:.0f} GB ({cost["cp_bytes"] / 1e9:.0f})'
        cell = f'| {memory}, {hours:.0f} h |'
        assert sum(f'[{name}](' in line and cell in line for line in lines) == 1, name


@pytest.mark.slow
def test_a_documented_figure_is_measured_again(tool):
    costs = json.loads((ROOT / 'docs' / 'training_cost.json').read_text())
    name = 'pd_glean_x8_1xb4-100k_cat'
    path = ROOT / 'configs' / 'pd_glean' / f'{name}.py'
    again = {**tool.measure(path), **tool.measure_amp(path)}
    assert again == pytest.approx(costs[name], rel=1e-3)
