import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from mmpd.compat import process_group
from mmpd.compat.process_group import join_gloo_threads, join_gloo_threads_at_exit

FINISHED_RUN = """
import sys
import torch
import torch.distributed as dist
from mmpd.compat.process_group import join_gloo_threads_at_exit
join_gloo_threads_at_exit()
join_gloo_threads_at_exit()
dist.init_process_group('gloo', init_method='file://' + sys.argv[1], rank=0, world_size=1)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
model.itself = [model]  # as a runner's hooks do: only the collector can free it
model(torch.ones(1, 2)).sum().backward()
dist.broadcast(torch.ones(3), 0)
"""


def gloo_threads():
    names = [path.read_text() for path in Path('/proc/self/task').glob('*/comm')]
    return [name for name in names if 'gloo' in name]


@pytest.mark.skipif(not Path('/proc/self/task').is_dir(), reason='threads are read from /proc')
def test_threads_are_gone_although_a_cycle_holds_the_group(tmp_path):
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
    model.itself = [model]
    model(torch.ones(1, 2)).sum().backward()
    del model
    before = gloo_threads()
    join_gloo_threads()
    assert not dist.is_initialized()
    assert not gloo_threads()
    # PyTorch 2.1 gives them no names
    assert before or torch.__version__ < '2.2'


def test_nothing_to_join():
    assert not dist.is_initialized()
    join_gloo_threads()


def test_it_is_registered_once(monkeypatch):
    registered = []
    monkeypatch.setattr(process_group, 'atexit', SimpleNamespace(
        register=registered.append,
        unregister=lambda wanted: registered.remove(wanted) if wanted in registered else None))
    join_gloo_threads_at_exit()
    join_gloo_threads_at_exit()
    assert registered == [join_gloo_threads]


def test_a_finished_process_ends_with_zero(tmp_path):
    result = subprocess.run([sys.executable, '-c', FINISHED_RUN, str(tmp_path / 'store')],
                            capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
