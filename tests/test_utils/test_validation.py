"""The checks of arguments: what passes, what does not, and the one form of message."""
import math
from pathlib import Path

import numpy as np
import pytest

from mmpd.errors import InputError
from mmpd.utils import validation as check


@pytest.mark.parametrize('call, message', [
    (lambda: check.check_positive_int('3', 'n'), "n: expected an integer of at least 1, got '3'"),
    (lambda: check.check_positive_int(True, 'n'), 'n: expected an integer of at least 1, got True'),
    (lambda: check.check_positive_int(9, 'n', most=8),
     'n: expected an integer of at most 8, got 9'),
    (lambda: check.check_number(math.nan, 'x'), 'x: expected a finite number, got nan'),
    (lambda: check.check_number(math.inf, 'x', above=0),
     'x: expected a positive number, got inf'),
    (lambda: check.check_number(0, 'x', above=0, most=1), 'x: expected a number in (0, 1], got 0'),
    (lambda: check.check_number(1, 'x', least=0, below=1), 'x: expected a number in [0, 1), got 1'),
    (lambda: check.check_positive_int(0, 'n'), 'n: expected an integer of at least 1, got 0'),
    (lambda: check.check_positive_int(2., 'n'), 'n: expected an integer of at least 1, got 2.0'),
    (lambda: check.check_number(True, 'x'), 'x: expected a finite number, got True'),
    (lambda: check.check_number(2, 'x', most=1), 'x: expected a number in (-inf, 1], got 2'),
    (lambda: check.check_number(2, 'x', below=2), 'x: expected a number in (-inf, 2), got 2'),
    (lambda: check.check_number(-1, 'x', above=-1), 'x: expected a number in (-1, inf), got -1'),
    (lambda: check.check_number(-2, 'x', least=-1, most=1), 'x: expected a number in [-1, 1], '
     'got -2'),
    (lambda: check.check_bool(1.0, 'on'), 'on: expected True or False, got 1.0'),
    (lambda: check.check_bool(-1, 'on'), 'on: expected True or False, got -1'),
    (lambda: check.check_sequence(dict(a=1), 'v', check.check_number),
     "v: expected a sequence of at least one value, got {'a': 1}"),
    (lambda: check.check_sequence(5, 'v', check.check_number),
     'v: expected a sequence of at least one value, got 5'),
    (lambda: check.check_keys(dict(x=1), 'cfg', ('seed', )), "cfg.x: expected one of seed, got 'x'"
     ),
    (lambda: check.check_config(dict(type=3), 'part'),
     "part: expected a dict with a 'type', got {'type': 3}"),
    (lambda: check.check_bool('False', 'on'), "on: expected True or False, got 'False'"),
    (lambda: check.check_bool(2, 'on'), 'on: expected True or False, got 2'),
    (lambda: check.check_choice('c', 'k', ('a', 'b')), "k: expected one of a, b, got 'c'"),
    (lambda: check.check_str(' ', 's'), "s: expected a string, got ' '"),
    (lambda: check.check_sequence('ab', 'v', check.check_number),
     "v: expected a sequence of at least one value, got 'ab'"),
    (lambda: check.check_sequence([1, 2], 'v', check.check_number, lengths=(1, 3)),
     'v: expected a sequence of 1 or 3 values, got [1, 2]'),
    (lambda: check.check_config(dict(typ='A'), 'part'),
     "part: expected a dict with a 'type', got {'typ': 'A'}"),
    (lambda: check.check_keys(dict(quantise=1), 'test_cfg', ('quantize', 'seed')),
     "test_cfg.quantise: expected one of quantize, seed, got 'quantise'; did you mean 'quantize'?"),
    (lambda: check.check_strength(1.5), 'strength: expected a number in [0, 1], got 1.5'),
    (lambda: check.check_noise_std(-1), 'noise_std: expected a number in [0, inf), got -1'),
    (lambda: check.check_noise_std(9, most=8), 'noise_std: expected a number in [0, 8], got 9'),
    (lambda: check.check_noise_std(5, 0.5), 'strength: expected 1 beside noise_std=5, which gives '
     'the strength itself, got 0.5'),
    (lambda: check.check_bounds((1, 1)),
     'bounds: expected the lower bound first, (low, high), got (1, 1)'),
    (lambda: check.check_bounds((0, 1, 2)),
     'bounds: expected a sequence of 2 values, got (0, 1, 2)'),
    (lambda: check.check_bounds((0, 256), least=0, most=255),
     'bounds: expected a number in [0, 255], got 256'),
    (lambda: check.check_bounds((-1, 25), least=0, most=255),
     'bounds: expected a number in [0, 255], got -1'),
    (lambda: check.check_path('', 'out'), "out: expected a file, got ''"),
    (lambda: check.check_dict([1], 'cfg'), 'cfg: expected a dict, got [1]'),
])
def test_one_form_of_message(call, message):
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == message
    assert isinstance(caught.value, InputError)  # one line and code 2 in the tools


def test_what_fits_comes_back_as_python_has_it():
    assert type(check.check_positive_int(np.int64(3), 'n')) is int
    assert type(check.check_number(np.float32(0.5), 'x')) is float
    assert check.check_bool(np.True_, 'on') is True and check.check_bool(0, 'on') is False
    assert check.check_bool(1, 'on') is True and check.check_bool(np.int64(0), 'on') is False
    assert check.check_positive_int(1, 'n') == check.check_positive_int(1, 'n', most=1) == 1
    assert [check.check_number(x, 'x', least=0, most=1) for x in (0, 1)] == [0, 1]
    assert check.check_noise_std(8, most=8) == 8 and check.check_bounds((0, 9), 0, 9) == (0, 9)
    assert check.check_config(dict(type=int), 'part') == dict(type=int)
    assert check.check_sequence([1, 2, 3], 'v', check.check_number, lengths=(1, 3)) == [1, 2, 3]
    assert check.check_sequence(np.array([1., 2.]), 'v', check.check_number) == [1, 2]
    assert check.optional(check.check_number, None, 'x') is None
    assert check.check_strength(1) == 1. and check.check_strength(0) == 0.
    assert check.check_noise_std(None, 0.5) is None and check.check_noise_std(5) == 5.
    assert check.check_bounds(None) is None and check.check_bounds(np.array([0, 1])) == (0., 1.)
    assert check.check_path(Path('a'), 'out') == Path('a') and check.check_path('a', 'out') == 'a'
    assert check.check_dict(dict(a=1), 'cfg') == dict(a=1)
    assert check.check_choice('a', 'k', ('a', 'b')) == 'a'
    assert check.check_keys(dict(seed=1), 'test_cfg', ('seed', )) == dict(seed=1)
    assert check.check_config(dict(type='A'), 'part') == dict(type='A')
    assert check.check_config(3, 'part', int) == 3


def test_long_values_stay_short():
    with pytest.raises(ValueError) as caught:
        check.check_number('x' * 10_000, 'x')
    assert len(str(caught.value)) < 200


def test_arguments_of_all_bases_are_known_as_far_as_they_are_handed_on():
    class Base:
        def __init__(self, a, b=1):
            pass

    class Middle(Base):
        def __init__(self, *args, c=2, **kwargs):
            pass

    class Closed(Middle):
        def __init__(self, d):
            pass

    assert set(check.parameters_of(Middle)) == {'a', 'b', 'c'}
    assert check.parameters_of(Closed) == ['d']
