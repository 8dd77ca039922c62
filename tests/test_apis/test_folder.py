"""Files through a model: batches, what exists already, failures; with a stand-in for the model."""
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mmpd.apis import folder
from mmpd.apis.folder import FolderRun, Job, make_batches, read_record
from mmpd.errors import InputError
from mmpd.operators import AveragePooling
from mmpd.utils.images import Picture, write_picture


class Inferencer:
    """Enlarges by repeating pixels; notes its batches, and fails where it is told."""

    settings = dict(model='m', strength='1')

    def __init__(self, tile=None, batch_size=2, only_size=None):
        self.tile, self.batch_size, self.batches, self.errors = tile, batch_size, [], {}
        self.only_size = self.in_size = only_size

    def check_size(self, size):
        if max(size) > 16:
            raise ValueError(f'{size[0]}x{size[1]} is too large')

    def predict(self, pictures):
        values = [int(picture.pixels.flat[0]) for picture in pictures]
        self.batches.append(values)
        for value in values:
            if value in self.errors:
                raise self.errors[value]
        return [[SimpleNamespace(
            image=Picture(picture.pixels.repeat(2, 0).repeat(2, 1)),
            raw=Picture(picture.pixels.repeat(2, 0).repeat(2, 1)), operator=AveragePooling(2),
            figures=dict(psnr_lr=12.345678, lr_values=3))] for picture in pictures]


@pytest.fixture
def make(tmp_path):
    """Jobs for files of these sizes, whose pixels are 0, 1, ..."""
    def jobs(*sizes, panel=False, mode='RGB'):
        (tmp_path / 'lr').mkdir(exist_ok=True)
        made = []
        for index, size in enumerate(sizes):
            source = tmp_path / 'lr' / f'{index}.png'
            Image.new(mode, size, (index, ) * len(mode) if len(mode) > 1 else index).save(source)
            made.append(Job(source, Path(source.name), tmp_path / 'sr' / source.name,
                            tmp_path / 'compare' / source.name if panel else None))
        return made
    return jobs


def complete(run, **options):
    problems = run.check()
    assert problems == []
    run.process(**options)
    return run


@pytest.mark.parametrize('size, expected', [(1, ['a', 'b', 'c', 'd', 'e']), (2, ['ac', 'd', 'be']),
                                            (3, ['acd', 'be'])])
def test_batches_are_of_one_size(size, expected):
    batches = make_batches('abcde', [1, 2, 1, 1, 2], size)
    found = [''.join(batch) for batch in batches]
    assert sorted(found) == sorted(expected) and found[0] == expected[0]
    with pytest.raises(ValueError, match='zip'):
        make_batches('ab', [1], 2)


@pytest.mark.parametrize('text, record', [
    (None, None), ('a holiday', None), ('mmpd {"a": 1}', dict(a=1)), ('mmpd {"a": 1', None),
    ('mmpd [1]', None)])
def test_records(tmp_path, text, record):
    write_picture(Picture(np.zeros((2, 2), np.uint8)), tmp_path / 'a.png', text)
    assert read_record(tmp_path / 'a.png') == record


def test_all_files_become_pictures_with_records(make):
    jobs = make((4, 4), (6, 4), (4, 4), (4, 4), panel=True)
    run = complete(FolderRun(Inferencer(), jobs))
    assert run.inferencer.batches == [[0, 2], [3], [1]] and not run.failures
    assert run.written == [jobs[0], jobs[2], jobs[3], jobs[1]] and run.finished == []
    for index, job in enumerate(jobs):
        image = np.asarray(Image.open(job.target))
        assert image.shape[1] == 2 * (6 if index == 1 else 4) and (image == index).all()
        assert read_record(job.target) == dict(
            model='m', strength='1', lr=job.digest, psnr_lr='12.3457', lr_values=3)
        assert read_record(job.panel) == read_record(job.target)
        assert len(job.digest) == 8


def test_tiles_are_of_one_picture(make):
    run = complete(FolderRun(Inferencer(tile=3), make((4, 4), (4, 4))))
    assert run.inferencer.batches == [[0], [1]]


def test_batches_are_dealt_out_to_processes(make):
    jobs = make(*[(4, 4)] * 5)
    batches = []
    for rank in range(2):
        run = complete(FolderRun(Inferencer(), jobs, rank=rank, world_size=2))
        batches.append(run.inferencer.batches)
    assert batches == [[[0, 1], [4]], [[2, 3]]]


def test_what_is_finished_is_left_alone_and_batches_stay_as_they_were(make):
    jobs = make(*[(4, 4)] * 4, panel=True)
    complete(FolderRun(Inferencer(), jobs))
    times = {job: job.target.stat().st_mtime_ns for job in jobs}
    jobs[1].target.unlink()  # of a batch with the first
    jobs[2].panel.unlink()
    run = complete(FolderRun(Inferencer(), jobs))
    assert run.finished == [jobs[0], jobs[3]] and run.written == [jobs[1], jobs[2]]
    assert run.inferencer.batches == [[0, 1], [2, 3]]  # rounding may depend on the batch
    assert jobs[0].target.stat().st_mtime_ns == times[jobs[0]]
    again = complete(FolderRun(Inferencer(), jobs))
    assert again.inferencer.batches == [] and len(again.finished) == 4
    run = complete(FolderRun(Inferencer(), jobs, overwrite=True))
    assert run.finished == [] and len(run.written) == 4


def test_what_else_exists_stands_in_the_way_of_all(make):
    jobs = make((4, 4), (4, 4), (4, 4))
    complete(FolderRun(Inferencer(), jobs))
    Image.new('RGB', (8, 8)).save(jobs[0].target)
    Image.new('RGB', (4, 4), 'red').save(jobs[1].source)
    other = Inferencer()
    other.settings = dict(other.settings, strength='0.5')
    problems = FolderRun(other, jobs).check()
    assert [problem.split(': ')[0] for problem in problems] == [str(job.target) for job in jobs]
    assert 'exists, and is not of mmpd-infer (--overwrite replaces it)' in problems[0]
    assert 'made with strength 1 instead of 0.5, lr ' in problems[1]
    assert problems[2].count('instead of') == 1 and 'lr ' not in problems[2]
    assert FolderRun(other, jobs, overwrite=True).check() == []


def test_files_that_cannot_be_used_cost_no_other(make, tmp_path):
    jobs = make((4, 4), (20, 4), (4, 4), (4, 4), (4, 4))
    jobs[2].source.write_bytes(jobs[2].source.read_bytes()[:40])
    jobs[3] = Job(jobs[3].source, jobs[3].name, tmp_path / ('x' * 260 + '.png'))
    jobs[4].source.unlink()
    run = complete(FolderRun(Inferencer(), jobs))
    assert run.written == jobs[:1] and run.failures.keys() == {job.source for job in jobs[1:]}
    assert run.failures[jobs[1].source] == f'{jobs[1].source}: 20x4 is too large'
    assert str(jobs[2].source) in run.failures[jobs[2].source]
    assert 'xxx.png)' in run.failures[jobs[3].source]
    assert str(jobs[4].source) in run.failures[jobs[4].source]
    source = jobs[0].source.with_name('y' * 250 + '.png')
    run = FolderRun(Inferencer(), [Job(source, Path('y.png'), tmp_path / 'y.png')])
    run.check()
    assert run.failures[source].count('yyy') < 200 and '(' not in run.failures[source][-8:]


def test_alpha_is_kept_or_refused(make):
    jobs = make((4, 4), mode='RGBA')
    run = complete(FolderRun(Inferencer(), jobs, alpha='refuse'))
    assert run.failures == {jobs[0].source: f'{jobs[0].source}: has alpha, which --alpha refuse '
                                            'does not take'}
    assert not complete(FolderRun(Inferencer(), jobs)).failures
    jobs = make((4, 4))
    assert not complete(FolderRun(Inferencer(), jobs, alpha='refuse', overwrite=True)).failures


def test_what_was_done_in_reading_is_noted(make):
    jobs = make((4, 4), (4, 4))
    Image.new('P', (4, 4)).save(jobs[1].source)
    run = complete(FolderRun(Inferencer(), jobs))
    assert len(run.notes) == 1 and run.notes[0].startswith(f'{jobs[1].source}: ')


@pytest.mark.parametrize('error, only_size, message', [
    (ValueError('not finite\nat all'), None, 'not finite'), (RuntimeError(' '), None,
                                                             'RuntimeError'),
    (MemoryError(), None, 'out of memory: try a smaller --batch-size or --tile'),
    (torch.cuda.OutOfMemoryError('x'), (4, 4), 'out of memory: try a smaller --batch-size')])
def test_a_batch_that_fails_is_tried_one_by_one(make, error, only_size, message):
    jobs, said = make(*[(4, 4)] * 3), []
    inferencer = Inferencer(batch_size=3, only_size=only_size)
    inferencer.errors[1] = error
    run = complete(FolderRun(inferencer, jobs), report=said.append)
    assert inferencer.batches == [[0, 1, 2], [0], [1], [2]]
    assert run.written == [jobs[0], jobs[2]]
    assert said == [f'{jobs[1].source}: {message}'] == list(run.failures.values())


def test_a_file_that_changed_since_it_was_checked(make):
    jobs, said = make((4, 4), (4, 4)), []
    run = FolderRun(Inferencer(), jobs)
    run.check()
    jobs[0].source.write_bytes(b'')
    run.process(report=said.append)
    assert run.written == [jobs[1]] and str(jobs[0].source) in said[0] and len(said) == 1
    run = FolderRun(Inferencer(), jobs[1:])
    run.check()
    jobs[1].target.unlink()
    run.process()  # was finished when it was looked at
    assert run.written == []


def test_sizes_of_pictures_count_not_those_of_headers(make):
    jobs = make((4, 6), (4, 6))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (6, 4), (1, 1, 1)).save(jobs[1].source, exif=exif)
    run = complete(FolderRun(Inferencer(), jobs))
    assert sorted(sum(run.inferencer.batches, [])) == [0, 1] and not run.failures


def test_a_disk_that_is_full_ends_it(make, monkeypatch):
    jobs = make(*[(4, 4)] * 3)

    def write(picture, path, text):
        if path == jobs[1].target:
            raise OSError(28, 'No space left on device')
        write_picture(picture, path, text)
    monkeypatch.setattr(folder, 'write_picture', write)
    run = FolderRun(Inferencer(batch_size=1), jobs, workers=1)
    run.check()
    with pytest.raises(InputError, match=r'1.png: cannot be written: No space .* \(1 f'):
        run.process()
    assert run.written == jobs[:1] and json.loads(json.dumps(read_record(jobs[0].target)))


@pytest.mark.parametrize('mode', ['L', 'RGB'])
def test_panels_show_lr_output_and_raw(make, monkeypatch, mode):
    seen = []
    monkeypatch.setattr(folder, 'decomposition_panel', lambda *arrays, operator: seen.append(
        (arrays, operator)) or np.zeros((2, 2, 3), np.uint8))
    complete(FolderRun(Inferencer(), make((4, 4), panel=True, mode=mode)))
    (lr, output, raw), operator = seen[0]
    assert lr.shape == (4, 4, 3) and output.shape == raw.shape == (8, 8, 3)
    assert isinstance(operator, AveragePooling) and operator.scale == 2


@pytest.mark.parametrize('progress', [False, True])
def test_bars_are_shown_where_they_are_wanted(make, capsys, progress):
    run = FolderRun(Inferencer(), make((4, 4), (4, 4), (4, 4)))
    run.check(progress)
    run.process(progress)
    err = capsys.readouterr().err
    assert ('checking' in err) == ('3/3' in err) == progress
