"""What training and testing share: arguments, checks, distribution on CPUs."""
import argparse
import difflib
import inspect
import logging
import os
import tempfile
from multiprocessing import get_all_start_methods
from pathlib import Path

import torch
from mmagic.registry import DATASETS, OPTIMIZERS
from mmengine.config import Config, DictAction
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..errors import InputError
from ..utils.validation import (
    check_bool,
    check_choice,
    check_dict,
    check_keys,
    check_path,
    check_positive_int,
    check_sequence,
    did_you_mean,
    optional,
    refuse,
    type_name,
)
from . import text_argument
from .kinds import is_ones_own

# what OptimWrapper calls for each type of clip_grad, and the argument that says how much
CLIPPING = dict(norm=(torch.nn.utils.clip_grad_norm_, 'max_norm'),
                value=(torch.nn.utils.clip_grad_value_, 'clip_value'))
# and what its constructor looks for
PARAMWISE = ('custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult',
             'dwconv_decay_mult', 'flat_decay_mult', 'dcn_offset_lr_mult', 'bypass_duplicate')
# names that logging knows; it has no public list of them on Python 3.10
LEVELS = ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL', 'WARN', 'FATAL', 'NOTSET')


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
    parser.add_argument('--work-dir', type=text_argument,
                        help='folder for logs, checkpoints and results')
    parser.add_argument(
        '--cfg-options', nargs='+', action=OptionAction, metavar='KEY=VALUE',
        help='override settings of the config: a.b=1, lists as a="[1,2]" or a=1,2, no spaces')
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
        help='how the processes were started')
    parser.add_argument(
        '--allow-partial', action='store_true',
        help='load a checkpoint of which not every tensor fits; the log says what stays random')
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
    if not isinstance(cfg.get('model'), dict):
        raise InputError(f'config {args.config}: expected model=dict(type=...), got '
                         f'{cfg.get("model")!r}')
    if args.cfg_options is not None:
        _check_names(cfg, args.cfg_options)
        try:
            cfg.merge_from_dict(args.cfg_options)
        except (KeyError, TypeError, IndexError, AssertionError, AttributeError) as error:
            raise InputError(f'--cfg-options do not fit {args.config}: {error}') from error
    _check_sections(cfg)
    _check_runtime(cfg)
    _tell_near_names(cfg, args.config)
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
        checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
        if checkpoint.get('out_dir') is not None:
            print_log(f'checkpoints go to --work-dir too, not to out_dir={checkpoint.out_dir!r} '
                      'of the config', logger='current')
            checkpoint.out_dir = None
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('./work_dirs', path.stem)
    check_writable(cfg.work_dir, '--work-dir')
    return cfg


def check_writable(folder, option):
    """Make ``folder``; raise InputError unless files can be written there."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f'{option} {folder}: cannot be written: {error.strerror or error}'
                         ) from error


def check_parts(cfg, config, *keys):
    """Raise InputError for the first of ``keys`` that the config does not have."""
    for key in keys:
        if cfg.get(key) is None:
            near = did_you_mean(key, [name for name in cfg if name not in keys])
            raise InputError(f'config {config}: expected {key}, got none{near}')


def _check_names(cfg, options):
    """A mistyped section would be added beside the right one and change nothing."""
    for key in options:
        section = key.split('.')[0]
        near = difflib.get_close_matches(section, cfg.keys(), n=1, cutoff=0.8)
        if section not in cfg and near:
            raise InputError(f'--cfg-options {key}: the config has no {section!r}; '
                             f'did you mean {near[0]!r}?')


def _tell_near_names(cfg, config):
    """Say which names at the top look like mistyped ones of mmengine, which would pass them over.

    They may be variables, as the data sets of MMagic's configs are.
    """
    known = list(inspect.signature(Runner).parameters)
    for key in cfg:
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.85)
        if near and key not in known and not key.endswith(('_dataloader', '_evaluator')):
            print_log(f'config {config}: nothing reads {key!r}; did you mean {near[0]!r}?',
                      logger='current', level=logging.WARNING)


def _check_sections(cfg):
    """Raise InputError for a section that is no dict, nor a list of them where several may be."""
    for section in ('model', 'train_cfg', 'val_cfg', 'test_cfg', 'optim_wrapper'):
        optional(check_dict, cfg.get(section), section)
    for name in ('generator', 'discriminator'):
        optional(check_dict, (cfg.get('model') or {}).get(name), f'model.{name}')
    for section in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator',
                    'test_evaluator'):
        for part in _parts(cfg.get(section)):
            optional(check_dict, part, section)
            for name in ('dataset', 'sampler') if part and 'loader' in section else ():
                optional(check_dict, part.get(name), f'{section}.{name}')


def _parts(section):
    """The dicts of a section: one, several, or for evaluators several for each of several."""
    if not isinstance(section, (list, tuple)):
        return [section]
    return [part for item in section for part in _parts(item)]


def _check_runtime(cfg):
    """Raise InputError for settings of the run that mmengine takes wrongly, or would ignore."""
    for name, known in (
            ('randomness', list(inspect.signature(Runner.set_randomness).parameters)[1:]),
            ('env_cfg', ('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit')),
            ('env_cfg.mp_cfg', ('mp_start_method', 'opencv_num_threads'))):
        check_keys(check_dict(_setting(cfg, name) or {}, name), name, known)
    for name, check, *arguments in (
            ('load_from', check_path, 'a file or address'), ('resume', check_bool),
            ('randomness.seed', check_positive_int, 0, 2**32 - 1),
            ('randomness.deterministic', check_bool), ('randomness.diff_rank_seed', check_bool),
            ('env_cfg.cudnn_benchmark', check_bool),
            ('env_cfg.resource_limit', check_positive_int),
            ('env_cfg.mp_cfg.mp_start_method', check_choice, get_all_start_methods()),
            ('env_cfg.mp_cfg.opencv_num_threads', check_positive_int, -1)):
        optional(check, _setting(cfg, name), name, *arguments)
    level = cfg.get('log_level')
    if not isinstance(level, int):
        optional(check_choice, level, 'log_level', LEVELS)
    for name, hook in check_dict(cfg.get('default_hooks') or {}, 'default_hooks').items():
        optional(_check_hook, hook, f'default_hooks.{name}')
    optional(check_sequence, cfg.get('custom_hooks') or None, 'custom_hooks', _check_hook)


def _check_hook(hook, name):
    if not isinstance(hook, (dict, Hook)):
        refuse(name, 'a dict with its type', hook)


def _setting(cfg, name):
    """What a config says at a place such as 'env_cfg.mp_cfg', or None."""
    place, *keys = name.split('.')
    found = cfg.get(place)
    for key in keys:
        found, place = check_dict(found or {}, place).get(key), f'{place}.{key}'
    return found


def known_configs():
    """The configs of mmpd and those in ./configs, by name."""
    package = Path(__file__).resolve().parents[1]
    known = {}
    for folder in (package / '.mim' / 'configs', package.parent / 'configs', Path('configs')):
        known.update((config.name, config) for config in folder.glob('[!_]*/*.py'))
    return known


def _suggestion(path):
    known = known_configs()
    near = difflib.get_close_matches(path.name, known, n=3, cutoff=0.6)
    return f'; did you mean {" or ".join(str(known[name]) for name in near)}?' if near else ''


def check_gpu(cfg, amp=False):
    """Raise InputError if the config needs a GPU and there is none, or cannot do with --amp."""
    wrappers = [wrapper for _, wrapper in optim_wrappers(cfg)]
    amp = amp or any(type_name(item) == 'AmpOptimWrapper' for item in wrappers)
    generator = cfg.model.get('generator') or {}
    if amp and type_name(generator) == 'GLEANStyleGANv2' and not generator.get('fp16_enabled'):
        raise InputError('automatic mixed precision: GLEANStyleGANv2 takes it only with '
                         'model.generator.fp16_enabled=True (and a CUDA GPU); expected that, or '
                         'model.generator.type=GLEANNet, of the same arguments and checkpoints')
    if torch.cuda.is_available():
        return
    for item in wrappers:
        dtype = str(item.get('dtype') or 'bfloat16')
        if (amp or type_name(item) == 'AmpOptimWrapper') and 'bfloat16' not in dtype:
            raise InputError(f'automatic mixed precision in {dtype} needs a CUDA GPU, and none is '
                             "available; a CPU does it with dtype='bfloat16' (--amp's default)")
    for name in ('generator', 'discriminator'):
        if (cfg.model.get(name) or {}).get('fp16_enabled'):
            raise InputError(f'model.{name}.fp16_enabled=True needs a CUDA GPU, and none is '
                             'available; add --cfg-options model.generator.fp16_enabled=False '
                             'model.discriminator.fp16_enabled=False')


def check_data(cfg, *splits):
    """Raise InputError for the first data folder or annotation file that does not exist."""
    for split in splits:
        for loader in _parts(cfg.get(f'{split}_dataloader')):
            dataset = (loader or {}).get('dataset')
            while isinstance(dataset, dict) and isinstance(dataset.get('dataset'), dict):
                dataset = dataset['dataset']  # RepeatDataset and the like
            if isinstance(dataset, dict):
                _check_dataset(dataset, f'{split}_dataloader.dataset')


def _check_dataset(dataset, name):
    if is_ones_own(dataset.get('type'), DATASETS):
        return
    root, prefixes = dataset.get('data_root') or '', dataset.get('data_prefix') or {}
    for key in ('data_root', 'ann_file'):
        if dataset.get(key):
            check_path(dataset[key], f'{name}.{key}', 'a path or address')
    if not isinstance(prefixes, str):
        check_dict(prefixes, f'{name}.data_prefix')
    if '://' in str(root) or dataset.get('backend_args'):
        return
    if isinstance(prefixes, str):
        prefixes = {'': prefixes}
    wanted = [(root, 'data_root')] if root else []
    wanted += [(os.path.join(root, prefix), f'data_prefix.{key}')
               for key, prefix in prefixes.items() if isinstance(prefix, str)]
    for folder, option in wanted:
        if folder and not os.path.exists(folder):  # SinGAN's root is an image
            raise InputError(f'no data folder {folder} ({name}.{option})')
        if os.path.isdir(folder) and not any(os.scandir(folder)):
            raise InputError(f'data folder {folder} is empty ({name}.{option})')
    ann_file = dataset.get('ann_file')
    if ann_file and not os.path.isfile(os.path.join(root, ann_file)):
        raise InputError(f'no annotation file {os.path.join(root, ann_file)} ({name}.ann_file)')


def optim_wrappers(cfg):
    """Names and configs of the one OptimWrapper, or of several and what holds them."""
    wrappers = cfg.get('optim_wrapper') or {}
    return [('optim_wrapper', wrappers), *((f'optim_wrapper.{name}', part)
            for name, part in wrappers.items() if isinstance(part, dict))]


def check_optimizers(cfg):
    """Raise InputError for what mmengine would not name, or only at the first update.

    An optimizer that does not exist, a number of batches that is none, clipping by other names or
    by a negative norm, which would turn the gradients round, factors that would be passed over, a
    schedule for another optimizer.
    """
    wrappers, schedules = cfg.get('optim_wrapper') or {}, cfg.get('param_scheduler')
    if isinstance(schedules, dict) and 'type' not in schedules and 'optimizer' not in wrappers:
        names = [name for name, part in wrappers.items() if isinstance(part, dict)]
        check_keys(schedules, 'param_scheduler', names)
        for name in names:
            if name not in schedules:
                raise InputError(f'param_scheduler: expected one for {name} too, got '
                                 f'{", ".join(schedules)}')
    for name, part in optim_wrappers(cfg):
        if part.get('accumulative_counts') is not None:
            check_positive_int(part.accumulative_counts, f'{name}.accumulative_counts')
        if part.get('constructor') in (None, 'DefaultOptimWrapperConstructor'):
            check_keys(part.get('paramwise_cfg') or {}, f'{name}.paramwise_cfg', PARAMWISE)
        if part.get('clip_grad') is not None:
            _check_clipping(part.clip_grad, f'{name}.clip_grad')
        kind = (part.get('optimizer') or {}).get('type')
        if isinstance(kind, str) and OPTIMIZERS.get(kind) is None:
            names = {*OPTIMIZERS.module_dict, *OPTIMIZERS.parent.module_dict}
            raise InputError(f'optim_wrapper: unknown optimizer type {kind!r}'
                             f'{did_you_mean(kind, names)}')


def _check_clipping(clip_grad, name):
    kind, given = 'norm', check_dict(clip_grad, name)
    if 'type' in given:
        kind = check_choice(given['type'], f'{name}.type', CLIPPING)
    function, limit = CLIPPING[kind]
    given = {key: value for key, value in given.items() if key != 'type'}
    check_keys(given, name, list(inspect.signature(function).parameters)[1:])
    if limit not in given:
        raise InputError(f'{name}: expected {limit}, got {given}')
    value = given[limit]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        refuse(f'{name}.{limit}', 'a positive number', value)  # inf only has the norm logged


def add_nan_hook(cfg):
    """Have every training watched for NaN; inherited configs know nothing of it."""
    hooks = dict(cfg.get('default_hooks') or {})
    given = [*hooks.values(), *(cfg.get('custom_hooks') or [])]
    if 'nan' in hooks and hooks['nan'] is None:  # not wanted, which mmengine takes for a mistake
        del hooks['nan']
    elif not any(type_name(hook) == 'NaNHook' for hook in given):
        hooks['nan'] = dict(type='NaNHook')
    cfg.default_hooks = hooks


def add_consistency(cfg, split):
    """Have LRConsistency measured for a PD model, in every evaluator that lacks it.

    It shows what PD is for; inherited configs know nothing of it.

    Returns:
        str | None: What to tell the user once there is a log.
    """
    from ..models.editors.pd_types import has_pd
    key, added = f'{split}_evaluator', None
    given = cfg.get(key)
    if not given or not has_pd(cfg.model.get('type')):
        return None
    several = isinstance(given, (list, tuple)) and any(
        isinstance(item, list) or 'metrics' in item for item in given)
    evaluators = [item if 'metrics' in item else dict(metrics=item) for item in given] if several \
        else [given if isinstance(given, dict) and 'metrics' in given else dict(metrics=given)]
    for evaluator in evaluators:
        metrics = evaluator['metrics']
        metrics = list(metrics) if isinstance(metrics, (list, tuple)) else [metrics] * bool(metrics)
        if any(type_name(metric) in ('LRConsistency', None) for metric in metrics):
            continue
        prefixes = list(dict.fromkeys(metric.get('prefix') for metric in metrics))
        # of several data sets the results would have one name
        first = next(filter(None, prefixes), None) if several else None
        metrics.append(dict(type='LRConsistency',
                            prefix=prefixes[0] if len(prefixes) == 1 else first))
        evaluator['metrics'] = metrics
        added = f'{key}: LRConsistency is measured too, with the A of the model'
    if several or 'metrics' in given:
        cfg[key] = evaluators if several else evaluators[0]
    else:
        cfg[key] = evaluators[0]['metrics']
    return added


def prepare_distributed(cfg):
    """Distributed training on CPUs: gloo, and no device for the wrappers.

    mmengine asks for a CUDA device in both places (``init_dist``, ``wrap_model``).
    """
    if cfg.launcher == 'pytorch' and not {'RANK', 'WORLD_SIZE', 'MASTER_ADDR'} <= os.environ.keys():
        raise InputError('--launcher pytorch: expected to be started by torchrun, which sets RANK, '
                         'WORLD_SIZE and MASTER_ADDR: use tools/dist_train.sh or tools/dist_test.sh'
                         ', or torchrun --nproc_per_node=N')
    if cfg.launcher == 'none' or torch.cuda.is_available():
        return
    if cfg.launcher != 'pytorch':
        raise InputError(f'--launcher {cfg.launcher} needs CUDA GPUs; on CPUs use dist_train.sh '
                         '(--launcher pytorch)')
    env = dict(cfg.get('env_cfg') or {})  # setdefault gives a copy, what is put into it is lost
    cfg.env_cfg = dict(env, dist_cfg=dict(env.get('dist_cfg') or {}, backend='gloo'))
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
