"""Formulas and space groups of many structures: the same by several processes."""

import pytest
from ase.build import bulk

from esen_flows.campaigns import identifying
from esen_flows.campaigns.identifying import Identifier
from esen_flows.errors import StructureError
from esen_flows.structures.identity import identify

STRUCTURES = [bulk(symbol) for symbol in ("Si", "Cu", "Mg", "Cs", "Fe")]


def test_few_and_many_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identifying, "FEW", 4)
    monkeypatch.setattr(identifying, "_PART", 2)
    with Identifier() as identifier:
        few, many = identifier.begin(STRUCTURES[:3]), identifier.begin(STRUCTURES)
        assert few() == many()[:3]
        assert many() == [identify(atoms) for atoms in STRUCTURES]
        processes = list(identifier._started)
    assert processes
    assert all(process.returncode == 0 for process in processes)


def test_a_process_that_ends_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identifying, "FEW", 4)
    monkeypatch.setattr(identifying.sys, "executable", "/bin/true")
    with (
        Identifier() as identifier,
        pytest.raises(StructureError, match="spglib ended its process at one of 5 structures, from Si2 to Fe"),
    ):
        identifier.begin(STRUCTURES)()
