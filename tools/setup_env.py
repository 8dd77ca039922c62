"""Create or repair ``.venv`` from ``requirements/lock-tests.txt`` (standard library only).

``make demo`` and ``make test`` call this first; ``make web`` with the argument web, for
``.venv-web`` from ``requirements/lock-web.txt``.  A stamp with the hash of the
lock file is written last, so an interrupted install is recognised and redone,
and a finished one is reused at once.  ``setup_env.py docs`` also adds what
``requirements/lock-docs.txt`` lists, when the site is built and not before.
"""
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / '.venv'
LOCK = ROOT / 'requirements' / 'lock-tests.txt'
STAMP = VENV / 'mmpd-lock.sha256'
PYTHONS = tuple((3, minor) for minor in range(14, 9, -1))  # the newest first
ADDED = {'docs': (3, 11)}  # more locks, and the oldest Python of each
FREE_GB = 10  # torch with its CUDA libraries unpacks to about 6 GB, wheels on top


def choose(name):
    """Work on ``.venv-NAME`` from ``requirements/lock-NAME.txt`` instead."""
    global VENV, LOCK, STAMP
    VENV, LOCK = ROOT / f'.venv-{name}', ROOT / 'requirements' / f'lock-{name}.txt'
    STAMP = VENV / 'mmpd-lock.sha256'
    if not LOCK.is_file():
        fail(f'no environment is called {name}: expected requirements/{LOCK.name}')


def fail(message):
    print(f'setup: {message}', file=sys.stderr)
    raise SystemExit(2)


def version_of(python):
    """(major, minor) of an interpreter, or None if it does not run."""
    code = 'import sys; print(*sys.version_info[:2])'
    try:
        out = subprocess.run([python, '-c', code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return tuple(int(part) for part in out.stdout.split())


def find_python():
    """The interpreter to build with: ``$PYTHON`` if set, else the first that fits.

    That is the python3 which runs this, the one people mean by "python3", and then
    the newest found.
    """
    wanted = os.environ.get('PYTHON')
    own = sys.executable
    if VENV in Path(own).parents:  # that one is about to be deleted
        own = sys._base_executable
    candidates = [wanted] if wanted else [
        own, *('python{}.{}'.format(*version) for version in PYTHONS)]
    seen = []
    for python in candidates:
        version = version_of(python)
        if version in PYTHONS:
            return python
        if version:
            seen.append(f'{python} is {version[0]}.{version[1]}')
        else:
            seen.append(f'{python} does not run')
    fail('mmpd needs Python 3.10 to 3.14; found: ' + '; '.join(seen) +
         '. Install one of them, or name it: make PYTHON=/path/to/python3.13 ...')


def check_disk():
    free = shutil.disk_usage(ROOT).free / 2**30
    if free < FREE_GB:
        fail(f'{free:.1f} GB free at {ROOT}, {FREE_GB} GB are needed for PyTorch and the '
             f'rest of requirements/{LOCK.name}. Free some space and run the same command again.')


def run(*command):
    try:
        subprocess.run([str(part) for part in command], check=True, cwd=ROOT)
    except (OSError, subprocess.CalledProcessError) as error:
        ending = f'ended with {error.returncode}' if hasattr(error, 'returncode') else error
        free = shutil.disk_usage(ROOT).free / 2**30
        if free < 1:
            hint = f'only {free:.2f} GB are free on the disk'
        elif command[1:3] == ('-m', 'venv'):
            hint = 'this Python cannot make virtual environments (on Debian: python3-venv)'
        else:
            hint = 'see the message above (no network, or a package index that cannot be reached?)'
        fail(f'"{" ".join(map(str, command))}" {ending}: {hint}. '
             f'The half-built {VENV.name} is rebuilt by the next run.')


def main():
    fingerprint = hashlib.sha256(
        LOCK.read_bytes() + (ROOT / 'setup.py').read_bytes() + str(ROOT).encode()).hexdigest()
    inside = VENV / 'bin' / 'python'
    if STAMP.is_file() and STAMP.read_text() == fingerprint and version_of(inside):
        return
    python = find_python()
    if VENV.exists():  # before looking at the free space, of which it may hold gigabytes
        print(f'setup: {VENV.name} is unfinished, broken or out of date, building it anew',
              flush=True)
        shutil.rmtree(VENV)
    check_disk()
    print(f'setup: creating {VENV.name} with {python} (a few minutes the first time)', flush=True)
    run(python, '-m', 'venv', VENV)
    run(inside, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', 'uv>=0.5')
    uv = [inside, '-m', 'uv', 'pip', 'install', '--quiet', '--python', inside]
    run(*uv, '--no-deps', '--require-hashes', '-r', LOCK)  # overrides.txt left some out
    run(*uv, '--no-deps', '--no-build-isolation', '--editable', ROOT)
    STAMP.write_text(fingerprint)
    print('setup: done', flush=True)


def add(name):
    """Install ``requirements/lock-NAME.txt`` into the finished .venv, once."""
    lock, stamp = LOCK.with_name(f'lock-{name}.txt'), VENV / f'mmpd-lock-{name}.sha256'
    least = ADDED[name]
    inside = VENV / 'bin' / 'python'
    fingerprint = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == fingerprint:
        return
    version = version_of(inside)
    if version < least:
        fail('{}: .venv has Python {}.{}, and requirements/{} needs {}.{} or newer; name one: '
             'make PYTHON=/path/to/python3.13 setup after make clean'.format(
                 name, *version, lock.name, *least))
    run(inside, '-m', 'uv', 'pip', 'install', '--quiet', '--python', inside, '--no-deps',
        '--require-hashes', '-r', lock)
    stamp.write_text(fingerprint)


def set_up(names):
    """Each name adds to ``.venv``, or is an environment of its own; without names: ``.venv``."""
    for name in names:
        if name not in ADDED:
            choose(name)
    main()
    for name in names:
        if name in ADDED:
            add(name)


if __name__ == '__main__':
    try:
        set_up(sys.argv[1:])
    except KeyboardInterrupt:
        fail('interrupted; the next run starts the set-up again.')
