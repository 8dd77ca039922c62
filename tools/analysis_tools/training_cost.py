"""Memory and arithmetic that training and testing a config take, without a GPU or weights.

    python tools/analysis_tools/training_cost.py --out docs/training_cost
    python tools/analysis_tools/training_cost.py configs/pdn/pdn_x8_1xb4-100k_ffhq.py

Two training steps and one test image run on PyTorch's meta device: every operation says the sizes
of its results and computes none. Memory is the largest sum of tensors alive at once in float32; the
workspaces of cuDNN and the allocator's fragments come on top. Compiled mmcv ops need what their
stand-ins need. "with_cp" is the same with activation checkpointing (with_cp=True) of generator,
discriminator and perceptual loss, and the arithmetic that it adds; "MMagic" the same with MMagic's
own GLEAN and discriminator. "bf16" is the same in mixed precision (--amp, bfloat16), counted on
fake tensors with the casts of a GPU's autocast: encoder, decoder and perceptual loss gain; prior
and discriminator stay in float32, for MMagic's StyleGAN2 layers switch autocast off. Arithmetic
counts matrix products and convolutions, a multiplication with addition as two. Hours are that
divided by a rate which the reader may set (--tflops).
"""
import argparse
import copy
import json
import re
import sys
import tempfile
import weakref
from contextlib import nullcontext
from pathlib import Path

import torch
from mmagic.models.editors.stylegan2 import StyleGAN2Discriminator
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
from mmpd.engine.amp import CPUAmpOptimWrapper
from mmpd.utils.files import folder_fault
from mmpd.utils.validation import parameters_of

sys.path.insert(0, str(Path(__file__).resolve().parent))
from cuda_autocast import cuda_autocast, fake_mode, make_fake  # noqa: E402

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
            state = getattr(vgg, loss['vgg_type'])(weights=None).state_dict()
            torch.save({key: torch.zeros((), dtype=value.dtype, device='cpu').expand(value.shape)
                        for key, value in state.items()}, loss['pretrained'])
        built = MODELS.build(model)
    built.to(device)
    built.step_counter = torch.tensor(0)  # SRGAN asks for its value
    return built


def images(model, count, device):
    """What the data loader would give for ``count`` images."""
    generator = model.generator

    def image(size):
        return torch.zeros(3, size, size, device=device)

    # MMagic's GLEAN keeps the size of its output in its prior
    out_size = getattr(generator, 'out_size', None) or generator.generator.out_size
    return dict(inputs=[image(generator.in_size) for _ in range(count)],
                data_samples=[DataSample(gt_img=image(out_size)) for _ in range(count)])


def with_checkpointing(cfg):
    """A copy of a config with ``with_cp=True`` in every part of the model that knows it."""
    cfg = copy.deepcopy(cfg)
    for part in ('generator', 'discriminator', 'perceptual_loss'):
        part = cfg.model.get(part)
        if part and 'with_cp' in parameters_of(MODELS.get(part.type)):
            part.with_cp = True
    return cfg


def as_mmagic(cfg):
    """A copy of a GLEAN config with MMagic's generator and discriminator; None of another one."""
    if cfg.model.generator.type != 'GLEANNet' or cfg.model.generator.get('channels'):
        return None
    cfg = copy.deepcopy(cfg)
    cfg.model.generator.type = 'GLEANStyleGANv2'
    if cfg.model.get('discriminator'):
        cfg.model.discriminator.type = StyleGAN2Discriminator
    return cfg


def trainer(cfg, device, fake=False):
    """(model, function that does a training step) of a config.

    With ``fake`` tensors only say what they are, like those of the meta device, but that they are
    on the CPU.
    """
    model, mode = build(cfg, 'meta' if fake else device), nullcontext()
    if fake:
        mode = fake_mode()
        make_fake(model, mode, device)
        model.data_preprocessor.to(device)  # where it brings the images
    wrappers = build_optim_wrapper(model, cfg.optim_wrapper)
    model.train()

    def step():
        with mode:
            batch = images(model, cfg.train_dataloader.batch_size, device)
        model.train_step(batch, wrappers)

    return model, step


def peak(model, step):
    """Bytes of a training step, once the optimisers' state is there."""
    with PeakMemory(model) as trained:
        step()
        step()
    return trained.peak


def measure_training(cfg, device):
    """(bytes, operations) of a training step."""
    model, step = trainer(cfg, device)
    taken = peak(model, step)
    # on its own: it keeps tensors until Python's garbage collector comes by
    with FlopCounterMode(display=False) as flops:
        step()
    return taken, flops.get_total_flops()


def amp_peak(cfg, fake=True):
    """Bytes of a training step in bfloat16, with the casts of a GPU.

    Args:
        cfg (Config): Config of a GANPriorSR model.
        fake (bool): Without computing; the test suite compares with a real step.
    """
    cfg = copy.deepcopy(cfg)
    for part in ('generator', 'discriminator'):
        if part in cfg.optim_wrapper:
            cfg.optim_wrapper[part].type = CPUAmpOptimWrapper
    with cuda_autocast():
        return peak(*trainer(cfg, 'cpu', fake))


def measure(path, device='meta'):
    """Cost of one config.

    Args:
        path (str | Path | Config): Config of a GANPriorSR model.
        device (str): 'meta'; the test suite compares with 'cpu'.

    Returns:
        dict: ``batch``, ``iterations``; ``parameters`` and ``trainable`` of the generator;
        ``train_bytes`` and ``train_flop`` of one iteration, ``cp_bytes`` and ``cp_flop`` with
        activation checkpointing, ``mmagic_bytes`` of MMagic's own modules (None where it has
        none); ``test_bytes`` for one image.
    """
    cfg = path if isinstance(path, Config) else Config.fromfile(path)
    init_default_scope('mmagic')
    model = build(cfg, device)
    parameters = list(model.generator.parameters())
    found = dict(batch=cfg.train_dataloader.batch_size, iterations=cfg.train_cfg.max_iters,
                 parameters=sum(p.numel() for p in parameters),
                 trainable=sum(p.numel() for p in parameters if p.requires_grad))
    with PeakMemory(model.eval()) as tested, torch.no_grad():
        data = images(model, 1, device)
        model(torch.stack(data['inputs']), mode='tensor')
    found['test_bytes'] = tested.peak
    del model, parameters
    found['train_bytes'], found['train_flop'] = measure_training(cfg, device)
    found['cp_bytes'], found['cp_flop'] = measure_training(with_checkpointing(cfg), device)
    mmagic = as_mmagic(cfg)
    found['mmagic_bytes'] = mmagic and measure_training(mmagic, device)[0]
    return found


def measure_amp(path):
    """Memory of one config in bfloat16.

    Args:
        path (str | Path | Config): As of :func:`measure`.

    Returns:
        dict: ``amp_bytes`` of one iteration, ``amp_cp_bytes`` with activation checkpointing.
    """
    cfg = path if isinstance(path, Config) else Config.fromfile(path)
    init_default_scope('mmagic')
    return dict(amp_bytes=amp_peak(cfg), amp_cp_bytes=amp_peak(with_checkpointing(cfg)))


def same_cost(cfg):
    """A text that configs share which cost the same: they differ in data and weights alone."""
    model = cfg.model.to_dict()
    for part in ('generator', 'discriminator'):
        (model.get(part) or {}).pop('init_cfg', None)
    return repr((model, cfg.train_dataloader.batch_size, cfg.optim_wrapper.to_dict()))


def table(costs, tflops):
    """Markdown table of what :func:`measure` found, by name of the config."""
    lines = ['| config | generator (trainable) | batch | training memory | with_cp | bf16 | '
             'bf16, with_cp | MMagic | test memory | per iteration | with_cp | iterations | '
             f'hours at {tflops:g} TFLOP/s |', '| :--' + ' | --:' * 12 + ' |']

    def gigabytes(count):
        return f'{count / 1e9:.1f} GB' if count else '-'

    for name, cost in costs.items():
        hours = cost['train_flop'] * cost['iterations'] / (tflops * 1e12 * 3600)
        lines.append(
            f'| {name} | {cost["parameters"] / 1e6:.1f} M ({cost["trainable"] / 1e6:.1f} M) | '
            f'{cost["batch"]} | {gigabytes(cost["train_bytes"])} | {gigabytes(cost["cp_bytes"])} | '
            f'{gigabytes(cost["amp_bytes"])} | {gigabytes(cost["amp_cp_bytes"])} | '
            f'{gigabytes(cost["mmagic_bytes"])} | {gigabytes(cost["test_bytes"])} | '
            f'{cost["train_flop"] / 1e12:.1f} TFLOP | × '
            f'{cost["cp_flop"] / cost["train_flop"]:.2f} | {cost["iterations"]:,} | {hours:.0f} |')
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
    if not args.tflops > 0:
        parser.error(f'--tflops: expected a positive number, got {args.tflops}')
    missing = [path for path in args.configs if not Path(path).is_file()]
    if missing:
        parser.error(f'no config {", ".join(missing)}')
    stems = [Path(path).stem for path in args.configs]
    for stem in stems:
        if stems.count(stem) > 1:  # the name of its row
            parser.error(f'configs: expected different names, got {stem} twice')
    fault = args.out and folder_fault(Path(args.out).absolute().parent)
    if fault:
        parser.error(f'--out: {fault}')
    if not args.configs:
        names = [row['config'] for rows in json.loads(PAPER.read_text()).values()
                 for row in rows['rows'] if re.search(r'_\d+xb\d+', row['config'])]
        args.configs = [next((ROOT / 'configs').glob(f'*/{name}.py')) for name in names]
    return args


def main(argv=None):
    args = parse_args(argv)
    costs, known = {}, {}
    for path in args.configs:
        print(path, flush=True)
        cfg = Config.fromfile(path)
        key = same_cost(cfg)
        known[key] = known.get(key) or {**measure(cfg), **measure_amp(cfg)}
        costs[Path(path).stem] = dict(known[key], iterations=cfg.train_cfg.max_iters)
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
