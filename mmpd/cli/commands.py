"""Where the installed commands begin: what needs MMagic says so in one line where it is not."""
import sys
from importlib import import_module
from importlib.util import find_spec

__all__ = ['export', 'identify', 'infer', 'make_consistent', 'test', 'train', 'web']


def _start(name):
    try:
        return import_module(f'.{name}', __package__).main()
    except ModuleNotFoundError as error:
        if find_spec('mmagic') or (error.name or '').partition('.')[0] in ('', 'mmpd'):
            raise
        print(f'mmpd-{name.replace("_", "-")} needs {error.name}, which is not installed: pip '
              'install "mmpd[mmagic]", then pip install --no-deps mmagic==1.2.0 mmcv-lite==2.1.0',
              file=sys.stderr)
        return 2


def export():
    """mmpd-export"""
    return _start('export')


def identify():
    """mmpd-identify, which runs without MMagic."""
    return _start('identify')


def infer():
    """mmpd-infer"""
    return _start('infer')


def make_consistent():
    """mmpd-make-consistent, which runs without MMagic."""
    return _start('make_consistent')


def test():
    """mmpd-test"""
    return _start('test')


def train():
    """mmpd-train"""
    return _start('train')


def web():
    """mmpd-web, which runs without MMagic where there are no models."""
    return _start('web')
