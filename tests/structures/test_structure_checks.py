"""Structures that are refused before anything expensive is computed."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, graphene, molecule
from ase.constraints import FixAtoms, FixBondLength

from esen_flows.errors import StructureError, UnknownElementError
from esen_flows.schemas.card import resolve_model
from esen_flows.schemas.protocols import RelaxProtocol
from esen_flows.structures.checks import check_crystal, check_elements, check_relaxation, check_size, check_structure

SILICON = bulk("Si", "diamond", a=5.43, cubic=True)


def silicon_with(atom: int, position: list[float]) -> Atoms:
    """Cubic silicon with one atom elsewhere."""
    atoms = SILICON.copy()
    atoms.positions[atom] = position
    return atoms


@pytest.mark.parametrize(
    ("atoms", "words"),
    [
        (silicon_with(3, [0.3, 5.43, 0.0]), r"atoms 0 \(Si\) and 3 \(Si\) are 0.300 Angstrom apart"),  # across the cell
        (Atoms("Si", cell=[0.4, 5, 5], pbc=True), r"its periodic image are 0\.400"),
        (Atoms("Si2", positions=[[0, 0, 0], [0, 0, 0]]), r"are 0\.000 Angstrom apart"),
        (silicon_with(2, [0.0, np.nan, 0.0]), "NaN"),
        (Atoms("Si", cell=[[5, 0, 0], [5, 0, 0], [0, 0, 5]], pbc=True), "flat or missing lattice vector"),
        (Atoms("Si", pbc=True), "flat or missing lattice vector"),
        (Atoms(cell=[5, 5, 5], pbc=True), "holds no atoms"),
        (Atoms("XSi", positions=[[0, 0, 0], [2, 2, 2]]), "dummy"),
    ],
)
def test_impossible_structures_are_refused(atoms: Atoms, words: str) -> None:
    with pytest.raises(StructureError, match=words):
        check_structure(atoms, "Si.cif")


def test_the_shortest_bond_is_accepted() -> None:
    check_structure(molecule("H2"), "H2.xyz")  # 0.74 Angstrom


def test_elements_outside_of_the_training(header_only_checkpoint: Path) -> None:
    model = resolve_model(header_only_checkpoint)
    check_elements(SILICON, model)
    with pytest.raises(UnknownElementError, match="silicon never saw Na, Cl; it knows Si"):
        check_elements(bulk("NaCl", "rocksalt", a=5.64), model)


@pytest.mark.parametrize(
    "crystal",
    [SILICON, bulk("Si"), bulk("Cs", "bcc", a=6.1), bulk("Xe", "fcc", a=6.2), bulk("Mg")],
    ids=["Si8", "Si2", "Cs", "Xe", "Mg"],
)
def test_crystals_are_crystals(crystal: Atoms) -> None:
    check_crystal(crystal, "crystal", "kappa")


def test_layered_crystals_are_crystals_but_one_layer_is_not() -> None:
    layer = graphene()
    layer.pbc = True
    layer.cell[2] = [0, 0, 3.35]
    check_crystal(layer, "graphite", "kappa")
    layer.cell[2] = [0, 0, 20.0]
    with pytest.raises(StructureError, match=r"20\.0 Angstrom of vacuum along c"):
        check_crystal(layer, "graphene", "kappa")


def test_molecules_and_slabs_are_not_crystals() -> None:
    with pytest.raises(StructureError, match=r"kappa needs a crystal, but H2O\.xyz is periodic in 0 of 3"):
        check_crystal(molecule("H2O"), "H2O.xyz", "kappa")
    boxed = molecule("SiH4", vacuum=6.0)
    boxed.pbc = True
    with pytest.raises(StructureError, match="vacuum along"):
        check_crystal(boxed, "box.cif", "kappa")
    slab = fcc111("Al", (1, 1, 3), vacuum=6.0)
    with pytest.raises(StructureError, match="periodic in 2 of 3"):
        check_crystal(slab, "slab.cif", "phonon")


def test_the_cell_of_a_slab_is_not_relaxed() -> None:
    check_relaxation(SILICON, "Si.cif", RelaxProtocol())
    check_relaxation(molecule("H2O"), "H2O.xyz", RelaxProtocol())  # there is none
    slab = fcc111("Al", (1, 1, 3), vacuum=6.0)
    check_relaxation(slab, "slab.cif", RelaxProtocol(relax_cell=False))
    with pytest.raises(StructureError, match=r"slab\.cif is periodic in 2 of 3 directions"):
        check_relaxation(slab, "slab.cif", RelaxProtocol())


def fixed(atoms: Atoms) -> Atoms:
    atoms = atoms.copy()
    atoms.set_constraint(FixAtoms([0]))
    return atoms


def test_fixed_atoms_need_a_constant_cell_and_free_symmetry() -> None:
    crystal = fixed(SILICON)
    check_relaxation(crystal, "Si.vasp", RelaxProtocol(relax_cell=False))
    check_relaxation(fixed(molecule("H2O")), "H2O.xyz", RelaxProtocol())  # there is no cell to relax
    with pytest.raises(
        StructureError, match=r"Si\.vasp has fixed atoms .* changing cell would move; set relax_cell=fal"
    ):
        check_relaxation(crystal, "Si.vasp", RelaxProtocol())
    with pytest.raises(StructureError, match=r"symmetry=lock would move .*; set symmetry=free"):
        check_relaxation(crystal, "Si.vasp", RelaxProtocol(relax_cell=False, symmetry="lock"))


@pytest.mark.parametrize("purpose", ["phonon", "conductivity"])
def test_properties_in_which_every_atom_moves_refuse_fixed_atoms(purpose: str) -> None:
    with pytest.raises(StructureError, match=f"{purpose} moves every atom, but Si.vasp has fixed atoms"):
        check_crystal(fixed(SILICON), "Si.vasp", purpose)


def test_other_constraints_are_named() -> None:
    atoms = SILICON.copy()
    atoms.set_constraint(FixBondLength(0, 1))
    with pytest.raises(StructureError, match=r"Si\.json: Si8 has a constraint FixBondLength.*; remove it"):
        check_relaxation(atoms, "Si.json", RelaxProtocol())


@pytest.mark.parametrize(
    ("length", "words"),
    [(1e300, "cell vectors of 1e.300 Angstrom"), (2e5, "cell vectors of 2e.05"), (np.inf, "infinite cell vectors")],
)
def test_cells_of_absurd_size(length: float, words: str) -> None:
    with pytest.raises(StructureError, match=words):
        check_structure(Atoms("Si", cell=[length] * 3, pbc=True), "huge.xyz")


def test_absurd_places_and_masses() -> None:
    with pytest.raises(StructureError, match=r"positions of 1e.30 Angstrom"):
        check_size(Atoms("Si", positions=[[0, 1e30, 0]]), "far.xyz")
    for mass in (-1.0, 0.0, 1e6):
        with pytest.raises(StructureError, match=f"a mass of {mass} u"):
            check_size(Atoms("Si", masses=[mass]), "heavy.xyz")


@pytest.mark.parametrize("pbc", [True, False])
def test_many_atoms_in_one_place_are_refused_without_a_list_of_their_pairs(pbc: bool) -> None:
    """The pairs of 200,000 atoms would need hundreds of gigabytes."""
    atoms = Atoms("Cu" * 200_000, positions=np.zeros((200_000, 3)), cell=[400.0] * 3, pbc=pbc)
    with pytest.raises(StructureError, match=r"atoms 0 \(Cu\) and 1 \(Cu\) are 0.000 Angstrom apart"):
        check_structure(atoms, "x")
