"""One image goes through all of a validation or test before the run begins."""
import inspect
import math
from copy import copy

import torch
from mmagic.engine.hooks import BasicVisualizationHook
from mmagic.evaluation.metrics.base_sample_wise_metric import BaseSampleWiseMetric
from mmagic.visualization import ConcatImageVisualizer
from mmengine.hooks import Hook
from mmengine.runner.amp import autocast

from ..engine.hooks import PanelHook
from ..errors import InputError
from ..evaluation.degradation import untouched_randomness
from ..utils.model import unwrap
from ..utils.validation import (
    check_bool,
    check_choice,
    check_sequence,
    check_str,
    did_you_mean,
    optional,
    refuse,
)
from .building import refused_values
from .settings import check_writable

__all__ = ['Rehearsal']


class Rehearsal(Hook):
    """Finds out before the first iteration what the first validation would stumble over."""

    priority = 'LOWEST'  # the weights are loaded and the other hooks have begun

    def before_train(self, runner):
        """Rehearse the validation, if there is one."""
        if runner.val_loop is not None:
            _rehearse(runner, runner.val_loop, 'val')

    def before_test(self, runner):
        """Rehearse the test."""
        _rehearse(runner, runner.test_loop, 'test')


def _rehearse(runner, loop, split):
    """Have the first image go through network, metrics and pictures as in validation or test.

    What they refuse would else be found out when the first validation comes, or, as a metric that
    is NaN, when all images are done. Results are forgotten, random numbers stay as they were.

    Args:
        runner (Runner): Of mmengine.
        loop (BaseLoop): Its loop for ``split``, built.
        split (str): 'val' or 'test'.

    Raises:
        InputError: Naming metric, hook or visualizer.
    """
    loaders = getattr(loop, 'dataloaders', None) or [loop.dataloader]
    evaluators = getattr(loop, 'evaluators', None) or [loop.evaluator]
    draws = type(runner.visualizer) is ConcatImageVisualizer and any(
        isinstance(hook, BasicVisualizationHook) and getattr(hook, f'_on_{split}')
        for hook in runner.hooks)
    panels = [hook for hook in runner.hooks if isinstance(hook, PanelHook) and split in hook.modes]
    for loader, evaluator in zip(loaders, evaluators, strict=True):
        # the others make samples of their own
        metrics = [metric for metric in evaluator.metrics or ()
                   if isinstance(metric, BaseSampleWiseMetric)]
        if not (metrics or draws or panels):
            continue
        half = check_bool(getattr(loop, 'fp16', False), f'{split}_cfg.fp16')
        with untouched_randomness():
            batch = loader.collate_fn([loader.dataset[0]])
            training = runner.model.training
            runner.model.eval()
            with torch.no_grad(), autocast(enabled=half):
                sample, *_ = getattr(runner.model, f'{split}_step')(batch)
            runner.model.train(training)
            for metric in metrics:
                _rehearse_metric(copy(metric), unwrap(runner.model), loader, batch,
                                 sample.to_dict(), f'{split}_evaluator: {type(metric).__name__}')
            if draws:
                _rehearse_drawing(runner.visualizer, sample)
            for hook in panels:
                with refused_values(type(hook), 'PanelHook'):
                    hook.panel(runner, sample)
                optional(check_writable, hook.out_dir, 'PanelHook.out_dir')


def _rehearse_metric(metric, module, loader, batch, sample, name):
    metric.results = []
    output = sample.get('output', {})
    check_choice(metric.collect_device, f'{name}.collect_device', ('cpu', 'gpu', 'npu'))
    alone = type(metric).process is BaseSampleWiseMetric.process  # each image has its result
    for option, holder in (('gt_key', sample), ('pred_key', output), ('mask_key', sample)):
        if alone and getattr(metric, option) is not None:
            _check_key(getattr(metric, option), f'{name}.{option}', holder)
    arguments = inspect.signature(type(metric)).parameters.items()
    given = ', '.join(f'{key}={getattr(metric, key)!r}' for key, argument in arguments
                      if getattr(metric, key, argument.default) != argument.default
                      and isinstance(getattr(metric, key), (int, float, str)))
    name = f'{name}({given})' if given else name
    with refused_values(type(metric), name):
        metric.prepare(module, loader)
        metric.process(batch, [sample])
        found = metric.compute_metrics(metric.results) if alone else {}
    if any(value != value for value in found.values()):
        prediction = torch.as_tensor(output[metric.pred_key])
        if prediction.isfinite().all():
            refuse(name, 'a number for the first image, of '
                   f'{prediction.shape[-1]}x{prediction.shape[-2]}', math.nan)


def _rehearse_drawing(visualizer, sample):
    holder = sample.to_dict()
    holder = {**holder, **holder.get('output', {})}
    keys = check_sequence(visualizer.img_keys, 'visualizer.img_keys', check_str)
    _check_key(visualizer.fn_key, 'visualizer.fn_key', sample.all_keys())
    if not any(key in holder for key in keys):  # MMagic leaves out, with a warning, single ones
        _check_key(keys[0], 'visualizer.img_keys', holder)
    with refused_values(type(visualizer), 'visualizer'):
        ConcatImageVisualizer(  # another one, which has no backends to write with
            visualizer.fn_key, keys, visualizer.pixel_range, visualizer.bgr2rgb, 'rehearsal'
        ).add_datasample(sample)


def _check_key(key, name, holder):
    if key not in holder:
        known = sorted(map(str, holder))
        raise InputError(f'{name}: expected one of {", ".join(known)}, which the samples have, '
                         f'got {key!r}{did_you_mean(key, known)}')
