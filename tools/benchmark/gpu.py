"""All that is to be measured on a CUDA device, in one run of under eight minutes.

    python tools/benchmark/gpu.py --out docs/benchmark_gpu

It needs the repository and what it depends on, no data and no weights. Networks have random
weights, the same in ours and in MMagic's; all times that are compared are taken in turns in one
process, after one call of each; ratios are medians of the rounds' ratios with their quartiles, and
above 1 ours is faster. dB is the PSNR between outputs of a range of 2. A section that fails, or
comes after --minutes, is listed as not measured, with the reason. On a machine without CUDA
--device cpu --quick runs the same functions at tiny sizes, to try the script out: what it writes
then is marked as no result. Writes OUT.json and OUT.md.
"""
import argparse
import contextlib
import copy
import functools
import gc
import importlib
import importlib.util
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

import mmpd  # noqa: F401  its stand-ins come before mmagic's models
from mmpd.cli import run_tool
from mmpd.errors import InputError
from mmpd.operators import AveragePooling, SeparableResize, triton_pooling

sys.path.insert(0, str(Path(__file__).parent))
import inference  # noqa: E402
import measuring  # noqa: E402
import rounding  # noqa: E402

ROOT = measuring.ROOT
SETTINGS = dict(
    full=dict(sizes=(512, 1024, 2048), scales=(8, 16), batches=(1, 4), repeats=20, rounds=15,
              seconds=6, networks=((128, 1024), (64, 1024)), tiny=False,
              config='configs/pd_glean/pd_glean_x8_1xb4-100k_ffhq.py', rounded=(1024, (4, 8, 16)),
              layers=((4, 512, 64), (4, 256, 256), (4, 64, 1024)), images=32),
    quick=dict(sizes=(64, ), scales=(8, ), batches=(1, ), repeats=1, rounds=2, seconds=1,
               networks=((4, 8), ), tiny=True,
               config='configs/pd_glean/pd_glean_in8out64-tiny_1xb8-400_demo.py',
               rounded=(32, (4, )), layers=((1, 8, 16), ), images=2))


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', choices=('cuda', 'cpu'), default='cuda')
    parser.add_argument('--quick', action='store_true', help='tiny sizes, to try the script out')
    parser.add_argument('--sections', nargs='+', choices=tuple(SECTIONS), default=list(SECTIONS))
    parser.add_argument('--minutes', type=float, default=7.5,
                        help='begin no section after this time')
    parser.add_argument('--out', type=Path, help='without suffix; default: print only')
    args = parser.parse_args(argv)
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise InputError('torch finds no CUDA device: nothing is measured (--device cpu --quick '
                         'tries the script out)')
    if args.device == 'cpu' and not args.quick:
        raise InputError('--device cpu: expected --quick as well, for this script measures GPUs')
    if args.out and not args.out.parent.is_dir():
        raise InputError(f'--out {args.out}: its folder does not exist')
    return args


def repeated(function, count):
    """A function that calls ``function`` so often: one call is shorter than a GPU's answer."""
    def run():
        for _ in range(count):
            function()
    return run


def clear(device):
    gc.collect()
    if device == 'cuda':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_bytes(device):
    return torch.cuda.max_memory_allocated() if device == 'cuda' else None


def pd_bandwidth(args, setting):
    """PD and its backward pass against copies of the same bytes: 1 is the copy's bandwidth."""
    return [compare_pd(*case, args, setting) for case in itertools.product(
        setting['batches'], setting['sizes'], setting['scales'])]


def compare_pd(batch, size, scale, args, setting):
    """A row of :func:`pd_bandwidth`."""
    clear(args.device)
    x = torch.rand(batch, 3, size, size, device=args.device)
    y = torch.rand(batch, 3, size // scale, size // scale, device=args.device)
    operator, out, weight = AveragePooling(scale), torch.empty_like(x), x.clone()
    leaf = x.clone().requires_grad_()

    def trained():
        leaf.grad = None
        operator.project(leaf, y, check=False).backward(weight)

    functions = {
        'copy': lambda: out.copy_(x),
        'forward': lambda: operator.project(x, y, check=False),
        'forward + backward': trained,
        'plain formula': lambda: x + F.interpolate(y - F.avg_pool2d(x, scale), scale_factor=scale)}
    times = measuring.interleaved(
        {name: repeated(function, setting['repeats']) for name, function in functions.items()},
        setting['rounds'], setting['seconds'], args.device)
    # forward and backward write the image twice and keep a third
    share = {name: measuring.ratio([passes * t for t in times['copy']], times[name])
             for name, passes in (('forward', 1), ('forward + backward', 2), ('plain formula', 1))}
    copy_ms = measuring.summary(times['copy'])['median'] / setting['repeats']
    return dict(batch=batch, size=size, scale=scale, share=share, copy_ms=copy_ms,
                copy_gb_s=2 * x.numel() * 4 / copy_ms / 1e6,
                triton=triton_pooling.usable(x, y, scale))


def graphed(function, lr):
    """``function(lr)`` as a CUDA graph that is replayed, for one size."""
    static = lr.clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function(static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = function(static)

    def run(image):
        static.copy_(image)
        graph.replay()
        return output

    return run


def glean_inference(args, setting):
    """GLEAN with PD, every option of speed, against MMagic's GLEAN without PD."""
    rows = []
    for in_size, out_size in setting['networks']:
        networks = [network.to(args.device) for network in inference.networks(
            in_size, out_size, setting['tiny'])]
        for batch in setting['batches']:
            clear(args.device)
            generator = torch.Generator().manual_seed(1)
            lr = torch.rand(batch, 3, in_size, in_size, generator=generator).to(args.device) * 2 - 1
            with torch.no_grad():
                rows.append(compare_inference(*networks, lr, args, setting))
    return rows


def with_pd(network, operator, dtype):
    """A function of the LR: the network in ``dtype``, then PD in float32."""
    return lambda lr: operator.project(network(lr.to(dtype)).float(), lr, check=False)


def compare_inference(theirs, ours, lr, args, setting):
    """A row of :func:`glean_inference`."""
    cuda = args.device == 'cuda'
    expected = theirs(lr)
    operator = AveragePooling(expected.shape[-1] // lr.shape[-1])
    expected = operator.project(expected, lr, check=False)
    kinds = {'ours': (torch.float32, False)}
    for dtype in (torch.bfloat16, torch.float16) if cuda else (torch.bfloat16, ):
        name = str(dtype).partition('.')[2]
        kinds[f'ours, {name}'] = dtype, False
        kinds[f'ours, {name}, channels-last'] = dtype, True
    functions, failed = {'MMagic without PD': theirs}, {}
    for name, (dtype, last) in kinds.items():
        network = copy.deepcopy(ours).to(dtype)
        if last:
            inference.style_conv.channels_last(network)
        functions[name] = with_pd(network, operator, dtype)
        if cuda:
            try:
                functions[f'{name}, CUDA graph'] = graphed(functions[name], lr)
            except Exception as error:  # something in it cannot be captured
                failed[f'{name}, CUDA graph'] = first_line(error)
    apart = {name: inference.decibels(function(lr), expected)
             for name, function in functions.items() if name.startswith('ours')}
    times = measuring.interleaved(
        {name: functools.partial(function, lr) for name, function in functions.items()},
        setting['rounds'], setting['seconds'], args.device)
    kinds = {name: dict(ms=measuring.summary(values), decibels=apart.get(name),
                        gain=measuring.ratio(times['MMagic without PD'], values))
             for name, values in times.items()}
    return dict(in_size=lr.shape[-1], out_size=expected.shape[-1], batch=len(lr), failed=failed,
                kinds=kinds)


def training_step(args, setting):
    """A whole training step of PDGLEAN: float32, bfloat16, and with_cp; time and peak memory."""
    from mmengine.config import Config
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import init_default_scope
    init_default_scope('mmagic')
    spec = importlib.util.spec_from_file_location(
        'training_cost', ROOT / 'tools/analysis_tools/training_cost.py')
    costs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(costs)
    kinds = {'float32': {}, 'float32, with_cp': dict(cp=True)}
    if args.device == 'cuda':  # mmengine's AMP wrapper refuses CPUs
        kinds.update({'bfloat16': dict(amp=True), 'bfloat16, with_cp': dict(cp=True, amp=True)})
    rows = {}
    for name, options in kinds.items():
        clear(args.device)
        cfg = Config.fromfile(ROOT / setting['config'])
        cfg = costs.with_checkpointing(cfg) if options.get('cp') else cfg
        if options.get('amp'):
            for wrapper in (cfg.optim_wrapper.generator, cfg.optim_wrapper.discriminator):
                wrapper.update(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=1.)
        model = costs.build(cfg, args.device)
        model.train()
        wrappers = build_optim_wrapper(model, cfg.optim_wrapper)
        data = costs.images(model, cfg.train_dataloader.batch_size, args.device)
        times = measuring.interleaved(
            {'step': lambda m=model, d=data, w=wrappers: m.train_step(copy.deepcopy(d), w)},
            setting['rounds'], setting['seconds'] * 3, args.device)['step']
        rows[name] = dict(ms=measuring.summary(times), peak_bytes=peak_bytes(args.device))
        del model, wrappers, data
    return dict(config=setting['config'], kinds=rows)


def exact_rounding(args, setting):
    """The exact 8-bit rounding on the device."""
    size, scales = setting['rounded']
    options = argparse.Namespace(device=args.device, size=size, clock='wall', image=None,
                                 rounds=setting['rounds'])
    return [rounding.run_case(kind, operator, 'float', options) for scale in scales
            for kind, operator in (('pooling', AveragePooling(scale)),
                                   ('separable', SeparableResize(scale)))]


@contextlib.contextmanager
def triton_ops_on():
    """The Triton kernels of mmcv's ops, whatever the environment says of them."""
    from mmpd.compat import triton_ops
    before = os.environ.get(triton_ops.SWITCH)
    try:
        os.environ[triton_ops.SWITCH] = '1'
        triton_ops.switched_on.cache_clear()
        yield triton_ops
    finally:
        os.environ.pop(triton_ops.SWITCH)
        if before is not None:
            os.environ[triton_ops.SWITCH] = before
        triton_ops.switched_on.cache_clear()


def uses_of_ops(shape, dtype, device):
    """What StyleGAN2 does with features of a shape: use -> (op, arguments, values moved)."""
    n, c, size, _ = shape
    x = torch.rand(shape, device=device).to(dtype) - 0.5
    small = x[..., :size // 2, :size // 2].contiguous()
    taps = torch.tensor([1., 3., 3., 1.], device=device)
    kernel, bias = (torch.outer(taps, taps) / 64).to(dtype), x[0, :, 0, 0].contiguous()
    none, whole = x.new_empty(0), x.numel()
    return {
        'blur': ('upfirdn2d', (x, kernel, 1, 1, 1, 1, 2, 1, 2, 1, False, 1.), 2 * whole),
        '2 x up': ('upfirdn2d', (small, kernel, 2, 2, 1, 1, 2, 1, 2, 1, False, 4.),
                   whole + small.numel()),
        '2 x down': ('upfirdn2d', (x, kernel, 1, 1, 2, 2, 1, 1, 1, 1, False, 1.),
                     whole + small.numel()),
        'bias, leaky ReLU': ('fused_bias_leakyrelu', (x, bias, none, 3, 0, 0.2, 2**0.5),
                             2 * whole),
        'its gradient': ('fused_bias_leakyrelu', (x, none, x.flip(0), 3, 1, 0.2, 2**0.5),
                         3 * whole)}


def stand_ins(args, setting):
    """mmcv's two ops, plain and as Triton kernels, against copies of the same bytes.

    It tells where the kernels win, which decides whether they are on by default.
    """
    rows = []
    with torch.no_grad(), triton_ops_on() as triton_ops:
        for shape in ((n, c, size, size) for n, c, size in setting['layers']):
            clear(args.device)
            for dtype in (torch.float32, torch.bfloat16):
                rows += [dict(shape=list(shape), dtype=str(dtype).partition('.')[2], use=use,
                              **compare_op(*case, triton_ops, args, setting))
                         for use, case in uses_of_ops(shape, dtype, args.device).items()]
    return rows


def compare_op(op, arguments, moved, triton_ops, args, setting):
    """What is measured of one use in :func:`stand_ins`."""
    from mmpd.compat import ext_ops
    plain, taken, trust = dict(
        upfirdn2d=(ext_ops.plain_upfirdn2d, triton_ops.can_resample, triton_ops.RESAMPLING),
        fused_bias_leakyrelu=(ext_ops.plain_bias_leakyrelu, triton_ops.can_activate,
                              triton_ops.ACTIVATION))[op]
    source = arguments[0].new_zeros(moved // 2)
    out = torch.empty_like(source)
    functions = {'copy': lambda: out.copy_(source), 'plain': functools.partial(plain, *arguments)}
    apart = None
    if taken(*arguments):
        functions['Triton'] = functools.partial(getattr(ext_ops, op), *arguments)
        expected = functions['plain']().float()
        apart = (functions['Triton']().float() - expected).abs().max().item()
        apart /= expected.abs().max().item()
        del expected
    if args.device == 'cuda' and ext_ops.has_compiled_ops():
        functions['compiled'] = functools.partial(
            getattr(importlib.import_module(ext_ops.NAME), op), *arguments)
    reason = trust.failures.get(arguments[0].device)
    if reason is not None:
        functions.pop('Triton', None)
    times = measuring.interleaved(
        {name: repeated(function, setting['repeats']) for name, function in functions.items()},
        setting['rounds'], setting['seconds'] / 3, args.device)
    return dict(
        copy_ms=measuring.summary(times['copy'])['median'] / setting['repeats'],
        share={name: measuring.ratio(times['copy'], values)
               for name, values in times.items() if name != 'copy'},
        gain=(measuring.ratio(times['plain'], times['Triton']) if 'Triton' in times else None),
        apart=apart, failed=reason and first_line(reason))


def several_gpus(args, setting):
    """``tools/infer.py --launcher pytorch`` on one device and on all; without the start-up."""
    count = torch.cuda.device_count() if args.device == 'cuda' else 1
    if args.device == 'cuda' and count < 2:
        raise InputError(f'expected several CUDA devices, got {count}')
    from mmagic.registry import MODELS
    from mmengine.config import Config
    from PIL import Image
    cfg = Config.fromfile(ROOT / setting['config'])
    generator = dict(cfg.model.generator.to_dict(), init_cfg=None)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        network = MODELS.build(generator)
        torch.save({'state_dict': {f'generator.{name}': value
                                   for name, value in network.state_dict().items()}},
                   folder / 'random.pth')
        (folder / 'lr').mkdir()
        for index in range(setting['images']):
            pixels = torch.randint(256, (network.in_size, network.in_size, 3), dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / 'lr' / f'{index:03}.png')

        def seconds(processes, images):
            command = [sys.executable, '-m', 'torch.distributed.run', '--standalone',
                       f'--nproc_per_node={processes}', str(ROOT / 'tools/infer.py'),
                       str(ROOT / setting['config']), str(folder / 'random.pth'), '-i',
                       *(str(folder / 'lr' / f'{index:03}.png') for index in range(images)),
                       '-o', str(folder / 'sr'), '--overwrite', '--launcher', 'pytorch',
                       '--device', args.device]
            begin = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, env=dict(
                os.environ, PYTHONPATH=str(ROOT)))
            if done.returncode:
                raise RuntimeError((done.stderr.strip() or 'failed').splitlines()[-1])
            return time.perf_counter() - begin

        (folder / 'sr').mkdir()
        found = {}
        for processes in dict.fromkeys((1, count)):
            start = seconds(processes, processes)
            whole = seconds(processes, setting['images'])
            found[processes] = dict(start_s=start, whole_s=whole, images=setting['images'])
    return found


SECTIONS = dict(pd=pd_bandwidth, inference=glean_inference, training=training_step,
                rounding=exact_rounding, ops=stand_ins, several=several_gpus)


def first_line(error):
    return f'{type(error).__name__}: {error}'.splitlines()[0][:300]


def show_pd(rows):
    return measuring.table(
        ['image', 'copy ms', 'copy GB/s', 'PD / copy bandwidth', 'forward + backward',
         'plain formula', 'Triton'],
        [[f'{row["size"]}², {row["scale"]}×, batch {row["batch"]}', f'{row["copy_ms"]:.4f}',
          f'{row["copy_gb_s"]:.0f}', *(measuring.spread(row['share'][name]) for name in
                                      ('forward', 'forward + backward', 'plain formula')),
          'yes' if row['triton'] else 'no'] for row in rows])


def show_inference(rows):
    lines = []
    for row in rows:
        lines += [measuring.table(
            [f'{row["in_size"]} → {row["out_size"]}, batch {row["batch"]}', 'ms', 'MMagic / it',
             'dB'], [[name, measuring.spread(kind['ms']), measuring.spread(kind['gain']),
                      f'{kind["decibels"]:.1f}' if kind['decibels'] else '-']
                     for name, kind in row['kinds'].items()]), '']
        lines += [f'Not measured: {name} ({reason}).' for name, reason in row['failed'].items()]
    return '\n'.join(lines)


def show_training(found):
    first = found['kinds']['float32']['ms']['median']
    return f'`{found["config"]}`\n\n' + measuring.table(
        ['step', 'ms', 'float32 / it', 'peak memory'],
        [[name, measuring.spread(kind['ms']), f'{first / kind["ms"]["median"]:.2f}',
          f'{kind["peak_bytes"] / 1e9:.1f} GB' if kind['peak_bytes'] else '-']
         for name, kind in found['kinds'].items()])


def show_rounding(rows):
    return measuring.table(
        ['operator', 'ms', 'LR values that differ'],
        [[f'`{row["operator"]}`', measuring.spread(row['ms']),
          f'{row["unmatched"]} of {row["lr_values"]:,}'] for row in rows])


def show_ops(rows):
    kinds = [kind for kind in ('plain', 'Triton', 'compiled')
             if any(kind in row['share'] for row in rows)]
    lines = [measuring.table(
        ['features', 'dtype', 'use', 'copy ms', *(f'{kind} / copy bandwidth' for kind in kinds),
         'plain / Triton', 'apart'],
        [[' × '.join(map(str, row['shape'])), row['dtype'], row['use'], f'{row["copy_ms"]:.4f}',
          *(measuring.spread(row['share'][kind]) if kind in row['share'] else '-'
            for kind in kinds),
          measuring.spread(row['gain']) if row['gain'] else '-',
          '-' if row['apart'] is None else f'{row["apart"]:.1e}'] for row in rows]), '']
    for use in dict.fromkeys(row['use'] for row in rows):
        gains = [row['gain']['median'] for row in rows if row['use'] == use and row['gain']]
        lines.append(f'- {use}: Triton is the faster in {sum(gain > 1 for gain in gains)} of '
                     f'{len(gains)} cases.' if gains else f'- {use}: no Triton kernel ran.')
    failed = dict.fromkeys(row['failed'] for row in rows if row['failed'])
    return '\n'.join([*lines, *(f'- Not measured: {reason}.' for reason in failed)])


def show_several(found):
    return measuring.table(
        ['devices', 'start, one image each (s)', 'all images (s)', 'images'],
        [[count, f'{row["start_s"]:.1f}', f'{row["whole_s"]:.1f}', row['images']]
         for count, row in found.items()])


SHOWN = dict(pd=show_pd, inference=show_inference, training=show_training, rounding=show_rounding,
             ops=show_ops, several=show_several)


def markdown(report):
    lines = ['# Measured on a GPU', '']
    if report['quick']:
        lines += ['**Tiny sizes, to try the script out: no result.**', '']
    lines += [measuring.stated(report), '', ' '.join(__doc__.split('\n\n')[2].split()), '']
    for name, found in report['sections'].items():
        title = SECTIONS[name].__doc__.splitlines()[0]
        body = (f'Not measured: {found["failed"]}' if 'failed' in found
                else SHOWN[name](found['result']))
        lines += [f'## {title}', '', body.rstrip(), '']
    return '\n'.join(lines)


def run(argv=None):
    """Measure, print and write."""
    args = parse_args(argv)
    setting, begin = SETTINGS['quick' if args.quick else 'full'], time.perf_counter()
    report = measuring.environment(argv, 'tools/benchmark/gpu.py', args.device)
    report.update(quick=args.quick, sections={})
    for name in args.sections:
        if time.perf_counter() - begin > args.minutes * 60:
            report['sections'][name] = dict(failed=f'more than {args.minutes:g} minutes')
            continue
        try:
            report['sections'][name] = dict(result=SECTIONS[name](args, setting))
        except Exception as error:  # what is left is worth having
            report['sections'][name] = dict(failed=first_line(error))
        print(f'{name} done, {time.perf_counter() - begin:.0f} s', file=sys.stderr)
        if args.out:  # a machine that is taken back has left what was done
            measuring.write(args.out, report, markdown(report))
    return measuring.publish(report, markdown(report), args.out)


def main(argv=None):
    return run_tool(run, argv)


if __name__ == '__main__':
    sys.exit(main())
