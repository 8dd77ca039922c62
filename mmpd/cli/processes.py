"""The processes of a command: those that torchrun or Slurm started, and its own."""
import os
import subprocess
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import get_context

from ..errors import InputError

__all__ = ['Processes', 'open_pool']


@contextmanager
def open_pool(workers):
    """Processes for one job each, of one thread each: results do not depend on their number.

    Args:
        workers (int): How many; 1 for this process itself.

    Yields:
        Callable: ``run(function, jobs)`` gives ``function(*job)`` of each job, in order.
    """
    import torch
    if workers == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield lambda function, jobs: (function(*job) for job in jobs)
        finally:
            torch.set_num_threads(threads)
        return
    # a fork would share the locks of torch's threads
    pool = ProcessPoolExecutor(workers, get_context('spawn'), torch.set_num_threads, (1, ))
    try:
        yield lambda function, jobs: pool.map(function, *zip(*jobs, strict=True))
    finally:
        pool.shutdown(cancel_futures=True)


class Processes:
    """Which process this is, and what all of them know.

    Nothing is exchanged but a few objects at the beginning and the end: gloo will do, with and
    without GPUs.

    Args:
        launcher (str): 'none', 'pytorch' (torchrun) or 'slurm' (srun).

    Raises:
        InputError: if the launcher's environment variables are not there, or no such process.
    """

    def __init__(self, launcher):
        self.launcher, self.rank, self.world_size, self.local_rank = launcher, 0, 1, 0
        if launcher == 'none':
            return
        names = dict(
            pytorch=('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
            slurm=('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'))[launcher]
        starter = dict(pytorch='torchrun', slurm='srun')[launcher]
        try:
            self.rank, self.world_size, self.local_rank = (int(os.environ[name]) for name in names)
        except (KeyError, ValueError) as error:
            raise InputError(f'--launcher {launcher}: expected {", ".join(names)} in the '
                             f'environment, as {starter} sets them ({error})') from None
        if not 0 <= self.rank < self.world_size:
            raise InputError(f'--launcher {launcher}: expected {names[0]} from 0 to {names[1]} - 1,'
                             f' got {self.rank} of {self.world_size}')

    @property
    def first(self):
        """Whether this is the process that speaks."""
        return self.rank == 0

    def connect(self):
        """Wait for the others."""
        if self.world_size == 1:
            return
        import torch.distributed
        address = os.environ.get('MASTER_ADDR') or self._slurm_address()
        port = os.environ.get('MASTER_PORT', '29500')
        # one process may finish days before another
        torch.distributed.init_process_group(
            'gloo', f'tcp://{address}:{port}' if self.launcher == 'slurm' else 'env://',
            rank=self.rank, world_size=self.world_size, timeout=timedelta(days=30))

    @staticmethod
    def _slurm_address():
        nodes = os.environ.get('SLURM_STEP_NODELIST') or os.environ.get('SLURM_NODELIST', '')
        try:
            return subprocess.run(['scontrol', 'show', 'hostnames', nodes], check=True,
                                  capture_output=True, text=True).stdout.split()[0]
        except (OSError, subprocess.CalledProcessError, IndexError) as error:
            raise InputError(f'--launcher slurm: the first host of {nodes!r} is not known '
                             f'({error}); set MASTER_ADDR') from None

    def gather(self, value):
        """The values of all processes, in order, in each of them."""
        if self.world_size == 1:
            return [value]
        import torch.distributed
        values = [None] * self.world_size
        torch.distributed.all_gather_object(values, value)
        return values

    def close(self):
        """Part from the others."""
        if self.world_size > 1:
            import torch.distributed
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
