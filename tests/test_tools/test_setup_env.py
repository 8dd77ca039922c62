"""tools/setup_env.py: what it reuses, rebuilds and refuses (no process is started here)."""
import importlib.util
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / 'tools' / 'setup_env.py'
Usage = namedtuple('Usage', 'total used free')


class Machine:
    """A computer whose interpreters, disk and failures the test decides."""

    def __init__(self, module):
        self.module = module
        self.pythons = {sys.executable: (3, 11), 'python3.11': (3, 11)}
        self.free_gb = 100.0
        self.fails_at = None  # (word in the command, exception)
        self.commands = []

    def run(self, command, check=False, **kwargs):
        command = [str(part) for part in command]
        if '-c' in command:
            version = self.pythons.get(command[0])
            if version is None:
                raise FileNotFoundError(command[0])
            return subprocess.CompletedProcess(command, 0, stdout='{} {}'.format(*version))
        self.commands.append(command)
        if '-m' in command and command[command.index('-m') + 1] == 'venv':
            python = self.module.VENV / 'bin' / 'python'
            python.parent.mkdir(parents=True)
            python.touch()
            self.pythons[str(python)] = (3, 11)
        if self.fails_at and self.fails_at[0] in command:
            raise self.fails_at[1]
        return subprocess.CompletedProcess(command, 0)

    def used(self, word):
        return sum(word in command for command in self.commands)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location('setup_env_under_test', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / 'requirements').mkdir()
    (tmp_path / 'requirements' / 'lock-tests.txt').write_text('torch==2.11.0\n')
    (tmp_path / 'setup.py').write_text('# set-up\n')
    for name, value in dict(ROOT=tmp_path, VENV=tmp_path / '.venv',
                            LOCK=tmp_path / 'requirements' / 'lock-tests.txt',
                            STAMP=tmp_path / '.venv' / 'mmpd-lock.sha256').items():
        monkeypatch.setattr(module, name, value)
    fake = Machine(module)
    monkeypatch.setattr(module.subprocess, 'run', fake.run)
    monkeypatch.setattr(module.shutil, 'disk_usage',
                        lambda path: Usage(0, 0, fake.free_gb * 2**30))
    monkeypatch.delenv('PYTHON', raising=False)
    return fake


def refused(machine, capsys):
    with pytest.raises(SystemExit) as error:
        machine.module.main()
    message = capsys.readouterr().err
    assert error.value.code == 2
    assert message.startswith('setup: ') and message.count('\n') == 1
    return message


def test_first_run_builds_with_hashes_and_the_second_does_nothing(machine):
    machine.module.main()
    assert machine.used('venv') == 1 and machine.used('--require-hashes') == 1
    assert machine.used('--editable') == 1 and machine.module.STAMP.is_file()
    machine.commands.clear()
    machine.module.main()
    assert machine.commands == []


def test_more_packages_are_added_once_and_never_by_the_set_up_itself(machine, capsys):
    lock = machine.module.ROOT / 'requirements' / 'lock-docs.txt'
    lock.write_text('sphinx==9.0.4\n')
    machine.module.main()
    assert machine.used(str(lock)) == 0
    machine.fails_at = str(lock), subprocess.CalledProcessError(1, 'uv')
    with pytest.raises(SystemExit):
        machine.module.set_up(['docs'])
    machine.fails_at = None
    machine.module.set_up(['docs'])
    machine.module.set_up(['docs'])
    assert machine.used(str(lock)) == 2  # the one that failed, and one
    lock.write_text('sphinx==9.1.0\n')
    machine.module.set_up(['docs'])
    assert machine.used(str(lock)) == 3
    assert machine.commands[-1][-4:] == ['--no-deps', '--require-hashes', '-r', str(lock)]
    lock.write_text('sphinx==9.2.0\n')
    machine.pythons[str(machine.module.VENV / 'bin' / 'python')] = (3, 10)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        machine.module.set_up(['docs'])
    assert 'has Python 3.10' in capsys.readouterr().err and machine.used(str(lock)) == 3


def test_another_environment_has_its_own_folder_and_lock(machine, capsys):
    lock = machine.module.ROOT / 'requirements' / 'lock-web.txt'
    lock.write_text('gradio==6.31.0\n')
    machine.module.set_up(['web'])
    assert (machine.module.ROOT / '.venv-web' / 'mmpd-lock.sha256').is_file()
    assert not (machine.module.ROOT / '.venv').exists()
    assert str(lock) in machine.commands[-2] and 'creating .venv-web' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        machine.module.set_up(['wep'])
    assert 'expected requirements/lock-wep.txt' in capsys.readouterr().err


@pytest.mark.parametrize('changed', ['requirements/lock-tests.txt', 'setup.py'])
def test_a_changed_lock_or_setup_rebuilds(machine, changed):
    machine.module.main()
    with open(machine.module.ROOT / changed, 'a') as file:
        file.write('# new\n')
    machine.module.main()
    assert machine.used('venv') == 2


@pytest.mark.parametrize('step', ['venv', 'uv>=0.5', '--require-hashes', '--editable'])
def test_an_interrupted_install_is_redone(machine, capsys, step):
    machine.fails_at = step, subprocess.CalledProcessError(1, step)
    message = refused(machine, capsys)
    assert 'ended with 1' in message and 'next run' in message
    assert not machine.module.STAMP.exists()
    leftover = machine.module.VENV / 'leftover'
    leftover.touch()
    machine.fails_at = None
    machine.module.main()
    assert not leftover.exists() and machine.module.STAMP.is_file()
    assert 'building it anew' in capsys.readouterr().out


def test_control_c_leaves_no_stamp(machine):
    machine.fails_at = '--require-hashes', KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        machine.module.main()
    assert not machine.module.STAMP.exists()
    machine.fails_at = None
    machine.module.main()
    assert machine.module.STAMP.is_file()


def test_a_finished_environment_whose_python_is_gone_is_rebuilt(machine):
    machine.module.main()
    del machine.pythons[str(machine.module.VENV / 'bin' / 'python')]
    machine.module.main()
    assert machine.used('venv') == 2


def test_missing_venv_module_is_named(machine, capsys):
    machine.fails_at = 'venv', subprocess.CalledProcessError(1, 'venv')
    assert 'python3-venv' in refused(machine, capsys)


def test_a_command_that_cannot_start_is_no_traceback(machine, capsys):
    machine.fails_at = 'uv>=0.5', PermissionError(13, 'Permission denied')
    assert 'Permission denied' in refused(machine, capsys)


@pytest.mark.parametrize('versions', [{}, {sys.executable: (3, 15)},
                                      {sys.executable: (3, 9), 'python3.11': None}])
def test_wrong_python_is_refused_before_any_work(machine, capsys, versions):
    machine.pythons = {name: version for name, version in versions.items() if version}
    message = refused(machine, capsys)
    assert 'needs Python 3.10 to 3.14' in message and 'make PYTHON=' in message
    for version in machine.pythons.values():
        assert '{}.{}'.format(*version) in message
    assert machine.commands == [] and not machine.module.VENV.exists()


@pytest.mark.parametrize('own, others, chosen', [
    ((3, 15), ['python3.12'], 'python3.12'), ((3, 9), ['python3.10', 'python3.13'], 'python3.13'),
    ((3, 9), ['python3.14', 'python3.13'], 'python3.14'),
    ((3, 11), ['python3.13'], sys.executable), ((3, 14), ['python3.13'], sys.executable)])
def test_the_python_that_runs_it_or_the_newest_found(machine, own, others, chosen):
    machine.pythons = {sys.executable: own, **{
        name: (3, int(name.rpartition('.')[2])) for name in others}}
    machine.module.main()
    assert machine.commands[0][0] == chosen


def test_the_lock_is_installed_without_what_packages_ask_for(machine):
    machine.module.main()
    command, = (item for item in machine.commands if '--require-hashes' in item)
    assert '--no-deps' in command and command[-1].endswith('lock-tests.txt')


def test_the_named_python_is_used_or_refused(machine, monkeypatch, capsys):
    monkeypatch.setenv('PYTHON', '/opt/python')
    machine.pythons['/opt/python'] = (3, 8)
    assert '/opt/python is 3.8' in refused(machine, capsys)
    machine.pythons['/opt/python'] = (3, 10)
    machine.module.main()
    assert machine.commands[0][0] == '/opt/python'


def test_run_from_its_own_environment_it_builds_with_the_base(machine, monkeypatch):
    monkeypatch.setattr(sys, 'executable', str(machine.module.VENV / 'bin' / 'python'))
    monkeypatch.setattr(sys, '_base_executable', '/usr/bin/python3')
    machine.pythons.update({sys.executable: (3, 11), '/usr/bin/python3': (3, 11)})
    machine.module.main()
    assert machine.commands[0][0] == '/usr/bin/python3'


def test_full_disk_is_refused_before_and_named_after(machine, capsys):
    machine.free_gb = 3
    message = refused(machine, capsys)
    assert '3.0 GB free' in message and 'same command again' in message
    assert machine.commands == []

    machine.free_gb = 100

    def fill(command, **kwargs):
        machine.free_gb = 0.1 if '--require-hashes' in command else machine.free_gb
        return Machine.run(machine, command, **kwargs)

    machine.fails_at = '--require-hashes', subprocess.CalledProcessError(1, 'uv')
    machine.module.subprocess.run = fill
    assert 'only 0.10 GB are free' in refused(machine, capsys)


def test_the_space_of_a_half_built_environment_counts_as_free(machine, monkeypatch):
    machine.module.VENV.mkdir()
    machine.free_gb = 5
    remove = machine.module.shutil.rmtree

    def removing(path, *args, **kwargs):
        machine.free_gb = 11
        remove(path, *args, **kwargs)

    monkeypatch.setattr(machine.module.shutil, 'rmtree', removing)
    machine.module.main()
    assert machine.module.STAMP.is_file()
