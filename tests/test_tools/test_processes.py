"""Processes of a command, as torchrun and srun start them."""
import os
import socket
import subprocess
import sys

import pytest
from conftest import ROOT

from mmpd.cli import processes
from mmpd.cli.processes import Processes
from mmpd.errors import InputError

SLURM = ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID')
SCRIPT = """
from mmpd.cli.processes import Processes
group = Processes('slurm')
group.connect()
print(group.first, group.gather(group.rank * 10 + group.local_rank))
group.close()
"""


def free_port():
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return str(server.getsockname()[1])


def test_tasks_of_slurm_know_each_other():
    port = free_port()
    tasks = [subprocess.Popen(
        [sys.executable, '-c', SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'SLURM_PROCID': rank,
             'SLURM_NTASKS': '2', 'SLURM_LOCALID': rank, 'MASTER_ADDR': '127.0.0.1',
             'MASTER_PORT': port}) for rank in '01']
    outputs = [task.communicate(timeout=280) for task in tasks]
    assert [out for out, _ in outputs] == ['True [0, 11]\n', 'False [0, 11]\n'], outputs


def test_the_first_host_of_slurm_is_the_master(monkeypatch, tmp_path):
    for name, value in zip(SLURM, '120', strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv('MASTER_ADDR', raising=False)
    monkeypatch.setenv('SLURM_STEP_NODELIST', 'node[3-4]')
    group = Processes('slurm')
    assert (group.rank, group.world_size, group.local_rank, group.first) == (1, 2, 0, False)
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostnames node[3-4]" ] && echo node3 && '
                        'echo node4\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    assert group._slurm_address() == 'node3'
    scontrol.unlink()
    with pytest.raises(InputError, match="first host of 'node.3-4.' is not known .*MASTER_ADDR"):
        group.connect()


def test_one_process_needs_nobody():
    group = Processes('none')
    group.connect()
    assert group.first and group.gather('x') == ['x'] and group.world_size == 1
    group.close()


@pytest.mark.parametrize('launcher, names', [
    ('pytorch', 'RANK, WORLD_SIZE, LOCAL_RANK'), ('slurm', ', '.join(SLURM))])
def test_a_launcher_that_did_not_launch_is_named(monkeypatch, launcher, names):
    for name in names.split(', '):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=f'--launcher {launcher}: expected {names} in the env'):
        processes.Processes(launcher)
