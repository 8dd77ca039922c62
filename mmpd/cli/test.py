"""Test a model: MMagic's tools/test.py, with mmpd and with plain words for wrong input."""
import argparse
import json
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..errors import InputError
from . import run_tool, settings


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description='Test a model')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint, file or URL')
    parser.add_argument('--out', help='JSON file for the metrics')
    parser.add_argument('--panels', type=int, metavar='N',
                        help='write panels of the first N images (-1: all): LR, raw prediction, '
                        'null-space part, output, GT, error maps')
    settings.add_common_arguments(parser)
    return parser.parse_args(argv)


class MetricsHook(Hook):
    """Keeps the metrics: MMagic's MultiTestLoop returns none, it only hands them to hooks."""

    metrics = None

    def after_test_epoch(self, runner, metrics=None):
        self.metrics = metrics


def check_out(out):
    """Raise UsageError unless ``--out`` can be written; make its folder."""
    if not out.endswith('.json') or Path(out).is_dir():
        raise InputError(f'--out: expected a file name that ends in .json, got {out}')
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'--out {out}: {error}') from error


def test(argv=None):
    args = parse_args(argv)
    cfg = settings.load_config(args)
    settings.check_gpu(cfg)
    settings.check_data(cfg, 'test')
    state = settings.check_checkpoint(args.checkpoint, 'checkpoint')
    if args.out:
        check_out(args.out)
    cfg.load_from, cfg.resume = args.checkpoint, False
    # whoever asks a runner for its iteration has it build the training data set
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        cfg[key] = None
    if args.panels:
        cfg.setdefault('custom_hooks', []).append(dict(type='PanelHook', max_images=args.panels))
    settings.prepare_distributed(cfg)
    runner = Runner.from_cfg(cfg)
    settings.check_matches(runner.model, state, args.checkpoint, cfg, args.allow_partial)
    print_log(f'Working directory: {cfg.work_dir}', logger='current')
    hook = MetricsHook()
    runner.register_hook(hook, 'LOWEST')
    runner.test()
    from ..evaluation.protocol import protocol  # not before wrong input was refused: it is slow
    print_log('\n  '.join(['Protocol:', *protocol(runner)]), logger='current')
    if args.out and is_main_process():
        Path(args.out).write_text(json.dumps(settings.to_plain(hook.metrics), indent=2) + '\n')
        print_log(f'Metrics are in {args.out}', logger='current')


def main(argv=None):
    """The command ``mmpd-test``."""
    return run_tool(test, argv)
