"""The paper's claims at reduced scale on real faces: docs/evidence.md and all that stands in it.

    python tools/reproduce_reduced.py --data ../shared/data/faces128 --profile cpu
    python tools/reproduce_reduced.py --data ../shared/data/faces128 --write-docs
    python tools/reproduce_reduced.py --data ../shared/data/faces128 --pack faces128.tar

``--data`` holds the folders ``train`` and ``val`` of aligned 128-px faces (JPEG).  A prior is
trained, then pairs of restorers with and without PD, by tools/train.py and tools/test.py with the
configs in configs/reduced; seeds, images and budgets are those of tools/reduced/plan.py, fixed
beforehand.  What is done is marked in ``--out`` and not done again; a killed training goes on from
its last checkpoint.  Results: ``metrics.json``, ``evidence.md`` and pictures in ``--out``.
"""
import argparse
import importlib
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).resolve().parent))

from reduced import data as faces  # noqa: E402
from reduced import plan as plans  # noqa: E402

TOOLS_NEED = ('mmagic.datasets', 'mmagic.engine', 'mmagic.evaluation', 'mmagic.models',
              'mmagic.visualization', 'mmpd.cli.test', 'mmpd.cli.train', 'mmpd.models')


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, required=True,
                        help='folder with train and val, aligned faces of 128 px, or a file made '
                        'by --pack')
    parser.add_argument('--pack', type=Path, metavar='FILE.tar', help='write the images of --data '
                        'into one file, for another machine, and stop')
    parser.add_argument('--profile', choices=plans.PROFILES, default='cpu',
                        help='cpu: 64 px, 8x; gpu: 128 px, 8x and 16x')
    parser.add_argument('--stages', nargs='+', choices=plans.STAGES, default=list(plans.STAGES),
                        metavar='STAGE', help=f'of {", ".join(plans.STAGES)}')
    parser.add_argument('--jobs', type=int, default=2, help='processes at once')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/reduced'))
    parser.add_argument('--notes', type=Path, help='JSON object of remarks by a person, shown '
                        'beside the figures: stage -> text')
    parser.add_argument('--write-docs', action='store_true',
                        help='write docs/evidence.md, its JSON and pictures from what is done')
    args = parser.parse_args(argv)
    if args.jobs < 1:
        parser.error(f'--jobs: expected at least 1, got {args.jobs}')
    return args


def main(argv=None):
    args = parse_args(argv)
    args.data, args.out = args.data.resolve(), args.out.resolve()
    args.pack = args.pack and args.pack.resolve()
    os.chdir(ROOT)
    try:
        if args.data.is_file():
            faces.unpack(args.data, args.out / 'data')
            args.data = args.out / 'data'
        faces.check(args.data)
        if args.pack:
            faces.pack(args.data, args.pack)
            print(f'{args.pack}: {args.pack.stat().st_size / 2**20:.1f} MiB')
            return 0
    except (ValueError, OSError) as error:
        print(f'reproduce_reduced.py: {error}', file=sys.stderr)
        return 2
    profile = plans.PROFILES[args.profile]
    # processes side by side do better than threads, and must not wait spinning
    os.environ.setdefault('OMP_NUM_THREADS', str(profile.threads))
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    from reduced import page, runner
    plan = plans.Plan(profile, args.data, args.out)
    try:
        notes = page.read_notes(args.notes)
        if args.write_docs:  # also of what is done so far while a run is at work
            return page.write_docs(plan, notes)
        held = runner.lock(args.out)
        plan.prepare()
        work = runner.Runner(plan, args.stages, args.jobs)
    except ValueError as error:
        print(f'reproduce_reduced.py: {error}', file=sys.stderr)
        return 2
    if work.waiting:
        print(f'{len(work.waiting)} jobs to do, {len(work.finished)} done before; MMagic is being '
              'imported, once for all of them ...', flush=True)
        for name in TOOLS_NEED:
            importlib.import_module(name)
    good = work.run()
    metrics = page.collect(plan, notes)
    page.write(metrics, args.out / 'metrics.json', args.out / 'evidence.md')
    print(f'{args.out}/evidence.md', flush=True)
    del held
    return 0 if good else 1


if __name__ == '__main__':
    sys.exit(main())
