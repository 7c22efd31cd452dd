"""The edges of a batch as all layers see them, and sums of messages over them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from esen_flows.network.recompute import recomputed


@dataclass(frozen=True)
class EdgeGeometry:
    """What all layers share of the edges.

    Attributes
    ----------
    source, target
        (edges,) atom indices.
    rotation
        (edges, n_reduced, coefficients) into the edge frame.
    envelope
        (edges,) factors of the messages; ones for a network without an envelope.
    basis
        (edges, K) radial basis.
    species
        source and target species embeddings, each (atoms, edge_channels).
    state
        (atoms, channels) what charge and spin add to l = 0 in every layer, or None.
    """

    source: Tensor
    target: Tensor
    rotation: Tensor
    envelope: Tensor
    basis: Tensor
    species: tuple[Tensor, Tensor]
    state: Tensor | None

    @cached_property
    def by_source(self) -> Tensor | None:
        """(edges,) order in which the sources are sorted; None where the targets are not sorted."""
        if not bool((self.target[1:] >= self.target[:-1]).all()):
            return None
        return self.source.argsort(stable=True)

    @property
    def back(self) -> Tensor:
        """(edges, coefficients, n_reduced): out of the edge frame, times the envelope."""
        return (self.rotation * self.envelope.view(-1, 1, 1)).transpose(1, 2)

    def chunks(self, size: int | None) -> list["EdgeGeometry"]:
        """Consecutive edges, at most `size` at a time; None: all at once."""
        if size is None or size >= self.source.shape[0]:
            return [self]
        # `split` and not slices: the gradients of all parts are then joined once, instead of each padded with zeros.
        names = ("source", "target", "rotation", "envelope", "basis")
        columns = [getattr(self, name).split(size) for name in names]
        return [replace(self, **dict(zip(names, part, strict=True))) for part in zip(*columns, strict=True)]


# Features of atoms, edges, a first atom and a number of atoms -> sums of messages in these atoms.
Sums = Callable[[Tensor, EdgeGeometry, int, int], Tensor]


def at_targets(messages: Tensor, x: Tensor, edges: EdgeGeometry, first: int, rows: int) -> Tensor:
    """Messages (edges, coefficients, channels) summed in `rows` atoms from `first` on, as features like `x`."""
    values = messages.to(x.dtype)  # of lower precision under autocast
    return x.new_zeros(rows, *x.shape[1:]).index_add(0, edges.target - first if first else edges.target, values)


def sum_messages(sums: Sums, x: Tensor, *, chunks: Sequence[EdgeGeometry], parameters: Sequence[Tensor] = ()) -> Tensor:
    """The sum of messages at their targets, (atoms, coefficients, channels).

    Of several chunks, one at a time is held in memory: what its gradient needs, and what that gradient's own needs, is
    computed again on the way back. `parameters` are those that `sums` reads and that may get a gradient.
    """
    if len(chunks) == 1:
        return sums(x, chunks[0], 0, len(x))
    total = torch.zeros_like(x)
    for edges in chunks:
        # Edges are sorted by target, so that a chunk reaches few atoms, and only their sums outlive it.
        first, last = int(edges.target.min()), int(edges.target.max())
        values = (x, edges.rotation, edges.envelope, edges.basis, *edges.species)
        part = recomputed(partial(_sums_of, sums, edges, first, last + 1 - first), values, parameters)
        total[first : last + 1] += part
    return total


def _sums_of(
    sums: Sums,
    edges: EdgeGeometry,
    first: int,
    rows: int,
    x: Tensor,
    rotation: Tensor,
    envelope: Tensor,
    basis: Tensor,
    of_sources: Tensor,
    of_targets: Tensor,
) -> Tensor:
    edges = replace(edges, rotation=rotation, envelope=envelope, basis=basis, species=(of_sources, of_targets))
    return sums(x, edges, first, rows)
