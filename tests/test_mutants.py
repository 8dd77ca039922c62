"""The list of mutants fits the code, so that ``make mutants`` tests what it says."""
import ast

import pytest
from mutants import MUTANTS, ROOT


@pytest.mark.parametrize('mutant', MUTANTS, ids=lambda mutant: mutant[0])
def test_every_mutant_changes_one_place(mutant):
    _, file, old, new, path, _ = mutant
    source = (ROOT / file).read_text()
    assert source.count(old) == 1, f'{file}: expected once {old!r}'
    ast.parse(source.replace(old, new))
    assert (ROOT / path).is_file()


def test_names_differ():
    assert len({mutant[0] for mutant in MUTANTS}) == len(MUTANTS) >= 17
