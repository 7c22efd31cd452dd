"""Graph batches of structures that stay on a device, without a copy of anything on the host."""

from collections.abc import Sequence

import numpy as np
import torch

from esen_flows.data.batch import GraphBatch
from esen_flows.data.batch_state import BatchState
from esen_flows.data.neighbor_tables import Edges
from esen_flows.data.ragged import Rows, to_device


def state_graphs(state: BatchState, edges: Edges, dtype: torch.dtype) -> GraphBatch:
    """All structures of a state as one batch of graphs; charges and spins are zero.

    Parameters
    ----------
    state
        The structures.
    edges
        Their edges.
    dtype
        Floating-point type of vectors and volumes.

    Returns
    -------
    GraphBatch
        The graphs, in order.
    """
    zero = torch.zeros(state.n_systems, dtype=torch.int64, device=state.device)
    return GraphBatch(
        numbers=state.numbers,
        source=edges.source,
        target=edges.target,
        vectors=edges.vectors.to(dtype),
        system=state.system,
        edge_system=edges.system,
        volume=state.volumes.to(dtype),
        charge=zero,
        spin=zero,
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
    atom_rows, edge_rows, places = atoms.of(chosen), edges.of(chosen), to_device(chosen, device)
    first_atom = to_device(own_atoms.starts - atoms.starts[chosen], device).index_select(0, own_edges.owner)
    reverse = None
    if batch.reverse is not None:
        first_edge = to_device(own_edges.starts - edges.starts[chosen], device).index_select(0, own_edges.owner)
        reverse = batch.reverse.index_select(0, edge_rows) + first_edge
    return GraphBatch(
        numbers=batch.numbers.index_select(0, atom_rows),
        source=batch.source.index_select(0, edge_rows) + first_atom,
        target=batch.target.index_select(0, edge_rows) + first_atom,
        vectors=batch.vectors.index_select(0, edge_rows),
        system=own_atoms.owner,
        edge_system=own_edges.owner,
        volume=batch.volume.index_select(0, places),
        charge=batch.charge.index_select(0, places),
        spin=batch.spin.index_select(0, places),
        n_systems=len(chosen),
        reverse=reverse,
    )
