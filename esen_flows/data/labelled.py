"""A structure and what its labeller said of it."""

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from esen_flows.errors import InputError


@dataclass(frozen=True)
class LabelledStructure:
    """A structure and what its labeller said of it.

    Attributes
    ----------
    atoms
        the structure, without calculator.
    energy
        total energy in eV.
    forces
        (n, 3) in eV/Angstrom.
    stress
        (3, 3) in eV/Angstrom^3, ASE's sign; NaN where the cell has no volume.
    group
        name of the subset that it belongs to, for reports and shares; "" when unknown.
    material
        what must not be torn apart by a split, such as a material's id or a molecule's name: all frames of one
        trajectory. "": the structure stands alone.
    """

    atoms: Atoms
    energy: float
    forces: np.ndarray
    stress: np.ndarray
    group: str = ""
    material: str = ""


def check_labels(where: str, item: LabelledStructure) -> None:
    """Refuse labels that cannot be trained on.

    Raises
    ------
    InputError
        wrong shapes, NaN, or a stress that is missing where the cell has a volume; `where` names the record.
    """
    if item.forces.shape != (len(item.atoms), 3):
        raise InputError(f"{where}: forces have shape {item.forces.shape}, expected ({len(item.atoms)}, 3)")
    if item.stress.shape != (3, 3):
        raise InputError(f"{where}: the stress has shape {item.stress.shape}, expected (3, 3)")
    for name, value in (("energy", item.energy), ("forces", item.forces)):
        if not np.isfinite(value).all():
            raise InputError(f"{where}: the {name} label is NaN or infinite; drop the structure or label it again")
    finite = np.isfinite(item.stress)
    if not finite.all() and (item.atoms.cell.rank == 3 or finite.any()):
        raise InputError(f"{where}: the stress label is NaN or infinite, but the cell has a volume; label it again")
