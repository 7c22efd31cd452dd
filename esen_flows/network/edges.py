"""The edges of a batch as all layers see them, and sums of messages over them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from esen_flows.network.recompute import recomputed


@dataclass(frozen=True)
class EdgeGeometry:
    """Edge quantities that all layers share.

    Attributes
    ----------
    source
        (edges,) index of the atom that sends the message.
    target
        (edges,) index of the atom that receives the message.
    rotation
        (edges, n_reduced, (lmax + 1)^2) rotation into the edge frame, rows in the m-major order of `reduced_order`.
    envelope
        (edges,) factors of the messages; ones for a network without an envelope.
    basis
        (edges, K) radial basis.
    species
        Source and target species embeddings, each (atoms, edge_channels).
    charge_spin
        (atoms, channels) contribution of charge and spin to l = 0 in every layer, or None.
    """

    source: Tensor
    target: Tensor
    rotation: Tensor
    envelope: Tensor
    basis: Tensor
    species: tuple[Tensor, Tensor]
    charge_spin: Tensor | None

    @cached_property
    def sorted_by_target(self) -> bool:
        """Whether the targets ascend, as the compiled kernels require."""
        return bool((self.target[1:] >= self.target[:-1]).all())

    @cached_property
    def by_source(self) -> Tensor:
        """(edges,) order in which the sources ascend."""
        return self.source.argsort(stable=True)

    @property
    def weighted_rotation(self) -> Tensor:
        """(edges, n_reduced, coefficients) `rotation` times the envelope; its transpose leads out of the edge frame."""
        return self.rotation * self.envelope.view(-1, 1, 1)

    def chunks(self, size: int | None) -> list["EdgeGeometry"]:
        """The edges in consecutive parts.

        Parameters
        ----------
        size
            Largest number of edges in a part; None: all edges in one part.

        Returns
        -------
        list[EdgeGeometry]
            The parts, in order.
        """
        if size is None or size >= self.source.shape[0]:
            return [self]
        # `split` instead of slices: its backward joins the gradients of all parts at once, and slices would pad each
        # gradient with zeros to the full size.
        names = ("source", "target", "rotation", "envelope", "basis")
        columns = [getattr(self, name).split(size) for name in names]
        return [replace(self, **dict(zip(names, part, strict=True))) for part in zip(*columns, strict=True)]


# (features of all atoms, edges, first atom, number of atoms) -> messages summed at these atoms.
MessageSum = Callable[[Tensor, EdgeGeometry, int, int], Tensor]


def sum_at_targets(messages: Tensor, x: Tensor, edges: EdgeGeometry, first_atom: int, n_atoms: int) -> Tensor:
    """Sums of messages at their target atoms.

    Parameters
    ----------
    messages
        (edges, coefficients, channels).
    x
        Node features; the sums have their dtype and shape beyond the first dimension.
    edges
        The edges of the messages.
    first_atom, n_atoms
        Range of atoms that contains all targets.

    Returns
    -------
    Tensor
        (n_atoms, coefficients, channels).
    """
    values = messages.to(x.dtype)  # under autocast, messages have a lower precision than features
    index = edges.target - first_atom if first_atom else edges.target
    return x.new_zeros(n_atoms, *x.shape[1:]).index_add(0, index, values)


def sum_messages(
    message_sum: MessageSum, x: Tensor, *, chunks: Sequence[EdgeGeometry], parameters: Sequence[Tensor] = ()
) -> Tensor:
    """Sums of messages at all atoms, holding the intermediate values of one chunk of edges at a time.

    With several chunks, the values that a gradient needs are recomputed in the backward pass, and so are those that the
    gradient of this gradient needs.

    Parameters
    ----------
    message_sum
        Computes the sums of one chunk.
    x
        (atoms, coefficients, channels) node features.
    chunks
        The edges, sorted by target if there are several chunks.
    parameters
        Parameters that `message_sum` reads and that may get a gradient.

    Returns
    -------
    Tensor
        (atoms, coefficients, channels).
    """
    if len(chunks) == 1:
        return message_sum(x, chunks[0], 0, len(x))
    total = torch.zeros_like(x)
    for edges in chunks:
        # Edges are sorted by target, so that the sums of a chunk concern few atoms, and only these sums are kept.
        first, last = int(edges.target.min()), int(edges.target.max())
        values = (x, edges.rotation, edges.envelope, edges.basis, *edges.species)
        function = partial(_sum_of_chunk, message_sum, edges, first, last + 1 - first)
        total[first : last + 1] += recomputed(function, values, parameters)
    return total


def _sum_of_chunk(
    message_sum: MessageSum, edges: EdgeGeometry, first_atom: int, n_atoms: int, x: Tensor, *values: Tensor
) -> Tensor:
    """`message_sum` as a function of the tensors that may need a gradient."""
    rotation, envelope, basis, *species = values
    edges = replace(edges, rotation=rotation, envelope=envelope, basis=basis, species=(species[0], species[1]))
    return message_sum(x, edges, first_atom, n_atoms)
