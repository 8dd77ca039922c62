"""What the converters share: shards, options, exit codes."""
import sys
from argparse import ArgumentTypeError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmpd.cli import converter
from mmpd.datasets.preparation import FolderSource


@pytest.mark.parametrize('text, wanted', [('1/1', (1, 1)), ('2/16', (2, 16))])
def test_shards(text, wanted):
    assert converter.parse_shard(text) == wanted


@pytest.mark.parametrize('text', ['0/3', '4/3', '1', '1/2/3', 'a/2', '1/', '-1/2', '²/3'])
def test_what_is_no_shard(text):
    with pytest.raises(ArgumentTypeError, match='expected I/N with 1 <= I <= N'):
        converter.parse_shard(text)


def convert(monkeypatch, result, *argv):
    """Exit code of a converter of which ``prepare`` returns or raises ``result``."""
    calls = []

    def prepare(*args, **kwargs):
        calls.append((args, kwargs))
        if isinstance(result, BaseException):
            raise result
        return result
    monkeypatch.setattr(converter, 'prepare', prepare)
    monkeypatch.setattr(converter, 'open_source', lambda path: f'opened {path}')
    return converter.main(['SOURCE', *argv], 'What it does', 'OUT', 64, 5), calls


MANIFEST = dict(images=7, train=4, test=3, bad=0, converted={})


def test_what_a_converter_hands_on(monkeypatch, capsys):
    code, calls = convert(monkeypatch, MANIFEST)
    assert code == 0
    (args, kwargs), = calls
    assert args[:2] == ('opened SOURCE', Path('OUT')) and args[3:] == (None, None, 5)
    recipe = args[2]
    assert (recipe.size, list(recipe.scales), recipe.kernel, recipe.antialias) == (
        64, [], 'bicubic', True)
    assert kwargs == dict(progress=False, shard=None)  # stderr is no terminal
    assert capsys.readouterr().out.startswith('7 images in OUT (4 train, 3 test), ')
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True, raising=False)
    for quiet, progress in (([], True), (['--quiet'], False)):
        assert convert(monkeypatch, MANIFEST, *quiet)[1][0][1]['progress'] is progress


@pytest.mark.parametrize('result, code, out, err', [
    (dict(MANIFEST, bad=2, converted={'turned': 3}), 1, '3 images: turned (docs/images.md)',
     '2 images are corrupt or undersized: see OUT/report.txt'),
    (dict(images=5, bad=0, missing=9), 0, 'shard 2/3: 5 images, 0 of them bad, ', ''),
    (dict(images=5, bad=1, missing=9), 1, '9 of other shards are missing in OUT', ''),
    (ValueError('no images'), 2, '', 'error: no images'),
    (OSError('disk full'), 2, '', 'error: disk full'),
    (BrokenProcessPool('at x.png'), 2, '', 'a worker process was killed at x.png (out of memory?)'),
    (KeyboardInterrupt(), 130, '', 'interrupted: run the same command again to continue')])
def test_how_a_converter_ends(monkeypatch, capsys, result, code, out, err):
    assert convert(monkeypatch, result, '--shard', '2/3')[0] == code
    said = capsys.readouterr()
    assert out in said.out and err in said.err and bool(err) == bool(said.err)


@pytest.mark.parametrize('name, least', [('limit', 1), ('workers', 1), ('test-count', -1)])
def test_numbers_of_converters(monkeypatch, capsys, name, least):
    assert convert(monkeypatch, MANIFEST, f'--{name}', str(least))[0] == 0
    with pytest.raises(SystemExit):
        convert(monkeypatch, MANIFEST, f'--{name}={least - 1}')
    assert f'--{name} must be at least {least}, got {least - 1}' in capsys.readouterr().err


def test_deltas_of_celeba_hq_are_no_images(tmp_path):
    folder, empty = tmp_path / 'deltas', tmp_path / 'empty'
    folder.mkdir(), empty.mkdir()
    (folder / 'delta00000.zip').touch()
    with pytest.raises(ValueError, match='deltas holds the deltas of the official release'):
        converter.refuse_deltas(FolderSource(folder))
    converter.refuse_deltas(FolderSource(empty))
    converter.refuse_deltas(SimpleNamespace(path=folder, keys=list))  # what is no folder
    (folder / 'imgHQ00000.npy').touch()
    converter.refuse_deltas(FolderSource(folder))
