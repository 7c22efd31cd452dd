"""Labelled structures as graphs with targets, and batches of them as tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from esen_flows.data.batch import Graph, GraphBatch
from esen_flows.data.labelled import LabelledStructure
from esen_flows.data.ragged import sent
from esen_flows.network.interface import NetworkConfig
from esen_flows.training.batches import cut
from esen_flows.training.denoising import Noise


@dataclass(frozen=True)
class Frame:
    """A graph and its labels.

    Attributes
    ----------
    graph
        Graph of the structure, or of the noised structure.
    energy
        Energy above the element references in eV.
    forces
        (n, 3) in eV/Angstrom, of the structure before it was noised.
    stress
        (3, 3) in eV/Angstrom^3; NaN without a label.
    noise
        Displacements that the network has to predict; None for a structure that is not noised.
    directions
        (n, 2, 3) two random directions in which the Jacobian of direct forces is tested; None: it is not.
    """

    graph: Graph
    energy: float
    forces: np.ndarray
    stress: np.ndarray
    noise: Noise | None = None
    directions: np.ndarray | None = None

    def turned(self, matrix: np.ndarray) -> "Frame":
        """The structure after a rotation, proper or improper, with its labels.

        Parameters
        ----------
        matrix
            (3, 3) orthogonal matrix R, applied to column vectors.

        Returns
        -------
        Frame
            A new frame.
        """
        noise = self.noise and replace(self.noise, displacement_angstrom=self.noise.displacement_angstrom @ matrix.T)
        graph = replace(self.graph, vectors=self.graph.vectors @ torch.from_numpy(matrix.T.copy()))
        stress = matrix @ self.stress @ matrix.T
        return replace(self, graph=graph, forces=self.forces @ matrix.T, stress=stress, noise=noise)

    def inverted(self) -> "Frame":
        """The mirror image x -> -x: vectors and forces change sign, energy and stress do not.

        Returns
        -------
        Frame
            A new frame.
        """
        noise = self.noise and replace(self.noise, displacement_angstrom=-self.noise.displacement_angstrom)
        graph = replace(self.graph, vectors=-self.graph.vectors)
        return replace(self, graph=graph, forces=-self.forces, noise=noise)


@dataclass(frozen=True)
class LabelledBatch:
    """A graph batch with its targets.

    Attributes
    ----------
    graph
        The graphs of all structures.
    energy
        (systems,) float64, energy above the element references in eV.
    forces
        (atoms, 3) in eV/Angstrom.
    stress
        (systems, 3, 3) in eV/Angstrom^3; NaN without a label.
    n_atoms
        (systems,) atoms of each structure.
    noise
        (atoms, 3) displacements in Angstrom of a noised batch, or None.
    moved
        (atoms,) bool, which atoms were noised, or None.
    directions
        (atoms, 2, 3) two random directions of each structure, or None.
    """

    graph: GraphBatch
    energy: Tensor
    forces: Tensor
    stress: Tensor
    n_atoms: Tensor
    noise: Tensor | None = None
    moved: Tensor | None = None
    directions: Tensor | None = None

    @property
    def noised_forces(self) -> Tensor | None:
        """(atoms, 3) input of a denoising network: true forces of noised atoms, zero for the others."""
        return None if self.moved is None else torch.where(self.moved.unsqueeze(1), self.forces, 0.0)

    def pieces(self, edges: int) -> list["LabelledBatch"]:
        """The batch cut into consecutive pieces.

        Parameters
        ----------
        edges
            Most edges of a piece; a structure with more is a piece of its own.

        Returns
        -------
        list[LabelledBatch]
            The pieces, in order.
        """
        sizes = torch.bincount(self.graph.edge_system, minlength=self.graph.n_systems).tolist()
        starts = [*cut(sizes, edges, len(sizes)), len(sizes)]
        return [self._systems(first, last) for first, last in pairwise(starts)]

    def _systems(self, first: int, last: int) -> "LabelledBatch":
        graph = self.graph.systems(first, last)
        start = int(self.n_atoms[:first].sum())
        atoms = slice(start, start + len(graph.numbers))
        return LabelledBatch(
            graph,
            self.energy[first:last],
            self.forces[atoms],
            self.stress[first:last],
            self.n_atoms[first:last],
            None if self.noise is None else self.noise[atoms],
            None if self.moved is None else self.moved[atoms],
            None if self.directions is None else self.directions[atoms],
        )


def make_frame(
    item: LabelledStructure, network: NetworkConfig, references_ev: Mapping[int, float], noise: Noise | None = None
) -> Frame:
    """Make the graph and the labels of a structure.

    Parameters
    ----------
    item
        The labelled structure; not changed.
    network
        Gives the cutoff and the most neighbours, and says whether charge and spin are inputs.
    references_ev
        Energy of each element in eV, taken off the structure's energy.
    noise
        Displacements of the atoms before the graph is made.

    Returns
    -------
    Frame
        Graph and labels.
    """
    above = item.energy - sum(references_ev[int(z)] for z in item.atoms.numbers)
    atoms = item.atoms
    if noise is not None:
        atoms = atoms.copy()
        atoms.positions += noise.displacement_angstrom
    state = network.charge_and_spin_limits is not None
    graph = Graph.from_atoms(
        atoms,
        network.cutoff_angstrom,
        network.neighbor_limit,
        charge_and_spin=state,
        reverse=network.reads_reverse_edges,
    )
    # Datasets that were written before such labels were left out may give a stress to a structure without a volume.
    stress = np.asarray(item.stress) if np.isfinite(graph.volume) else np.full((3, 3), np.nan)
    return Frame(graph, above, np.asarray(item.forces), stress, noise)


def collate(
    frames: Sequence[Frame], dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> LabelledBatch:
    """Join frames into a batch.

    Parameters
    ----------
    frames
        Frames of which either all or none are noised.
    dtype
        Precision of all but the energies: they stay float64, so that differences of total energies keep their digits.
    device
        Where the tensors are.

    Returns
    -------
    LabelledBatch
        The batch.

    Raises
    ------
    ValueError
        Some of the frames are noised, and others are not.
    """

    def tensor(parts: Sequence[np.ndarray]) -> Tensor:
        return sent(torch.from_numpy(np.concatenate(parts)), device, dtype)

    directions = [frame.directions for frame in frames if frame.directions is not None]
    noises = [frame.noise for frame in frames if frame.noise is not None]
    if noises and len(noises) < len(frames):
        raise ValueError(f"{len(noises)} of {len(frames)} structures of a batch are noised: all or none must be")
    return LabelledBatch(
        graph=GraphBatch.collate([frame.graph for frame in frames], dtype=dtype, device=device),
        energy=sent(torch.tensor([frame.energy for frame in frames], dtype=torch.float64), device),
        forces=tensor([frame.forces for frame in frames]),
        stress=tensor([frame.stress[None] for frame in frames]),
        n_atoms=sent(torch.tensor([len(frame.graph.numbers) for frame in frames]), device),
        noise=tensor([noise.displacement_angstrom for noise in noises]) if noises else None,
        moved=sent(torch.from_numpy(np.concatenate([noise.moved for noise in noises])), device) if noises else None,
        directions=tensor(directions) if directions else None,
    )
