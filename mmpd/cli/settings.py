"""What training and testing share: arguments, checks, distribution on CPUs."""
import argparse
import difflib
import os
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.logging import print_log

from ..errors import InputError
from ..utils.checkpoint import strip_wrapper_prefix


class OptionAction(DictAction):
    """mmengine's KEY=VALUE pairs; one without '=' is named instead of a traceback."""

    def __call__(self, parser, namespace, values, option_string=None):
        try:
            super().__call__(parser, namespace, values, option_string)
        except Exception as error:  # unpacking, unmatched brackets
            raise InputError(f'{option_string}: expected KEY=VALUE pairs, each one word for the '
                             f'shell, got {" ".join(map(repr, values))}') from error


def add_common_arguments(parser):
    """The arguments of MMagic's tools that training and testing share."""
    parser.add_argument('--work-dir', help='folder for logs, checkpoints and results')
    parser.add_argument(
        '--cfg-options', nargs='+', action=OptionAction, metavar='KEY=VALUE',
        help='override settings of the config: a.b=1, lists as a="[1,2]" or a=1,2, no spaces')
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
        help='how the processes were started')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help=argparse.SUPPRESS)  # torch.distributed.launch gives it


def load_config(args):
    """Read the config and apply ``--cfg-options``, ``--work-dir`` and ``--launcher``.

    Raises:
        InputError: no such file (near names are suggested), or it does not parse.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    path = Path(args.config)
    if not path.is_file():
        raise InputError(f'no config {args.config}{_suggestion(path)}')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # whatever a config file can do wrong
        raise InputError(f'config {args.config}: {type(error).__name__}: {error}') from error
    if args.cfg_options is not None:
        _check_names(cfg, args.cfg_options)
        try:
            cfg.merge_from_dict(args.cfg_options)
        except (KeyError, TypeError, IndexError, AssertionError, AttributeError) as error:
            raise InputError(f'--cfg-options do not fit {args.config}: {error}') from error
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
        checkpoint = cfg.get('default_hooks', {}).get('checkpoint') or {}
        if checkpoint.get('out_dir') is not None:
            print_log(f'checkpoints go to --work-dir too, not to out_dir={checkpoint.out_dir!r} '
                      'of the config', logger='current')
            checkpoint.out_dir = None
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('./work_dirs', path.stem)
    return cfg


def _check_names(cfg, options):
    """A mistyped section would be added beside the right one and change nothing."""
    for key in options:
        section = key.split('.')[0]
        near = difflib.get_close_matches(section, cfg.keys(), n=1, cutoff=0.8)
        if section not in cfg and near:
            raise InputError(f'--cfg-options {key}: the config has no {section!r}; '
                             f'did you mean {near[0]!r}?')


def _suggestion(path):
    package = Path(__file__).resolve().parents[1]
    known = {}
    for folder in (package / '.mim' / 'configs', package.parent / 'configs', Path('configs')):
        known.update((config.name, config) for config in folder.glob('[!_]*/*.py'))
    near = difflib.get_close_matches(path.name, known, n=3, cutoff=0.6)
    return f'; did you mean {" or ".join(str(known[name]) for name in near)}?' if near else ''


def check_gpu(cfg, amp=False):
    """Raise InputError if the config needs a GPU and there is none."""
    if torch.cuda.is_available():
        return
    wrappers = cfg.get('optim_wrapper') or {}
    wrappers = [wrappers, *(item for item in wrappers.values() if isinstance(item, dict))]
    if amp or any(item.get('type') == 'AmpOptimWrapper' for item in wrappers):
        raise InputError('automatic mixed precision (--amp, AmpOptimWrapper) needs a CUDA GPU, '
                         'and none is available; train without it')
    for name in ('generator', 'discriminator'):
        if (cfg.model.get(name) or {}).get('fp16_enabled'):
            raise InputError(f'model.{name}.fp16_enabled=True needs a CUDA GPU, and none is '
                             'available; add --cfg-options model.generator.fp16_enabled=False '
                             'model.discriminator.fp16_enabled=False')


def check_data(cfg, *splits):
    """Raise InputError for the first data folder or annotation file that does not exist."""
    for split in splits:
        loaders = cfg.get(f'{split}_dataloader')
        loaders = loaders if isinstance(loaders, (list, tuple)) else [loaders]
        for loader in loaders:
            dataset = (loader or {}).get('dataset')
            while isinstance(dataset, dict) and isinstance(dataset.get('dataset'), dict):
                dataset = dataset['dataset']  # RepeatDataset and the like
            if isinstance(dataset, dict):
                _check_dataset(dataset, f'{split}_dataloader.dataset')


def _check_dataset(dataset, name):
    root = dataset.get('data_root') or ''
    if '://' in root or dataset.get('backend_args'):
        return
    prefixes = dataset.get('data_prefix') or {}
    if isinstance(prefixes, str):
        prefixes = {'': prefixes}
    wanted = [(root, 'data_root')] if root else []
    wanted += [(os.path.join(root, prefix), f'data_prefix.{key}')
               for key, prefix in prefixes.items() if isinstance(prefix, str)]
    for folder, option in wanted:
        if folder and not os.path.isdir(folder):
            raise InputError(f'no data folder {folder} ({name}.{option})')
        if folder and not any(os.scandir(folder)):
            raise InputError(f'data folder {folder} is empty ({name}.{option})')
    ann_file = dataset.get('ann_file')
    if ann_file and not os.path.isfile(os.path.join(root, ann_file)):
        raise InputError(f'no annotation file {os.path.join(root, ann_file)} ({name}.ann_file)')


def check_checkpoint(path, option, resume=False):
    """Raise InputError unless ``path`` is a URL or an existing, readable checkpoint.

    With ``resume`` it must also hold what resuming needs besides the weights.
    """
    if '://' in path:
        return
    if not os.path.isfile(path):
        raise InputError(f'no checkpoint {path} ({option})')
    try:
        content = torch.load(path, map_location='meta')
    except Exception as error:  # zip, pickle, tensor and refusal errors have no common base
        first = str(error).strip().split('\n')[0] or type(error).__name__
        raise InputError(f'checkpoint {path} ({option}) cannot be read: {first}') from error
    if not isinstance(content, dict):
        raise InputError(f'checkpoint {path} ({option}) holds a {type(content).__name__}, not '
                         'the weights of a model')
    missing = [key for key in ('meta', 'message_hub', 'optimizer') if key not in content]
    if resume and missing:
        raise InputError(f'checkpoint {path} ({option}) has no {", ".join(missing)}: it holds '
                         'weights to start from (--cfg-options load_from=FILE), not a run')


def check_matches(model, path):
    """Raise InputError unless ``path`` has all weights of the generator, in their shapes.

    Of a model without a generator, unless it has any of its weights. mmengine would only log it
    and go on with random ones.
    """
    if '://' in path:
        return
    content = torch.load(path, map_location='meta')
    found = strip_wrapper_prefix(content.get('state_dict', content))
    expected = strip_wrapper_prefix(model.state_dict())
    if not any(key in expected and getattr(value, 'shape', None) == expected[key].shape
               for key, value in found.items()):
        raise InputError(f'checkpoint {path} has none of the weights of this config: it has '
                         f'{next(iter(found), "nothing")!r} ..., the model '
                         f'{next(iter(expected), "nothing")!r} ...')
    for key, value in expected.items():
        if key.startswith('generator.'):
            there = getattr(found.get(key), 'shape', None)
            if there != value.shape:
                state = 'is not in it' if there is None else f'is {tuple(there)} in it'
                raise InputError(
                    f'checkpoint {path} is of another network than that of this config: "{key}" '
                    f'{state}, the model wants {tuple(value.shape)}')


def prepare_distributed(cfg):
    """Distributed training on CPUs: gloo, and no device for the wrappers.

    mmengine asks for a CUDA device in both places (``init_dist``, ``wrap_model``).
    """
    if cfg.launcher == 'none' or torch.cuda.is_available():
        return
    if cfg.launcher != 'pytorch':
        raise InputError(f'--launcher {cfg.launcher} needs CUDA GPUs; on CPUs use dist_train.sh '
                         '(--launcher pytorch)')
    cfg.setdefault('env_cfg', {}).setdefault('dist_cfg', {})['backend'] = 'gloo'
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
    wrapper = cfg.get('model_wrapper_cfg')
    if wrapper is None:
        wrapper = dict(type='MMDistributedDataParallel', broadcast_buffers=False,
                       find_unused_parameters=cfg.get('find_unused_parameters', False))
    cfg.model_wrapper_cfg = dict(wrapper, device_ids=None)


def to_plain(value):
    """Metrics as JSON has them: tensors and numpy scalars become Python numbers."""
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value.item() if hasattr(value, 'item') else value
