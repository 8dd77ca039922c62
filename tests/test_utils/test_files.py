"""Files are whole or as they were."""
import errno
import os
import re
import stat
import threading

import pytest

from mmpd.cli import run_tool
from mmpd.errors import DiskFull
from mmpd.utils.files import (
    csv_text,
    name_fault,
    plain,
    remove_partial_files,
    write_atomically,
)


@pytest.mark.parametrize('fails, sync', [('replace', True), ('replace', False), ('fsync', True)])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, fails, sync):
    def full(*args):
        raise OSError(28, 'No space left on device')

    path = tmp_path / 'a.png'
    path.write_bytes(b'old')
    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError, match='No space'):
        write_atomically(path, b'new', sync)
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['a.png']
    monkeypatch.undo()
    with pytest.raises(TypeError):  # in the middle of it
        write_atomically(path, 'text', sync)
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['a.png']


def test_waits_for_the_disk_only_if_asked_to(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, 'fsync', synced.append)
    write_atomically(tmp_path / 'a', b'1', sync=False)
    assert not synced
    write_atomically(tmp_path / 'a', b'2')
    assert len(synced) == 1 and (tmp_path / 'a').read_bytes() == b'2'


def test_permissions_links_devices_and_long_names(tmp_path):
    umask = os.umask(0o027)
    try:
        write_atomically(tmp_path / 'file', b'1')
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / 'file').stat().st_mode) == 0o640
    (tmp_path / 'link').symlink_to(tmp_path / 'file')
    write_atomically(tmp_path / 'link', b'2')
    assert (tmp_path / 'link').is_symlink() and (tmp_path / 'file').read_bytes() == b'2'
    write_atomically(os.devnull, b'3')
    assert not os.path.isfile(os.devnull)
    name = 'ä' * 125  # 250 bytes: as long as a name may be
    write_atomically(tmp_path / name, b'4')
    assert (tmp_path / name).read_bytes() == b'4'


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / '.iter_5.pth.0123abcd.partial').write_bytes(b'half')
    for kept in ('a.partial.pth', '.hidden', '.of_others.partial'):
        (tmp_path / kept).write_bytes(b'')
    remove_partial_files(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ['.hidden', '.of_others.partial', 'a.partial.pth']


def test_temporary_files_are_those_that_are_removed(tmp_path, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'replace', killed)
    monkeypatch.setattr(os, 'unlink', lambda path: None)  # no time left for it
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / 'a', b'1')
    monkeypatch.undo()
    assert len(os.listdir(tmp_path)) == 1
    remove_partial_files(tmp_path)
    assert not os.listdir(tmp_path)


def test_writers_do_not_share_a_temporary_file(tmp_path):
    path = tmp_path / 'a'
    contents = [bytes([i]) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=write_atomically, args=(path, c)) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents and os.listdir(tmp_path) == ['a']


def test_a_full_disk_is_one_line_with_path_needed_and_free(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / 'x.pth'
    write_atomically(path, b'old')
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(DiskFull) as caught:
        write_atomically(path, memoryview(bytes(4000)).cast('i'))
    assert re.fullmatch(rf'{path}: cannot be written: No space left on device; 4,000 bytes needed, '
                        r'[\d,]+ free', str(caught.value))
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['x.pth']


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='Linux has this device')
def test_a_full_disk_ends_a_tool_with_one_line(capsys):
    def tool(argv):
        with open('/dev/full', 'w') as file:
            file.write('x')

    with pytest.raises(SystemExit) as stop:
        run_tool(tool, [])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count('\n') == 1 and 'No space left on device' in said
    with pytest.raises(DiskFull, match='/dev/full: cannot be written: No space left'):
        write_atomically('/dev/full', b'x')


def test_a_limit_of_files_is_named(tmp_path):
    resource = pytest.importorskip('resource')
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(DiskFull) as caught:
            write_atomically(tmp_path / 'x.pth', bytes(5000))
        said = str(caught.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []
    assert re.search(r'x\.pth: cannot be written: File too large; 5,000 bytes needed, the limit of '
                     r'this process is 1,000 \(ulimit -f\), [\d,]+ free$', said)


@pytest.mark.parametrize('name', ['\U0001f600' * 62, 'é' * 120, 'a' * 251])
def test_names_of_the_greatest_length_in_bytes(tmp_path, name):
    write_atomically(tmp_path / f'{name}.png', b'1')
    assert os.listdir(tmp_path) == [f'{name}.png']


@pytest.mark.parametrize('name, shown', [
    ('a\nb', 'a\\nb'), ('caf\udce9', 'caf\\udce9'), ('\x1b[31m', '\\x1b[31m'), ('ü 漢 …', 'ü 漢 …'),
    ('a\u202egnp', 'a\\u202egnp'), ('a\u2028b', 'a\\u2028b')])
def test_names_in_one_line_of_text(name, shown):
    assert plain(name) == shown


def test_what_is_wrong_with_names():
    assert name_fault('x' * 255) is None and name_fault('é' * 127) is None
    assert name_fault('é' * 128) == 'expected a name of at most 255 bytes, got 256'
    assert name_fault('caf\udce9') == 'its name caf\\udce9 is not UTF-8'


@pytest.mark.parametrize('text', ['=1+1', '+1', '-1', '@x', '\t=1', '\r=1'])
def test_cells_that_would_be_formulas_are_text(text):
    assert csv_text(text) == f"'{text}" and csv_text(f'a{text}') == f'a{text}'
