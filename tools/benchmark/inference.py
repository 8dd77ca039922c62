"""CPU inference of GLEAN: ours against MMagic's GLEANStyleGANv2, and the limit that both have.

    python tools/benchmark/inference.py --out docs/benchmark_inference

The same random weights and one random LR, in one process, in a new random order in every round; a
ratio is the median of the rounds' ratios with its quartiles, above 1 ours is faster. "Ours" is the
network as mmpd-infer computes it, its filters laid out channels-last; "as built" is without that.
"Convolutions alone" are the convolutions of our forward pass and nothing else, on tensors of the
same shapes and layouts: nothing that leaves them as they are can be faster than that. bfloat16 is
mmpd-infer --dtype bfloat16; dB is the PSNR between an output and MMagic's, of a range of 2. ONNX
Runtime computes the graph that mmpd-export --raw makes; the export takes minutes and is kept in
--work-dir. Writes OUT.json and OUT.md.
"""
import argparse
import copy
import hashlib
import math
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import mmpd  # noqa: F401  its stand-ins come before mmagic's models
from mmpd.apis.precision import narrow
from mmpd.errors import InputError
from mmpd.models.generators import GLEANNet, OnnxGenerator, style_conv
from mmpd.utils.files import write_atomically

sys.path.insert(0, str(Path(__file__).parent))
import measuring  # noqa: E402

MMAGIC, OURS, LIMIT = 'MMagic', 'ours', 'convolutions alone'


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--in-size', type=int, default=32)
    parser.add_argument('--out-size', type=int, default=256)
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--seconds', type=float, default=240)
    parser.add_argument('--clock', choices=('wall', 'cpu'), default='wall',
                        help='cpu: processor time of all threads, for a busy machine')
    parser.add_argument('--no-onnx', action='store_true',
                        help='leave ONNX Runtime out: the export takes minutes')
    parser.add_argument('--work-dir', type=Path,
                        help='keeps the exported graph for the next time; default: none is kept')
    parser.add_argument('--prepare', action='store_true',
                        help='export into --work-dir, measure nothing')
    parser.add_argument('--tiny', action='store_true',
                        help='narrow networks, to try the script out: no result')
    parser.add_argument('--machine', help='words for the report; default: the processor')
    parser.add_argument('--out', type=Path, help='without suffix; default: print only')
    args = parser.parse_args(argv)
    if min(args.batch, args.threads, args.rounds) < 1:
        parser.error('--batch, --threads, --rounds: expected positive integers')
    if args.out and not args.out.parent.is_dir():
        parser.error(f'--out {args.out}: its folder does not exist')
    if args.work_dir and not args.work_dir.is_dir():
        parser.error(f'--work-dir {args.work_dir}: no such folder')
    if args.prepare and not args.work_dir:
        parser.error('--prepare: expected --work-dir as well')
    return args


TINY = dict(style_channels=16, num_mlps=1, rrdb_channels=8, num_rrdbs=1)


def settings(in_size, out_size, tiny=False):
    """Arguments of both networks."""
    return dict(TINY if tiny else dict(style_channels=512), in_size=in_size, out_size=out_size)


def networks(in_size, out_size, tiny=False):
    """(MMagic's, ours) with the same random weights, in evaluation mode."""
    from mmagic.models.editors.glean import GLEANStyleGANv2
    options = settings(in_size, out_size, tiny)
    torch.manual_seed(0)
    theirs, ours = GLEANStyleGANv2(**options).eval(), GLEANNet(**options).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


class Convolutions(TorchDispatchMode):
    """Counts the convolutions that run, by what they are given."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            key = tuple((tuple(value.shape), value.stride(), value.dtype)
                        if isinstance(value, torch.Tensor) else tuple(value)
                        if isinstance(value, list) else value
                        for value in args)
            self.found[key] += 1
        return func(*args, **(kwargs or {}))


def convolutions_alone(network, lr):
    """(function that runs the convolutions of a forward pass, how many they are)."""
    with Convolutions() as seen, torch.no_grad():
        network(lr)

    def made(value):
        if isinstance(value, tuple) and value and isinstance(value[-1], torch.dtype):
            shape, stride, dtype = value
            extent = 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
            return torch.rand(extent).to(dtype).as_strided(shape, stride)
        return list(value) if isinstance(value, tuple) else value

    calls = [(count, [made(value) for value in key]) for key, count in seen.found.items()]

    def run():
        for count, arguments in calls:
            for _ in range(count):
                torch.ops.aten.convolution(*arguments)

    return run, sum(seen.found.values())


def decibels(output, reference):
    """PSNR between two outputs in [-1, 1]; None where they are equal."""
    error = (output.float() - reference.float()).square().mean().item()
    return 10 * math.log10(2**2 / error) if error else None


def exported(network, args, folder):
    """The path of the network's ONNX graph as mmpd-export makes it, made if not in ``folder``.

    Without PD (--raw), so that the outputs can be compared.
    """
    from mmagic.registry import MODELS
    from mmengine.registry import init_default_scope

    from mmpd.apis import export
    init_default_scope('mmagic')
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(f'{name}{tuple(value.shape)}'.encode() + value.numpy(force=True).tobytes())
    source = Path(export.__file__).read_bytes() + Path(style_conv.__file__).read_bytes()
    digest.update(source + torch.__version__.encode())
    path = folder / f'glean_{digest.hexdigest()[:16]}.onnx'
    if not path.is_file():
        options = settings(args.in_size, args.out_size, args.tiny)
        model = MODELS.build(dict(
            type='PDModel', base='BaseEditModel', generator=dict(options, type='GLEANNet'),
            pixel_loss=dict(type='L1Loss'), data_preprocessor=dict(
                type='DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3)))
        model.generator.load_state_dict(network.state_dict())
        size = args.in_size, args.in_size
        graph = export.ConsistentNetwork(model.eval(), size, raw=True).eval()
        data = export.to_onnx(export.export_program(graph, size))
        write_atomically(path, data)
    return path


def onnx_runtime(network, lr, args, folder):
    """A function without arguments that ONNX Runtime computes as mmpd-infer has it do."""
    generator = OnnxGenerator(exported(network, args, folder))
    return lambda: generator((lr + 1) / 2) * 2 - 1


def variants(ours):
    """name -> ours as mmpd-infer computes it, and with one thing different."""
    laid, half = copy.deepcopy(ours), copy.deepcopy(ours)
    style_conv.channels_last(laid)
    narrow(half, torch.bfloat16, 'GLEAN')
    style_conv.channels_last(half)
    return {OURS: laid, 'ours, as built': ours, 'ours, bfloat16': half}


def measure(args):
    """The report's part about times."""
    theirs, ours = networks(args.in_size, args.out_size, args.tiny)
    generator = torch.Generator().manual_seed(1)
    lr = torch.rand(args.batch, 3, args.in_size, args.in_size, generator=generator) * 2 - 1
    functions = {MMAGIC: lambda: theirs(lr)}
    for name, network in variants(ours).items():
        functions[name] = lambda network=network: network(lr)
        if name == OURS:
            functions[LIMIT], count = convolutions_alone(network, lr)
    state = 'left out' if args.no_onnx else 'measured'
    if not args.no_onnx:
        try:
            with tempfile.TemporaryDirectory() as folder:
                functions['ours, ONNX Runtime'] = onnx_runtime(
                    ours, lr, args, args.work_dir or Path(folder))
        except InputError as error:  # a package is missing, or an operation does not export
            state = str(error)
    with torch.no_grad():
        reference = theirs(lr)
        functions[LIMIT]()
        apart = {name: decibels(function(), reference) for name, function in functions.items()
                 if name not in (MMAGIC, LIMIT)}
        clock = time.process_time if args.clock == 'cpu' else time.perf_counter
        times = measuring.interleaved(functions, args.rounds, args.seconds, clock=clock, warm_up=0)
    rows = {name: dict(ms=measuring.summary(values), decibels=apart.get(name),
                       against_mmagic=measuring.ratio(times[MMAGIC], values),
                       against_ours=measuring.ratio(times[OURS], values))
            for name, values in times.items()}
    return dict(convolutions=count, rows=rows,
                onnxruntime=state)


def markdown(report):
    rows = []
    for name, row in report['rows'].items():
        rows.append([name, measuring.spread(row['ms'], 0), measuring.spread(row['against_mmagic']),
                     measuring.spread(row['against_ours']),
                     '-' if name in (MMAGIC, LIMIT) else 'equal' if row['decibels'] is None
                     else f'{row["decibels"]:.1f}'])
    return '\n'.join([
        f'# GLEAN {report["in_size"]} → {report["out_size"]} on a CPU', '',
        *(['**Narrow networks, to try the script out: no result.**', ''] if report['tiny'] else []),
        f'{report["threads"]} thread(s), {report["clock"]} time, batch {report["batch"]}, '
        f'{report["convolutions"]} '
        f'convolutions. ' + measuring.stated(report), '',
        ' '.join(__doc__.split('\n\n')[2].split()), '',
        measuring.table(['', 'ms', 'MMagic / it', 'ours / it', 'dB to MMagic'], rows), '',
        f'ONNX Runtime: {report["onnxruntime"]}.'])


def main(argv=None):
    args = parse_args(argv)
    report = measuring.environment(argv, 'tools/benchmark/inference.py', machine=args.machine)
    with measuring.threads(args.threads):
        if args.prepare:
            network = networks(args.in_size, args.out_size, args.tiny)[1]
            print(exported(network, args, args.work_dir))
            return 0
        report.update(threads=args.threads, batch=args.batch, in_size=args.in_size,
                      out_size=args.out_size, tiny=args.tiny, clock=args.clock, **measure(args))
    return measuring.publish(report, markdown(report), args.out)


if __name__ == '__main__':
    sys.exit(main())
