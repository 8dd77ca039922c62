"""The pairs of ``mmpd-make-consistent``: all that can be wrong, before anything is written."""
import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..operators.resolve import infer_scale, resolve_operator
from ..utils.files import folder_fault, in_the_way, name_fault, plain
from ..utils.rasters import (
    RASTERS,
    Raster,
    encode_raster,
    output_suffix,
    profile_name,
    read_raster,
)

__all__ = ['Pair', 'check', 'file_hash', 'propose_suffix']

LARGE = 32 << 20  # values of an image for which an A that needs it whole takes gigabytes


@dataclass(frozen=True)
class Pair:
    """What belongs together.

    Attributes:
        name (str): Stem of the LR file.
        paths (dict[str, Path]): 'lr', 'sr', and 'gt' where given.
        target (Path): The file to write.
        scale (int): From LR to SR.
        resize (tuple[int, int] | None): (width, height) that the SR is to be resized to first.
        digest (str): SHA-256 of the files.
    """
    name: str
    paths: dict
    target: Path
    scale: int
    resize: tuple | None
    digest: str


def check(args, run):
    """Read every file to its end and compare the pairs.

    Args:
        args (Namespace): The command's.
        run (Callable): See :func:`open_pool`.

    Returns:
        tuple[list[Pair], list[str], list[str]]: Pairs, problems and warnings.
    """
    problems, warnings = [], []
    folders = {name: getattr(args, name) for name in ('lr', 'sr', 'gt') if getattr(args, name)}
    images = {name: find_images(folder, name, problems, warnings)
              for name, folder in folders.items()}
    for name, folder in folders.items():
        if folder.resolve() == args.out.resolve():
            problems.append(f'--out {args.out}: is also the folder of --{name}')
    if args.lr.resolve() == args.sr.resolve():
        problems.append(f'--sr {args.sr}: is also the folder of --lr')
    inputs = {os.path.realpath(path) for found in images.values() for path in found.values()}
    match_suffix(images, args.sr_suffix, problems)
    stems = sorted(set.intersection(*(set(found) for found in images.values())))
    jobs = [(stem, {name: images[name][stem] for name in images}, args) for stem in stems]
    checked = list(run(check_pair, jobs)) if jobs else []
    swapped = [pair for pair, *_ in checked if pair == 'swapped']
    if swapped and len(swapped) == len(checked):
        problems.append(f'--lr {args.lr} and --sr {args.sr} look swapped: every LR image is larger '
                        'than its SR image')
    places = {}  # file that is written -> what names it
    for stem, (_, own_problems, own_warnings) in zip(stems, checked, strict=True):
        if not (swapped and len(swapped) == len(checked)):
            problems += own_problems
        warnings += own_warnings
        target = args.out / f'{stem}{output_suffix(images["sr"][stem])}'
        check_target(target, args, problems)
        check_place(target, plain(target), inputs, places, problems)
    check_target(args.csv, args, problems)
    other = in_the_way(args.csv, places)
    if other is not None:
        problems.append(f'--csv {plain(args.csv)}: {places[other]} is an output image')
    elif os.path.realpath(args.csv) in inputs:
        problems.append(f'--csv {plain(args.csv)}: is an input image')
    beside = args.out if is_device(args.csv) else args.csv.parent
    for folder in dict.fromkeys((args.out, beside)):
        fault = folder_fault(folder)
        if fault:
            problems.append(f'{plain(folder)}: {fault}')
    return [pair for pair, *_ in checked if isinstance(pair, Pair)], problems, warnings


def find_images(folder, name, problems, warnings):
    """stem -> path of the images of a folder; what is wrong goes to ``problems``, what is left out
    to ``warnings``."""
    if not os.path.isdir(folder):
        problems.append(f'--{name} {folder}: expected a folder of images')
        return {}
    found, others = {}, []
    for path in sorted(folder.iterdir()):
        hidden, image = path.name.startswith('.'), path.suffix.lower() in RASTERS
        if hidden and not image:
            continue
        if hidden or not image:
            others.append(path.name)
            continue
        reason = name_fault(path.name)
        if reason:
            problems.append(f'--{name} {plain(path)}: {reason}')
            continue
        if path.stem in found:
            problems.append(f'{plain(path.stem)}: --{name} has both {plain(found[path.stem].name)}'
                            f' and {plain(path.name)}')
        found[path.stem] = path
    if others:
        names = ', '.join(map(plain, others[:3])) + ' …' * (len(others) > 3)
        warnings.append(f'--{name} {folder}: left out, hidden or no images by their names: '
                        f'{names} ({len(others)} in all)')
    if not found:
        problems.append(f'--{name} {folder}: expected images ({", ".join(RASTERS)}), found none')
    return found


def propose_suffix(lr_stems, sr_stems):
    """The suffix with which most LR names are SR names, and of how many; None where there is none.
    """
    lr_stems = set(lr_stems)
    counts = Counter(stem[length:] for stem in sr_stems for length in range(1, len(stem))
                     if stem[:length] in lr_stems)
    return min(counts.items(), key=lambda item: (-item[1], len(item[0]), item[0]), default=None)


def match_suffix(images, suffix, problems):
    """Take the suffix off the SR names, and tell what has no counterpart."""
    if not all(images.values()):
        return
    if suffix:
        others = [stem for stem in images['sr'] if not stem.endswith(suffix) or stem == suffix]
        problems += [f'{plain(stem)}: in --sr, but does not end in --sr-suffix {suffix}'
                     for stem in others]
        images['sr'] = {stem.removesuffix(suffix): path for stem, path in images['sr'].items()
                        if stem not in others}
    for name in images:
        for other in images:
            # GT may hold more than is needed
            missing = images[other].keys() - images[name].keys() if other != 'gt' else ()
            problems += [f'{plain(stem)}: in --{other} but not in --{name}'
                         for stem in sorted(missing)]
    lone_lr, lone_sr = (images[a].keys() - images[b].keys() for a, b in (('lr', 'sr'),
                                                                        ('sr', 'lr')))
    found = propose_suffix(lone_lr, lone_sr) if not suffix else None
    if found:
        problems.append(f'{found[1]} of the {len(lone_sr)} SR names without an LR end in '
                        f'"{found[0]}": did you mean --sr-suffix={found[0]}?')


def file_hash(paths):
    """SHA-256 of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open('rb') as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def check_pair(stem, paths, args):
    """One pair of files: (Pair, None or 'swapped'), problems, warnings."""
    problems, warnings, rasters = [], [], {}
    for name, path in paths.items():
        try:
            rasters[name] = raster = read_raster(path)
            warnings += [f'{plain(path)}: {note}' for note in raster.notes]
        except (OSError, ValueError) as error:
            problems.append(str(error))
    if len(rasters) < len(paths):
        return None, problems, warnings
    lr, sr, gt = rasters['lr'], rasters['sr'], rasters.get('gt')
    if all(a > b for a, b in zip(lr.size, sr.size, strict=True)):
        problems.append('{}: the LR ({}x{}) is larger than the SR ({}x{}): are they swapped?'
                        .format(stem, *lr.size, *sr.size))
        return 'swapped', problems, warnings
    target = args.out / f'{stem}{output_suffix(paths["sr"])}'
    scale, resize = check_sizes(stem, lr, sr, args.resize_sr, problems)
    if scale == 1:
        warnings.append(f'{stem}: the SR is no larger than the LR, whose pixels take its place')
    if lr.colour != sr.colour or lr.alpha is not None and sr.alpha is None:
        problems.append(f'{stem}: LR is {lr.kind} but SR is {sr.kind}')
    elif scale:
        check_values(stem, scale, lr, sr, target.suffix, args, problems, warnings)
    size = resize or sr.size
    if gt and (gt.size, gt.colour) != (size, sr.colour):
        problems.append('{}: expected a GT like SR, {}x{} {}, got {}x{} {}'.format(
            stem, *size, sr.colour, *gt.size, gt.colour))
    if lr.icc_profile != sr.icc_profile:
        names = [profile_name(one.icc_profile) for one in (lr, sr)]
        warnings.append(f'{stem}: LR and SR have different ICC profiles ({names[0]} and '
                        f"{names[1]}): the numbers are taken as they are, the result gets the "
                        f"{'LR' if lr.icc_profile else 'SR'}'s")
    if problems:
        return None, problems, warnings
    try:
        digest = file_hash(paths.values())
    except OSError as error:  # it was moved meanwhile
        return None, [f'{plain(error.filename)}: {error.strerror}'], warnings
    return Pair(stem, paths, target, scale, resize, digest), problems, warnings


def check_sizes(stem, lr, sr, may_resize, problems):
    """(scale, size to resize the SR to), or (None, None) after saying what does not fit."""
    try:
        return infer_scale(sr.size[::-1], lr.size[::-1]), None
    except ValueError:
        pass
    scales = {max(1, round(a / b)) for a, b in zip(sr.size, lr.size, strict=True)}
    size = tuple(max(scales) * side for side in lr.size)
    if len(scales) == 1 and may_resize:
        return max(scales), size
    offer = ' (--resize-sr resizes it to {}x{})'.format(*size) if len(scales) == 1 else ''
    problems.append('{}: expected an SR size that is one multiple of the LR size {}x{}, got {}x{}{}'
                    .format(stem, *lr.size, *sr.size, offer))
    return None, None


def check_values(stem, scale, lr, sr, suffix, args, problems, warnings):
    """Library, bounds and format of a pair that fits, and whether A needs it whole."""
    correction, most = args.correction, sr.most
    try:
        limits = correction.bounds if most is None else correction.limits(most)
        if args.degradation is not None:
            operator = resolve_operator(dict(args.degradation, scale=scale), (), ())
            correction.library(operator, most)
            strips = getattr(operator, 'patch_mean', False) and not correction.noise_std
            if sr.pixels.size > LARGE and not strips:
                warnings.append('{}: {}x{} is worked on as a whole, which takes much memory; only '
                                'average_pooling and box, without --noise-std, work in strips'
                                .format(stem, *sr.size))
        if limits and correction.exact:
            low, high = lr.pixels.min(), lr.pixels.max()
            if low < limits[0] or high > limits[1]:
                problems.append(f'{stem}: expected LR values within --bounds {limits[0]:g} '
                                f'{limits[1]:g}, got {low:g} to {high:g}')
        corner = Raster(sr.pixels[:1, :1], None if sr.alpha is None else sr.alpha[:1, :1])
        encode_raster(corner, suffix)  # can it be written?
    except ValueError as error:
        problems.append(f'{stem}: {error}')


def check_target(path, args, problems):
    """A file may be written, or replaced if the user says so."""
    if os.path.isdir(path):
        problems.append(f'{plain(path)}: is a folder, expected a file name')
    elif name_fault(path.name):
        problems.append(f'{plain(path)}: {name_fault(path.name)}')
    elif os.path.exists(path) and not args.overwrite and not args.resume:
        problems.append(f'{plain(path)}: exists (--overwrite replaces it); --resume keeps what is '
                        'complete')


def is_device(path):
    """Whether it is there and neither a file nor a folder: nothing beside it is written."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def check_place(path, name, inputs, places, problems):
    """What is written goes through links: to no input image, and to no place twice."""
    place = os.path.realpath(path)
    if place in inputs:
        problems.append(f'{name}: is an input image')
    elif place in places:
        problems.append(f'{name}: is also {places[place]}')
    places[place] = name
