import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.spacegroup import crystal
from ase.symbols import string2symbols
from writings import rewritten

from esen_flows.errors import StructureError
from esen_flows.physics.canonical import canonical_cell
from esen_flows.physics.symmetry import atoms_in_primitive, centring, conventional_cell, space_group_number

SYMPREC = 1e-5


def ordered_alloy(seed: int) -> Atoms:
    """Copper and gold on a part of an ideal fcc lattice: axes of low symmetry that have equal lengths by chance."""
    rng = np.random.default_rng(seed)
    cell = make_supercell(bulk("Cu", a=3.8), [[2, 0, 0], [0, 2, 0], [0, 1, 1]])
    cell.numbers[rng.permutation(len(cell))[:2]] = 79
    return cell


# Space group, cell (Angstrom, degrees), and one atom of each orbit: generic positions show every choice that symmetry
# leaves open, and equal lengths of axes that it does not make equal show those of the lattice.
ORBITS = {
    "triclinic P1": (1, [4, 5, 6, 80, 95, 100], "CuOO", [(0, 0, 0), (0.2, 0.3, 0.4), (0.7, 0.1, 0.6)]),
    "triclinic P-1": (2, [5, 6, 7, 75, 85, 95], "CuO", [(0.1, 0.2, 0.3), (0.4, 0.35, 0.8)]),
    "P2_1/c": (14, [5.1, 5.2, 5.3, 90, 99, 90], "ZrOO", [(0.28, 0.04, 0.21), (0.07, 0.33, 0.34), (0.45, 0.76, 0.48)]),
    "C2/c": (15, [4.7, 3.4, 5.1, 90, 99, 90], "CuO", [(0.25, 0.25, 0), (0, 0.42, 0.25)]),
    "P222, cubic axes": (16, [6, 6, 6, 90, 90, 90], "CuO", [(0.1, 0.2, 0.3), (0, 0, 0)]),
    "Amm2": (38, [4, 5.6, 5.7, 90, 90, 90], "BaTiO", [(0, 0, 0), (0.5, 0, 0.51), (0, 0, 0.49)]),
    "Pnma, a = c": (62, [5.4, 7.6, 5.4, 90, 90, 90], "CaTiO", [(0.04, 0.25, 0.99), (0, 0, 0.5), (0.48, 0.25, 0.07)]),
    "rutile": (136, [4.6, 4.6, 2.96, 90, 90, 90], "TiO", [(0, 0, 0), (0.305, 0.305, 0)]),
    "quartz": (154, [4.9, 4.9, 5.4, 90, 90, 120], "SiO", [(0.47, 0, 0), (0.41, 0.27, 0.12)]),
    "calcite": (167, [5, 5, 17, 90, 90, 120], "CaCO", [(0, 0, 0), (0, 0, 0.25), (0.257, 0, 0.25)]),
    "wurtzite": (186, [3.2, 3.2, 5.2, 90, 90, 120], "ZnO", [(1 / 3, 2 / 3, 0), (1 / 3, 2 / 3, 0.38)]),
    "pyrite": (205, [5.4, 5.4, 5.4, 90, 90, 90], "FeS", [(0, 0, 0), (0.385, 0.385, 0.385)]),
    "F-43c": (219, [9, 9, 9, 90, 90, 90], "CuO", [(0, 0, 0), (0.06, 0.12, 0.24)]),
    "diamond": (227, [5.43, 5.43, 5.43, 90, 90, 90], "Si", [(0, 0, 0)]),
}
CRYSTALS = {
    name: crystal(string2symbols(symbols), basis, spacegroup=number, cellpar=cell)
    for name, (number, cell, symbols, basis) in ORBITS.items()
} | {f"ordered alloy {seed}": ordered_alloy(seed) for seed in range(4)}


@pytest.mark.parametrize("name", CRYSTALS)
@pytest.mark.parametrize("noise_angstrom", [0.0, 1e-9])
def test_all_writings_of_a_crystal_have_one_canonical_cell(name: str, noise_angstrom: float) -> None:
    reference = canonical_cell(CRYSTALS[name], SYMPREC)
    for seed in range(4):
        given = rewritten(CRYSTALS[name] * ((1, 1, 2) if seed == 1 else 1), seed, noise_angstrom)
        cell = canonical_cell(given, SYMPREC)
        assert cell.numbers.tolist() == reference.numbers.tolist()
        np.testing.assert_allclose(cell.cell.cellpar(), reference.cell.cellpar(), atol=1e-7)
        fractions = cell.get_scaled_positions(wrap=False)
        np.testing.assert_allclose(fractions, reference.get_scaled_positions(wrap=False), atol=1e-7)


@pytest.mark.parametrize("name", CRYSTALS)
def test_it_is_a_standard_cell_of_the_same_crystal_in_its_orientation(name: str) -> None:
    given = rewritten(CRYSTALS[name], 5)
    cell, standard = canonical_cell(given, SYMPREC), conventional_cell(given, SYMPREC)
    assert space_group_number(cell, SYMPREC) == space_group_number(given, SYMPREC)
    assert centring(cell, SYMPREC) == centring(standard, SYMPREC)
    np.testing.assert_allclose(cell.cell.cellpar(), standard.cell.cellpar(), atol=1e-6)
    several = cell.repeat(2)
    index = atoms_in_primitive(several, given)  # modulo the lattice of the given cell
    assert (several.numbers == given.numbers[index]).all()
    apart = several.positions - given.positions[index]
    lattice_vectors = (apart - apart[0]) @ np.linalg.inv(given.cell.array)
    np.testing.assert_allclose(lattice_vectors, np.rint(lattice_vectors), atol=1e-6)


def test_atoms_of_the_rarest_species_are_origins_and_atoms_are_sorted() -> None:
    cell = canonical_cell(rewritten(CRYSTALS["calcite"], 1), SYMPREC)
    assert cell.numbers.tolist() == [6] * 6 + [8] * 18 + [20] * 6
    assert np.linalg.norm(cell.positions[0]) < 1e-9
    assert np.linalg.det(cell.cell.array) > 0


def test_mirror_images_of_a_chiral_crystal_are_different() -> None:
    left, right = CRYSTALS["quartz"], CRYSTALS["quartz"].copy()
    right.set_scaled_positions(-right.get_scaled_positions())
    first, second = (canonical_cell(atoms, SYMPREC).get_scaled_positions(wrap=False) for atoms in (left, right))
    assert np.abs(first - second).max() > 0.01


def test_isotopes_are_another_species() -> None:
    mixed = bulk("LiH", "rocksalt", a=4.08, cubic=True)
    masses = mixed.get_masses()
    masses[1] = 2.014
    mixed.set_masses(masses)
    assert mixed.symbols[1] == "H"
    cell = canonical_cell(mixed, SYMPREC)
    assert cell.get_masses().tolist() == sorted(cell.get_masses())


def test_a_molecule_has_none() -> None:
    with pytest.raises(StructureError, match="periodic in 0 of 3 directions"):
        canonical_cell(Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.7]]), SYMPREC)
