"""Errors of a force field on labelled structures, by group, in the units of published tables."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from esen_flows.data.dataset import Dataset
from esen_flows.data.label_errors import SUMS, error_sums, mean_errors
from esen_flows.data.labelled import LabelledStructure
from esen_flows.forcefield.contract import Evaluation, ForceField
from esen_flows.training.distributed import ALONE, World

AT_ONCE = 256  # structures given to the force field together


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
        Mean errors of each group (`data.label_errors.mean_errors`).

    Raises
    ------
    UnknownElementError, EvaluationError
        The force field cannot evaluate a structure.
    """
    sums = np.zeros((len(dataset.group_names), len(SUMS)))
    for index, item, result in evaluated(force_field, dataset, range(world.rank, len(dataset), world.size)):
        sums[dataset.group[index]] += error_sums(item, result.energy, result.forces, result.stress)
    sums = np.array(world.sum(sums.ravel().tolist())).reshape(sums.shape)
    rows: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(SUMS)))
    for name, row in zip(dataset.group_names, sums, strict=True):
        for key in {name or "(no group)", "all"}:
            rows[key] += row
    return {name: mean_errors(row) for name, row in sorted(rows.items()) if row[0]}


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
