"""Processes of a launcher meet and part; a pool of one thread for each worker."""
import subprocess
import threading
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from refusals import refused

from mmpd.cli import processes
from mmpd.cli.processes import Processes, open_pool


def test_one_worker_is_this_process_with_one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with open_pool(1) as run:
            found = list(run(lambda a, b: (a + b, torch.get_num_threads(), threading.get_ident()),
                             [(1, 2), (3, 4)]))
        assert found == [(3, 1, threading.get_ident()), (7, 1, threading.get_ident())]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize('launcher, names', [
    ('pytorch', ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')),
    ('slurm', ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'))])
def test_what_launchers_say_of_a_process(monkeypatch, launcher, names):
    for name in names:
        monkeypatch.delenv(name, raising=False)
    refused(Processes, launcher, match=f'--launcher {launcher}: expected {names[0]}')
    for name, value in zip(names, ('5', '8', '1'), strict=True):
        monkeypatch.setenv(name, value)
    found = Processes(launcher)
    assert (found.rank, found.world_size, found.local_rank, found.first) == (5, 8, 1, False)
    for own, of in (('8', '8'), ('-1', '8'), ('0', '0')):  # it would do nothing and say nothing
        monkeypatch.setenv(names[0], own)
        monkeypatch.setenv(names[1], of)
        refused(Processes, launcher,
                match=f'--launcher {launcher}: expected {names[0]} from 0 .*, got {own} of {of}')
    monkeypatch.setenv(names[1], 'eight')
    refused(Processes, launcher, match='as (torchrun|srun) sets them .*eight')


def test_a_process_alone_waits_for_nobody():
    alone = Processes('none')
    assert alone.connect() is None and alone.gather('x') == ['x'] and alone.close() is None
    assert alone.first and (alone.rank, alone.world_size, alone.local_rank) == (0, 1, 0)


def test_slurms_first_host_is_where_they_meet(monkeypatch):
    for name, value in (('SLURM_PROCID', '0'), ('SLURM_NTASKS', '2'), ('SLURM_LOCALID', '0'),
                        ('SLURM_STEP_NODELIST', 'node[3-4]')):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv('MASTER_ADDR', raising=False)
    monkeypatch.setenv('MASTER_PORT', '1234')
    asked, joined = [], []

    def run(command, **kwargs):
        asked.append(command)
        return SimpleNamespace(stdout='node3\nnode4\n')

    monkeypatch.setattr(subprocess, 'run', run)
    monkeypatch.setattr(torch.distributed, 'init_process_group',
                        lambda *args, **kwargs: joined.append((*args, kwargs['rank'],
                                                               kwargs['world_size'])))
    Processes('slurm').connect()
    assert asked == [['scontrol', 'show', 'hostnames', 'node[3-4]']]
    monkeypatch.setenv('MASTER_ADDR', 'head')
    Processes('slurm').connect()
    assert joined == [('gloo', 'tcp://node3:1234', 0, 2), ('gloo', 'tcp://head:1234', 0, 2)]
    monkeypatch.delenv('MASTER_ADDR')
    monkeypatch.setattr(subprocess, 'run', lambda *args, **kwargs: SimpleNamespace(stdout=''))
    refused(Processes('slurm').connect, match=r"the first host of 'node\[3-4\]' is not known")


def distributed(monkeypatch, launcher, names, address, port):
    for name, value in zip(names, '130', strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('MASTER_ADDR', address)
    monkeypatch.delenv('MASTER_PORT', raising=False)
    if port:
        monkeypatch.setenv('MASTER_PORT', port)
    return Processes(launcher)


@pytest.mark.parametrize('launcher, names, port, method', [
    ('slurm', ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'), None, 'tcp://head:29500'),
    ('slurm', ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'), '7', 'tcp://head:7'),
    ('pytorch', ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'), '7', 'env://')])
def test_processes_meet_tell_and_part(monkeypatch, launcher, names, port, method):
    met, parted = [], []
    monkeypatch.setattr(torch.distributed, 'init_process_group',
                        lambda *args, **kwargs: met.append((args, kwargs)))
    monkeypatch.setattr(torch.distributed, 'all_gather_object', lambda values, value: (
        values.__setitem__(slice(None), [value + rank for rank in range(len(values))])))
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: bool(met))
    monkeypatch.setattr(torch.distributed, 'destroy_process_group', lambda: parted.append(1))
    group = distributed(monkeypatch, launcher, names, 'head', port)
    group.close()
    assert not parted  # they did not meet
    group.connect()
    (args, kwargs), = met
    assert args == ('gloo', method) and (kwargs['rank'], kwargs['world_size']) == (1, 3)
    assert kwargs['timeout'] > timedelta(days=1)  # one may have much more to do than another
    assert group.gather(5) == [5, 6, 7]
    group.close()
    assert parted == [1]


def test_a_pool_has_processes_of_one_thread_and_leaves_no_job_behind(monkeypatch):
    noted = []

    class Pool:
        def __init__(self, workers, context, initializer, arguments):
            noted.append((workers, context.get_start_method(), initializer, arguments))

        def map(self, function, *arguments):
            return map(function, *arguments)

        def shutdown(self, **options):
            noted.append(options)
    monkeypatch.setattr(processes, 'ProcessPoolExecutor', Pool)
    with open_pool(3) as run:
        assert list(run(pow, [(2, 3), (3, 2), (5, 1)])) == [8, 9, 5]
        with pytest.raises(ValueError, match='zip'):
            run(pow, [(1, 2), (3, )])
        assert noted == [(3, 'spawn', torch.set_num_threads, (1, ))]
    assert noted[1:] == [dict(cancel_futures=True)]
