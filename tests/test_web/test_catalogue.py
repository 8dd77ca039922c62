"""Models on the page: the host's names and folder, nothing beyond."""
import pytest

from mmpd.errors import InputError
from mmpd.web import catalogue


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / 'models'
    (inside / 'deeper').mkdir(parents=True)
    for name in ('b.pth', 'a.safetensors', 'net.param', 'net.bin', 'alone.bin', 'notes.txt',
                 'config.py', '.hidden.pth', 'deeper/c.pth'):
        (inside / name).write_bytes(b'x')
    (tmp_path / 'secret.pth').write_bytes(b'x')
    (inside / 'out.pth').symlink_to(tmp_path / 'secret.pth')
    (inside / 'alias.pth').symlink_to(inside / 'b.pth')
    return inside


def test_checkpoints_of_the_folder_and_no_others(folder):
    found = catalogue.folder_models(folder)
    assert list(found) == ['a.safetensors', 'alias.pth', 'alone.bin', 'b.pth', 'net.param']
    assert found['b.pth'] == str(folder.resolve() / 'b.pth') == found['alias.pth']


@pytest.mark.parametrize('name, expected', [('nowhere', 'expected a folder'),
                                            ('models/deeper/c.pth', 'expected a folder'),
                                            ('empty', 'expected checkpoints .*found none')])
def test_a_useless_folder_is_named(folder, name, expected):
    (folder.parent / 'empty').mkdir()
    with pytest.raises(InputError, match=f'--models .*{name}: {expected}'):
        catalogue.folder_models(folder.parent / name)


def test_installed_wheels_are_offered_by_default(monkeypatch, folder):
    def weights(name):
        if name != 'realsr-df2k':
            raise catalogue.MissingPackage('not installed')
    monkeypatch.setattr(catalogue, 'wheel_weights', weights)
    monkeypatch.setattr(catalogue, 'resolve_model', lambda name: None)
    assert catalogue.find_models() == {'realsr-df2k': 'realsr-df2k'}
    assert list(catalogue.find_models([], folder))[:1] == ['a.safetensors']
    assert catalogue.find_models([]) == {}


@pytest.mark.parametrize('name, expected', [
    ('realesrgan-x4plas', 'did you mean realesrgan-x4plus'),
    ('pd_glean_x8_1xb4-100k_ffhq', 'no weights of .* are published')])
def test_names_are_checked_before_the_page_is_there(name, expected):
    with pytest.raises(InputError, match=expected):
        catalogue.find_models([name])


def test_a_path_is_no_name(folder):
    with pytest.raises(InputError, match='expected a name of the model zoo'):
        catalogue.find_models([str(folder / 'b.pth')])


def test_without_mmagic_there_are_no_models(monkeypatch, folder):
    monkeypatch.setattr(catalogue, 'find_spec', lambda name: None)
    assert catalogue.find_models() == {} == catalogue.find_models([])
    for names, models in ((['realesrgan-x4plus'], None), (None, folder)):
        with pytest.raises(catalogue.MissingPackage, match='need MMagic, which is not installed'):
            catalogue.find_models(names, models)
