"""A structure with its labels."""

from dataclasses import dataclass

import numpy as np
from ase import Atoms


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
        (3, 3) stress in eV/Angstrom^3, positive under tension as in ASE; NaN where the cell has no volume.
    group
        Name of the subset that the structure belongs to, for reports and shares; "" when unknown.
    material
        Name that all records have in common which a split must keep together, such as the frames of one trajectory:
        a material's id, or a molecule's name. "" for a structure that belongs with no other.
    """

    atoms: Atoms
    energy: float
    forces: np.ndarray
    stress: np.ndarray
    group: str = ""
    material: str = ""
