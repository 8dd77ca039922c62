"""docs/benchmarks.md from the results of the benchmarks, docs/*.json: nothing is measured here.

    python tools/benchmark/overview.py
    python tools/benchmark/overview.py --check

Every row states medians, quartiles and ratios; below the tables stand versions, commit, machine and
date of each result. One that is not there is listed as not measured. --check: end with code 1 if
the page is not what the results give.
"""
import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import measuring  # noqa: E402

DOCS = measuring.ROOT / 'docs'
spread, table = measuring.spread, measuring.table

# Seen while the code was written; without figures, for what was not kept has no benchmark
TRIED = (
    ("PD of a small image with torch's avg_pool2d and interpolate",
     'both are parallel operations even at 32², and interpolate takes most of the formula\'s time'),
    ('PD strip by strip in NumPy on the calling thread, a helper thread beside it or not',
     'waits for nobody, but has half the speed of two threads that nobody disturbs; what lies '
     'between the two operations that read the image is done there instead'),
    ("PD of 32² with torch's avg_pool2d on all threads",
     'as fast as the plain formula while nobody else computes; beside processes that hold the '
     'cores it waits for its threads, far longer than it computes: NumPy does what is so small'),
    ("the GT's PNG files with Huffman codes alone (converters)",
     'written in less time, but larger, and slower to read in every epoch'),
    ('smaller blocks for one thread, so that an image block stays in the cache',
     'no gain (tools/benchmark/pd_head.py --blocks): the result has to be written either way'),
    ('matrix-vector products for the sums of columns on two threads',
     'MKL divides short ones among threads too'),
    ('several moves of the same windows before the LR is measured again (rounding)',
     'fewer measurements, hardly less time'),
    ('moves without damping, to the middle of the unit (rounding)',
     'no fewer iterations, and pixels move farther'),
    ('moves along higher powers of the weight (rounding)',
     'faster at first, but values whose heavy pixels are held by a bound are never matched'),
    ('least squares over the whole image first, by coordinates, one phase of the LR grid after the '
     'other (rounding)', 'far fewer values differ after a pass, but it costs as much as the moves '
     'of windows that it saves'),
    ('one pixel for each value that differs, the best by least squares (rounding)',
     'most of what differs lies in groups near pixels that a bound holds, and needs many'),
    ('first the rows between PIL\'s two passes, then the pixels that give them (rounding)',
     'more values stay unmatched than by moving pixels along A'),
    ('channels-last for StyleGAN2 without its layers written for it',
     'every modulated filter and every blur was copied back and forth: slower than without. With '
     'them it is how the CPU computes now, see CPU inference, "ours, as built"'),
    ('the blur folded into the transposed convolution', 'four times its multiplications, for a '
     'blur that costs a fraction of it once it is channels-last'),
    ('a transposed convolution as four small ones (polyphase)',
     'faster than the transposed one in the usual layout, slower than it channels-last'),
    ('PyTorch\'s large pages (THP_MEM_ALLOC_ENABLE)',
     'fewer page faults, but clearing the pages is what costs: less new memory is the remedy'),
    ('autocast to bfloat16 in place of converted weights',
     'converts the weights for every image, and MMagic\'s style layers switch it off'),
)


def load(name):
    """A result of docs/, or None."""
    path = DOCS / f'{name}.json'
    return json.loads(path.read_text()) if path.is_file() else None


def pd_load(found):
    rows = []
    for case in found['cases']:
        rows.append([
            f'{case["size"]}², {case["scale"]}×, batch {case["batch"]}',
            f'{case["threads"]}, {case["busy"]}', spread(case['methods']['ours'], 3),
            spread(case['methods']['plain formula'], 3), *map(spread, case['gain']),
            spread(case['clones'])])
    return f'{found["clock"].capitalize()} time.\n\n' + table(
        ['image', 'threads, busy processes beside', 'ours ms', 'plain formula ms', 'plain / ours',
         'the same, forward + backward', 'ours / clone'], rows)


def exact_rounding(found):
    return (f'Picture: {found["picture"]}, {found["size"]}²; {found["threads"]} thread(s), '
            f'{found["clock"]} time.\n\n') + table(
        ['operator', 'LR made by', 'ms', 'LR values that differ'],
        [[f'`{case["operator"]}`', case['library'], spread(case['ms'], 0), case['unmatched']]
         for case in found['cases']])


def cpu_inference(found):
    rows = found['rows']
    limit = rows['convolutions alone']['against_mmagic']['median']
    return (f'GLEAN {found["in_size"]} → {found["out_size"]}, batch {found["batch"]}, '
            f'{found["threads"]} thread(s), {found["clock"]} time; the limit, the convolutions '
            f'alone, is × {limit:.2f} of MMagic. ONNX Runtime: {found["onnxruntime"]}.\n\n'
            ) + table(
        ['', 'ms', 'MMagic / it', 'ours / it', 'dB to MMagic'],
        [[name, spread(row['ms'], 0), spread(row['against_mmagic']), spread(row['against_ours']),
          '-' if row['decibels'] is None else f'{row["decibels"]:.1f}']
         for name, row in rows.items()])


def first_iteration(found):
    lines = []
    if found['steps']:
        lines.append(table(['stage', 's'], [[name, spread(row)]
                                            for name, row in found['steps'].items()]))
    rows = list(found['imports'].items())[:8]
    lines.append(table(['imports', 's'], [[name, spread(row)] for name, row in rows]))
    return '\n\n'.join(lines)


def training_memory(found):
    kinds = dict(training='train_bytes', with_cp='cp_bytes', bf16='amp_bytes')
    kinds.update({'bf16, with_cp': 'amp_cp_bytes', 'MMagic': 'mmagic_bytes'})
    rows = []
    for name, cost in found.items():
        if not cost.get('mmagic_bytes'):
            continue
        sizes = [cost.get(key) for key in kinds.values()]
        rows.append([name, *(f'{size / 1e9:.1f} GB' if size else '-' for size in sizes),
                     f'{cost["mmagic_bytes"] / cost["train_bytes"]:.2f}'])
    return 'Counted, so without spread: [training_cost](training_cost.md).\n\n' + table(
        ['config', *kinds, 'MMagic / training'], rows) if rows else None


def data_path(found):
    synthesis = table(['LR synthesis', 'ms', "it / torch's uint8 path"],
                      [[name, spread(row['ms']), spread(row['ratio'])]
                       for name, row in found['synthesis'].items()])
    loader = table(['training loader', 'images per second and worker', 'a step at', 'takes',
                    f'workers for {found["options"]["margin"]:g} times as many'],
                   [[name, f'{row["per_worker"]:.1f}', f'{need["tflops"]:g} TFLOP/s (assumed)',
                     f'{need["images_per_second"]:.0f} images per second', need['workers']]
                    for name, row in found['loader'].items() for need in row['needs']])
    return f'More of it: [benchmark_data](benchmark_data.md).\n\n{synthesis}\n\n{loader}'


def converters(found):
    return (f'{found["images"]} pictures of {found["size"]}², LR {found["scale"]}×, '
            f'{found["workers"]} processes. What the loop does and what it leaves out: '
            '[benchmark_converter](benchmark_converter.md).\n\n') + table(
        ['mode', 'ours, images/s', 'bare loop, images/s', 'ours / loop', 'in CPU time'],
        [[mode, *(spread(row['images_per_second'][who], 1) for who in ('converter', 'loop')),
          spread(row['ratio']), spread(row['cpu_ratio'])] for mode, row in found['modes'].items()])


def on_a_gpu(found):
    import gpu
    return '\n\n'.join(f'### {gpu.SECTIONS[name].__doc__.splitlines()[0]}\n\n'
                       f'{gpu.SHOWN[name](part["result"])}'
                       for name, part in found['sections'].items() if 'result' in part)


SECTIONS = (
    ('PD under load', 'benchmark_pd_load', pd_load, 'tools/benchmark/pd_load.py'),
    ('Training memory', 'training_cost', training_memory, 'tools/analysis_tools/training_cost.py'),
    ('Data path', 'benchmark_data', data_path, 'tools/benchmark/data.py'),
    ('Converters', 'benchmark_converter', converters,
     'tools/analysis_tools/benchmark_converter.py'),
    ('CPU inference', 'benchmark_inference', cpu_inference, 'tools/benchmark/inference.py'),
    ('Exact 8-bit rounding', 'benchmark_rounding', exact_rounding, 'tools/benchmark/rounding.py'),
    ('Time to the first iteration', 'benchmark_imports', first_iteration,
     'tools/benchmark/imports.py'),
    ('On a GPU', 'benchmark_gpu', on_a_gpu, 'tools/benchmark/gpu.py'),
)
GPU = ('PD forward and backward (Triton) against the bandwidth of a copy', 'GLEAN with PD against '
       "MMagic's GLEAN, 8× and 16×, batch 1 and 4, bfloat16, float16, channels-last, CUDA graphs",
       'the training step with bfloat16', 'the exact rounding on CUDA',
       'upfirdn2d and bias-activation: plain PyTorch, Triton kernels (off by default until this '
       'is measured), compiled mmcv',
       'peak memory with and without with_cp', 'several GPUs by --launcher')


def page(results):
    """The text of docs/benchmarks.md.

    Args:
        results (dict[str, dict | None]): By the name of the file in docs/.
    """
    lines = ['# Benchmarks', '', 'Made by `python tools/benchmark/overview.py` from the results in '
             'docs/*.json. Times are medians with their quartiles in brackets; ratios are medians '
             'of ratios of one round, in which all methods took their turn in one process; above 1 '
             'ours is faster.', '']
    missing, sources = [], []
    for title, name, shown, script in SECTIONS:
        found = results.get(name)
        text = None
        if found is not None and not (found.get('quick') or found.get('tiny')):
            text = shown(found)
        if not text:
            missing.append(f'- {title}: `python {script} --out docs/{name}`')
            if name == 'benchmark_gpu':
                missing += [f'  - {item}' for item in GPU]
            continue
        lines += [f'## {title}', '', text, '']
        if 'versions' in found:
            sources.append(f'- **{title}** (`docs/{name}.json`): {measuring.stated(found)}')
        else:
            sources.append(f'- **{title}**: `docs/{name}.json`, made by `{script}`.')
    if missing:
        lines += ['## Not measured', '', *missing, '']
    lines += ['## What was tried and did not pay', '',
              *(f'- {what}: {why}.' for what, why in TRIED), '', '## Where and when', '', *sources]
    return '\n'.join(lines).rstrip() + '\n'


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=DOCS / 'benchmarks.md')
    parser.add_argument('--check', action='store_true', help='write nothing')
    args = parser.parse_args(argv)
    text = page({name: load(name) for _, name, *_ in SECTIONS})
    if not args.check:
        args.out.write_text(text)
    elif not args.out.is_file() or args.out.read_text() != text:
        print(f'{args.out} is not what docs/*.json give: run python tools/benchmark/overview.py',
              file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
