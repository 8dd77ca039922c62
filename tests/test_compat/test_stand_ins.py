"""Stand-ins for what super-resolution never uses: one line when used, invisible to all others."""
import importlib
import importlib.util
import json
import sys
from abc import ABCMeta, abstractmethod
from dataclasses import dataclass
from importlib.metadata import version

import pytest
from mmagic.registry import DIFFUSION_SCHEDULERS, MODELS, TRANSFORMS

from mmpd.compat import stand_ins
from mmpd.compat.stand_ins import LISTED, PACKAGES, StandIn, import_for_mmagic, try_import

MISSING = [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def run(code, **names):
    """Execute ``code`` as one of MMagic's modules."""
    space = {'__builtins__': {**vars(importlib.import_module('builtins')),
                              '__import__': import_for_mmagic}, '__name__': 'mmagic.x', **names}
    exec(code, space)
    return space


def line(error, package):
    text = str(error.value)
    assert '\n' not in text and text.startswith('MMagic needs ')
    assert PACKAGES[package][0] in text and f'pip install {PACKAGES[package][1]}' in text
    return text


@pytest.fixture
def package(monkeypatch, tmp_path):
    """Lets MMagic's modules miss a package ``absent_pkg``; ``write`` installs it."""
    monkeypatch.setitem(stand_ins.PACKAGES, 'absent_pkg', ('absent-pkg==1.2', '"absent-pkg==1.2"'))
    monkeypatch.syspath_prepend(tmp_path)

    def write(**files):
        (tmp_path / 'absent_pkg').mkdir()
        for name, text in files.items():
            (tmp_path / 'absent_pkg' / f'{name}.py').write_text(text)
        importlib.invalidate_caches()

    yield write
    for name in [name for name in sys.modules if name.partition('.')[0] == 'absent_pkg']:
        del sys.modules[name]


@pytest.mark.parametrize('name', PACKAGES)
def test_each_stand_in_names_package_version_and_command(name):
    module = StandIn(name)
    with pytest.raises(ModuleNotFoundError) as error:
        module.SomeClass(1)
    assert f'MMagic needs {name}.SomeClass here' in line(error, name) and error.value.name == name
    with pytest.raises(ModuleNotFoundError) as error:
        module.some_function('a')
    assert f'{name}.some_function' in line(error, name)
    with pytest.raises(AttributeError) as error:
        module.SomeClass.from_pretrained('a')
    assert f'{name}.SomeClass.from_pretrained' in line(error, name)
    found = 'is not installed' if name in MISSING else f'{version(name)} is installed'
    assert found in str(error.value)


def test_what_mmagics_modules_do_with_them_while_they_are_imported():
    module = StandIn('diffusers')

    class Abstract(metaclass=ABCMeta):  # as mmengine's BaseModule

        @abstractmethod
        def kept(self):
            return 5

    class Editor(module.ModelMixin, module.ConfigMixin, Abstract):

        @module.register_to_config
        def method(self):
            return 3

    assert Editor.method(None) == 3 and Editor.kept(None) == 5
    assert module.register(Abstract) is Abstract
    for args, kwargs in (((), {}), ((Abstract, 3), {}), ((Abstract, ), dict(name='x'))):
        with pytest.raises(ModuleNotFoundError, match='MMagic needs diffusers.register here'):
            module.register(*args, **kwargs)
    assert module.ModelMixin is module.ModelMixin
    assert module.is_xformers_available() is False
    assert not hasattr(module, '__path__') and not hasattr(module.ModelMixin, '__wrapped__')

    @dataclass
    class Output(module.BaseOutput):
        sample: int

    with pytest.raises(ModuleNotFoundError, match='diffusers.BaseOutput'):
        Output(1)
    with pytest.raises(ModuleNotFoundError, match='diffusers.ModelMixin'):
        Editor()


@pytest.mark.parametrize('code, name', [
    ('import absent_pkg as x; used = x.Used', 'absent_pkg.Used'),
    ('import absent_pkg; used = absent_pkg.Used', 'absent_pkg.Used'),
    ('from absent_pkg import Used as used', 'absent_pkg.Used'),
    ('from absent_pkg.deep.er import Used as used', 'absent_pkg.deep.er.Used'),
    ('import absent_pkg.deep; used = absent_pkg.Used', 'absent_pkg.Used'),
    ('try:\n    from absent_pkg import Used as used\nexcept ImportError:\n    used = None',
     'absent_pkg.Used')])
def test_mmagic_gets_a_stand_in_and_nobody_else_sees_one(package, code, name):
    used = run(code)['used']
    with pytest.raises(ModuleNotFoundError) as error:
        used()
    assert f'MMagic needs {name} here' in line(error, 'absent_pkg')
    assert not [name for name in sys.modules if name.startswith('absent_pkg')]
    assert importlib.util.find_spec('absent_pkg') is None
    with pytest.raises(ModuleNotFoundError, match="^No module named 'absent_pkg'$"):
        importlib.import_module('absent_pkg')
    with pytest.raises(ModuleNotFoundError, match="^No module named 'absent_pkg'$"):
        exec(code.replace('ImportError', 'OSError'), {})


def test_an_import_inside_a_function_is_real_use(package):
    space = run('def f():\n    from absent_pkg.deep import x')
    with pytest.raises(ModuleNotFoundError) as error:
        space['f']()
    assert 'absent_pkg.deep' in line(error, 'absent_pkg')


def test_other_missing_packages_stay_missing(package):
    with pytest.raises(ModuleNotFoundError, match="^No module named 'absent_too'$"):
        run('import absent_too')
    package(__init__='import absent_too')  # found while an installed one is imported: it is unfit
    assert isinstance(run('import absent_pkg')['absent_pkg'], StandIn)


def test_an_installed_package_is_used_untouched(package):
    package(__init__='class Used: pass', deep='value = 3')
    space = run('import absent_pkg\nfrom absent_pkg import Used, deep\n'
                'from absent_pkg.deep import value\nfrom absent_pkg import *')
    import absent_pkg
    assert space['absent_pkg'] is absent_pkg is sys.modules['absent_pkg']
    assert space['Used'] is absent_pkg.Used and space['deep'] is absent_pkg.deep
    assert space['value'] == 3 and try_import('absent_pkg') is absent_pkg


def test_what_an_installed_release_lacks_is_stood_in_for(package):
    package(__init__='class Used: pass\ndef __getattr__(name):\n    if name == "Lazy":\n'
                     '        raise RuntimeError("Failed to import")\n'
                     '    raise AttributeError(name)')
    space = run('from absent_pkg import Used, Gone, Lazy\nfrom absent_pkg.gone import Other')
    import absent_pkg
    assert space['Used'] is absent_pkg.Used and not hasattr(absent_pkg, 'Gone')
    for name in ('Gone', 'Lazy', 'Other'):
        with pytest.raises(ModuleNotFoundError) as error:
            space[name]()
        line(error, 'absent_pkg')
    with pytest.raises(ModuleNotFoundError, match="No module named 'absent_pkg.gone'"):
        run('def f():\n    import absent_pkg.gone')['f']()
    with pytest.raises(ImportError, match="cannot import name 'Gone' from 'absent_pkg'"):
        run('def f():\n    from absent_pkg import Gone')['f']()


def test_modules_of_mmagic_itself_may_have_the_name_of_a_package(package):
    space = dict(__name__='mmagic.x', __package__='mmagic')
    with pytest.raises(ModuleNotFoundError, match="^No module named 'mmagic.absent_pkg'$"):
        import_for_mmagic('absent_pkg', space, space, ('y', ), 1)


@pytest.mark.parametrize('failure', ['raise ValueError("numpy.dtype size changed")',
                                     'raise ImportError("cannot import name x")'])
def test_an_installed_package_that_does_not_import_is_stood_in_for(package, failure):
    package(__init__=failure)
    with pytest.raises(ModuleNotFoundError, match='MMagic needs absent_pkg.Used here'):
        run('from absent_pkg import Used')['Used']()
    assert isinstance(try_import('absent_pkg'), StandIn)


def test_mmagics_try_import_serves_its_modules(package):
    space = run('from mmagic.utils import try_import, tensor2img\n'
                'x = try_import("absent_pkg")\ny = try_import("absent_too")\n'
                'z = try_import("json")')
    assert isinstance(space['x'], StandIn) and space['y'] is None and space['z'] is json
    import mmagic.utils
    assert run('import mmagic.utils as utils')['utils'] is mmagic.utils
    assert mmagic.utils.try_import('absent_pkg') is None
    assert space['tensor2img'] is mmagic.utils.tensor2img


def test_lists_of_an_unfit_release_hold_what_imports(package, monkeypatch):
    monkeypatch.setitem(LISTED, 'absent_pkg.models', ('Named', ))
    assert dir(try_import('absent_pkg').models) == ['Named']
    package(__init__='from . import models; other = 5',
            models='class Good: pass\ndef __dir__():\n    return ["Good", "Bad"]')
    module = try_import('absent_pkg')
    import absent_pkg.models
    assert dir(module.models) == ['Good'] and module.models.Good is absent_pkg.models.Good
    assert module.other == 5 and isinstance(module, StandIn)


USES = [(MODELS, dict(type='AutoencoderKL', from_pretrained='x'), 'diffusers'),
        (MODELS, dict(type='UNet2DConditionModel', from_config='x'), 'diffusers'),
        (MODELS, dict(type='ControlNetModel'), 'diffusers'),
        (DIFFUSION_SCHEDULERS, dict(type='DDIMScheduler', from_config='x'), 'diffusers'),
        (DIFFUSION_SCHEDULERS, dict(type='DDPMScheduler'), 'diffusers'),
        (TRANSFORMS, dict(type='PairedAlbuTransForms', size=8), 'albumentations'),
        (TRANSFORMS, dict(type='Albumentations', keys=['gt'], transforms=[
            dict(type='HorizontalFlip')]), 'albumentations')]


@pytest.mark.parametrize('registry, config, name', USES,
                         ids=[config['type'] for _, config, _ in USES])
def test_a_config_that_needs_one_gets_the_line(registry, config, name):
    if name not in MISSING:
        pytest.skip(f'{name} is installed')
    with pytest.raises((ModuleNotFoundError, AttributeError), match='^MMagic needs ') as error:
        registry.build(config)
    line(error, name)


def test_mmagics_modules_are_loaded_and_hide_nothing():
    import mmagic.apis
    import mmagic.models
    assert mmagic.apis.MMagicInferencer and mmagic.models.editors.GLEANStyleGANv2
    for name in MISSING:
        assert importlib.util.find_spec(name) is None and name not in sys.modules
    assert not [name for name, module in sys.modules.items() if isinstance(module, StandIn)]
