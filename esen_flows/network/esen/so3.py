"""Rotations into edge frames, and the equivariant operations on node features.

Node features are (n, (lmax + 1)^2, channels), coefficient index l*l + l + m.
"""

from functools import cache

import torch
from torch import Tensor, nn

from esen_flows.network.esen.harmonics import assembly_matrix, raising_matrix, raising_product, reduced_order
from esen_flows.network.esen.norms import degree_index


@cache
def _raising_product(degree: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.from_numpy(raising_product(degree).T.copy()).to(dtype=dtype, device=device)


def solid_harmonics(vectors: Tensor, lmax: int) -> list[Tensor]:
    """Real solid harmonics by degree: |v|^l times the harmonics of the direction, whose squares sum to 1 over m.

    Parameters
    ----------
    vectors
        (n, 3), of any length, zero included.
    lmax
        Largest degree.

    Returns
    -------
    list[Tensor]
        lmax + 1 tensors (n, 2l + 1).
    """
    parts = [torch.ones_like(vectors[:, :1]), vectors]
    for degree in range(2, lmax + 1):
        outer = (parts[-1].unsqueeze(2) * vectors.unsqueeze(1)).flatten(1)
        parts.append(outer @ _raising_product(degree, vectors.dtype, vectors.device))
    return parts[: lmax + 1]


def edge_frames(unit_vectors: Tensor) -> Tensor:
    """Rotations R with R n = +y: deterministic, and smooth wherever n moves inside a hemisphere of n_y.

    The minimal rotation of n to y is a polynomial in n apart from 1 / (1 + n_y), which is singular at n = -y only. For
    n_y < 0, n is first turned by pi about x. The two charts differ by a roll about y, on which the network's output
    does not depend, so that there is neither a seam nor a pole. Angles instead would have a pole at +-y, where bonds
    of crystals in standard orientation lie.

    Parameters
    ----------
    unit_vectors
        (edges, 3) directions n.

    Returns
    -------
    Tensor
        (edges, 3, 3).
    """
    x, y, z = unit_vectors.unbind(-1)
    sign = torch.where(y.detach() >= 0, 1.0, -1.0).to(y.dtype)
    y, z = y * sign, z * sign
    h = 1.0 / (1.0 + y)
    mixed = -x * z * h
    rows = (1.0 - x * x * h, -x * sign, mixed * sign, x, y * sign, z * sign, mixed, -z * sign, (1.0 - z * z * h) * sign)
    return torch.stack(rows, dim=-1).view(-1, 3, 3)


class EdgeRotation(nn.Module):
    """Wigner matrices of edge frames, rows in the m-major order of `reduced_order`.

    D^1 is the rotation itself, and D^l follows from D^(l-1) by one constant matrix product. The result is a polynomial
    in the frame: differentiable to any order, without angles.

    Parameters
    ----------
    lmax
        Largest degree.
    mmax
        Largest order of the rows.
    """

    def __init__(self, lmax: int, mmax: int) -> None:
        super().__init__()
        self.lmax, self.mmax = lmax, mmax
        self.n_rows, self.n_coefficients = len(reduced_order(lmax, mmax)), (lmax + 1) ** 2
        # Not module buffers: a cast of the module to float32 and back would leave them rounded.
        self._constants: dict[tuple[torch.dtype, torch.device], tuple[list[Tensor], Tensor]] = {}

    def constants(self, dtype: torch.dtype, device: torch.device) -> tuple[list[Tensor], Tensor]:
        """The constant matrices, made at the first call.

        Parameters
        ----------
        dtype, device
            Type and place of the matrices.

        Returns
        -------
        tuple[list[Tensor], Tensor]
            The raising matrices of the degrees 2 .. lmax, and the assembly matrix.
        """
        if (dtype, device) not in self._constants:
            arrays = [
                *(raising_matrix(degree) for degree in range(2, self.lmax + 1)),
                assembly_matrix(self.lmax, self.mmax),
            ]
            *raising, assembly = (torch.from_numpy(array).to(dtype=dtype, device=device) for array in arrays)
            self._constants[dtype, device] = (raising, assembly)
        return self._constants[dtype, device]

    def forward(self, frames: Tensor) -> Tensor:
        """Rotations of all coefficients into the edge frames.

        Parameters
        ----------
        frames
            (edges, 3, 3) rotations.

        Returns
        -------
        Tensor
            (edges, n_reduced, (lmax + 1)^2), zero outside the blocks of equal l.
        """
        n_edges = frames.shape[0]
        raising, assembly = self.constants(frames.dtype, frames.device)
        first = frames.reshape(n_edges, 9)
        blocks = [first.new_ones(n_edges, 1), first][: self.lmax + 1]
        for matrix in raising:
            products = (blocks[-1].unsqueeze(2) * first.unsqueeze(1)).reshape(n_edges, matrix.shape[0])
            blocks.append(products @ matrix)
        dense = torch.cat(blocks, dim=1) @ assembly
        return dense.view(n_edges, self.n_rows, self.n_coefficients)


def by_rows(x: Tensor, weight: Tensor) -> Tensor:
    """The product x @ weight.T as one matrix product; for a view of (n, rows, in), torch would make n small ones.

    Parameters
    ----------
    x
        (n, rows, in).
    weight
        (out, in).

    Returns
    -------
    Tensor
        (n, rows, out).
    """
    return (x.reshape(-1, x.shape[2]) @ weight.T).view(*x.shape[:2], -1)


class SO3Linear(nn.Module):
    """One matrix per degree, and a bias on l = 0.

    Parameters
    ----------
    in_channels, out_channels
        Channels of input and output.
    lmax
        Largest degree.
    """

    def __init__(self, in_channels: int, out_channels: int, lmax: int) -> None:
        super().__init__()
        bound = in_channels**-0.5
        self.sizes = [2 * degree + 1 for degree in range(lmax + 1)]
        self.weight = nn.Parameter(torch.empty(lmax + 1, out_channels, in_channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Mapped features.

        Parameters
        ----------
        x
            (n, coefficients, in_channels).

        Returns
        -------
        Tensor
            (n, coefficients, out_channels).
        """
        first, *others = x.split(self.sizes, dim=1)
        outputs = [nn.functional.linear(first, self.weight[0], self.bias)]
        outputs += [by_rows(part, weight) for part, weight in zip(others, self.weight[1:], strict=True)]
        return torch.cat(outputs, dim=1)


class NodeBlock(nn.Module):
    """The "spectral" node block: SO3Linear, gate, SO3Linear; without a grid, hence exactly equivariant.

    Parameters
    ----------
    lmax
        Largest degree of the features.
    channels
        Channels of the features.
    hidden_channels
        Channels between the two linear maps.
    """

    def __init__(self, lmax: int, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.lmax, self.hidden_channels = lmax, hidden_channels
        self.scalar_mlp = nn.Sequential(nn.Linear(channels, lmax * hidden_channels), nn.SiLU())
        self.so3_linear_1 = SO3Linear(channels, hidden_channels, lmax)
        self.so3_linear_2 = SO3Linear(hidden_channels, channels, lmax)
        self.register_buffer("degrees", torch.tensor(degree_index(lmax)[1:]) - 1, persistent=False)

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
        # The gates pass through a SiLU and then a sigmoid, as published.
        gates = torch.sigmoid(self.scalar_mlp(x[:, 0])).view(x.shape[0], self.lmax, self.hidden_channels)
        hidden = self.so3_linear_1(x)
        gated = hidden[:, 1:] * gates[:, self.get_buffer("degrees")]
        return self.so3_linear_2(torch.cat((nn.functional.silu(hidden[:, :1]), gated), dim=1))
