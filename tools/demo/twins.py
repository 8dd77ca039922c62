"""Part two of the demo: a reduced GLEAN and its PD twin, trained on real pictures and compared.

Everything goes through ``tools/train.py`` and ``tools/test.py``, as it would at full size.
"""
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mmpd.datasets.resampling import downsample
from mmpd.evaluation.functional import PSNR_CAP
from mmpd.utils.images import read_8bit, saved_images
from mmpd.visualization.panels import comparison_panel, stack_panels

SIZE, SCALE = 64, 8
# scikit-image's sample pictures: CC0 or public domain, shipped inside its wheel
PICTURES = dict(train=('chelsea', 'coffee', 'rocket', 'hubble_deep_field', 'motorcycle_left'),
                val=('astronaut', ))
MODELS = {
    'GLEAN': 'configs/glean/glean_in8out64-tiny_1xb8-400_demo.py',
    'PDGLEAN': 'configs/pd_glean/pd_glean_in8out64-tiny_1xb8-400_demo.py',
}
SHOWN = ('astronaut_face', 'astronaut_001', 'astronaut_005')
METRICS = ('PSNR', 'SSIM', 'PSNR_LR', 'PSNR_LR_8bit')
LABELS = dict(PSNR='PSNR', SSIM='SSIM', PSNR_LR='PSNR(LR), float', PSNR_LR_8bit='PSNR(LR), 8 bits')
PROGRESS = re.compile(r'Iter\(train\) +\[ *(\d+)/(\d+)\]')
LOSS = re.compile(r' loss_pix: (\S+)')


def crops_of(picture, rng, count):
    """Square crops of three extents, resized to SIZE."""
    height, width = picture.shape[:2]
    for index in range(count):
        extent = min((64, 128, 256)[index % 3], height, width)
        top = rng.integers(0, height - extent + 1)
        left = rng.integers(0, width - extent + 1)
        crop = picture[top:top + extent, left:left + extent]
        yield cv2.resize(crop, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def prepare_data(folder, train_crops=480, val_crops=24):
    """Write the GT crops; training and validation come from different pictures."""
    import skimage
    source = Path(skimage.__file__).parent / 'data'
    for split, total in (('train', train_crops), ('val', val_crops)):
        gt = folder / 'data' / split / 'GT'
        if gt.is_dir():
            shutil.rmtree(gt)
        gt.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for name in PICTURES[split]:
            path = next(source.glob(f'{name}.*'))
            picture = np.asarray(Image.open(path).convert('RGB'))
            for index, crop in enumerate(crops_of(picture, rng, total // len(PICTURES[split]))):
                Image.fromarray(crop).save(gt / f'{name}_{index:03d}.png')
    face = np.asarray(Image.open(source / 'astronaut.png').convert('RGB'))[0:224, 112:336]
    Image.fromarray(cv2.resize(face, (SIZE, SIZE), interpolation=cv2.INTER_AREA)).save(
        folder / 'data/val/GT/astronaut_face.png')


class ToolFailed(Exception):
    """A tool ended with an error; the message has the end of its log."""


def run_tool(arguments, log, on_line=lambda line: None):
    """Run one of the package's tools with its output in ``log``.

    Args:
        arguments (list): Its script and arguments.
        log (Path): File to write.
        on_line (Callable[[str], None]): Is given every line as it comes.

    Returns:
        float: The seconds it took.

    Raises:
        ToolFailed: if it did not end with 0.
    """
    start = time.perf_counter()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('w') as file, subprocess.Popen(
            [sys.executable, '-W', 'ignore', *map(str, arguments)], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            for line in process.stdout:
                file.write(line)
                file.flush()
                on_line(line)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        end = log.read_text().splitlines()[-12:]
        raise ToolFailed('\n'.join([f'{arguments[0]} ended with {process.returncode}, its log is '
                                    f'{log}:', *end]))
    return time.perf_counter() - start


class ProgressLine:
    """One line on the screen for a training: iteration, loss, time left.

    On a terminal it is written over; in a file it grows by every tenth of the way.
    """

    def __init__(self, name, iters, stream=None):
        self.name, self.iters, self.stream = name, iters, stream or sys.stdout
        self.tenths, self.loss, self.terminal = 0, '', self.stream.isatty()
        self.first = None  # (iteration, time) when the tool had started up
        self._write(f'{name}: training' if not self.terminal else f'\r{name}: starting')

    def _write(self, text):
        print(text, end='', file=self.stream, flush=True)

    def __call__(self, line):
        """Take a line of mmengine's log."""
        found = PROGRESS.search(line)
        if not found:
            return
        done, total = int(found[1]), int(found[2])
        loss = LOSS.search(line)
        self.loss = f', loss {float(loss[1]):.4f}' if loss else self.loss
        now = time.perf_counter()
        self.first = self.first or (done, now)
        if self.terminal:
            rate = (now - self.first[1]) / max(1, done - self.first[0])
            left = f', {rate * (total - done):.0f} s left' if done > self.first[0] else ''
            self._write(f'\r{self.name}: {done}/{total} iterations{self.loss}{left}   ')
        elif done * 10 // total > self.tenths:
            self.tenths = done * 10 // total
            self._write(f' {self.tenths * 10}%')

    def finish(self, seconds):
        """End the line."""
        start = f'\r{self.name}: {self.iters} iterations' if self.terminal else ''
        self._write(f'{start}{self.loss}, {seconds:.0f} s{" " * 20 if self.terminal else ""}\n')


def train_and_test(name, config, iters, folder):
    """Returns the metrics of ``tools/test.py`` and the folder with its pictures."""
    work = folder / name.lower()
    shutil.rmtree(work, ignore_errors=True)
    progress = ProgressLine(name, iters)
    seconds = run_tool(
        ['tools/train.py', config, '--work-dir', work, '--cfg-options',
         f'train_cfg.max_iters={iters}', f'train_cfg.val_interval={iters}',
         f'param_scheduler.T_max={iters}', f'default_hooks.checkpoint.interval={iters}',
         f'default_hooks.logger.interval={max(1, iters // 30)}'],
        folder / f'{name.lower()}_train.log', progress)
    progress.finish(seconds)
    run_tool(['tools/test.py', config, work / f'iter_{iters}.pth', '--work-dir',
              work / 'test', '--out', work / 'test.json', '--cfg-options',
              "visualizer.img_keys=['pred_img']"], folder / f'{name.lower()}_test.log')
    result = json.loads((work / 'test.json').read_text())
    metrics = {key: round(float(result[key]), 4) for key in METRICS}
    metrics.update(iterations=iters, seconds=round(seconds, 1))
    return metrics, work / 'test'


def pool(image):
    """Means of the patches of an (H, W, 3) array, not rounded."""
    height, width = (side // SCALE for side in image.shape[:2])
    patches = image.astype(np.float64).reshape(height, SCALE, width, SCALE, 3)
    return patches.mean(axis=(1, 3))


def largest_lr_error(predictions, lr_of):
    """Largest difference between the average-pooled saved files and their LR, in grey levels."""
    return max(float(np.abs(pool(image) - lr_of[stem]).max())
               for stem, image in predictions.items())


def draw(predictions, lr_of, gt_of, path):
    """LR | bicubic | GLEAN | PDGLEAN | GT; below, errors against GT and of the LR, times five."""
    rows = []
    for stem in SHOWN:
        bicubic = Image.fromarray(lr_of[stem]).resize((SIZE, SIZE), Image.BICUBIC)
        columns = {'LR': lr_of[stem], 'bicubic': np.asarray(bicubic)}
        columns.update({name: predictions[name][stem] for name in MODELS})
        rows.append(comparison_panel(columns, gt=gt_of[stem], gain=5, degrade=pool))
    Image.fromarray(stack_panels(rows)).save(path)


def run(folder, iters):
    """Train, test and compare both; write ``comparison.png``; returns name -> metrics."""
    prepare_data(folder)
    results, predictions = {}, {}
    for name, config in MODELS.items():
        results[name], saved = train_and_test(name, config, iters, folder)
        predictions[name] = {stem: read_8bit(path) for stem, path in saved_images(saved).items()}
    gt_of = {path.stem: read_8bit(path) for path in sorted((folder / 'data/val/GT').glob('*.png'))}
    lr_of = {stem: downsample(gt, SCALE, 'bicubic', True) for stem, gt in gt_of.items()}
    for name in MODELS:
        results[name]['largest_lr_error_of_files'] = largest_lr_error(predictions[name], lr_of)
    draw(predictions, lr_of, gt_of, folder / 'comparison.png')
    return results


def failed(results):
    """Whether PDGLEAN is less consistent or less good than it should be."""
    pd, plain = results['PDGLEAN'], results['GLEAN']
    return (pd['PSNR_LR'] < 120 or pd['PSNR'] <= plain['PSNR']
            or pd['largest_lr_error_of_files'] > 0)


def table(results):
    """The report's table in Markdown."""
    header = [*LABELS.values(), 'largest LR error of the saved files', 'iterations', 'seconds']
    lines = ['| model | ' + ' | '.join(header) + ' |',
             '| :-- ' + '| --: ' * len(header) + '|']
    for name, row in results.items():
        values = [f'{row[key]:.4f}' if key == 'SSIM' else
                  'exact' if row[key] >= PSNR_CAP else f'{row[key]:.2f}' for key in METRICS]
        values += [f'{row["largest_lr_error_of_files"]:.3g} / 255', str(row['iterations']),
                   f'{row["seconds"]:.0f}']
        lines.append(f'| {name} | ' + ' | '.join(values) + ' |')
    return '\n'.join(lines)


def report(results):
    """Its part of report.md."""
    return ('## A reduced GLEAN and its PD twin, trained here, 8 to 64 px\n\n'
            f'{table(results)}\n\n'
            'Same seed, same pictures (scikit-image), bicubic(antialias) LR; tested on another '
            'picture than those trained on. Minutes of training on 64-px crops without a '
            'pretrained prior show what PD does to consistency, not what GLEAN looks like.\n\n'
            '![comparison](comparison.png)\n\nSecond rows: five times the absolute error against '
            'GT; third rows: five times |A x - LR|, A = average pooling.\n')
