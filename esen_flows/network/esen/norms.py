"""The three norms of node features (n, (lmax + 1)^2, channels), under the names of the published configurations.

All subtract the channel mean from l = 0, scale each degree and channel, and add a bias to l = 0. They differ in which
coefficients share a root mean square.
"""

from typing import Any

import torch
from torch import Tensor, nn

from esen_flows.network.esen.config import NormType

EPS = 1e-5  # of the published models
BALANCE = "balance_degree_weight"  # name of the weights of the degrees in published files


def degree_index(lmax: int) -> list[int]:
    """The degree l of each coefficient.

    Parameters
    ----------
    lmax
        Largest degree.

    Returns
    -------
    list[int]
        (lmax + 1)^2 degrees.
    """
    return [degree for degree in range(lmax + 1) for _ in range(2 * degree + 1)]


def _balance(degrees: list[int], n_degrees: int) -> Tensor:
    """(coefficients, 1) weights 1 / ((2l + 1) n_degrees), with which every degree counts equally."""
    # Published models were trained with these weights in float32, rounded after each of two divisions. Exact ones shift
    # energies by up to 2e-7, a single rounding those of lmax 4 by 5e-9.
    sizes = torch.tensor([2 * degree + 1 for degree in degrees], dtype=torch.float32)
    return (1.0 / sizes / n_degrees).unsqueeze(1)


def _centred(x: Tensor) -> Tensor:
    """Features less the channel mean of l = 0."""
    scalar = x[:, :1]
    return torch.cat((scalar - scalar.mean(dim=2, keepdim=True), x[:, 1:]), dim=1)


class _BalancedNorm(nn.Module):
    """A norm whose weights of the degrees may be those of a file, which are then saved with it."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        if prefix + BALANCE in state_dict:
            self.register_buffer(BALANCE, torch.empty_like(self.get_buffer(BALANCE)), persistent=True)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


class RMSNormSH(_BalancedNorm):
    """One statistic per atom, in which every degree counts equally ("rms_norm_sh").

    Parameters
    ----------
    lmax
        Largest degree of the features.
    channels
        Channels of the features.
    """

    def __init__(self, lmax: int, channels: int) -> None:
        super().__init__()
        degrees = degree_index(lmax)
        self.affine_weight = nn.Parameter(torch.ones(lmax + 1, channels))
        self.affine_bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer(BALANCE, _balance(degrees, lmax + 1), persistent=False)
        self.register_buffer("degrees", torch.tensor(degrees), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normed features.

        Parameters
        ----------
        x
            (n, coefficients, channels).

        Returns
        -------
        Tensor
            (n, coefficients, channels).
        """
        x = _centred(x)
        power = (x.square() * self.get_buffer(BALANCE)).sum(dim=1, keepdim=True)
        inverse = (power.mean(dim=2, keepdim=True) + EPS).rsqrt()
        x = x * (inverse * self.affine_weight[self.get_buffer("degrees")])
        return torch.cat((x[:, :1] + self.affine_bias, x[:, 1:]), dim=1)


class LayerNormSH(_BalancedNorm):
    """l = 0 by an ordinary layer norm, all l > 0 by one statistic ("layer_norm_sh").

    Parameters
    ----------
    lmax
        Largest degree of the features.
    channels
        Channels of the features.
    """

    def __init__(self, lmax: int, channels: int) -> None:
        super().__init__()
        degrees = degree_index(lmax)[1:]
        self.norm_l0 = nn.LayerNorm(channels, eps=EPS)
        self.affine_weight = nn.Parameter(torch.ones(lmax, channels))
        self.register_buffer(BALANCE, _balance(degrees, lmax), persistent=False)
        self.register_buffer("degrees", torch.tensor(degrees) - 1, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normed features.

        Parameters
        ----------
        x
            (n, coefficients, channels).

        Returns
        -------
        Tensor
            (n, coefficients, channels).
        """
        higher = x[:, 1:]
        power = (higher.square() * self.get_buffer(BALANCE)).sum(dim=1, keepdim=True)
        inverse = (power.mean(dim=2, keepdim=True) + EPS).rsqrt()
        scaled = higher * (inverse * self.affine_weight[self.get_buffer("degrees")])
        return torch.cat((self.norm_l0(x[:, :1]), scaled), dim=1)


class LayerNormPerDegree(nn.Module):
    """Each degree by its own statistic ("layer_norm").

    Parameters
    ----------
    lmax
        Largest degree of the features.
    channels
        Channels of the features.
    """

    def __init__(self, lmax: int, channels: int) -> None:
        super().__init__()
        self.sizes = [2 * degree + 1 for degree in range(lmax + 1)]
        self.affine_weight = nn.Parameter(torch.ones(lmax + 1, channels))
        self.affine_bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normed features.

        Parameters
        ----------
        x
            (n, coefficients, channels).

        Returns
        -------
        Tensor
            (n, coefficients, channels).
        """
        parts = []
        for weight, part in zip(self.affine_weight, _centred(x).split(self.sizes, dim=1), strict=True):
            inverse = (part.square().mean(dim=(1, 2), keepdim=True) + EPS).rsqrt()
            parts.append(part * (inverse * weight))
        parts[0] = parts[0] + self.affine_bias
        return torch.cat(parts, dim=1)


NORMS: dict[NormType, type[nn.Module]] = {
    "rms_norm_sh": RMSNormSH,
    "layer_norm_sh": LayerNormSH,
    "layer_norm": LayerNormPerDegree,
}
