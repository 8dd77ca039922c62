"""All commands: how they start, what they ask for and say, the codes they end with."""
import errno
import sys
from types import SimpleNamespace

import pytest
from refusals import raising

from mmpd.cli import commands, identify, infer, make_consistent, run_tool
from mmpd.cli import export as export_tool
from mmpd.cli import test as test_tool
from mmpd.cli import train as train_tool
from mmpd.cli import web as web_tool
from mmpd.errors import InputError


@pytest.mark.parametrize('name', commands.__all__)
def test_each_command_starts_its_own_module(monkeypatch, name):
    started = []
    monkeypatch.setattr(commands, 'import_module', lambda module, package: SimpleNamespace(
        main=lambda: started.append((module, package)) or 5))
    assert getattr(commands, name)() == 5 and started == [(f'.{name}', 'mmpd.cli')]


@pytest.mark.parametrize('missing, installed, raises', [
    ('mmengine', False, False), ('mmengine', True, True), ('mmpd.cli.x', False, True),
    (None, False, True)])
def test_a_package_that_is_missing_is_named_where_mmagic_is_not_installed(
        monkeypatch, capsys, missing, installed, raises):
    def absent(*args):
        raise ModuleNotFoundError('no', name=missing)

    monkeypatch.setattr(commands, 'import_module', absent)
    monkeypatch.setattr(commands, 'find_spec', lambda name: installed or None)
    if raises:
        with pytest.raises(ModuleNotFoundError):
            commands.make_consistent()
    else:
        assert commands.make_consistent() == 2
        said = capsys.readouterr().err
        assert said.startswith('mmpd-make-consistent needs mmengine, which is not installed: pip')


@pytest.mark.parametrize('error, code, said', [
    (InputError('expected\n  a file'), 2, 'mmpd-x: expected a file'),
    (OSError(errno.ENOSPC, 'No space left'), 2, 'mmpd-x: '),
    (PermissionError(errno.EACCES, 'denied', 'a\n.png'), 2, 'mmpd-x: a\\n.png: denied'),
    (KeyboardInterrupt(), 130, 'mmpd-x: interrupted')])
def test_how_commands_end(error, code, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['/usr/bin/mmpd-x'])
    with pytest.raises(SystemExit) as ended:
        run_tool(raising(error), [])
    assert ended.value.code == code
    err = capsys.readouterr().err
    assert err.startswith(said) and err.count('\n') == 1


def test_what_commands_return_and_what_is_a_fault_of_the_code():
    assert run_tool(lambda argv: None) == 0 == run_tool(lambda argv: 0)
    assert run_tool(lambda argv: len(argv), ['a', 'b']) == 2
    for error in (OSError(errno.EACCES, 'denied'), ValueError('x')):
        with pytest.raises(type(error)):
            run_tool(raising(error))


@pytest.mark.parametrize('module, name', [
    (train_tool, 'train'), (test_tool, 'test'), (infer, 'infer'), (identify, '_main'),
    (make_consistent, 'make_consistent'), (export_tool, 'export'), (web_tool, '_main')])
def test_what_a_command_returns_is_its_exit_code(monkeypatch, module, name):
    monkeypatch.setattr(module, name, lambda argv: argv[0])
    assert module.main([3]) == 3


@pytest.mark.parametrize('module, given, missing', [
    (export_tool, ['m'], '--out'), (infer, ['m', '-o', 'x'], '-i/--input'),
    (infer, ['m', '-i', 'x'], '-o/--out'), (identify, ['--gt', 'x'], '--lr'),
    (identify, ['--lr', 'x'], '--gt --sr'), (make_consistent, ['--lr', 'x', '--sr', 'x'], '--out'),
    (make_consistent, ['--lr', 'x', '--out', 'x'], '--sr'),
    (make_consistent, ['--sr', 'x', '--out', 'x'], '--lr')])
def test_options_that_have_to_be_given(module, given, missing, capsys):
    with pytest.raises(SystemExit) as ended:
        module.main(given)
    assert ended.value.code == 2
    assert missing in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize('module, first, then', [
    (infer, 'Super-resolve a folder of LR images', 'MODEL is a config file (with CHECKPOINT)'),
    (web_tool, 'A web page that makes pictures', 'Serves the page on this machine alone'),
    (make_consistent, 'Exact colour fix', 'A "colour shift" of super-resolution'),
    (identify, 'Which A made these LR images?', '--no-kernel'), (train_tool, 'Train a model', ''),
    (test_tool, 'Test a model', '--panels'), (export_tool, 'Export a restorer', '--opset')])
def test_help(module, first, then, capsys):
    with pytest.raises(SystemExit) as ended:
        module.parse_args(['--help'])
    text = ' '.join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and first in text and then in text[text.index(first):]


def test_usual_options():
    """What the commands do where nothing is said."""
    args = infer.parse_args(['m', '-i', 'x', '-o', 'y'])
    assert (args.batch_size, args.workers, args.tile_overlap) == (1, 2, 16)
    assert not (args.recursive or args.overwrite or args.compare or args.alias)
    args = identify.parse_args(['--lr', 'x', '--gt', 'y'])
    assert args.pairs == 20 and not (args.no_kernel or args.overwrite)
    assert identify.parse_args(['--lr', 'x', '--sr', 'y', '--pairs', '0']).pairs == 0
    args = web_tool.parse_args([])
    assert (args.host, args.port, args.zoo, args.models) == ('127.0.0.1', 7860, None, None)
    args = train_tool.parse_args(['a.py'])
    assert (args.resume, args.amp, args.auto_scale_lr, args.local_rank) == (None, False, False, 0)
    assert train_tool.parse_args(['a.py', '--resume']).resume == 'auto'
    args = export_tool.parse_args(['m', '--out', 'x'])
    assert args.opset == 18 and not (args.dynamic or args.overwrite)
