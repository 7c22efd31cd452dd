"""Pointwise nonlinearities on a grid of the sphere: the "s2" edge activation and the "grid" node block.

A product grid: rings at polar angles (i + 1/2) pi / n from the y axis, equally spaced longitudes. Only band-limited
functions survive the round trip exactly, and a SiLU is not band-limited, so that rotations hold only approximately.
"""

from functools import cache
from math import sqrt

import torch
from torch import Tensor, nn

from esen_flows.errors import ModelError
from esen_flows.network.harmonics import reduced_order


@cache
def grid_matrices(
    lmax: int, mmax: int, resolution: int | None, order: tuple[tuple[int, int], ...]
) -> tuple[Tensor, Tensor]:
    """Coefficients to grid values, and back by quadrature, as e3nn makes them.

    Harmonics are orthonormal on the sphere ("integral" normalisation). Where mmax < lmax, degrees above mmax are scaled
    by sqrt((2l + 1) / (2 mmax + 1)) in both directions, as in the published models. So are the tables of float32
    numbers: exact ones would move energies by 1e-7.

    Parameters
    ----------
    resolution
        rings and longitudes; None: 2 (lmax + 1) rings, 2 mmax + 1 longitudes (two more where mmax = lmax).
    order
        (l, m) of each coefficient.

    Returns
    -------
    tuple[Tensor, Tensor]
        to_grid (points, coefficients) and from_grid (coefficients, points), float32.

    Raises
    ------
    ModelError
        e3nn is not installed.
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


class SphereGrid(nn.Module):
    """To a grid and back."""

    def __init__(self, lmax: int, mmax: int, resolution: int | None, *, m_major: bool) -> None:
        super().__init__()
        by_degree = tuple((degree, m) for degree in range(lmax + 1) for m in range(-degree, degree + 1))
        self.arguments = (lmax, mmax, resolution, reduced_order(lmax, mmax) if m_major else by_degree)

    def to_grid(self, x: Tensor) -> Tensor:
        """(n, coefficients, channels) -> (n, points, channels)."""
        return _matrix(0, *self.arguments, x.dtype, x.device) @ x

    def from_grid(self, values: Tensor) -> Tensor:
        """(n, points, channels) -> (n, coefficients, channels)."""
        return _matrix(1, *self.arguments, values.dtype, values.device) @ values


@cache
def _matrix(
    which: int,
    lmax: int,
    mmax: int,
    resolution: int | None,
    order: tuple[tuple[int, int], ...],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    return grid_matrices(lmax, mmax, resolution, order)[which].to(dtype=dtype, device=device)


class GridNodeBlock(nn.Module):
    """The "grid" node-wise block: an MLP without biases at each point of the sphere."""

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
        """(n, coefficients, channels) -> same."""
        return self.sphere.from_grid(self.grid_mlp(self.sphere.to_grid(x)))
