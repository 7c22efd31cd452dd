"""Functions of the edge length: radial bases, envelope and radial networks."""

from typing import cast

import torch
from torch import Tensor, nn


def envelope(distance: Tensor, cutoff: float) -> Tensor:
    """Polynomial 1 - 21 u^5 + 35 u^6 - 15 u^7 of u = distance / cutoff, zero beyond the cutoff.

    Its value and first two derivatives vanish at u = 1 (DimeNet's cutoff, arXiv 2003.03123, with p = 5), so that
    the energy has two continuous derivatives when an atom crosses the cutoff.

    Parameters
    ----------
    distance
        (edges,) in Angstrom.
    cutoff
        Cutoff radius in Angstrom.

    Returns
    -------
    Tensor
        (edges,) factors between 0 and 1.
    """
    u = distance / cutoff
    value = 1.0 + u**5 * (-21.0 + u * (35.0 - 15.0 * u))
    return torch.where(u < 1.0, value, torch.zeros_like(value))


class GaussianBasis(nn.Module):
    """Gaussians exp(-(d - mu_k)^2 / (2 sigma^2)) with equally spaced centres on [0, cutoff], sigma twice the spacing.

    The centres are float32 numbers, as in the published models, and part of the state: they define the basis.

    Parameters
    ----------
    size
        Number K of functions.
    cutoff
        Cutoff radius in Angstrom.
    """

    def __init__(self, size: int, cutoff: float) -> None:
        super().__init__()
        self.register_buffer("offset", torch.linspace(0.0, cutoff, size, dtype=torch.float32))

    def forward(self, distance: Tensor) -> Tensor:
        """Values of the basis.

        Parameters
        ----------
        distance
            (edges,) in Angstrom.

        Returns
        -------
        Tensor
            (edges, K).
        """
        offset = self.get_buffer("offset")
        width = 2.0 * (offset[1] - offset[0])
        return torch.exp(-0.5 * ((distance.unsqueeze(1) - offset) / width).square())


class BesselBasis(nn.Module):
    """Spherical Bessel functions of order 0 with learned frequencies, times the envelope.

    env(u) sqrt(2 / cutoff^3) sin(f_k u) / u with u = distance / cutoff and f_k = pi k at first. The denominator is u
    and not the distance, as in the published models.

    Parameters
    ----------
    size
        Number K of functions.
    cutoff
        Cutoff radius in Angstrom.
    """

    def __init__(self, size: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.rbf = nn.Module()
        self.rbf.frequencies = nn.Parameter(torch.pi * torch.arange(1, size + 1, dtype=torch.float32))

    def forward(self, distance: Tensor) -> Tensor:
        """Values of the basis.

        Parameters
        ----------
        distance
            (edges,) in Angstrom.

        Returns
        -------
        Tensor
            (edges, K).
        """
        u = (distance / self.cutoff).unsqueeze(1)
        frequencies = self.rbf.get_parameter("frequencies")
        scale = (2.0 / self.cutoff**3) ** 0.5
        return envelope(distance, self.cutoff).unsqueeze(1) * scale / u * torch.sin(frequencies * u)


class RadialMLP(nn.Module):
    """Edge scalars -> modulation: three linear layers with LayerNorm and SiLU between.

    The input is concat(basis, source species, target species). The contribution of the species to the first layer is
    computed per atom and gathered, because all edges of an atom share it.

    Parameters
    ----------
    basis_size
        Number K of radial functions.
    edge_channels
        Width of the hidden layers and of the species embeddings.
    out_channels
        Width of the output.
    """

    def __init__(self, basis_size: int, edge_channels: int, out_channels: int) -> None:
        super().__init__()
        self.split = [basis_size, edge_channels, edge_channels]
        self.net = nn.Sequential(
            nn.Linear(basis_size + 2 * edge_channels, edge_channels),
            nn.LayerNorm(edge_channels),
            nn.SiLU(),
            nn.Linear(edge_channels, edge_channels),
            nn.LayerNorm(edge_channels),
            nn.SiLU(),
            nn.Linear(edge_channels, out_channels),
        )

    def forward(self, basis: Tensor, species: tuple[Tensor, Tensor], edge_index: tuple[Tensor, Tensor]) -> Tensor:
        """Modulation of each edge.

        Parameters
        ----------
        basis
            (edges, K) radial basis.
        species
            Source and target species embeddings, each (atoms, edge_channels).
        edge_index
            Source and target atom of each edge, each (edges,).

        Returns
        -------
        Tensor
            (edges, out_channels).
        """
        first = cast(nn.Linear, self.net[0])
        w_basis, w_source, w_target = first.weight.split(self.split, dim=1)
        hidden = nn.functional.linear(basis, w_basis, first.bias)
        hidden = hidden + (species[0] @ w_source.T).index_select(0, edge_index[0])
        hidden = hidden + (species[1] @ w_target.T).index_select(0, edge_index[1])
        return self.net[1:](hidden)
