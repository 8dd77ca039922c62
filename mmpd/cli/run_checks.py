"""What a run that has been built would stumble over later, found out before it begins."""
import inspect
import os

from mmagic.evaluation.metrics.base_sample_wise_metric import BaseSampleWiseMetric
from mmagic.models.base_models import BaseEditModel
from mmagic.registry import PARAM_SCHEDULERS
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.runner import IterBasedTrainLoop
from torch import nn

from ..errors import InputError
from ..utils.validation import check_positive_int, check_str, did_you_mean, optional, parameters_of
from .kinds import is_ones_own
from .settings import optim_wrappers


def check_pairs(loop, split):
    """Raise InputError for a dataset of nothing, and for the first file that one will not find.

    Args:
        loop (BaseLoop): A built loop of mmengine or MMagic.
        split (str): 'train', 'val' or 'test', for the message.
    """
    for loader in getattr(loop, 'dataloaders', None) or [loop.dataloader]:
        dataset = loader.dataset
        if hasattr(dataset, '__len__') and not len(dataset):  # InfiniteSampler would never end
            raise InputError(f'{split}_dataloader: expected images, got a data set of none')
        while hasattr(dataset, 'dataset'):  # RepeatDataset and the like
            dataset = dataset.dataset
        if getattr(dataset, 'backend_args', None) or not hasattr(dataset, 'get_data_info'):
            continue
        listed = {}
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            for key, path in info.items():
                if not key.endswith('_path') or not isinstance(path, str) or '://' in path:
                    continue
                folder, name = os.path.split(path)
                if folder not in listed:
                    listed[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
                if name not in listed[folder]:
                    near = did_you_mean(name, listed[folder])
                    raise InputError(f'{split}_dataloader: no file {path} ({key} of the image '
                                     f'{info.get("key", index)!r}){near}')


def check_end(loop, split):
    """Raise InputError for samples without end in a loop that waits for the last one.

    Args:
        loop (BaseLoop): A built loop of mmengine or MMagic.
        split (str): 'train', 'val' or 'test', for the message.
    """
    if isinstance(loop, IterBasedTrainLoop):
        return
    for loader in getattr(loop, 'dataloaders', None) or [loop.dataloader]:
        if isinstance(getattr(loader, 'sampler', None), InfiniteSampler):
            raise InputError(f'{split}_dataloader.sampler: expected one that ends, such as '
                             'DefaultSampler, got InfiniteSampler')


def _result_names(metric):
    """What the results of a metric are called, or None if it does not say."""
    names = getattr(metric, 'names', None)
    if names is None:
        compute = getattr(type(metric), 'compute_metrics', None)
        if compute is not BaseSampleWiseMetric.compute_metrics:
            return None
        names = [metric.metric]
    return [f'{metric.prefix}/{name}' if metric.prefix else name for name in names]


def check_metric_names(loop, split):
    """Raise InputError for two metrics whose results have one name, or for a prefix that is none.

    MMagic's evaluators and loops refuse them too, when all images are done.

    Args:
        loop (BaseLoop): A built loop of mmengine or MMagic.
        split (str): 'val' or 'test', for the message.
    """
    seen = set()
    for evaluator in getattr(loop, 'evaluators', None) or [loop.evaluator]:
        for metric in evaluator.metrics or ():
            optional(check_str, getattr(metric, 'prefix', None),
                     f'{split}_evaluator: {type(metric).__name__}.prefix')
            for name in _result_names(metric) or ():
                if name in seen:
                    raise InputError(f'{split}_evaluator: expected another prefix for the second '
                                     f'metric {name!r}, got {metric.prefix!r}')
                seen.add(name)


def check_hooks(runner):
    """Raise InputError for what hooks would only stumble over when they log, save or draw."""
    known = [*parameters_of(CheckpointHook), *inspect.signature(runner.save_checkpoint).parameters]
    for hook in runner.hooks:
        interval = getattr(hook, 'interval', None)
        kind = 'CheckpointHook' if isinstance(hook, CheckpointHook) else type(hook).__name__
        if is_ones_own(type(hook)) and not isinstance(hook, CheckpointHook):
            continue
        if interval is not None and not isinstance(interval, dict):
            check_positive_int(interval, f'{kind}.interval', least=-1)
        if isinstance(hook, CheckpointHook):
            for key in hook.args:
                if key not in known:
                    raise InputError(f'CheckpointHook.{key}: CheckpointHook has no such argument'
                                     f'{did_you_mean(key, known)}')


def check_preprocessor(model):
    """Raise InputError for an image model of MMagic without a data preprocessor of MMagic.

    Without one mmengine takes its own, which makes no batch of the images.
    """
    given = getattr(model, 'data_preprocessor', None)
    if isinstance(model, BaseEditModel) and not hasattr(given, 'destruct'):
        raise InputError("model.data_preprocessor: expected dict(type='DataPreprocessor', ...), "
                         f'got {type(given).__name__}')


def unused_factors(model, cfg):
    """Lines about ``custom_keys`` that fit no parameter, which mmengine passes over.

    Args:
        model (nn.Module): The model.
        cfg (Config): With ``optim_wrapper``.

    Returns:
        list[str]: One for each of them.
    """
    found = []
    for name, wrapper in optim_wrappers(cfg):
        part = name.partition('.')[2]
        module = getattr(model, part, None) if part else model
        keys = (wrapper.get('paramwise_cfg') or {}).get('custom_keys') or ()
        if not isinstance(module, nn.Module):  # a pattern of MMagic's for several
            continue
        names = [f'.{parameter}' for parameter, _ in module.named_parameters()]
        found += [f'{name}.paramwise_cfg.custom_keys: no parameter of {part or "the model"} has '
                  f'{key!r} in its name' for key in keys if not any(key in one for one in names)]
    return found


def check_loop(runner, cfg):
    """Raise InputError for numbers of iterations that mmengine only stumbles over, or never counts.

    The whole of an IterBasedTrainLoop is one epoch.
    """
    loop = runner.train_loop
    for key, least in (('val_begin', 0), ('val_interval', 1)):
        check_positive_int(getattr(loop, key, least), f'train_cfg.{key}', least=least)
    for value in getattr(loop, 'dynamic_intervals', ()):
        check_positive_int(value, 'train_cfg.dynamic_intervals')
    if not isinstance(loop, IterBasedTrainLoop):
        return
    wrong = [f'CheckpointHook.by_epoch (its interval is {hook.interval})' for hook in runner.hooks
             if isinstance(hook, CheckpointHook) and hook.by_epoch and hook.interval > 1]
    wrong += [f'param_scheduler: {scheduler["type"]}.by_epoch' for scheduler in _schedulers(cfg)
              if scheduler.get('by_epoch', True) and not scheduler.get('convert_to_iter_based')
             and not _waits_for_metrics(scheduler['type'])]
    if wrong:
        raise InputError(f'{wrong[0]}: expected False in a training that is counted in '
                         'iterations, got True, the default')


def _waits_for_metrics(kind):
    """Whether a type of schedule takes its steps after validations (ReduceOnPlateauLR)."""
    kind = PARAM_SCHEDULERS.get(kind) if isinstance(kind, str) else kind
    return getattr(kind, 'need_val_args', False)


def _schedulers(cfg):
    """The configs in param_scheduler: one, a list of them, or one or several for each optimizer."""
    given = [cfg.get('param_scheduler')]
    while given:
        part = given.pop()
        if isinstance(part, dict) and 'type' in part:
            yield part
        elif isinstance(part, (dict, list, tuple)):
            given += part.values() if isinstance(part, dict) else part


def check_best(runner, cfg):
    """Raise InputError where the best checkpoint, or an end, goes by a metric that is not measured.

    mmengine ends at the first validation, or warns at each. Metrics of other packages, which do not
    say what they measure, may measure anything.
    """
    names = []
    for evaluator in getattr(runner.val_loop, 'evaluators', None) or [runner.val_loop.evaluator]:
        for metric in evaluator.metrics:
            own = _result_names(metric)
            if own is None:
                return
            names += own
    wanted = [('EarlyStoppingHook.monitor', hook.monitor) for hook in runner.hooks
              if isinstance(hook, EarlyStoppingHook)]
    wanted += [(f'{scheduler["type"]}.monitor', scheduler['monitor'])
               for scheduler in _schedulers(cfg) if 'monitor' in scheduler]
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.save_best:
            wanted += [('CheckpointHook.save_best', key) for key in hook.key_indicators
                       if key != 'auto']
    expected = f'one of {", ".join(names)}' if names else 'a metric in val_evaluator'
    for name, key in wanted:
        if key not in names:
            raise InputError(f'{name}: expected {expected}, got {key!r}'
                             f'{did_you_mean(key, names)}')
