"""mmpd.pth: MMagic's own tools reach mmpd where they would fail before they read a config."""
import importlib.util
import subprocess
import sys
from pathlib import Path

import mmagic
import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAIN = Path(mmagic.__file__).parent / '.mim' / 'tools' / 'train.py'


@pytest.fixture
def startup(monkeypatch):
    monkeypatch.setattr(sys, 'meta_path', list(sys.meta_path))
    spec = importlib.util.spec_from_file_location('mmpd_startup_test', ROOT / 'mmpd_startup.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_finder_goes_first_and_costs_no_import():
    code = ('import sys; before = set(sys.modules); import mmpd_startup, importlib; '
            'importlib.reload(mmpd_startup); '
            'print([type(f).__name__ for f in sys.meta_path].count("BeforeMMagic"), '
            'sorted(set(sys.modules) - before))')
    out = subprocess.run([sys.executable, '-S', '-c', code], cwd=ROOT, capture_output=True,
                         text=True, check=True).stdout
    assert out.startswith('1 [') and 'mmpd_startup' in out
    for heavy in ('numpy', 'torch', "'mmpd'", 'mmengine'):
        assert heavy not in out


@pytest.mark.parametrize('versions, resources, needed', [
    ({'numpy': '1.26.4', 'mmcv-lite': '2.1.0'}, True, False),
    ({'numpy': '1.26.4', 'mmcv': '2.1.0'}, False, True),
    ({'numpy': '2.0.1', 'mmcv': '2.1.0'}, True, True),
    ({'numpy': '1.26.4', 'mmcv': '2.2.0'}, True, True),
    ({'numpy': '1.26.4', 'onedl-mmcv': '2.3.2.post2'}, True, True),
    ({}, True, False)])
def test_a_complete_installation_needs_nothing(startup, monkeypatch, versions, resources, needed):
    import importlib.metadata as metadata

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, 'version', version)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: resources or None)
    assert startup.mmagic_needs_mmpd() is needed


@pytest.mark.parametrize('needed', [True, False])
def test_the_finder_steps_back_after_mmagic(startup, monkeypatch, needed):
    finder = next(item for item in sys.meta_path if type(item) is startup.BeforeMMagic)
    monkeypatch.setattr(startup, 'mmagic_needs_mmpd', lambda: needed)
    assert finder.find_spec('mmcv') is None and finder in sys.meta_path
    monkeypatch.delitem(sys.modules, 'mmagic')
    spec = finder.find_spec('mmagic')
    assert finder not in sys.meta_path
    assert ('exec_module' in vars(spec.loader)) is needed


def test_mmagics_own_tool_reads_an_inherited_config(tmp_path):
    """The whole way, in a process that imports mmpd nowhere else before the config is read."""
    (tmp_path / 'config.py').write_text(
        "_base_ = 'mmagic::glean/glean_x8_2xb8_cat.py'\n"
        "custom_imports = dict(imports=['mmpd'], allow_failed_imports=False)\n"
        "model = dict(type='PDGLEAN')\n")
    code = ('import sys; sys.path.insert(0, {root!r}); import mmpd_startup; '
            'from mmengine.runner import Runner; '
            'Runner.from_cfg = lambda cfg: sys.exit("read " + cfg.model.type); '
            'sys.argv = [{tool!r}, {config!r}]; '
            'import runpy; runpy.run_path({tool!r}, run_name="__main__")').format(
                root=str(ROOT), tool=str(TRAIN), config=str(tmp_path / 'config.py'))
    run = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True,
                         text=True, timeout=280)
    assert run.returncode == 1 and run.stderr.strip().splitlines()[-1] == 'read PDGLEAN'
