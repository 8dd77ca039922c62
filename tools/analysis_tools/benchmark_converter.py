"""Speed of the data set converters against bare OpenCV loops, in every mode.

    python tools/analysis_tools/benchmark_converter.py --out docs/benchmark_converter

The loop reads an image, crops it to the central square, resizes the GT with INTER_AREA where it is
larger than wanted, writes it, resizes it to the LR with INTER_AREA, and writes that: no checksums,
no whole-or-nothing files, no list of what is done, no hashes. Both run on the same number of
processes and the same pictures, interleaved in a new random order in every round; removing what
they made is not counted. Pictures are photographs of scikit-image, enlarged, with sensor-like
noise; LSUN's an LMDB of WebP files of 256 x 341.
"""
import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')  # one process per core: no threads below them

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from mmpd.datasets.preparation import FolderSource, LMDBSource, Recipe, prepare  # noqa: E402
from mmpd.datasets.preparation.engine import CHUNK  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'benchmark'))
import measuring  # noqa: E402

# name -> source, GT side relative to the source's, options of the recipe, whether the loop writes
# GTs and LRs
MODES = {
    'GT': ('png', 1, dict(), True, False),
    'GT and LR': ('png', 1, dict(lr=True), True, True),
    'GT linked, and LR': ('png', 1, dict(lr=True, link=True), True, True),
    'LR only': ('png', 1, dict(lr=True, gt=False), False, True),
    'resized GT': ('png', 4, dict(), True, False),
    'resized GT and LR': ('png', 4, dict(lr=True), True, True),
    'GT and LR of JPEG files': ('jpg', 1, dict(lr=True), True, True),
    'LSUN, GT': ('lmdb', 4, dict(), True, False),
    'LSUN, GT and LR': ('lmdb', 4, dict(lr=True), True, True),
}
# what the converter does beyond, against a loop that leaves it out
SMALL = 8  # so many times more pictures in the LMDB, which take less time each
STRICTER = {'GT and LR': 'LR only', 'GT linked, and LR': 'LR only'}


def make_sources(folder, count, size):
    """'png', 'jpg' -> folder; 'lmdb' -> LMDB."""
    import lmdb
    sources = {kind: folder / kind for kind in ('png', 'jpg', 'lmdb')}
    for path in sources.values():
        path.mkdir()
    for index, image in enumerate(measuring.photographs(count, size, size)):
        cv2.imwrite(f'{sources["png"]}/{index:05d}.png', image)
        cv2.imwrite(f'{sources["jpg"]}/{index:05d}.jpg', image)
    with lmdb.open(str(sources['lmdb']), map_size=1 << 32) as database, \
            database.begin(write=True) as transaction:
        for index, image in enumerate(measuring.photographs(SMALL * count, size // 3, size // 4)):
            transaction.put(f'{index:05d}'.encode(), cv2.imencode(
                '.webp', image, [cv2.IMWRITE_WEBP_QUALITY, 90])[1].tobytes())
    return sources


def read(source, names):
    """(name, image) of each, as OpenCV reads it."""
    if not (source / 'data.mdb').exists():
        yield from ((name, cv2.imread(f'{source}/{name}')) for name in names)
        return
    import lmdb
    database = lmdb.open(str(source), readonly=True, lock=False)
    with database.begin() as transaction:
        for name in names:
            yield name, cv2.imdecode(np.frombuffer(transaction.get(name.encode()), np.uint8),
                                     cv2.IMREAD_COLOR)


def plain_chunk(source, names, out, size, scale, write_gt):
    """Read, resize, write."""
    cv2.setNumThreads(0)
    for name, image in read(source, names):
        stem, (h, w) = name.split('.')[0], image.shape[:2]
        side = min(h, w)
        image = image[(h - side) // 2:(h + side) // 2, (w - side) // 2:(w + side) // 2]
        if side > size:
            image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
        if write_gt:
            cv2.imwrite(f'{out}/GT/{stem}.png', image)
        if scale:
            small = (size // scale, size // scale)
            cv2.imwrite(f'{out}/{stem}.png',
                        cv2.resize(image, small, interpolation=cv2.INTER_AREA))


def new_processes():
    """As the converter starts its own."""
    return multiprocessing.get_context('fork' if 'fork' in multiprocessing.get_all_start_methods()
                                       else None)


def run_plain(source, names, out, workers, **options):
    """The loop on processes."""
    (out / 'GT').mkdir(parents=True)
    with ProcessPoolExecutor(workers, new_processes()) as executor:
        chunks = [names[start:start + CHUNK] for start in range(0, len(names), CHUNK)]
        for future in [executor.submit(plain_chunk, source, chunk, str(out), **options)
                       for chunk in chunks]:
            future.result()


def both(mode, sources, args):
    """{'converter': function, 'loop': function} of a mode; each makes a data set in a folder."""
    kind, shrink, options, gt, lr = MODES[mode]
    path, options = sources[kind], dict(options)
    size = args.size // shrink
    source = (LMDBSource if kind == 'lmdb' else FolderSource)(path)
    names = [bytes.fromhex(key).decode() if kind == 'lmdb' else key for key in source.keys()]
    source.close()
    recipe = Recipe(size, [args.scale] if options.pop('lr', False) else [], **options)

    return dict(
        converter=lambda out: prepare(source, out, recipe, args.workers, progress=False),
        loop=lambda out: run_plain(path, names, out, args.workers, size=size,
                                   scale=args.scale if lr else None, write_gt=gt))


def measure(args, sources, work):
    """Images per second and their ratios by mode."""
    written = {}

    def measured(task):
        name, function = task
        out = Path(work) / 'out'
        value = measuring.measured(lambda: function(out))
        written[name] = sum(file.stat().st_size for file in out.rglob('*.png'))
        shutil.rmtree(out)
        os.sync()  # nobody is to wait for the files of the one before
        return value

    tasks = {(mode, who): ((mode, who), function) for mode in args.modes
             for who, function in both(mode, sources, args).items()}
    times = measuring.interleaved(tasks, args.rounds, measure=measured)
    wall, cpu = ({name: [value[i] for value in values] for name, values in times.items()}
                 for i in range(2))
    rows = {}
    for mode in args.modes:
        ours, loop = (mode, 'converter'), (mode, 'loop')
        images = args.images * (SMALL if MODES[mode][0] == 'lmdb' else 1)
        rows[mode] = dict(
            images_per_second={who: measuring.summary([images / t for t in wall[mode, who]])
                               for who in ('converter', 'loop')},
            cpu_ms_per_image={who: measuring.summary([1000 * t / images for t in cpu[mode, who]])
                              for who in ('converter', 'loop')},
            ratio=measuring.ratio(wall[loop], wall[ours]),
            cpu_ratio=measuring.ratio(cpu[loop], cpu[ours]),
            bytes=written[ours] / written[loop])
        other = (STRICTER.get(mode), 'loop')
        if other in wall:
            rows[mode]['cpu_ratio_to_lr_only'] = measuring.ratio(cpu[other], cpu[ours])
    return rows


def markdown(report):
    spread = measuring.spread
    lines = ['# Speed of the converters', '', measuring.stated(report), '',
             f"{report['images']} pictures of {report['size']}², "
             f"LR {report['scale']}×, {report['workers']} processes, {report['rounds']} rounds. "
             'Medians, in brackets the quartiles. Above 1 the converter is faster. The ratio of '
             'CPU times (of all processes) hardly depends on what else the machine does.', '',
             ' '.join(__doc__.split('\n\n')[2].split()), '',
             '| mode | converter, images/s | loop, images/s | ratio | CPU ms per image, converter '
             '| loop | ratio of CPU times | bytes written |',
             '| :-- | --: | --: | --: | --: | --: | --: | --: |']
    for mode, row in report['modes'].items():
        speed, cost = row['images_per_second'], row['cpu_ms_per_image']
        lines.append(f"| {mode} | {speed['converter']['median']:.1f} | "
                     f"{speed['loop']['median']:.1f} | {spread(row['ratio'])} | "
                     f"{cost['converter']['median']:.1f} | {cost['loop']['median']:.1f} | "
                     f"{spread(row['cpu_ratio'])} | {row['bytes']:.2f} × |")
    stricter = [f"{mode} {spread(row['cpu_ratio_to_lr_only'])}"
                for mode, row in report['modes'].items() if 'cpu_ratio_to_lr_only' in row]
    if stricter:
        lines += ['', 'Where the converter copies or links a GT, the loop encodes it again. '
                  'Against a loop that writes no GT at all, ratio of CPU times: '
                  f'{", ".join(stricter)}; what is missing to 1 is reading the file as bytes, its '
                  'checksums, its SHA-256 and the copy.']
    return '\n'.join(lines)


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=64, help='how many of each kind')
    parser.add_argument('--size', type=int, default=1024,
                        help='side of the PNG and JPEG files')
    parser.add_argument('--scale', type=int, default=8, help='of the LRs')
    parser.add_argument('--modes', nargs='+', choices=MODES, default=list(MODES))
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='processes')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--work-dir', help='folder for temporary files')
    parser.add_argument('--out', type=Path, help='without suffix: writes OUT.json and OUT.md')
    args = parser.parse_args(argv)
    for name in ('images', 'workers', 'rounds', 'scale'):
        if getattr(args, name) < 1:
            parser.error(f'--{name}: expected at least 1, got {getattr(args, name)}')
    if args.size < 1 or args.size % (4 * args.scale):
        parser.error(f'--size: expected a multiple of 4 x the scale {args.scale}, got {args.size}')
    for path, option in ((args.out and args.out.parent, '--out'), (args.work_dir, '--work-dir')):
        if path and not Path(path).is_dir():
            parser.error(f'{option}: {path} is no folder')
    return args


def main(argv=None):
    args = parse_args(argv)
    report = dict(measuring.environment(argv, 'tools/analysis_tools/benchmark_converter.py'),
                  **{key: getattr(args, key) for key in (
                      'images', 'size', 'scale', 'workers', 'rounds')})
    with tempfile.TemporaryDirectory(dir=args.work_dir) as work:
        # elsewhere, for the blocks freed here would teach malloc to keep large ones, which takes a
        # tenth of the time and which a loop that is started by itself does not know
        with ProcessPoolExecutor(1, new_processes()) as executor:
            sources = executor.submit(make_sources, Path(work), args.images, args.size).result()
        report['modes'] = measure(args, sources, work)
    return measuring.publish(report, markdown(report), args.out)


if __name__ == '__main__':
    sys.exit(main())
