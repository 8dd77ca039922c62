"""Export a restorer with PD as one graph: ONNX and torch.export.

    mmpd-export MODEL [CHECKPOINT] --out OUT [--size 128] [--format onnx torch]

MODEL is a config (then CHECKPOINT is needed), a name of the model zoo, or a checkpoint whose
network is recognised, as for mmpd-infer; a model without PD is given it.
Writes OUT.onnx and OUT.pt2, which take an LR (1, 3, h, w), RGB in [0, 1], and give the
consistent image (1, 3, s·h, s·w), not clipped; mmpd-infer takes OUT.onnx as a model. Each file is
compared with PyTorch before it is written: they must agree to 1e-4.
"""
import argparse
import io
import os

import torch

from ..errors import InputError
from ..utils.files import write_atomically
from . import file_argument, run_tool

SUFFIXES = dict(onnx='.onnx', torch='.pt2')


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', help='config, name of the zoo, or checkpoint')
    parser.add_argument('checkpoint', nargs='?', help='checkpoint, if MODEL is a config')
    parser.add_argument('--out', type=file_argument, required=True, help='path without suffix')
    parser.add_argument('--size', type=int, nargs='+', metavar='N',
                        help='height and width of the LR, or one number for both; default: the '
                        "network's in_size, else 64")
    parser.add_argument('--dynamic', action='store_true',
                        help='leave the size open (fully convolutional networks, average pooling)')
    parser.add_argument('--format', nargs='+', choices=SUFFIXES, default=list(SUFFIXES))
    parser.add_argument('--operator', choices=('average_pooling', 'bicubic', 'bilinear', 'lanczos',
                                               'box'),
                        help="A; default: the config's, average pooling for a bare checkpoint")
    parser.add_argument('--raw', action='store_true',
                        help='the network alone, without PD, which mmpd-infer then applies')
    parser.add_argument('--opset', type=int, default=18, help='of ONNX')
    parser.add_argument('--overwrite', action='store_true', help='replace existing files')
    args = parser.parse_args(argv)
    if args.size and (len(args.size) > 2 or min(args.size) < 1):
        parser.error(f'--size: expected one or two positive numbers, got {args.size}')
    if args.opset < 18:
        parser.error(f'--opset: expected at least 18, got {args.opset}')
    if args.raw and args.operator:
        parser.error(f'--operator {args.operator}: with --raw there is no PD that it would be for')
    return args


def load_model(args):
    """The model in evaluation mode, on the CPU."""
    settings = {}
    if args.operator == 'average_pooling':
        settings = dict(pd_head=dict(operator=dict(type='AveragePooling', scale=None)))
    elif args.operator:
        settings = dict(pd_head=dict(operator=dict(type='SeparableResize', scale=None,
                                                   kernel=args.operator)))
    from ..apis import loading
    return loading.load_model(args.model, args.checkpoint, **settings).model


def check_targets(args):
    """Paths by format; InputError if one must not or cannot be written."""
    folder = args.out.parent
    if not folder.is_dir():
        raise InputError(f'--out {args.out}: no folder {folder}')
    if not os.access(folder, os.W_OK):
        raise InputError(f'--out {args.out}: {folder} cannot be written to')
    if args.out.suffix.lower() in SUFFIXES.values():
        raise InputError(f'--out {args.out}: expected a name without {args.out.suffix.lower()}, '
                         'which is added')
    targets = {kind: args.out.with_name(args.out.name + SUFFIXES[kind]) for kind in args.format}
    for path in targets.values():
        if path.is_dir() or path.exists() and not args.overwrite:
            raise InputError(f'{path} exists' + ('' if path.is_dir() else
                                                 ' (--overwrite replaces it)'))
    return targets


def export(argv=None):
    args = parse_args(argv)
    targets = check_targets(args)
    from ..apis import export as engine
    from ..models.generators import OnnxGenerator
    model = load_model(args)
    if isinstance(model.generator, OnnxGenerator):
        raise InputError(f'{args.model}: expected a config, a name of the zoo or a checkpoint of '
                         'PyTorch, got an ONNX file')
    size = args.size or [getattr(model.generator, 'in_size', None) or 64]
    size = (size[0], size[-1])
    network = engine.ConsistentNetwork(model, size, args.raw).eval()
    program = engine.export_program(network, size, args.dynamic)
    sizes = [size, (size[0] + 4, 2 * size[1])] if args.dynamic else [size]
    results = {}
    for kind in targets:
        if kind == 'onnx':
            data = engine.to_onnx(program, args.opset, network.own_pd)
            difference = engine.verify_onnx(data, network, sizes)
        else:
            buffer = io.BytesIO()
            torch.export.save(program, buffer)
            data = buffer.getvalue()
            difference = engine.verify_program(data, network, sizes)
        results[kind] = data, difference
    for kind, path in targets.items():
        data, difference = results[kind]
        write_atomically(path, data)
        made = 'no PD in it' if args.raw else f'A = {network.operator!r}'
        print(f'{path}: {len(data) / 2**20:.1f} MiB, {made}, LR '
              f'{"of any size" if args.dynamic else "of {}x{}".format(*size)}, differs from '
              f'PyTorch by at most {difference:.1e}')


def main(argv=None):
    """Entry point of mmpd-export."""
    return run_tool(export, argv)
