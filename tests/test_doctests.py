"""Every public function and class has an example in its docstring, and the examples are true."""
import doctest
import inspect
import json
import subprocess
import sys
from collections import OrderedDict
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch
from conftest import ROOT
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

SURFACE = json.loads((ROOT / 'tests' / 'data' / 'public_surface.json').read_text())
# public, and without an example
EXEMPT = {
    'mmpd.evaluation.protocol.protocol': 'reads a Runner with its data; every test run logs it',
}
# what an example needs that not every environment of the tests has
NEEDS = {
    'mmpd.models.generators.OnnxGenerator': 'onnxruntime',
    'mmpd.models.generators.SpandrelGenerator': 'spandrel',
    'mmpd.datasets.preparation.LMDBSource': 'lmdb',
    'mmpd.evaluation.metrics.LPIPS': 'lpips',
}
# rooms whose examples run without OpenMMLab
LIGHT = ('mmpd.consistent', 'mmpd.operators.', 'mmpd.postprocess.', 'mmpd.testing.',
         'mmpd.visualization.', 'mmpd.datasets.preparation.', 'mmpd.datasets.resampling.',
         'mmpd.utils.files.', 'mmpd.utils.images.', 'mmpd.utils.rasters.', 'mmpd.utils.model_zoo.',
         'mmpd.web.limits.', 'mmpd.web.uploads.')
OPTIONS = doctest.ELLIPSIS


def members(module):
    """Public names of a module that is no package."""
    return getattr(module, '__all__', None) or [
        name for name, value in vars(module).items()
        if not name.startswith('_') and getattr(value, '__module__', '') == module.__name__]


def public():
    """Dotted name -> (module, name) of what is to have an example.

    Modules of the surface stand for what is public in them; constants have no docstring.
    """
    found = {}
    for package, names in SURFACE.items():
        for name in names:
            value = getattr(import_module(package), name, None)
            if value is None or inspect.ismodule(value):
                module = import_module(f'{package}.{name}')
                places = [] if hasattr(module, '__path__') else [
                    (module, member) for member in members(module)]
            else:
                places = [(import_module(package), name)]
            for module, member in places:
                if not isinstance(getattr(module, member), (str, float, tuple)):
                    found[f'{module.__name__}.{member}'] = module, member
    return found


PUBLIC = public()


def examples(name):
    """The examples of a public name, of a class's methods too.

    They know nothing but what they import: a reader can copy them.
    """
    value = getattr(*PUBLIC[name])
    value = value if callable(value) else type(value)  # a registry is documented by its class
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for test in finder.find(value, name, module=False, globs={}) if test.examples]


def test_every_public_name_has_an_example():
    lacking = {name for name in PUBLIC if name not in {test.name for test in examples(name)}}
    assert lacking == set(EXEMPT)
    assert len(PUBLIC) > 130  # of all rooms


@pytest.mark.parametrize('name', [name for name in PUBLIC if name not in EXEMPT])
def test_examples(name, tmp_path, monkeypatch):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    MMLogger.get_current_instance()  # the first one keeps the stdout that it finds
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())  # what conftest.py sets
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    told, runner = [], doctest.DocTestRunner(verbose=False, optionflags=OPTIONS)
    for test in examples(name):
        runner.run(test, out=told.append)
    assert not runner.failures, ''.join(told)


def test_a_wrong_example_fails():
    """What the tests above rely on."""
    test = doctest.DocTestParser().get_doctest('>>> 1 + 1\n3\n', {}, 'wrong', None, 0)
    runner = doctest.DocTestRunner(verbose=False, optionflags=OPTIONS)
    runner.run(test, out=lambda text: None)
    assert runner.failures == 1


SCRIPT = """
import doctest
import os
import sys
from importlib import import_module
# as if they were not installed
sys.modules.update(dict.fromkeys(('mmagic', 'mmengine', 'mmcv')))
root, runner = os.getcwd(), doctest.DocTestRunner(verbose=False, optionflags=int(sys.argv[1]))
for place in sys.argv[2:]:
    module, name = place.rsplit('.', 1)
    value = getattr(import_module(module), name)
    value = value if callable(value) else type(value)
    os.makedirs(os.path.join(root, place))
    os.chdir(os.path.join(root, place))
    for test in doctest.DocTestFinder().find(value, place, module=False, globs={}):
        runner.run(test)
print(runner.tries)
sys.exit(runner.failures)
"""


def test_examples_of_light_rooms_need_no_mmagic(tmp_path):
    places = [name for name in PUBLIC if name.startswith(LIGHT)
              and find_spec(NEEDS.get(name, 'torch'))]
    assert len(places) > 70
    run = subprocess.run([sys.executable, '-c', SCRIPT, str(OPTIONS), *places], cwd=tmp_path,
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert int(run.stdout.split()[-1]) > 3 * len(places)
