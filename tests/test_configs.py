"""Every config parses and builds; every reduced one trains and tests; metafiles are in order."""
import ast
import json
import re
from fnmatch import fnmatch
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from mmagic.registry import MODELS
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from modelindex.load_model_index import load as load_model_index

ROOT = Path(__file__).resolve().parents[1]
METHODS = sorted(path.parent for path in (ROOT / 'configs').glob('*/metafile.yml'))
CONFIGS = sorted(path for path in (ROOT / 'configs').glob('*/*.py') if path.parent.name != '_base_')
REDUCED = [path for path in CONFIGS if path.stem.endswith('_demo')]
PRIOR_TRAININGS = [path for path in CONFIGS if path.stem.startswith('stylegan2_')]
TWINS = [(path, path.parents[1] / path.parent.name[3:] / path.name[3:]) for path in CONFIGS
         if path.parent.name.startswith('pd_')]
TWINS = [(pd, plain) for pd, plain in TWINS if plain.exists()]


def model_cfg(path):
    cfg = Config.fromfile(path)
    if cfg.model.get('perceptual_loss'):  # its VGG weights are a download
        cfg.model.perceptual_loss = None
    return cfg.model


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_builds(path):
    with torch.device('meta'):
        model = MODELS.build(model_cfg(path))
    assert sum(p.numel() for p in model.parameters()) > 1000


def test_config_names_are_unique():
    assert len({path.name for path in CONFIGS}) == len(CONFIGS)


@pytest.mark.parametrize('pd, plain', TWINS, ids=lambda path: path.parent.name + '/' + path.stem)
def test_twins_differ_only_in_what_pd_changes(pd, plain):
    x16 = '_x16_' in pd.stem
    pd, plain = Config.fromfile(pd).to_dict(), Config.fromfile(plain).to_dict()
    for cfg in (pd, plain):
        cfg['model'].pop('type')
        cfg['model'].pop('base', None)
    if cfg['model'].get('gan_loss'):
        weights = [cfg['model']['gan_loss'].pop('loss_weight') for cfg in (pd, plain)]
        if x16:
            assert weights == [1e-3, 1e-2]  # paper p. 5
        else:
            assert weights[0] == weights[1]
    assert pd == plain


PLAIN = [path for path in CONFIGS if path.parent.name in ('glean', 'panini', 'pdn')
         and not path.stem.startswith(('panini_mfr', 'panini_degradation'))]  # recipes of their own
BASES = ROOT / 'configs' / '_base_'


@pytest.mark.parametrize('path', PLAIN, ids=lambda path: path.stem)
def test_plain_config_is_short(path):
    """A comment, at most five bases, the prior, and what differs from both."""
    assert len(path.read_text().splitlines()) <= 11


def parents(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == '_base_':
            bases = ast.literal_eval(node.value)
            bases = [bases] if isinstance(bases, str) else bases
            return [path.parent / base for base in bases if '::' not in base]
    return []


def depth(path):
    return max((1 + depth(parent) for parent in parents(path)), default=0)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_inheritance_is_at_most_three_deep(path):
    assert depth(path) <= 3


def addresses(path):
    """Addresses of checkpoints in a file; in Python also those joined from several literals."""
    texts = [path.read_text()]
    if path.suffix == '.py':
        texts = [node.value for node in ast.walk(ast.parse(texts[0]))
                 if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return {found for text in texts for found in re.findall(r'https?://[^\s\'"`)]+\.pth', text)}


def test_prior_addresses_stand_once():
    used = {Config.fromfile(path).model.generator.init_cfg.checkpoint
            for path in PLAIN if path not in REDUCED}
    assert len(used) == 3
    files = {path: addresses(path) for folder in ('configs', 'docs', 'mmpd', 'tools', 'tests')
             for path in (ROOT / folder).rglob('*')
             if path.suffix in ('.py', '.md', '.yml', '.json') and '.mim' not in path.parts}
    for address in used:
        holders = [path for path, found in files.items() if address in found]
        assert [path.parent for path in holders] == [BASES / 'priors'], holders


@pytest.mark.parametrize('path', PLAIN, ids=lambda path: path.stem)
def test_sizes_follow_from_prior_and_scale(path):
    cfg = Config.fromfile(path)
    generator = cfg.model.generator
    assert generator.in_size * cfg.scale == generator.out_size
    assert cfg.model.discriminator.get('in_size', generator.out_size) == generator.out_size
    assert 'prior' not in cfg  # it has gone into the model
    scales = {step.scale for loader in (cfg.train_dataloader, cfg.val_dataloader)
              for step in loader.dataset.pipeline if step.type == 'LRSynthesis'}
    assert scales == {cfg.scale}


def test_sizes_can_be_overridden():
    cfg = Config.fromfile(ROOT / 'configs/pd_glean/pd_glean_x8_1xb4-100k_ffhq.py')
    before = cfg.to_dict()
    cfg.merge_from_dict({'model.generator.in_size': 256, 'model.discriminator.in_size': 512})
    before['model']['generator']['in_size'] = 256
    before['model']['discriminator']['in_size'] = 512
    assert cfg.to_dict() == before


def test_data_of_the_two_scales_differ_in_nothing_else():
    for name in ('sisr', 'ffhq', 'cat', 'church', 'lr'):
        x8, x16 = (Config.fromfile(BASES / f'datasets/{name}_{x}.py').to_dict()
                   for x in ('x8', 'x16'))
        assert x8.pop('scale') == 8 and x16.pop('scale') == 16
        assert str(x8).replace("'scale': 8", "'scale': 16") == str(x16) != str(x8)


class KeepMetrics(Hook):
    """MMagic's MultiTestLoop returns nothing; it hands the metrics to hooks."""

    def after_test_epoch(self, runner, metrics=None):
        self.metrics = metrics


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pictures') / 'GT'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(4):
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f'{index}.png'), cv2.resize(coarse, (64, 64)))
    return folder.parent


@pytest.mark.parametrize('path', REDUCED, ids=lambda path: path.stem)
def test_reduced_config_trains_and_tests(path, pictures, tmp_path):
    cfg = Config.fromfile(path)
    cfg.work_dir = str(tmp_path)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(pictures)
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.update(max_iters=2, val_interval=10)
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if 'Visualization' not in hook.type]
    cfg.experiment_name = path.stem
    runner = Runner.from_cfg(cfg)
    before = {key: value.clone() for key, value in runner.model.state_dict().items()}
    model = runner.train()
    assert any(not torch.equal(before[key], value) for key, value in model.state_dict().items())
    keep = KeepMetrics()
    runner.register_hook(keep)
    runner.test()
    metrics = keep.metrics
    if path.parent.name.startswith('pd'):
        assert metrics['PSNR_LR'] > 120
    else:
        assert metrics['PSNR_LR'] < 60


@pytest.mark.parametrize('folder', METHODS, ids=lambda path: path.name)
def test_metafile(folder):
    meta = yaml.safe_load((folder / 'metafile.yml').read_text())
    names = {collection['Name'] for collection in meta['Collections']}
    configs = {path.stem for path in folder.glob('*.py')}
    assert {model['Name'] for model in meta['Models']} == configs
    for model in meta['Models']:
        assert model['In Collection'] in names
        assert (ROOT / model['Config']).is_file()
        for result in model.get('Results', []):
            assert result['Metrics'] and 'arxiv.org' in model['Metadata']['Metrics Source']
        if 'Weights' in model:
            prefix = model['Metadata']['Weights SHA256 Prefix']
            assert model['Weights'].endswith(f'-{prefix}.pth') and len(prefix) == 8


def test_figures_of_the_paper_are_in_metafiles_and_pages():
    tables = json.loads((ROOT / 'tools/analysis_tools/paper_tables.json').read_text())
    for table in ('table2', 'table3'):
        for row in tables[table]['rows']:
            if row['paper'][0] is None:  # of a twin that the paper has not
                continue
            folder = next((ROOT / 'configs').glob(f'*/{row["config"]}.py')).parent
            models = yaml.safe_load((folder / 'metafile.yml').read_text())['Models']
            model = next(model for model in models if model['Name'] == row['config'])
            expected = dict(zip(tables[table]['columns'], row['paper'], strict=True))
            assert model['Results'][0]['Metrics'] == expected, row['config']
            line = next(line for line in (folder / 'README.md').read_text().splitlines()
                        if f'(./{row["config"]}.py)' in line)
            assert ' / '.join(f'{key} {value:g}' for key, value in expected.items()) in line


def test_model_index_loads_and_names_are_unique():
    index = load_model_index(str(ROOT / 'model-index.yml'))
    names = [model.name for model in index.models]
    assert len(names) == len(set(names)) == len(CONFIGS)


@pytest.mark.parametrize('folder', METHODS, ids=lambda path: path.name)
def test_method_readme_is_laid_out_as_openmmlab_reads_it(folder):
    lines = (folder / 'README.md').read_text().splitlines()
    name, year = lines[0].rstrip(')').split("'")
    assert name.startswith('# ') and len(year) == 4 and year.isdigit()
    assert lines[4].startswith('> **Task**: ')
    text = '\n'.join(lines)
    assert all(mark in text for mark in ('[ALGORITHM]', '[ABSTRACT]', '[IMAGE]', '## Citation'))
    header = next(line for line in lines if line.startswith('| Model |'))
    assert header.endswith('Download |')
    for path in folder.glob('*.py'):
        assert f'(./{path.name})' in text


PRIORS = (ROOT / 'docs' / 'priors.md').read_text()


def test_documented_sizes_and_priors_are_those_of_the_configs():
    rows = re.findall(r'^\| (`.+`) \| (\d+) × \d+ \| (\d+) × \d+ \|', PRIORS, re.M)
    matched = {}
    for names, lr, output in rows:
        for pattern in names.strip('`').split('`, `'):
            for path in CONFIGS:
                if fnmatch(path.stem, pattern):
                    generator = matched[path] = Config.fromfile(path).model.generator
                    sizes = generator.in_size, generator.out_size
                    assert sizes == (int(lr), int(output)), path.stem
    left = {path.stem for path in CONFIGS} - {path.stem for path in matched} - {
        path.stem for path in [*REDUCED, *PRIOR_TRAININGS]}
    assert left == {'panini_degradation-moco_1xb32-438k_ffhq'}
    files = set(re.findall(r'`(stylegan2-[\w-]+\.pth)`', PRIORS))
    priors = [generator.get('init_cfg') for generator in matched.values()]
    used = {prior.checkpoint.rsplit('/', 1)[1] for prior in priors
            if prior and prior.checkpoint.startswith('http')}
    assert used < files


@pytest.mark.parametrize('snippet', re.findall(r'```python\n(.*?)```', PRIORS, re.S))
def test_snippets_about_priors_and_lmdb_are_configs(snippet, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(snippet.replace('../configs', str(ROOT / 'configs')))
    cfg = Config.fromfile(path)
    if 'lmdb' in snippet:
        load, synthesis = (cfg.train_dataloader.dataset.pipeline[i] for i in (0, 2))
        assert load.backend_args.backend == 'lmdb' and synthesis.type == 'LRSynthesis'
    else:
        for part in (cfg.model.generator, cfg.model.discriminator):
            assert part.init_cfg.checkpoint == 'work_dirs/stylegan2_mine/iter_800000.pth'
            assert part.init_cfg.prefix in ('generator_ema', 'discriminator')
