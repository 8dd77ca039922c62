"""The process that computes: stopped when it takes too long, replaced when it breaks."""
import os
import signal
import threading
import time

import numpy as np
import pytest
from PIL import Image

from mmpd.errors import InputError
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
