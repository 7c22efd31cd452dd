"""Lists of structures by way of batches: `evaluate` for force fields that compute on tensors."""

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from ase import Atoms

from esen_flows.data.batch_state import BatchState
from esen_flows.data.ragged import to_host
from esen_flows.errors import EvaluationError, InsufficientMemoryError
from esen_flows.forcefield.contract import ATOMS_AT_ONCE, BatchEvaluation, Evaluation, ForceField

# Structures of a long list are on the device together up to about this many edges, of 40 bytes each.
EDGES_TOGETHER = 1_000_000
# And never more atoms than these: what follows structures with few edges may have many.
MOST_ATOMS_TOGETHER = 8 * ATOMS_AT_ONCE


def evaluate_list(force_field: ForceField, structures: Sequence[Atoms]) -> list[Evaluation]:
    """Energies, forces and stresses of structures that are evaluated once, by `evaluate_batch`.

    Parameters
    ----------
    force_field
        Force field that overrides `evaluate_batch`.
    structures
        Structures of any sizes and periodicities.

    Returns
    -------
    list[Evaluation]
        One result per structure, in their order.

    Raises
    ------
    StructureError, UnknownElementError, InsufficientMemoryError
        As `evaluate_batch`.
    EvaluationError
        A result is NaN or infinite.
    """
    results: list[Evaluation] = []
    for state in states_of(force_field, structures):
        for result in evaluations(force_field, force_field.evaluate_batch(state), state):
            if isinstance(result, EvaluationError):
                raise result
            results.append(result)
    return results


def states_of(force_field: ForceField, structures: Sequence[Atoms]) -> Iterator[BatchState]:
    """Consecutive structures as states with their neighbours, as many at once as fill batches and fit into memory.

    Parameters
    ----------
    force_field
        Force field that makes the neighbour tables.
    structures
        Structures of any sizes and periodicities.

    Yields
    ------
    BatchState
        Structures for one evaluation.

    Raises
    ------
    StructureError
        A structure cannot have neighbours.
    InsufficientMemoryError
        The neighbours of one structure do not fit.
    """
    ends = np.cumsum([len(atoms) for atoms in structures])
    first, room = 0, ATOMS_AT_ONCE
    waiting: deque[int] = deque()  # ends of windows that were halved
    while first < len(structures):
        before = int(ends[first - 1]) if first else 0
        last = waiting.popleft() if waiting else max(first + 1, int(np.searchsorted(ends, before + room, side="right")))
        device, some = force_field.device, structures[first:last]
        state = BatchState.of(some, device, once=True, atom_energies=True, first=first)
        try:
            force_field.find_neighbors(state)
        except InsufficientMemoryError:
            if last == first + 1:
                raise
            waiting.extendleft((last, (first + last) // 2))
            continue
        if state.known is not None:
            filled = int(EDGES_TOGETHER * state.atoms.total / max(1.0, state.known[1].sum()))
            room = min(max(ATOMS_AT_ONCE, filled), MOST_ATOMS_TOGETHER)
        yield state
        first = last


def evaluations(
    force_field: ForceField, result: BatchEvaluation, state: BatchState
) -> list[Evaluation | EvaluationError]:
    """The result of each structure of a batch. The host waits for the device.

    Parameters
    ----------
    force_field
        Force field that gave the result.
    result
        Results of a batch.
    state
        The batch.

    Returns
    -------
    list[Evaluation | EvaluationError]
        For each structure its result, or the error where a number is NaN or infinite. A stress that is NaN throughout
        is one that there is not.
    """
    atoms = to_host(_side_by_side(result.forces, result.energies))
    systems = to_host(_side_by_side(result.energy, result.stress.flatten(1), result.spread))
    found: list[Evaluation | EvaluationError] = []
    parts = [atoms] if state.n_systems == 1 else np.split(atoms, state.atoms.starts[1:])
    for template, own, row in zip(state.templates, parts, systems, strict=True):
        stress = row[1:10]
        finite = np.isfinite(row[0]) and np.isfinite(own).all()
        if not finite or not (np.isfinite(stress).all() or np.isnan(stress).all()):
            found.append(
                EvaluationError(
                    f"{force_field.label!r} returned NaN or infinity for {template.get_chemical_formula()}; check its "
                    "interatomic distances, or use dtype float64"
                )
            )
            continue
        energies = None if result.energies is None else own[:, 3].copy()
        spread = None if result.spread is None else row[10:].copy()
        forces = np.ascontiguousarray(own[:, :3])
        found.append(Evaluation(float(row[0]), forces, stress.reshape(3, 3).copy(), energies, spread))
    return found


def _side_by_side(*columns: torch.Tensor | None) -> torch.Tensor:
    """Columns of one tensor, those that are there."""
    there = [one.unsqueeze(1) if one.ndim == 1 else one for one in columns if one is not None]
    return there[0] if len(there) == 1 else torch.cat(there, dim=1)
