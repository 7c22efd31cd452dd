"""Element reference energies by least squares, the one scale of a conservative model, and other sums over a dataset.

Everything reads a dataset once, chunk by chunk, so that its size does not matter.
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
        energy per atom of each element (see `fit_references`), by atomic number.
    energy_mean_ev_per_atom
        mean over records of the energy per atom, as labelled.
    energy_rms_ev_per_atom
        root mean square over records of what the references leave of the energy per atom.
    force_rms_ev_per_angstrom
        over components; force_max_ev_per_angstrom : longest force on an atom.
    stress_rms_ev_per_angstrom3
        over the nine components of the records that have a stress; None without any.
    stress_records
        how many have one.
    """

    references_ev: dict[int, float]
    energy_mean_ev_per_atom: float
    energy_rms_ev_per_atom: float
    force_rms_ev_per_angstrom: float
    force_max_ev_per_angstrom: float
    stress_rms_ev_per_angstrom3: float | None
    stress_records: int

    def document(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self) | {"references_ev": {str(z): energy for z, energy in self.references_ev.items()}}


def fit_references(dataset: "Dataset") -> dict[int, float]:
    """Energy per atom of each element that best explains total energies by composition alone.

    Returns
    -------
    dict[int, float]
        eV per atom by atomic number; the minimum-norm solution where composition does not fix it.
    """
    # The R of a QR decomposition is all that least squares needs of the rows so far, and keeps the digits that normal
    # equations would square away.
    triangle: Any = np.zeros((0, _ELEMENTS + 1))
    for chunk in dataset.chunks():
        triangle = np.linalg.qr(np.vstack([triangle, _weighted_rows(chunk)]), mode="r")
    seen = triangle[:, :_ELEMENTS].any(axis=0)
    solution = np.linalg.lstsq(triangle[:, :_ELEMENTS][:, seen], triangle[:, -1], rcond=None)[0]
    return {int(z): float(energy) for z, energy in zip(np.flatnonzero(seen), solution, strict=True)}


def _weighted_rows(chunk: "RecordBlock") -> np.ndarray:
    """(compositions, 120) composition and mean energy of the records that share it, times the root of their weight."""
    inside = chunk.weight > 0
    counts, weight, energy = _compositions(chunk)[inside], chunk.weight[inside], chunk.energy[inside]
    names = counts.astype(np.int64) @ np.random.default_rng(0).integers(1 << 62, size=_ELEMENTS)  # wraps around
    _, first, which = np.unique(names, return_index=True, return_inverse=True)
    weights = np.bincount(which, weight)
    energies = np.bincount(which, weight * energy) / weights
    return np.column_stack([counts[first], energies]) * np.sqrt(weights)[:, None]


def _compositions(chunk: "RecordBlock") -> np.ndarray:
    """(n, 119) float64: how many atoms of each element."""
    structure = np.repeat(np.arange(len(chunk.n_atoms)), chunk.n_atoms)
    flat = np.bincount(structure * _ELEMENTS + chunk.numbers, minlength=len(chunk.n_atoms) * _ELEMENTS)
    return flat.reshape(-1, _ELEMENTS).astype(np.float64)


def force_scale(dataset: "Dataset") -> float:
    """Root mean square over all force components in eV/Angstrom; 1.0 if all are zero."""
    squares = components = 0.0
    for chunk in dataset.chunks():
        weight = np.repeat(chunk.weight, chunk.n_atoms)
        squares += float(weight @ (chunk.forces**2).sum(axis=1))
        components += 3.0 * float(weight.sum())
    return float(np.sqrt(squares / components)) or 1.0


def fit_statistics(dataset: "Dataset") -> Statistics:
    """References, and what the labels are like beside them."""
    references = fit_references(dataset)
    table = np.array([references.get(z, 0.0) for z in range(_ELEMENTS)])
    energy_sum = energy_squares = stress_squares = largest = 0.0
    stress_records = 0
    for chunk in dataset.chunks():
        energy_sum += float(chunk.weight @ (chunk.energy / chunk.n_atoms))
        left = (chunk.energy - _compositions(chunk) @ table) / chunk.n_atoms
        energy_squares += float(chunk.weight @ left**2)
        inside = np.repeat(chunk.weight > 0, chunk.n_atoms)
        largest = max(largest, float((chunk.forces[inside] ** 2).sum(axis=1).max()))
        weight = np.where(np.isfinite(chunk.stress[:, 0, 0]), chunk.weight, 0.0)
        stress_squares += float(weight @ np.nan_to_num(chunk.stress**2).sum(axis=(1, 2)))
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
