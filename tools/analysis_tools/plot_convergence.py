"""Convergence curves of several runs from mmengine's logs, as in the paper's Fig. 3.

    python tools/analysis_tools/plot_convergence.py --run GLEAN=work_dirs/glean_x8_1xb4-100k_ffhq \
        --run "GLEAN w/ PD=work_dirs/pd_glean_x8_1xb4-100k_ffhq" --metrics PSNR FID --out fig3.png

Computed, printed, marked in the picture and written as JSON beside it: after how many iterations a
run reaches the baseline's best figure, and how many times fewer that is than the baseline needed.
"""
import argparse
import json
import math
import sys
from pathlib import Path

from mmpd.utils.files import replaced

LOWER_IS_BETTER = ('FID', 'LPIPS', 'MAE', 'MSE', 'L1', 'NIQE', 'MAXERR', 'UNMATCHED')


def read_log(path):
    """Validation figures of a run.

    Args:
        path (str | Path): Work folder, or one of mmengine's ``vis_data/*.json`` logs. All logs of
            a folder are read, so resumed runs are whole; a later log replaces what earlier ones
            hold from its first iteration on, all of it if it began anew.

    Returns:
        dict[str, dict[int, float]]: Metric -> iteration -> figure.

    Raises:
        ValueError: If there is no log or a line is damaged (other than the last of a file, which
            a kill may have cut).
    """
    path = Path(path)
    files = sorted(path.glob('*/vis_data/scalars.json')) if path.is_dir() else [path]
    files = files or sorted(path.glob('vis_data/scalars.json'))
    if not files or not files[0].is_file():
        raise ValueError(f'no log (vis_data/scalars.json) in {path}')
    curves = {}
    for file in files:
        lines, trained, begun = file.read_text(errors='replace').splitlines(), 0, False
        for number, line in enumerate(lines, 1):
            try:
                iteration, step, figures = parse(line)
            except (ValueError, TypeError, OverflowError, RecursionError):
                if number == len(lines):
                    continue
                raise ValueError(f'{file}, line {number}: damaged') from None
            if iteration is not None:
                trained = iteration
                if not begun:
                    begun = True
                    curves = {name: {at: value for at, value in curve.items() if at < trained}
                              for name, curve in curves.items()}
                continue
            if not begun and path.is_dir() and not step:
                continue  # the log of a test
            # LoggerHook gives validation the epoch as its step, 0 in iteration-based runs, unless
            # log_metric_by_epoch=False: then the training line before tells the iteration
            for name, value in figures.items():
                curves.setdefault(name, {})[step or trained] = value
    return {name: curve for name, curve in curves.items() if curve}


def parse(line):
    """A line of a log: iteration (None if it is no line of the training), step (or 0), figures.

    Raises:
        ValueError, TypeError, OverflowError, RecursionError: If it is none.
    """
    entry = json.loads(line, parse_int=float)
    if not isinstance(entry, dict):
        raise ValueError(f'expected an object, got {line}')
    iteration = int(entry['iter']) if 'iter' in entry else None
    return iteration, int(entry.get('step') or 0), {
        name: value for name, value in entry.items() if name not in ('step', 'time', 'data_time')
        and isinstance(value, float) and math.isfinite(value)}


def lower_is_better(metric):
    """Whether small figures of a metric are good."""
    name = metric.rsplit('/', 1)[-1].upper()
    return any(name == known or name.startswith(known + '_') for known in LOWER_IS_BETTER)


def speed_up(baseline, curve, metric):
    """When a curve reaches the baseline's best figure.

    Args:
        baseline (dict[int, float]): Iteration -> figure.
        curve (dict[int, float]): Likewise.
        metric (str): Decides what is better.

    Returns:
        dict: ``best`` figure of the baseline and its ``best_iteration``; ``iteration`` at which
        the curve is at least as good and ``times`` fewer, both None if it never is; ``first``,
        whether it is so from its first point on, so that it may have been before.
    """
    sign = -1 if lower_is_better(metric) else 1
    best_iteration = max(sorted(baseline), key=lambda step: sign * baseline[step])
    best = baseline[best_iteration]
    reached = [step for step in sorted(curve) if sign * curve[step] >= sign * best]
    iteration = reached[0] if reached else None
    return dict(best=best, best_iteration=best_iteration, iteration=iteration,
                times=best_iteration / iteration if iteration else None,
                first=iteration is not None and iteration == min(curve))


def fewer(found):
    """'9 times fewer', 'at least 9 times fewer', 'no fewer', 'at the very start'."""
    times = found['times']
    if not times:
        return 'at the very start'
    text = f'{times:.3g}'
    if times <= 1 or text == '1':
        return 'no fewer'
    return f'{"at least " * found["first"]}{text} times fewer'


def sentence(name, baseline, metric, found):
    """The result in words."""
    if found['iteration'] is None:
        return f"{name} does not reach {baseline}'s best {metric} of {found['best']:.4g}."
    return (f"{name} reaches {baseline}'s best {metric} of {found['best']:.4g} "
            f"({found['best_iteration']} iterations) after {found['iteration']} iterations: "
            f'{fewer(found)}.')


def draw(runs, baseline, metrics, results, out):
    """One plot per metric; stars mark where the baseline's best is reached.

    There is none where it is reached from the first point on: the picture does not show where.
    """
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot, ticker
    figure, axes = pyplot.subplots(1, len(metrics), figsize=(6 * len(metrics), 4.5),
                                   squeeze=False)
    for axis, metric in zip(axes[0], metrics, strict=True):
        for name, curves in runs.items():
            curve = sorted(curves[metric].items())
            line, = axis.plot(*zip(*curve, strict=True), marker='.', label=name,
                              linestyle='--' if name == baseline else '-')
            found = results.get((name, metric))
            if found and found['iteration'] is not None and not found['first']:
                y = runs[name][metric][found['iteration']]
                axis.plot(found['iteration'], y, marker='*', markersize=16, color=line.get_color())
                axis.annotate(f'{found["iteration"]}: {fewer(found)}', (found['iteration'], y),
                              textcoords='offset points',
                              xytext=(8, 8 if lower_is_better(metric) else -14))
        best = next(found['best'] for (_, m), found in results.items() if m == metric)
        axis.axhline(best, color='grey', linewidth=0.8, linestyle=':')
        axis.set(xlabel='iterations', ylabel=metric)
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        axis.legend()
    figure.tight_layout()
    figure.savefig(out, dpi=120)
    pyplot.close(figure)


def main(argv=None):
    """Draw; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--run', action='append', required=True, metavar='NAME=PATH',
                        help='work folder or log; at least two')
    parser.add_argument('--baseline', help='name of the run to compare with (default: the first)')
    parser.add_argument('--metrics', nargs='+', default=['PSNR'])
    parser.add_argument('--out', type=Path, default=Path('convergence.png'))
    args = parser.parse_args(argv)
    if args.out.suffix.lower() not in ('.png', '.pdf', '.svg', '.jpg'):
        parser.error(f'--out: expected a picture (.png, .pdf, .svg, .jpg), got {args.out}')
    try:
        pairs = [run.rpartition('=')[::2] for run in args.run]
        runs = {name: read_log(path) for name, path in pairs if name}
        if len(runs) != len(args.run) or len(runs) < 2:
            raise ValueError('--run takes NAME=PATH, at least two, every name once')
        if args.out.with_suffix('.json').resolve() in (Path(path).resolve() for _, path in pairs):
            raise ValueError(f'--out {args.out}: {args.out.with_suffix(".json")}: is an input')
        baseline = args.baseline or next(iter(runs))
        if baseline not in runs:
            raise ValueError(f'no run named {baseline}, there are: {", ".join(runs)}')
        for name, curves in runs.items():
            for metric in args.metrics:
                if metric not in curves:
                    raise ValueError(f'{name} has no {metric}, its log holds: '
                                     f'{", ".join(sorted(curves)) or "no validation figures"}')
        results = {(name, metric): speed_up(runs[baseline][metric], curves[metric], metric)
                   for name, curves in runs.items() if name != baseline
                   for metric in args.metrics}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        for line in replaced(args.out, args.out.with_suffix('.json')):
            print(line, file=sys.stderr)
        draw(runs, baseline, args.metrics, results, args.out)
        args.out.with_suffix('.json').write_text(json.dumps(
            [dict(run=name, baseline=baseline, metric=metric, **found)
             for (name, metric), found in results.items()], indent=1) + '\n')
    except (ValueError, OSError, ImportError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    for (name, metric), found in results.items():
        print(sentence(name, baseline, metric, found))
    return 0


if __name__ == '__main__':
    sys.exit(main())
