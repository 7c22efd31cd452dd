"""Displacement datasets in phonopy's form, and plain values that pass between the adapter and the physics.

A systematic dataset is {"natom", "first_atoms": [{"number", "displacement", "second_atoms": [...]}]}; a random one is
{"displacements": (n, n_atoms, 3)} in Angstrom. Ours hold no forces: those are one array beside them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from esen_flows.schemas.documents import StructureData

Dataset = dict[str, Any]
Nac = dict[str, Any]


@dataclass(frozen=True)
class DisplacementPlan:
    """Displaced supercells of one order: the dataset without forces, the undisplaced cell, the displaced ones.

    These are in the order of the dataset, which lists pairs beyond a pair cutoff too, as not included.
    """

    dataset: Dataset
    perfect: Atoms
    supercells: list[Atoms]


@dataclass(frozen=True)
class Plans:
    """What has to be evaluated. `fc2` is None where the fc3 dataset holds it: same supercell for both orders."""

    primitive_matrix: np.ndarray
    fc2: DisplacementPlan | None
    fc3: DisplacementPlan | None


@dataclass(frozen=True)
class ForceSet:
    """What a published calculation holds; `fc3` is None for harmonic ones."""

    unitcell: StructureData
    primitive_matrix: np.ndarray
    fc2_matrix: np.ndarray
    fc3_matrix: np.ndarray | None
    fc2: Dataset | None  # with forces
    fc3: Dataset | None
    nac: Nac | None
    symprec_angstrom: float


@dataclass(frozen=True)
class Bands:
    """Frequencies along paths: per segment, distances (n,) in 1/Angstrom and frequencies (n, n_bands) in THz."""

    distances: list[np.ndarray]
    frequencies: list[np.ndarray]


@dataclass(frozen=True)
class Thermal:
    """Thermal properties (n_temperatures,) per mole of primitive cells, in phonopy's units, and the modes behind them.

    free_energy in kJ/mol, entropy and heat_capacity in J/K/mol.
    """

    q_points: np.ndarray
    frequencies: np.ndarray
    free_energy: np.ndarray
    entropy: np.ndarray
    heat_capacity: np.ndarray


@dataclass(frozen=True)
class Densities:
    """States per THz and primitive cell: total (n,), projected (n_atoms, n); and the modes behind them."""

    q_points: np.ndarray
    frequencies: np.ndarray
    sampling: np.ndarray
    total: np.ndarray
    projected: np.ndarray


@dataclass(frozen=True)
class Transport:
    """Conductivities (n_temperatures, 6) in W/m/K and the modes behind them, at irreducible q-points."""

    kappa_rta: np.ndarray
    kappa_wigner: np.ndarray | None
    kappa_wigner_intra: np.ndarray | None
    kappa_wigner_inter: np.ndarray | None
    q_points: np.ndarray
    q_weights: np.ndarray
    frequencies: np.ndarray
    linewidths: np.ndarray
    group_velocities: np.ndarray
    cumulative_frequencies: np.ndarray
    cumulative_kappa: np.ndarray
    kappa_lbte: np.ndarray | None
    mode_kappa: dict[str, np.ndarray]
    lifetimes: np.ndarray


def is_random(dataset: Dataset) -> bool:
    """Whether all atoms are displaced at once, instead of one or two."""
    return "displacements" in dataset


def entries(dataset: Dataset) -> Iterator[Dataset]:
    """The displacements of a systematic dataset, in the order in which forces are listed: first atoms, then pairs."""
    yield from dataset["first_atoms"]
    for first in dataset["first_atoms"]:
        yield from first.get("second_atoms", ())


def included(entry: Dataset) -> bool:
    """Whether a displacement is to be evaluated: pairs beyond a pair cutoff are not."""
    return bool(entry.get("included", True))


def zeros_beyond_cutoff(dataset: Dataset, forces: np.ndarray) -> np.ndarray:
    """Forces of the included displacements, spread over all of a systematic dataset, as phono3py takes them."""
    keep = np.array([included(entry) for entry in entries(dataset)])
    spread = np.zeros((len(keep), *forces.shape[1:]))
    spread[keep] = forces
    return spread


def first_order(dataset: Dataset, forces: np.ndarray) -> tuple[Dataset, np.ndarray]:
    """The second-order part of a third-order dataset and its forces: the single displacements."""
    if is_random(dataset):
        return dict(dataset), forces
    keep = [{"number": d["number"], "displacement": d["displacement"]} for d in dataset["first_atoms"]]
    return {"natom": dataset["natom"], "first_atoms": keep}, forces[: len(keep)]


def plain(value: Any) -> Any:
    """A dataset in Python's own types, except for large arrays."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.tolist() if value.ndim < 3 else np.array(value)
    return value.item() if isinstance(value, np.generic) else value


def with_forces(dataset: Dataset, forces: np.ndarray) -> Dataset:
    """A dataset with its forces, as phonopy takes it; the argument is not changed."""
    if is_random(dataset):
        return {"displacements": np.array(dataset["displacements"], dtype="double", order="C"), "forces": forces}
    filled: Dataset = plain(dataset)
    for entry, force in zip(entries(filled), forces, strict=True):
        entry["displacement"] = np.array(entry["displacement"], dtype="double")
        entry["forces"] = np.array(force, dtype="double", order="C")
    return filled


def without_forces(dataset: Dataset) -> tuple[Dataset, np.ndarray | None]:
    """The inverse: a plain dataset, and forces (n, n_atoms, 3) in its order, or None where some are missing."""
    holders = [dataset] if is_random(dataset) else list(entries(dataset))
    if any(holder.get("forces") is None for holder in holders):
        return _strip(plain(dataset)), None
    forces = np.array([holder["forces"] for holder in holders], dtype=float)
    return _strip(plain(dataset)), forces[0] if is_random(dataset) else forces


def _strip(value: Any) -> Any:
    if isinstance(value, dict):
        hidden = ("forces", "supercell_energies", "supercell_energy")
        return {key: _strip(item) for key, item in value.items() if key not in hidden}
    return [_strip(item) for item in value] if isinstance(value, list) else value
