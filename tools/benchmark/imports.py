"""Time to the first iteration: what is imported, package by package, and what follows.

    python tools/benchmark/imports.py --out docs/benchmark_imports

New processes import what training needs (mmpd loads it when a registry is first asked) under
Python's -X importtime; the time of each module without those that it imports is added up by its
top-level package (that option itself slows imports).
Other new processes, without it, import, build the model of a demo config on the CPU and take one
training step; their clock begins with the process. The files are in the system's cache. Writes
OUT.json and OUT.md.
"""
import argparse
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import measuring  # noqa: E402

LINE = re.compile(r'import time:\s+(\d+) \|\s+(\d+) \| *(\S+)')
STATEMENT = 'import mmpd, mmpd.models, mmpd.datasets'
CONFIG = 'configs/pd_glean/pd_glean_in8out64-tiny_1xb8-400_demo.py'
FIRST_STEP = """
import sys, time
def told(name):
    print(name, time.time() - float(sys.argv[1]), flush=True)
told('interpreter')
import torch, torchvision
told('torch and torchvision')
import mmpd, mmpd.models, mmpd.datasets
told('everything else that is imported')
import importlib.util
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
init_default_scope('mmagic')
spec = importlib.util.spec_from_file_location('costs', sys.argv[2])
costs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(costs)
cfg = Config.fromfile(sys.argv[3])
model = costs.build(cfg, 'cpu')
wrappers = build_optim_wrapper(model, cfg.optim_wrapper)
told('model of the demo config')
model.train()
model.train_step(costs.images(model, cfg.train_dataloader.batch_size, 'cpu'), wrappers)
told('first training step')
"""


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--runs', type=int, default=5)
    parser.add_argument('--statement', default=STATEMENT, help=argparse.SUPPRESS)
    parser.add_argument('--machine', help='words for the report; default: the processor')
    parser.add_argument('--no-step', action='store_true', help='imports alone')
    parser.add_argument('--out', type=Path, help='without suffix; default: print only')
    args = parser.parse_args(argv)
    if args.runs < 1:
        parser.error(f'--runs: expected a positive integer, got {args.runs}')
    if args.out and not args.out.parent.is_dir():
        parser.error(f'--out {args.out}: its folder does not exist')
    return args


def run(*arguments):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True,
                          cwd=measuring.ROOT)
    if done.returncode:
        sys.exit(f'{" ".join(arguments[:2])} failed: {done.stderr.strip().splitlines()[-1]}')
    return done


def by_package(report):
    """top-level package -> seconds that its own modules took, from -X importtime's lines."""
    seconds = defaultdict(float)
    for own, _, name in LINE.findall(report):
        seconds[name.partition('.')[0]] += int(own) / 1e6
    return dict(seconds)


def import_times(statement, runs):
    """package -> summary of seconds, the slowest first; 'all' is their sum."""
    found = []
    for _ in range(runs):
        seconds = by_package(run('-X', 'importtime', '-c', statement).stderr)
        found.append(dict(seconds, all=sum(seconds.values())))
    names = sorted(found[0], key=lambda name: -statistics.median(f.get(name, 0) for f in found))
    return {name: measuring.summary([f.get(name, 0) for f in found]) for name in names}


def step_times(runs):
    """stage -> summary of the seconds that it took."""
    found = defaultdict(list)
    for _ in range(runs):
        output = run('-W', 'ignore', '-c', FIRST_STEP, str(time.time()),
                     str(measuring.ROOT / 'tools/analysis_tools/training_cost.py'), CONFIG).stdout
        before = 0
        for line in output.splitlines():
            name, _, moment = line.rpartition(' ')
            if re.fullmatch(r'[\d.]+', moment):
                found[name].append(float(moment) - before)
                before = float(moment)
        found['all'].append(before)
    return {name: measuring.summary(values) for name, values in found.items()}


def markdown(report):
    shown = list(report['imports'].items())
    lines = ['# Time to the first iteration', '', measuring.stated(report), '',
             ' '.join(__doc__.split('\n\n')[2].split()), '']
    if report['steps']:
        lines += [measuring.table(['stage', 's'], [[name, measuring.spread(row)] for name, row in
                                                   report['steps'].items()]), '']
    lines += [measuring.table(['package', 's'], [[f'`{name}`' if name != 'all' else name,
                                                  measuring.spread(row)]
                                                 for name, row in shown[:16]])]
    return '\n'.join(lines)


def main(argv=None):
    args = parse_args(argv)
    report = measuring.environment(argv, 'tools/benchmark/imports.py', machine=args.machine)
    run('-c', args.statement)  # the files come into the cache, bytecode is written
    report.update(statement=args.statement, imports=import_times(args.statement, args.runs),
                  steps={} if args.no_step else step_times(args.runs))
    return measuring.publish(report, markdown(report), args.out)


if __name__ == '__main__':
    sys.exit(main())
