"""Evaluation under downsamplings that were not trained on (paper, Table 4); ValLoop, TestLoop."""
import inspect
import logging
import re
from copy import deepcopy

from mmagic.engine.runner import MultiTestLoop, MultiValLoop
from mmagic.evaluation.metrics.base_gen_metric import GenMetric
from mmagic.registry import LOOPS, METRICS
from mmengine.logging import print_log
from mmengine.runner import TestLoop, ValLoop

from mmpd.datasets.resampling import KERNELS, check_kernel
from mmpd.utils.validation import (
    MOST_CHANNELS,
    ArgumentError,
    check_bool,
    check_config,
    check_positive_int,
    check_sequence,
    check_str,
    did_you_mean,
    optional,
    type_name,
)

__all__ = ['CASES', 'DownsamplingTestLoop', 'parse_case', 'with_downsampling', 'with_prefix']

OWN = 'own'
FOR_SR = dict(FID='SRFID', MS_SSIM='PairedMSSSIM')  # what is meant where MMagic means another thing
DEFAULTS = dict(NIQE=dict(input_order='CHW'))  # MMagic's own default does not fit its tensors
CASES = ('bicubic(antialias)', 'bilinear(antialias)', 'box(antialias)', 'lanczos(antialias)')


def parse_case(case):
    """Split 'bicubic(alias)' into kernel and antialias; without brackets, antialias is meant.

    Raises:
        ValueError: If it is no such name or not defined.

    Example:
        >>> from mmpd.engine.loops import parse_case
        >>> parse_case('bicubic(alias)'), parse_case('lanczos')
        (('bicubic', False), ('lanczos', True))
    """
    match = re.fullmatch(r'(\w+?)(?:\((alias|antialias)\))?', str(case))
    if match is None or match[1] not in KERNELS:
        raise ArgumentError(f"cases: expected one of {', '.join(KERNELS)}, optionally followed by "
                            f"'(antialias)' or '(alias)', got {case!r}")
    kernel, antialias = match[1], match[2] != 'alias'
    try:
        check_kernel(1, kernel, antialias)
    except ValueError as error:
        raise ArgumentError(f'cases: {error}, got {case!r}') from error
    return kernel, antialias


def with_downsampling(pipeline, case, scale=None):
    """A pipeline that makes its LR with another downsampling.

    An ``LRSynthesis`` step gets the kernel; a step that loads 'img' from an LR folder is replaced
    by one, right before ``PackInputs``.

    Args:
        pipeline (list[dict]): Test pipeline.
        case (str): Like 'bilinear(antialias)'.
        scale (int, optional): Needed where the pipeline has no ``LRSynthesis``.

    Returns:
        list[dict]: The new pipeline.

    Raises:
        ValueError: If the pipeline does not load the GT or the scale is not known.

    Example:
        >>> from mmpd.engine.loops import with_downsampling
        >>> pipeline = [dict(type='LoadImageFromFile', key='gt'), dict(type='LRSynthesis', scale=8),
        ...             dict(type='PackInputs')]
        >>> with_downsampling(pipeline, 'bilinear(alias)')[1]
        {'type': 'LRSynthesis', 'scale': 8, 'kernel': 'bilinear', 'antialias': False}
    """
    kernel, antialias = parse_case(case)
    pipeline = deepcopy(list(pipeline))
    if not any(type_name(step) == 'LoadImageFromFile' and step.get('key') == 'gt'
               for step in pipeline):
        raise ValueError("the test pipeline does not load 'gt', from which the LR is made")
    steps = [step for step in pipeline if type_name(step) == 'LRSynthesis']
    if not steps:
        if scale is None:
            raise ValueError('the test pipeline reads LR files, so the scale is not known: set '
                             'test_cfg.scale')
        pipeline = [step for step in pipeline if not (
            type_name(step) == 'LoadImageFromFile' and step.get('key') == 'img')]
        types = [type_name(step) for step in pipeline]
        at = types.index('PackInputs') if 'PackInputs' in types else len(pipeline)
        steps = [dict(type='LRSynthesis', scale=scale)]
        pipeline[at:at] = steps
    for step in steps:
        operator = step.pop('operator', None)
        if operator is not None:
            step['scale'] = operator.get('scale') if isinstance(operator, dict) else operator.scale
        step.pop('made_by', None)  # of the other kernel; the library may not have this one
        step.update(kernel=kernel, antialias=antialias)
        if scale is not None:
            step['scale'] = scale
    return pipeline


def with_prefix(evaluator, case, metrics=()):
    """The evaluator's config with ``case`` as the prefix of every metric.

    Args:
        evaluator (dict | list): Evaluator or metrics.
        case (str): The prefix; 'own' adds none.
        metrics (Sequence[str | dict]): Further metrics.

    Raises:
        ValueError: If it is no config.

    Example:
        >>> from mmpd.engine.loops import with_prefix
        >>> with_prefix([dict(type='PSNR')], 'box(antialias)')
        {'type': 'Evaluator', 'metrics': [{'type': 'PSNR', 'prefix': 'box(antialias)'}]}
    """
    case, extra = None if case == OWN else case, metrics
    evaluator = deepcopy(evaluator)
    evaluator = (evaluator if isinstance(evaluator, dict) and 'metrics' in evaluator
                 else dict(type='Evaluator', metrics=evaluator))
    metrics = evaluator['metrics']
    metrics = [metrics] if isinstance(metrics, dict) else list(metrics)
    for metric in metrics:
        if not isinstance(metric, dict):
            raise ValueError(f'test_evaluator must be a config, got {type(metric).__name__}')
    evaluator['metrics'] = metrics
    for metric in extra:
        cfg = check_metric(metric)
        same = [other for other in metrics
                if (type_name(other), other.get('prefix')) == (cfg['type'], cfg.get('prefix'))]
        if not same:
            metrics.append(cfg)
        elif isinstance(metric, str):
            print_log(f'metrics: {metric} is measured already, as {dict(same[0])}', 'current')
        else:
            raise ArgumentError(f'metrics: expected a prefix for the second {cfg["type"]}, whose '
                                f'results would have the names of the first, got {dict(cfg)}')
    for metric in metrics:
        prefix = '_'.join(filter(None, [case, metric.get('prefix')]))
        if prefix:
            metric['prefix'] = prefix
    return evaluator


def check_metric(metric):
    """The config of a metric, from its config or name.

    Raises:
        ArgumentError: unknown names, and metrics of unconditional generators, which take no GT.
    """
    if isinstance(metric, str):
        metric = dict(type=metric, **DEFAULTS.get(metric, {}))
    cfg = dict(check_config(metric, 'metrics'))
    name = cfg['type']
    cls = METRICS.get(name) if isinstance(name, str) else name
    if cls is None:
        raise ArgumentError(f'metrics: expected a registered metric, got {name!r}'
                            f'{did_you_mean(name, METRICS.module_dict)}')
    near = f'; did you mean {FOR_SR[name]!r}?' if name in FOR_SR else ''
    if inspect.isclass(cls) and issubclass(cls, GenMetric):
        raise ArgumentError('metrics: expected metrics of super-resolved images, got '
                            f'{name!r}, which is for unconditional generators{near}')
    given = {key: value for key, value in cfg.items() if key not in ('type', '_scope_')}
    try:
        inspect.signature(cls).bind(**given)
    except TypeError as error:
        raise ArgumentError(f'metrics: {name}: {error}{near}') from error
    return cfg


def _of_mmagic(evaluator):
    """Whether MMagic's Evaluator is meant, which is so unless another type is named."""
    items = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    return all(isinstance(item, dict) and item.get('type') != 'mmengine.Evaluator'
               for item in items)


# In MMagic's scope an evaluator is MMagic's Evaluator, which mmengine's loops cannot run: its
# SwinIR configs name them all the same and end in a TypeError at the first validation.
@LOOPS.register_module(name='ValLoop')
def val_loop(runner, dataloader, evaluator, **kwargs):
    """MMagic's MultiValLoop, or mmengine's ValLoop for mmengine's evaluator."""
    cls = MultiValLoop if _of_mmagic(evaluator) else ValLoop
    return cls(runner, dataloader, evaluator, **kwargs)


@LOOPS.register_module(name='TestLoop')
def test_loop(runner, dataloader, evaluator, **kwargs):
    """MMagic's MultiTestLoop, or mmengine's TestLoop for mmengine's evaluator."""
    cls = MultiTestLoop if _of_mmagic(evaluator) else TestLoop
    return cls(runner, dataloader, evaluator, **kwargs)


@LOOPS.register_module()
class DownsamplingTestLoop(MultiTestLoop):
    """Test one checkpoint under several downsamplings, with one option.

    ``test_cfg = dict(type='DownsamplingTestLoop')`` in the config, or ``--cfg-options
    test_cfg.type=DownsamplingTestLoop``, evaluates the model of any config once per downsampling
    and reports each metric as ``bicubic(antialias)/PSNR`` and so on;
    ``tools/analysis_tools/make_table.py`` puts them into columns.

    The same loop switches metrics on from the command line: ``test_cfg.cases=own
    test_cfg.metrics=SRFID,PairedMSSSIM`` tests as the config says, with two metrics more.

    Args:
        runner (Runner): The runner.
        dataloader (dict): One test dataloader, whose pipeline loads the GT.
        evaluator (dict | list): Evaluator or metrics, used for each downsampling.
        cases (Sequence[str]): Downsamplings. Defaults to those of the paper's section "Unseen
            Downsamplings": bicubic, bilinear, box and Lanczos, all with antialiasing. 'own' is
            the config's own LR, whose metrics get no prefix.
        metrics (Sequence[str | dict]): Metrics besides those of the evaluator. Defaults to ().
        scale (int, optional): Scale, for pipelines that read LR files. Defaults to None.
        fp16 (bool): See ``MultiTestLoop``. Defaults to False.

    Raises:
        ValueError: For unknown or repeated cases, several dataloaders, or a pipeline without GT.

    Example:
        >>> from mmagic.registry import LOOPS
        >>> test_cfg = dict(type='DownsamplingTestLoop', cases=['own', 'bicubic(alias)'])
        >>> LOOPS.get(test_cfg['type'])  # the Runner builds it out of test_cfg of the config
        <class 'mmpd.engine.loops.DownsamplingTestLoop'>
    """

    def __init__(self, runner, dataloader, evaluator, cases=CASES, metrics=(), scale=None,
                 fp16=False):
        cases = check_sequence([cases] if isinstance(cases, str) else cases, 'cases', check_str)
        meant = {case if case == OWN else parse_case(case) for case in cases}
        if len(meant) < len(cases):
            raise ArgumentError(f'cases: expected different downsamplings, got {cases}')
        metrics = [metrics] if isinstance(metrics, (str, dict)) else metrics
        if metrics != ():
            metrics = check_sequence(metrics, 'metrics', lambda metric, _: metric)
        optional(check_positive_int, scale, 'scale', most=MOST_CHANNELS)
        check_bool(fp16, 'fp16')
        if not isinstance(dataloader, dict):
            raise ValueError('DownsamplingTestLoop needs the config of one test_dataloader, got '
                             f'{type(dataloader).__name__}')
        dataloaders = []
        for case in cases:
            dataloaders.append(deepcopy(dataloader))
            dataset = dataloaders[-1]['dataset']
            if case != OWN:
                dataset['pipeline'] = with_downsampling(dataset.get('pipeline', []), case, scale)
        if len(cases) > 1 and any(type(hook).__name__ == 'BasicVisualizationHook'
                                  for hook in getattr(runner, 'hooks', ())):
            # MMagic's visualizer has one name for an image, whatever its LR
            print_log(f'the pictures in vis_image will be those of {cases[-1]}, in place of those '
                      'of the cases before; PanelHook (--panels) keeps a folder for each',
                      'current', logging.WARNING)
        self.cases, self.case = cases, None
        super().__init__(runner, dataloaders,
                         [with_prefix(evaluator, case, metrics) for case in cases], fp16)

    def run_iter(self, idx, data_batch, metrics):
        """One batch; ``self.case`` names the downsampling for hooks."""
        self.case = self.cases[self.evaluators.index(self.evaluator)]
        super().run_iter(idx, data_batch, metrics)
