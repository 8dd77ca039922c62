"""docs/reproduction.md: every config exists and parses, every command is understood."""
import mmpd  # noqa: F401  isort: skip  (its stand-ins come before mmagic's models)
import json
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path

import pytest
from conftest import load_script
from mmengine.config import Config

from mmpd.cli.converter import parse_args as parse_converter
from mmpd.engine.loops import DownsamplingTestLoop

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / 'docs' / 'reproduction.md').read_text()
TABLES = json.loads((ROOT / 'tools' / 'analysis_tools' / 'paper_tables.json').read_text())
COMMANDS = [line for block in re.findall(r'```bash\n(.*?)```', TEXT, re.S)
            for line in block.splitlines()]
TABLE3 = 'tools/benchmark/table3.py'
SNIPPETS = re.findall(r'```python\n(.*?)```', TEXT, re.S)
CONFIGS = sorted(set(re.findall(r'configs/[\w/.-]+\.py', TEXT)))


def config_of(path):
    return Config.fromfile(ROOT / path)


@pytest.mark.parametrize('path', CONFIGS)
def test_configs_exist_and_parse(path):
    cfg = config_of(path)
    assert cfg.model.type and cfg.test_dataloader
    assert cfg.get('train_cfg') or path.endswith('_celeba-hq.py')  # weights of others


@pytest.mark.parametrize('line', COMMANDS)
def test_commands_are_understood(line, tmp_path, capsys, monkeypatch):
    words = shlex.split(line)
    assert words[0] == 'python'
    script, args = ROOT / words[1], words[2:]
    assert script.is_file(), script
    if 'dataset_converters' in words[1]:
        parse_converter(args, '', 'out', 1024, 0)
    elif script.name in ('train.py', 'test.py'):
        parsed = import_module(f'mmpd.cli.{script.stem}').parse_args(args)
        cfg = config_of(parsed.config)
        cfg.merge_from_dict(parsed.cfg_options or {})
        if script.name == 'test.py':
            stem = Path(parsed.config).stem
            if cfg.get('train_cfg'):
                iters = cfg.train_cfg.max_iters
                assert parsed.checkpoint == f'work_dirs/{stem}/iter_{iters}.pth'
            else:  # converted before, in another command of the page
                assert any('table3_to_mmpd' in other and parsed.checkpoint in other.split()
                           for other in COMMANDS)
                assert parsed.checkpoint in (
                    f'checkpoints/{name}.pth' for name in load_script(TABLE3).weights_of(stem))
            options = dict(cfg.test_cfg)
            pictures_only = parsed.panels or '/fig' in str(parsed.work_dir)
            loop = 'MultiTestLoop' if pictures_only else 'DownsamplingTestLoop'
            assert options.pop('type') == loop
            accepted = DownsamplingTestLoop.__init__.__code__.co_varnames
            assert set(options) <= set(accepted)
    elif script.name == 'make_table.py':
        args[args.index('work_dirs')] = str(tmp_path)
        assert load_script(script).main(args) == 0
        assert 'missing' in capsys.readouterr().out
    else:
        with pytest.raises(SystemExit) as stop:
            monkeypatch.setattr(sys, 'argv', [str(script), '--help'])
            load_script(script).main()
        assert stop.value.code == 0
        known = set(re.findall(r'--[\w-]+', capsys.readouterr().out))
        assert {word for word in args if word.startswith('--')} <= known


@pytest.mark.parametrize('snippet', SNIPPETS)
def test_snippets_are_configs(snippet, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(snippet.replace('../configs', str(ROOT / 'configs')))
    cfg, base = Config.fromfile(path), config_of(re.search(r'configs/[\w/.-]+\.py', snippet)[0])
    for key in ('custom_hooks', 'val_evaluator'):
        assert cfg[key][:len(base[key])] == base[key]
    assert sum(len(cfg[k]) - len(base[k]) for k in ('custom_hooks', 'val_evaluator')) == 1


def test_every_row_has_config_commands_and_value():
    for table in TABLES.values():
        for row in table['rows']:
            name = row['config']
            values = [f'{value:g}' for value in row['paper'] if value is not None]
            lines = [line for line in TEXT.splitlines()
                     if line.startswith(f'| {row["dataset"]} | {row["method"]} | ')
                     and (name is None or f'[{name}]' in line)]
            assert any(line.endswith(' | '.join(['', *values]) + ' |') for line in lines), row
            if name is not None:
                least = 1 if name.endswith('_celeba-hq') else 2  # trained, and tested
                assert sum(f'/{name}.py' in line for line in COMMANDS) >= least, name


def test_every_figure_and_table_is_there():
    numbers = re.findall(r'^\| ([\d, ]+) \|', TEXT.split('## Figures')[1], re.M)
    assert sorted(int(n) for cell in numbers for n in cell.split(',')) == list(range(1, 13))
    assert all(f'## Table {n}' in TEXT for n in (1, 2, 3, 4))


def test_links_lead_somewhere():
    for document in (ROOT / 'docs' / 'reproduction.md', ROOT / 'docs' / 'metrics.md'):
        for target in re.findall(r'\]\(([^)#]+)\)', document.read_text()):
            assert (document.parent / target).exists(), target
