"""How much of mmpd/ the fast suite reaches: lines and branches, by package ("make coverage").

    python tools/fast_suite_coverage.py            # run the suite, then report
    python tools/fast_suite_coverage.py --report   # of what was measured before
    python tools/fast_suite_coverage.py tests/test_utils

Ends with 1 if the suite fails or reaches less than LINES or BRANCHES. What runs in processes that
the tests start counts too. Tests given as arguments are reported without a verdict.
"""
import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINES, BRANCHES = 92., 85.
KINDS = {'lines': ('covered_lines', 'num_statements'),
         'branches': ('covered_branches', 'num_branches')}


def call(*arguments):
    """Exit code of one of coverage's commands."""
    return subprocess.run([sys.executable, '-m', 'coverage', *arguments], cwd=ROOT, env={
        **os.environ, 'OMP_NUM_THREADS': '1'}).returncode


def by_package(files):
    """Sum up a report by the folders of mmpd/.

    Args:
        files (dict): path -> ``summary``, as in ``files`` of coverage's JSON report.

    Returns:
        dict: package -> kind -> [reached, all]; the last, ``all``, sums up the others.
    """
    found = defaultdict(lambda: {kind: [0, 0] for kind in KINDS})
    for path, report in files.items():
        parts = Path(path).parts
        parts = parts[parts.index('mmpd') + 1:]
        for package in (parts[0] if len(parts) > 1 else '(top)', 'all'):
            for kind, names in KINDS.items():
                for index, name in enumerate(names):
                    found[package][kind][index] += report['summary'][name]
    return {**{name: found[name] for name in sorted(found) if name != 'all'},
            'all': found['all']}


def share(counts):
    """Percent; of nothing all is reached."""
    return 100 * counts[0] / counts[1] if counts[1] else 100.


def table(packages):
    lines = [f'{"mmpd/":16}{"lines":>16}{"branches":>16}']
    for name, kinds in packages.items():
        lines.append(f'{name:16}' + ''.join(
            f'{share(counts):6.1f} % of{counts[1]:5}' for counts in kinds.values()))
    return '\n'.join(lines)


def shortfalls(counts):
    """What is under its limit, in words; nothing if all is well."""
    return [f'{share(counts[kind]):.1f} % of the {kind} are reached, expected {limit:.0f} %'
            for kind, limit in (('lines', LINES), ('branches', BRANCHES))
            if share(counts[kind]) < limit]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('tests', nargs='*', help='files or folders; default all, with a verdict')
    parser.add_argument('--report', action='store_true', help='run nothing')
    parser.add_argument('--json', type=Path, default=ROOT / 'work_dirs' / 'coverage.json',
                        help="coverage's report, which names the lines not reached")
    args = parser.parse_args(argv)
    failed = 0
    if not args.report:
        call('erase')
        failed = call('run', '-m', 'pytest', '-n', '2', '--dist', 'loadfile', *args.tests)
        call('combine', '--quiet')
    args.json.parent.mkdir(parents=True, exist_ok=True)
    if call('json', '--quiet', '-o', str(args.json.resolve())):
        print('error: nothing was measured', file=sys.stderr)
        return 2
    packages = by_package(json.loads(args.json.read_text())['files'])
    print(table(packages))
    print(f'lines not reached, by file: {args.json}')
    lacking = [] if args.tests else shortfalls(packages['all'])
    for line in lacking:
        print(f'error: {line}', file=sys.stderr)
    return 1 if failed or lacking else 0


if __name__ == '__main__':
    sys.exit(main())
