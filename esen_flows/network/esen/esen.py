"""eSEN (arXiv 2502.12147): one network for every published and ablated configuration, see `config.ESENConfig`.

Parameter names are those of the published checkpoints without their `backbone.` prefix, so that a published file maps
name by name.
"""

import copy
from collections.abc import Sequence
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from esen_flows.data.batch import GraphBatch
from esen_flows.errors import InputError
from esen_flows.network.backends.edge_sums import EdgePart, FrozenSums, edge_sums, frozen_sums
from esen_flows.network.esen.config import MAX_CHARGE, MAX_SPIN, ESENConfig
from esen_flows.network.esen.edges import EdgeGeometry
from esen_flows.network.esen.heads import ForceEncoding, StressHead, VectorHead
from esen_flows.network.esen.layers import EdgeDegreeEmbedding, Layer, add_to_scalars
from esen_flows.network.esen.memory import bytes_per_edge
from esen_flows.network.esen.norms import NORMS
from esen_flows.network.esen.radial import BesselBasis, GaussianBasis, envelope
from esen_flows.network.esen.so3 import EdgeRotation, edge_frames
from esen_flows.network.interface import Network, NetworkConfig, NetworkOutput

# Parts that a conservative network does not have. `take_over` keeps the mean effect of `force_embedding` (DeNS).
_DIRECT_PARTS = ("force_head.", "stress_head.", "force_embedding.")
_ENERGY_HEAD = "energy_block."


def _itself(module: nn.Module) -> nn.Module:
    return module


class ESEN(Network):
    """Equivariant smooth energy network: a graph batch in, energies in network units out.

    Parameters
    ----------
    config
        Sizes and options.

    Attributes
    ----------
    config
        Sizes and options.
    edges_per_chunk
        Bounds the memory of a large structure: messages are computed for this many edges at a time, and once more for
        the gradient. None: all edges at once. Results do not depend on it beyond rounding.
    frozen
        Code for constant parameters (see `freeze`), or None.
    """

    CONFIG: ClassVar[type[NetworkConfig]] = ESENConfig
    config: ESENConfig

    def __init__(self, config: ESENConfig) -> None:
        super().__init__(config)
        self.frozen: FrozenSums | None = None
        c = config
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
        frozen = self.frozen if self.frozen is not None and self.frozen.supports(edges) else None
        first, *others = edge_sums(self._edge_parts(), edges, self.edges_per_chunk, frozen)
        on_nodes = _itself if frozen is None else frozen.on_nodes
        x = x + first(x)
        for layer, edge_sum in zip(self.blocks, others, strict=True):
            x = layer(x, edge_sum, edges.charge_spin, on_nodes)
        return on_nodes(self.norm)(x)

    def _edge_parts(self) -> list[EdgePart]:
        return [self.edge_degree_embedding, *cast(Sequence[Layer], self.blocks)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "frozen": self.frozen is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "frozen": None})
        if state["frozen"]:  # compiled code belongs to a machine: a copy loads that of its own
            self.freeze()

    def freeze(self) -> None:
        """Make the parameters constants, with their present values and on their present device, for faster evaluation.

        Parameters that change afterwards have no effect where there is code for constant parameters.
        """
        super().freeze()
        layers = cast(Sequence[Layer], self.blocks)
        nodes = [module for layer in layers for module in layer.node_parts()]
        self.frozen = frozen_sums(self._edge_parts(), [*nodes, self.norm])

    @property
    def energy_head(self) -> nn.Sequential:
        """Layers that turn the scalars of an atom into its energy."""
        return self.energy_block

    def bytes_per_edge(self, *, differentiated: bool = False) -> float:
        """Peak memory of a call for energy, forces and stress, in the present state and precision of the network.

        Parameters
        ----------
        differentiated
            Whether the call goes through the modules, as second derivatives do, instead of code for constant
            parameters.

        Returns
        -------
        float
            Bytes per edge, where nothing is computed twice (see `memory.bytes_per_edge`).
        """
        return bytes_per_edge(self.config, self.dtype, frozen=self.frozen is not None and not differentiated)

    def compiled(self) -> Self:
        """A copy with the embedding of the atoms compiled by `torch.compile`.

        Sums over systems are not compiled, because PyTorch 2.13 cannot compile them for CPUs where there is one system
        (pytorch issue 160391).

        Returns
        -------
        ESEN
            Network that shares its parameters with this one.

        Raises
        ------
        InputError
            The network has grids. Only the paper's ablation uses these, and no model that is in use.
        """
        if self.config.uses_grid:
            raise InputError("networks with grids (act_type s2, mlp_type grid) cannot be compiled; leave `compile` out")
        result = copy.copy(self)
        result.frozen = None
        weight = result.sphere_embedding.weight
        result.edge_rotation.constants(
            weight.dtype, weight.device
        )  # made here, they are constants of the compiled code
        result.embed = torch.compile(result.embed, dynamic=True)  # type: ignore[method-assign]
        return result

    def take_over(self, source: Self, *, energy_head: bool = True) -> None:
        """Copy the weights of another stage's network. Heads that only the source has are dropped.

        Heads that the source lacks stay as they are.

        Parameters
        ----------
        source
            Network that differs at most in its heads and its limit of neighbours.
        energy_head
            Whether to copy the energy head too.
        """
        theirs = dict(source.state_dict())
        if source.force_embedding is not None and self.force_embedding is None:
            # In the source, a structure that was not noised still got the bias of the force encoding on its scalars.
            bias = source.force_embedding.bias.detach()
            theirs["sphere_embedding.weight"] = theirs["sphere_embedding.weight"] + bias
        own = self.state_dict()
        self.copy_weights(
            {
                name: value
                for name, value in theirs.items()
                if (energy_head or not name.startswith(_ENERGY_HEAD))
                and not (name.startswith(_DIRECT_PARTS) and name not in own)
            }
        )

    def _geometry(self, graph: GraphBatch, vectors: Tensor, frames: Tensor | None) -> EdgeGeometry:
        distance = torch.linalg.vector_norm(vectors, dim=1)
        if frames is None:
            frames = edge_frames(vectors / distance.unsqueeze(1))
        rotation = self.edge_rotation(frames)
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
        heads: bool = True,
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
        heads
            Without effect: no network of this family has both kinds of forces.

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
        stress = self.stress_head(embedding, graph, vectors) if self.stress_head is not None else None
        return NetworkOutput(energy, node_energy, embedding, forces, noise, stress)
