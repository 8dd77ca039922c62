"""What a work directory says about the run in it."""
import os
import shutil

import pytest

from mmpd.compat.checkpoints import find_latest_checkpoint
from mmpd.utils.run_folder import (
    last_checkpoint,
    remove_partial_checkpoints,
    resumable,
    write_note,
)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / 'run'
    folder.mkdir()
    for number in (2, 10, 4):
        (folder / f'iter_{number}.pth').write_text(str(number))
    for name in ('best_PSNR_iter_4.pth', 'iter_4.pth.old', 'iter_x.pth'):
        (folder / name).write_text('another')
    return folder


def test_a_note_names_the_file_relative_to_its_folder(run, monkeypatch):
    write_note(run, run / 'iter_10.pth')
    assert (run / 'last_checkpoint').read_text() == 'iter_10.pth'
    monkeypatch.chdir(run.parent)
    write_note('run', 'run/iter_4.pth')
    assert (run / 'last_checkpoint').read_text() == 'iter_4.pth'
    write_note(run, run.parent / 'elsewhere/run/iter_4.pth')
    assert (run / 'last_checkpoint').read_text() == str(run.parent / 'elsewhere/run/iter_4.pth')
    write_note(run, 's3://bucket/run/iter_4.pth')
    assert last_checkpoint(run) == 's3://bucket/run/iter_4.pth'
    assert resumable(run) == [last_checkpoint(run)]


@pytest.mark.parametrize('note', ['iter_10.pth', '{run}/iter_10.pth', 'run/iter_10.pth',
                                  './work_dirs/run/iter_10.pth\n'])
def test_a_copied_folder_resumes_its_own_file(run, note, monkeypatch):
    """Also with the notes that mmengine wrote: of the original's place, or of where it ran."""
    (run / 'last_checkpoint').write_text(note.format(run=run))
    copy = run.parent / 'copy'
    shutil.copytree(run, copy)
    monkeypatch.chdir(run.parent)
    assert last_checkpoint(copy) == str(copy / 'iter_10.pth')
    assert find_latest_checkpoint(str(copy)) == str(copy / 'iter_10.pth')


def test_a_note_of_files_elsewhere_is_followed(run):
    (run.parent / 'other').mkdir()
    (run.parent / 'other' / 'x.pth').write_text('')
    (run / 'last_checkpoint').write_text(str(run.parent / 'other' / 'x.pth'))
    assert last_checkpoint(run) == str(run.parent / 'other' / 'x.pth')


def names(found):
    return [os.path.basename(path) for path in found]


def test_what_a_run_may_go_on_from(run):
    assert names(resumable(run)) == ['iter_10.pth', 'iter_4.pth', 'iter_2.pth']  # without a note
    write_note(run, run / 'iter_4.pth')
    assert names(resumable(run)) == ['iter_4.pth', 'iter_2.pth']  # 10 may be of another run
    write_note(run, run / 'iter_12.pth')  # deleted since
    assert names(resumable(run)) == ['iter_12.pth', 'iter_10.pth', 'iter_4.pth', 'iter_2.pth']
    assert names([find_latest_checkpoint(run)]) == ['iter_10.pth']
    (run / 'last_checkpoint').write_text('')  # what a kill leaves of mmengine's
    assert names(resumable(run))[0] == 'iter_10.pth'
    assert resumable(run.parent) == [] and find_latest_checkpoint(run.parent) is None
    assert resumable(run / 'none') == []


def test_only_what_killed_runs_left_is_removed(run):
    left = ['.iter_10.pth.ab12_x9z', '.iter_10.pth.ab12_x9z.partial', '.epoch_3.pth.abcdefgh',
            '.best_PSNR_iter_4.pth.abcdefgh.partial', '.last_checkpoint.abcdefgh.partial',
            '.' + f'best_{"x" * 80}'[:60] + '.abcdefgh.partial']
    other = ['.iter_10.pth', '.iter_10.pth.swp', 'iter_10.pth.ab12_x9z', '.notes.abcdefgh.partial',
             '.iter_10.pth.abcdefgh.txt', '.iter_ten.pth.abcdefgh']
    for name in left + other:
        (run / name).write_text('x')
    (run / 'sub').mkdir()
    (run / 'sub' / left[0]).write_text('x')
    before = set(os.listdir(run))
    assert sorted(remove_partial_checkpoints(run)) == sorted(left)
    assert set(os.listdir(run)) == before - set(left) and (run / 'sub' / left[0]).exists()
