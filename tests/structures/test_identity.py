"""Formulas as chemists write them, and space groups as spglib finds them."""

import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.spacegroup import crystal

from esen_flows.errors import InputError
from esen_flows.structures.identity import canonical_chemsys, canonical_formula, identify, reduced_formula

# International Tables: zincblende 216, diamond 227, rocksalt 225, wurtzite 186, rutile 136.
CRYSTALS = {
    "GaAs": (bulk("GaAs", "zincblende", 5.65, cubic=True), 216, "F-43m", "As-Ga", 8),
    "Si": (bulk("Si"), 227, "Fd-3m", "Si", 2),
    "NaCl": (bulk("NaCl", "rocksalt", 5.64), 225, "Fm-3m", "Cl-Na", 2),
    "ZnS": (bulk("ZnS", "wurtzite", 3.82, c=6.26), 186, "P6_3mc", "S-Zn", 4),
    "TiO2": (
        crystal(["Ti", "O"], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.594, 4.594, 2.959, 90, 90, 90]),
        136,
        "P4_2/mnm",
        "O-Ti",
        6,
    ),
}


@pytest.mark.parametrize("formula", CRYSTALS)
def test_crystals(formula: str) -> None:
    atoms, number, symbol, chemsys, nsites = CRYSTALS[formula]
    assert identify(atoms) == {
        "formula": formula,
        "chemsys": chemsys,
        "elements": chemsys.split("-"),
        "nsites": nsites,
        "space_group_number": number,
        "space_group_symbol": symbol,
    }


def test_tolerance_decides_how_much_disorder_is_symmetry() -> None:
    atoms = bulk("Si", cubic=True)
    atoms.positions += np.random.default_rng(0).uniform(-0.02, 0.02, (8, 3))
    assert identify(atoms, symprec_angstrom=0.1)["space_group_number"] == 227
    assert identify(atoms, symprec_angstrom=1e-3)["space_group_number"] == 1


@pytest.mark.parametrize("pbc", [False, (True, True, False)])
def test_no_space_group_without_three_periods(pbc: bool | tuple[bool, ...]) -> None:
    atoms = bulk("Si")
    atoms.pbc = pbc
    assert identify(atoms)["space_group_number"] is None
    assert identify(atoms)["space_group_symbol"] is None


def test_no_space_group_where_spglib_finds_none() -> None:
    twice = Atoms("Si2", positions=[(0, 0, 0), (0, 0, 0)], cell=[3, 3, 3], pbc=True)
    assert identify(twice)["space_group_number"] is None


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_nan_and_infinity_do_not_end_the_process(number: float) -> None:
    moved, stretched = bulk("Al"), bulk("Al")
    moved.positions[0, 0] = stretched.cell[0, 1] = number
    for atoms in (moved, stretched):
        assert (identify(atoms)["formula"], identify(atoms)["space_group_number"]) == ("Al", None)


def test_molecule() -> None:
    found = identify(molecule("CH3CH2OH"))
    assert (found["chemsys"], found["elements"], found["nsites"]) == ("C-H-O", ["C", "H", "O"], 9)


@pytest.mark.parametrize("symbols", ["Ga4As4", "SiO2", "Na4Cl4", "LiFePO4", "CsPbI3", "HfO2", "Bi2Te3"])
def test_formulas_read_as_in_pymatgen(symbols: str) -> None:
    """The usual order, by electronegativity; unlike pymatgen, polyanions are never grouped."""
    from pymatgen.core import Composition

    composition = Composition(symbols)
    counts = {str(element): int(n) for element, n in composition.items()}
    assert reduced_formula(counts) == composition.reduced_formula


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("AsGa", "GaAs"),
        ("Ga2As2", "GaAs"),
        ("O2Si", "SiO2"),
        ("Ca3(PO4)2", "Ca3P2O8"),
        ("Si8", "Si"),
        ("K(Al(OH)2)2", "KAl2H4O4"),
    ],
)
def test_typed_formulas(typed: str, stored: str) -> None:
    assert canonical_formula(typed) == stored


@pytest.mark.parametrize("typed", ["", "Xx", "Si)", "(Si", "Si-2", "si", "Si0", "$where", "Si O", "{'$gt': ''}"])
def test_other_text_is_refused_as_a_formula(typed: str) -> None:
    with pytest.raises(InputError, match="not a chemical formula"):
        canonical_formula(typed)


def test_typed_chemical_systems() -> None:
    assert canonical_chemsys("Ga-As") == "As-Ga" == canonical_chemsys("As - Ga")
    with pytest.raises(InputError, match=r"\['gallium'\]"):
        canonical_chemsys("gallium-As")


def test_import_is_light() -> None:
    code = "import sys, esen_flows.structures.identity; print({'torch', 'pymatgen', 'pymongo'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
