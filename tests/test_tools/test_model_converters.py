"""publish_model.py and the converter of official Panini checkpoints."""
import re
from hashlib import sha256

import pytest
import torch
from conftest import load_script
from mmengine.logging import HistoryBuffer

publish = load_script('tools/model_converters/publish_model.py').main


def checkpoint(path, prefix='', **extra):
    """A checkpoint as mmengine's runner writes it, with what does not belong in a model zoo."""
    state = {f'generator.{prefix}w': torch.arange(6.), f'generator.{prefix}b': torch.ones(2),
             f'generator_ema.{prefix}w': torch.arange(6.) + 10,
             f'generator_ema.{prefix}b': torch.zeros(2),
             f'discriminator.{prefix}w': torch.zeros(500, 500)[:1]}  # a view of a large storage
    history = HistoryBuffer()
    history.update(1.0)
    torch.save(dict(state_dict=state, optimizer=dict(state={0: torch.zeros(9)}),
                    param_schedulers=[dict(last_step=3)], meta=dict(cfg='work_dir = "here"'),
                    message_hub=dict(log_scalars=dict(loss=history)), **extra), path)
    return path


def published(folder):
    files = sorted(folder.iterdir())
    assert len(files) == 1
    return files[0]


def test_only_weights_are_left_and_the_name_has_the_hash(tmp_path, capsys):
    source = checkpoint(tmp_path / 'iter_3.pth')
    assert publish([str(source), str(tmp_path / 'zoo/model_x8.pth'), '--date', '20261124']) == 0
    file = published(tmp_path / 'zoo')
    match = re.fullmatch(r'model_x8_20261124-([0-9a-f]{8})\.pth', file.name)
    assert match and sha256(file.read_bytes()).hexdigest().startswith(match[1])
    assert torch.hub.HASH_REGEX.search(file.name)[1] == match[1]  # torch.hub checks a download
    content = torch.load(file, weights_only=True)
    assert list(content) == ['state_dict']
    original = torch.load(source, weights_only=True)['state_dict']
    assert list(content['state_dict']) == list(original)
    assert all(torch.equal(content['state_dict'][key], original[key]) for key in original)
    assert file.stat().st_size < source.stat().st_size / 50  # the view's storage stayed behind
    assert '5 tensors' in capsys.readouterr().out


def test_the_same_weights_get_the_same_name_whatever_the_run_left_beside_them(tmp_path):
    first = checkpoint(tmp_path / 'a.pth')
    second = checkpoint(tmp_path / 'b.pth', prefix='module.', hooks=[1, 2])
    for name, source in (('one', first), ('two', second)):
        assert publish([str(source), str(tmp_path / name / 'm'), '--date', '20261124']) == 0
    assert published(tmp_path / 'one').name == published(tmp_path / 'two').name


def test_ema_becomes_the_generator_and_prefixes_can_be_dropped(tmp_path):
    source = checkpoint(tmp_path / 'a.pth')
    assert publish([str(source), str(tmp_path / 'zoo/m'), '--ema', '--drop', 'discriminator']) == 0
    state = torch.load(published(tmp_path / 'zoo'), weights_only=True)['state_dict']
    assert set(state) == {'generator.w', 'generator.b'}
    assert torch.equal(state['generator.w'], torch.arange(6.) + 10)


def bare(path, **state):
    torch.save({key.replace('__', '.'): value for key, value in state.items()}, path)
    return path


@pytest.mark.parametrize('arguments, message', [
    (['--date', '20269999'], 'expected YYYYMMDD'), (['--date', '2026-1-1'], 'expected YYYYMMDD')])
def test_bad_arguments(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        publish([str(tmp_path / 'a.pth'), str(tmp_path / 'm'), *arguments])
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize('make, options, message', [
    (lambda path: path, [], 'no file'),
    (lambda path: path.write_text('hello') and path, [], 'cannot be read'),
    (lambda path: torch.save(dict(a=1), path) or path, [], 'holds no state dict'),
    (lambda path: bare(path, generator__w=torch.ones(1)), ['--ema'], 'no generator_ema'),
    (lambda path: bare(path, generator__w=torch.ones(1), generator_ema__v=torch.ones(1)),
     ['--ema'], 'differ, e.g. in "generator.v"'),
    (lambda path: bare(path, generator__w=torch.tensor([1., torch.nan])), [],
     '1 of 2 values of "generator.w" are NaN'),
    (lambda path: bare(path, generator__w=torch.tensor([1., torch.inf])), [], 'are infinite'),
    (lambda path: bare(path, generator__w=torch.ones(1)), ['--drop', 'generator'],
     '--drop generator: nothing would be left'),
    (checkpoint, ['--drop', 'generatr'], 'no key begins with "generatr."'),
])
def test_bad_input_ends_with_one_line_and_no_file(tmp_path, capsys, make, options, message):
    source = make(tmp_path / 'source.pth')
    assert publish([str(source), str(tmp_path / 'zoo/m'), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1
    assert not list(tmp_path.glob('zoo/*'))


@pytest.mark.parametrize('out', ['', '.', 'zoo/'])
def test_a_folder_is_no_name(tmp_path, capsys, out):
    with pytest.raises(SystemExit) as stop:
        publish([str(checkpoint(tmp_path / 'a.pth')), out])
    assert stop.value.code == 2 and 'out: expected a path' in capsys.readouterr().err


def test_an_existing_file_is_not_overwritten(tmp_path, capsys):
    source = checkpoint(tmp_path / 'a.pth')
    arguments = [str(source), str(tmp_path / 'zoo/m'), '--date', '20261124']
    assert publish(arguments) == 0
    before = published(tmp_path / 'zoo').stat().st_mtime_ns
    assert publish(arguments) == 2
    assert 'exists already' in capsys.readouterr().err
    assert published(tmp_path / 'zoo').stat().st_mtime_ns == before
