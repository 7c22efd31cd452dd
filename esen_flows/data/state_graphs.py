"""Graph batches of structures that stay on a device, without a copy of anything on the host."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from esen_flows.data.batch import GraphBatch
from esen_flows.data.batch_state import BatchState
from esen_flows.data.edges import Edges
from esen_flows.data.ragged import Rows, to_device


def state_graphs(state: BatchState, edges: Edges, dtype: torch.dtype, *, charge_and_spin: bool = False) -> GraphBatch:
    """All structures of a state as one batch of graphs.

    Parameters
    ----------
    state
        The structures.
    edges
        Their edges.
    dtype
        Floating-point type of vectors and volumes.
    charge_and_spin
        Whether the graphs have the charges and spins of the structures, and not zeros.

    Returns
    -------
    GraphBatch
        The graphs, in order.

    Raises
    ------
    StructureError
        Charge or spin is asked for and not an integer.
    """
    if charge_and_spin:
        charge, spin = state.charges_and_spins().unbind(1)
    else:
        charge = spin = torch.zeros(state.n_systems, dtype=torch.int64, device=state.device)
    return GraphBatch(
        numbers=state.numbers,
        source=edges.source,
        target=edges.target,
        vectors=edges.vectors.to(dtype),
        system=state.system,
        edge_system=edges.system,
        volume=state.volumes.to(dtype),
        charge=charge,
        spin=spin,
        n_systems=state.n_systems,
        reverse=edges.reverse,
    )


def chosen_graphs(batch: GraphBatch, systems: Sequence[int], atoms: Rows, edge_counts: np.ndarray) -> GraphBatch:
    """Some structures of a batch as a batch of their own, in any order.

    Parameters
    ----------
    batch
        Graphs.
    systems
        Numbers of structures.
    atoms
        Atoms of each structure of `batch`.
    edge_counts
        (systems,) number of edges of each structure of `batch`.

    Returns
    -------
    GraphBatch
        Their graphs.
    """
    chosen, device = np.asarray(systems, dtype=np.int64), batch.numbers.device
    edges = Rows(edge_counts, device)
    own_atoms, own_edges = (Rows(rows.counts[chosen], device) for rows in (atoms, edges))
    taken = _consecutive if len(chosen) and (np.diff(chosen) == 1).all() else _gathered
    systems_of = Rows(np.ones_like(atoms.counts), device)
    of_atoms, of_edges, of_systems = (taken(rows, chosen) for rows in (atoms, edges, systems_of))
    first_atom = _spread(own_atoms.starts - atoms.starts[chosen], own_edges)
    reverse = None
    if batch.reverse is not None:
        reverse = of_edges(batch.reverse) + _spread(own_edges.starts - edges.starts[chosen], own_edges)
    return GraphBatch(
        numbers=of_atoms(batch.numbers),
        source=of_edges(batch.source) + first_atom,
        target=of_edges(batch.target) + first_atom,
        vectors=of_edges(batch.vectors),
        system=own_atoms.owner,
        edge_system=own_edges.owner,
        volume=of_systems(batch.volume),
        charge=of_systems(batch.charge),
        spin=of_systems(batch.spin),
        n_systems=len(chosen),
        reverse=reverse,
    )


def _gathered(rows: Rows, chosen: np.ndarray) -> Callable[[Tensor], Tensor]:
    places = rows.of(chosen)
    return lambda column: column.index_select(0, places)


def _consecutive(rows: Rows, chosen: np.ndarray) -> Callable[[Tensor], Tensor]:
    """The same for structures that follow one another, as views."""
    first, length = int(rows.starts[chosen[0]]), int(rows.counts[chosen].sum())
    return lambda column: column.narrow(0, first, length)


def _spread(moved: np.ndarray, rows: Rows) -> Tensor | int:
    """The number of its structure for each row."""
    if (moved == moved[0]).all():
        return int(moved[0])
    return to_device(moved, rows.device).index_select(0, rows.owner)
