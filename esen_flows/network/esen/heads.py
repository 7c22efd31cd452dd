"""Direct heads, and DeNS (denoising non-equilibrium structures, arXiv 2403.09549): the parts of direct-force models.

Parameter names are those of the published checkpoints behind `output_heads.<name>.`.
"""

from math import pi, sqrt

import torch
from torch import Tensor, nn

from esen_flows.data.batch import GraphBatch
from esen_flows.network.esen.config import ESENConfig
from esen_flows.network.esen.norms import NORMS
from esen_flows.network.esen.so3 import SO3Linear, solid_harmonics
from esen_flows.network.symmetric_tensors import stress_tensor


class VectorHead(nn.Module):
    """One vector per atom from the degrees 0 and 1 of its features: forces, and with DeNS also the noise.

    Parameters
    ----------
    config
        Sizes and options of the network.
    """

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        self.linear = SO3Linear(config.sphere_channels, 1, 1)
        self.denoising_linear = SO3Linear(config.sphere_channels, 1, 1) if config.denoising else None

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor | None]:
        """Forces and noise.

        Parameters
        ----------
        embedding
            (atoms, coefficients, channels) node features after the final norm.

        Returns
        -------
        tuple[Tensor, Tensor | None]
            Forces (atoms, 3), and noise (atoms, 3) or None.
        """
        low = embedding[:, :4]  # l = 0 and l = 1; the three components of l = 1 are (x, y, z)
        forces = self.linear(low)[:, 1:, 0]
        return forces, None if self.denoising_linear is None else self.denoising_linear(low)[:, 1:, 0]


class ForceEncoding(SO3Linear):
    """True forces of noised atoms as node features, which tell DeNS the structure that the noise was added to.

    Parameters
    ----------
    config
        Sizes of the network.
    """

    def __init__(self, config: ESENConfig) -> None:
        super().__init__(1, config.sphere_channels, config.lmax)
        self.lmax = config.lmax

    def forward(self, forces: Tensor) -> Tensor:
        """Encoded forces.

        Parameters
        ----------
        forces
            (atoms, 3), zero for atoms that are not noised.

        Returns
        -------
        Tensor
            (atoms, coefficients, channels).
        """
        size = torch.linalg.vector_norm(forces, dim=1, keepdim=True)
        unit = forces / torch.where(size > 0, size, 1.0)
        # e3nn's "component" normalisation: squares over m sum to 2l + 1. The factor |F| / sqrt(3) is as published.
        parts = [sqrt(2 * degree + 1) * part for degree, part in enumerate(solid_harmonics(unit, self.lmax))]
        return super().forward((torch.cat(parts, dim=1) * (size / sqrt(3.0))).unsqueeze(2))


class _DecomposedMLPs(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scalar_MLP = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, 1))
        self.irrep2_MLP = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, 1))


class StressHead(nn.Module):
    """Isotropic and anisotropic stress of each structure from features along its edges.

    As published, `irrep2_MLP` treats the five anisotropic components like independent scalars, so that the anisotropic
    stress is not equivariant under rotations.

    Parameters
    ----------
    config
        Sizes and options of the network.
    """

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        self.lmax, self.both_ends = config.lmax, config.direct_stress == "source_target"
        channels = config.sphere_channels * (2 if self.both_ends else 1)
        self.sphharm_norm = NORMS[config.norm_type](config.lmax, 1)
        self.xedge_layer_norm = nn.LayerNorm(channels)
        self.block = _DecomposedMLPs(channels)

    def forward(self, embedding: Tensor, graph: GraphBatch, vectors: Tensor) -> Tensor:
        """Stress in network units.

        Parameters
        ----------
        embedding
            (atoms, coefficients, channels) node features after the final norm.
        graph
            Batch of structures.
        vectors
            (edges, 3) edge vectors in Angstrom.

        Returns
        -------
        Tensor
            (systems, 3, 3) symmetric.
        """
        # e3nn's "integral" normalisation (orthonormal on the sphere), of vectors with their length, without gradient.
        harmonics = [
            sqrt((2 * degree + 1) / (4 * pi)) * part
            for degree, part in enumerate(solid_harmonics(vectors.detach(), self.lmax))
        ]
        weights = self.sphharm_norm(torch.cat(harmonics, dim=1).unsqueeze(2))  # (edges, coefficients, 1)
        ends = (graph.source, graph.target) if self.both_ends else (graph.target,)
        features = torch.cat([(embedding[end] * weights).sum(dim=1) for end in ends], dim=1)
        features = self.xedge_layer_norm(features)
        unit = vectors.detach() / torch.linalg.vector_norm(vectors.detach(), dim=1, keepdim=True)
        quadrupole = sqrt(5 / (4 * pi)) * solid_harmonics(unit, 2)[2]  # (edges, 5)
        outer = quadrupole.unsqueeze(2) * features.unsqueeze(1)  # (edges, 5, channels)
        n_atoms = embedding.shape[0]
        neighbors = torch.bincount(graph.target, minlength=n_atoms).clamp(min=1).to(features.dtype)
        scalar = features.new_zeros(n_atoms, features.shape[1]).index_add(0, graph.target, features)
        tensor = outer.new_zeros(n_atoms, *outer.shape[1:]).index_add(0, graph.target, outer)
        isotropic = self.block.scalar_MLP(scalar / neighbors.unsqueeze(1)).squeeze(1)
        anisotropic = self.block.irrep2_MLP(tensor / neighbors.view(-1, 1, 1)).squeeze(2)
        return stress_tensor(_mean_over_atoms(isotropic, graph), _mean_over_atoms(anisotropic, graph))


def _mean_over_atoms(values: Tensor, graph: GraphBatch) -> Tensor:
    """(systems, ...) means of (atoms, ...)."""
    total = values.new_zeros(graph.n_systems, *values.shape[1:]).index_add(0, graph.system, values)
    count = torch.bincount(graph.system, minlength=graph.n_systems).to(values.dtype)
    return total / count.view(-1, *[1] * (values.dim() - 1))
