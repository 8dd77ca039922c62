"""Command lines: what they share, and those that are commands of an installed mmpd."""
import sys
from pathlib import Path

from ..errors import InputError
from ..utils.files import disk_full, is_full

__all__ = ['run_tool']


def run_tool(function, argv=None):
    """Run a tool; an :class:`InputError` or a full disk ends it with one line and code 2.

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
            if not is_full(error):
                raise
            error = disk_full(error)
        message = ' '.join(str(error).split())
        print(f'{Path(sys.argv[0]).name}: {message}', file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f'{Path(sys.argv[0]).name}: interrupted', file=sys.stderr)
        raise SystemExit(130) from None
