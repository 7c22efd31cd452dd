"""Sums of messages by torch's own operations, on any device and to any order of derivatives."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from esen_flows.network.esen.edges import EdgeGeometry
from esen_flows.network.esen.layers import EdgeDegreeEmbedding, Layer
from esen_flows.network.recompute import recomputed

# A part of a network that sends messages along edges.
EdgePart = EdgeDegreeEmbedding | Layer
# (features of all atoms, edges, first atom, number of atoms) -> messages summed at these atoms.
MessageSum = Callable[[Tensor, EdgeGeometry, int, int], Tensor]


def message_sum(part: EdgePart, x: Tensor, edges: EdgeGeometry, first_atom: int, n_atoms: int) -> Tensor:
    """Sums of the messages of one part at their targets.

    Parameters
    ----------
    part
        Part of the network.
    x
        (atoms, coefficients, channels) normed node features.
    edges
        The edges.
    first_atom, n_atoms
        Range of atoms that contains all targets.

    Returns
    -------
    Tensor
        (n_atoms, coefficients, channels).
    """
    values = part.messages(x, edges).to(x.dtype)  # under autocast, messages have a lower precision than features
    index = edges.target - first_atom if first_atom else edges.target
    return x.new_zeros(n_atoms, *x.shape[1:]).index_add(0, index, values)


def sum_in_chunks(
    one_sum: MessageSum, x: Tensor, *, chunks: Sequence[EdgeGeometry], parameters: Sequence[Tensor] = ()
) -> Tensor:
    """Sums of messages at all atoms, holding the intermediate values of one chunk of edges at a time.

    With several chunks, the values that a gradient needs are recomputed in the backward pass, and so are those that the
    gradient of this gradient needs.

    Parameters
    ----------
    one_sum
        Computes the sums of one chunk.
    x
        (atoms, coefficients, channels) node features.
    chunks
        The edges, sorted by target if there are several chunks.
    parameters
        Parameters that `one_sum` reads and that may get a gradient.

    Returns
    -------
    Tensor
        (atoms, coefficients, channels).
    """
    if len(chunks) == 1:
        return one_sum(x, chunks[0], 0, len(x))
    total = torch.zeros_like(x)
    for edges in chunks:
        # Edges are sorted by target, so that the sums of a chunk concern few atoms, and only these sums are kept.
        first, last = edges.targets or (int(edges.target.min()), int(edges.target.max()))
        values = (x, edges.rotation, edges.envelope, edges.basis, *edges.species)
        function = partial(_sum_of_chunk, one_sum, edges, first, last + 1 - first)
        total[first : last + 1] += recomputed(function, values, parameters)
    return total


def _sum_of_chunk(
    one_sum: MessageSum, edges: EdgeGeometry, first_atom: int, n_atoms: int, x: Tensor, *values: Tensor
) -> Tensor:
    """`one_sum` as a function of the tensors that may need a gradient."""
    rotation, envelope, basis, *species = values
    edges = replace(edges, rotation=rotation, envelope=envelope, basis=basis, species=(species[0], species[1]))
    return one_sum(x, edges, first_atom, n_atoms)
