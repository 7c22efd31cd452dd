"""Passes of a training step that fit into memory: where it runs out, a step is computed again in smaller ones."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from esen_flows.errors import InsufficientMemoryError
from esen_flows.forcefield.batching import MINIMUM_EDGES, unless_out_of_memory
from esen_flows.network.interface import Network
from esen_flows.training.frames import LabelledBatch

Result = TypeVar("Result")


@dataclass
class PassLimits:
    """What was found to fit; it is lowered when memory runs out.

    Attributes
    ----------
    edges_per_pass
        Most edges of a pass of several structures; None: no limit was met yet.
    edges_per_chunk
        `Network.edges_per_chunk` where a single structure did not fit; None: that of the stage.
    """

    edges_per_pass: int | None = None
    edges_per_chunk: int | None = None

    def pieces(self, parts: Sequence[LabelledBatch]) -> list[LabelledBatch]:
        """Parts of a batch, cut into pieces within the limit.

        Parameters
        ----------
        parts
            Parts of a batch.

        Returns
        -------
        list[LabelledBatch]
            The same structures in their order; a structure above the limit is a piece of its own.
        """
        if self.edges_per_pass is None:
            return list(parts)
        return [piece for part in parts for piece in part.pieces(self.edges_per_pass)]

    def lower(self, pieces: Sequence[LabelledBatch], network: Network) -> None:
        """Halve the pass; where it is one structure already, halve the chunks in which it is computed.

        Parameters
        ----------
        pieces
            The pieces that did not fit.
        network
            Its chunks are bounded from now on, if that is what is halved.

        Raises
        ------
        InsufficientMemoryError
            There is nothing left to halve.
        """
        several = [piece.graph.n_edges for piece in pieces if piece.graph.n_systems > 1]
        largest = max((piece.graph.n_edges for piece in pieces), default=0)
        if several:
            self.edges_per_pass = max(several) // 2
            warnings.warn(f"memory ran out: passes of at most {self.edges_per_pass} edges from now on", stacklevel=2)
            return
        chunk = min(network.edges_per_chunk or largest, largest)
        if chunk <= MINIMUM_EDGES:
            raise InsufficientMemoryError(
                f"a training step on a structure of {largest} edges does not fit into memory, not even in chunks of "
                f"{chunk} edges; use a device with more memory, a smaller network, or leave the structure out"
            )
        self.edges_per_chunk = network.edges_per_chunk = max(MINIMUM_EDGES, chunk // 2)
        warnings.warn(f"memory ran out: chunks of at most {self.edges_per_chunk} edges from now on", stacklevel=2)


def within_memory(
    compute: Callable[[Sequence[LabelledBatch]], Result],
    parts: Sequence[LabelledBatch],
    limits: PassLimits,
    network: Network,
) -> Result:
    """Result of a computation on the parts of a batch, in pieces that fit into memory.

    Parameters
    ----------
    compute
        Computes the pieces one after the other. It is called again with smaller ones where memory runs out.
    parts
        Parts of a batch.
    limits
        What fits; lowered here.
    network
        The network of the computation.

    Returns
    -------
    Result
        That of the call that went well.

    Raises
    ------
    InsufficientMemoryError
        A single structure does not fit in the smallest chunks.
    """
    while True:
        pieces = limits.pieces(parts)
        found = unless_out_of_memory(partial(compute, pieces))
        if found is not None:
            return found
        limits.lower(pieces, network)
