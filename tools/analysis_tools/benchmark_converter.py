"""Speed of the data set converters against plain OpenCV read-resize-write loops.

All run on the same number of processes and the same PNG files:

- plain: reads, writes the GT, resizes with INTER_CUBIC, writes the LR: the files of the converter.
- plain_lr: the same without writing the GT.
- converter: verifies, hashes and copies the GT, writes an antialiased bicubic LR.
- converter_link: the same with hard links instead of copies.
- converter_gt: GT only, as the configs need it, which make their LRs while loading.

Runs alternate; medians are reported, and the ratios of images per second.

    python tools/analysis_tools/benchmark_converter.py --images 64 --repeats 5
"""
import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')  # one process per core: no threads below them

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from mmpd.datasets.preparation import FolderSource, Recipe, prepare  # noqa: E402
from mmpd.datasets.preparation.engine import CHUNK  # noqa: E402


def make_pictures(folder, count, size):
    """Photographs of scikit-image, enlarged, with sensor-like noise: PNGs of a natural weight."""
    from skimage import data
    rng = np.random.default_rng(0)
    photos = [data.astronaut(), data.coffee(), data.chelsea()]
    for index in range(count):
        photo = cv2.resize(photos[index % len(photos)], (size, size), interpolation=cv2.INTER_CUBIC)
        noisy = photo + rng.normal(0, 2, photo.shape)
        cv2.imwrite(str(folder / f'{index:05d}.png'), noisy.clip(0, 255).astype(np.uint8))


def plain_chunk(paths, out, scale, write_gt):
    """Read, resize, write."""
    cv2.setNumThreads(0)
    for path in paths:
        image = cv2.imread(path)
        if write_gt:
            cv2.imwrite(f'{out}/GT/{os.path.basename(path)}', image)
        small = cv2.resize(image, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(f'{out}/{os.path.basename(path)}', small)


def run_plain(paths, out, scale, workers, write_gt):
    """The plain loop on processes."""
    (out / 'GT').mkdir(parents=True)
    context = multiprocessing.get_context('fork' if 'fork' in
                                          multiprocessing.get_all_start_methods() else None)
    with ProcessPoolExecutor(workers, context) as executor:
        chunks = [paths[start:start + CHUNK] for start in range(0, len(paths), CHUNK)]
        futures = [executor.submit(plain_chunk, chunk, out, scale, write_gt) for chunk in chunks]
        for future in futures:
            future.result()


def measure(source, scale, workers, repeats, work):
    """Seconds of every run, by name."""
    paths = sorted(map(str, source.glob('*.png')))
    size = cv2.imread(paths[0]).shape[0]
    source = FolderSource(source)

    def ours(**options):
        recipe = Recipe(size, **options)
        return lambda out: prepare(source, out, recipe, workers, progress=False)

    runs = dict(
        plain=lambda out: run_plain(paths, out, scale, workers, True),
        plain_lr=lambda out: run_plain(paths, out, scale, workers, False),
        converter=ours(scales=[scale]), converter_link=ours(scales=[scale], link=True),
        converter_gt=ours())
    seconds = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, function in runs.items():
            out = work / f'{name}{repeat}'
            start = time.perf_counter()
            function(out)
            if repeat:  # the first round warms the file cache
                seconds[name].append(time.perf_counter() - start)
            shutil.rmtree(out)
    return seconds, len(paths)


def main(argv=None):
    """Measure and print; returns the result."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--source', type=Path, help='folder of PNG files (default: generated)')
    parser.add_argument('--images', type=int, default=64, help='how many to generate')
    parser.add_argument('--size', type=int, default=1024, help='side of the generated ones')
    parser.add_argument('--scale', type=int, default=8)
    parser.add_argument('--workers', type=int, default=os.cpu_count())
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--work-dir', help='folder for temporary files')
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=args.work_dir) as work:
        source = args.source
        if source is None:
            source = Path(work) / 'source'
            source.mkdir()
            make_pictures(source, args.images, args.size)
        elif not any(source.glob('*.png')):
            parser.error(f'no PNG files in {source}')
        seconds, count = measure(source, args.scale, args.workers, args.repeats, Path(work))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    result = dict(images=count, workers=args.workers, scale=args.scale, repeats=args.repeats,
                  images_per_second={name: count / value for name, value in median.items()},
                  ratio={f'{name} : {plain}': median[plain] / median[name]
                         for name in median for plain in ('plain', 'plain_lr')
                         if name.startswith('converter')},
                  seconds=seconds)
    print(json.dumps(result, indent=1))
    return result


if __name__ == '__main__':
    main()
    sys.exit(0)
