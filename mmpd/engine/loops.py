"""Evaluation under downsamplings that were not trained on (paper, Table 4)."""
import re
from copy import deepcopy

from mmagic.engine.runner import MultiTestLoop
from mmagic.registry import LOOPS

from mmpd.datasets.resampling import KERNELS, check_kernel

__all__ = ['CASES', 'DownsamplingTestLoop', 'parse_case', 'with_downsampling', 'with_prefix']

OWN = 'own'
DEFAULTS = dict(NIQE=dict(input_order='CHW'))  # MMagic's own default does not fit its tensors
CASES = ('bicubic(antialias)', 'bilinear(antialias)', 'box(antialias)', 'lanczos(antialias)')


def parse_case(case):
    """Split 'bicubic(alias)' into kernel and antialias; without brackets, antialias is meant.

    Raises:
        ValueError: If it is no such name or not defined.
    """
    match = re.fullmatch(r'(\w+?)(?:\((alias|antialias)\))?', str(case))
    if match is None or match[1] not in KERNELS:
        raise ValueError(f"downsampling {case!r}: expected one of {', '.join(KERNELS)}, optionally "
                         "followed by '(antialias)' or '(alias)'")
    kernel, antialias = match[1], match[2] != 'alias'
    check_kernel(1, kernel, antialias)
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
    """
    kernel, antialias = parse_case(case)
    pipeline = deepcopy(list(pipeline))
    if not any(step.get('type') == 'LoadImageFromFile' and step.get('key') == 'gt'
               for step in pipeline):
        raise ValueError("the test pipeline does not load 'gt', from which the LR is made")
    steps = [step for step in pipeline if step.get('type') == 'LRSynthesis']
    if not steps:
        if scale is None:
            raise ValueError('the test pipeline reads LR files, so the scale is not known: set '
                             'test_cfg.scale')
        pipeline = [step for step in pipeline if not (
            step.get('type') == 'LoadImageFromFile' and step.get('key') == 'img')]
        types = [step.get('type') for step in pipeline]
        at = types.index('PackInputs') if 'PackInputs' in types else len(pipeline)
        steps = [dict(type='LRSynthesis', scale=scale)]
        pipeline[at:at] = steps
    for step in steps:
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
    """
    case, extra = None if case == OWN else case, metrics
    evaluator = deepcopy(evaluator)
    evaluator = (evaluator if isinstance(evaluator, dict) and 'metrics' in evaluator
                 else dict(type='Evaluator', metrics=evaluator))
    metrics = evaluator['metrics']
    metrics = [metrics] if isinstance(metrics, dict) else list(metrics)
    metrics += [dict(type=metric, **DEFAULTS.get(metric, {})) if isinstance(metric, str) else
                dict(metric) for metric in extra]
    evaluator['metrics'] = metrics
    for metric in metrics:
        if not isinstance(metric, dict):
            raise ValueError(f'test_evaluator must be a config, got {type(metric).__name__}')
        prefix = '_'.join(filter(None, [case, metric.get('prefix')]))
        if prefix:
            metric['prefix'] = prefix
    return evaluator


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
    """

    def __init__(self, runner, dataloader, evaluator, cases=CASES, metrics=(), scale=None,
                 fp16=False):
        cases = [cases] if isinstance(cases, str) else list(cases)
        if not cases or len(set(cases)) < len(cases):
            raise ValueError(f'cases must be different downsamplings, got {cases}')
        if not isinstance(dataloader, dict):
            raise ValueError('DownsamplingTestLoop needs the config of one test_dataloader, got '
                             f'{type(dataloader).__name__}')
        dataloaders = []
        for case in cases:
            dataloaders.append(deepcopy(dataloader))
            dataset = dataloaders[-1]['dataset']
            if case != OWN:
                dataset['pipeline'] = with_downsampling(dataset.get('pipeline', []), case, scale)
        metrics = [metrics] if isinstance(metrics, (str, dict)) else metrics
        self.cases, self.case = cases, None
        super().__init__(runner, dataloaders,
                         [with_prefix(evaluator, case, metrics) for case in cases], fp16)

    def run_iter(self, idx, data_batch, metrics):
        """One batch; ``self.case`` names the downsampling for hooks."""
        self.case = self.cases[self.evaluators.index(self.evaluator)]
        super().run_iter(idx, data_batch, metrics)
