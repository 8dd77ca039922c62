"""Train a reduced GLEAN and its PD twin on real pictures and compare them (``make demo``).

Offline, on two CPU cores, in a few minutes. Everything goes through
``tools/train.py`` and ``tools/test.py``, as it would at full size. Results:
``work_dirs/demo/report.md``, ``metrics.json`` and ``comparison.png``.
"""
import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
DEMO = Path('work_dirs/demo')
SIZE, SCALE = 64, 8
# scikit-image's sample pictures: CC0 or public domain, shipped inside its wheel
PICTURES = dict(train=('chelsea', 'coffee', 'rocket', 'hubble_deep_field', 'motorcycle_left'),
                val=('astronaut', ))
MODELS = {
    'GLEAN': 'configs/glean/glean_in8out64-tiny_1xb8-400_demo.py',
    'PDGLEAN': 'configs/pd_glean/pd_glean_in8out64-tiny_1xb8-400_demo.py',
}
METRICS = ('PSNR', 'SSIM', 'PSNR_LR', 'PSNR_LR_8bit')
PSNR_CAP = 200  # what LRConsistency reports for no error at all
LABELS = dict(PSNR='PSNR', SSIM='SSIM', PSNR_LR='PSNR(LR), float', PSNR_LR_8bit='PSNR(LR), 8 bits')


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--iters', type=int, default=300, help='training iterations per model')
    return parser.parse_args(argv)


def crops_of(picture, rng, count):
    """Square crops of three extents, resized to SIZE."""
    height, width = picture.shape[:2]
    for index in range(count):
        extent = min((64, 128, 256)[index % 3], height, width)
        top = rng.integers(0, height - extent + 1)
        left = rng.integers(0, width - extent + 1)
        crop = picture[top:top + extent, left:left + extent]
        yield cv2.resize(crop, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def prepare_data(train_crops=480, val_crops=24):
    """Write the GT crops; training and validation come from different pictures."""
    import skimage
    folder = Path(skimage.__file__).parent / 'data'
    for split, total in (('train', train_crops), ('val', val_crops)):
        gt = DEMO / 'data' / split / 'GT'
        if gt.is_dir():
            shutil.rmtree(gt)
        gt.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for name in PICTURES[split]:
            path = next(folder.glob(f'{name}.*'))
            picture = np.asarray(Image.open(path).convert('RGB'))
            for index, crop in enumerate(crops_of(picture, rng, total // len(PICTURES[split]))):
                Image.fromarray(crop).save(gt / f'{name}_{index:03d}.png')
    face = np.asarray(Image.open(folder / 'astronaut.png').convert('RGB'))[0:224, 112:336]
    Image.fromarray(cv2.resize(face, (SIZE, SIZE), interpolation=cv2.INTER_AREA)).save(
        DEMO / 'data/val/GT/astronaut_face.png')


def run_tool(*arguments):
    """Run one of the package's tools, its log on the screen; return the seconds it took."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *map(str, arguments)], check=True,
                   env=dict(os.environ, PYTHONWARNINGS='ignore'))
    return time.perf_counter() - start


def train_and_test(name, config, iters):
    """Returns the metrics of ``tools/test.py`` and the folder with its pictures."""
    folder = DEMO / name.lower()
    shutil.rmtree(folder, ignore_errors=True)
    print(f'\n=== {name}: {iters} iterations, {config}', flush=True)
    seconds = run_tool(
        'tools/train.py', config, '--work-dir', folder, '--cfg-options',
        f'train_cfg.max_iters={iters}', f'train_cfg.val_interval={iters}',
        f'param_scheduler.T_max={iters}', f'default_hooks.checkpoint.interval={iters}')
    print(f'\n=== {name}: test', flush=True)
    run_tool('tools/test.py', config, folder / f'iter_{iters}.pth', '--work-dir',
             folder / 'test', '--out', folder / 'test.json', '--cfg-options',
             "visualizer.img_keys=['pred_img']")
    result = json.loads((folder / 'test.json').read_text())
    metrics = {key: round(float(result[key]), 4) for key in METRICS}
    metrics.update(iterations=iters, seconds=round(seconds, 1))
    return metrics, folder / 'test'


def largest_lr_error(predictions, lr_of):
    """Largest difference between the average-pooled saved files and their LR, in grey levels."""
    worst = 0.0
    for stem, picture in predictions.items():
        height, width = picture.shape[:2]
        patches = picture.astype(np.float64).reshape(
            height // SCALE, SCALE, width // SCALE, SCALE, 3)
        worst = max(worst, float(np.abs(patches.mean(axis=(1, 3)) - lr_of[stem]).max()))
    return worst


def draw(predictions, lr_of, gt_of, stems):
    """comparison.png: LR | GLEAN | PDGLEAN | GT, error maps times five below each row."""
    from mmpd.visualization.panels import comparison_panel, stack_panels
    rows = []
    for stem in stems:
        columns = {'LR': lr_of[stem]}
        columns.update({name: predictions[name][stem] for name in MODELS})
        rows.append(comparison_panel(columns, gt=gt_of[stem], gain=5))
    Image.fromarray(stack_panels(rows)).save(DEMO / 'comparison.png')


def write_report(results, elapsed):
    header = [*LABELS.values(), 'largest LR error of the saved files', 'iterations', 'seconds']
    lines = ['| model | ' + ' | '.join(header) + ' |', '|---' * (len(header) + 1) + '|']
    for name, row in results.items():
        values = [f'{row[key]:.4f}' if key == 'SSIM' else
                  'exact' if row[key] >= PSNR_CAP else f'{row[key]:.2f}' for key in METRICS]
        values += [f'{row["largest_lr_error_of_files"]:.3g} / 255', str(row['iterations']),
                   f'{row["seconds"]:.0f}']
        lines.append(f'| {name} | ' + ' | '.join(values) + ' |')
    table = '\n'.join(lines)
    (DEMO / 'report.md').write_text(
        '# Demo: reduced GLEAN and its PD twin, 8 to 64 px\n\n'
        f'{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} CPU cores, '
        f'{elapsed:.0f} s in all. Same seed, same pictures (scikit-image), bicubic(antialias) LR; '
        'tested on another picture than those trained on. '
        'Made by `make demo` (tools/demo.py).\n\n'
        f'{table}\n\n![comparison](comparison.png)\n\n'
        'Second rows: five times the absolute error against GT.\n')
    (DEMO / 'metrics.json').write_text(json.dumps(results, indent=2) + '\n')
    print('\n' + table)
    print(f'\nReport: {DEMO}/report.md   pictures: {DEMO}/comparison.png   '
          f'({elapsed:.0f} s in all)')


def main():
    args = parse_args()
    os.chdir(ROOT)
    start = time.perf_counter()
    prepare_data()
    from mmpd.utils.images import read_8bit, saved_images
    results, predictions = {}, {}
    for name, config in MODELS.items():
        results[name], folder = train_and_test(name, config, args.iters)
        predictions[name] = {stem: read_8bit(path) for stem, path in saved_images(folder).items()}

    from mmpd.datasets.resampling import downsample
    gt_of = {path.stem: np.asarray(Image.open(path))
             for path in sorted((DEMO / 'data/val/GT').glob('*.png'))}
    lr_of = {stem: downsample(gt, SCALE, 'bicubic', True) for stem, gt in gt_of.items()}
    for name in MODELS:
        results[name]['largest_lr_error_of_files'] = largest_lr_error(predictions[name], lr_of)
    draw(predictions, lr_of, gt_of, ['astronaut_face', 'astronaut_001', 'astronaut_005'])
    write_report(results, time.perf_counter() - start)

    pd, plain = results['PDGLEAN'], results['GLEAN']
    if pd['PSNR_LR'] < 120 or pd['PSNR'] <= plain['PSNR'] or pd['largest_lr_error_of_files'] > 0:
        print('demo: PDGLEAN is not as consistent or as good as it should be, see the table.',
              file=sys.stderr)
        raise SystemExit(1)


if __name__ == '__main__':
    main()
