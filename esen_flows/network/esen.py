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
from esen_flows.network.edge_chunks import ChunkedEdges
from esen_flows.network.edges import EdgeGeometry, MessageSum, sum_messages
from esen_flows.network.frozen_kernels import FrozenKernels, frozen_kernels
from esen_flows.network.heads import ForceEncoding, StressHead, VectorHead
from esen_flows.network.layers import EdgeDegreeEmbedding, Layer, add_to_scalars
from esen_flows.network.norms import NORMS
from esen_flows.network.radial import BesselBasis, GaussianBasis, envelope
from esen_flows.network.so3 import EdgeRotation, edge_frames

# Sizes of the published tables: charges from -100 to 100, multiplicities from 0 to 100.
MAX_CHARGE, MAX_SPIN = 100, 100


@dataclass(frozen=True)
class NetworkOutput:
    """Outputs of the network, in network units.

    Attributes
    ----------
    energy
        (systems,) float64.
    node_energy
        (atoms,) contributions to the energy.
    node_embedding
        (atoms, (lmax + 1)^2, sphere_channels) node features after the final norm.
    forces
        (atoms, 3) output of the direct head, or None.
    noise
        (atoms, 3) output of the denoising head, or None.
    isotropic_stress
        (systems,) output of the direct head, or None.
    anisotropic_stress
        (systems, 5) output of the direct head, or None.
    """

    energy: Tensor
    node_energy: Tensor
    node_embedding: Tensor
    forces: Tensor | None = None
    noise: Tensor | None = None
    isotropic_stress: Tensor | None = None
    anisotropic_stress: Tensor | None = None


class ESEN(nn.Module):
    """Equivariant smooth energy network: a graph batch in, energies in network units out.

    Parameters
    ----------
    config
        Sizes and options.

    Attributes
    ----------
    edges_per_chunk
        Bounds the memory of a large structure: messages are computed for this many edges at a time, and once more for
        the gradient. None: all edges at once. Results do not depend on it beyond rounding.
    fused
        The compiled kernels of a frozen network, or None.
    """

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        self.edges_per_chunk: int | None = None
        self.fused: FrozenKernels | None = None
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
            nn.init.uniform_(table.weight, -0.001, 0.001)  # as published
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
        """Node features after the final norm.

        Parameters
        ----------
        graph
            Batch of structures.
        vectors
            (edges, 3) edge vectors in Angstrom.
        frames
            (edges, 3, 3) edge frames; None: those of `so3.edge_frames`.
        noised_forces
            (atoms, 3) true forces of noised atoms, or None.

        Returns
        -------
        Tensor
            (atoms, coefficients, channels).
        """
        edges = self._geometry(graph, vectors, frames)
        scalars = self.sphere_embedding(graph.numbers).unsqueeze(1)
        x = nn.functional.pad(scalars, (0, 0, 0, self.n_coefficients - 1))
        x = add_to_scalars(x, edges.charge_spin)
        if self.force_embedding is not None:
            forces = vectors.new_zeros(x.shape[0], 3) if noised_forces is None else noised_forces
            x = x + self.force_embedding(forces)
        first, *others = self._edge_sums(edges)
        x = x + first(x)
        for layer, edge_sum in zip(self.blocks, others, strict=True):
            x = layer(x, edge_sum, edges.charge_spin)
        return self.norm(x)

    def _edge_sums(self, edges: EdgeGeometry) -> list[Callable[[Tensor], Tensor]]:
        """Functions of node features that sum messages: those of the first embedding, then those of each layer."""
        if self.fused is not None and self.fused.supports(edges):
            chunked = ChunkedEdges(edges, self.config.sphere_channels, self.edges_per_chunk)
            return [partial(self.fused.sum, part, chunked) for part in self.fused.parts]
        chunks = edges.chunks(self.edges_per_chunk)
        layers = cast(Iterable[Layer], self.blocks)
        sums: list[MessageSum] = [self.edge_degree_embedding.message_sum, *(layer.message_sum for layer in layers)]
        modules = [self.edge_degree_embedding, *(layer.edge_wise for layer in layers)]
        return [
            partial(sum_messages, message_sum, chunks=chunks, parameters=list(module.parameters()))
            for message_sum, module in zip(sums, modules, strict=True)
        ]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "fused": self.fused is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "fused": None})
        if state["fused"]:  # compiled kernels belong to a machine: a copy loads those of its own
            self.freeze()

    def freeze(self) -> None:
        """Make the parameters constants, with their present values and on their present device, for faster evaluation.

        Parameters that change afterwards have no effect on a network that uses compiled kernels.
        """
        self.requires_grad_(False)
        self.fused = frozen_kernels(self)

    def _geometry(self, graph: GraphBatch, vectors: Tensor, frames: Tensor | None) -> EdgeGeometry:
        distance = torch.linalg.vector_norm(vectors, dim=1)
        if frames is None:
            frames = edge_frames(vectors / distance.unsqueeze(1))
        # Direct-force models were published with frames that have no gradient.
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
        """Energies of a batch, differentiable with respect to `vectors` and `displacement`.

        Parameters
        ----------
        graph
            Batch of structures.
        vectors
            (edges, 3) edge vectors in Angstrom, from target to source; default: those of the graph.
        edge_frames
            (edges, 3, 3) rotations R with R v/|v| = +y; default: those of `so3.edge_frames`.
        displacement
            (systems, 3, 3) strain, whose symmetric part acts on all vectors (for the stress by differentiation).
        noised_forces
            (atoms, 3) true forces in eV/Angstrom of noised atoms, zero for the others (denoising models; default: no
            atom is noised).

        Returns
        -------
        NetworkOutput
            Energies, node features, and the outputs of direct heads.

        Raises
        ------
        ValueError
            `noised_forces` were given to a model without denoising.
        """
        if noised_forces is not None and self.force_embedding is None:
            raise ValueError("noised_forces are an input of denoising models; this one has denoising=False")
        vectors = graph.vectors if vectors is None else vectors
        if displacement is not None:
            strain = 0.5 * (displacement + displacement.transpose(1, 2))
            vectors = vectors + torch.bmm(vectors.unsqueeze(1), strain[graph.edge_system]).squeeze(1)
        embedding = self.embed(graph, vectors, edge_frames, noised_forces)
        node_energy = self.energy_block(embedding[:, 0]).squeeze(1)
        # A float32 sum over thousands of atoms would lose meV.
        total = node_energy.new_zeros(graph.n_systems, dtype=torch.float64)
        energy = total.index_add(0, graph.system, node_energy.double())
        forces, noise = self.force_head(embedding) if self.force_head is not None else (None, None)
        stress = self.stress_head(embedding, graph, vectors) if self.stress_head is not None else (None, None)
        return NetworkOutput(energy, node_energy, embedding, forces, noise, *stress)
