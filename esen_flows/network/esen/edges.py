"""The edges of a batch as all layers of an eSEN see them."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor


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
    targets
        First and last target, where this is one of several parts of sorted edges.
    """

    source: Tensor
    target: Tensor
    rotation: Tensor
    envelope: Tensor
    basis: Tensor
    species: tuple[Tensor, Tensor]
    charge_spin: Tensor | None
    targets: tuple[int, int] | None = None

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
        parts = list(zip(*columns, strict=True))
        # The ranges of all parts are read at once: each read waits for a GPU, and all layers share these parts.
        ends = torch.stack([torch.stack((part[1][0], part[1][-1])) for part in parts]).tolist()
        return [
            replace(self, targets=(first, last), **dict(zip(names, part, strict=True)))
            for part, (first, last) in zip(parts, ends, strict=True)
        ]
