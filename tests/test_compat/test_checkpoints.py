"""Checkpoints of mmengine: they load safely and are written whole."""
import io
import os
import pickle
import stat

import mmengine
import numpy as np
import pytest
import torch
from mmengine.fileio import get_file_backend, put
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner.checkpoint import save_checkpoint

from mmpd.compat import apply
from mmpd.compat.checkpoints import AtomicLocalBackend
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
