"""SO(2) convolutions (eSCN, arXiv 2302.03655): in the frame of an edge, a rotation about it only mixes +m and -m.

Features are a list of parts, one per m = 0 .. mmax: (edges, lmax + 1, channels) for m = 0 and
(edges, 2 (lmax + 1 - m), channels) for m > 0, the +m rows first and then the -m rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from esen_flows.network.esen.config import ESENConfig, SO2Weights
from esen_flows.network.esen.grid import SphereGrid
from esen_flows.network.esen.radial import RadialMLP


def part_sizes(lmax: int, mmax: int) -> list[int]:
    """Number of rows of each part.

    Parameters
    ----------
    lmax
        Largest degree.
    mmax
        Largest order.

    Returns
    -------
    list[int]
        One number per m = 0 .. mmax.
    """
    return [lmax + 1] + [2 * (lmax + 1 - m) for m in range(1, mmax + 1)]


class MixM(nn.Module):
    """The weight of one m > 0.

    Complex: out+ = Wr x+ - Wi x-, out- = Wr x- + Wi x+, computed as one real matrix product. Real: out+ = W x+,
    out- = W x-, which does not mix +m and -m, so that mirror images hold exactly.

    Parameters
    ----------
    in_features, out_features
        Values of +m alone.
    weights
        Kind of the weight.
    """

    def __init__(self, in_features: int, out_features: int, weights: SO2Weights) -> None:
        super().__init__()
        self.weights: SO2Weights = weights
        self.in_features = in_features
        parts = 2 if weights == "complex" else 1
        self.fc = nn.Linear(in_features, parts * out_features, bias=False)
        # Two products add up in every output of the complex form: 1/sqrt(2) keeps the initial variance.
        self.fc.weight.data.mul_(parts**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Mixed rows.

        Parameters
        ----------
        x
            (edges, 2 * in_features), the +m values first.

        Returns
        -------
        Tensor
            (edges, 2 * out_features), the +m values first.
        """
        if self.weights == "real":
            return self.fc(x.reshape(2 * x.shape[0], self.in_features)).view(x.shape[0], 2 * self.fc.out_features)
        return nn.functional.linear(x, self.block())

    def block(self) -> Tensor:
        """The weight as one real matrix.

        Returns
        -------
        Tensor
            (2 out, 2 in), acting on +m and -m together, if complex; (out, in), acting on each of them, if real.
        """
        if self.weights == "real":
            return self.fc.weight
        real, imaginary = self.fc.weight.chunk(2, dim=0)
        return torch.cat((torch.cat((real, -imaginary), dim=1), torch.cat((imaginary, real), dim=1)), dim=0)


@dataclass(frozen=True)
class Columns:
    """The matrix products of one convolution on arrays with one row per edge.

    Attributes
    ----------
    products
        For each product the input columns, the output columns and the index of its weight.
    width_in
        Columns of the input.
    width_out
        Columns of the output.
    """

    products: tuple[tuple[slice, slice, int], ...]
    width_in: int
    width_out: int

    @cached_property
    def sizes_in(self) -> list[int]:
        """Number of input columns of each product; they are consecutive."""
        return [read.stop - read.start for read, _, _ in self.products]

    @cached_property
    def sizes_out(self) -> list[int]:
        """Number of output columns of each product; they are consecutive."""
        return [write.stop - write.start for _, write, _ in self.products]

    @property
    def scalars_out(self) -> slice:
        """Output columns of m = 0, which have the bias: extra scalars, then the rows of m = 0."""
        return self.products[0][1]

    @classmethod
    def of(cls, convolution: "SO2Convolution") -> "Columns":
        """The products of a convolution: one for m = 0, and for every m > 0 one (complex) or two (real).

        Parameters
        ----------
        convolution
            The convolution.

        Returns
        -------
        Columns
            Its products, in the order of the columns.
        """
        rows, done = convolution.lmax + 1, convolution.lmax + 1
        n_in, n_out, extra = convolution.in_channels, convolution.out_channels, convolution.extra_outputs
        products = [(slice(0, rows * n_in), slice(0, extra + rows * n_out), 0)]
        for m, mix in enumerate(convolution.mixes, start=1):
            # A complex weight acts on the +m and -m rows together, a real one first on +m and then on -m.
            for n in (2 * (rows - m),) if mix.weights == "complex" else (rows - m, rows - m):
                read = slice(done * n_in, (done + n) * n_in)
                products.append((read, slice(extra + done * n_out, extra + (done + n) * n_out), m))
                done += n
        return cls(tuple(products), done * n_in, extra + done * n_out)

    def multiply(self, values: Tensor, transposed: Sequence[Tensor], out: Tensor) -> None:
        """Write the products of values and weights.

        Parameters
        ----------
        values
            (edges, width_in).
        transposed
            (in, out) matrix of each m.
        out
            (edges, width_out), overwritten.
        """
        reads, writes = values.split_with_sizes(self.sizes_in, 1), out.split_with_sizes(self.sizes_out, 1)
        for read, write, (_, _, which) in zip(reads, writes, self.products, strict=True):
            torch.mm(read, transposed[which], out=write)

    def multiply_back(self, grad: Tensor, weights: Sequence[Tensor], out: Tensor) -> None:
        """Write the gradient of the values.

        Parameters
        ----------
        grad
            (edges, width_out) gradient of the products.
        weights
            (out, in) matrix of each m.
        out
            (edges, width_in), overwritten.
        """
        reads, writes = out.split_with_sizes(self.sizes_in, 1), grad.split_with_sizes(self.sizes_out, 1)
        for read, write, (_, _, which) in zip(reads, writes, self.products, strict=True):
            torch.mm(write, weights[which], out=read)


class SO2Convolution(nn.Module):
    """A linear map of each part, optionally modulated by a radial network.

    Parameters
    ----------
    lmax, mmax
        Largest degree and order.
    in_channels, out_channels
        Channels of input and output parts.
    extra_outputs
        Number of additional scalars, from which activations take gates.
    weights
        Kind of the weights of m > 0.
    radial
        Network whose output multiplies the input; None: no modulation.
    """

    def __init__(
        self,
        lmax: int,
        mmax: int,
        in_channels: int,
        out_channels: int,
        *,
        extra_outputs: int = 0,
        weights: SO2Weights = "complex",
        radial: RadialMLP | None = None,
    ) -> None:
        super().__init__()
        self.lmax, self.mmax = lmax, mmax
        self.in_channels, self.out_channels, self.extra_outputs = in_channels, out_channels, extra_outputs
        rows = lmax + 1
        self.fc_m0 = nn.Linear(rows * in_channels, extra_outputs + rows * out_channels)
        self.so2_m_conv = nn.ModuleList(
            MixM((rows - m) * in_channels, (rows - m) * out_channels, weights) for m in range(1, mmax + 1)
        )
        if radial is not None:
            self.rad_func = radial

    @property
    def mixes(self) -> Sequence[MixM]:
        """The weights of m = 1 .. mmax."""
        return cast(Sequence[MixM], self.so2_m_conv)

    def matrices(self) -> list[Tensor]:
        """The weights as `Columns` takes them.

        Returns
        -------
        list[Tensor]
            (out, in) matrix of m = 0 .. mmax.
        """
        return [self.fc_m0.weight, *(mix.block() for mix in self.mixes)]

    def forward(self, parts: list[Tensor], modulation: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
        """Convolved features.

        Parameters
        ----------
        parts
            One tensor per m, in_channels last.
        modulation
            (edges, sum over m of (lmax + 1 - m) * in_channels) factors, m-major; +m and -m share theirs.

        Returns
        -------
        tuple[list[Tensor], Tensor]
            Parts with out_channels, and the extra scalars (edges, extra_outputs).
        """
        n_edges = parts[0].shape[0]
        widths = [(self.lmax + 1 - m) * self.in_channels for m in range(self.mmax + 1)]
        radial = modulation.split(widths, dim=1) if modulation is not None else None
        flat = parts[0].reshape(n_edges, widths[0])
        scalars = self.fc_m0(flat if radial is None else flat * radial[0])
        extra, first = scalars.split([self.extra_outputs, (self.lmax + 1) * self.out_channels], dim=1)
        outputs = [first.reshape(n_edges, self.lmax + 1, self.out_channels)]
        for m, mix in enumerate(self.so2_m_conv, start=1):
            pair = parts[m].reshape(n_edges, 2, widths[m])
            if radial is not None:
                pair = pair * radial[m].unsqueeze(1)
            mixed = mix(pair.reshape(n_edges, 2 * widths[m]))
            outputs.append(mixed.reshape(n_edges, 2 * (self.lmax + 1 - m), self.out_channels))
        return outputs, extra


class GateActivation(nn.Module):
    """SiLU on l = 0; every other coefficient times the sigmoid of the gate of its degree.

    Parameters
    ----------
    lmax
        Largest degree.
    hidden_channels
        Channels of the parts.
    """

    def __init__(self, lmax: int, hidden_channels: int) -> None:
        super().__init__()
        self.lmax, self.hidden_channels = lmax, hidden_channels
        self.extra_outputs = lmax * hidden_channels

    def forward(self, parts: list[Tensor], scalars: Tensor) -> list[Tensor]:
        """Activated parts.

        Parameters
        ----------
        parts
            One tensor per m, hidden_channels last.
        scalars
            (edges, lmax * hidden_channels) gates of the degrees 1 .. lmax.

        Returns
        -------
        list[Tensor]
            Parts of the same shapes.
        """
        gates = torch.sigmoid(scalars).view(scalars.shape[0], self.lmax, self.hidden_channels)
        scalar, others = parts[0].split([1, self.lmax], dim=1)
        first = torch.cat((nn.functional.silu(scalar), others * gates), dim=1)
        gated = [first]
        for m, part in enumerate(parts[1:], start=1):
            rows = gates if m == 1 else gates[:, m - 1 :]  # degrees m .. lmax, once for +m and once for -m
            pair = part.view(part.shape[0], 2, self.lmax + 1 - m, self.hidden_channels)
            gated.append((pair * rows.unsqueeze(1)).view(part.shape))
        return gated


class S2Activation(nn.Module):
    """SiLU at each point of the sphere for l > 0; for l = 0 the SiLU of extra scalars.

    Parameters
    ----------
    lmax, mmax
        Largest degree and order.
    hidden_channels
        Channels of the parts.
    resolution
        Grid points, as in `ESENConfig.grid_resolution`.
    """

    def __init__(self, lmax: int, mmax: int, hidden_channels: int, resolution: int | None) -> None:
        super().__init__()
        self.sizes = part_sizes(lmax, mmax)
        self.extra_outputs = hidden_channels
        self.sphere = SphereGrid(lmax, mmax, resolution, m_major=True)

    def forward(self, parts: list[Tensor], scalars: Tensor) -> list[Tensor]:
        """Activated parts.

        Parameters
        ----------
        parts
            One tensor per m, hidden_channels last.
        scalars
            (edges, hidden_channels), which replace l = 0.

        Returns
        -------
        list[Tensor]
            Parts of the same shapes.
        """
        x = self.sphere.from_grid(nn.functional.silu(self.sphere.to_grid(torch.cat(parts, dim=1))))
        x = torch.cat((nn.functional.silu(scalars).unsqueeze(1), x[:, 1:]), dim=1)
        return list(x.split(self.sizes, dim=1))


class EdgeBlock(nn.Module):
    """Messages of one layer in the edge frame: convolution, activation, convolution.

    Parameters
    ----------
    config
        Sizes and options of the network.
    """

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        c = config
        self.sizes = part_sizes(c.lmax, c.mmax)
        modulated = sum(c.lmax + 1 - m for m in range(c.mmax + 1)) * 2 * c.sphere_channels
        self.activation: GateActivation | S2Activation
        if c.act_type == "gate":
            self.activation = GateActivation(c.lmax, c.hidden_channels)
        else:
            self.activation = S2Activation(c.lmax, c.mmax, c.hidden_channels, c.grid_resolution)
        self.so2_conv_1 = SO2Convolution(
            c.lmax,
            c.mmax,
            2 * c.sphere_channels,
            c.hidden_channels,
            extra_outputs=self.activation.extra_outputs,
            weights=c.so2_weights,
            radial=RadialMLP(c.num_distance_basis, c.edge_channels, modulated),
        )
        self.so2_conv_2 = SO2Convolution(c.lmax, c.mmax, c.hidden_channels, c.sphere_channels, weights=c.so2_weights)

    def forward(
        self, rotated: Tensor, basis: Tensor, species: tuple[Tensor, Tensor], edge_index: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Messages in the edge frame.

        Parameters
        ----------
        rotated
            (edges, n_reduced, 2 * channels) features of source and target in the edge frame, m-major.
        basis, species, edge_index
            Inputs of the radial network, as in `RadialMLP.forward`.

        Returns
        -------
        Tensor
            (edges, n_reduced, channels).
        """
        modulation = self.so2_conv_1.rad_func(basis, species, edge_index)
        hidden, scalars = self.so2_conv_1(list(rotated.split(self.sizes, dim=1)), modulation)
        outputs, _ = self.so2_conv_2(self.activation(hidden, scalars))
        return torch.cat(outputs, dim=1)
