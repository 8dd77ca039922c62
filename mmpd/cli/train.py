"""Train a model: MMagic's tools/train.py, with mmpd and with plain words for wrong input."""
import argparse
import logging

from mmengine.logging import print_log
from mmengine.runner import Runner

from ..errors import InputError
from ..evaluation.degradation import tell_difference
from ..utils.model import unwrap
from ..utils.run_folder import resumable
from ..utils.validation import type_name
from . import run_checks, run_tool, settings, text_argument, weights
from .building import config_errors
from .kinds import check_kinds
from .rehearsal import Rehearsal


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description='Train a model')
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--resume', nargs='?', const='auto', metavar='CHECKPOINT', type=text_argument,
        help='go on from CHECKPOINT, or from the last one in the work directory')
    parser.add_argument('--amp', action='store_true',
                        help='automatic mixed precision (bfloat16 on a CPU)')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate with the batch size')
    settings.add_common_arguments(parser)
    return parser.parse_args(argv)


def enable_amp(cfg):
    """Turn every OptimWrapper of the config into an AmpOptimWrapper."""
    wrapper = cfg.optim_wrapper
    parts = [wrapper] if 'optimizer' in wrapper else [
        item for item in wrapper.values() if isinstance(item, dict) and 'optimizer' in item]
    for part in parts:
        kind = type_name(part)
        if kind not in (None, 'OptimWrapper', 'AmpOptimWrapper'):
            raise InputError(f'--amp works with OptimWrapper only, the config has {kind}')
        part.type = 'AmpOptimWrapper'
        part.setdefault('loss_scale', 'dynamic')


def enable_auto_scale_lr(cfg):
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise InputError('--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the '
                         'config')
    cfg.auto_scale_lr.enable = True


def resume(cfg, checkpoint):
    """Go on from ``checkpoint``, or ('auto') from the last sound one; anew where there is none.

    A checkpoint named by the user has to be sound itself. mmengine would take ``load_from`` of the
    config for the run to resume.

    Returns:
        tuple[dict | None, str | None]: The state dict of the checkpoint, see
        :func:`check_checkpoint`; and what to tell the user, once there is a log.
    """
    if checkpoint != 'auto':
        state = weights.check_checkpoint(checkpoint, '--resume', resume=True)
        cfg.resume, cfg.load_from = True, checkpoint
        return state, None
    state, first = None, None
    for checkpoint in resumable(cfg.work_dir):
        try:
            state = weights.check_checkpoint(
                checkpoint, f'last of {cfg.work_dir}', resume=True)
            break
        except InputError as error:
            first = first or error
    if state is None and first is not None:
        raise first
    if state is None:
        print_log(f'Nothing to resume in {cfg.work_dir}: the run starts anew.', logger='current')
        return None, None
    cfg.resume, cfg.load_from = True, checkpoint
    return state, first and f'{first}. The run goes on from {checkpoint} instead.'


def train(argv=None):
    args = parse_args(argv)
    cfg = settings.load_config(args)
    settings.check_parts(cfg, args.config, 'train_dataloader', 'train_cfg', 'optim_wrapper')
    settings.check_gpu(cfg, args.amp)
    settings.check_data(cfg, 'train', *(['val'] if cfg.get('val_cfg') is not None else []))
    check_kinds(cfg)
    if args.amp:
        enable_amp(cfg)
    if args.auto_scale_lr:
        enable_auto_scale_lr(cfg)
    state, fallen_back = None, None
    if args.resume or cfg.get('resume') and not cfg.get('load_from'):
        state, fallen_back = resume(cfg, args.resume or 'auto')
    if cfg.get('load_from') and state is None:
        state = weights.check_checkpoint(cfg.load_from, 'load_from', bool(cfg.get('resume')))
    settings.prepare_distributed(cfg)
    settings.add_nan_hook(cfg)
    added = settings.add_consistency(cfg, 'val')
    with config_errors(args.config):
        runner = Runner.from_cfg(cfg)
        print_log(f'Working directory: {cfg.work_dir}', logger='current')
        if fallen_back:
            print_log(fallen_back, logger='current', level=logging.WARNING)
        if added:
            print_log(added, logger='current')
        if state is not None:
            weights.check_matches(runner.model, state, cfg.load_from, cfg, args.allow_partial,
                                   training=True)
        run_checks.check_preprocessor(unwrap(runner.model))
        run_checks.check_hooks(runner)
        settings.check_optimizers(cfg)
        # what training would build in the same order, so that nothing is found out after the start
        run_checks.check_loop(runner, cfg)
        for line in run_checks.unused_factors(unwrap(runner.model), cfg):
            print_log(line, logger='current', level=logging.WARNING)
        run_checks.check_end(runner.train_loop, 'train')
        run_checks.check_pairs(runner.train_loop, 'train')
        tell_difference(runner.model, runner.train_loop.dataloader.dataset, 'train_dataloader')
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        if runner.val_loop is not None:
            run_checks.check_end(runner.val_loop, 'val')
            run_checks.check_pairs(runner.val_loop, 'val')
            run_checks.check_metric_names(runner.val_loop, 'val')
            run_checks.check_best(runner, cfg)
        runner.register_hook(Rehearsal())
        runner.train()
    print_log(f'Checkpoints and logs are in {cfg.work_dir}', logger='current')


def main(argv=None):
    """The command ``mmpd-train``."""
    return run_tool(train, argv)
