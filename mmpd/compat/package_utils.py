"""What mmengine finds packages by: ``pkg_resources`` and ``pkgutil.find_loader``, both gone.

setuptools 81 dropped the first.  Where it is missing, three functions below take the place of
mmengine's; nothing named ``pkg_resources`` appears, so others still see that it is not there.
Python 3.14 dropped the second, without which no training begins.
"""
import pkgutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from mmengine.utils import package_utils

__all__ = ['find_loader', 'get_installed_path', 'is_installed', 'package2module',
           'replace_find_loader', 'replace_pkg_resources']

NAMES = ('is_installed', 'get_installed_path', 'package2module')


def is_installed(package):
    """Whether a distribution or an importable module (not a namespace) has this name."""
    try:
        distribution(package)
    except PackageNotFoundError:
        spec = find_spec(package)
        return spec is not None and spec.origin is not None
    return True


def package2module(package):
    """The import name of an installed distribution: the first line of its ``top_level.txt``.

    Raises:
        ValueError: if the distribution does not name its modules.
    """
    names = (distribution(package).read_text('top_level.txt') or '').split()
    if not names:
        raise ValueError(f'can not infer the module name of {package}')
    return names[0]


def get_installed_path(package):
    """The folder of an installed package.

    Args:
        package (str): Name of a distribution or of a module.

    Returns:
        str: The folder that holds its ``__init__.py``.

    Raises:
        PackageNotFoundError: if there is none.
        RuntimeError: if the name is that of a namespace package.
    """
    try:
        root = Path(distribution(package).locate_file(''))
    except PackageNotFoundError:
        spec = find_spec(package)
        if spec is None:
            raise
        if spec.origin is None:
            raise RuntimeError(f'{package} is a namespace package, which is invalid for '
                               '`get_install_path`') from None
        return str(Path(spec.origin).parent)
    if (root / package).exists():
        return str(root / package)
    module = package2module(package)
    if not (root / module).exists():  # an editable install lives elsewhere
        spec = find_spec(module)
        if spec is not None and spec.origin is not None:
            return str(Path(spec.origin).parent)
    return str(root / module)


def replace_pkg_resources():
    """Give mmengine the functions above where ``pkg_resources`` is missing and it wants it."""
    if find_spec('pkg_resources') is not None:
        return
    for name in NAMES:
        theirs = getattr(package_utils, name)
        if 'pkg_resources' not in theirs.__code__.co_names:
            continue  # onedl-mmengine does without
        ours = globals()[name]
        for holder, module in list(sys.modules.items()):
            if holder.partition('.')[0] == 'mmengine' and vars(module).get(name) is theirs:
                setattr(module, name, ours)


def find_loader(name):
    """The loader of a module, or None: ``pkgutil.find_loader``, as Python had it before 3.14."""
    spec = find_spec(name)
    return spec and spec.loader


def replace_find_loader():
    """Give ``pkgutil`` its function where it has none; mmengine and mmcv call it by that name."""
    if not hasattr(pkgutil, 'find_loader'):
        pkgutil.find_loader = find_loader
