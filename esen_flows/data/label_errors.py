"""Errors of energies, forces and stresses against labels: sums that can be added, and the published units.

Numpy alone, so that trainings and benchmarks share one definition.
"""

import numpy as np

from esen_flows.data.labelled import LabelledStructure
from esen_flows.units import EV_PER_ANGSTROM3_TO_GPA

SUMS = (
    "frames", "atoms", "energy_abs", "energy_square", "force_abs", "force_square", "label_square", "components",
    "stress_abs", "stress_square", "stresses",
)  # fmt: skip


def error_sums(
    item: LabelledStructure, energy_ev: float, forces_ev_per_angstrom: np.ndarray, stress_ev_per_angstrom3: np.ndarray
) -> np.ndarray:
    """What one structure adds to the sums of its group.

    Parameters
    ----------
    item
        Structure with its labels.
    energy_ev
        Computed energy in eV.
    forces_ev_per_angstrom
        (n, 3) computed forces in eV/Angstrom.
    stress_ev_per_angstrom3
        (3, 3) computed stress in eV/Angstrom^3; NaN where there is none.

    Returns
    -------
    np.ndarray
        (len(SUMS),) summands in eV/atom, eV/Angstrom and eV/Angstrom^3.
    """
    energy = (energy_ev - item.energy) / len(item.atoms)
    force = forces_ev_per_angstrom - item.forces
    labelled = np.isfinite(item.stress).all() and np.isfinite(stress_ev_per_angstrom3).all()
    stress = (stress_ev_per_angstrom3 - item.stress).ravel() if labelled else np.zeros(0)
    return np.array(
        [
            1, len(item.atoms), abs(energy), energy**2, np.abs(force).sum(), (force**2).sum(),
            (np.asarray(item.forces) ** 2).sum(), force.size, np.abs(stress).sum(), (stress**2).sum(), stress.size,
        ]
    )  # fmt: skip


def mean_errors(sums: np.ndarray) -> dict[str, float]:
    """Mean errors from the sums of a group.

    Parameters
    ----------
    sums
        (len(SUMS),) sums over at least one structure.

    Returns
    -------
    dict[str, float]
        frames, atoms, energy_mae_mev_per_atom, energy_rmse_mev_per_atom, force_mae_mev_per_angstrom,
        force_rmse_mev_per_angstrom (both over components), force_rms_mev_per_angstrom (of the labels, for scale),
        stress_mae_mev_per_angstrom3, stress_rmse_gpa (both over nine components; NaN without labels).
    """
    v = dict(zip(SUMS, sums.tolist(), strict=True))
    stresses = v["stresses"] or float("nan")
    return {
        "frames": v["frames"],
        "atoms": v["atoms"],
        "energy_mae_mev_per_atom": 1000 * v["energy_abs"] / v["frames"],
        "energy_rmse_mev_per_atom": 1000 * (v["energy_square"] / v["frames"]) ** 0.5,
        "force_mae_mev_per_angstrom": 1000 * v["force_abs"] / v["components"],
        "force_rmse_mev_per_angstrom": 1000 * (v["force_square"] / v["components"]) ** 0.5,
        "force_rms_mev_per_angstrom": 1000 * (v["label_square"] / v["components"]) ** 0.5,
        "stress_mae_mev_per_angstrom3": 1000 * v["stress_abs"] / stresses,
        "stress_rmse_gpa": EV_PER_ANGSTROM3_TO_GPA * (v["stress_square"] / stresses) ** 0.5,
    }
