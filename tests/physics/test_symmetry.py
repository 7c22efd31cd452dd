import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell, molecule

from esen_flows.errors import StructureError
from esen_flows.physics.symmetry import conventional_cell, conventional_lengths, operation_count, space_group_number


@pytest.mark.parametrize(
    ("atoms", "number"),
    [
        (bulk("Si"), 227),
        (bulk("Ti"), 194),
        (bulk("NaCl", "rocksalt", a=5.64), 225),
        (bulk("ZnO", "wurtzite", a=3.25, c=5.2), 186),
    ],
)
def test_space_groups_of_known_crystals(atoms: Atoms, number: int) -> None:
    assert space_group_number(atoms, 1e-3) == number


def test_molecule_has_no_space_group() -> None:
    assert space_group_number(molecule("H2O"), 1e-3) is None


@pytest.mark.parametrize("written", ["primitive", "conventional", "supercell", "shifted"])
def test_conventional_cell_does_not_depend_on_how_the_crystal_is_written(written: str) -> None:
    given = bulk("Si", cubic=written == "conventional")
    if written == "supercell":
        given = make_supercell(given, [[2, 1, 0], [0, 1, 0], [0, 0, 3]])
    if written == "shifted":
        given.translate([0.3, 0.1, -0.7])
    cell = conventional_cell(given, 1e-5)
    assert len(cell) == 8
    assert cell.cell.lengths() == pytest.approx([5.43] * 3)
    assert cell.cell.angles() == pytest.approx([90.0] * 3)


def test_conventional_cell_is_not_rotated() -> None:
    given = bulk("Si")
    given.rotate(33.0, (1, 2, 3), rotate_cell=True)
    cell = conventional_cell(given, 1e-5)
    # A lattice vector of the given crystal, in its own orientation, is one of the standard cell's lattice too.
    coordinates = given.cell.array @ np.linalg.inv(cell.cell.array)
    assert 2 * coordinates == pytest.approx(np.rint(2 * coordinates), abs=1e-9)


def test_molecule_has_no_conventional_cell() -> None:
    with pytest.raises(StructureError, match="H2O is periodic in 0 of 3 directions"):
        conventional_cell(molecule("H2O"), 1e-5)


def test_no_symmetry_is_an_error() -> None:
    overlapping = Atoms("Si2", positions=[(0, 0, 0), (0, 0, 0)], cell=[3, 3, 3], pbc=True)
    with pytest.raises(StructureError, match="no symmetry found for Si2"):
        conventional_cell(overlapping, 1e-5)


def test_operations_of_a_cell_count_its_translations() -> None:
    assert operation_count(bulk("Si"), 1e-3) == 48
    assert operation_count(bulk("Si", cubic=True), 1e-3) == 4 * 48
    assert operation_count(molecule("H2O"), 1e-3) == 1


@pytest.mark.parametrize("crystal", ["diamond", "wurtzite", "hcp", "bct"])
def test_lengths_are_those_of_the_conventional_cell(crystal: str) -> None:
    made = {
        "diamond": bulk("Si", "diamond", a=5.43),
        "wurtzite": bulk("ZnO", "wurtzite", a=3.25, c=5.2),
        "hcp": bulk("Mg", "hcp", a=3.2, c=5.2) * (2, 1, 1),
        "bct": bulk("In", "bct", a=3.25, c=4.95),
    }[crystal]
    made.rotate(40, (1, 2, 3), rotate_cell=True)
    lengths = conventional_lengths(made, 0.01)
    assert lengths is not None
    np.testing.assert_allclose(lengths, conventional_cell(made, 0.01).cell.lengths(), rtol=1e-12)


def test_a_molecule_has_no_conventional_cell_to_measure() -> None:
    assert conventional_lengths(Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.7]]), 0.01) is None
