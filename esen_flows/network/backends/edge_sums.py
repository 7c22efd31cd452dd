"""The seam between networks and the code that sums messages over edges.

A network hands over its parts and edges, and gets one function per part. Which code computes these is decided here, by
the device of the features: compiled kernels on a CPU (`cpu`), and torch's own operations everywhere else (`plain`). All
give the same numbers within rounding, differentiable to any order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from esen_flows.network.backends import plain
from esen_flows.network.backends.cpu import frozen as cpu_frozen
from esen_flows.network.backends.cpu import training as cpu_training
from esen_flows.network.backends.plain import EdgePart
from esen_flows.network.esen.edges import EdgeGeometry

EdgeSum = Callable[[Tensor], Tensor]


class FrozenSums(Protocol):
    """Edge sums of a network whose parameters are constants."""

    def supports(self, edges: EdgeGeometry) -> bool:
        """Whether these edges can be summed by this code.

        Parameters
        ----------
        edges
            All edges of a batch.

        Returns
        -------
        bool
            False where the general code has to be used.
        """

    def sums(self, edges: EdgeGeometry, edges_per_chunk: int | None) -> list[EdgeSum]:
        """One function per part: normed node features to sums of messages, both (atoms, coefficients, channels).

        Parameters
        ----------
        edges
            All edges of a batch, which `supports` accepts.
        edges_per_chunk
            Bound of the memory, as `Network.edges_per_chunk`.

        Returns
        -------
        list[EdgeSum]
            The functions, in the order of the parts.
        """

    def on_nodes(self, module: nn.Module) -> EdgeSum:
        """One of the norms and node blocks of the network, for batches that are supported.

        Parameters
        ----------
        module
            The module.

        Returns
        -------
        Callable[[Tensor], Tensor]
            Its function of node features.
        """


@dataclass(frozen=True)
class Backend:
    """How the messages of the parts of a network are summed on one kind of device.

    Attributes
    ----------
    message_sum
        Sums of the messages of a part at a range of atoms, differentiable with respect to features, edges and weights.
    frozen
        Faster code for the present values of the parameters of all parts; None where there is none for them.
    """

    message_sum: Callable[[EdgePart, Tensor, EdgeGeometry, int, int], Tensor]
    frozen: Callable[[Sequence[EdgePart], Sequence[nn.Module]], FrozenSums | None]


def _nothing_frozen(parts: Sequence[EdgePart], nodes: Sequence[nn.Module]) -> FrozenSums | None:
    return None


PLAIN = Backend(plain.message_sum, _nothing_frozen)
BACKENDS = {"cpu": Backend(cpu_training.message_sum, cpu_frozen.frozen_kernels)}  # by type of device; others: PLAIN


def backend(device: torch.device) -> Backend:
    """The backend of a device.

    Parameters
    ----------
    device
        torch device.

    Returns
    -------
    Backend
        The fastest one that there is.
    """
    return BACKENDS.get(device.type, PLAIN)


def frozen_sums(parts: Sequence[EdgePart], nodes: Sequence[nn.Module]) -> FrozenSums | None:
    """Faster code for the present values of the parameters of a network, on their device.

    Parameters
    ----------
    parts
        The parts of the network that send messages.
    nodes
        Its norms and node blocks.

    Returns
    -------
    FrozenSums | None
        None where the general code has to be used.
    """
    return backend(next(parts[0].parameters()).device).frozen(parts, nodes)


def edge_sums(
    parts: Sequence[EdgePart], edges: EdgeGeometry, edges_per_chunk: int | None, frozen: FrozenSums | None = None
) -> list[EdgeSum]:
    """One function per part: normed node features to sums of messages, both (atoms, coefficients, channels).

    Parameters
    ----------
    parts
        The parts of the network that send messages.
    edges
        All edges of a batch.
    edges_per_chunk
        Bound of the memory, as `Network.edges_per_chunk`.
    frozen
        Code for constant parameters, from `frozen_sums`, where it supports these edges.

    Returns
    -------
    list[EdgeSum]
        The functions, in the order of the parts.
    """
    if frozen is not None:
        return frozen.sums(edges, edges_per_chunk)
    message_sum, chunks = backend(edges.basis.device).message_sum, edges.chunks(edges_per_chunk)
    return [
        partial(plain.sum_in_chunks, partial(message_sum, part), chunks=chunks, parameters=part.edge_parameters())
        for part in parts
    ]
