"""Table 3 of the paper, 16x face super-resolution: test every system whose checkpoint is there.

    python tools/benchmark/table3.py --checkpoints checkpoints
    python tools/benchmark/table3.py --checkpoints work_dirs --metrics PairedMSSSIM --format csv

For each row of the table the checkpoint is looked for below the folder as {config}.pth,
{config}_*.pth (a published one), or {config}/iter_*.pth (a training's; the newest). Weights of
others with PD have no checkpoint of their own: those of the row without PD are taken. Rows without
one are listed and skipped. The results end in tools/analysis_tools/make_table.py.
"""
import argparse
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

from mmpd.cli import run_tool
from mmpd.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT / 'tools' / 'analysis_tools' / 'paper_tables.json'
METRICS = 'SRFID,PairedMSSSIM'


def config_of(name):
    """The file of a config, by its name."""
    return next((ROOT / 'configs').glob(f'*/{name}.py'))


def weights_of(name):
    """Names under which a row's checkpoint may lie: its own, then that of the row without PD.

    A twin that only puts PD behind published weights has none of its own. What was trained with
    PD (pd_glean, pd_panini) has.
    """
    plain = name.removeprefix('pd_').replace('_inside-', '_')
    return [name] if re.search(r'_\d+xb\d+', name) else list(dict.fromkeys([name, plain]))


def find_checkpoint(folder, name):
    """The checkpoint of a row below a folder, or None."""
    for own in weights_of(name):
        whole = folder / f'{own}.pth'
        found = [whole] if whole.is_file() else sorted(folder.glob(f'{own}_*.pth'))
        if len(found) > 1:
            raise InputError(f'{len(found)} checkpoints of {own} in {folder}: '
                             f'{", ".join(path.name for path in found)}; leave one')
        found = found or sorted((folder / own).glob('iter_*.pth'), key=lambda path: int(
            re.sub(r'\D', '', path.stem) or 0))
        if found:
            return found[-1]
    return None


def command(name, checkpoint, args):
    """The call of tools/test.py for one row."""
    options = ['test_cfg.type=DownsamplingTestLoop', 'test_cfg.cases=own']
    if args.metrics:
        options.append(f'test_cfg.metrics={args.metrics}')
    return [sys.executable, str(ROOT / 'tools/test.py'), str(config_of(name)), str(checkpoint),
            '--work-dir', str(Path(args.work_dirs) / name),
            '--cfg-options', *options, *args.cfg_options]


def table_tool():
    """tools/analysis_tools/make_table.py as a module."""
    path = TABLES.with_name('make_table.py')
    spec = importlib.util.spec_from_file_location('make_table', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--checkpoints', type=Path, required=True, help='folder of checkpoints')
    parser.add_argument('--work-dirs', default='work_dirs', help='folder for the tests')
    parser.add_argument('--rows', nargs='+', metavar='CONFIG', help='only these')
    parser.add_argument('--metrics', default=METRICS,
                        help=f"besides the configs' own; '' for none (default: {METRICS})")
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE',
                        help='for every test, e.g. test_dataloader.dataset.data_root=FOLDER')
    parser.add_argument('--dry-run', action='store_true', help='show what would be tested')
    parser.add_argument('--format', default='markdown', choices=['markdown', 'csv', 'json'])
    parser.add_argument('--out', help='file for the table (default: standard output)')
    return parser.parse_args(argv)


def run(argv=None):
    """Test what is there; returns 1 if a test failed."""
    args = parse_args(argv)
    if not args.checkpoints.is_dir():
        raise InputError(f'--checkpoints: no folder {args.checkpoints}')
    rows = [row for row in json.loads(TABLES.read_text())['table3']['rows']]
    names = [row['config'] for row in rows]
    unknown = [name for name in args.rows or () if name not in names]
    if unknown:
        raise InputError(f'--rows: {unknown[0]} is no row of Table 3; its configs are '
                         f'{", ".join(names)}')
    rows = [row for row in rows if not args.rows or row['config'] in args.rows]
    found = {row['config']: find_checkpoint(args.checkpoints, row['config']) for row in rows}
    failed = []
    for row in rows:
        name, checkpoint = row['config'], found[row['config']]
        if checkpoint is None:
            print(f'{row["method"]}: skipped, no {weights_of(name)[-1]}.pth in {args.checkpoints}',
                  flush=True)
            continue
        print(f'{row["method"]}: {checkpoint}', flush=True)
        if not args.dry_run and subprocess.call(command(name, checkpoint, args)):
            failed.append(row['method'])
    if failed:
        print(f'failed: {", ".join(failed)}', flush=True)
    if args.dry_run:
        return 0
    out = ['--out', args.out] if args.out else []
    code = table_tool().main(['table3', '--work-dirs', args.work_dirs, '--format', args.format,
                              *out])
    return code or int(bool(failed))


def main(argv=None):
    return run_tool(run, argv)


if __name__ == '__main__':
    sys.exit(main())
