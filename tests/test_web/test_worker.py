"""The process that computes: stopped when it takes too long, replaced when it breaks."""
import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import mmpd.apis
from mmpd.errors import InputError
from mmpd.web import jobs, worker
from mmpd.web.jobs import Job
from mmpd.web.limits import Limits
from mmpd.web.worker import Worker


def pair(folder, side, seed=0):
    rng = np.random.default_rng(seed)
    for name, size in (('lr', side), ('sr', 4 * side)):
        Image.fromarray(rng.integers(60, 200, (size, size, 3), dtype=np.uint8)).save(
            folder / f'{name}{seed}.png')
    return str(folder / f'lr{seed}.png'), str(folder / f'sr{seed}.png')


def folder(tmp_path, name):
    (tmp_path / name).mkdir()
    return tmp_path / name


def test_results_refusals_crashes_and_the_clock(tmp_path):
    worker = Worker(Limits(seconds=60))
    lr, sr = pair(tmp_path, 8)
    job = Job(lr, sr, operator='average pooling')
    try:
        done = worker.run(job, folder(tmp_path, 'a'))
        assert done.figures['lr_values_unmatched'] == 0 and os.path.isfile(done.picture)
        first = worker._process.pid
        assert worker._process.daemon  # it ends with the server
        worker.start()  # there is one already

        # a refusal comes as it is, the process stays
        with pytest.raises(InputError, match=r'the SR \(8x8\) is smaller'):
            worker.run(Job(sr, lr, operator='average pooling'), folder(tmp_path, 'b'))
        assert worker._process.pid == first

        # what nobody foresaw is not told
        with pytest.raises(InputError, match='^something went wrong here; the host'):
            worker.run(job, tmp_path / 'no' / 'such' / 'folder')

        big = pair(tmp_path, 256, seed=1)

        def kill():  # as the system does when memory is short
            time.sleep(0.3)
            os.kill(first, signal.SIGKILL)
        threading.Thread(target=kill).start()
        with pytest.raises(InputError, match='the computation broke off'):
            worker.run(Job(*big, operator='Lanczos, by Pillow'), folder(tmp_path, 'c'))

        # the next visitor finds another process; it stops in time
        worker.limits = Limits(seconds=0.2)
        worker.start()
        time.sleep(1)
        with pytest.raises(InputError, match='stopped after 0.2 s, the most that one computation'):
            worker.run(Job(*big, operator='Lanczos, by Pillow'), folder(tmp_path, 'd'))
        assert worker._process is None
    finally:
        worker.close()


class Connection:
    """Of a process that gets these jobs and is then left alone."""

    def __init__(self, *jobs):
        self.jobs, self.sent, self.open, self.answers = list(jobs), [], True, []

    def recv(self):
        if not self.jobs:
            raise EOFError
        return self.jobs.pop(0)

    def send(self, message):
        self.sent.append(message)

    def poll(self, seconds):
        self.asked = seconds
        return bool(self.answers)

    def close(self):
        self.open = False


@pytest.fixture
def interrupts():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize('error, answer', [
    (None, ('done', 'a result')),
    (InputError('the SR\n  is small'), ('refused', 'the SR is small')),
    (ValueError('no scale'), ('refused', 'no scale')),
    (MemoryError('12 GB'), ('refused', 'these pictures need more memory than there is')),
    (KeyError('/root'), ('failed', 'something went wrong here; the host can see what in the log'))])
def test_what_the_process_answers(error, answer, monkeypatch, interrupts, capsys):
    def run(job, folder):
        assert (job, folder) == ('a job', 'a folder')
        if error is not None:
            raise error
        return 'a result'
    monkeypatch.setattr(jobs, 'run', run)
    connection = Connection(*[('a job', 'a folder')] * 2)
    worker._serve(connection, with_models=False)  # ends when the page is gone
    assert connection.sent == [('ready', os.getpid()), answer, answer]
    assert ("KeyError: '/root'" in capsys.readouterr().err) == isinstance(error, KeyError)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # Ctrl-C is for the page


@pytest.mark.parametrize('with_models', [False, True])
def test_models_are_imported_before_the_first_visitor(with_models, monkeypatch, interrupts):
    monkeypatch.delattr(mmpd, 'apis')
    monkeypatch.delitem(sys.modules, 'mmpd.apis')
    connection, seen = Connection(), []
    connection.send = lambda message: seen.append('mmpd.apis' in sys.modules)
    worker._serve(connection, with_models)
    assert seen == [with_models]


class Process:
    """Of a worker, that notes what is done with it."""

    made = []

    def __init__(self, target, args, daemon, name):
        self.args, self.daemon, self.alive, self.done = args, daemon, False, []
        Process.made.append(self)

    def start(self):
        self.alive = True

    def is_alive(self):
        return self.alive

    def kill(self):
        self.alive = False
        self.done.append('killed')

    def join(self):
        self.done.append('joined')


def test_a_process_that_died_is_replaced_and_leaves_nothing_behind():
    Process.made.clear()
    pipes = []

    def pipe():
        pipes.append((Connection(), Connection()))
        return pipes[-1]
    one = Worker(Limits(), with_models=True)
    one._context = SimpleNamespace(Pipe=pipe, Process=Process)
    one.start()
    one.start()
    process, = Process.made
    (ours, theirs), = pipes
    assert process.daemon and process.args == (theirs, True)
    assert ours.open and not theirs.open  # else the end of the process would not be seen
    one._ready, process.alive = True, False  # it was killed while nobody waited
    one.start()
    assert len(Process.made) == 2 and process.done == ['killed', 'joined'] and not ours.open
    assert not one._ready  # the new one imports anew
    one.close()
    assert Process.made[1].done == ['killed', 'joined'] and not pipes[1][0].open
    one.close()


def test_a_process_that_does_not_get_ready_is_given_up(monkeypatch):
    given_up, connection = Worker(Limits(seconds=5)), Connection()
    monkeypatch.setattr(given_up, '_start', lambda: None)
    given_up._connection = connection
    with pytest.raises(InputError, match='the computation could not be started'):
        given_up.run('a job', 'a folder')
    assert not connection.sent and given_up._connection is None
    assert connection.asked > 60  # importing takes its time

    # once it was ready, it is not waited for again
    connection = given_up._connection = Connection(('ready', 1), ('done', 'a result'))
    connection.answers = [1]
    assert given_up.run('a job', 'a folder') == 'a result' and connection.asked == 5
    connection.jobs = [('done', 'another')]
    assert given_up.run('a job', 'a folder') == 'another'
    assert connection.sent == [('a job', 'a folder')] * 2
