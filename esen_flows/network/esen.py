"""eSEN (arXiv 2502.12147): one network for every published and ablated configuration, see `config.ESENConfig`.

Parameter names are those of the published checkpoints without their `backbone.` prefix, so that a published file maps
name by name.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from esen_flows.data.batch import GraphBatch
from esen_flows.network.config import ESENConfig
from esen_flows.network.edges import EdgeGeometry, Sums, at_targets, sum_messages
from esen_flows.network.fused import FusedNetwork, fused
from esen_flows.network.grid import GridNodeBlock
from esen_flows.network.heads import ForceEncoding, StressHead, VectorHead
from esen_flows.network.norms import NORMS
from esen_flows.network.radial import BesselBasis, GaussianBasis, RadialMLP, envelope
from esen_flows.network.so2 import EdgeBlock
from esen_flows.network.so3 import EdgeRotation, NodeBlock, edge_frames
from esen_flows.network.steps import ChunkedEdges
from esen_flows.network.training_kernels import sum_by_kernels

EDGE_DEGREE_RESCALE = 5.0  # a constant of the published model
MAX_CHARGE, MAX_SPIN = 100, 100  # of the published tables: charges from -100 to 100, multiplicities from 0 to 100


@dataclass(frozen=True)
class NetworkOutput:
    """What the network says, in network units.

    Attributes
    ----------
    energy
        (systems,).
    node_energy
        (atoms,).
    node_embedding
        (atoms, (lmax + 1)^2, sphere_channels) after the final norm.
    forces
        (atoms, 3) of the direct head, or None.
    noise
        (atoms, 3) of the denoising head, or None.
    isotropic_stress, anisotropic_stress
        (systems,) and (systems, 5) of the direct head, or None.
    """

    energy: Tensor
    node_energy: Tensor
    node_embedding: Tensor
    forces: Tensor | None = None
    noise: Tensor | None = None
    isotropic_stress: Tensor | None = None
    anisotropic_stress: Tensor | None = None


class EdgeDegreeEmbedding(nn.Module):
    """Initial messages: m = 0 coefficients from a radial network, rotated back and summed onto the target."""

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        self.rows, self.channels = config.lmax + 1, config.sphere_channels
        self.rad_func = RadialMLP(config.num_distance_basis, config.edge_channels, self.rows * self.channels)

    def sums(self, x: Tensor, edges: EdgeGeometry, first: int, rows: int) -> Tensor:
        """Messages summed in `rows` atoms from the atom `first` on, (rows, coefficients, channels)."""
        return at_targets(self(x, edges), x, edges, first, rows)

    def forward(self, x: Tensor, edges: EdgeGeometry) -> Tensor:
        """Messages of the edges, (edges, coefficients, channels)."""
        modulation = self.rad_func(edges.basis, edges.species, (edges.source, edges.target))
        values = modulation.view(-1, self.rows, self.channels)
        return torch.bmm(edges.back[:, :, : self.rows], values) / EDGE_DEGREE_RESCALE


def _gather_pairs(x: Tensor, edges: EdgeGeometry) -> Tensor:
    """(edges, coefficients, 2 * channels): source channels first. One flat row gather, no concatenation."""
    n_coefficients, channels = x.shape[1], x.shape[2]
    rows = torch.stack((edges.source, edges.target), dim=1) * n_coefficients  # (edges, 2)
    index = rows.unsqueeze(1) + torch.arange(n_coefficients, device=x.device).view(1, -1, 1)
    gathered = x.reshape(-1, channels).index_select(0, index.reshape(-1))
    return gathered.view(-1, n_coefficients, 2 * channels)


def _add_to_scalars(x: Tensor, scalars: Tensor | None) -> Tensor:
    return x if scalars is None else torch.cat((x[:, :1] + scalars.unsqueeze(1), x[:, 1:]), dim=1)


class Layer(nn.Module):
    """x + edge block, then x + node block, each behind a norm."""

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        c = config
        self.norm_1 = NORMS[c.norm_type](c.lmax, c.sphere_channels)
        self.edge_wise = EdgeBlock(c)
        self.norm_2 = NORMS[c.norm_type](c.lmax, c.sphere_channels)
        self.atom_wise: nn.Module
        if c.mlp_type == "spectral":
            self.atom_wise = NodeBlock(c.lmax, c.sphere_channels, c.hidden_channels)
        else:
            self.atom_wise = GridNodeBlock(c.lmax, c.sphere_channels, c.hidden_channels, c.grid_resolution)

    def forward(self, x: Tensor, edge_sum: Callable[[Tensor], Tensor], state: Tensor | None) -> Tensor:
        """(atoms, coefficients, channels) -> same; `edge_sum` sums this layer's messages of features."""
        x = x + edge_sum(_add_to_scalars(self.norm_1(x), state))
        return x + self.atom_wise(self.norm_2(x))

    def sums(self, features: Tensor, edges: EdgeGeometry, first: int, rows: int) -> Tensor:
        """Messages of normed features summed in `rows` atoms from the atom `first` on, by kernels where there are."""
        total = sum_by_kernels(self.edge_wise, features, edges, first, rows)
        return at_targets(self.messages(features, edges), features, edges, first, rows) if total is None else total

    def messages(self, features: Tensor, edges: EdgeGeometry) -> Tensor:
        """Normed features -> messages of the edges, (edges, coefficients, channels)."""
        rotated = torch.bmm(edges.rotation, _gather_pairs(features, edges))
        mixed = self.edge_wise(rotated, edges.basis, edges.species, (edges.source, edges.target))
        return torch.bmm(edges.back, mixed)


class ESEN(nn.Module):
    """Equivariant smooth energy network: a graph batch in, energies in network units out.

    `edges_per_chunk` bounds the memory of a large structure: messages are computed for so many edges at a time, and
    once more for the gradient. None: all at once. The numbers do not depend on it beyond rounding.
    """

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        self.edges_per_chunk: int | None = None
        self.fused: FusedNetwork | None = None
        self.config = c = config
        self.n_coefficients = (c.lmax + 1) ** 2
        self.sphere_embedding = nn.Embedding(c.max_num_elements, c.sphere_channels)
        if c.charge_spin_embedding == "rand_emb":
            self.charge_embedding = nn.Embedding(2 * MAX_CHARGE + 1, c.sphere_channels)
            self.spin_embedding = nn.Embedding(MAX_SPIN + 1, c.sphere_channels)
            self.mix_csd = nn.Linear(2 * c.sphere_channels, c.sphere_channels)
        basis = GaussianBasis if c.distance_function == "gaussian" else BesselBasis
        self.distance_expansion = basis(c.num_distance_basis, c.cutoff_angstrom)
        self.source_embedding = nn.Embedding(c.max_num_elements, c.edge_channels)
        self.target_embedding = nn.Embedding(c.max_num_elements, c.edge_channels)
        for table in (self.source_embedding, self.target_embedding):
            nn.init.uniform_(table.weight, -0.001, 0.001)
        self.edge_rotation = EdgeRotation(c.lmax, c.mmax)
        self.edge_degree_embedding = EdgeDegreeEmbedding(c)
        self.blocks = nn.ModuleList(Layer(c) for _ in range(c.num_layers))
        self.norm = NORMS[c.norm_type](c.lmax, c.sphere_channels)
        self.force_embedding = ForceEncoding(c) if c.denoising else None
        self.force_head = VectorHead(c) if c.direct_forces else None
        self.stress_head = StressHead(c) if c.direct_stress != "none" else None
        self.energy_block = nn.Sequential(
            nn.Linear(c.sphere_channels, c.hidden_channels),
            nn.SiLU(),
            nn.Linear(c.hidden_channels, c.hidden_channels),
            nn.SiLU(),
            nn.Linear(c.hidden_channels, 1),
        )

    def embed(self, graph: GraphBatch, vectors: Tensor, frames: Tensor | None, noised_forces: Tensor | None) -> Tensor:
        """Node features after the final norm, (atoms, coefficients, channels)."""
        edges = self._geometry(graph, vectors, frames)
        scalars = self.sphere_embedding(graph.numbers).unsqueeze(1)
        x = nn.functional.pad(scalars, (0, 0, 0, self.n_coefficients - 1))
        x = _add_to_scalars(x, edges.state)
        if self.force_embedding is not None:
            known = vectors.new_zeros(x.shape[0], 3) if noised_forces is None else noised_forces
            x = x + self.force_embedding(known)
        first, *others = self._edge_sums(edges)
        x = x + first(x)
        for layer, edge_sum in zip(self.blocks, others, strict=True):
            x = layer(x, edge_sum, edges.state)
        return self.norm(x)

    def _edge_sums(self, edges: EdgeGeometry) -> list[Callable[[Tensor], Tensor]]:
        """Sums of messages of node features: of the first embedding, then of each layer."""
        if self.fused is not None and self.fused.takes(edges):
            steps = ChunkedEdges(edges, self.config.sphere_channels, self.edges_per_chunk)
            return [partial(self.fused.sum, part, steps) for part in self.fused.parts]
        chunks = edges.chunks(self.edges_per_chunk)
        layers = cast(Iterable[Layer], self.blocks)
        sums: list[Sums] = [self.edge_degree_embedding.sums, *(layer.sums for layer in layers)]
        modules = [self.edge_degree_embedding, *(layer.edge_wise for layer in layers)]
        return [
            partial(sum_messages, part, chunks=chunks, parameters=list(module.parameters()))
            for part, module in zip(sums, modules, strict=True)
        ]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "fused": self.fused is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "fused": None})
        if state["fused"]:  # kernels belong to a machine: copies look for those of their own
            self.freeze()

    def freeze(self) -> None:
        """Make the parameters constants, as they are and where they are now: evaluation becomes faster."""
        self.requires_grad_(False)
        self.fused = fused(self, EDGE_DEGREE_RESCALE)

    def _geometry(self, graph: GraphBatch, vectors: Tensor, frames: Tensor | None) -> EdgeGeometry:
        distance = torch.linalg.vector_norm(vectors, dim=1)
        if frames is None:
            frames = edge_frames(vectors / distance.unsqueeze(1))
        rotation = self.edge_rotation(frames.detach() if self.config.direct_forces else frames)
        factors = torch.ones_like(distance)
        if self.config.use_envelope:
            factors = envelope(distance, self.config.cutoff_angstrom)
        return EdgeGeometry(
            graph.source,
            graph.target,
            rotation,
            factors,
            self.distance_expansion(distance),
            (self.source_embedding(graph.numbers), self.target_embedding(graph.numbers)),
            self._charge_and_spin(graph),
        )

    def _charge_and_spin(self, graph: GraphBatch) -> Tensor | None:
        if self.config.charge_spin_embedding == "none":
            return None
        charge = self.charge_embedding(graph.charge + MAX_CHARGE)
        mixed = self.mix_csd(torch.cat((charge, self.spin_embedding(graph.spin)), dim=1))
        return nn.functional.silu(mixed).index_select(0, graph.system)

    def forward(
        self,
        graph: GraphBatch,
        *,
        vectors: Tensor | None = None,
        edge_frames: Tensor | None = None,
        displacement: Tensor | None = None,
        noised_forces: Tensor | None = None,
    ) -> NetworkOutput:
        """Energies of a batch; differentiable with respect to `vectors` and `displacement`.

        Parameters
        ----------
        graph
            the batch.
        vectors
            (edges, 3) in Angstrom, from target to source; default: the graph's.
        edge_frames
            (edges, 3, 3) rotations with R v/|v| = +y; default: the deterministic ones.
        displacement
            (systems, 3, 3) strain; its symmetric part acts on all vectors (stress by differentiation).
        noised_forces
            (atoms, 3) true forces in eV/Angstrom of atoms that were noised, zero for the others
            (denoising models; default: nothing was noised).

        Raises
        ------
        ValueError
            noised_forces for a model without denoising.
        """
        if noised_forces is not None and self.force_embedding is None:
            raise ValueError("noised_forces are an input of denoising models; this one has denoising=False")
        vectors = graph.vectors if vectors is None else vectors
        if displacement is not None:
            strain = 0.5 * (displacement + displacement.transpose(1, 2))
            vectors = vectors + torch.bmm(vectors.unsqueeze(1), strain[graph.edge_system]).squeeze(1)
        embedding = self.embed(graph, vectors, edge_frames, noised_forces)
        node_energy = self.energy_block(embedding[:, 0]).squeeze(1)
        # Sums over thousands of atoms in float32 would lose meV.
        total = node_energy.new_zeros(graph.n_systems, dtype=torch.float64)
        energy = total.index_add(0, graph.system, node_energy.double())
        forces, noise = self.force_head(embedding) if self.force_head is not None else (None, None)
        stress = self.stress_head(embedding, graph, vectors) if self.stress_head is not None else (None, None)
        return NetworkOutput(energy, node_energy, embedding, forces, noise, *stress)
