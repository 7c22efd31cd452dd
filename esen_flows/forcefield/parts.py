"""Results of a batch that is computed in as many parts as its memory asks for."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from esen_flows.data.batch import GraphBatch
from esen_flows.data.batch_state import BatchState
from esen_flows.data.ragged import to_device
from esen_flows.data.state_graphs import chosen_graphs
from esen_flows.forcefield.batching import EdgeBudget
from esen_flows.network.derivatives import EnergyForcesStress

_OF_ATOMS = ("node_energy", "forces", "direct_forces", "node_embedding")


def columns_of(result: EnergyForcesStress, *, atom_energies: bool) -> dict[str, Tensor]:
    """Results as float64 columns.

    Parameters
    ----------
    result
        Results of a batch.
    atom_energies
        Whether the energies of the atoms are among them.

    Returns
    -------
    dict[str, Tensor]
        Columns of atoms and of structures by name.
    """
    columns = {"energy": result.energy, "forces": result.forces, "stress": result.stress}
    if atom_energies:
        columns["node_energy"] = result.node_energy
    if result.direct is not None:
        columns |= {"direct_forces": result.direct.forces, "direct_stress": result.direct.stress}
    return {name: value.double() for name, value in columns.items()}


def in_parts(
    budget: EdgeBudget,
    batch: GraphBatch,
    state: BatchState,
    edge_counts: np.ndarray,
    run: Callable[[GraphBatch], dict[str, Tensor]],
    give_back: Callable[[], bool],
) -> dict[str, Tensor]:
    """Columns of all atoms and structures of a batch.

    Parameters
    ----------
    budget
        How many edges are computed together.
    batch
        The graphs.
    state
        The structures.
    edge_counts
        (structures,) number of edges of each structure.
    run
        Gives the columns of some of the structures, in tensors that its next call may overwrite.
    give_back
        As that of `EdgeBudget.run`.

    Returns
    -------
    dict[str, Tensor]
        Columns by name; those of a batch that fits into one part are the tensors that `run` gave.

    Raises
    ------
    InsufficientMemoryError
        A structure does not fit into memory.
    """
    columns: dict[str, Tensor] = {}

    def compute(indices: list[int]) -> list[int]:
        if len(indices) == state.n_systems:
            columns.update(run(batch))
            return indices
        part = run(chosen_graphs(batch, indices, state.atoms, edge_counts))
        rows, systems = state.atoms.of(indices), to_device(np.array(indices), state.device)
        for name, values in part.items():
            places, total = (rows, state.atoms.total) if name in _OF_ATOMS else (systems, state.n_systems)
            if name not in columns:
                columns[name] = values.new_empty(total, *values.shape[1:])
            columns[name].index_copy_(0, places, values)
        return indices

    budget.run(compute, range(state.n_systems), edge_counts.tolist(), give_back)
    return columns
