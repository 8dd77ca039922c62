"""What ``tools/train.py`` and ``tools/test.py`` share: arguments, checks, distribution on CPUs."""
import argparse
import difflib
import os
import sys
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.logging import print_log


class UsageError(Exception):
    """Something the user gave is missing or wrong; its message is one line."""


def run_tool(function, argv=None):
    """Run a tool's ``function(argv)``; a :class:`UsageError` ends it with one line and code 2."""
    try:
        function(argv)
    except UsageError as error:
        message = ' '.join(str(error).split())
        print(f'{Path(sys.argv[0]).name}: {message}', file=sys.stderr)
        raise SystemExit(2) from None


def add_common_arguments(parser):
    """The arguments of MMagic's tools that training and testing share."""
    parser.add_argument('--work-dir', help='folder for logs, checkpoints and results')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='override settings of the config: a.b=1, lists as a="[1,2]" or a=1,2, no spaces')
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
        help='how the processes were started')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help=argparse.SUPPRESS)  # torch.distributed.launch gives it


def load_config(args):
    """Read the config and apply ``--cfg-options``, ``--work-dir`` and ``--launcher``.

    Raises:
        UsageError: no such file (near names are suggested), or it does not parse.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    path = Path(args.config)
    if not path.is_file():
        raise UsageError(f'no config {args.config}{_suggestion(path)}')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # whatever a config file can do wrong
        raise UsageError(f'config {args.config}: {type(error).__name__}: {error}') from error
    if args.cfg_options is not None:
        try:
            cfg.merge_from_dict(args.cfg_options)
        except (KeyError, TypeError, IndexError, AssertionError, AttributeError) as error:
            raise UsageError(f'--cfg-options do not fit {args.config}: {error}') from error
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


def _suggestion(path):
    root = Path(__file__).resolve().parents[2] / 'configs'
    folders = [folder for folder in (root, Path('configs')) if folder.is_dir()]
    known = {config.name: config for folder in folders for config in folder.glob('*/*.py')}
    near = difflib.get_close_matches(path.name, known, n=3, cutoff=0.6)
    return f'; did you mean {" or ".join(str(known[name]) for name in near)}?' if near else ''


def check_gpu(cfg, amp=False):
    """Raise UsageError if the config needs a GPU and there is none."""
    if torch.cuda.is_available():
        return
    wrappers = cfg.get('optim_wrapper') or {}
    wrappers = [wrappers, *(item for item in wrappers.values() if isinstance(item, dict))]
    if amp or any(item.get('type') == 'AmpOptimWrapper' for item in wrappers):
        raise UsageError('automatic mixed precision (--amp, AmpOptimWrapper) needs a CUDA GPU, '
                         'and none is available; train without it')
    for name in ('generator', 'discriminator'):
        if (cfg.model.get(name) or {}).get('fp16_enabled'):
            raise UsageError(f'model.{name}.fp16_enabled=True needs a CUDA GPU, and none is '
                             'available; add --cfg-options model.generator.fp16_enabled=False '
                             'model.discriminator.fp16_enabled=False')


def check_data(cfg, *splits):
    """Raise UsageError for the first data folder or annotation file that does not exist."""
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
            raise UsageError(f'no data folder {folder} ({name}.{option})')
    ann_file = dataset.get('ann_file')
    if ann_file and not os.path.isfile(os.path.join(root, ann_file)):
        raise UsageError(f'no annotation file {os.path.join(root, ann_file)} ({name}.ann_file)')


def check_checkpoint(path, option):
    """Raise UsageError unless ``path`` is a URL or an existing, readable checkpoint."""
    if '://' in path:
        return
    if not os.path.isfile(path):
        raise UsageError(f'no checkpoint {path} ({option})')
    try:
        torch.load(path, map_location='meta')
    except Exception as error:  # zip, pickle, tensor and refusal errors have no common base
        first = str(error).strip().split('\n')[0]
        raise UsageError(f'checkpoint {path} ({option}) cannot be read: {first}') from error


def prepare_distributed(cfg):
    """Distributed training on CPUs: gloo, and no device for the wrappers.

    mmengine asks for a CUDA device in both places (``init_dist``, ``wrap_model``).
    """
    if cfg.launcher == 'none' or torch.cuda.is_available():
        return
    if cfg.launcher != 'pytorch':
        raise UsageError(f'--launcher {cfg.launcher} needs CUDA GPUs; on CPUs use dist_train.sh '
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
