"""Runs of the converters: what is made, skipped, refused and listed."""
import json
import signal
import struct
import zipfile
import zlib
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from raw_images import Inline, encode, folder_of, picture, run, snapshot

from mmpd.datasets.preparation import Recipe, engine, open_source, prepare

pytestmark = pytest.mark.usefixtures('one_process')


def test_bad_images_are_listed_and_the_run_continues(tmp_path, capsys):
    root = folder_of(tmp_path, 3) / '00000'
    whole = encode(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    (root / 'cut.png').write_bytes(whole[:-200])
    jpeg = encode(picture(1), '.jpg')
    (root / 'half.jpg').write_bytes(jpeg[:len(jpeg) // 2])
    (root / 'empty.png').write_bytes(b'')
    (root / 'text.png').write_bytes(b'no image at all')
    (root / 'small.png').write_bytes(encode(picture(0, (31, 40))))
    (root / 'odd.npy').write_bytes(b'\x93NUMPY')
    header = bytearray(whole)  # more pixels than allowed, with the right checksum
    header[16:24] = struct.pack('>II', 60000, 60000)
    header[29:33] = struct.pack('>I', zlib.crc32(bytes(header[12:29])))
    (root / 'huge.png').write_bytes(header)
    (root / 'wild.npy').write_bytes(b'\x93NUMPY\x01\x00\x10\x00' + b"{'descr': (((((\n")
    (root / '._00000.png').write_bytes(b'resource fork of macOS')
    out = tmp_path / 'out'
    assert run('ffhq', root, '--out', out, '--size', 32, '--scale', 8) == 1
    report = dict(line.split('\t') for line in (out / 'report.txt').read_text().splitlines())
    assert set(report) == {'cut.png', 'half.jpg', 'empty.png', 'text.png', 'small.png', 'odd.npy',
                           'huge.png', 'wild.npy'}
    assert report['small.png'] == 'undersized: 31 x 40, needed 32 x 32'
    assert 'got 60000x60000' in report['huge.png']
    assert all('corrupt' in reason for name, reason in report.items()
               if name not in ('small.png', 'huge.png'))
    assert len(list((out / 'GT').iterdir())) == 3
    assert '8 images are corrupt or undersized' in capsys.readouterr().err
    for name in report:
        (root / name).unlink()
    assert run('ffhq', root, '--out', out, '--size', 32, '--scale', 8) == 0  # mended
    assert not (out / 'report.txt').exists()


def test_finished_images_are_skipped_and_lost_ones_made_again(tmp_path, monkeypatch):
    root, out, recipe = folder_of(tmp_path), tmp_path / 'out', Recipe(32, [8])
    prepare(open_source(root), out, recipe, 1, limit=3, progress=False)
    before, stamps = snapshot(out), {p: p.stat().st_mtime_ns for p in out.rglob('*.png')}
    (out / 'GT' / '00000.png').write_bytes(b'half')
    (out / 'LR_x8_bicubic_antialias' / '00001.png').unlink()
    left = out / 'GT' / '.1-of-1.7777abcd.partial' / '4711'
    left.mkdir(parents=True)
    (left / '.00004.png.7777abcd.partial').write_bytes(b'left by a kill')
    with open(out / 'progress.jsonl', 'a') as journal:
        journal.write('{"key": "00000/00004.png", "na')
    made = []
    original = engine.make_some
    monkeypatch.setattr(engine, 'make_some', lambda *args: made.extend(args[1]) or
                        original(*args))
    prepare(open_source(root), out, recipe, 1, progress=False)
    assert made == [f'00000/0000{i}.png' for i in (0, 1, 3, 4)]
    after = snapshot(out)
    assert all(after[name] == data for name, data in before.items() if name.endswith('.png'))
    assert not list(out.rglob('*.partial'))
    untouched = out / 'GT' / '00002.png'
    assert untouched.stat().st_mtime_ns == stamps[untouched]


def test_the_bar_counts_what_is_done_and_what_was_there(tmp_path, capsys):
    root, out, recipe = folder_of(tmp_path, 5), tmp_path / 'out', Recipe(32)
    prepare(open_source(root), out, recipe, 1, limit=2, progress=False)
    assert capsys.readouterr().err == ''
    prepare(open_source(root), out, recipe, 1)
    shown = capsys.readouterr().err
    assert '2/5' in shown and '5/5' in shown and '4/5' not in shown  # a chunk of three


def test_a_limited_run_forgets_nothing(tmp_path):
    root, out = folder_of(tmp_path, 4), tmp_path / 'out'
    assert run('ffhq', root, '--out', out, '--size', 32) == 0
    stamps = {path: path.stat().st_mtime_ns for path in (out / 'GT').iterdir()}
    assert run('ffhq', root, '--out', out, '--size', 32, '--limit', 2) == 0
    assert json.loads((out / 'manifest.json').read_text())['images'] == 2
    assert run('ffhq', root, '--out', out, '--size', 32) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / 'GT').iterdir()} == stamps


def test_nothing_is_written_over_that_no_converter_made(tmp_path, capsys):
    root = folder_of(tmp_path, 1)
    for name, content in (('GT/00000.png', 'mine'), ('LR_x8_bicubic_antialias/00000.png', 'mine'),
                          ('meta_info_train.txt', 'mine'), ('meta_info_test.txt', 'mine'),
                          ('manifest.json', 'mine'), ('report.txt', 'mine'),
                          ('progress.jsonl', 'mine'), ('progress.jsonl', '[]'),
                          ('progress.jsonl', '{"a": 1}'), ('progress.1-of-2.jsonl', '3')):
        out = tmp_path / f'{len(list(tmp_path.iterdir()))}'
        (out / name).parent.mkdir(parents=True)
        (out / name).write_text(content)
        assert run('ffhq', root, '--out', out, '--size', 32, '--scale', 8) == 2, name
        error = capsys.readouterr().err
        assert f'{out / name}: ' in error.replace(' is no journal', ': ') and error.count('\n') == 1
        assert [path for path in out.rglob('*') if path.is_file()] == [out / name]
        assert (out / name).read_text() == content
    (out / name).unlink()
    (out / 'GT').mkdir(exist_ok=True)
    (out / 'GT' / 'other.png').write_text('is in nobody\'s way')
    assert run('ffhq', root, '--out', out, '--size', 32, '--scale', 8) == 0


def test_an_image_twice_in_an_archive_is_refused(tmp_path, capsys, recwarn):
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as file:
        for _ in range(2):
            file.writestr('a.png', encode(picture(0)))
    assert run('ffhq', tmp_path / 'x.zip', '--out', tmp_path / 'out', '--size', 32) == 2
    assert 'a.png and a.png would both become a.png' in capsys.readouterr().err


@pytest.mark.parametrize('options', [dict(limit=0), dict(limit=-3), dict(limit='2'),
                                     dict(workers='2'), dict(workers=0), dict(test_count='1'),
                                     dict(test_count=-2)])
def test_numbers_that_are_none_are_refused(tmp_path, options):
    (name, value), = options.items()
    with pytest.raises(ValueError, match=f'{name}: expected an integer of at least .*, got '):
        prepare(open_source(folder_of(tmp_path, 2)), tmp_path / 'out', Recipe(32), **options)
    with pytest.raises(ValueError, match="size: expected an integer of at least 1, got '32'"):
        Recipe('32')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('test_count, cut', [(0, 3), (1, 2), (3, 0), (9, 0), (-1, 0)])
def test_lists_of_an_earlier_split_are_replaced(tmp_path, test_count, cut):
    root, out = folder_of(tmp_path, 3), tmp_path / 'out'
    for count in (1, test_count):
        manifest = prepare(open_source(root), out, Recipe(32), 1, test_count=count, progress=False)
    names = [f'{index:05d}.png (32,32,3)' for index in range(3)]
    for split, part in (('train', names[:cut]), ('test', names[cut:])):
        path = out / f'meta_info_{split}.txt'
        assert (path.read_text().splitlines() if path.exists() else None) == (part or None)
        assert manifest[split] == len(part)


class Libc:
    def __init__(self):
        self.calls = []

    def prctl(self, *args):
        self.calls.append(args)


@pytest.mark.parametrize('platform', ['linux', 'win32'])
def test_workers_compute_alone_and_end_with_the_main_process(monkeypatch, platform):
    libc, threads = Libc(), (torch.get_num_threads(), cv2.getNumThreads())
    monkeypatch.setattr(engine.ctypes, 'CDLL', lambda name: libc)
    monkeypatch.setattr(engine.sys, 'platform', platform)
    try:
        torch.set_num_threads(2), cv2.setNumThreads(2)
        engine._start_worker()
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)
        if platform == 'linux':  # (PR_SET_PDEATHSIG, ...) of linux/prctl.h
            assert libc.calls == [(1, signal.SIGKILL)]
            libc.mallopt = libc.prctl  # of glibc alone
            engine._start_worker()
            assert all(size > 1 << 24 for _, size in libc.calls[2:]) and len(libc.calls) == 4
    finally:
        torch.set_num_threads(threads[0]), cv2.setNumThreads(threads[1])
    assert platform == 'linux' or libc.calls == []


@pytest.mark.parametrize('breaks', ['first', 'last', 'at once'])
def test_a_worker_that_dies_is_told_with_its_images(breaks):
    class Breaking(Inline):
        left = dict(first=0, last=2).get(breaks, 9)

        def submit(self, function, *args):
            if breaks == 'at once':
                raise BrokenProcessPool('none')
            self.left -= 1
            return SimpleNamespace(result=self.die if self.left < 0 else lambda: args[1])

        def die(self):
            raise BrokenProcessPool('it ended')

    keys = [f'{index}\n.png' for index in range(20)]
    found, said = [], dict(first=r'from 0\\n.png to 19\\n.png',
                           last=r'from 16\\n.png to 19\\n.png').get(breaks, 'none')
    with pytest.raises(BrokenProcessPool, match=said):
        for chunk in engine._chunks(Breaking(), None, keys, None, None, None, 1):
            found += chunk
    assert found == (keys[:16] if breaks == 'last' else [])
