"""Errors that tests of the commands provoke, and what they ask of them."""
import pytest

from mmpd.errors import InputError


def refused(call, *args, match):
    with pytest.raises(InputError, match=match) as caught:
        call(*args)
    assert '\n' not in str(caught.value)


def raising(error):
    def tool(argv):
        raise error
    return tool
