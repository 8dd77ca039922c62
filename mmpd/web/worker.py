"""A process that computes, so that a computation can be stopped and a crash stays outside."""
import multiprocessing
import os
import signal
import sys
import threading
import traceback

from ..errors import InputError

__all__ = ['Worker']

START = 600  # seconds that importing everything may take on a busy machine


def _serve(connection, with_models):
    """The process: jobs in, results or messages out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the page ends it
    from . import jobs
    if with_models:
        from .. import apis  # noqa: F401  (MMagic, before the first visitor waits for it)
    connection.send(('ready', os.getpid()))
    while True:
        try:
            job, folder = connection.recv()
        except EOFError:
            return
        try:
            answer = 'done', jobs.run(job, folder)
        except (InputError, ValueError) as error:
            answer = 'refused', ' '.join(str(error).split())
        except MemoryError:
            answer = 'refused', 'these pictures need more memory than there is'
        except Exception:
            traceback.print_exc(file=sys.stderr)
            answer = 'failed', 'something went wrong here; the host can see what in the log'
        connection.send(answer)


class Worker:
    """Runs jobs one after the other.

    Args:
        limits (Limits): ``seconds`` of one job.
        with_models (bool): Load MMagic at the start.
    """

    def __init__(self, limits, with_models=False):
        self.limits, self.with_models = limits, with_models
        self._lock = threading.Lock()
        self._context = multiprocessing.get_context('spawn')
        self._process = self._connection = None
        self._ready = False

    def start(self):
        """Start the process; it gets ready by itself."""
        with self._lock:
            self._start()

    def _start(self):
        if self._process is not None and self._process.is_alive():
            return
        self._end()
        self._connection, other = self._context.Pipe()
        self._process = self._context.Process(
            target=_serve, args=(other, self.with_models), daemon=True, name='mmpd-web-worker')
        self._process.start()
        other.close()
        self._ready = False

    def run(self, job, folder):
        """Compute.

        Args:
            job (Job): What.
            folder (str | Path): For its files.

        Returns:
            Result: As :func:`mmpd.web.jobs.run`.

        Raises:
            InputError: What the job refuses, a computation that took too long or broke the
                process; one line for the visitor.
        """
        with self._lock:
            self._start()
            try:
                if not self._ready:
                    self._receive(START, 'the computation could not be started')
                    self._ready = True
                self._connection.send((job, str(folder)))
                kind, answer = self._receive(
                    self.limits.seconds, f'stopped after {self.limits.seconds:g} s, the most that '
                    'one computation may take; choose a smaller picture')
            except (EOFError, OSError):
                self._end()
                raise InputError('the computation broke off (out of memory?); choose a smaller '
                                 'picture') from None
        if kind != 'done':
            raise InputError(answer)
        return answer

    def _receive(self, seconds, late):
        if not self._connection.poll(seconds):
            self._end()
            raise InputError(late)
        return self._connection.recv()

    def _end(self):
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
        self._process = self._connection = None

    def close(self):
        """End the process, whatever it does."""
        self._end()
