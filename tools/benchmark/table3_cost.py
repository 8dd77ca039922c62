"""What one 1024 x 1024 image costs each system of the paper's Table 3 on a CPU, and its training.

    python tools/benchmark/table3_cost.py --out docs/table3_cost

Random weights, one LR of 64 x 64; memory is counted in a first run, time taken in a second. Time is
processor time summed over the threads, which other processes disturb less than the clock; compare
the ratios. Memory is the largest sum of tensors alive at once, weights included. Of PULSE two steps
are run; the time is theirs times fifty. Training memory and arithmetic are counted on the meta
device for GLEAN's losses, discriminator and batch of 4 with the system's generator in place of
GLEAN's: the cost of training it as the paper trains Panini and GLEAN, not of the training its
authors did. PULSE has none.
"""
import argparse
import importlib.util
import json
import sys
import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmpd.cli import run_tool
from mmpd.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ('pulse/pulse_100steps_x16_celeba-hq', 'psp/psp_ir-se50_x16_celeba-hq',
           'gfpgan/gfpgan_clean_x16_celeba-hq', 'gfpgan/gfpgan_v1_x16_celeba-hq',
           'gpen/gpen_bfr-512_x16_celeba-hq', 'gpen/gpen_bfr-1024_x16_celeba-hq',
           'glean/glean_x16_1xb4-300k_ffhq')
TRAINED_LIKE = 'configs/glean/glean_x16_1xb4-300k_ffhq.py'
STEPS = 2


def costs_tool():
    """tools/analysis_tools/training_cost.py as a module."""
    path = ROOT / 'tools/analysis_tools/training_cost.py'
    spec = importlib.util.spec_from_file_location('training_cost', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measure_image(cfg, costs):
    """Processor time and memory of one image.

    Args:
        cfg (Config): Of the system.
        costs (module): See :func:`costs_tool`.

    Returns:
        dict: ``parameters`` of the generator, ``test_bytes``, ``seconds`` per image, ``steps``
        of the search, None if there is none.
    """
    steps = cfg.model.generator.get('steps')
    if steps:
        cfg.model.generator.steps = min(STEPS, steps)
    for part in ('discriminator', 'perceptual_loss', 'gan_loss'):
        cfg.model.pop(part, None)
    model = costs.build(cfg, 'cpu').eval()
    lr = torch.stack(costs.images(model, 1, 'cpu')['inputs'])
    with torch.no_grad():
        with costs.PeakMemory(model) as tested:
            model(lr, mode='tensor')
        begin = time.process_time()
        model(lr, mode='tensor')
        seconds = time.process_time() - begin
    if steps:
        seconds *= steps / cfg.model.generator.steps
    return dict(parameters=sum(p.numel() for p in model.generator.parameters()),
                test_bytes=tested.peak, seconds=seconds, steps=steps)


def measure_training(cfg, costs):
    """What :func:`training_cost.measure` says of the generator, trained like GLEAN; None if not."""
    if cfg.model.generator.get('steps'):
        return None
    like = Config.fromfile(ROOT / TRAINED_LIKE)
    like.model.generator = cfg.model.generator
    cost = costs.measure(like)
    return {key: cost[key] for key in ('batch', 'trainable', 'train_bytes', 'train_flop')}


def table(results):
    """Markdown table; time as multiples of GLEAN's too."""
    unit = results.get('glean_x16_1xb4-300k_ffhq', next(iter(results.values())))['seconds']
    lines = ['| config | generator | test memory | processor time per image | against GLEAN | '
             'training memory | per iteration |', '| :-- | --: | --: | --: | --: | --: | --: |']
    for name, cost in results.items():
        training = cost['training']
        cells = ['-', '-'] if training is None else [
            f'{training["train_bytes"] / 1e9:.1f} GB', f'{training["train_flop"] / 1e12:.1f} TFLOP']
        lines.append(
            f'| {name} | {cost["parameters"] / 1e6:.1f} M | {cost["test_bytes"] / 1e9:.2f} GB | '
            f'{cost["seconds"]:.1f} s | {cost["seconds"] / unit:.2f} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def run(argv=None):
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='*', help='default: those of the table')
    parser.add_argument('--out', help='write OUT.md and OUT.json')
    args = parser.parse_args(argv)
    paths = [Path(path) for path in args.configs] or [
        ROOT / 'configs' / f'{name}.py' for name in CONFIGS]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise InputError(f'no config {", ".join(missing)}')
    if args.out and not Path(args.out).parent.is_dir():
        raise InputError(f'--out: no folder {Path(args.out).parent}')
    init_default_scope('mmagic')
    costs, results = costs_tool(), {}
    for path in paths:
        print(path, flush=True)
        results[path.stem] = measure_image(Config.fromfile(path), costs)
        results[path.stem]['training'] = measure_training(Config.fromfile(path), costs)
    text = table(results)
    print(f'\n{text}')
    if args.out:
        Path(f'{args.out}.json').write_text(json.dumps(results, indent=2) + '\n')
        notes = __doc__.split('\n\n')[2].replace('\n', ' ')
        Path(f'{args.out}.md').write_text(
            f'# What the systems of Table 3 take\n\nMade by `python tools/benchmark/table3_cost.py '
            f'--out {args.out}`, torch {torch.__version__}, {torch.get_num_threads()} threads.\n\n'
            f'{notes}\n\n{text}\n')


def main(argv=None):
    return run_tool(run, argv)


if __name__ == '__main__':
    sys.exit(main())
