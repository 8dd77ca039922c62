"""Errors that the command line tools show as one line."""


class InputError(Exception):
    """Something the user gave is missing or wrong; the message says what and where."""


class WeightsNotFound(InputError, FileNotFoundError):
    """Pretrained weights that are neither on disk nor can be downloaded."""


class WeightsMismatch(InputError, RuntimeError):
    """Pretrained weights that are not those of the network."""


class DiskFull(InputError, OSError):
    """A file that the disk, a quota or a limit has no room for; the message names it."""


class TrainingDiverged(InputError, ArithmeticError):
    """A loss or a weight became NaN or infinite; the message says which, when and of what."""


class MissingPackage(InputError, ImportError):
    """An optional package is needed; the message says how to install it."""


class ArgumentError(InputError, ValueError):
    """An argument of the wrong type or out of range; the message names it."""


class BadSample(InputError, ValueError):
    """An image of a data set that cannot be used; the message names file, transform and reason."""

    def __init__(self, message):
        # a data loader makes it anew of a text in which a worker's traceback goes before
        super().__init__(str(message).rsplit(f'{type(self).__name__}: ', 1)[-1].strip())


def first_line(error):
    """What an error of any kind says, in one line; its type if it says nothing.

    Example:
        >>> from mmpd.errors import first_line
        >>> first_line(OSError("no space\\nleft")), first_line(KeyError())
        ('no space', 'KeyError')
    """
    return (str(error).strip() or type(error).__name__).split('\n')[0]
