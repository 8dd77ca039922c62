"""Results of test runs -> a table in the paper's layout, the paper's figures beside ours.

    python tools/analysis_tools/make_table.py table2 --work-dirs work_dirs
    python tools/analysis_tools/make_table.py table4 --format csv --out table4.csv
    python tools/analysis_tools/make_table.py custom --run GLEAN=out/a.json --metrics PSNR SSIM

A run of ``tools/test.py`` leaves ``{work_dir}/{timestamp}/{timestamp}.json``; the newest one below
``{work_dirs}/{config}`` that has all columns is taken. Runs that are not there are shown as
missing.
"""
import argparse
import csv
import io
import json
import sys
from pathlib import Path

from mmpd.utils.files import csv_text, replaced

PAPER = Path(__file__).with_name('paper_tables.json')
MISSING = 'missing'
PIPE = '\\|'  # in a cell


def read_result(path, wanted=()):
    """Metrics of one test run: a JSON file of figures, or the work folder of the run.

    Args:
        path (Path): File or folder.
        wanted (Sequence[str]): Of the runs below a folder the newest one that has all of these is
            taken, or the newest of all if none has.

    Returns:
        dict | None: Metric name -> figure, which may be NaN or infinite; None if there is no
        result.

    Raises:
        ValueError: If a file is no JSON object.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.glob('*/*.json') if file.stem == file.parent.name)
        results = [read_result(file) for file in reversed(files)]
        return next((result for result in results if set(wanted) <= result.keys()),
                    results[0] if results else None)
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text(), parse_int=float)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} is no JSON file: {error}') from None
    if not isinstance(result, dict):
        raise ValueError(f'{path} holds no metrics but a {type(result).__name__}')
    return {key: value for key, value in result.items() if isinstance(value, float)}


def paper_table(name, work_dirs):
    """Title, column names and rows of one of the paper's tables.

    A run whose file cannot be read, as a killed one may leave it, is missing too; a line on the
    standard error says so.
    """
    table = json.loads(PAPER.read_text())[name]
    rows = []
    for row in table['rows']:
        try:
            result = row['config'] and read_result(
                Path(work_dirs) / row['config'], table['columns'].values())
        except (ValueError, OSError) as error:
            print(f'{row["method"]}: {MISSING}, {error}', file=sys.stderr)
            result = None
        ours = [None if result is None else result.get(key) for key in table['columns'].values()]
        rows.append(dict(dataset=row['dataset'], method=row['method'], config=row['config'],
                         ours=ours, paper=row['paper']))
    return table['title'], list(table['columns']), rows


def custom_table(runs, metrics):
    """The same for runs named on the command line.

    A run that is not there is shown as missing, and named on the standard error.

    Raises:
        ValueError: If a run is malformed or named twice, if none is there, or none has a metric.
    """
    rows, absent = {}, []
    for run in runs:
        name, _, path = run.partition('=')
        if not name or not path or name in rows:
            raise ValueError(f'--run takes NAME=PATH, every name once, got {run!r}')
        result = read_result(path)
        if result is None:
            absent.append(f'{name}: {MISSING}, no test result at {path}')
        rows[name] = result or {}
    if len(absent) == len(rows):
        raise ValueError('; '.join(absent))
    for line in absent:
        print(line, file=sys.stderr)
    known = sorted({key for result in rows.values() for key in result})
    if not known:
        raise ValueError(f'no figures in the results of {", ".join(rows)}')
    for name in metrics or ():
        if name not in known:
            raise ValueError(f'--metrics {name}: no run has it, there are: {", ".join(known)}')
    metrics = metrics or known
    return 'Results', metrics, [
        dict(dataset='', method=name, config=None, ours=[result.get(key) for key in metrics],
             paper=[None] * len(metrics)) for name, result in rows.items()]


def figure(value):
    """Three decimals below 10, two above."""
    if value is None:
        return None
    return f'{value:.3f}' if abs(value) < 10 else f'{value:.2f}'


def to_markdown(title, columns, rows):
    """Cells read "ours (paper)"."""
    def cell(ours, paper):
        mine = figure(ours) or MISSING
        return mine if paper is None else f'{mine} ({figure(paper)})'

    def line(cells):
        return f'| {" | ".join(" ".join(text.split()).replace("|", PIPE) for text in cells)} |'

    lines = [f'**{title}**, ours (paper)', '', line(['Dataset', 'Method', *columns]),
             '|' + ' --- |' * (len(columns) + 2)]
    lines += [line([row['dataset'], row['method'], *map(cell, row['ours'], row['paper'])])
              for row in rows]
    return '\n'.join(lines) + '\n'


def to_csv(title, columns, rows):
    """Two columns per figure: ours and the paper's."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(['dataset', 'method', 'config',
                     *[f'{name} ({who})' for name in columns for who in ('ours', 'paper')]])
    for row in rows:
        pairs = [x for pair in zip(row['ours'], row['paper'], strict=True) for x in pair]
        cells = [MISSING if x is None and i % 2 == 0 else x for i, x in enumerate(pairs)]
        names = [csv_text(row[key] or '') for key in ('dataset', 'method', 'config')]
        writer.writerow([*names, *cells])
    return file.getvalue()


def to_json(title, columns, rows):
    """Objects with null where there is no figure; NaN and infinity as Python's json has them."""
    return json.dumps(dict(title=title, rows=[
        dict(dataset=row['dataset'], method=row['method'], config=row['config'],
             ours=dict(zip(columns, row['ours'], strict=True)),
             paper=dict(zip(columns, row['paper'], strict=True))) for row in rows]),
        indent=1) + '\n'


FORMATS = dict(markdown=to_markdown, csv=to_csv, json=to_json)


def main(argv=None):
    """Print or write a table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('table', choices=['table2', 'table3', 'table4', 'custom'])
    parser.add_argument('--work-dirs', default='work_dirs', help='folder of the work folders')
    parser.add_argument('--run', action='append', default=[], metavar='NAME=PATH',
                        help='custom: a JSON file of metrics or a work folder')
    parser.add_argument('--metrics', nargs='+', help='custom: columns (default: all)')
    parser.add_argument('--format', choices=FORMATS, default='markdown')
    parser.add_argument('--out', type=Path, help='file (default: standard output)')
    args = parser.parse_args(argv)
    try:
        if (args.table == 'custom') != bool(args.run) or args.metrics and not args.run:
            raise ValueError("--run and --metrics go with 'custom', and only with it")
        if args.out and args.out.resolve() in (Path(run.partition('=')[2]).resolve()
                                               for run in args.run):
            raise ValueError(f'--out {args.out}: is an input')
        table = (custom_table(args.run, args.metrics) if args.table == 'custom'
                 else paper_table(args.table, args.work_dirs))
        text = FORMATS[args.format](*table)
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            for line in replaced(args.out):
                print(line, file=sys.stderr)
            args.out.write_text(text)
        else:
            print(text, end='')
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
