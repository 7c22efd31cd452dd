"""Displacement datasets in phonopy's form, and the values that pass between phonopy's objects and the physics.

A systematic dataset is {"natom", "first_atoms": [{"number", "displacement", "second_atoms": [...]}]}. A random one is
{"displacements": (n, n_atoms, 3)} in Angstrom. Our datasets hold no forces: these are one separate array.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

Dataset = dict[str, Any]
Nac = dict[str, Any]  # phonopy's nac_params: "born" (n, 3, 3) in e, "dielectric" (3, 3), "factor" in eV Angstrom


@dataclass(frozen=True)
class DisplacementPlan:
    """Displaced supercells of one order.

    Attributes
    ----------
    dataset
        The displacements, without forces; it also lists pairs beyond a pair cutoff, as not included.
    perfect
        The supercell without displacements.
    supercells
        The displaced supercells that are included, in the order of the dataset.
    """

    dataset: Dataset
    perfect: Atoms
    supercells: list[Atoms]


@dataclass(frozen=True)
class DisplacementPlans:
    """Displaced supercells of the second and third order.

    Attributes
    ----------
    primitive_matrix
        (3, 3) primitive cell in units of the unit cell.
    primitive
        The primitive cell.
    fc2
        The second order; None where the third order contains it, because both have the same supercell.
    fc3
        The third order, or None.
    """

    primitive_matrix: np.ndarray
    primitive: Atoms
    fc2: DisplacementPlan | None
    fc3: DisplacementPlan | None

    @property
    def in_order(self) -> list[DisplacementPlan]:
        """The plans in the order in which they are evaluated."""
        return [plan for plan in (self.fc3, self.fc2) if plan is not None]


@dataclass(frozen=True)
class ThermalProperties:
    """Thermal properties per mole of primitive cells, in phonopy's units, and the modes they were summed over.

    Attributes
    ----------
    q_points
        (n_q, 3) in reduced coordinates of the primitive cell.
    frequencies
        (n_q, n_bands) in THz.
    free_energy
        (n_temperatures,) in kJ/mol.
    entropy
        (n_temperatures,) in J/K/mol.
    heat_capacity
        (n_temperatures,) in J/K/mol.
    """

    q_points: np.ndarray
    frequencies: np.ndarray
    free_energy: np.ndarray
    entropy: np.ndarray
    heat_capacity: np.ndarray


@dataclass(frozen=True)
class DensitiesOfStates:
    """Densities of states of one primitive cell, and the modes they were made of.

    Attributes
    ----------
    q_points
        (n_q, 3) irreducible q-points in reduced coordinates of the primitive cell.
    frequencies
        (n_q, n_bands) in THz.
    sampling
        (n,) frequencies of the densities in THz.
    total
        (n,) in 1/THz.
    projected
        (n_atoms, n) in 1/THz.
    """

    q_points: np.ndarray
    frequencies: np.ndarray
    sampling: np.ndarray
    total: np.ndarray
    projected: np.ndarray


def is_random(dataset: Dataset) -> bool:
    """Whether all atoms are displaced at once, instead of one or two.

    Parameters
    ----------
    dataset
        Any dataset.

    Returns
    -------
    bool
        Whether it is random.
    """
    return "displacements" in dataset


def entries(dataset: Dataset) -> Iterator[Dataset]:
    """The displacements of a systematic dataset in the order of the forces: first atoms, then pairs.

    Parameters
    ----------
    dataset
        A systematic dataset.

    Yields
    ------
    Dataset
        The entry of a displacement.
    """
    yield from dataset["first_atoms"]
    for first in dataset["first_atoms"]:
        yield from first.get("second_atoms", ())


def included(entry: Dataset) -> bool:
    """Whether a displacement is evaluated; pairs beyond a pair cutoff are not.

    Parameters
    ----------
    entry
        Entry of a displacement.

    Returns
    -------
    bool
        Whether it is evaluated.
    """
    return bool(entry.get("included", True))


def zeros_beyond_cutoff(dataset: Dataset, forces: np.ndarray) -> np.ndarray:
    """Forces of all displacements of a systematic dataset, zero where a displacement is not included.

    This is the form in which phono3py takes forces.

    Parameters
    ----------
    dataset
        A systematic dataset.
    forces
        (n_included, n_atoms, 3) forces of the included displacements.

    Returns
    -------
    np.ndarray
        (n, n_atoms, 3).
    """
    keep = np.array([included(entry) for entry in entries(dataset)])
    spread = np.zeros((len(keep), *forces.shape[1:]))
    spread[keep] = forces
    return spread


def first_order(dataset: Dataset, forces: np.ndarray) -> tuple[Dataset, np.ndarray]:
    """The single displacements of a third-order dataset, which serve the second order.

    Parameters
    ----------
    dataset
        Dataset of the third order.
    forces
        (n, n_atoms, 3) forces in its order.

    Returns
    -------
    tuple[Dataset, np.ndarray]
        Dataset of the second order and its forces.
    """
    if is_random(dataset):
        return dict(dataset), forces
    keep = [{"number": d["number"], "displacement": d["displacement"]} for d in dataset["first_atoms"]]
    return {"natom": dataset["natom"], "first_atoms": keep}, forces[: len(keep)]


def plain(value: Any) -> Any:
    """A dataset in Python's own types, except for arrays of three or more dimensions.

    Parameters
    ----------
    value
        A dataset, or a part of one.

    Returns
    -------
    Any
        A copy.
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.tolist() if value.ndim < 3 else np.array(value)
    return value.item() if isinstance(value, np.generic) else value


def with_forces(dataset: Dataset, forces: np.ndarray) -> Dataset:
    """A dataset with its forces, as phonopy takes it.

    Parameters
    ----------
    dataset
        Any dataset; it is not changed.
    forces
        (n, n_atoms, 3) in eV/Angstrom.

    Returns
    -------
    Dataset
        A new dataset.
    """
    if is_random(dataset):
        return {"displacements": np.array(dataset["displacements"], dtype="double", order="C"), "forces": forces}
    filled: Dataset = plain(dataset)
    for entry, force in zip(entries(filled), forces, strict=True):
        entry["displacement"] = np.array(entry["displacement"], dtype="double")
        entry["forces"] = np.array(force, dtype="double", order="C")
    return filled


def without_forces(dataset: Dataset) -> tuple[Dataset, np.ndarray | None]:
    """A dataset without forces, and its forces: the inverse of `with_forces`.

    Parameters
    ----------
    dataset
        Dataset of phonopy.

    Returns
    -------
    tuple[Dataset, np.ndarray | None]
        A new dataset, and forces (n, n_atoms, 3) in its order; None where some are missing.
    """
    holders = [dataset] if is_random(dataset) else list(entries(dataset))
    bare = _strip(plain(dataset))
    if any(holder.get("forces") is None for holder in holders):
        return bare, None
    forces = np.array([holder["forces"] for holder in holders], dtype=float)
    return bare, forces[0] if is_random(dataset) else forces


def _strip(value: Any) -> Any:
    if isinstance(value, dict):
        hidden = ("forces", "supercell_energies", "supercell_energy")
        return {key: _strip(item) for key, item in value.items() if key not in hidden}
    return [_strip(item) for item in value] if isinstance(value, list) else value
