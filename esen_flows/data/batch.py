"""Graphs of structures, and batches of them as tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from esen_flows.data.charges import charge_and_spin_of
from esen_flows.data.neighbors import EdgeVectors, determinant, nearest, neighbor_pairs
from esen_flows.data.ragged import sent
from esen_flows.errors import StructureError


@dataclass(frozen=True)
class Graph:
    """One structure with its edges.

    Attributes
    ----------
    numbers
        (atoms,) int64 atomic numbers, on the CPU.
    source
        (edges,) int64 index of the atom that sends the message.
    target
        (edges,) int64 index of the atom that receives the message, ascending.
    vectors
        (edges, 3) float64 vectors from target to source in Angstrom.
    volume
        Volume in Angstrom^3; NaN for a structure that is not periodic along three vectors, so that its stress is NaN.
    charge
        Total charge in elementary charges.
    spin
        Spin multiplicity; 0 where it is not known.
    reverse
        (edges,) int64 index of the reverse edge of every edge; None unless the network reads it.
    """

    numbers: Tensor
    source: Tensor
    target: Tensor
    vectors: Tensor
    volume: float
    charge: int = 0
    spin: int = 0
    reverse: Tensor | None = None

    @classmethod
    def from_atoms(
        cls,
        atoms: Atoms,
        cutoff_angstrom: float,
        max_neighbors: int | None = None,
        *,
        charge_and_spin: bool = False,
        reverse: bool = False,
    ) -> "Graph":
        """The graph of a structure.

        Parameters
        ----------
        atoms
            The structure.
        cutoff_angstrom
            Length of the longest edge in Angstrom.
        max_neighbors
            About the number of nearest neighbours that are kept for each atom (see `nearest`); None keeps all.
        charge_and_spin
            Whether total charge and spin multiplicity are read from `atoms.info["charge"]` and `atoms.info["spin"]`.
            They are 0 where these are missing.
        reverse
            Whether the graph keeps the index of the reverse edge of every edge, which needs `max_neighbors` None.

        Returns
        -------
        Graph
            The structure with its edges.

        Raises
        ------
        StructureError
            There are no atoms, `neighbor_pairs` refuses the structure, or charge or spin is not an integer.
        ValueError
            `reverse` was asked for together with `max_neighbors`, which leaves edges without their reverse.
        """
        if reverse and max_neighbors is not None:
            raise ValueError("with max_neighbors, edges lack their reverse edges; leave one of the two out")
        if len(atoms) == 0:
            raise StructureError("a structure has no atoms; leave it out")
        pairs = neighbor_pairs(atoms, cutoff_angstrom, reverse=reverse)
        if max_neighbors is not None:
            kept = nearest(pairs.vectors, pairs.target, max_neighbors)
            pairs = EdgeVectors(pairs.source[kept], pairs.target[kept], pairs.vectors[kept])
        volume = (abs(determinant(atoms.cell.array)) if atoms.pbc.all() else 0.0) or float("nan")
        numbers = torch.from_numpy(atoms.numbers.astype(np.int64))
        charge, spin = charge_and_spin_of(atoms) if charge_and_spin else (0, 0)
        return cls(numbers, pairs.source, pairs.target, pairs.vectors, volume, charge, spin, pairs.reverse)


@dataclass(frozen=True)
class GraphBatch:
    """Several graphs as one, as tensors on one device.

    Attributes
    ----------
    numbers
        (atoms,) int64 atomic numbers.
    source
        (edges,) int64 index of the atom that sends the message, counted over the whole batch.
    target
        (edges,) int64 index of the atom that receives the message, counted over the whole batch.
    vectors
        (edges, 3) vectors from target to source in Angstrom.
    system
        (atoms,) int64 structure of each atom.
    edge_system
        (edges,) int64 structure of each edge.
    volume
        (systems,) volume in Angstrom^3; NaN for a structure that is not periodic along three vectors.
    charge
        (systems,) int64 total charge in elementary charges.
    spin
        (systems,) int64 spin multiplicity, 0 where it is not known.
    n_systems
        Number of structures.
    reverse
        (edges,) int64 index of the reverse edge of every edge, counted over the whole batch; None unless all graphs
        have it.
    """

    numbers: Tensor
    source: Tensor
    target: Tensor
    vectors: Tensor
    system: Tensor
    edge_system: Tensor
    volume: Tensor
    charge: Tensor
    spin: Tensor
    n_systems: int
    reverse: Tensor | None = None

    @property
    def n_edges(self) -> int:
        """Number of directed edges."""
        return self.source.shape[0]

    def systems(self, first: int, last: int) -> "GraphBatch":
        """Some of the structures as a batch of their own.

        Parameters
        ----------
        first, last
            The structures first, ..., last - 1.

        Returns
        -------
        GraphBatch
            Their graphs, with views of the tensors where nothing is counted anew.
        """
        ends = torch.tensor([first, last], device=self.system.device)
        atoms = slice(*torch.searchsorted(self.system, ends).tolist())
        edges = slice(*torch.searchsorted(self.edge_system, ends).tolist())
        return GraphBatch(
            numbers=self.numbers[atoms],
            source=self.source[edges] - atoms.start,
            target=self.target[edges] - atoms.start,
            vectors=self.vectors[edges],
            system=self.system[atoms] - first,
            edge_system=self.edge_system[edges] - first,
            volume=self.volume[first:last],
            charge=self.charge[first:last],
            spin=self.spin[first:last],
            n_systems=last - first,
            reverse=None if self.reverse is None else self.reverse[edges] - edges.start,
        )

    @classmethod
    def collate(
        cls, graphs: Sequence[Graph], *, dtype: torch.dtype = torch.float64, device: str | torch.device = "cpu"
    ) -> "GraphBatch":
        """Join graphs of any sizes and periodicities.

        Parameters
        ----------
        graphs
            The graphs.
        dtype
            Floating-point type of vectors and volumes, which are float64 until here.
        device
            Device of all tensors.

        Returns
        -------
        GraphBatch
            The graphs, in order.

        Examples
        --------
        >>> from ase.build import bulk
        >>> batch = GraphBatch.collate([Graph.from_atoms(bulk("Cu"), 3.0), Graph.from_atoms(bulk("Si"), 3.0)])
        >>> batch.numbers.tolist(), batch.n_edges
        ([29, 14, 14], 20)
        """
        atoms = np.array([len(graph.numbers) for graph in graphs])
        edges = np.array([len(graph.source) for graph in graphs])
        systems = np.arange(len(graphs))
        small = {
            "system": np.repeat(systems, atoms),
            "edge_system": np.repeat(systems, edges),
            "charge": np.array([graph.charge for graph in graphs]),
            "spin": np.array([graph.spin for graph in graphs]),
        }
        first = sent(torch.from_numpy(np.repeat(np.cumsum(atoms) - atoms, edges)), device)
        reverses = [graph.reverse for graph in graphs if graph.reverse is not None]
        reverse = None
        if reverses and len(reverses) == len(graphs):
            first_edge = sent(torch.from_numpy(np.repeat(np.cumsum(edges) - edges, edges)), device)
            reverse = sent(torch.cat(reverses), device) + first_edge
        volume = torch.tensor([graph.volume for graph in graphs], dtype=torch.float64)
        return cls(
            **{name: sent(torch.from_numpy(value), device) for name, value in small.items()},
            numbers=sent(torch.cat([graph.numbers for graph in graphs]), device),
            source=sent(torch.cat([graph.source for graph in graphs]), device) + first,
            target=sent(torch.cat([graph.target for graph in graphs]), device) + first,
            vectors=sent(torch.cat([graph.vectors for graph in graphs]), device, dtype),
            volume=sent(volume, device, dtype),
            n_systems=len(graphs),
            reverse=reverse,
        )
