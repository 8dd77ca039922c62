"""CPU inference of GLEAN: ours against MMagic's GLEANStyleGANv2, and the limit that both have.

    python tools/benchmark/inference.py --out docs/benchmark_inference

The same random weights and one random LR, in one process, in a new random order in every round; a
ratio is the median of the rounds' ratios with its quartiles, above 1 ours is faster. "Convolutions
alone" are the convolutions of our forward pass and nothing else, on tensors of the same shapes:
nothing that leaves them as they are can be faster than that. bfloat16 and channels-last are ours
with that option; dB is the PSNR between their output and MMagic's, of a range of 2. ONNX Runtime is
measured where onnx, onnxscript and onnxruntime can be imported. Writes OUT.json and OUT.md.
"""
import argparse
import copy
import importlib.util
import math
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import mmpd  # noqa: F401  its stand-ins come before mmagic's models
from mmpd.models.generators import GLEANNet

sys.path.insert(0, str(Path(__file__).parent))
import measuring  # noqa: E402

WORTH = 1.3  # an option that gains less is not kept (issue 17)
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
    parser.add_argument('--tiny', action='store_true',
                        help='narrow networks, to try the script out: no result')
    parser.add_argument('--machine', help='words for the report; default: the processor')
    parser.add_argument('--out', type=Path, help='without suffix; default: print only')
    args = parser.parse_args(argv)
    if min(args.batch, args.threads, args.rounds) < 1:
        parser.error('--batch, --threads, --rounds: expected positive integers')
    if args.out and not args.out.parent.is_dir():
        parser.error(f'--out {args.out}: its folder does not exist')
    return args


TINY = dict(style_channels=16, num_mlps=1, rrdb_channels=8, num_rrdbs=1)


def networks(in_size, out_size, tiny=False):
    """(MMagic's, ours) with the same random weights, in evaluation mode."""
    from mmagic.models.editors.glean import GLEANStyleGANv2
    options = dict(TINY if tiny else dict(style_channels=512), in_size=in_size, out_size=out_size)
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
            key = tuple((tuple(value.shape), value.dtype) if isinstance(value, torch.Tensor)
                        else tuple(value) if isinstance(value, list) else value
                        for value in args)
            self.found[key] += 1
        return func(*args, **(kwargs or {}))


def convolutions_alone(network, lr):
    """(function that runs the convolutions of a forward pass, how many they are)."""
    with Convolutions() as seen, torch.no_grad():
        network(lr)

    def made(value):
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], torch.dtype):
            return torch.rand(value[0]).to(value[1])
        return list(value) if isinstance(value, tuple) else value

    calls = [(count, [made(value) for value in key]) for key, count in seen.found.items()]

    def run():
        for count, arguments in calls:
            for _ in range(count):
                torch.ops.aten.convolution(*arguments)

    return run, sum(seen.found.values())


def decibels(output, reference, extent=2):
    """PSNR between two outputs; None where they are equal."""
    error = (output.float() - reference.float()).square().mean().item()
    return 10 * math.log10(extent**2 / error) if error else None


def onnx_session(network, lr):
    """A function of the LR that ONNX Runtime computes; None where it cannot be imported."""
    if not all(importlib.util.find_spec(name) for name in ('onnx', 'onnxscript', 'onnxruntime')):
        return None
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / 'network.onnx')
        torch.onnx.export(network, (lr, ), path, dynamo=True, input_names=['lr'])
        session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    name = session.get_inputs()[0].name
    return lambda image: torch.from_numpy(session.run(None, {name: image.numpy()})[0])


def channels_last(network):
    """A copy whose filters lie channels-last; modulated ones have five dimensions and stay."""
    network = copy.deepcopy(network)
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def variants(ours, lr):
    """name -> (network, LR) of ours with one option each."""
    half = copy.deepcopy(ours).bfloat16()
    last, both = channels_last(ours), channels_last(half)
    lr_last = lr.contiguous(memory_format=torch.channels_last)
    return {'ours, bfloat16': (half, lr.bfloat16()), 'ours, channels-last': (last, lr_last),
            'ours, bfloat16, channels-last': (both, lr_last.bfloat16())}


def measure(args):
    """The report's part about times."""
    theirs, ours = networks(args.in_size, args.out_size, args.tiny)
    generator = torch.Generator().manual_seed(1)
    lr = torch.rand(args.batch, 3, args.in_size, args.in_size, generator=generator) * 2 - 1
    run, count = convolutions_alone(ours, lr)
    functions = {MMAGIC: lambda: theirs(lr), OURS: lambda: ours(lr), LIMIT: run}
    for name, (network, image) in variants(ours, lr).items():
        functions[name] = lambda network=network, image=image: network(image)
    session, failed = None, 'left out' if args.no_onnx else None
    try:
        session = None if args.no_onnx else onnx_session(ours, lr)
    except Exception as error:  # an exporter that does not know an operation raises what it likes
        failed = f'{type(error).__name__}: {error}'.splitlines()[0]
    if session is not None:
        functions['ours, ONNX Runtime'] = lambda: session(lr)
    with torch.no_grad():
        reference = theirs(lr)
        apart = {name: decibels(function(), reference) for name, function in functions.items()
                 if name not in (MMAGIC, LIMIT)}
        clock = time.process_time if args.clock == 'cpu' else time.perf_counter
        times = measuring.interleaved(functions, args.rounds, args.seconds, clock=clock)
    rows = {name: dict(ms=measuring.summary(values), decibels=apart.get(name),
                       against_mmagic=measuring.ratio(times[MMAGIC], values),
                       against_ours=measuring.ratio(times[OURS], values))
            for name, values in times.items()}
    return dict(convolutions=count, rows=rows,
                onnxruntime='measured' if session is not None else failed or 'not importable')


def markdown(report):
    rows = []
    for name, row in report['rows'].items():
        optional = name not in (MMAGIC, OURS, LIMIT)
        gain = row['against_ours']['median']
        rows.append([name, measuring.spread(row['ms'], 0), measuring.spread(row['against_mmagic']),
                     '-' if name in (MMAGIC, LIMIT) else 'equal' if row['decibels'] is None
                     else f'{row["decibels"]:.1f}',
                     f'{gain:.2f}: {"worth it" if gain >= WORTH else "not kept"}' if optional
                     else '-'])
    return '\n'.join([
        f'# GLEAN {report["in_size"]} → {report["out_size"]} on a CPU', '',
        *(['**Narrow networks, to try the script out: no result.**', ''] if report['tiny'] else []),
        f'{report["threads"]} thread(s), {report["clock"]} time, batch {report["batch"]}, '
        f'{report["convolutions"]} '
        f'convolutions. ' + measuring.stated(report), '',
        ' '.join(__doc__.split('\n\n')[2].split()), '',
        measuring.table(['', 'ms', 'MMagic / it', 'dB to MMagic', 'ours / it'], rows), '',
        f'ONNX Runtime: {report["onnxruntime"]}.'])


def main(argv=None):
    args = parse_args(argv)
    report = measuring.environment(argv, 'tools/benchmark/inference.py', machine=args.machine)
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    try:
        report.update(threads=args.threads, batch=args.batch, in_size=args.in_size,
                      out_size=args.out_size, tiny=args.tiny, clock=args.clock, **measure(args))
    finally:
        torch.set_num_threads(before)
    text = markdown(report)
    print(text)
    if args.out:
        measuring.write(args.out, report, text)
    return 0


if __name__ == '__main__':
    sys.exit(main())
