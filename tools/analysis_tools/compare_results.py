"""Results of several models side by side, with error maps: LR | model | model ... | GT (Fig. 4).

    python tools/test.py CONFIG CHECKPOINT --work-dir work_dirs/fig4/glean \
        --cfg-options "visualizer.img_keys=['pred_img']"
    python tools/analysis_tools/compare_results.py --gt data/celeba_hq/GT --scale 8 \
        --run GLEAN=work_dirs/fig4/glean --run "GLEAN w/ PD=work_dirs/fig4/pd_glean" --out fig4.png

The pictures are those that a test saved, or a folder of any method's results named like the GT.
"""
import argparse
import sys
from pathlib import Path

from PIL import Image

from mmpd.datasets.resampling import KERNELS, downsample
from mmpd.utils.files import replaced
from mmpd.utils.images import SUFFIXES, read_8bit, saved_images
from mmpd.visualization.panels import comparison_panel, stack_panels


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--run', action='append', required=True, metavar='NAME=FOLDER',
                        help='work folder of a test, or a folder of images')
    parser.add_argument('--gt', type=Path, required=True, help='folder of GT images')
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--lr', type=Path, help='folder of LR images, shown first')
    source.add_argument('--scale', type=int, help='make the LR images from the GT at this scale')
    parser.add_argument('--kernel', choices=KERNELS, help='of --scale; default: bicubic')
    parser.add_argument('--names', nargs='+', metavar='STEM', help='which images')
    parser.add_argument('--count', type=int, default=4, help='without --names: the first so many')
    parser.add_argument('--gain', type=float, default=5, help='factor on the errors')
    parser.add_argument('--out', type=Path, default=Path('comparison.png'))
    args = parser.parse_args(argv)
    if args.out.suffix.lower() != '.png':
        parser.error(f'--out: expected a .png file, got {args.out}')
    if args.count < 1 or not args.gain > 0:
        parser.error('--count and --gain: expected positive numbers')
    return args


def images_in(folder):
    """stem -> path, of a test's work folder or of a folder of images."""
    if not Path(folder).is_dir():
        raise ValueError(f'no folder {folder}')
    found = saved_images(folder)
    for path in [] if found else sorted(Path(folder).iterdir()):
        if path.suffix.lower() in SUFFIXES:
            if path.stem in found:
                raise ValueError(f'{folder}: expected one file for {path.stem!r}, got '
                                 f'{found[path.stem].name} and {path.name}')
            found[path.stem] = path
    if not found:
        raise ValueError(f'no images in {folder}')
    return found


def _unlike(image, other):
    """What differs between two images, in words: (of the one, of the other)."""
    if image.shape[:2] != other.shape[:2]:
        return [f'{one.shape[1]}x{one.shape[0]}' for one in (image, other)]
    return [f'{one.shape[1]}x{one.shape[0]} {"grey" if one.ndim == 2 else "RGB"}'
            for one in (image, other)]


def find_images(args):
    """Title -> stem -> file: of the runs in their order, of the GT, of the LR if there is one."""
    runs = {}
    for run in args.run:
        name, _, folder = run.rpartition('=')
        if not name or name in runs:
            raise ValueError(f'--run takes NAME=FOLDER, every name once, got {run!r}')
        if name in ('GT', 'LR'):
            raise ValueError(f'--run {run}: a run cannot be named {name!r}, which are others here')
        runs[name] = images_in(folder)
    folders = dict(runs, GT=images_in(args.gt))
    if args.lr:
        folders['LR'] = images_in(args.lr)
    return folders


def compare(args):
    """The picture, uint8 RGB."""
    if args.kernel and args.scale is None:
        raise ValueError('--kernel goes with --scale')
    folders = find_images(args)
    common = set.intersection(*map(set, folders.values()))
    if args.out.resolve() in (path.resolve() for found in folders.values()
                              for path in found.values()):
        raise ValueError(f'--out {args.out}: is an input')
    names = args.names or sorted(common)[:args.count]
    missing = [f'{stem} (not in {title})' for stem in names for title, found in folders.items()
               if stem not in found]
    if missing or not names:
        raise ValueError(f'no image in all folders: {", ".join(missing) or "no common name"}')
    panels = []
    for stem in names:
        images = {title: read_8bit(found[stem]) for title, found in folders.items()}
        gt, lr = images.pop('GT'), images.pop('LR', None)
        if args.scale is not None:
            lr = downsample(gt, args.scale, args.kernel or 'bicubic')
        for title, image in images.items():
            if image.shape != gt.shape:
                ours, theirs = _unlike(image, gt)
                raise ValueError(f'{stem}: {title} is {ours}, GT {theirs}; save the prediction '
                                 "alone, with visualizer.img_keys=['pred_img']")
        columns = images if lr is None else {'LR': lr, **images}
        panels.append(comparison_panel(columns, gt=gt, gain=args.gain))
    return stack_panels(panels)


def main(argv=None):
    """Write the picture; returns the exit code."""
    args = parse_args(argv)
    try:
        picture = compare(args)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        for line in replaced(args.out):
            print(line, file=sys.stderr)
        Image.fromarray(picture).save(args.out)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'{args.out}: {picture.shape[1]}x{picture.shape[0]}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
