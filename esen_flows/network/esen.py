"""eSEN, the published conservative configuration (arXiv 2502.12147): gate, spectral node block, rms norm, envelope.

Parameter names are those of the published checkpoints without their `backbone.` prefix, so that a published file maps
name by name.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from esen_flows.data.batch import GraphBatch
from esen_flows.network.radial import GaussianBasis, RadialMLP, envelope
from esen_flows.network.so2 import EdgeBlock
from esen_flows.network.so3 import EdgeRotation, NodeBlock, RMSNormSH, edge_frames

EDGE_DEGREE_RESCALE = 5.0  # a constant of the published model


@dataclass(frozen=True)
class ESENConfig:
    """Sizes of an eSEN; the defaults are those of eSEN-3.2M on MPtrj."""

    num_layers: int = 2
    lmax: int = 2
    mmax: int = 2
    sphere_channels: int = 128
    hidden_channels: int = 128
    edge_channels: int = 128
    num_distance_basis: int = 10
    cutoff_angstrom: float = 6.0
    max_num_elements: int = 100

    def __post_init__(self) -> None:
        if not 1 <= self.mmax <= self.lmax:
            raise ValueError(f"eSEN needs 1 <= mmax <= lmax, got mmax={self.mmax}, lmax={self.lmax}")
        if self.num_distance_basis < 2:
            raise ValueError(f"the Gaussian basis needs at least 2 functions, got {self.num_distance_basis}")
        if self.cutoff_angstrom <= 0 or self.num_layers < 1:
            raise ValueError(f"cutoff_angstrom and num_layers must be positive, got {self}")


@dataclass(frozen=True)
class NetworkOutput:
    """What the network says, in network units.

    Attributes
    ----------
    energy : (systems,).
    node_energy : (atoms,).
    node_embedding : (atoms, (lmax + 1)^2, sphere_channels) after the final norm.
    """

    energy: Tensor
    node_energy: Tensor
    node_embedding: Tensor


@dataclass(frozen=True)
class EdgeGeometry:
    """What all layers share of the edges.

    Attributes
    ----------
    source, target : (edges,) atom indices.
    rotation : (edges, n_reduced, coefficients) into the edge frame.
    back : (edges, coefficients, n_reduced) out of it, times the envelope.
    basis : (edges, K) radial basis.
    species : source and target species embeddings, each (atoms, edge_channels).
    """

    source: Tensor
    target: Tensor
    rotation: Tensor
    back: Tensor
    basis: Tensor
    species: tuple[Tensor, Tensor]


class EdgeDegreeEmbedding(nn.Module):
    """Initial messages: m = 0 coefficients from a radial network, rotated back and summed onto the target."""

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        self.rows, self.channels = config.lmax + 1, config.sphere_channels
        self.rad_func = RadialMLP(config.num_distance_basis, config.edge_channels, self.rows * self.channels)

    def forward(self, x: Tensor, edges: EdgeGeometry) -> Tensor:
        """Messages to add to x (atoms, coefficients, channels)."""
        modulation = self.rad_func(edges.basis, edges.species, (edges.source, edges.target))
        values = modulation.view(-1, self.rows, self.channels)
        messages = torch.bmm(edges.back[:, :, : self.rows], values) / EDGE_DEGREE_RESCALE
        return torch.zeros_like(x).index_add(0, edges.target, messages)


def _gather_pairs(x: Tensor, edges: EdgeGeometry) -> Tensor:
    """(edges, coefficients, 2 * channels): source channels first. One flat row gather, no concatenation."""
    n_coefficients, channels = x.shape[1], x.shape[2]
    rows = torch.stack((edges.source, edges.target), dim=1) * n_coefficients  # (edges, 2)
    index = rows.unsqueeze(1) + torch.arange(n_coefficients, device=x.device).view(1, -1, 1)
    gathered = x.reshape(-1, channels).index_select(0, index.reshape(-1))
    return gathered.view(-1, n_coefficients, 2 * channels)


class Layer(nn.Module):
    """x + edge block, then x + node block, each behind a norm."""

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        c = config
        self.norm_1 = RMSNormSH(c.lmax, c.sphere_channels)
        self.edge_wise = EdgeBlock(
            c.lmax, c.mmax, c.sphere_channels, c.hidden_channels, c.edge_channels, c.num_distance_basis
        )
        self.norm_2 = RMSNormSH(c.lmax, c.sphere_channels)
        self.atom_wise = NodeBlock(c.lmax, c.sphere_channels, c.hidden_channels)

    def forward(self, x: Tensor, edges: EdgeGeometry) -> Tensor:
        """(atoms, coefficients, channels) -> same."""
        rotated = torch.bmm(edges.rotation, _gather_pairs(self.norm_1(x), edges))
        messages = self.edge_wise(rotated, edges.basis, edges.species, (edges.source, edges.target))
        x = x.index_add(0, edges.target, torch.bmm(edges.back, messages))
        return x + self.atom_wise(self.norm_2(x))


class ESEN(nn.Module):
    """Equivariant smooth energy network: a graph batch in, energies in network units out."""

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        self.config = c = config
        self.n_coefficients = (c.lmax + 1) ** 2
        self.sphere_embedding = nn.Embedding(c.max_num_elements, c.sphere_channels)
        self.distance_expansion = GaussianBasis(c.num_distance_basis, c.cutoff_angstrom)
        self.source_embedding = nn.Embedding(c.max_num_elements, c.edge_channels)
        self.target_embedding = nn.Embedding(c.max_num_elements, c.edge_channels)
        for table in (self.source_embedding, self.target_embedding):
            nn.init.uniform_(table.weight, -0.001, 0.001)
        self.edge_rotation = EdgeRotation(c.lmax, c.mmax)
        self.edge_degree_embedding = EdgeDegreeEmbedding(c)
        self.blocks = nn.ModuleList(Layer(c) for _ in range(c.num_layers))
        self.norm = RMSNormSH(c.lmax, c.sphere_channels)
        self.energy_block = nn.Sequential(
            nn.Linear(c.sphere_channels, c.hidden_channels),
            nn.SiLU(),
            nn.Linear(c.hidden_channels, c.hidden_channels),
            nn.SiLU(),
            nn.Linear(c.hidden_channels, 1),
        )

    def embed(self, graph: GraphBatch, vectors: Tensor, frames: Tensor | None) -> Tensor:
        """Node features after the final norm, (atoms, coefficients, channels)."""
        distance = torch.linalg.vector_norm(vectors, dim=1)
        if frames is None:
            frames = edge_frames(vectors / distance.unsqueeze(1))
        rotation = self.edge_rotation(frames)
        smooth = envelope(distance, self.config.cutoff_angstrom)
        edges = EdgeGeometry(
            graph.source,
            graph.target,
            rotation,
            (rotation * smooth.view(-1, 1, 1)).transpose(1, 2),
            self.distance_expansion(distance),
            (self.source_embedding(graph.numbers), self.target_embedding(graph.numbers)),
        )
        scalars = self.sphere_embedding(graph.numbers).unsqueeze(1)
        x = nn.functional.pad(scalars, (0, 0, 0, self.n_coefficients - 1))
        x = x + self.edge_degree_embedding(x, edges)
        for layer in self.blocks:
            x = layer(x, edges)
        return self.norm(x)

    def forward(
        self,
        graph: GraphBatch,
        *,
        vectors: Tensor | None = None,
        edge_frames: Tensor | None = None,
        displacement: Tensor | None = None,
    ) -> NetworkOutput:
        """Energies of a batch; differentiable with respect to `vectors` and `displacement`.

        Parameters
        ----------
        graph : the batch.
        vectors : (edges, 3) in Angstrom, from target to source; default: the graph's.
        edge_frames : (edges, 3, 3) rotations with R v/|v| = +y; default: the deterministic ones.
        displacement : (systems, 3, 3) strain; its symmetric part acts on all vectors (stress by differentiation).
        """
        vectors = graph.vectors if vectors is None else vectors
        if displacement is not None:
            strain = 0.5 * (displacement + displacement.transpose(1, 2))
            vectors = vectors + torch.bmm(vectors.unsqueeze(1), strain[graph.edge_system]).squeeze(1)
        embedding = self.embed(graph, vectors, edge_frames)
        node_energy = self.energy_block(embedding[:, 0]).squeeze(1)
        # Sums over thousands of atoms in float32 would lose meV.
        total = node_energy.new_zeros(graph.n_systems, dtype=torch.float64)
        energy = total.index_add(0, graph.system, node_energy.double())
        return NetworkOutput(energy, node_energy, embedding)
