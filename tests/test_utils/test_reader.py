"""Checkpoints are read without running anything, and refused in words that say what they are."""
import argparse
import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file

from mmpd.errors import InputError, WeightsMismatch, WeightsNotFound
from mmpd.utils import safe_pickle
from mmpd.utils.reader import locate, read_checkpoint

STATE = {'generator.w': torch.arange(6.).view(2, 3), 'generator.b': torch.ones(4).half(),
         'step_counter': torch.tensor(7)}


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, 'w')


def legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize('save', [torch.save, legacy], ids=['zip', 'legacy'])
@pytest.mark.parametrize('wrap', [dict, lambda state: dict(state_dict=state)],
                         ids=['bare', 'mmengine'])
def test_files_of_torch(tmp_path, save, wrap):
    save(wrap(STATE), tmp_path / 'a.pth')
    content = read_checkpoint(tmp_path / 'a.pth')
    torch.testing.assert_close(content.get('state_dict', content), STATE, rtol=0, atol=0)


@pytest.mark.parametrize('name', ['a.safetensors', 'a.pth'])
def test_safetensors_are_known_by_their_content(tmp_path, name):
    save_file(STATE, tmp_path / name)
    content = read_checkpoint(str(tmp_path / name))
    assert list(content) == ['state_dict']
    torch.testing.assert_close(content['state_dict'], STATE, rtol=0, atol=0)
    assert read_checkpoint(tmp_path / name, 'meta')['state_dict']['generator.w'].is_meta
    torch.save(STATE, tmp_path / 'b.safetensors')
    assert read_checkpoint(tmp_path / 'b.safetensors').keys() == STATE.keys()


def test_mmengines_log_history_is_read(tmp_path):
    history = HistoryBuffer()
    for value in (1.0, 2.5):
        history.update(value)
    torch.save(dict(state_dict=STATE, message_hub=dict(log=history, best=np.float64(3))),
               tmp_path / 'a.pth')
    hub = read_checkpoint(tmp_path / 'a.pth')['message_hub']
    assert hub['log'].statistics('mean') == 1.75 and hub['best'] == 3


@pytest.mark.parametrize('save', [torch.save, legacy, lambda content, path: path.write_bytes(
    pickle.dumps(content)), lambda content, path: path.write_bytes(pickle.dumps(content, 0))],
    ids=['zip', 'legacy', 'pickle', 'pickle 0'])
@pytest.mark.parametrize('name', ['evil.pth', 'evil.safetensors'])
def test_code_is_not_run_and_is_named(tmp_path, save, name):
    save(dict(state_dict=dict(w=1), meta=Touch(tmp_path / 'run')), tmp_path / name)
    with pytest.raises(WeightsMismatch, match=f'{name} cannot be read: .*') as stop:
        read_checkpoint(tmp_path / name)
    assert not (tmp_path / 'run').exists()
    assert 'weights_only' not in str(stop.value) and '\n' not in str(stop.value)
    if 'begins with' not in str(stop.value):  # text, in protocol 0
        assert 'asks for' in str(stop.value) and 'open' in str(stop.value)


def test_nothing_else_that_the_process_allows_is_made(tmp_path):
    """A fork of mmengine allows ``builtins.getattr``, a user whatever he likes."""
    torch.save(dict(state_dict=STATE, meta=argparse.Namespace(lr=1)), tmp_path / 'a.pth')
    before = set(torch.serialization.get_safe_globals())
    with torch.serialization.safe_globals([argparse.Namespace, getattr]):
        assert torch.load(tmp_path / 'a.pth')['meta'].lr == 1
        with pytest.raises(WeightsMismatch, match='asks for argparse.Namespace'):
            read_checkpoint(tmp_path / 'a.pth')
        torch.save(dict(meta=Attribute(HistoryBuffer, 'update')), tmp_path / 'b.pth')
        with pytest.raises(WeightsMismatch, match="attribute 'update'.*refused"):
            read_checkpoint(tmp_path / 'b.pth')
        assert getattr in torch.serialization.get_safe_globals()  # it is as it was
    assert set(torch.serialization.get_safe_globals()) == before


class Attribute:
    def __init__(self, *args):
        self.args = args

    def __reduce__(self):
        return getattr, self.args


def test_the_way_for_old_torch_reads_the_same_and_no_more(tmp_path, monkeypatch):
    monkeypatch.delattr(torch.serialization, 'get_unsafe_globals_in_checkpoint')
    history = HistoryBuffer()
    history.update(1.0)
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        for save in (torch.save, legacy):
            save(dict(state_dict=STATE, message_hub=dict(log=history)), tmp_path / 'a.pth')
            content = read_checkpoint(tmp_path / 'a.pth')
            assert content['message_hub']['log'].current() == 1
            torch.testing.assert_close(content['state_dict'], STATE)
            save(dict(log=history, meta=Touch(tmp_path / 'run')), tmp_path / 'evil.pth')
            with pytest.raises(WeightsMismatch, match='open'):
                read_checkpoint(tmp_path / 'evil.pth')
            save(dict(log=history, meta=Call(torch.load, 'x')), tmp_path / 'evil.pth')
            with pytest.raises(WeightsMismatch, match='torch.serialization.load'):
                read_checkpoint(tmp_path / 'evil.pth')
    finally:
        torch.serialization.add_safe_globals(before)
    assert not (tmp_path / 'run').exists()
    with pytest.raises(pickle.UnpicklingError, match='os.system is not allowed'):
        safe_pickle._RestrictedPickle.load(io.BytesIO(b'cos\nsystem\n.'))


class Call:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def not_a_checkpoint(path, kind):
    """Make a file of some kind; return what is to be said of it."""
    if kind == 'folder':
        path.mkdir()
        return 'it is a folder'
    if kind == 'zip':
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('readme.txt', 'hello')
        return 'not of torch.save: it holds readme.txt'
    if kind == 'TorchScript':
        torch.jit.script(torch.nn.Linear(1, 1)).save(str(path))
        return 'TorchScript program'
    if kind == 'tar':
        with tarfile.open(path, 'w') as archive:
            archive.addfile(tarfile.TarInfo('pickle'))
        return 'tar archive'
    if kind == 'list':
        torch.save([1, 2], path)
        return 'no state dict: it is a list'
    content, said = {
        'nothing': (b'', 'it is empty'),
        'html': (b'\n<!DOCTYPE html><html>Sign in</html>', 'HTML or XML page'),
        'lfs': (b'version https://git-lfs.github.com/spec/v1\noid sha256:0', 'Git LFS pointer'),
        'picture': (b'\x89PNG\r\n\x1a\n' + bytes(50), r"begins with b'\\x89PNG"),
        'pickle': (pickle.dumps([1]), 'not of torch.save'),
        'safetensors': (b'\x08' + bytes(7) + b'{}      ' + b'x' * 3, 'safetensors'),
    }[kind]
    path.write_bytes(content)
    return said


@pytest.mark.parametrize('kind', ['folder', 'zip', 'TorchScript', 'tar', 'list', 'nothing', 'html',
                                  'lfs', 'picture', 'pickle', 'safetensors'])
def test_other_files_are_said_to_be_what_they_are(tmp_path, kind):
    said = not_a_checkpoint(tmp_path / 'a.pth', kind)
    with pytest.raises(InputError, match=f'a.pth.*{said}') as stop:
        read_checkpoint(tmp_path / 'a.pth')
    assert '\n' not in str(stop.value)


@pytest.mark.parametrize('save', [torch.save, legacy, lambda content, path: save_file(
    content, path)], ids=['zip', 'legacy', 'safetensors'])
@pytest.mark.parametrize('part', [0.1, 0.5, 0.9])
def test_truncated_files(tmp_path, save, part):
    path = tmp_path / 'a.pth'
    save({'w': torch.randn(1000), 'v': torch.randn(1000)}, path)
    path.write_bytes(path.read_bytes()[:int(part * path.stat().st_size)])
    with pytest.raises(WeightsMismatch, match='truncated'):
        read_checkpoint(path)


def flip(path, pattern):
    """Change one bit where ``pattern`` stands in the file."""
    data = bytearray(path.read_bytes())
    data[data.index(pattern)] ^= 1
    path.write_bytes(data)


def test_one_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / 'a.pth'
    value = torch.tensor([1.2345, 2.5])
    torch.save(dict(state_dict=dict(w=value)), path)
    flip(path, value.numpy().tobytes())
    assert not torch.equal(torch.load(path)['state_dict']['w'], value)  # the fault: no word of it
    with pytest.raises(WeightsMismatch, match='damaged: the checksum of its part a/data/0 is wro'):
        read_checkpoint(path)


def test_files_without_checksums_are_read_with_a_word(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('mmpd.utils.reader.print_log', lambda text, **_: said.append(text))
    options = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / 'a.pth')
    finally:
        torch.serialization.set_crc32_options(options)
    assert read_checkpoint(tmp_path / 'a.pth').keys() == STATE.keys()
    assert len(said) == 1 and 'without checksums' in said[0]
    torch.save(STATE, tmp_path / 'b.pth')
    read_checkpoint(tmp_path / 'b.pth')
    assert len(said) == 1


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_weights_that_are_no_numbers_are_named(tmp_path, dtype):
    state = {'first': torch.ones(3), 'second': torch.tensor([1, torch.nan, torch.inf]).to(dtype)}
    torch.save(dict(state_dict=state), tmp_path / 'a.pth')
    with pytest.raises(WeightsMismatch, match='1 of 3 values of "second" are NaN'):
        read_checkpoint(tmp_path / 'a.pth')
    state['second'] = torch.tensor([0., -torch.inf], dtype=dtype)  # as masks have
    torch.save(dict(state_dict=state, optimizer=dict(exp_avg=torch.tensor([torch.nan]))),
               tmp_path / 'b.pth')
    read_checkpoint(tmp_path / 'b.pth')


@pytest.mark.parametrize('source', ['s3://bucket/a.pth', 'pavi://a', 'ftp://host/a.pth'])
def test_other_schemes_are_refused_by_name(source):
    with pytest.raises(InputError, match=f'{source}: expected a file, http'):
        locate(source)


def test_names_of_mmengine(tmp_path, monkeypatch):
    seen = []

    def fetch(url):
        seen.append(url)
        return tmp_path / 'a.pth'

    monkeypatch.setattr('mmpd.utils.reader.fetch', fetch)
    torch.save({'backbone.w': torch.ones(1), 'head.w': torch.ones(1)}, tmp_path / 'a.pth')
    assert 'head.w' in read_checkpoint('torchvision://vgg16')
    read_checkpoint('open-mmlab://detectron2/resnet50_caffe')
    read_checkpoint('openmmlab://detectron2/resnet50_caffe')
    assert list(read_checkpoint('mmcls://vgg11')['state_dict']) == ['w']
    assert seen[0] == 'https://download.pytorch.org/models/vgg16-397923af.pth'
    assert seen[1] == seen[2] and seen[1].startswith('https://') and 'vgg11' in seen[3]
    with pytest.raises(WeightsNotFound, match='torchvision://vgg16000: mmengine knows no such'):
        read_checkpoint('torchvision://vgg16000')
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))  # a user's own table
    (tmp_path / 'open_mmlab.json').write_text('{"mine": "a.pth"}')
    assert 'head.w' in read_checkpoint('openmmlab://mine')


def test_no_file(tmp_path):
    with pytest.raises(WeightsNotFound, match='no file .*none.pth'):
        read_checkpoint(tmp_path / 'none.pth')
