"""Make a checkpoint small and final for a model zoo: weights only, its hash in its name."""
import argparse
import os
import sys
import tempfile
from collections import OrderedDict
from datetime import date, datetime
from pathlib import Path

import torch

from mmpd.cli import file_argument
from mmpd.utils.checkpoint import read_state_dict, strip_wrapper_prefix
from mmpd.utils.download import sha256_of

EMA, GENERATOR = 'generator_ema.', 'generator.'


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description='Strip optimizer, schedulers, log history and run configuration from a '
                    'checkpoint, and write it as STEM_YYYYMMDD-XXXXXXXX.pth, where the last eight '
                    'digits begin its sha256 hash, which torch.hub can check on download.')
    parser.add_argument('checkpoint', type=Path, help='the checkpoint, of mmengine, a bare '
                                                      'state dict, or .safetensors')
    parser.add_argument('out', type=file_argument, help='path to write to; ".pth" may be left out')
    parser.add_argument('--ema', action='store_true',
                        help='publish generator_ema as the generator')
    parser.add_argument('--drop', nargs='+', default=[], metavar='PREFIX',
                        help='leave out keys that begin so, e.g. discriminator perceptual_loss')
    parser.add_argument('--date', default=f'{date.today():%Y%m%d}', help='default: today')
    args = parser.parse_args(argv)
    try:
        datetime.strptime(args.date, '%Y%m%d')
    except ValueError:
        parser.error(f'--date: expected YYYYMMDD, got {args.date!r}')
    if args.out.suffix == '.safetensors':
        parser.error(f'{args.out}: expected a name for a .pth file, which mmengine alone loads too')
    return args


def merge_ema(state):
    """The averaged generator in place of the trained one."""
    averaged = {GENERATOR + key[len(EMA):]: value for key, value in state.items()
                if key.startswith(EMA) and key != f'{EMA}steps'}
    if not averaged:
        raise ValueError('--ema: the checkpoint has no generator_ema')
    trained = {key for key in state if key.startswith(GENERATOR)}
    if trained != set(averaged):
        key = min(trained ^ set(averaged))
        raise ValueError(f'--ema: generator and generator_ema differ, e.g. in "{key}"')
    return OrderedDict((key, averaged.get(key, value)) for key, value in state.items()
                       if not key.startswith(EMA))


def drop(state, prefixes):
    """Without the keys under any of ``prefixes``."""
    starts = [f'{prefix.rstrip(".")}.' for prefix in prefixes]
    for start in starts:
        if not any(key.startswith(start) for key in state):
            raise ValueError(f'--drop: no key begins with "{start}"')
    left = OrderedDict((key, value) for key, value in state.items()
                       if not key.startswith(tuple(starts)))
    if not left:
        raise ValueError(f'--drop {" ".join(prefixes)}: nothing would be left')
    return left


def write(state, target, day):
    """Save under a temporary name, then under the name that has the hash."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        temporary = Path(folder) / 'model.pth'  # torch writes the name into the file
        torch.save(dict(state_dict=state), temporary)
        digest = sha256_of(temporary)
        final = target.with_name(f'{target.name}_{day}-{digest[:8]}.pth')
        if final.exists():
            raise FileExistsError(f'{final} exists already, with the same content')
        os.replace(temporary, final)
    return final


def main(argv=None):
    args = parse_args(argv)
    target = args.out.with_suffix('') if args.out.suffix == '.pth' else args.out
    try:
        state = strip_wrapper_prefix(read_state_dict(args.checkpoint))
        if args.ema:
            state = merge_ema(state)
        if args.drop:
            state = drop(state, args.drop)
        # clones: a view of a larger storage would be saved with all of it
        state = OrderedDict((key, value.detach().cpu().clone()) for key, value in state.items())
        final = write(state, target, args.date)
    except (ValueError, OSError, RuntimeError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    before, after = args.checkpoint.stat().st_size, final.stat().st_size
    print(f'{final}: {len(state)} tensors, {before / 2**20:.1f} -> {after / 2**20:.1f} MiB')
    return 0


if __name__ == '__main__':
    sys.exit(main())
