"""Labelled structures as graphs with targets, and batches of them in a reproducible order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from esen_flows.data.batch import Graph, GraphBatch
from esen_flows.data.labelled import LabelledStructure


@dataclass(frozen=True)
class Frame:
    """A graph and its labels: energy above the element references (eV), forces, stress (eV/Angstrom^3)."""

    graph: Graph
    energy: float
    forces: np.ndarray
    stress: np.ndarray
    group: str

    def inverted(self) -> "Frame":
        """The mirror image x -> -x: vectors and forces change sign, energy and stress do not."""
        return replace(self, graph=replace(self.graph, vectors=-self.graph.vectors), forces=-self.forces)


@dataclass(frozen=True)
class LabelledBatch:
    """A graph batch with targets: energy (systems,), forces (atoms, 3), stress (systems, 3, 3), atoms (systems,)."""

    graph: GraphBatch
    energy: Tensor
    forces: Tensor
    stress: Tensor
    n_atoms: Tensor


def make_frames(
    structures: Sequence[LabelledStructure],
    cutoff_angstrom: float,
    references_ev: Mapping[int, float],
    max_neighbors: int | None = None,
) -> list[Frame]:
    """Graphs and labels of structures, with the element references taken off the energies."""
    frames = []
    for item in structures:
        above = item.energy - sum(references_ev[int(z)] for z in item.atoms.numbers)
        graph = Graph.from_atoms(item.atoms, cutoff_angstrom, max_neighbors)
        frames.append(Frame(graph, above, np.asarray(item.forces), np.asarray(item.stress), item.group))
    return frames


def collate(frames: Sequence[Frame], dtype: torch.dtype = torch.float32) -> LabelledBatch:
    """Join frames; energies stay float64, so that differences of total energies keep their digits."""
    return LabelledBatch(
        GraphBatch.collate([frame.graph for frame in frames], dtype=dtype),
        torch.tensor([frame.energy for frame in frames], dtype=torch.float64),
        torch.from_numpy(np.concatenate([frame.forces for frame in frames])).to(dtype),
        torch.from_numpy(np.stack([frame.stress for frame in frames])).to(dtype),
        torch.tensor([len(frame.graph.numbers) for frame in frames]),
    )


def epoch_batches(
    frames: Sequence[Frame],
    *,
    edges_per_batch: int,
    seed: int,
    epoch: int,
    group_share: Mapping[str, float] | None = None,
    random_inversion: bool = False,
) -> Iterator[list[Frame]]:
    """Batches of one epoch: a function of (seed, epoch) alone, so that a resumed training sees the same ones."""
    random = np.random.default_rng([seed, epoch])
    share = np.array([(group_share or {}).get(frame.group, 1.0) for frame in frames])
    chosen = np.flatnonzero(random.random(len(frames)) < share)
    order = random.permutation(chosen)
    mirrored = random.random(len(frames)) < 0.5
    batch: list[Frame] = []
    edges = 0
    for index in order:
        frame = frames[index]
        size = len(frame.graph.source)
        if batch and edges + size > edges_per_batch:
            yield batch
            batch, edges = [], 0
        batch.append(frame.inverted() if random_inversion and mirrored[index] else frame)
        edges += size
    if batch:
        yield batch
