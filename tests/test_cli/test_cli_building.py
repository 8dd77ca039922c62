"""What a registry cannot build of a config is one line that shows the part."""
import pytest

from mmpd.cli import building
from mmpd.errors import InputError


def test_a_type_that_is_missing_is_shown_with_its_config():
    from mmagic.registry import MODELS
    with pytest.raises(InputError, match=r"config a.py: a type is missing in \{'scale': 3\}"), \
            building.config_errors('a.py'):
        MODELS.build(dict(scale=3))
    with pytest.raises(InputError, match='config a.py: PDHead: .*operator'), \
            building.config_errors('a.py'):
        MODELS.build(dict(type='PDHead', operator=3))
    with pytest.raises(InputError, match='a.py: GANLoss: expected the arguments .*gan_type'), \
            building.config_errors('a.py'):
        MODELS.build(dict(type='GANLoss'))
    with pytest.raises(KeyError), building.config_errors('a.py'):  # of the code, not of a config
        raise KeyError('"type"')


def test_a_fault_of_the_code_stays_one():
    from mmagic.registry import MODELS

    class Faulty:
        __module__ = 'mmpd.models'  # others check little: their errors are those of values

        def __init__(self):
            raise TypeError('1 + None')

    with pytest.raises(TypeError, match='1 . None'), building.config_errors('a.py'):
        MODELS.build(dict(type=Faulty))


def test_a_package_that_is_not_installed():
    with pytest.raises(InputError, match='a.py: Please run "pip install wandb"'), \
            building.config_errors('a.py'):
        raise ImportError('Please run "pip install wandb" to install wandb')


def test_what_the_runner_itself_refuses():
    from mmengine.runner import Runner
    with pytest.raises(InputError, match='a.py: val_dataloader, val_cfg, and val_evaluator'), \
            building.config_errors('a.py'):
        Runner(model=dict(type='X'), work_dir='w', val_cfg=dict())
