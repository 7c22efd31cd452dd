"""Structures as jobs carry them: small dictionaries of plain numbers, exact in JSON."""

from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from esen_flows.errors import StructureError

if TYPE_CHECKING:
    from pymatgen.core import Structure


def as_atoms(structure: "Atoms | Structure") -> Atoms:
    """ASE Atoms of an ASE or pymatgen structure, in its order.

    Raises
    ------
    StructureError
        neither of the two, or a pymatgen structure with partially occupied sites.
    """
    if isinstance(structure, Atoms):
        return structure
    if not hasattr(structure, "lattice") or not hasattr(structure, "cart_coords"):
        raise StructureError(f"a structure must be ASE Atoms or a pymatgen Structure, got {type(structure).__name__}")
    if not structure.is_ordered:
        raise StructureError(f"{structure.formula} has partially occupied sites; give an ordered structure")
    atoms = Atoms(
        [site.specie.Z for site in structure],
        positions=structure.cart_coords,
        cell=structure.lattice.matrix,
        pbc=structure.lattice.pbc,
    )
    charge = structure.as_dict()["charge"]  # as given; `.charge` would sum guessed oxidation states
    if charge:
        atoms.info["charge"] = float(charge)
    return atoms


def atoms_to_json(atoms: Atoms) -> dict[str, Any]:
    """Numbers, positions and cell (Angstrom), periodicity, and charge and spin where they are set.

    Python floats keep every bit, so that the structure key survives the round trip.
    """
    return {
        "numbers": atoms.numbers.tolist(),
        "positions_angstrom": atoms.positions.tolist(),
        "cell_angstrom": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
        "info": {name: float(atoms.info[name]) for name in ("charge", "spin") if name in atoms.info},
    }


def atoms_from_json(data: dict[str, Any]) -> Atoms:
    """The inverse of `atoms_to_json`."""
    return Atoms(
        np.asarray(data["numbers"], dtype=int),
        positions=np.asarray(data["positions_angstrom"], dtype=float).reshape(-1, 3),
        cell=np.asarray(data["cell_angstrom"], dtype=float),
        pbc=data["pbc"],
        info=dict(data["info"]),
    )
