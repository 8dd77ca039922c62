"""``mmpd/.mim``: links in an editable install, real files in a wheel, as OpenMMLab's mim needs."""
import email
import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
EXCLUDED = {line.partition(' ')[0] for line in
            (ROOT / 'requirements' / 'overrides.txt').read_text().splitlines()
            if not line.startswith('#')}


@pytest.fixture
def tree(tmp_path):
    """The files that packaging reads, as a fresh clone has them."""
    target = tmp_path / 'clone'
    target.mkdir()
    ignore = shutil.ignore_patterns('__pycache__', '.mim')
    for folder in ('mmpd', 'configs', 'tools', 'requirements'):
        shutil.copytree(ROOT / folder, target / folder, ignore=ignore)
    for file in ('setup.py', 'mmpd_startup.py', 'pyproject.toml', 'MANIFEST.in', 'README.md',
                 'model-index.yml', 'LICENSE'):
        shutil.copyfile(ROOT / file, target / file)
    (target / 'tools' / '__pycache__').mkdir()
    (target / 'tools' / '__pycache__' / 'x.pyc').touch()
    return target


@pytest.fixture
def setup_module(tree):
    spec = importlib.util.spec_from_file_location('setup_under_test', tree / 'setup.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def add(module, monkeypatch, *argv):
    monkeypatch.setattr(sys, 'argv', ['setup.py', *argv])
    module.add_mim_extension()


def files_below(folder):
    return {path.relative_to(folder) for path in folder.rglob('*')
            if path.is_file() and '__pycache__' not in path.parts}


@pytest.mark.parametrize('command', ['develop', 'editable_wheel'])
def test_editable_installs_link(tree, setup_module, monkeypatch, command):
    add(setup_module, monkeypatch, command)
    for name in setup_module.MIM_PATHS:
        link = tree / 'mmpd' / '.mim' / name
        assert link.is_symlink() and not link.readlink().is_absolute()
        assert link.resolve() == (tree / name).resolve()


@pytest.mark.parametrize('command', ['bdist_wheel', 'sdist', 'install', 'build_py'])
def test_regular_builds_copy(tree, setup_module, monkeypatch, command):
    add(setup_module, monkeypatch, command)
    mim = tree / 'mmpd' / '.mim'
    assert not any(path.is_symlink() for path in mim.rglob('*'))
    for name in ('configs', 'tools'):
        assert files_below(mim / name) == files_below(tree / name)
    assert not list(mim.rglob('__pycache__'))


def test_a_build_after_an_editable_install_spares_the_sources(tree, setup_module, monkeypatch):
    before = files_below(tree / 'configs')
    for command in ('editable_wheel', 'bdist_wheel', 'editable_wheel'):
        add(setup_module, monkeypatch, command)
        assert before == files_below(tree / 'configs') == files_below(tree / 'mmpd/.mim/configs')


@pytest.mark.parametrize('command', ['egg_info', 'dist_info', '--version'])
def test_metadata_commands_leave_no_trace(tree, setup_module, monkeypatch, command):
    add(setup_module, monkeypatch, command)
    assert not (tree / 'mmpd' / '.mim').exists()


def build(tree, hook):
    """Build through the PEP 517 / PEP 660 hook that pip calls; return the wheel."""
    subprocess.run(
        [sys.executable, '-c', f'from setuptools.build_meta import {hook}; {hook}("out")'],
        cwd=tree, check=True, capture_output=True, timeout=120)
    wheel, = (tree / 'out').glob('*.whl')
    return zipfile.ZipFile(wheel)


def test_wheel_carries_configs_and_tools_as_files(tree):
    with build(tree, 'build_wheel') as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read(next(name for name in names if name.endswith('METADATA'))).decode()
    for folder in ('configs', 'tools'):
        for path in files_below(tree / folder):
            assert f'mmpd/.mim/{folder}/{path}' in names
    assert 'mmpd/.mim/model-index.yml' in names and 'mmpd/compat/ext_ops.py' in names
    assert 'mmpd/web/page.css' in names
    assert not any(name.startswith(('tests/', 'tools/', 'configs/')) for name in names)
    fields = email.message_from_string(metadata)
    assert fields['Name'] == 'mmpd'
    assert set(fields['Requires-Python'].split(',')) == {'>=3.10', '<3.15'}
    assert 'mim' in fields.get_all('Provides-Extra')

    def needed(extra):
        items = map(Requirement, fields.get_all('Requires-Dist'))
        return {item.name for item in items
                if item.marker is None or item.marker.evaluate(dict(extra=extra))}

    assert needed('') == {'torch', 'numpy', 'Pillow', 'tqdm'}  # mmpd.consistent
    assert needed('mmagic') >= {*needed(''), 'mmengine', 'opencv-python', 'click', 'requests'}
    assert needed('all') >= {*needed('mmagic'), 'tifffile'}
    assert not needed('all') & {'mmagic', *EXCLUDED}  # mmagic alone would bring the rest
    assert not any(item.startswith(('numpy<', 'numpy=')) for item in
                   fields.get_all('Requires-Dist'))


def test_a_wheel_made_of_the_sdist_is_that_of_the_clone(tree):
    """What pip makes of the sdist: without configs, no name of the zoo would be known."""
    run = partial(subprocess.run, check=True, capture_output=True, timeout=120)
    run([sys.executable, '-c', 'from setuptools.build_meta import build_sdist; '
         'build_sdist("out")'], cwd=tree)
    archive, = (tree / 'out').glob('*.tar.gz')
    with tarfile.open(archive) as sdist:
        sdist.extractall(tree / 'unpacked', filter='data')
    unpacked, = (tree / 'unpacked').iterdir()
    assert not (unpacked / 'tests').exists()
    with build(unpacked, 'build_wheel') as wheel, build(tree, 'build_wheel') as other:
        assert set(wheel.namelist()) == set(other.namelist())


@pytest.mark.parametrize('hook', ['build_wheel', 'build_editable'])
def test_the_startup_file_is_where_python_reads_it(tree, hook):
    with build(tree, hook) as wheel:
        line = wheel.read('mmpd.pth').decode()
        assert ('mmpd_startup.py' in wheel.namelist()) is (hook == 'build_wheel')
    assert line.count('\n') == 1 and line.startswith('import ')  # else site takes it for a path
    done = subprocess.run([sys.executable, '-S', '-c', line + 'print("mmpd_startup" in '
                           'sys.modules)'], cwd=tree, capture_output=True, text=True, check=True)
    assert done.stdout == 'True\n'
    (tree / 'mmpd_startup.py').unlink()  # an uninstall that left the .pth
    subprocess.run([sys.executable, '-S', '-c', line], cwd=tree, check=True)


def locked(name):
    """{package: its versions} of a lock file."""
    versions = {}
    for item in re.findall(r'^([a-z0-9.-]+)==(\S+)', (ROOT / 'requirements' / name).read_text(),
                           re.MULTILINE):
        versions.setdefault(item[0], set()).add(item[1])
    return versions


def test_the_locks_agree_and_leave_out_what_super_resolution_never_uses():
    slim, tests, complete = map(locked, ('lock.txt', 'lock-tests.txt', 'lock-mmagic.txt'))
    assert slim.items() <= tests.items()
    docs = locked('lock-docs.txt')  # added to the tests' environment, where it changes nothing
    assert 'sphinx' in docs and all(docs[name] <= tests[name] for name in docs if name in tests)
    assert len(complete) > 130
    assert not set(tests) & EXCLUDED and EXCLUDED <= set(complete)
    assert 'huggingface-hub' not in slim and not slim['setuptools'] & {'80.9.0'}
    for name in ('lock.txt', 'lock-tests.txt'):
        text = (ROOT / 'requirements' / name).read_text()
        assert text.count('--hash=sha256:') > len(slim)


def test_the_web_lock_differs_by_what_gradio_asks_for():
    slim, web = map(locked, ('lock.txt', 'lock-web.txt'))
    differing = {name for name in slim if slim[name] != web.get(name)}
    assert differing == {'pillow'} and {'gradio', 'pandas', 'selenium'} <= set(web)
    overrides = [(ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
                 for name in ('overrides', 'overrides-web')]
    kept = [[line for line in lines if not line.startswith('#')] for lines in overrides]
    assert kept[1] == [line for line in kept[0] if not line.startswith('pandas ')]


@pytest.mark.parametrize('minor, most', [(10, 69), (11, 67), (12, 67), (13, 67), (14, 67)])
def test_the_slim_lock_is_slim_and_complete_for_every_python(minor, most):
    version = f'3.{minor}'
    system = dict(sys_platform='linux', platform_system='Linux', platform_machine='x86_64',
                  os_name='posix', python_version=version, python_full_version=f'{version}.1')
    lines = re.findall(r'^([a-z][^\\\n]*?) \\$', (ROOT / 'requirements/lock.txt').read_text(),
                       re.MULTILINE)
    items = [Requirement(line) for line in lines]
    names = [item.name for item in items if item.marker is None or item.marker.evaluate(system)]
    assert len(names) == len(set(names)) <= most
    assert {'torch', 'torchvision', 'numpy', 'opencv-python', 'mmengine', 'mmcv-lite', 'mmagic',
            'click', 'requests', 'lpips', 'safetensors'} <= set(names)


def test_pep_660_editable_install_gets_its_links(tree):
    with build(tree, 'build_editable') as wheel:
        names = wheel.namelist()
    assert any('editable' in name for name in names)
    assert (tree / 'mmpd' / '.mim' / 'configs').resolve() == (tree / 'configs').resolve()
    assert (tree / 'mmpd' / '.mim' / 'model-index.yml').is_symlink()


def test_a_folder_named_mmpd_does_not_hide_an_editable_install(tree, tmp_path):
    with build(tree, 'build_editable') as wheel:
        wheel.extractall(tmp_path / 'site')
    (tmp_path / 'script' / 'mmpd').mkdir(parents=True)  # a clone, or results of this package
    (tmp_path / 'script' / 'run.py').write_text(
        f'import site; site.addsitedir({str(tmp_path / "site")!r})\n'
        'import importlib.util; print(importlib.util.find_spec("mmpd").origin)')
    found = subprocess.run([sys.executable, '-I', '-S', 'run.py'], cwd=tmp_path / 'script',
                           capture_output=True, text=True, check=True).stdout.strip()
    assert Path(found) == tree / 'mmpd' / '__init__.py'


def test_config_names_are_unique():
    """mim addresses configs by their file name alone."""
    names = [path.stem for path in (ROOT / 'configs').glob('[!_]*/*.py')]
    assert names and len(names) == len(set(names))
