"""Many files through one model: in batches, over processes, and on from where it stopped.

Every output file carries a record of how it was made (its ImageDescription, JSON): the model, the
weights, the settings, the LR file's hash and the figures. It is what a finished file is known by,
and because files are written whole or not at all there are no others.
"""
import hashlib
import json
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ..errors import InputError, first_line
from ..utils.files import name_fault, plain
from ..utils.image_files import read_bytes
from ..utils.images import Picture, picture_size, read_description, read_picture, write_picture
from ..visualization import decomposition_panel

__all__ = ['FolderRun', 'Job', 'make_batches', 'read_record']

MARK = 'mmpd '


@dataclass(eq=False)
class Job:
    """One file.

    Attributes:
        source (Path): The LR file.
        name (Path): Its name below the input folder.
        target (Path): The file to write.
        panel (Path | None): The file for a comparison, if wanted.
        digest (str | None): How the SHA-256 of ``source`` begins, once it was read.
    """
    source: Path
    name: Path
    target: Path
    panel: Path | None = None
    digest: str | None = None


def make_batches(items, sizes, batch_size):
    """Lists of at most ``batch_size`` items of equal size, in order of the first of each size."""
    by_size = {}
    for item, size in zip(items, sizes, strict=True):
        by_size.setdefault(size, []).append(item)
    return [group[start:start + batch_size] for group in by_size.values()
            for start in range(0, len(group), batch_size)]


def read_record(path):
    """What the record in a file says, a dict, or None if it has none."""
    text = read_description(path)
    if text is None or not text.startswith(MARK):
        return None
    try:
        record = json.loads(text[len(MARK):])
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


class FolderRun:
    """Run a model over files.

    Batches are formed from all files in the same way in every process and dealt out in turn, so
    that what a file becomes does not depend on how many processes there are.

    Args:
        inferencer (PDInferencer): The model.
        jobs (list[Job]): The files.
        overwrite (bool): Replace what exists.
        alpha (str): 'keep' or 'refuse'.
        workers (int): Threads that read and write.
        rank (int): Which process this is.
        world_size (int): Of how many.

    Attributes:
        failures (dict[Path, str]): Files that could not be used, and why.
        finished (list[Job]): Files of this process that were there already.
        written (list[Job]): Files that were written.
        notes (list[str]): What was done to files in reading them, see docs/images.md.
    """

    def __init__(self, inferencer, jobs, overwrite=False, alpha='keep', workers=2, rank=0,
                 world_size=1):
        self.inferencer, self.jobs, self.overwrite = inferencer, jobs, overwrite
        self.alpha, self.workers, self.rank, self.world_size = alpha, workers, rank, world_size
        self.settings = inferencer.settings
        self.failures, self.finished, self.written, self._batches = {}, [], [], []
        self.notes = []

    def check(self, progress=False):
        """Read everything, write nothing.

        Args:
            progress (bool): Show a bar.

        Returns:
            list[str]: What stands in the way of all of it. Files that cannot be used go to
            ``failures``.
        """
        usable, sizes = [], []
        for job in self.jobs:
            try:
                self._check_names(job)
                size = picture_size(job.source)
                self._check_size(job, size)
            except ValueError as error:
                self.failures[job.source] = str(error)
                continue
            usable.append(job)
            sizes.append(size)
        batch_size = 1 if self.inferencer.tile else self.inferencer.batch_size
        self._batches = make_batches(usable, sizes, batch_size)[self.rank::self.world_size]
        mine = [job for batch in self._batches for job in batch]
        with ThreadPoolExecutor(self.workers) as pool:
            states = tqdm(pool.map(self._verify, mine), 'checking', len(mine), False, unit='file',
                          disable=not progress)
            found = {job: state for job, state in zip(mine, states, strict=True) if state}
        self.finished = [job for job, (kind, _) in found.items() if kind == 'finished']
        self.failures.update((job.source, message) for job, (kind, message) in found.items()
                             if kind == 'failure')
        return [message for kind, message in found.values() if kind == 'problem']

    @staticmethod
    def _check_names(job):
        for path in filter(None, (job.source, job.target, job.panel)):
            reason = name_fault(path.name)
            if reason:
                raise ValueError(f'{plain(job.source)}: {reason}'
                                 + f' ({plain(path.name)})' * (path != job.source))

    def _check_size(self, job, size):
        try:
            self.inferencer.check_size(size)
        except ValueError as error:
            raise ValueError(f'{plain(job.source)}: {error}') from None

    def _verify(self, job):
        """What is special about a job: ('finished' | 'failure' | 'problem', message), or None."""
        try:
            data = read_bytes(job.source)
            job.digest = hashlib.sha256(data).hexdigest()[:8]
            if not self.overwrite:
                problem = self._obstacle(job)
                if problem:
                    return 'problem', problem
                if job.target.exists() and (job.panel is None or job.panel.exists()):
                    return 'finished', None
            picture = read_picture(job.source, data)
            if picture.alpha is not None and self.alpha == 'refuse':
                return 'failure', (f'{plain(job.source)}: has alpha, which --alpha refuse does '
                                   'not take')
            self.notes += [f'{plain(job.source)}: {note}' for note in picture.notes]
        except OSError as error:
            return 'failure', f'{plain(job.source)}: {error.strerror or error}'
        except ValueError as error:
            return 'failure', str(error)

    def _obstacle(self, job):
        """What exists already and is not what this run would write, or None."""
        for path in filter(None, (job.target, job.panel)):
            if not path.exists():
                continue
            record = read_record(path)
            if record is None:
                return f'{path}: exists, and is not of mmpd-infer (--overwrite replaces it)'
            wanted = {**self.settings, 'lr': job.digest}
            differing = [f'{key} {record.get(key)} instead of {value}'
                         for key, value in wanted.items() if record.get(key) != value]
            if differing:
                return (f'{path}: exists, made with {", ".join(differing)} (--overwrite replaces '
                        'it; or choose another folder)')

    def process(self, progress=False, report=None):
        """Compute and write what :meth:`check` found usable.

        Args:
            progress (bool): Show a bar with rate and remaining time.
            report (Callable[[str], None], optional): Is told of each failure when it happens.

        Raises:
            InputError: if a file cannot be written; all others are whole or absent.
        """
        done = set(self.finished)
        batches = [[job for job in batch if job.source not in self.failures]
                   for batch in self._batches]
        batches = [batch for batch in batches if not done.issuperset(batch)]
        bar = tqdm(total=sum(job not in done for batch in batches for job in batch), unit='image',
                   disable=not progress)
        pool, writes = ThreadPoolExecutor(self.workers), deque()
        try:
            loads = deque(self._load(pool, batch) for batch in batches[:1])
            for index, batch in enumerate(batches):
                if index + 1 < len(batches):  # while this one is computed
                    loads.append(self._load(pool, batches[index + 1]))
                for job, prediction in self._predict(batch, loads.popleft(), report):
                    if job not in done:
                        writes.append((job, pool.submit(self._write, job, prediction)))
                while len(writes) > 2 * len(batch):
                    self._collect(writes, bar)
            while writes:
                self._collect(writes, bar)
        finally:
            pool.shutdown(cancel_futures=True)
            bar.close()

    @staticmethod
    def _load(pool, batch):
        return [pool.submit(read_picture, job.source) for job in batch]

    def _collect(self, writes, bar):
        job, future = writes.popleft()
        try:
            future.result()
        except OSError as error:
            raise InputError(
                f'{job.target}: cannot be written: {error.strerror or error} '
                f'({len(self.written)} files were; the same command goes on)') from error
        self.written.append(job)
        bar.update()

    def _predict(self, batch, loads, report):
        """Yield jobs and predictions of a batch; a failure costs no other file."""
        pictures = {}
        for job, load in zip(batch, loads, strict=True):
            try:
                pictures[job] = load.result()
            except ValueError as error:  # it has changed since
                self._fail(job, str(error), report)
        # sizes of the header are not always those of the picture, see picture_size
        sizes = [picture.pixels.shape[:2] for picture in pictures.values()]
        for group in make_batches(list(pictures), sizes, max(1, len(pictures))):
            try:
                results = self.inferencer.predict([pictures[job] for job in group])
                yield from ((job, found[0]) for job, found in zip(group, results, strict=True))
            except (ValueError, RuntimeError, MemoryError) as error:
                if len(group) == 1:
                    self._fail(group[0], f'{group[0].source}: {self._explain(error)}', report)
                    continue
                for job in group:  # the others need not suffer
                    yield from self._predict([job], [_Loaded(pictures[job])], report)

    def _explain(self, error):
        if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
            return 'out of memory: try a smaller --batch-size' + (
                '' if self.inferencer.only_size else ' or --tile')
        return first_line(error)

    def _fail(self, job, message, report):
        self.failures[job.source] = message
        if report is not None:
            report(message)

    def _write(self, job, prediction):
        job.target.parent.mkdir(parents=True, exist_ok=True)
        record = {**self.settings, 'lr': job.digest, **{
            key: f'{value:.4f}' if isinstance(value, float) else value
            for key, value in prediction.figures.items()}}
        text = MARK + json.dumps(record)
        if job.panel is not None:
            job.panel.parent.mkdir(parents=True, exist_ok=True)
            write_picture(Picture(self._panel(job, prediction)), job.panel, text)
        write_picture(prediction.image, job.target, text)  # last: it ends the job

    @staticmethod
    def _panel(job, prediction):
        operator = deepcopy(prediction.operator)
        operator = operator.cpu() if isinstance(operator, torch.nn.Module) else operator
        lr = read_picture(job.source).pixels
        rgb = [np.dstack([array] * 3) if array.ndim == 2 else array
               for array in (lr, prediction.image.pixels, prediction.raw.pixels)]
        return decomposition_panel(*rgb, operator=operator)


class _Loaded:
    """A picture in the place of a future."""

    def __init__(self, picture):
        self.picture = picture

    def result(self):
        return self.picture
