"""Errors of a force field on labelled structures, by group, in the units of published tables."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from esen_flows.data.dataset import Dataset
from esen_flows.data.labelled import LabelledStructure
from esen_flows.forcefield.contract import Evaluation, ForceField
from esen_flows.training.distributed import ALONE, World
from esen_flows.units import EV_PER_ANGSTROM3_TO_GPA

AT_ONCE = 256  # structures given to the force field together
_SUMS = ("frames", "atoms", "energy_abs", "energy_square", "force_abs", "force_square", "label_square", "components",
         "stress_abs", "stress_square", "stresses")  # fmt: skip


def evaluate_dataset(force_field: ForceField, dataset: Dataset, *, world: World = ALONE) -> dict[str, dict[str, float]]:
    """Errors of each group of a dataset, and of all of it together under the name "all".

    Energies are compared as they are: labels and force field must have the same zero. Structures without a stress label
    do not count for the stress.

    Parameters
    ----------
    force_field
        The force field to judge.
    dataset
        Labelled structures.
    world
        The processes that share the structures; all of them get the result.

    Returns
    -------
    dict[str, dict[str, float]]
        {group: {frames, atoms, energy_mae_mev_per_atom, energy_rmse_mev_per_atom, force_mae_mev_per_angstrom,
        force_rmse_mev_per_angstrom (both over components), force_rms_mev_per_angstrom (of the labels, for scale),
        stress_mae_mev_per_angstrom3, stress_rmse_gpa (both over nine components; NaN without labels)}}.

    Raises
    ------
    UnknownElementError, EvaluationError
        The force field cannot evaluate a structure.
    """
    sums = np.zeros((len(dataset.group_names), len(_SUMS)))
    for index, item, result in evaluated(force_field, dataset, range(world.rank, len(dataset), world.size)):
        sums[dataset.group[index]] += _row(item, result)
    sums = np.array(world.sum(sums.ravel().tolist())).reshape(sums.shape)
    rows: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(_SUMS)))
    for name, row in zip(dataset.group_names, sums, strict=True):
        for key in {name or "(no group)", "all"}:
            rows[key] += row
    return {name: _summary(row) for name, row in sorted(rows.items()) if row[0]}


def evaluated(
    force_field: ForceField, dataset: Dataset, indices: Sequence[int]
) -> Iterator[tuple[int, LabelledStructure, Evaluation]]:
    """Evaluate structures of a dataset, several at a time.

    Parameters
    ----------
    force_field
        The force field.
    dataset
        Labelled structures.
    indices
        Indices of the structures to evaluate.

    Yields
    ------
    tuple[int, LabelledStructure, Evaluation]
        Index, structure with its labels, and result.
    """
    for start in range(0, len(indices), AT_ONCE):
        part = indices[start : start + AT_ONCE]
        items = [dataset[index] for index in part]
        yield from zip(part, items, force_field.evaluate([item.atoms for item in items]), strict=True)


def _row(item: LabelledStructure, result: Evaluation) -> np.ndarray:
    """What one structure adds to each of `_SUMS`."""
    energy = (result.energy - item.energy) / len(item.atoms)
    force = result.forces - item.forces
    labelled = np.isfinite(item.stress).all() and np.isfinite(result.stress).all()
    stress = (result.stress - item.stress).ravel() if labelled else np.zeros(0)
    return np.array(
        [
            1, len(item.atoms), abs(energy), energy**2, np.abs(force).sum(), (force**2).sum(),
            (np.asarray(item.forces) ** 2).sum(), force.size, np.abs(stress).sum(), (stress**2).sum(), stress.size,
        ]
    )  # fmt: skip


def _summary(row: np.ndarray) -> dict[str, float]:
    """Mean errors from the sums of a group."""
    v = dict(zip(_SUMS, row.tolist(), strict=True))
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
