"""`evaluate` takes structures as people have them: ASE, pymatgen and files, one and many."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.io import write
from small_force_field import rattled, small_checkpoint

from esen_flows.errors import InputError
from esen_flows.forcefield.contract import ForceField
from esen_flows.forcefield.load import load_force_field
from esen_flows.forcefield.network import NetworkForceField
from esen_flows.forcefield.symmetrized import Symmetrized
from esen_flows.structures.conversion import to_pymatgen

FORCE_FIELDS: dict[str, Callable[[], ForceField]] = {
    "network": lambda: NetworkForceField(small_checkpoint()),
    "averaged": lambda: Symmetrized(NetworkForceField(small_checkpoint())),
    "of ASE": lambda: load_force_field("emt"),
}


@pytest.mark.parametrize("name", FORCE_FIELDS)
def test_structures_files_and_lists_are_evaluated_alike(name: str, tmp_path: Path) -> None:
    force_field = FORCE_FIELDS[name]()
    symbol = "Cu" if name == "of ASE" else "Si"
    first, second = (rattled(bulk(symbol, "fcc", a=a, cubic=True)) for a in (3.6, 3.7))
    file = tmp_path / "both.xyz"
    write(file, [first, second], format="extxyz")
    expected = force_field.evaluate([first, second])
    both: list[Any] = [(first, second), [to_pymatgen(first), second], file, str(file), iter([first, second]), [file]]
    one: list[Any] = [first, to_pymatgen(first), tmp_path / "both.xyz@0"]
    for given, count in [(each, 2) for each in both] + [(each, 1) for each in one]:
        found = force_field.evaluate(given)
        assert len(found) == count
        for result, known in zip(found, expected, strict=False):
            assert result.energy == pytest.approx(known.energy, abs=1e-6)  # a file has eight decimals
            np.testing.assert_allclose(result.forces, known.forces, atol=1e-5)


@pytest.mark.parametrize("name", FORCE_FIELDS)
def test_anything_else_is_one_clear_error(name: str) -> None:
    force_field = FORCE_FIELDS[name]()
    for given, words in (
        (7, "got int"),
        ({"a": 1}, "got dict"),
        ([[bulk("C")]], "list of lists"),
        ("no.cif", "no such"),
    ):
        with pytest.raises(InputError, match=words):
            force_field.evaluate(given)  # type: ignore[arg-type]


def test_a_molecule_of_pymatgen_is_evaluated() -> None:
    force_field, water = FORCE_FIELDS["network"](), molecule("H2O")
    found, expected = force_field.evaluate(to_pymatgen(water)), force_field.evaluate(water)
    assert found[0].energy == pytest.approx(expected[0].energy, abs=1e-9)
