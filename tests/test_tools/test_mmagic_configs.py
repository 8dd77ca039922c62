"""PD for MMagic's own configs through tools/train.py and tools/test.py; the table of which can."""
import json
import re
from pathlib import Path

import mmagic
import numpy as np
import pytest
from conftest import load_script
from PIL import Image

from mmpd.cli import settings
from mmpd.cli.test import test as run_test
from mmpd.cli.train import train as run_train

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs' / 'mmagic_models.md'
MMAGIC = Path(mmagic.__file__).parent / '.mim' / 'configs'
SWINIR = 'mmagic::swinir/swinir_x4s48w8d6e180_8xb4-lr2e-4-500k_div2k.py'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    rng = np.random.default_rng(0)
    for name, side in (('GT', 64), ('LR', 16)):
        (folder / name).mkdir()
        for index in range(2):
            coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((side, side)).save(folder / f'{name}/{index}.png')
    return folder


def swinir(folder, data, head='', **model):
    """MMagic's SwinIR config, its network small and its data another; its loops stay."""
    path = folder / 'swinir.py'
    path.write_text(f'''_base_ = {SWINIR!r}
custom_imports = dict(imports=['mmpd'], allow_failed_imports=False)
{head}
one = dict(batch_size=1, num_workers=0, dataset=dict(
    data_root={str(data)!r}, data_prefix=dict(img='LR', gt='GT'), ann_file=''))
train_dataloader = one
val_dataloader = one
test_dataloader = [dict(_base_.test_dataloader[0], **one)]
test_dataloader[0]['dataset'] = dict(_base_.test_dataloader[0]['dataset'], **one['dataset'])
test_evaluator = [_base_.test_evaluator[0]]
model = dict(type='PDModel', generator=dict(
    depths=[1], embed_dim=8, num_heads=[1], img_size=8, window_size=8))
train_pipeline = _base_.train_pipeline
train_dataloader['dataset'] = dict(one['dataset'], pipeline=[
    *[step for step in train_pipeline if step['type'] != 'PairedRandomCrop']])
train_cfg = dict(max_iters=2, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=2))
''')
    return str(path)


def test_pd_on_swinir_trains_and_tests(data, tmp_path, monkeypatch):
    config, said = swinir(tmp_path, data), []
    monkeypatch.setattr(settings, 'print_log', lambda text, *_, **__: said.append(text))
    run_train([config, '--work-dir', str(tmp_path / 'w'), '--cfg-options', 'experiment_name=s1'])
    log, = (tmp_path / 'w').glob('*/*.log')
    # validated by MMagic's loop, LRConsistency added
    assert 'PSNR_LR:' in log.read_text()
    assert any('LRConsistency is measured too' in text for text in said)
    run_test([config, str(tmp_path / 'w/iter_2.pth'), '--out', str(tmp_path / 'm.json'),
              '--work-dir', str(tmp_path / 't'), '--cfg-options', 'experiment_name=s2'])
    metrics = json.loads((tmp_path / 'm.json').read_text())
    prefix = next(key for key in metrics if key.endswith('/PSNR')).split('/')[0]
    assert metrics[f'{prefix}/PSNR_LR'] > 100 and metrics[f'{prefix}/MaxErr_LR_8bit'] == 0


def test_the_page_lists_mmagics_configs_of_today():
    script = load_script('tools/analysis_tools/mmagic_models.py')
    rows = script.read_page(PAGE.read_text())
    assert set(rows) == {str(path.relative_to(MMAGIC)) for path in script.configs(MMAGIC)}


@pytest.mark.parametrize('name', [
    'edsr/edsr_x2c64b16_1xb16-300k_div2k.py', 'srcnn/srcnn_x4k915_1xb16-1000k_div2k.py',
    'edvr/edvrm_8xb4-600k_reds.py', 'glean/glean_x16_2xb8_cat.py'])
def test_a_row_of_the_page_is_what_the_script_says(name):
    script = load_script('tools/analysis_tools/mmagic_models.py')
    rows = script.read_page(PAGE.read_text())
    assert rows[name] == script.judge(MMAGIC / name)


def test_all_super_resolvers_can():
    text = PAGE.read_text()
    for method in ('edsr', 'esrgan', 'real_esrgan', 'rdn', 'srcnn', 'srgan_resnet', 'glean'):
        lines = [line for line in text.splitlines() if line.startswith(f'| `{method}/')]
        assert lines and all(re.search(r'\| PD\w+', line) for line in lines), method
