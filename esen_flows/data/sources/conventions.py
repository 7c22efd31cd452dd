"""Units and signs of the labels of each source, and their conversion to eV, Angstrom and ASE's stress."""

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from ase import Atoms, units

from esen_flows.data.labelled import STRESS_LEFT_OUT, LabelledStructure, can_have_stress
from esen_flows.data.screening import BadRecord, ReadRecord
from esen_flows.data.sources.vocabulary import EnergyUnit, LengthUnit, StressOrder, StressUnit
from esen_flows.errors import InputError
from esen_flows.units import EV_PER_ANGSTROM3_TO_GPA

ENERGY_EV = {"eV": 1.0, "hartree": units.Hartree, "kcal/mol": units.kcal / units.mol, "kJ/mol": units.kJ / units.mol}
LENGTH_ANGSTROM = {"Angstrom": 1.0, "bohr": units.Bohr}
STRESS_EV_PER_ANGSTROM3 = {
    "eV/Angstrom^3": 1.0,
    "GPa": 1.0 / EV_PER_ANGSTROM3_TO_GPA,
    "kBar": 0.1 / EV_PER_ANGSTROM3_TO_GPA,
}


@dataclass(frozen=True)
class Convention:
    """Units and signs of a source.

    Attributes
    ----------
    energy
        Unit of energies; forces are in this unit over that of lengths.
    length
        Unit of lengths.
    gradients
        Whether the labels are derivatives of the energy, which are forces with the opposite sign.
    stress
        Unit of stresses with their sign; None where the source has no stresses.
    stress_order
        Order of stresses of six numbers.
    """

    energy: EnergyUnit = "eV"
    length: LengthUnit = "Angstrom"
    gradients: bool = False
    stress: StressUnit | None = "eV/Angstrom^3"
    stress_order: StressOrder = "voigt"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("energy unit", self.energy, get_args(EnergyUnit)),
            ("length unit", self.length, get_args(LengthUnit)),
            ("stress unit", self.stress, (None, *get_args(StressUnit))),
            ("stress order", self.stress_order, get_args(StressOrder)),
        ):
            if value not in known:
                raise InputError(f"unknown {name} {value!r}; known: {', '.join(map(str, known))}")

    def words(self) -> dict[str, str]:
        """The convention in words, for the index of a dataset.

        Returns
        -------
        dict[str, str]
            Units of energy, positions, forces and stress, and the order of its components where it is not Voigt's.
        """
        force = f"{'gradient' if self.gradients else 'force'} in {self.energy}/{self.length}"
        words = {"energy": self.energy, "positions": self.length, "forces": force, "stress": self.stress or "none"}
        return words if self.stress_order == "voigt" else {**words, "stress_order": self.stress_order}


CONVENTIONS = {
    # ASE converts to eV, eV/Angstrom and eV/Angstrom^3 (positive under tension) whatever it reads.
    **dict.fromkeys(("extxyz", "ase-db", "ase-lmdb", "ase"), Convention()),
    # From the description of the data: energies in eV, forces in eV/A, stress in kBar as VASP prints it.
    "mptrj": Convention(stress="-kBar"),
    # From the description of the data: eV, eV/A, and six stresses in kBar with VASP's sign and in VASP's order.
    "matpes": Convention(stress="-kBar", stress_order="vasp"),
    # Atomic units; the files hold gradients of the energy.
    "spice": Convention(energy="hartree", length="bohr", gradients=True, stress=None),
}


@dataclass(frozen=True)
class Labels:
    """A structure and its labels as a source has them, before the conversion of units; None for a missing label.

    Attributes
    ----------
    numbers
        (n,) atomic numbers.
    positions
        (n, 3) Cartesian positions.
    energy
        Total energy.
    forces
        (n, 3) forces, or gradients.
    stress
        (3, 3), nine numbers, or six in the order that the convention gives.
    cell
        (3, 3) rows are lattice vectors.
    pbc
        Periodicity, for all directions or for each.
    group
        Name of the subset.
    material
        Name of the material.
    charge
        Total charge in elementary charges.
    spin
        Spin multiplicity; 0 where it is not known.
    """

    numbers: Any
    positions: Any
    energy: Any
    forces: Any
    stress: Any = None
    cell: Any = None
    pbc: Any = False
    group: str = ""
    material: str = ""
    charge: Any = 0
    spin: Any = 0


def labelled(where: str, labels: Labels, convention: Convention) -> ReadRecord:
    """The structure and its labels in our units.

    Parameters
    ----------
    where
        Place of the record, for a BadRecord.
    labels
        Structure and labels as the source has them.
    convention
        Units and signs of the source.

    Returns
    -------
    LabelledStructure | BadRecord
        A bad record where energy or forces are missing, or a value is not a number.
    """
    for name in ("energy", "forces"):
        if getattr(labels, name) is None:
            return BadRecord(where, f"no {name}")
    try:
        return _converted(labels, convention)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        return BadRecord(where, "unreadable", str(error))


def _converted(labels: Labels, convention: Convention) -> LabelledStructure:
    energy, length = ENERGY_EV[convention.energy], LENGTH_ANGSTROM[convention.length]
    cell = None if labels.cell is None else np.asarray(labels.cell, dtype=np.float64) * length
    positions = np.asarray(labels.positions, dtype=np.float64).reshape(-1, 3) * length
    numbers, pbc = np.asarray(labels.numbers, dtype=np.int64), np.asarray(labels.pbc)
    if numbers.shape != (len(positions),) or pbc.dtype.kind not in "biu" or pbc.shape not in ((), (3,)):
        raise ValueError(f"{numbers.shape} atomic numbers, {len(positions)} positions, periodicity {labels.pbc!r:.40}")
    atoms = Atoms(numbers, positions=positions, cell=cell, pbc=pbc.astype(bool))
    for name in ("charge", "spin"):
        if getattr(labels, name):
            atoms.info[name] = getattr(labels, name)
    sign = -1.0 if convention.gradients else 1.0
    stress = np.full((3, 3), np.nan)
    remarks: tuple[str, ...] = ()
    if labels.stress is not None and convention.stress is not None:
        if can_have_stress(atoms):
            stress = _full_stress(labels.stress, convention.stress_order) * _stress_factor(convention.stress, atoms)
        else:
            remarks = (STRESS_LEFT_OUT,)
    return LabelledStructure(
        atoms=atoms,
        energy=float(labels.energy) * energy,
        forces=np.array(labels.forces, dtype=np.float64) * (sign * energy / length),
        stress=stress,
        group=labels.group,
        material=labels.material,
        remarks=remarks,
    )


def _stress_factor(unit: StressUnit, atoms: Atoms) -> float:
    if unit == "virial":
        return -1.0 / atoms.get_volume()
    return (-1.0 if unit.startswith("-") else 1.0) * STRESS_EV_PER_ANGSTROM3[unit.removeprefix("-")]


# Places of the nine components xx, xy, xz, yx, ... among six numbers.
_PLACES = {"voigt": [0, 5, 4, 5, 1, 3, 4, 3, 2], "vasp": [0, 3, 5, 3, 1, 4, 5, 4, 2]}


def _full_stress(stress: Any, order: StressOrder) -> np.ndarray:
    """(3, 3) from nine numbers, or from six in an order."""
    values = np.asarray(stress, dtype=np.float64).ravel()
    return values[_PLACES[order]].reshape(3, 3) if values.size == 6 else values.reshape(3, 3)
