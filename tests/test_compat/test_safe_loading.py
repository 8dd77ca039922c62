"""Whatever mmengine loads, it loads without running anything: files and addresses of every kind."""
import os
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint, load_from_http
from safetensors.torch import save_file

from mmpd.compat.checkpoints import load_from_checked_file, load_safely
from mmpd.errors import InputError, WeightsMismatch
from mmpd.utils.checkpoint import read_state_dict


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, 'w')


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def address(tmp_path, monkeypatch):
    """tmp_path, served."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    for variable in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(variable, raising=False)
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()


@pytest.fixture(params=['file', 'address'])
def evil(request, tmp_path, address):
    torch.save(dict(state_dict={'w': torch.ones(1)}, meta=Touch(tmp_path / 'run')),
               tmp_path / 'evil.pth')
    yield str(tmp_path / 'evil.pth') if request.param == 'file' else f'{address}/evil.pth'
    assert not (tmp_path / 'run').exists()


class Layer(BaseModule):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.w = torch.nn.Parameter(torch.zeros(2))


def resume(path, folder):
    runner = Runner(Layer(), str(folder), default_scope='mmagic', resume=True, load_from=path,
                    experiment_name=folder.name, log_level='ERROR')
    runner.load_or_resume()


def load_from(path, folder):
    runner = Runner(Layer(), str(folder), default_scope='mmagic', load_from=path,
                    experiment_name=folder.name, log_level='ERROR')
    runner.load_or_resume()


ENTRIES = dict(
    load_from=load_from, resume=resume,
    load_checkpoint=lambda path, _: load_checkpoint(Layer(), path),
    init_cfg=lambda path, _: Layer(dict(type='Pretrained', checkpoint=path)).init_weights(),
    prefix=lambda path, _: Layer(
        dict(type='Pretrained', checkpoint=path, prefix='backbone')).init_weights(),
    read_state_dict=lambda path, _: read_state_dict(path))


@pytest.mark.parametrize('entry', ENTRIES)
def test_no_entry_runs_code(entry, evil, tmp_path):
    with pytest.raises(WeightsMismatch, match='evil.pth.*cannot be read.*open.*none of which'):
        ENTRIES[entry](evil, tmp_path)


def test_the_fault_mmengines_own_loader_runs_it(tmp_path, address):
    torch.save(Touch(tmp_path / 'run'), tmp_path / 'evil.pth')
    with suppress(Exception):
        load_from_http(f'{address}/evil.pth')
    assert (tmp_path / 'run').exists()


PROCESS = """
import sys, mmpd, torch
from mmengine.runner.checkpoint import load_checkpoint
for source in sys.argv[1:]:
    try:
        load_checkpoint(torch.nn.Linear(1, 1), source)
    except mmpd.errors.WeightsMismatch as error:
        print('refused', error)
"""


def test_the_environment_does_not_matter(tmp_path, address):
    """It asks torch to unpickle everything; nothing but mmpd is imported."""
    torch.save(Touch(tmp_path / 'run'), tmp_path / 'zip.pth')
    torch.save(Touch(tmp_path / 'run'), tmp_path / 'legacy.pth',
               _use_new_zipfile_serialization=False)
    sources = [f'{where}/{name}.pth' for where in (address, tmp_path) for name in ('zip', 'legacy')]
    run = subprocess.run(
        [sys.executable, '-c', PROCESS, *sources], timeout=280, capture_output=True, text=True,
        env=dict(os.environ, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD='1'))
    assert run.stdout.count('refused') == 4, run.stderr
    assert not (tmp_path / 'run').exists()


def test_every_prefix_of_mmengine_comes_to_the_reader():
    assert all(loader is load_from_checked_file for loader in CheckpointLoader._schemes.values())
    for source in ('s3://bucket/a.pth', 'petrel://a.pth', 'cluster:s3://a.pth', 'pavi://a.pth'):
        with pytest.raises(InputError, match='expected a file, http'):
            CheckpointLoader.load_checkpoint(source)


def test_prefixes_of_a_fork_are_covered_those_of_a_user_are_left(monkeypatch):
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))

    def theirs(filename, map_location):
        pass

    def mine(filename, map_location):
        pass

    theirs.__module__ = 'mmengine.runner.checkpoint'
    CheckpointLoader.register_scheme('new://', theirs)
    CheckpointLoader.register_scheme('mine://', mine)
    load_safely()
    assert CheckpointLoader._schemes['new://'] is load_from_checked_file
    assert CheckpointLoader._schemes['mine://'] is mine


def test_good_files_load(tmp_path, address):
    torch.save(dict(state_dict={'w': torch.ones(2)}), tmp_path / 'a.pth')
    save_file({'w': torch.ones(2)}, tmp_path / 'b.safetensors')
    for name in ('a.pth', 'b.safetensors'):
        for source in (str(tmp_path / name), f'{address}/{name}'):
            layer = Layer()
            load_checkpoint(layer, source, strict=True)
            assert layer.w.sum() == 2, source
            runner = Runner(Layer(), str(tmp_path), default_scope='mmagic', log_level='ERROR',
                            experiment_name=name, load_from=source,
                            custom_hooks=[dict(type='EMAHook')])
            runner.call_hook('before_run')
            runner.load_or_resume()
            assert runner.model.w.sum() == 2
