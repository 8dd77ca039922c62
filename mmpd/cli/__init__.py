"""Command lines: what they share, and those that are commands of an installed mmpd."""
import argparse
import os
import sys
from pathlib import Path

from ..errors import InputError
from ..utils.files import disk_full, is_full, plain

__all__ = ['run_tool']


def path_argument(text):
    """The ``type`` of an option that takes a path.

    An unset variable of a shell gives an empty one, which would mean the current folder.

    Args:
        text (str): What was given.

    Returns:
        Path: The same.

    Raises:
        argparse.ArgumentTypeError: There is nothing in it.

    Example:
        >>> from mmpd.cli import path_argument
        >>> path_argument('lr').name
        'lr'
        >>> path_argument('')
        Traceback (most recent call last):
            ...
        argparse.ArgumentTypeError: expected a path, got ''
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(f'expected a path, got {text!r}')
    return Path(text)


def file_argument(text):
    """The ``type`` of an option that takes a file to write: a path that ends in a name.

    Example:
        >>> from mmpd.cli import file_argument
        >>> file_argument('zoo/model').name
        'model'
        >>> file_argument('zoo/')
        Traceback (most recent call last):
            ...
        argparse.ArgumentTypeError: expected a path that ends in a file name, got 'zoo/'
    """
    path = path_argument(text)
    if not path.name or text.endswith(('/', os.sep)):
        raise argparse.ArgumentTypeError(f'expected a path that ends in a file name, got {text!r}')
    return path


def text_argument(text):
    """The ``type`` of an option that takes a file, a folder or an address; an empty one is none.

    Example:
        >>> from mmpd.cli import text_argument
        >>> text_argument('https://host/a.pth')
        'https://host/a.pth'
    """
    path_argument(text)
    return text


def run_tool(function, argv=None):
    """Run a tool; an :class:`InputError`, a full disk, or a file or folder that the system does
    not give ends it with one line and code 2.

    Ctrl-C ends it with 130.

    Args:
        function (Callable[[list[str] | None], int | None]): The tool.
        argv (list[str] | None): Its arguments; None for those of the process.

    Returns:
        int: What the tool returned, 0 for None.

    Example:
        >>> from mmpd.cli import run_tool
        >>> from mmpd.errors import InputError
        >>> def tool(argv):
        ...     if not argv:
        ...         raise InputError('expected a file')
        >>> run_tool(tool, ['lr.png'])
        0
        >>> run_tool(tool, [])  # with one line on stderr
        Traceback (most recent call last):
            ...
        SystemExit: 2
    """
    try:
        return function(argv) or 0
    except (InputError, OSError) as error:
        if not isinstance(error, InputError):
            if is_full(error):
                error = disk_full(error)
            elif isinstance(error.filename, (str, os.PathLike)):
                error = InputError(f'{plain(error.filename)}: {error.strerror}')
            else:
                raise
        message = ' '.join(str(error).split())
        print(f'{Path(sys.argv[0]).name}: {message}', file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f'{Path(sys.argv[0]).name}: interrupted', file=sys.stderr)
        raise SystemExit(130) from None
