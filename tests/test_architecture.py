"""docs/architecture.md holds: who imports whom, what needs MMagic, what is public or private."""
import ast
import json
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TREES = {path.relative_to(ROOT): ast.parse(path.read_text())
         for path in sorted((ROOT / 'mmpd').rglob('*.py')) if '.mim' not in path.parts}
PACKAGES = ['.'.join(path.parent.parts) for path in TREES if path.name == '__init__.py']
SURFACE = ROOT / 'tests' / 'data' / 'public_surface.json'
# rooms that work with torch and numpy (and PIL, OpenCV for files) alone
LIGHT = ('operators', 'errors', 'version', 'registry', 'postprocess')
OPENMMLAB = ('mmagic', 'mmengine', 'mmcv')
# mmengine has no public way to add a registry's locations
FOREIGN = {('mmpd/registry.py', '_imported'), ('mmpd/registry.py', '_locations'),
           # nor does it list its loaders of checkpoints, all of which have to be safe
           ('mmpd/compat/checkpoints.py', '_schemes'),
           # whether a run goes on, or begins with the weights it loads, a Runner says nowhere else
           ('mmpd/engine/hooks/checkpoint_hooks.py', '_resume'),
           # whether operations are transformed or counted, which torch says nowhere else
           ('mmpd/operators/base.py', '_C'),
           # whether a CPU computes in bfloat16, which PyTorch says nowhere else
           ('mmpd/apis/precision.py', '_is_mkldnn_bf16_supported'),
           # mmcv gives only CUDA tensors to its autograd functions
           ('mmpd/compat/ext_ops.py', '_upfirdn2d_cuda'),
           # numpy moved its core, and pickles name it
           ('mmpd/utils/safe_pickle.py', '_core'), ('mmpd/utils/safe_pickle.py', '_reconstruct'),
           ('mmpd/models/editors/gan_prior_sr.py', '_register_load_state_dict_pre_hook'),
           # spandrel's public call clips the image and cuts its gradient
           ('mmpd/models/generators/spandrel_generator.py', '_call_fn')}


def rules():
    """A room -> rooms that it may import, from the table of docs/architecture.md."""
    text = (ROOT / 'docs' / 'architecture.md').read_text()
    rows = re.findall(r'^\| `(\w+)` \| [^|]*\|([^|]*)\|$', text, re.M)
    return {room: set(re.findall(r'`(\w+)`', allowed)) for room, allowed in rows}


def imported(path, tree):
    """(line, dotted name) of every import, relative ones made absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(path.parts[:-1])[:len(path.parts) - node.level] if node.level else []
            module = base + (node.module.split('.') if node.module else [])
            if node.level and not node.module:
                yield from ((node.lineno, '.'.join([*module, alias.name])) for alias in node.names)
            else:
                yield node.lineno, '.'.join(module)


def room_of(path):
    return path.parts[1].removesuffix('.py')


def test_rooms_import_only_what_lies_below_them():
    allowed, wrong = rules(), []
    for path, tree in TREES.items():
        room = room_of(path)
        for line, name in imported(path, tree):
            parts = name.split('.')
            if parts[0] == 'mmpd' and len(parts) > 1 and room != '__init__':
                other = parts[1]
                if other != room and other not in allowed[room] | {'errors', 'version'}:
                    wrong.append(f'{path}:{line} imports mmpd.{other}')
    assert not wrong, '\n'.join(wrong)


def test_every_room_is_described():
    rooms = {room_of(path) for path in TREES} - {'__init__', 'errors', 'version'}
    assert set(rules()) == rooms


def test_nothing_is_imported_in_circles():
    graph, seen = rules(), []

    def visit(room, way):
        assert room not in way, ' -> '.join([*way, room])
        for other in graph.get(room, ()):
            visit(other, [*way, room])
        seen.append(room)

    for room in graph:
        visit(room, [])
    assert set(seen) >= set(graph)


def test_light_rooms_do_not_name_openmmlab():
    for path, tree in TREES.items():
        if room_of(path) in LIGHT or path.name in ('files.py', 'images.py', 'rasters.py'):
            wrong = [name for _, name in imported(path, tree) if name.split('.')[0] in OPENMMLAB]
            assert not wrong, f'{path} imports {wrong}'


def test_private_members_of_other_packages_are_left_alone():
    own = set()
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                own.add(node.name)
            elif isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, ast.Store):
                own.add(node.attr if isinstance(node, ast.Attribute) else node.id)
            elif isinstance(node, ast.keyword):
                own.add(node.arg)
    used = {(path.as_posix(), node.attr) for path, tree in TREES.items() for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr.startswith('_')
            and not node.attr.endswith('__') and node.attr not in own}
    assert used == FOREIGN
    mocks = [str(path) for path, tree in TREES.items()
             if any('mock' in name for _, name in imported(path, tree))]
    assert not mocks


@pytest.mark.parametrize('package', PACKAGES)
def test_packages_say_what_is_public(package):
    module = import_module(package)
    names = module.__all__
    assert len(set(names)) == len(names)
    for name in names:
        if not hasattr(module, name):
            import_module(f'{package}.{name}')


def test_public_surface_is_frozen():
    """A name that goes or comes is meant: write it into tests/data/public_surface.json too."""
    surface = {package: sorted(import_module(package).__all__) for package in PACKAGES}
    assert surface == json.loads(SURFACE.read_text())


def test_no_test_file_is_a_library():
    for path in (ROOT / 'tests').rglob('test_*.py'):
        for _, name in imported(path.relative_to(ROOT), ast.parse(path.read_text())):
            assert not name.startswith('test_'), f'{path} imports {name}: helpers go to conftest.py'


def test_test_files_differ_in_name():
    """Pytest imports them without their folders: of two of a name it takes one."""
    names = [path.name for path in Path(__file__).parent.rglob('test_*.py')]
    assert len(names) == len(set(names))
