"""A toy family: atoms interact in pairs, by an MLP of radial functions and of the two species."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from esen_flows.data.batch import GraphBatch
from esen_flows.network.interface import Network, NetworkConfig, NetworkOutput
from esen_flows.schemas.declarations import Equivariance


@dataclass(frozen=True)
class PairConfig(NetworkConfig):
    """Sizes of a pair network."""

    SIZES: ClassVar[tuple[str, ...]] = ("width", "cutoff_angstrom", "max_num_elements")
    SPECIES_TABLES: ClassVar[tuple[str, ...]] = ("species",)
    width: int = 16
    cutoff_angstrom: float = 5.0
    max_num_elements: int = 100

    @property
    def equivariance(self) -> Equivariance:
        """Distances alone enter."""
        return "O3"


class PairNetwork(Network):
    """The energy is a sum over pairs."""

    CONFIG: ClassVar[type[NetworkConfig]] = PairConfig
    config: PairConfig

    def __init__(self, config: PairConfig) -> None:
        super().__init__(config)
        self.species = nn.Embedding(config.max_num_elements, config.width)
        self.pair = nn.Sequential(nn.Linear(config.width, config.width), nn.SiLU(), nn.Linear(config.width, 1))

    @property
    def energy_head(self) -> nn.Sequential:
        return self.pair

    def bytes_per_edge(self, *, differentiated: bool = False) -> float:
        return 20.0 * self.config.width * self.dtype.itemsize

    def forward(
        self,
        graph: GraphBatch,
        *,
        vectors: Tensor | None = None,
        noised_forces: Tensor | None = None,
        heads: bool = True,
    ) -> NetworkOutput:
        share = torch.linalg.vector_norm(graph.vectors if vectors is None else vectors, dim=1, keepdim=True)
        share = share / self.config.cutoff_angstrom
        rows = torch.exp(-200 * (share - torch.linspace(0.3, 1.0, self.config.width).to(share)).square())
        species = self.species(graph.numbers)
        features = rows * species[graph.source] * species[graph.target]
        energies = (self.pair(features) * (1 - share).clamp(min=0).pow(3)).squeeze(1)
        nodes = energies.new_zeros(len(graph.numbers)).index_add(0, graph.target, energies)
        total = nodes.new_zeros(graph.n_systems, dtype=torch.float64).index_add(0, graph.system, nodes.double())
        return NetworkOutput(total, nodes, species)
