"""Measurements on what the tools left behind; each returns plain figures for a JSON file."""
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

from mmpd.evaluation.functional import frechet_distance
from mmpd.evaluation.metrics.fid import statistics
from mmpd.utils.images import read_8bit, saved_images

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 200  # for a Fréchet distance
BLOCK = 8


class RandomVGG(torch.nn.Module):
    """Features for a Fréchet distance without downloads: VGG11 of random weights, 64 features.

    After the random embedding (R64) of Naeem et al., ICML 2020.  Convolutions as torchvision
    initialises them, with seed 0, means over the image, a random projection.  Distances compare
    with each other, not with published FIDs.
    """

    def __init__(self):
        super().__init__()
        from torchvision.models import vgg11
        with torch.random.fork_rng():
            torch.manual_seed(0)
            with torch.device('meta'):
                layers = vgg11(weights=None, init_weights=False).features
            self.layers = layers.to_empty(device='cpu').eval()
            for layer in self.layers:
                if isinstance(layer, torch.nn.Conv2d):
                    torch.nn.init.kaiming_normal_(layer.weight, mode='fan_out',
                                                  nonlinearity='relu')
                    torch.nn.init.zeros_(layer.bias)
            self.register_buffer('projection', torch.randn(512, 64) / 512**0.5)

    @torch.no_grad()
    def forward(self, images):
        """(N, 3, H, W) in 0..255 -> (N, 64)."""
        return self.layers(images / 127.5 - 1).mean((2, 3)) @ self.projection


def features(images, network):
    """Of uint8 images (H, W, 3), in batches of 16."""
    found = []
    for start in range(0, len(images), 16):
        batch = torch.from_numpy(np.stack(images[start:start + 16])).permute(0, 3, 1, 2).float()
        found.append(network(batch).numpy())
    return np.concatenate(found)


def faces(data, split, size, count):
    """The first images of a split, pooled as the configs do, stem -> uint8 (size, size, 3)."""
    found = {}
    for path in sorted((Path(data) / split).glob('*.jpg'))[:count]:
        image = read_8bit(path)
        found[path.stem] = image if len(image) == size else cv2.resize(
            image, (size, size), interpolation=cv2.INTER_AREA)
    return found


def predictions(folder):
    """stem -> uint8 image that a test saved."""
    return {stem: read_8bit(path) for stem, path in saved_images(folder).items()}


def distance(images, reference, network):
    return float(frechet_distance(*statistics(features(list(images), network)), *reference))


def prior(config, checkpoint, data, size, out):
    """Samples of the averaged generator, their distance from the validation faces."""
    from mmagic.registry import MODELS
    from mmengine.config import Config
    from PIL import Image

    from mmpd.utils.checkpoint import load_completely
    generator = MODELS.build(Config.fromfile(config).model.generator).eval()
    load_completely(generator, checkpoint, 'generator_ema')
    torch.manual_seed(0)
    samples = []
    with torch.no_grad():
        for _ in range(0, IMAGES, 16):
            batch = generator(torch.randn(16, generator.noise_size))
            batch = (batch * 127.5 + 127.5).round().clamp(0, 255).byte()
            samples += list(batch.permute(0, 2, 3, 1).numpy())
    samples = samples[:IMAGES]
    grid = np.concatenate([np.concatenate(samples[8 * row:8 * row + 8], 1) for row in range(8)])
    Image.fromarray(grid).save(Path(out) / 'samples.png')
    network, size = RandomVGG(), int(size)
    val = list(faces(data, 'val', size, IMAGES).values())
    reference = statistics(features(val, network))
    return dict(samples=IMAGES, FID_R64=distance(samples, reference, network),
                FID_R64_training_faces=distance(
                    faces(data, 'train', size, IMAGES).values(), reference, network),
                pixel_std=float(np.std(np.stack(samples), 0).mean()),
                pixel_std_of_faces=float(np.std(np.stack(val), 0).mean()))


def fid(data, size, scale, *runs):
    """Distances of the saved outputs of tests from the GT, and of the LR enlarged without network.

    Replicating the LR is A† of average pooling: what PD gives a network that gives nothing.
    """
    from mmpd.datasets.resampling import downsample
    network, size, scale = RandomVGG(), int(size), int(scale)
    gt = faces(data, 'val', size, IMAGES)
    reference = statistics(features(list(gt.values()), network))
    found = {}
    for name, kernel in (('bicubic', cv2.INTER_CUBIC), ('replicated', cv2.INTER_NEAREST)):
        enlarged = [cv2.resize(downsample(image, scale, 'bicubic', True), (size, size),
                               interpolation=kernel) for image in gt.values()]
        found[name] = distance(enlarged, reference, network)
        mse = [np.mean((a.astype(float) - b)**2)
               for a, b in zip(enlarged, gt.values(), strict=True)]
        found[f'{name}_PSNR'] = float(np.mean(10 * np.log10(255**2 / np.array(mse))))
    for run in runs:
        name, _, folder = run.partition('=')
        images = predictions(folder)
        images = {stem: images[stem] for stem in gt}
        found[name] = distance(images.values(), reference, network)
    return found


def block_energy(images):
    """Squared differences across the borders of blocks, relative to those elsewhere.

    Args:
        images (Iterable[ndarray]): uint8 (H, W, 3), blocks of ``BLOCK`` pixels from the corner on.

    Returns:
        float: about 1 without blocks; more, the more their borders show.
    """
    at, elsewhere = [], []
    for image in images:
        for axis in (0, 1):
            steps = np.diff(image.astype(np.float64), axis=axis)**2
            steps = steps.mean((1 - axis, 2))
            border = np.arange(1, len(steps) + 1) % BLOCK == 0
            at.append(steps[border].mean())
            elsewhere.append(steps[~border].mean())
    return float(np.mean(at) / np.mean(elsewhere))


def blocks(data, size, *runs):
    """:func:`block_energy` of tests, and of the GT of the same faces."""
    found = {}
    for run in runs:
        name, _, folder = run.partition('=')
        images = predictions(folder)
        found[name] = block_energy(images.values())
    gt = faces(data, 'val', int(size), None)
    found['GT'] = block_energy([gt[stem] for stem in images])
    return found


def load_tool(name):
    """A script of tools/analysis_tools as a module."""
    import importlib.util
    spec = importlib.util.spec_from_file_location(name, ROOT / f'tools/analysis_tools/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reached(baseline, curve, iteration):
    """When a curve is where another one is at an iteration.

    Args:
        baseline (dict[int, float]): iteration -> PSNR.
        curve (dict[int, float]): likewise.
        iteration (int): of the baseline; the last figure up to it counts.

    Returns:
        dict: the baseline's ``figure`` there, ``at``, the first iteration at which the curve has
        it, ``times`` fewer (None if it never has it), ``first``: whether that is the curve's first
        point, so that the true ratio may be larger.
    """
    known = [step for step in sorted(baseline) if step <= iteration]
    known = known[-1] if known else min(baseline)
    found = [step for step in sorted(curve) if curve[step] >= baseline[known]]
    at = found[0] if found else None
    return dict(figure=baseline[known], iteration=known, at=at, times=at and known / at,
                first=at == min(curve))


def convergence(iters, base, pd, base_label, pd_label, picture):
    """Fig. 3 of a pair: PSNR at 10, 50 and 100 % of the baseline's budget, and the plot."""
    plot, iters = load_tool('plot_convergence'), int(iters)
    curves = [plot.read_log(folder)['PSNR'] for folder in (base, pd)]
    if plot.main(['--run', f'{base_label}={base}', '--run', f'{pd_label}={pd}', '--metrics',
                  'PSNR', '--out', picture]):
        raise ValueError('plot_convergence.py failed')
    return dict(curves=[{str(step): value for step, value in curve.items()} for curve in curves],
                **{str(percent): reached(*curves, iters * percent // 100)
                   for percent in (10, 50, 100)})


def stability(*runs):
    """Of trainings: how far the validation PSNR fell below its best so far, and the last one."""
    read_log, found = load_tool('plot_convergence').read_log, {}
    for run in runs:
        name, _, folder = run.partition('=')
        curve = [value for _, value in sorted(read_log(folder)['PSNR'].items())]
        found[name] = dict(last=curve[-1], drop=float(
            np.max(np.maximum.accumulate(curve) - curve)))
    return found


def diversity(*folders):
    """Standard deviation between draws, in grey levels: of pixels, and of what PD fixes."""
    draws = [predictions(folder) for folder in folders]
    stacks = np.stack([np.stack([draw[stem] for stem in draws[0]]) for draw in draws]).astype(float)
    pooled = stacks.reshape(*stacks.shape[:2], stacks.shape[2] // BLOCK, BLOCK,
                            stacks.shape[3] // BLOCK, BLOCK, 3).mean((3, 5))
    return dict(draws=len(draws), images=stacks.shape[1], pixel_std=float(stacks.std(0).mean()),
                pooled_std=float(pooled.std(0).mean()))


def figures(out, *tests):
    """Pictures of the astronaut: Figs. 4, 6, 9 and 10 in small."""
    from PIL import Image

    from mmpd.visualization.panels import comparison_panel, stack_panels
    from reduced.plan import LABELS
    out, shown = Path(out), {}
    for name in tests:
        images = predictions(out / 'tests' / name)
        shown[name] = next(iter(images.values()))
        panels = sorted((out / 'tests' / name).glob('**/panels/test/*.png'))
        target = out / 'figures' / f'panel_{name.removeprefix("astronaut_")}.png'
        target.write_bytes(panels[-1].read_bytes())
    from mmpd.datasets.resampling import downsample
    size = len(next(iter(shown.values())))
    gt = read_8bit(out / 'astronaut/GT/astronaut.png')
    gt = gt if len(gt) == size else cv2.resize(gt, (size, size), interpolation=cv2.INTER_AREA)
    lr = downsample(gt, 8, 'bicubic', True)

    def pool(image):
        height, width = (side // 8 for side in image.shape[:2])
        return image.astype(np.float64).reshape(height, 8, width, 8, 3).mean((1, 3))

    for when in ('end', 'half'):
        columns = {LABELS[name.split('_', 1)[1].rsplit('_', 1)[0]]: image
                   for name, image in shown.items() if name.endswith(when)}
        panel = comparison_panel({'LR': lr, **columns}, gt=gt, gain=5, degrade=pool)
        Image.fromarray(stack_panels([panel])).save(out / 'figures' / f'compare_{when}.png')
    return dict(pictures=sorted(path.name for path in (out / 'figures').glob('*.png')))


def main(argv=None):
    """``measure.py FUNCTION RESULT.json ARGUMENT ...``"""
    import json

    from mmpd.utils.files import write_atomically
    function, target, *arguments = sys.argv[1:] if argv is None else argv
    result = globals()[function](*arguments)
    write_atomically(target, (json.dumps(result, indent=1) + '\n').encode())


if __name__ == '__main__':
    sys.path.insert(0, str(ROOT / 'tools'))
    main()
