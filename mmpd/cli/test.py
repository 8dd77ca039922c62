"""Test a model: MMagic's tools/test.py, with mmpd and with plain words for wrong input."""
import argparse
import json
import logging
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..errors import InputError
from ..utils.files import replaced
from ..utils.images import find_pictures, read_8bit
from ..utils.model import unwrap
from ..utils.validation import type_name
from . import run_checks, run_tool, settings, text_argument, weights
from .building import config_errors
from .kinds import check_kinds
from .rehearsal import Rehearsal


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description='Test a model')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint, file or URL')
    parser.add_argument('--out', type=text_argument, help='JSON file for the metrics')
    parser.add_argument('--panels', type=int, metavar='N',
                        help='write panels of the first N images (-1: all): LR, raw prediction, '
                        'null-space part, output, GT, error maps')
    parser.add_argument('--lr', metavar='FOLDER', type=text_argument,
                        help='test on these LR images, without GT: consistency only '
                             '(mmpd-infer writes the pictures)')
    settings.add_common_arguments(parser)
    return parser.parse_args(argv)


class MetricsHook(Hook):
    """Keeps the metrics: MMagic's MultiTestLoop returns none, it only hands them to hooks."""

    metrics = None

    def after_test_epoch(self, runner, metrics=None):
        self.metrics = metrics


def check_out(out):
    """Raise InputError unless ``--out`` can be written; make its folder."""
    if not out.endswith('.json') or Path(out).is_dir():
        raise InputError(f'--out: expected a file name that ends in .json, got {out}')
    settings.check_writable(Path(out).parent, '--out')


def use_lr_only(cfg, folder):
    """Test on a folder of LR images: no GT, no metric but consistency, no strips of pictures."""
    if not Path(folder).is_dir():
        raise InputError(f'--lr {folder}: expected a folder')
    in_size = cfg.model.generator.get('in_size')
    try:
        pictures = [path for path, _ in find_pictures(folder)[0]]
        for path in pictures:
            height, width = read_8bit(path).shape[:2]  # MMagic's loader would convert the others
            if in_size is not None and (width, height) != (in_size, in_size):
                raise ValueError(f'{path}: {width}x{height}, but this config takes '
                                 f'{in_size}x{in_size} only')
    except ValueError as error:
        raise InputError(f'--lr {error}') from None
    cfg.test_dataloader = dict(
        num_workers=0, batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='BasicImageDataset', metainfo=dict(dataset_type='lr', task_name='sisr'),
            data_root=folder, data_prefix=dict(img=''),
            img_suffix=tuple(sorted({path.suffix for path in pictures})), pipeline=[
                dict(type='LoadImageFromFile', key='img', color_type='color', channel_order='rgb'),
                dict(type='PackInputs')]))
    head = cfg.model.get('pd_head') or {}
    cfg.test_evaluator = [dict(type='LRConsistency', operator=head.get('operator'))]
    cfg.test_cfg = dict(type='MultiTestLoop')
    cfg.model.data_preprocessor.data_keys = []  # there is no GT to look for
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks') or []
                        if type_name(hook) != 'BasicVisualizationHook']


def test(argv=None):
    args = parse_args(argv)
    cfg = settings.load_config(args)
    settings.check_parts(cfg, args.config, 'model')
    if args.lr:
        use_lr_only(cfg, args.lr)
    settings.check_parts(cfg, args.config, 'test_dataloader', 'test_cfg', 'test_evaluator')
    settings.check_gpu(cfg)
    settings.check_data(cfg, 'test')
    check_kinds(cfg)
    state = weights.check_checkpoint(args.checkpoint, 'checkpoint')
    if args.out:
        check_out(args.out)
    cfg.load_from, cfg.resume = args.checkpoint, False
    # whoever asks a runner for its iteration has it build the training data set
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        cfg[key] = None
    if args.panels:
        cfg.setdefault('custom_hooks', []).append(dict(type='PanelHook', max_images=args.panels))
    settings.prepare_distributed(cfg)
    added = settings.add_consistency(cfg, 'test')
    with config_errors(args.config):
        runner = Runner.from_cfg(cfg)
        run_checks.check_preprocessor(unwrap(runner.model))
        run_checks.check_end(runner.test_loop, 'test')
        run_checks.check_pairs(runner.test_loop, 'test')
        run_checks.check_metric_names(runner.test_loop, 'test')
    weights.check_matches(runner.model, state, args.checkpoint, cfg, args.allow_partial)
    print_log(f'Working directory: {cfg.work_dir}', logger='current')
    for line in replaced(args.out):
        print_log(line, 'current', logging.WARNING)
    if added:
        print_log(added, logger='current')
    hook = MetricsHook()
    runner.register_hook(hook, 'LOWEST')
    runner.register_hook(Rehearsal())
    runner.test()
    from ..evaluation.protocol import protocol  # not before wrong input was refused: it is slow
    print_log('\n  '.join(['Protocol:', *protocol(runner)]), logger='current')
    if args.out and is_main_process():
        Path(args.out).write_text(json.dumps(settings.to_plain(hook.metrics), indent=2) + '\n')
        print_log(f'Metrics are in {args.out}', logger='current')


def main(argv=None):
    """The command ``mmpd-test``."""
    return run_tool(test, argv)
