"""What a result was measured with: figures without it do not compare."""
from importlib.metadata import version

import torch

from ..utils.model import unwrap
from ..version import __version__
from .degradation import lr_source


def _model_lines(model):
    model = unwrap(model)
    head = getattr(model, 'pd_head', None)
    if head is None:
        return [f'output: {type(model).__name__}, without PD, float clipped to 0..255']
    operator = head.operator_cfg if head.operator is None else head.operator
    return [f'output: {type(model).__name__}, A = {operator}, strength {head.strength_text}, '
            f'quantize {model.quantize!r}']


def _data_line(dataset):
    source, count = lr_source(dataset), len(dataset)
    while hasattr(dataset, 'dataset'):  # RepeatDataset and the like
        dataset = dataset.dataset
    return f'data: {count} images of {getattr(dataset, "data_root", None)}, LR by {source}'


def _metric_line(metric):
    text = getattr(metric, 'protocol', None)
    if text is None:
        border = getattr(metric, 'crop_border', None)
        text = "MMagic's" + ('' if border is None else f', {border} border pixels cropped')
        if hasattr(metric, 'convert_to'):
            text += ', Y channel' if metric.convert_to == 'Y' else ', all channels'
    name = f'{metric.prefix}/' if metric.prefix else ''
    return f'{name}{type(metric).__name__}: {text}'


def protocol(runner):
    """The protocol of a test run, line by line.

    Args:
        runner (Runner): After or before testing.

    Returns:
        list[str]: Versions; output, operator and rounding; data and how the LRs were made; every
        metric with crop, colour, range and network.
    """
    loop = runner.test_loop
    lines = [f'mmpd {__version__}, mmagic {version("mmagic")}, torch {torch.__version__}']
    lines += _model_lines(runner.model)
    evaluators = getattr(loop, 'evaluators', None) or [loop.evaluator]
    dataloaders = getattr(loop, 'dataloaders', None) or [loop.dataloader]
    for evaluator, dataloader in zip(evaluators, dataloaders, strict=True):
        lines.append(_data_line(dataloader.dataset))
        lines += [_metric_line(metric) for metric in evaluator.metrics]
    return lines
