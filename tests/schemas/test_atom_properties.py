"""Isotopes, masses and fixed coordinates: in the key where there are any, and through every form of a structure."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixAtoms, FixCartesian, FixedLine, FixedPlane, FixScaled, Hookean

from esen_flows.errors import StructureError
from esen_flows.schemas.atom_properties import AtomProperties, own_masses, properties_of, species_numbers
from esen_flows.schemas.documents import StructureData
from esen_flows.schemas.keys import atoms_key
from esen_flows.structures.conversion import as_atoms, atoms_from_json, atoms_to_json, to_pymatgen


def deuteride() -> Atoms:
    atoms = bulk("LiH", "rocksalt", a=4.08)
    atoms.set_masses([None, 2.01410178])
    return atoms


def half_silicon_30() -> Atoms:
    atoms = bulk("Si", cubic=True)
    atoms.set_masses([None, 29.97377] * 4)
    return atoms


def slab(*constraints: object) -> Atoms:
    atoms = fcc111("Al", (1, 1, 4), vacuum=6.0, periodic=True)
    atoms.set_constraint(list(constraints))
    return atoms


SPECIAL: dict[str, Callable[[], Atoms]] = {
    "LiD": deuteride,
    "two isotopes": half_silicon_30,
    "fixed atoms": lambda: slab(FixAtoms([0, 1])),
    "fixed components": lambda: slab(FixCartesian([0, 2], (True, False, True)), FixAtoms([1])),
    "along lattice vectors": lambda: slab(FixScaled([0, 3], (False, True, True))),
    "all": lambda: _with_masses(slab(FixScaled(0, (True, False, False)), FixCartesian(1, (False, True, False)))),
}


def _with_masses(atoms: Atoms) -> Atoms:
    atoms.set_masses([None, 26.5, None, 28.0])
    return atoms


def bare(atoms: Atoms) -> Atoms:
    return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


@pytest.mark.parametrize("name", SPECIAL)
def test_a_key_of_its_own_that_every_form_keeps(name: str) -> None:
    atoms = SPECIAL[name]()
    key = atoms_key(atoms)
    assert key != atoms_key(bare(atoms))
    data = StructureData.from_atoms(atoms)
    assert atoms_key(data.to_atoms()) == key
    assert atoms_key(StructureData.model_validate(data.model_dump()).to_atoms()) == key
    assert atoms_key(atoms_from_json(json.loads(json.dumps(atoms_to_json(atoms))))) == key
    assert atoms_key(atoms.copy()) == key


@pytest.mark.parametrize("name", SPECIAL)
def test_pymatgen_and_back(name: str) -> None:
    atoms = SPECIAL[name]()
    before, after = properties_of(atoms).lists(), properties_of(as_atoms(to_pymatgen(atoms))).lists()
    assert before == after


def test_all_keys_differ() -> None:
    assert len({atoms_key(make()) for make in SPECIAL.values()}) == len(SPECIAL)


def test_isotopes_and_dummies_of_pymatgen() -> None:
    from pymatgen.core import Lattice, Structure

    found = as_atoms(Structure(Lattice.cubic(4.0), ["T", "Li"], [[0, 0, 0], [0.5, 0.5, 0.5]]))
    assert found.get_chemical_symbols() == ["H", "Li"]
    assert properties_of(found).masses_u.tolist() == [3.01604928, 0.0]  # type: ignore[union-attr]
    assert to_pymatgen(deuteride())[1].specie.name == "D"
    dummy = Structure(Lattice.cubic(4.0), ["X", "Li"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with pytest.raises(StructureError, match=r"sites that are not elements \(X\)"):
        as_atoms(dummy)


def test_documents_without_properties_are_those_of_earlier_versions() -> None:
    assert list(StructureData.from_atoms(bulk("Si")).model_dump()) == [
        "numbers", "positions_angstrom", "cell_angstrom", "pbc",
    ]  # fmt: skip
    assert set(atoms_to_json(bulk("Si"))) == {"numbers", "positions_angstrom", "cell_angstrom", "pbc", "info"}


@pytest.mark.parametrize(
    ("symbol", "mass", "own"),
    [
        ("Si", 28.085, False),
        ("Si", 28.0855, False),  # the weight before 2009
        ("Si", 28.09, False),  # rounded
        ("Si", 27.9769265, True),
        ("C", 12.0107, False),
        ("C", 12.0, True),  # pure 12C, which has no isotope scattering
        ("H", 1.00794, False),
        ("H", 1.00782503, True),
        ("H", 2.0141, True),
        ("Zn", 65.409, False),
    ],
)
def test_standard_weights_are_not_masses_of_their_own(symbol: str, mass: float, own: bool) -> None:
    atoms = Atoms(symbol, masses=[mass])
    assert (own_masses(atoms.numbers, [mass]) is not None) == own
    assert (atoms_key(atoms) != atoms_key(Atoms(symbol))) == own


def test_one_way_of_writing_fixed_coordinates() -> None:
    whole = [
        FixAtoms([1]), FixCartesian(1), FixScaled(1),
        [FixCartesian(1, (True, False, True)), FixCartesian(1, (False, True, False))],
    ]  # fmt: skip
    keys = {atoms_key(slab(*(each if isinstance(each, list) else [each]))) for each in whole}
    assert len(keys) == 1
    in_plane, on_line = slab(FixedPlane(0, (0, 0, -1))), slab(FixedLine(0, (1, 0, 0)))
    assert atoms_key(in_plane) == atoms_key(slab(FixCartesian(0, (False, False, True))))
    assert atoms_key(on_line) == atoms_key(slab(FixCartesian(0, (False, True, True))))
    assert atoms_key(slab(FixAtoms(mask=[False] * 4))) == atoms_key(slab())


def test_constraints_that_cannot_be_carried_are_named() -> None:
    for constraint in (Hookean(0, 1, 5.0, rt=2.0), FixedPlane(0, (1, 1, 0))):
        with pytest.raises(StructureError, match=f"a constraint {type(constraint).__name__}"):
            atoms_key(slab(constraint))


def test_properties_of_another_number_of_atoms_are_refused() -> None:
    with pytest.raises(StructureError, match="not those of the structure's 3 atoms"):
        AtomProperties(masses_u=np.ones(2)).attach(molecule("H2O"))


def test_numbers_for_symmetry_searches() -> None:
    assert species_numbers(np.array([3, 1]), None).tolist() == [3, 1]
    assert species_numbers(np.array([3, 1]), np.array([0, 2.0141])).tolist() == [3, 1]
    mixed = species_numbers(np.array([1, 1, 3, 1]), np.array([0, 2.0, 0, 3.0]))
    assert mixed[[0, 2]].tolist() == [1, 3]
    assert len(set(mixed.tolist())) == 4
