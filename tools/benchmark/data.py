"""Speed of the data path: LR synthesis beside other libraries, and the training loader.

    python tools/benchmark/data.py --out docs/benchmark_data

First table: 1024² → 128² on one thread, uint8 (H, W, 3) in and out, all interleaved in one process.
Second table: what the libraries' arithmetic makes of the same pictures, beside A x and beside PIL.
Third: the training pipeline of a config as it stands, on generated PNG files (photographs of
scikit-image, enlarged, with sensor-like noise, which compress less than FFHQ's): milliseconds per
image and stage on one core, and images per second of PyTorch's loader with worker processes. From
these follows how many workers keep a GPU busy: a training step is taken to last its arithmetic
(docs/training_cost.json) divided by a rate, which is an assumption, not measured here.
"""
import argparse
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from PIL import Image  # noqa: E402

import mmpd  # noqa: E402, F401  mends MMagic
from mmpd.datasets.preparation.images import default_resizer, square  # noqa: E402
from mmpd.datasets.resampling import downsample  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
import measuring  # noqa: E402

ROOT = measuring.ROOT
PEER = "torch's uint8 path"


def methods(image, scale):
    """name -> function without arguments, bicubic with antialias unless it says otherwise."""
    size = image.shape[1] // scale, image.shape[0] // scale
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]  # channels-last
    found = {
        PEER: lambda: F.interpolate(planes, size[::-1], mode='bicubic', antialias=True),
        'LRSynthesis, bicubic (torch_uint8)': lambda: downsample(image, scale),
        "LRSynthesis, bicubic, made_by='float'": lambda: downsample(image, scale, made_by='float'),
        "LRSynthesis, bicubic, made_by='pil'": lambda: downsample(image, scale, made_by='pil'),
        'LRSynthesis, average_pooling': lambda: downsample(image, scale, 'average_pooling'),
        'PIL BICUBIC': lambda: Image.fromarray(image).resize(size, Image.BICUBIC),
        'OpenCV INTER_AREA (averages)': lambda: cv2.resize(image, size,
                                                           interpolation=cv2.INTER_AREA)}
    try:
        from mmagic.datasets.transforms import MATLABLikeResize
    except ImportError:
        return found
    matlab = MATLABLikeResize(keys=['lq'], scale=1 / scale)
    found["MMagic's MATLABLikeResize"] = lambda: matlab(dict(lq=image, lq_path='x'))
    return found


def thread_ms(function):
    """Milliseconds of this thread's CPU time."""
    start = time.thread_time()
    function()
    return 1e3 * (time.thread_time() - start)


def measure_synthesis(args):
    """ms and ratio to torch's path by method."""
    image = np.random.default_rng(0).integers(0, 256, (args.size, args.size, 3), dtype=np.uint8)
    times = measuring.interleaved(methods(image, args.scale), args.rounds, warm_up=3,
                                  measure=thread_ms)
    return {name: dict(ms=measuring.summary(values), ratio=measuring.ratio(values, times[PEER]))
            for name, values in times.items()}


def differences(args):
    """LR values by library, against A x without rounding and against PIL's."""
    seen = {}

    def note(name, values, exact, pil):
        off, other = values - exact, np.abs(values.astype(int) - pil)
        seen.setdefault(name, []).append((
            np.square(off).mean(), np.abs(off).max(), (other > 0).mean(), other.max()))

    for picture in measuring.photographs(min(args.images, 6), args.size, args.size):
        exact = downsample(picture.astype(np.float64), args.scale, quantize=False).clip(0, 255)
        pil = downsample(picture, args.scale, made_by='pil')
        for made_by in ('torch_uint8', 'pil', 'float'):
            note(f'LR by {made_by}', downsample(picture, args.scale, made_by=made_by), exact, pil)
        pil = square(picture, args.size // 4, 'pil')
        note(f'GT resized by {default_resizer()}', square(picture, args.size // 4,
                                                          default_resizer()), pil, pil)
    return {name: dict(rms=float(np.sqrt(np.mean(rms))), largest=float(np.max(largest)),
                       other=float(np.mean(other)), most=int(np.max(most)))
            for name, (rms, largest, other, most) in (
                (name, zip(*rows, strict=True)) for name, rows in seen.items())}


def build_dataset(cfg, folder):
    """A training set, on the pictures of a folder."""
    from mmagic.registry import DATASETS
    from mmengine.registry import init_default_scope
    init_default_scope('mmagic')
    dataset = cfg.train_dataloader.dataset
    dataset.update(data_root=str(folder), ann_file='')
    dataset.data_prefix = dict(gt='')
    return DATASETS.build(dataset)


def stages(dataset, rounds):
    """CPU ms of each transform and of all of them, over the pictures."""
    times = {}
    for index in [*range(len(dataset))] * rounds:
        data = dataset.get_data_info(index)
        for transform in dataset.pipeline.transforms:
            start = time.thread_time()
            data = transform(data)
            times.setdefault(type(transform).__name__, []).append(
                1e3 * (time.thread_time() - start))
    whole = [sum(values) for values in zip(*times.values(), strict=True)]
    return {name: measuring.summary(values) for name, values in
            {**times, 'all': whole}.items()}


def loader_speed(dataset, batch, workers, seconds):
    """Images per second of PyTorch's loader, after its start."""
    from mmengine.dataset import InfiniteSampler, pseudo_collate
    loader = torch.utils.data.DataLoader(
        dataset, batch, sampler=InfiniteSampler(dataset, seed=0), num_workers=workers,
        collate_fn=pseudo_collate, persistent_workers=True)
    batches = iter(loader)
    for _ in range(2 * workers + 1):
        next(batches)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        next(batches)
        count += batch
    speed = count / (time.perf_counter() - start)
    del batches, loader
    return speed


def measure_loader(config, args):
    """CPU time of the stages, and images per second by number of workers."""
    from mmengine import Config
    cfg = Config.fromfile(config)
    size, batch = args.gt_size or cfg.model.generator.out_size, cfg.train_dataloader.batch_size
    with tempfile.TemporaryDirectory() as folder:
        for index, picture in enumerate(measuring.photographs(args.images, size, size)):
            cv2.imwrite(f'{folder}/{index:05d}.png', picture)
        dataset = build_dataset(cfg, folder)
        row = dict(batch=batch, pictures=size, stages_ms=stages(dataset, args.rounds),
                   images_per_second={})
        times = measuring.interleaved(
            {workers: (workers, ) for workers in args.workers}, args.repeats, warm_up=0,
            measure=lambda workers: loader_speed(dataset, batch, *workers, args.seconds))
    for workers, values in times.items():
        row['images_per_second'][workers] = measuring.summary(values)
    # a worker's batches have to be handed over too, which costs where images are small
    speeds = [values['median'] / workers for workers, values in row['images_per_second'].items()
              if workers == 1]
    row['per_worker'] = min([1e3 / row['stages_ms']['all']['median'], *speeds])
    return row


def workers_needed(flop, batch, per_worker, tflops, margin):
    """(step in ms, workers) for ``margin`` times the images that a step takes."""
    step = flop / (tflops * 1e12)
    return dict(tflops=tflops, step_ms=1e3 * step, images_per_second=batch / step,
                workers=math.ceil(margin * batch / step / per_worker))


def markdown(report):
    args, rows, spread = report['options'], report['synthesis'], measuring.spread
    lines = ['# Speed of the data path', '', measuring.stated(report), '',
             'Medians, in brackets the quartiles; CPU time of one thread, which hardly depends on '
             'what else the machine does.', '',
             f"## LR synthesis, {args['size']}² → {args['size'] // args['scale']}²", '',
             f"{args['rounds']} rounds, all methods in each, in random order.", '',
             f'| method | ms | × {PEER} |', '| :-- | --: | --: |']
    lines += [f"| {name} | {spread(row['ms'])} | {spread(row['ratio'])} |"
              for name, row in rows.items()]
    lines += ['', "## The libraries' pixels", '',
              '| 8-bit values | RMS off A x (in 0 … 255) | most | differ from PIL | by at most |',
              '| :-- | --: | --: | --: | --: |']
    for name, row in report['pixels'].items():
        of_a = ('–', '–') if name.startswith('GT') else (f"{row['rms']:.3f}",
                                                         f"{row['largest']:.1f}")
        lines.append(f"| {name} | {of_a[0]} | {of_a[1]} | {row['other']:.3%} | {row['most']} |")
    lines += ['', '## Training loader', '']
    for config, row in report['loader'].items():
        shown = ', '.join(f"{name} {value['median']:.1f}" for name, value in
                          row['stages_ms'].items() if name != 'all')
        lines += [f"**{config}**, batch {row['batch']}, GT {row['pictures']}²: "
                  f"{spread(row['stages_ms']['all'], 1)} ms of CPU per image ({shown}), on "
                  'one core. The loader with '
                  + ', '.join(f'{workers} workers: {spread(speed, 1)}' for workers, speed in
                              row['images_per_second'].items())
                  + f" images per second, on {report['cores']} cores that have other work too. "
                  f"Taken for a worker: {row['per_worker']:.1f} images per second.", '',
                  f"| assumed rate | step | images it takes per second | workers for "
                  f"{args['margin']:g} times as many |", '| --: | --: | --: | --: |']
        lines += [f"| {need['tflops']:g} TFLOP/s | {need['step_ms']:.0f} ms | "
                  f"{need['images_per_second']:.0f} | {need['workers']} |" for need in row['needs']]
        lines += ['', f"A step is {row['flop'] / 1e12:.1f} TFLOP ([counted](training_cost.md)).",
                  '']
    lines += ['The configs have 4 workers; `--cfg-options train_dataloader.num_workers=8` sets '
              'another number.', '', ' '.join(__doc__.split('\n\n')[2].split())]
    return '\n'.join(lines)


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--configs', nargs='*', default=['pd_glean_x8_1xb4-100k_ffhq',
                                                         'pd_glean_x8_1xb4-100k_cat'],
                        help='names of training_cost.json whose loader is measured')
    parser.add_argument('--size', type=int, default=1024, help='side of the GT in the first tables')
    parser.add_argument('--scale', type=int, default=8, help='of the LR in the first tables')
    parser.add_argument('--gt-size', type=int,
                        help="of what the loader reads; default: the config's")
    parser.add_argument('--images', type=int, default=12, help='PNG files that the loader reads')
    parser.add_argument('--rounds', type=int, default=25, help='of the first table')
    parser.add_argument('--workers', type=int, nargs='+', default=[1, 2])
    parser.add_argument('--seconds', type=float, default=6, help='per measurement of the loader')
    parser.add_argument('--repeats', type=int, default=5, help='measurements of the loader')
    parser.add_argument('--tflops', type=float, nargs='+', default=[100, 200, 400],
                        help='rates that a GPU may reach; an H100 has 989 at most, dense in bf16')
    parser.add_argument('--margin', type=float, default=4,
                        help='how many times the images that a step takes')
    parser.add_argument('--out', type=Path, help='without suffix: writes OUT.json and OUT.md')
    args = parser.parse_args(argv)
    for name in ('size', 'scale', 'images', 'rounds', 'repeats', 'workers', 'tflops', 'margin',
                 'seconds'):
        value = getattr(args, name)
        if min(value if isinstance(value, list) else [value]) <= 0:
            parser.error(f'--{name}: expected positive numbers, got {value}')
    if args.size % (4 * args.scale):
        parser.error(f'--size: expected a multiple of 4 x --scale {args.scale}, got {args.size}')
    args.costs = json.loads((ROOT / 'docs' / 'training_cost.json').read_text())
    for name in args.configs:
        if name not in args.costs:
            parser.error(f'--configs: expected names of docs/training_cost.json, got {name!r}')
    if args.out and not args.out.parent.is_dir():
        parser.error(f'--out: {args.out.parent} is no folder')
    return args


def main(argv=None):
    args = parse_args(argv)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    report = dict(measuring.environment(argv, 'tools/benchmark/data.py'), cores=os.cpu_count(),
                  options={key: getattr(args, key) for key in (
                      'size', 'scale', 'images', 'rounds', 'seconds', 'repeats', 'margin')},
                  synthesis=measure_synthesis(args), pixels=differences(args), loader={})
    for name in args.configs:
        report['loader'][name] = row = measure_loader(
            next(ROOT.glob(f'configs/*/{name}.py')), args)
        row['flop'] = args.costs[name]['train_flop']
        row['needs'] = [workers_needed(row['flop'], row['batch'], row['per_worker'],
                                       tflops, args.margin) for tflops in args.tflops]
    return measuring.publish(report, markdown(report), args.out)


if __name__ == '__main__':
    sys.exit(main())
