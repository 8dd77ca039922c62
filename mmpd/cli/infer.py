"""Super-resolve a folder of LR images; every output, downsampled, is its LR image.

    mmpd-infer MODEL [CHECKPOINT] -i INPUT -o OUT

MODEL is a config file (with CHECKPOINT), a name of the model zoo (docs/model_zoo.md), or a
checkpoint whose network is recognised.  Stopped, the same command goes on where it was.
"""
import argparse
import csv
import io
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..utils.files import (
    csv_text,
    folder_fault,
    in_the_way,
    plain,
    remove_partial_files,
    write_atomically,
)
from ..utils.images import LOSSLESS, SUFFIXES, find_pictures
from ..utils.model_zoo import resolve_model
from . import run_tool
from .processes import Processes

OPERATORS = ('average_pooling', 'bicubic', 'bilinear', 'lanczos', 'box')
LIBRARIES = ('pil', 'torch', 'torch_uint8', 'opencv', 'matlab')
COLUMNS = ('name', 'output', 'psnr_lr_raw', 'psnr_lr', 'lr_values', 'lr_values_unmatched', 'error')


def parse_args(argv=None):
    lines = __doc__.splitlines()
    parser = argparse.ArgumentParser(
        prog='mmpd-infer', description=lines[0], epilog=' '.join(lines[4:]))
    parser.add_argument('model', metavar='MODEL', help='config, name in the zoo, or checkpoint')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', nargs='?', help='file or URL')
    group = parser.add_argument_group('files')
    group.add_argument('-i', '--input', nargs='+', required=True, metavar='INPUT',
                       help='image files, folders, or quoted patterns such as "lr/**/*.png"')
    group.add_argument('-o', '--out', type=Path, required=True,
                       help='output folder; for one image also a file name')
    group.add_argument('--recursive', action='store_true', help='look into subfolders too')
    group.add_argument('--suffix', default='', help='added to the names, e.g. _sr')
    group.add_argument('--ext', choices=LOSSLESS, help='format (all lossless), default png')
    group.add_argument('--overwrite', action='store_true',
                       help='replace existing files; without, finished ones are kept')
    group.add_argument('--alpha', choices=('keep', 'refuse'), default='keep',
                       help='alpha is kept (enlarged bicubically, made consistent), or refused')
    group.add_argument('--compare', action='store_true',
                       help='write LR | raw | consistent | error maps to OUT/compare')
    group.add_argument('--csv', type=Path, help='PSNR(LR) of the raw and of the consistent files')
    group = parser.add_argument_group('consistency')
    group.add_argument('--operator', choices=OPERATORS,
                       help="A: how the LR images were made; default: the config's, or average "
                       'pooling')
    group.add_argument('--alias', action='store_true',
                       help='the kernel was not widened by the scale (OpenCV INTER_CUBIC …)')
    group.add_argument('--border', choices=('library', 'mirror'), default='library',
                       help="border rule of A: 'library' (PIL, torch, cv2) or 'mirror' (MATLAB)")
    group.add_argument('--made-by', choices=LIBRARIES,
                       help='the library that made the LR images, whose roundings the outputs '
                       'are to reproduce; with opencv --alias is implied, with matlab --border '
                       'mirror')
    group.add_argument('--strength', type=float,
                       help='1 (default): consistent; less for noisy LR; 0: the raw prediction')
    group.add_argument('--quantize', choices=('consistent', 'clip'),
                       help="rounding to 8 bits: 'consistent' (default with strength 1) keeps "
                       "consistency, 'clip' is the paper's evaluation")
    group = parser.add_argument_group('computing')
    group.add_argument('--device', help='cpu, cuda, cuda:1 …; default: a GPU if there is one')
    group.add_argument('--dtype', choices=('float32', 'bfloat16', 'float16'), default='float32',
                       help='precision of the network; PD and rounding stay float32, so outputs '
                       'stay consistent. bfloat16 needs a processor that computes in it, float16 '
                       'a GPU')
    group.add_argument('--batch-size', type=int, default=1, help='images of equal size (or tiles) '
                       'at once')
    group.add_argument('--workers', type=int, default=2, help='threads that read and write')
    group.add_argument('--tile', type=int, metavar='SIDE',
                       help='compute in tiles of so many LR pixels (convolutional networks); PD is '
                       'applied to the joined picture')
    group.add_argument('--tile-overlap', type=int, default=16, metavar='N',
                       help='LR pixels of surroundings that a tile is computed with')
    group.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE',
                       help='override settings of the config')
    group.add_argument('--launcher', choices=('none', 'pytorch', 'slurm'), default='none',
                       help='split the files over the processes of torchrun or srun')
    args = parser.parse_args(argv)
    check_numbers(args)
    return args


def check_numbers(args):
    """Raise InputError for values out of range and options that contradict each other."""
    for name, least in (('batch_size', 1), ('workers', 1), ('tile', 1), ('tile_overlap', 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise InputError(f'--{name.replace("_", "-")}: expected at least {least}, got {value}')
    if args.strength is not None and not 0 <= args.strength <= 1:
        raise InputError(f'--strength: expected a number from 0 to 1, got {args.strength:g}')
    if args.strength not in (None, 1) and args.quantize == 'consistent':
        raise InputError(f'--quantize consistent would undo --strength {args.strength:g}')
    if '/' in args.suffix or '\\' in args.suffix:
        raise InputError(f'--suffix: expected part of a file name, got {args.suffix}')
    for option, given in (('--alias', args.alias), ('--border', args.border != 'library')):
        if given and args.operator in (None, 'average_pooling'):
            raise InputError(f'{option}: belongs to --operator {", ".join(OPERATORS[1:])}')


def operator_config(args):
    """The A that the options name, or None for that of the model."""
    if args.operator is None:
        return None
    if args.operator == 'average_pooling':
        return dict(type='AveragePooling', scale=None)
    alias = args.alias or (args.made_by == 'opencv' and args.operator != 'box')
    border = 'mirror' if args.made_by == 'matlab' else args.border
    return dict(type='SeparableResize', kernel=args.operator, scale=None, antialias=not alias,
                border=border)


@dataclass(frozen=True)
class Plan:
    """A file to be made of another."""
    source: Path
    name: Path
    target: Path
    panel: Path | None


def plan(args):
    """Find the inputs and name the outputs.

    Returns:
        tuple[list[Plan], int]: The files; how many others the input folders hold.

    Raises:
        InputError: no inputs, outputs that would meet, or that lie among the inputs.
    """
    found, others = find_inputs(args)
    plans = name_outputs(args, found)
    check_outputs(args, plans)
    plans = list(dict.fromkeys(plans))  # named twice
    return sorted(plans, key=lambda plan: plan.name.as_posix()), others


def find_inputs(args):
    """Pictures with their names in the output, and how many other files lie beside them."""
    found, others = [], 0
    for source in args.input:
        try:
            pictures, more = find_pictures(source, args.recursive)
        except ValueError as error:
            raise InputError(f'--input {error}') from None
        check_apart(args, Path(source))
        found += pictures
        others += more
    return found, others


def name_outputs(args, found):
    """A plan for each picture; InputError if two would become one file."""
    folder, ext, single = args.out, args.ext or 'png', None
    if args.out.suffix.lower() in SUFFIXES and not args.out.is_dir():
        folder, single = args.out.parent, args.out
        check_file_name(args, len(found))
    plans, taken = [], {}
    for source, name in found:
        target = single or folder / name.with_name(f'{name.stem}{args.suffix}.{ext}')
        panel = folder / 'compare' / target.relative_to(folder).with_suffix('.png') \
            if args.compare else None
        for path in filter(None, (target, panel)):
            if path in taken and taken[path] != source:
                raise InputError(f'{plain(taken[path])} and {plain(source)} would both become '
                                 f'{plain(path)}: rename one, or run them into different folders')
            taken[path] = source
        plans.append(Plan(source, name, target, panel))
    return plans


def check_outputs(args, plans):
    """Raise InputError if an output would replace an input, a folder or another output."""
    inputs = {os.path.realpath(plan.source) for plan in plans}
    outputs = [path for plan in plans for path in (plan.target, plan.panel) if path is not None]
    for path in (*outputs, *filter(None, [args.csv])):
        if os.path.realpath(path) in inputs:
            raise InputError(f'{plain(path)}: would replace an input image')
        if os.path.isdir(path):
            raise InputError(f'{plain(path)}: is a folder, expected a file name')
    if args.csv is not None:
        other = in_the_way(args.csv, outputs)
        if other is not None:
            raise InputError(f'--csv {args.csv}: {plain(other)} is an output image; give another '
                             'place')


def check_apart(args, source):
    """Raise InputError if the output would be input the next time."""
    if not source.is_dir():
        return
    out, folder = args.out.resolve(), source.resolve()
    if out == folder:
        raise InputError(f'--out {args.out}: is also the input folder; give another one')
    if args.recursive and folder in out.parents:
        raise InputError(f'--out {args.out}: lies in the input folder, which --recursive looks '
                         'through; give one outside')


def check_file_name(args, count):
    """Raise InputError unless --out can be a file name."""
    ext = args.out.suffix[1:].lower()
    if count > 1:
        raise InputError(f'--out {args.out}: expected a folder for {count} images')
    if ext not in LOSSLESS:
        raise InputError(f'--out {args.out}: {ext} would not keep the pixels; expected '
                         f'{", ".join(LOSSLESS)}')
    if args.suffix or args.ext not in (None, ext):
        raise InputError(f'--out {args.out}: names the file already, so --suffix and --ext have '
                         'no place')


def check_writable(folders):
    """Raise InputError unless folders exist, or can be made, and be written to."""
    for folder in folders:
        fault = folder_fault(folder)
        if fault:
            raise InputError(f'{folder}: {fault}')


def check_csv(args):
    """Raise InputError if --csv would replace a file of another kind."""
    if args.csv is None or args.overwrite or not args.csv.exists():
        return
    with args.csv.open(errors='replace', newline='') as file:
        if file.readline().strip() != ','.join(COLUMNS):
            raise InputError(f'{args.csv}: exists, and is not of mmpd-infer (--overwrite replaces '
                             'it)')


def check_device(args, processes):
    """The device, or None to take what there is."""
    import torch

    from ..utils import model
    if args.device is None:
        count = torch.cuda.device_count()
        return f'cuda:{processes.local_rank % count}' if count and processes.world_size > 1 \
            else None
    return str(model.check_device(args.device, '--device'))


def build(args, device):
    """The model; this is where MMagic is imported."""
    from ..apis import PDInferencer
    from .settings import OptionAction
    options = argparse.ArgumentParser()
    options.add_argument('--cfg-options', nargs='*', action=OptionAction)
    options = options.parse_args(['--cfg-options', *args.cfg_options]).cfg_options
    inferencer = PDInferencer(
        args.model, args.checkpoint, device, options, operator_config(args), args.strength,
        args.quantize, args.made_by, args.tile, args.tile_overlap, args.batch_size,
        args.dtype)
    samples = getattr(inferencer.model, 'num_samples', 1)
    if samples != 1:
        raise InputError(f'test_cfg.num_samples={samples}: mmpd-infer writes one file per LR '
                         'image; PDInferencer returns them all')
    return inferencer


def infer(argv=None):
    """The whole command; returns the exit code."""
    args = parse_args(argv)
    processes = Processes(args.launcher)
    resolve_model(args.model, args.checkpoint)
    plans, others = plan(args)
    check_writable({plan.target.parent for plan in plans} | (
        {args.csv.parent} if args.csv else set()))
    check_csv(args)
    if others and processes.first:
        print(f'{others} other files in the input folders are no images by their names: left out',
              file=sys.stderr)
    inferencer = build(args, check_device(args, processes))
    if processes.first and hasattr(inferencer.model.generator, 'own_pd'):
        print(f'note: {args.model}: ' + (
            "PD is the file's own, none is added" if inferencer.model.has_own_pd else
            'the file has no PD that it says of, mmpd applies it'), file=sys.stderr)
    processes.connect()
    try:
        return run(args, processes, inferencer, plans)
    except KeyboardInterrupt:
        if processes.first:
            print('interrupted: the same command goes on', file=sys.stderr)
        return 130
    finally:
        processes.close()


def run(args, processes, inferencer, plans):
    """Check all files, compute, and sum up."""
    from ..apis.folder import FolderRun, Job
    jobs = [Job(plan.source, plan.name, plan.target, plan.panel) for plan in plans]
    work = FolderRun(inferencer, jobs, args.overwrite, args.alpha, args.workers, processes.rank,
                     processes.world_size)

    def report(message):
        from tqdm import tqdm
        tqdm.write(f'error: {message}', file=sys.stderr)

    problems = work.check(processes.first and len(jobs) > 99)
    problems = [problem for found in processes.gather(problems) for problem in found]
    failures = merge(processes.gather(work.failures))
    notes = [note for found in processes.gather(work.notes) for note in found]
    if processes.first:
        for note in sorted(notes):
            print(f'note: {note}', file=sys.stderr)
        for message in (*problems, *failures.values()):
            report(message)
    if problems or len(failures) == len(jobs):
        if processes.first:
            print('error: nothing was written', file=sys.stderr)
        return 2
    failure = prepare_folders(jobs) if processes.first else None
    failure = processes.gather(failure)[0]  # nobody writes before the leftovers are gone
    if failure:
        raise InputError(failure)
    work.process(processes.first, report)
    failures = merge(processes.gather(work.failures))
    kept = sum(processes.gather(len(work.finished)))
    if processes.first:
        summarise(args, inferencer, jobs, failures, kept)
    return 1 if failures else 0


def prepare_folders(jobs):
    """Make the output folders, rid of what a killed process left; what went wrong, or None."""
    try:
        for folder in {path.parent for job in jobs for path in (job.target, job.panel) if path}:
            folder.mkdir(parents=True, exist_ok=True)
            remove_partial_files(folder)
    except OSError as error:
        return f'{folder}: cannot be made or written to: {error.strerror or error}'


def merge(dicts):
    """One dict of several."""
    return {key: value for part in dicts for key, value in part.items()}


def summarise(args, inferencer, jobs, failures, kept):
    """Write the CSV and print the means, from the records in the files."""
    from ..apis.folder import read_record
    rows = []
    for job in jobs:
        record = {} if job.source in failures else read_record(job.target)
        rows.append(dict(
            {key: record.get(key, '') for key in COLUMNS},
            name=csv_text(plain(job.name.as_posix())),
            output=csv_text(plain(job.target.as_posix())) if record else '',
            error=csv_text(failures.get(job.source, ''))))
    if args.csv is not None:
        args.csv.parent.mkdir(parents=True, exist_ok=True)
        text = io.StringIO(newline='')
        writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(args.csv, text.getvalue().encode())
    done = [row for row in rows if row['output']]

    def mean(key):
        return math.fsum(float(row[key]) for row in done) / len(done)

    if done:
        unmatched, total = (sum(row[key] for row in done)
                            for key in ('lr_values_unmatched', 'lr_values'))
        settings = inferencer.settings
        print(f'{len(done)} of {len(jobs)} images in {args.out}'
              + (f' ({kept} were there)' if kept else '')
              + f': A = {settings["operator"]}, strength {settings["strength"]}, mean PSNR(LR) '
              f'{mean("psnr_lr_raw"):.2f} -> {mean("psnr_lr"):.2f} dB, {unmatched} of {total} LR '
              'values not reproduced')
    if failures:
        print(f'{len(failures)} of {len(jobs)} images failed, see above', file=sys.stderr)


def main(argv=None):
    """The command ``mmpd-infer``."""
    try:
        return run_tool(infer, argv)
    except KeyboardInterrupt:
        print('interrupted: nothing was written', file=sys.stderr)
        return 130

