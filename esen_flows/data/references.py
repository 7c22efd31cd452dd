"""Sums over a dataset: element reference energies by least squares, the scale of forces, and other statistics.

Everything reads a dataset once, block by block, so that its size does not matter.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from esen_flows.data.dataset import Dataset, RecordBlock

_ELEMENTS = 119  # index 0 is no element


@dataclass(frozen=True)
class Statistics:
    """Sums over a dataset; every record counts as often as it occurs.

    Attributes
    ----------
    references_ev
        Energy per atom of each element in eV (see `fit_references`), by atomic number.
    energy_mean_ev_per_atom
        Mean over records of the labelled energy per atom in eV.
    energy_rms_ev_per_atom
        Root mean square over records of the energy per atom without its references, in eV.
    force_rms_ev_per_angstrom
        Root mean square over force components in eV/Angstrom.
    force_max_ev_per_angstrom
        Length of the longest force on an atom in eV/Angstrom.
    stress_rms_ev_per_angstrom3
        Root mean square in eV/Angstrom^3 over the nine components of all records with a stress; None without any.
    stress_records
        Number of records with a stress.
    """

    references_ev: dict[int, float]
    energy_mean_ev_per_atom: float
    energy_rms_ev_per_atom: float
    force_rms_ev_per_angstrom: float
    force_max_ev_per_angstrom: float
    stress_rms_ev_per_angstrom3: float | None
    stress_records: int

    def document(self) -> dict[str, Any]:
        """The statistics for JSON.

        Returns
        -------
        dict[str, Any]
            The fields, with atomic numbers as text.
        """
        return asdict(self) | {"references_ev": {str(z): energy for z, energy in self.references_ev.items()}}


def fit_references(dataset: "Dataset") -> dict[int, float]:
    """Energy per atom of each element that best explains total energies by composition alone.

    Parameters
    ----------
    dataset
        Records with energies.

    Returns
    -------
    dict[int, float]
        Energy per atom in eV by atomic number; the minimum-norm solution where the compositions do not fix it.
    """
    # The R of a QR decomposition is all that least squares needs of the rows so far, and keeps the digits that normal
    # equations would square away.
    triangle: Any = np.zeros((0, _ELEMENTS + 1))
    for block in dataset.blocks():
        triangle = np.linalg.qr(np.vstack([triangle, _weighted_rows(block)]), mode="r")
    seen = triangle[:, :_ELEMENTS].any(axis=0)
    solution = np.linalg.lstsq(triangle[:, :_ELEMENTS][:, seen], triangle[:, -1], rcond=None)[0]
    return {int(z): float(energy) for z, energy in zip(np.flatnonzero(seen), solution, strict=True)}


def _weighted_rows(block: "RecordBlock") -> np.ndarray:
    """(compositions, 120) composition and mean energy of the records that share it, times the root of their weight."""
    inside = block.weight > 0
    counts, weight, energy = _compositions(block)[inside], block.weight[inside], block.energy[inside]
    # A random linear hash tells compositions apart much faster than sorting rows; integers wrap around on purpose.
    hashes = counts.astype(np.int64) @ np.random.default_rng(0).integers(1 << 62, size=_ELEMENTS)
    _, first, which = np.unique(hashes, return_index=True, return_inverse=True)
    weights = np.bincount(which, weight)
    energies = np.bincount(which, weight * energy) / weights
    return np.column_stack([counts[first], energies]) * np.sqrt(weights)[:, None]


def _compositions(block: "RecordBlock") -> np.ndarray:
    """(n, 119) float64 number of atoms of each element."""
    structure = np.repeat(np.arange(len(block.n_atoms)), block.n_atoms)
    flat = np.bincount(structure * _ELEMENTS + block.numbers, minlength=len(block.n_atoms) * _ELEMENTS)
    return flat.reshape(-1, _ELEMENTS).astype(np.float64)


def force_scale(dataset: "Dataset") -> float:
    """Root mean square over all force components.

    Parameters
    ----------
    dataset
        Records with forces.

    Returns
    -------
    float
        Scale in eV/Angstrom; 1.0 if all forces are zero.
    """
    squares = components = 0.0
    for block in dataset.blocks():
        weight = np.repeat(block.weight, block.n_atoms)
        squares += float(weight @ (block.forces**2).sum(axis=1))
        components += 3.0 * float(weight.sum())
    return float(np.sqrt(squares / components)) or 1.0


def fit_statistics(dataset: "Dataset") -> Statistics:
    """Reference energies of a dataset, and the size of its labels.

    Parameters
    ----------
    dataset
        Labelled records.

    Returns
    -------
    Statistics
        Sums over all records.
    """
    references = fit_references(dataset)
    table = np.array([references.get(z, 0.0) for z in range(_ELEMENTS)])
    energy_sum = energy_squares = stress_squares = largest = 0.0
    stress_records = 0
    for block in dataset.blocks():
        energy_sum += float(block.weight @ (block.energy / block.n_atoms))
        left = (block.energy - _compositions(block) @ table) / block.n_atoms
        energy_squares += float(block.weight @ left**2)
        inside = np.repeat(block.weight > 0, block.n_atoms)
        largest = max(largest, float((block.forces[inside] ** 2).sum(axis=1).max()))
        weight = np.where(np.isfinite(block.stress[:, 0, 0]), block.weight, 0.0)
        stress_squares += float(weight @ np.nan_to_num(block.stress**2).sum(axis=(1, 2)))
        stress_records += int(weight.sum())
    return Statistics(
        references_ev=references,
        energy_mean_ev_per_atom=energy_sum / len(dataset),
        energy_rms_ev_per_atom=float(np.sqrt(energy_squares / len(dataset))),
        force_rms_ev_per_angstrom=force_scale(dataset),
        force_max_ev_per_angstrom=float(np.sqrt(largest)),
        stress_rms_ev_per_angstrom3=float(np.sqrt(stress_squares / (9 * stress_records))) if stress_records else None,
        stress_records=stress_records,
    )
