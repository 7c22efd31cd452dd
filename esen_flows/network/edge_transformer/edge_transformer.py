"""Edge transformer after the description of PET in arXiv 2601.16195: rotations are learned, and not built in.

Tokens are the atoms and their edges. Attention is among an atom and its edges; edges exchange messages with their
reverse edges. Energies are exactly invariant under translations and permutations.
"""

from math import pi
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from esen_flows.data.batch import GraphBatch
from esen_flows.network.edge_transformer.config import EdgeTransformerConfig
from esen_flows.network.edge_transformer.cutoffs import adaptive_cutoffs, log_switch
from esen_flows.network.edge_transformer.layers import Features, GNNLayer, Neighborhood, head
from esen_flows.network.interface import Network, NetworkConfig, NetworkOutput

_DIRECT_PARTS = ("force_head.", "stress_head.")
_ATOMS_PER_CUBIC_ANGSTROM = 0.05  # of silicon, for the number of neighbours


class EdgeTransformer(Network):
    """Unconstrained transformer on edges: a graph batch in, energies in network units out.

    Parameters
    ----------
    config
        Sizes and options.
    """

    CONFIG: ClassVar[type[NetworkConfig]] = EdgeTransformerConfig
    config: EdgeTransformerConfig

    def __init__(self, config: EdgeTransformerConfig) -> None:
        super().__init__(config)
        layers = range(config.num_gnn_layers)
        self.species = nn.Embedding(config.max_num_elements, config.node_width)
        self.neighbor_species = nn.ModuleList(nn.Embedding(config.max_num_elements, config.width) for _ in layers)
        self.layers = nn.ModuleList(GNNLayer(config, first=index == 0) for index in layers)
        self.energy = head(config, 1)
        self.force_head = head(config, 3) if config.direct_forces else None
        self.stress_head = head(config, 9) if config.direct_stress else None

    @property
    def energy_head(self) -> nn.Sequential:
        """Layers that turn the features of an atom and its edges into its energy."""
        return self.energy

    def bytes_per_edge(self, *, differentiated: bool = False) -> float:
        """Peak memory of a call for energy, forces and stress, in the precision of the network.

        The coefficients come from the allocations that PyTorch's profiler recorded for rattled silicon, and meet these
        within 2 % for widths of 64 and 128, 1 to 3 attention layers in 2 to 4 rounds, and cutoffs of 5 and 6 Angstrom.
        With an adaptive cutoff this is an upper bound, because edges beyond it are dropped.

        Parameters
        ----------
        differentiated
            Without effect: all calls go through the same code.

        Returns
        -------
        float
            Bytes per edge within `cutoff_angstrom`.
        """
        c = self.config
        columns = 1 + 4 / 3 * pi * c.cutoff_angstrom**3 * _ATOMS_PER_CUBIC_ANGSTROM
        attention = c.num_gnn_layers * c.num_attention_layers * (14.8 * c.width + 1.1 * c.num_heads * columns)
        return (attention + (6.1 * c.num_gnn_layers + 8.4) * c.width) * self.dtype.itemsize

    def take_over(self, source: Self, *, energy_head: bool = True) -> None:
        """Copy the weights of another stage's network. Direct heads that only the source has are dropped.

        Parameters
        ----------
        source
            Network that differs at most in its direct heads.
        energy_head
            Whether to copy the energy head too.
        """
        own = self.state_dict()
        self.copy_weights(
            {
                name: value
                for name, value in source.state_dict().items()
                if (energy_head or not name.startswith("energy."))
                and not (name.startswith(_DIRECT_PARTS) and name not in own)
            }
        )

    def forward(
        self,
        graph: GraphBatch,
        *,
        vectors: Tensor | None = None,
        noised_forces: Tensor | None = None,
        heads: bool = True,
    ) -> NetworkOutput:
        """Energies of a batch, differentiable with respect to `vectors`.

        Parameters
        ----------
        graph
            Batch of structures, with the index of reverse edges.
        vectors
            (edges, 3) edge vectors in Angstrom, from target to source; default: those of the graph.
        noised_forces
            Must be None: there is no denoising.
        heads
            Whether to compute the outputs of the direct heads.

        Returns
        -------
        NetworkOutput
            Energies, tokens of the atoms, and the outputs of direct heads.

        Raises
        ------
        ValueError
            `noised_forces` were given, or the graph lacks the index of reverse edges.
        """
        if noised_forces is not None:
            raise ValueError("noised_forces are an input of denoising models; edge transformers have no denoising")
        around = self._neighborhood(graph, graph.vectors if vectors is None else vectors)
        nodes = self.species(graph.numbers)
        neighbors = graph.numbers[around.source]
        messages, *others = (table(neighbors) for table in self.neighbor_species)
        for layer, species in zip(self.layers, (None, *others), strict=True):
            nodes, messages = layer(nodes, messages, species, around)
        features = Features(nodes, messages, around)
        node_energy = self.energy(features).squeeze(1)
        # A float32 sum over thousands of atoms would lose meV.
        total = node_energy.new_zeros(graph.n_systems, dtype=torch.float64)
        energy = total.index_add(0, graph.system, node_energy.double())
        forces = self.force_head(features) if heads and self.force_head is not None else None
        stress = _stress(self.stress_head(features), graph) if heads and self.stress_head is not None else None
        return NetworkOutput(energy, node_energy, nodes, forces, None, stress)

    def _neighborhood(self, graph: GraphBatch, vectors: Tensor) -> Neighborhood:
        if graph.reverse is None:
            raise ValueError("edge transformers read reverse edges; make the graphs with reverse=True")
        c, n_atoms = self.config, len(graph.numbers)
        source, target, reverse = graph.source, graph.target, graph.reverse
        distance = torch.linalg.vector_norm(vectors, dim=1)
        if c.adaptive_neighbors is None:
            switch = log_switch(distance, c.cutoff_angstrom, c.cutoff_width_angstrom)
            return Neighborhood.of(source, target, reverse, vectors, switch, n_atoms)
        own = adaptive_cutoffs(distance, target, n_atoms, c.cutoff_angstrom, c.adaptive_neighbors)
        cutoff = 0.5 * (own[source] + own[target])
        inside = distance < cutoff  # where this fails, the switch is zero within rounding
        kept = (inside & inside[reverse]).nonzero().squeeze(1)
        renumbered = torch.full_like(reverse, -1).index_copy(0, kept, torch.arange(len(kept), device=kept.device))
        switch = log_switch(distance[kept], cutoff[kept], c.cutoff_width_angstrom)
        return Neighborhood.of(source[kept], target[kept], renumbered[reverse[kept]], vectors[kept], switch, n_atoms)


def _stress(values: Tensor, graph: GraphBatch) -> Tensor:
    """(systems, 3, 3) symmetric stress from (atoms, 9) contributions to the virial."""
    virial = values.new_zeros(graph.n_systems, 9).index_add(0, graph.system, values).view(-1, 3, 3)
    volume = graph.volume.view(-1, 1, 1)
    # Systems without a volume have no stress; dividing by NaN would spoil the gradients of the others.
    return 0.5 * (virial + virial.transpose(1, 2)) / torch.where(torch.isfinite(volume), volume, 1.0)
