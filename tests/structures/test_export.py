"""Files for other programs: what they carry of isotopes and fixed atoms comes back, and what they lose is said."""

from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms, FixCartesian, FixScaled

from esen_flows.errors import StructureWarning
from esen_flows.schemas.atom_properties import properties_of
from esen_flows.schemas.keys import atoms_key
from esen_flows.structures.export import write_crystal, write_frames
from esen_flows.structures.files import read_structure


def slab() -> Atoms:
    atoms = fcc111("Al", (1, 1, 4), vacuum=6.0, periodic=True)
    atoms.set_masses([None, 26.5, None, None])
    atoms.set_constraint([FixAtoms([0]), FixScaled(1, (True, False, True)), FixCartesian([1, 2], (False, True, False))])
    return atoms


def deuteride() -> Atoms:
    atoms = bulk("LiH", "rocksalt", a=4.08)
    atoms.set_masses([None, 2.01410178])
    return atoms


@pytest.mark.parametrize("make", [slab, deuteride])
def test_extended_xyz_carries_everything(make, tmp_path: Path) -> None:
    write_frames(tmp_path / "x.extxyz", [make()])
    assert properties_of(read_structure(tmp_path / "x.extxyz")).lists() == properties_of(make()).lists()
    assert atoms_key(read_structure(tmp_path / "x.extxyz")) == atoms_key(make())


def test_cif_has_symbols_of_isotopes(tmp_path: Path) -> None:
    write_crystal(tmp_path / "LiD.cif", deuteride(), "cif", "LiD.cif")
    assert properties_of(read_structure(tmp_path / "LiD.cif")).lists() == {"masses_u": [0.0, 2.01410178]}


def test_selective_dynamics(tmp_path: Path) -> None:
    atoms = slab()
    atoms.arrays.pop("masses")
    atoms.set_constraint([FixAtoms([0, 3]), FixScaled(1, (True, False, True))])
    write_crystal(tmp_path / "slab.vasp", atoms, "vasp", "slab.vasp")
    assert properties_of(read_structure(tmp_path / "slab.vasp")).lists() == properties_of(atoms).lists()


def test_what_is_lost_is_said(tmp_path: Path) -> None:
    with pytest.warns(StructureWarning, match=r"a.cif: the format does not carry fixed atoms and masses"):
        write_crystal(tmp_path / "x", slab(), "cif", "a.cif")
    with pytest.warns(StructureWarning, match=r"does not carry fixed Cartesian components and masses"):
        write_crystal(tmp_path / "x", slab(), "vasp", "a.vasp")
