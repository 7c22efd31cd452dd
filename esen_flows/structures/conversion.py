"""Conversion of structures: to ASE Atoms, and to the small dictionaries of plain numbers that jobs carry."""

from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from esen_flows.errors import StructureError

if TYPE_CHECKING:
    from pymatgen.core import Structure


def as_atoms(structure: "Atoms | Structure") -> Atoms:
    """ASE Atoms of an ASE or pymatgen structure, with its order of atoms.

    Parameters
    ----------
    structure
        ASE Atoms, which are returned as they are, or a pymatgen Structure.

    Returns
    -------
    Atoms
        The structure; `info["charge"]` is the total charge where a pymatgen structure has one.

    Raises
    ------
    StructureError
        The value is neither of the two, or a pymatgen structure has partially occupied sites.
    """
    if isinstance(structure, Atoms):
        return structure
    if not hasattr(structure, "lattice") or not hasattr(structure, "cart_coords"):
        raise StructureError(f"a structure must be ASE Atoms or a pymatgen Structure, got {type(structure).__name__}")
    if not structure.is_ordered:
        raise StructureError(f"{structure.formula} has partially occupied sites; give an ordered structure")
    numbers, lattice = [site.specie.Z for site in structure], structure.lattice
    atoms = Atoms(numbers, positions=structure.cart_coords, cell=lattice.matrix, pbc=lattice.pbc)
    charge = structure.as_dict()["charge"]  # as given; `.charge` would sum guessed oxidation states
    if charge:
        atoms.info["charge"] = float(charge)
    return atoms


def atoms_to_json(atoms: Atoms) -> dict[str, Any]:
    """A structure as plain values.

    Python floats keep every bit in JSON, so that the key of the structure stays the same.

    Parameters
    ----------
    atoms
        The structure.

    Returns
    -------
    dict[str, Any]
        Atomic numbers, positions and cell (Angstrom), periodicity, and charge and spin where they are set.
    """
    return {
        "numbers": atoms.numbers.tolist(),
        "positions_angstrom": atoms.positions.tolist(),
        "cell_angstrom": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
        "info": {name: float(atoms.info[name]) for name in ("charge", "spin") if name in atoms.info},
    }


def atoms_from_json(data: dict[str, Any]) -> Atoms:
    """The structure of plain values.

    Parameters
    ----------
    data
        Result of `atoms_to_json`.

    Returns
    -------
    Atoms
        The structure, with the same key.
    """
    return Atoms(
        np.asarray(data["numbers"], dtype=int),
        positions=np.asarray(data["positions_angstrom"], dtype=float).reshape(-1, 3),
        cell=np.asarray(data["cell_angstrom"], dtype=float),
        pbc=data["pbc"],
        info=dict(data["info"]),
    )
