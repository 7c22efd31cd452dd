"""Pointwise nonlinearities on a grid of the sphere: the "s2" edge activation and the "grid" node block.

The grid is a product of rings at polar angles (i + 1/2) pi / n from the y axis and equally spaced longitudes. Only
band-limited functions survive the round trip exactly, and a SiLU makes functions that are not band-limited, so that
rotations hold only approximately.
"""

from functools import cache
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from esen_flows.errors import ModelError
from esen_flows.network.esen.harmonics import reduced_order


@cache
def _grid_matrices(
    lmax: int, mmax: int, resolution: int | None, order: tuple[tuple[int, int], ...]
) -> tuple[Tensor, Tensor]:
    """Matrices to grid values (points, coefficients) and back by quadrature (coefficients, points), float32.

    Made by e3nn from harmonics that are orthonormal on the sphere ("integral" normalisation), with coefficients (l, m)
    in the given order. Where mmax < lmax, degrees above mmax are scaled by sqrt((2l + 1) / (2 mmax + 1)) in both
    directions, as in the published models. Float32 tables are part of these models too: exact ones would move energies
    by 1e-7.
    """
    try:
        from e3nn.o3 import FromS2Grid, ToS2Grid
    except ImportError as error:
        raise ModelError("act_type 's2' and mlp_type 'grid' need e3nn: pip install 'esen_flows[grid]'") from error
    rings = resolution or 2 * (lmax + 1)
    longitudes = resolution or (2 * (mmax + 1) + 1 if lmax == mmax else 2 * mmax + 1)
    size = (rings, longitudes)
    to = ToS2Grid(lmax, size, normalization="integral", dtype=torch.float32)
    back = FromS2Grid(size, lmax, normalization="integral", dtype=torch.float32)
    columns = [degree * degree + degree + m for degree, m in order]
    scale = torch.tensor(
        [sqrt((2 * degree + 1) / (2 * mmax + 1)) if degree > mmax else 1.0 for degree, _ in order],
        dtype=torch.float32,
    )
    tables = [torch.einsum("mbi,am->bai", part.shb, part.sha).flatten(0, 1)[:, columns] * scale for part in (to, back)]
    return tables[0].contiguous(), tables[1].T.contiguous()


@cache
def _grid_matrix(which: int, arguments: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return _grid_matrices(*arguments)[which].to(dtype=dtype, device=device)


class SphereGrid(nn.Module):
    """Transforms of coefficients to values on a grid of the sphere, and back.

    Parameters
    ----------
    lmax, mmax
        Largest degree and order of the coefficients.
    resolution
        Number of rings and of longitudes. None: 2 (lmax + 1) rings and 2 mmax + 1 longitudes, or two more longitudes
        where mmax = lmax.
    m_major
        Whether coefficients are in the order of `reduced_order` instead of l*l + l + m.
    """

    def __init__(self, lmax: int, mmax: int, resolution: int | None, *, m_major: bool) -> None:
        super().__init__()
        by_degree = tuple((degree, m) for degree in range(lmax + 1) for m in range(-degree, degree + 1))
        self.arguments = (lmax, mmax, resolution, reduced_order(lmax, mmax) if m_major else by_degree)

    def to_grid(self, x: Tensor) -> Tensor:
        """Values on the grid.

        Parameters
        ----------
        x
            (n, coefficients, channels).

        Returns
        -------
        Tensor
            (n, points, channels).

        Raises
        ------
        ModelError
            e3nn is not installed.
        """
        return _grid_matrix(0, self.arguments, x.dtype, x.device) @ x

    def from_grid(self, values: Tensor) -> Tensor:
        """Coefficients of values on the grid.

        Parameters
        ----------
        values
            (n, points, channels).

        Returns
        -------
        Tensor
            (n, coefficients, channels).

        Raises
        ------
        ModelError
            e3nn is not installed.
        """
        return _grid_matrix(1, self.arguments, values.dtype, values.device) @ values


class GridNodeBlock(nn.Module):
    """The "grid" node block: an MLP without biases at each point of the sphere.

    Parameters
    ----------
    lmax
        Largest degree of the features.
    channels
        Channels of the features.
    hidden_channels
        Width of the MLP.
    resolution
        Grid points, as in `ESENConfig.grid_resolution`.
    """

    def __init__(self, lmax: int, channels: int, hidden_channels: int, resolution: int | None) -> None:
        super().__init__()
        self.sphere = SphereGrid(lmax, lmax, resolution, m_major=False)
        self.grid_mlp = nn.Sequential(
            nn.Linear(channels, hidden_channels, bias=False),
            nn.SiLU(),
            nn.Linear(hidden_channels, hidden_channels, bias=False),
            nn.SiLU(),
            nn.Linear(hidden_channels, channels, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Node features after this block.

        Parameters
        ----------
        x
            (n, coefficients, channels).

        Returns
        -------
        Tensor
            (n, coefficients, channels).
        """
        return self.sphere.from_grid(self.grid_mlp(self.sphere.to_grid(x)))
