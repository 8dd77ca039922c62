"""Checkpoints of mmengine: they load safely and are written whole."""
import io
import os
import pickle
import stat
import sys
from types import SimpleNamespace

import mmengine
import mmengine.runner.runner
import numpy as np
import pytest
import torch
from mmengine.fileio import HTTPBackend, LocalBackend, get_file_backend, put
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner.checkpoint import save_checkpoint

from mmpd import compat
from mmpd.compat import apply, checkpoints
from mmpd.compat.checkpoints import AtomicLocalBackend, allow_history_buffers
from mmpd.utils import safe_pickle

# what torch.load itself does is up to PyTorch before; mmpd's entries: test_safe_loading.py
by_default = pytest.mark.skipif(
    torch.__version__ < '2.6',  # compared as a version
    reason='before PyTorch 2.6 torch.load runs what it reads, unless told otherwise')


def message_hub():
    """The part of a checkpoint that torch >= 2.6 refuses: log history and run-time values."""
    hub = MessageHub('test_checkpoints')
    for value in (3.0, np.float32(2.5), 1):
        hub.update_scalar('train/loss', value)
    hub.update_info('iter', 3)
    hub.update_info('best_score', np.float64(27.25))
    hub.update_info('best_score_single', np.float32(27.25))
    return hub.state_dict()


@pytest.fixture
def no_safe_globals():
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    yield
    torch.serialization.add_safe_globals(before)


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return file


@by_default
def test_log_history_loads_with_weights_only():
    buffer = torch.load(saved(message_hub()), weights_only=True)['log_scalars']['train/loss']
    assert isinstance(buffer, HistoryBuffer)
    assert (buffer.current(), buffer.max(), buffer.min()) == (1.0, 3.0, 1.0)
    assert buffer.statistics('mean') == pytest.approx(6.5 / 3)


@by_default
def test_runtime_values_survive():
    info = torch.load(saved(message_hub()), weights_only=True)['runtime_info']
    assert info['iter'] == 3 and info['best_score'] == 27.25 and info['best_score_single'] == 27.25


@by_default
def test_without_the_workaround_mmengines_checkpoints_are_refused(no_safe_globals):
    with pytest.raises(pickle.UnpicklingError, match='HistoryBuffer'):
        torch.load(saved(message_hub()))


class Calls:
    """Pickles as a call of any function with any arguments."""

    def __init__(self, function, *args):
        self.call = function, args

    def __repr__(self):
        return 'Calls'  # names of tests are the same in every process

    def __reduce__(self):
        return self.call


MALICIOUS = [
    Calls(os.system, 'true'),
    Calls(eval, '1 + 1'),
    Calls(getattr, HistoryBuffer, '__init__'),
    Calls(getattr, HistoryBuffer, '__globals__'),
    Calls(getattr, np.ndarray, 'tofile'),
    Calls(getattr, Calls(getattr, HistoryBuffer, 'mean'), '__globals__'),
]


@by_default
@pytest.mark.parametrize('content', MALICIOUS, ids=lambda call: str(call.call))
def test_malicious_checkpoints_are_refused(content):
    with pytest.raises((pickle.UnpicklingError, AttributeError)):
        torch.load(saved({'state_dict': {}, 'message_hub': content}))


def test_getattr_gives_the_four_methods_only():
    for name in ('min', 'max', 'current', 'mean'):
        assert safe_pickle._history_method(HistoryBuffer, name) is getattr(HistoryBuffer, name)
    for owner, name in [(HistoryBuffer, 'update'), (str, 'min'), (HistoryBuffer(), 'mean')]:
        with pytest.raises(AttributeError, match='refused'):
            safe_pickle._history_method(owner, name)


@by_default
def test_torch_load_itself_is_not_replaced():
    assert torch.load.__module__ == 'torch.serialization'
    assert getattr not in torch.serialization.get_safe_globals()


@by_default
def test_log_histories_are_let_in_by_the_workaround(no_safe_globals):
    allow_history_buffers()
    assert torch.load(saved(message_hub()))['runtime_info']['iter'] == 3


def test_every_workaround_is_applied(monkeypatch):
    done = []
    installers = [name for name, value in vars(compat).items()
                  if callable(value) and name != 'apply']
    for name in installers:
        monkeypatch.setattr(compat, name, lambda name=name: done.append(name))
    apply()
    assert sorted(done) == sorted(installers) and len(done) > 9


def test_backends_that_mmengine_made_before_are_dropped(monkeypatch):
    before = dict(own=LocalBackend(), other=HTTPBackend(), new=AtomicLocalBackend())
    monkeypatch.setattr(checkpoints, 'backend_instances', before)
    checkpoints.write_checkpoints_atomically()
    assert sorted(before) == ['new', 'other']


@pytest.mark.parametrize('note, files, found', [
    (None, [], None), ('iter_3.pth', [], 'iter_3.pth'), (None, ['iter_2.pth'], 'iter_2.pth'),
    ('iter_3.pth', ['iter_1.pth', 'iter_2.pth', 'iter_9.pth'], 'iter_2.pth'),
    ('iter_3.pth', ['iter_2.pth', 'iter_3.pth'], 'iter_3.pth'),
    ('s3://bucket/iter_3.pth', ['iter_2.pth'], 's3://bucket/iter_3.pth')])
def test_a_run_resumes_from_what_is_there_and_was_noted(tmp_path, note, files, found):
    if note:
        (tmp_path / 'last_checkpoint').write_text(note)
    for name in files:
        (tmp_path / name).touch()
    wanted = found and (found if '://' in found else str(tmp_path / found))
    assert checkpoints.find_latest_checkpoint(str(tmp_path)) == wanted


def test_modules_of_mmengine_that_look_for_a_checkpoint_get_ours(monkeypatch):
    modules = {name: SimpleNamespace(**{function: len}) for name, function in (
        ('mmengine.any', 'find_latest_checkpoint'), ('mmengine.no', 'load_checkpoint'),
        ('other', 'find_latest_checkpoint'))}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    checkpoints.find_checkpoints_beside_their_note()
    ours = checkpoints.find_latest_checkpoint
    assert vars(modules['mmengine.any']) == dict(find_latest_checkpoint=ours)
    assert vars(modules['mmengine.no']) == dict(load_checkpoint=len)
    assert vars(modules['other']) == dict(find_latest_checkpoint=len)
    assert mmengine.runner.runner.find_latest_checkpoint is ours


def test_plain_paths_use_the_atomic_backend(tmp_path):
    apply()  # a second time: nothing is registered twice
    for target in ('a.pth', tmp_path / 'a.pth', f'file://{tmp_path}/a.pth'):
        backend = get_file_backend(target, backend_args=dict(backend='local'))
        assert isinstance(backend, AtomicLocalBackend)
    assert isinstance(get_file_backend(str(tmp_path)), AtomicLocalBackend)
    assert isinstance(get_file_backend(str(tmp_path), enable_singleton=True), AtomicLocalBackend)


class FullDisk(Exception):
    pass


@pytest.mark.parametrize('fails', ['fsync', 'replace'])
def test_an_interrupted_write_leaves_the_old_checkpoint(tmp_path, monkeypatch, fails):
    path = str(tmp_path / 'iter_10.pth')
    save_checkpoint(dict(state_dict=dict(a=torch.ones(1))), path)

    def broken(*args):
        raise FullDisk

    monkeypatch.setattr(os, fails, broken)
    with pytest.raises(FullDisk):
        save_checkpoint(dict(state_dict=dict(a=torch.zeros(1))), path)
    assert torch.load(path)['state_dict']['a'] == 1
    assert os.listdir(tmp_path) == ['iter_10.pth']


def test_mmengines_own_backend_destroys_the_old_checkpoint(tmp_path):
    """The fault: the old file is emptied before the new bytes are there."""
    path = tmp_path / 'iter_10.pth'
    path.write_bytes(b'old and whole')
    with pytest.raises(TypeError):  # stands for any failure while the bytes are written
        mmengine.fileio.LocalBackend().put('not bytes', path)
    assert path.read_bytes() == b''
    path.write_bytes(b'old and whole')
    with pytest.raises(TypeError):
        AtomicLocalBackend().put('not bytes', path)
    assert path.read_bytes() == b'old and whole'


def test_text_and_folders(tmp_path):
    mmengine.dump({'PSNR': 1.5}, str(tmp_path / 'new' / 'folder' / 'metrics.json'))
    put(b'bytes', str(tmp_path / 'raw'))
    AtomicLocalBackend().put_text('größer', tmp_path / 'text', encoding='latin-1')
    assert mmengine.load(str(tmp_path / 'new' / 'folder' / 'metrics.json')) == {'PSNR': 1.5}
    assert (tmp_path / 'text').read_bytes() == 'größer'.encode('latin-1')


def test_permissions_links_and_devices(tmp_path):
    backend = AtomicLocalBackend()
    umask = os.umask(0o027)
    try:
        backend.put(b'1', tmp_path / 'file')
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / 'file').stat().st_mode) == 0o640
    (tmp_path / 'link').symlink_to(tmp_path / 'file')
    backend.put(b'2', tmp_path / 'link')
    assert (tmp_path / 'link').is_symlink() and (tmp_path / 'file').read_bytes() == b'2'
    backend.put(b'3', os.devnull)
    assert not os.path.isfile(os.devnull)
