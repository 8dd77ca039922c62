"""Real-ESRGAN made consistent, then a GLEAN and its PD twin trained from scratch (``make demo``).

Offline, on two CPU cores, in a few minutes. Results: ``work_dirs/demo/report.md``,
``metrics.json``, ``real_esrgan.png`` and ``comparison.png``; logs lie beside them.
"""
import argparse
import dataclasses
import datetime
import json
import os
import platform
import sys
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEMO = Path('work_dirs/demo')


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--iters', type=int, default=300, help='training iterations per model')
    parser.add_argument('--only', choices=('real', 'twins'), help='one of the two parts')
    args = parser.parse_args(argv)
    if args.iters < 1:
        parser.error(f'--iters: expected at least 1, got {args.iters}')
    return args


def share_the_machine():
    """Threads that wait for each other sleep.

    Spinning, as they do by default, they lose time to other programs on a busy machine. Must be
    called before torch is imported; the tools inherit it.
    """
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')


def write_report(real, twins, elapsed):
    """report.md and metrics.json, of the parts that were run."""
    import real_weights
    import twins as training
    parts, metrics = [], {}
    if real:
        parts.append(real_weights.report(real))
        metrics['real_weights'] = dict(real, weights=dataclasses.asdict(real['weights']))
    if twins:
        parts.append(training.report(twins))
        metrics['twins'] = twins
    (DEMO / 'report.md').write_text(
        '# mmpd demo\n\n'
        f'{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} CPU cores, '
        f'{elapsed:.0f} s in all. Made by `make demo` '
        '(tools/demo).\n\n' + ''.join(parts))
    (DEMO / 'metrics.json').write_text(json.dumps(metrics, indent=2) + '\n')


def main(argv=None):
    args = parse_args(argv)
    os.chdir(ROOT)
    warnings.filterwarnings('ignore')  # of MMagic's imports
    share_the_machine()
    start = time.perf_counter()
    DEMO.mkdir(parents=True, exist_ok=True)
    import real_weights
    import twins as training
    real = None if args.only == 'twins' else real_weights.run(DEMO)
    try:
        twins = None if args.only == 'real' else training.run(DEMO, args.iters)
    except training.ToolFailed as error:
        print(f'\ndemo: {error}', file=sys.stderr)
        return 1
    elapsed = time.perf_counter() - start
    write_report(real, twins, elapsed)
    for part, results in ((real_weights, real), (training, twins)):
        if results:
            print(f'\n{part.table(results)}')
    print(f'\nReport and pictures: {DEMO}/report.md   ({elapsed:.0f} s in all)')
    if twins and training.failed(twins):
        print('demo: PDGLEAN is not as consistent or as good as it should be, see the table.',
              file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
