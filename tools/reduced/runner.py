"""Runs the jobs of a plan: several at once, resumable, with progress and the time left."""
import ctypes
import fcntl
import json
import multiprocessing
import os
import re
import runpy
import signal
import sys
import time
from pathlib import Path

from mmpd.utils.files import write_atomically

ROOT = Path(__file__).resolve().parents[2]
ITERATION = re.compile(r'Iter\((?:train|test)\) +\[ *(\d+)/ *(\d+)\]')
POLL = 3  # seconds


class Mixed(ValueError):
    """The folder holds results of other budgets, configs or data."""


def marker(plan, job):
    """File that says that a job is done."""
    return plan.out / 'done' / f'{job.name}.json'


def done(plan, job):
    """What the marker of a job says, None if it is not done.

    Raises:
        Mixed: if it is of other budgets, configs or data.
    """
    path = marker(plan, job)
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    _same(path, found, plan, job)
    return found


def _same(path, found, plan, job):
    if found.get('key') != plan.key(job):
        raise Mixed(f'{path}: of other budgets, configs or data than those of profile '
                    f'{plan.profile.name}; give another --out, or delete it, what it is about and '
                    'what follows from it')


def begun(plan, job):
    """File that says with which budgets a training began, so that no other goes on with it.

    Raises:
        Mixed: if it began with others.
    """
    path = plan.out / 'done' / f'{job.name}.begun'
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return path
    _same(path, found, plan, job)
    return path


def lock(out):
    """Keep other runs out of the folder; returns what has to stay open.

    Raises:
        ValueError: if another run has it.
    """
    out.mkdir(parents=True, exist_ok=True)
    file = (out / 'lock').open('w')
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ValueError(f'--out {out}: another run is at work there') from None
    return file


def progress(log):
    """Part of a tool's run that its log tells of, 0 to 1."""
    try:
        with log.open('rb') as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4000))
            found = ITERATION.findall(file.read().decode(errors='replace'))
    except OSError:
        return 0
    return int(found[-1][0]) / int(found[-1][1]) if found else 0


def _child(job, result, log):
    """The tool, in a process that has imported MMagic already; its output goes to ``log``."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # ends with its parent, however that ends
    os.setsid()  # a group of its own for the scheduler; Ctrl-C goes to the parent, which ends it
    with open(log, 'a') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = (os.fdopen(number, 'w', 1, closefd=False) for number in (1, 2))
    script = f'tools/reduced/{job.tool.split(".")[0]}.py' if job.tool.startswith(
        'measure.') else job.tool
    arguments = (job.tool.split('.')[1], str(result), *job.arguments) if job.tool.startswith(
        'measure.') else job.arguments
    sys.argv = [script, *arguments]
    print(f'$ python {script} {" ".join(map(str, arguments))}', flush=True)
    try:
        runpy.run_path(str(ROOT / script), run_name='__main__')
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback
        traceback.print_exc()
        code = 1
    else:
        code = 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Runner:
    """Starts jobs in their order as soon as those before them are done.

    Args:
        plan (Plan): Jobs.
        stages (Sequence[str]): Those that are run; what they need of others has to be done.
        jobs (int): Processes at once.
    """

    def __init__(self, plan, stages, jobs):
        self.plan, self.at_once = plan, jobs
        self.finished = {job.name for job in plan.jobs if done(plan, job)}
        self.waiting = [job for job in plan.jobs
                        if job.stage in stages and job.name not in self.finished]
        for job in self.waiting:
            begun(plan, job)
        self.running, self.failed, self.tenths = {}, {}, {}
        self.begin, self.worked = time.monotonic(), 0.0
        names = {job.name for job in self.waiting} | self.finished
        for job in self.waiting:
            for name in job.after:
                if name not in names:
                    raise ValueError(f'--stages: {job.stage} needs {plan[name].stage} ({name}), '
                                     'which is not done')

    def log(self, job):
        return self.plan.out / 'logs' / f'{job.name}.log'

    def say(self, text):
        elapsed = time.strftime('%H:%M:%S', time.gmtime(time.monotonic() - self.begin))
        print(f'{elapsed}  {text}', flush=True)

    def left(self):
        """Seconds to go, from what the work so far took; None at the beginning."""
        work = self.worked + sum(job.cost * (progress(self.log(job)) - first)
                                 for job, _, _, first in self.running.values())
        todo = sum(job.cost for job in self.waiting) + sum(
            job.cost * (1 - progress(self.log(job))) for job, _, _, _ in self.running.values())
        return None if work <= 0 else (time.monotonic() - self.begin) * todo / work

    def _start(self, job):
        log = self.log(job)
        if job.trains:
            write_atomically(begun(self.plan, job),
                             json.dumps(dict(key=self.plan.key(job))).encode())
        elif log.exists():
            log.unlink()
        process = multiprocessing.get_context('fork').Process(
            target=_child, args=(job, self.plan.result(job.name), log))
        process.start()
        self.running[job.name] = (job, process, time.monotonic(),
                                  progress(log) if job.trains else 0)
        self.say(f'{job.stage}: {job.name} begins')

    def _ready(self):
        for job in self.waiting:
            if all(name in self.finished for name in job.after):
                return job
        return None

    def _end(self, job, code, seconds, first):
        del self.running[job.name]
        if code:
            self.failed[job.name] = code
            lost = {job.name}
            for other in list(self.waiting):
                if lost & set(other.after):
                    lost.add(other.name)
                    self.waiting.remove(other)
            tail = self.log(job).read_text().strip().splitlines()[-1:]
            lost = ', '.join(sorted(lost - {job.name})) or 'nothing else'
            self.say(f'{job.stage}: {job.name} FAILED ({code}), see {self.log(job)}: '
                     f'{"".join(tail)[-200:]}; without it: {lost}')
            return
        write_atomically(marker(self.plan, job), json.dumps(
            dict(key=self.plan.key(job), seconds=round(seconds, 1))).encode())
        self.finished.add(job.name)
        self.worked += job.cost * (1 - first)
        left = self.left()
        when = f', about {left / 60:.0f} min left' if left else ''
        total = len(self.finished) + len(self.waiting) + len(self.running)
        self.say(f'{job.stage}: {job.name} done in {seconds:.0f} s '
                 f'({len(self.finished)} of {total}{when})')

    def _tell(self):
        for name, (job, _, _, _) in self.running.items():
            tenth = int(progress(self.log(job)) * 10)
            if job.trains and tenth > self.tenths.get(name, 0):
                self.tenths[name] = tenth
                left = self.left()
                when = f', about {left / 60:.0f} min left in all' if left else ''
                self.say(f'{job.stage}: {name} {tenth * 10} %{when}')

    def run(self):
        """Returns whether all went well."""
        try:
            while self.waiting or self.running:
                while len(self.running) < self.at_once and (job := self._ready()):
                    self.waiting.remove(job)
                    self._start(job)
                time.sleep(POLL)
                for job, process, start, first in list(self.running.values()):
                    if process.exitcode is not None:
                        self._end(job, process.exitcode, time.monotonic() - start, first)
                self._tell()
        finally:
            for _, process, _, _ in self.running.values():
                process.terminate()
        return not self.failed
