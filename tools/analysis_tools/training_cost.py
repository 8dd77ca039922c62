"""Memory and arithmetic that training and testing a config take, without a GPU or weights.

    python tools/analysis_tools/training_cost.py --out docs/training_cost
    python tools/analysis_tools/training_cost.py configs/pdn/pdn_x8_1xb4-100k_ffhq.py

Two training steps and one test image run on PyTorch's meta device: every operation says the sizes
of its results and computes none. Memory is the largest sum of tensors alive at once; the workspaces
of cuDNN and the allocator's fragments come on top, and compiled mmcv ops need less than their
stand-ins. Arithmetic counts matrix products and convolutions, a multiplication with addition as
two. Hours are that divided by a rate which the reader may set (--tflops).
"""
import argparse
import json
import re
import tempfile
import weakref
from pathlib import Path

import torch
from mmagic.registry import MODELS
from mmagic.structures import DataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import vgg

import mmpd  # noqa: F401  registers the model types

ROOT = Path(__file__).resolve().parents[2]
PAPER = Path(__file__).with_name('paper_tables.json')


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors alive; ``peak`` is the largest count so far."""

    def __init__(self, model):
        super().__init__()
        self.now = self.peak = 0
        self.alive = set()
        for tensor in (*model.parameters(), *model.buffers()):
            self._add(tensor)

    def _add(self, tensor):
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.alive:
            self.alive.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key, size):
        self.alive.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf)
        return result


def build(cfg, device):
    """The model of a config with uninitialised weights, none of which is downloaded."""
    model = cfg.model.to_dict()
    for part in ('generator', 'discriminator'):
        if model.get(part):
            model[part].pop('init_cfg', None)
    with tempfile.TemporaryDirectory() as folder, torch.device(device):
        if model.get('perceptual_loss'):
            loss = model['perceptual_loss']
            loss['pretrained'] = f'{folder}/vgg.pth'
            torch.save(getattr(vgg, loss['vgg_type'])(weights=None).state_dict(),
                       loss['pretrained'])
        built = MODELS.build(model)
    built.to(device)
    built.step_counter = torch.tensor(0)  # SRGAN asks for its value
    return built


def images(cfg, model, count, device):
    """What the data loader would give for ``count`` images."""
    generator = model.generator

    def image(size):
        return torch.zeros(3, size, size, device=device)

    return dict(inputs=[image(generator.in_size) for _ in range(count)],
                data_samples=[DataSample(gt_img=image(generator.out_size)) for _ in range(count)])


def measure(path, device='meta'):
    """Cost of one config.

    Args:
        path (str | Path | Config): Config of a GANPriorSR model.
        device (str): 'meta'; the test suite compares with 'cpu'.

    Returns:
        dict: ``batch``, ``iterations``; ``parameters`` and ``trainable`` of the generator;
        ``train_bytes`` and ``train_flop`` of one iteration; ``test_bytes`` for one image.
    """
    cfg = path if isinstance(path, Config) else Config.fromfile(path)
    init_default_scope('mmagic')
    model = build(cfg, device)
    wrappers = build_optim_wrapper(model, cfg.optim_wrapper)
    batch = cfg.train_dataloader.batch_size
    with PeakMemory(model.eval()) as tested, torch.no_grad():
        data = images(cfg, model, 1, device)
        model(torch.stack(data['inputs']), mode='tensor')
    model.train()
    with PeakMemory(model) as trained:
        for _ in range(2):  # the optimisers' state is there from the second step on
            with FlopCounterMode(display=False) as flops:
                model.train_step(images(cfg, model, batch, device), wrappers)
    parameters = list(model.generator.parameters())
    return dict(batch=batch, iterations=cfg.train_cfg.max_iters,
                parameters=sum(p.numel() for p in parameters),
                trainable=sum(p.numel() for p in parameters if p.requires_grad),
                train_bytes=trained.peak, train_flop=flops.get_total_flops(),
                test_bytes=tested.peak)


def table(costs, tflops):
    """Markdown table of what :func:`measure` found, by name of the config."""
    lines = ['| config | generator (trainable) | batch | training memory | test memory | '
             f'per iteration | iterations | hours at {tflops:g} TFLOP/s |',
             '| :-- | --: | --: | --: | --: | --: | --: | --: |']
    for name, cost in costs.items():
        hours = cost['train_flop'] * cost['iterations'] / (tflops * 1e12 * 3600)
        lines.append(
            f'| {name} | {cost["parameters"] / 1e6:.1f} M ({cost["trainable"] / 1e6:.1f} M) | '
            f'{cost["batch"]} | {cost["train_bytes"] / 1e9:.1f} GB | '
            f'{cost["test_bytes"] / 1e9:.1f} GB | {cost["train_flop"] / 1e12:.1f} TFLOP | '
            f'{cost["iterations"]:,} | {hours:.0f} |')
    return '\n'.join(lines)


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='*',
                        help='default: every trained row of the paper\'s tables')
    parser.add_argument('--tflops', type=float, default=10,
                        help='sustained 1e12 operations per second (a V100 has at most 15.7 in '
                        'float32); default: 10')
    parser.add_argument('--out', help='write OUT.md and OUT.json')
    args = parser.parse_args(argv)
    if args.tflops <= 0:
        parser.error(f'--tflops: expected a positive number, got {args.tflops}')
    missing = [path for path in args.configs if not Path(path).is_file()]
    if missing:
        parser.error(f'no config {", ".join(missing)}')
    if not args.configs:
        names = [row['config'] for rows in json.loads(PAPER.read_text()).values()
                 for row in rows['rows'] if re.search(r'_\d+xb\d+', row['config'])]
        args.configs = [next((ROOT / 'configs').glob(f'*/{name}.py')) for name in names]
    return args


def main(argv=None):
    args = parse_args(argv)
    costs = {}
    for path in args.configs:
        print(path, flush=True)
        costs[Path(path).stem] = measure(path)
    text = table(costs, args.tflops)
    print(f'\n{text}')
    if args.out:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        Path(f'{args.out}.json').write_text(json.dumps(costs, indent=2) + '\n')
        notes = __doc__.split('\n\n')[2].replace('\n', ' ')
        Path(f'{args.out}.md').write_text(
            '# What training and testing take\n\nMade by `python '
            f'tools/analysis_tools/training_cost.py --out {args.out}`, torch '
            f'{torch.__version__}.\n\n{notes}\n\n{text}\n')


if __name__ == '__main__':
    main()
