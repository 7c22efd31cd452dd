"""A structure with its labels."""

from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms

STRESS_LEFT_OUT = "stress left out: the structure is not periodic along three lattice vectors"


def can_have_stress(atoms: Atoms) -> bool:
    """Whether a structure has a stress, which is the derivative of the energy by strain over the volume of a crystal.

    Parameters
    ----------
    atoms
        The structure.

    Returns
    -------
    bool
        True for three lattice vectors that span a volume, and periodicity along all of them. The box around a
        molecule, or around a slab with vacuum, has an arbitrary volume.

    Examples
    --------
    >>> can_have_stress(Atoms("H", cell=[5, 5, 5], pbc=True)), can_have_stress(Atoms("H", cell=[5, 5, 5]))
    (True, False)
    """
    return bool(atoms.pbc.all() and atoms.cell.volume > 0.0)


@dataclass(frozen=True)
class LabelledStructure:
    """A structure with its labels: energy, forces and stress.

    Attributes
    ----------
    atoms
        The structure, without calculator.
    energy
        Total energy in eV.
    forces
        (n, 3) forces in eV/Angstrom.
    stress
        (3, 3) stress in eV/Angstrom^3, positive under tension as in ASE; NaN where there is none.
    group
        Name of the subset that the structure belongs to, for reports and shares; "" when unknown.
    material
        Name that all records have in common which a split must keep together, such as the frames of one trajectory:
        a material's id, or a molecule's name. "" for a structure that belongs with no other.
    remarks
        What was noticed or left out when the record was read, to be counted; it is not stored with the record.
    """

    atoms: Atoms
    energy: float
    forces: np.ndarray
    stress: np.ndarray
    group: str = ""
    material: str = ""
    remarks: tuple[str, ...] = ()


def without_meaningless_stress(item: LabelledStructure) -> LabelledStructure:
    """The record, without its stress if its structure cannot have one.

    Parameters
    ----------
    item
        A structure with its labels.

    Returns
    -------
    LabelledStructure
        The same record, or one without a stress and with a remark.
    """
    if can_have_stress(item.atoms) or not np.isfinite(item.stress).any():
        return item
    return replace(item, stress=np.full((3, 3), np.nan), remarks=(*item.remarks, STRESS_LEFT_OUT))
