"""Rows of many structures in one tensor: which belong to which structure, and sums over the rows of each.

The numbers of rows are known on the host, so that nothing here waits for a device. Sums are taken in the order of the
rows, on every device: the same input gives the same bits.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor


def to_device(values: np.ndarray, device: torch.device) -> Tensor:
    """A tensor of an array, without waiting for the device.

    Parameters
    ----------
    values
        Array of any type and shape; it must not change afterwards.
    device
        torch device.

    Returns
    -------
    Tensor
        The values on the device.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor if device.type == "cpu" else sent(tensor, device)


def sent(tensor: Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor on another device and of another type; from the CPU to a GPU without waiting, by pinned memory.

    Parameters
    ----------
    tensor
        Tensor on any device; it must not change afterwards.
    device
        torch device.
    dtype
        Type of the result; None: that of the tensor.

    Returns
    -------
    Tensor
        The values; the same tensor where nothing changes.
    """
    tensor = tensor if dtype is None else tensor.to(dtype)
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def to_host(tensor: Tensor) -> np.ndarray:
    """An array of a tensor. The host waits here until the device has computed it.

    Parameters
    ----------
    tensor
        Tensor of any type and shape on any device.

    Returns
    -------
    np.ndarray
        The values.
    """
    return tensor.detach().cpu().numpy()


def on_host(tensor: Tensor) -> bool:
    """Whether the numbers of a tensor are an array of numpy without waiting for a device.

    Parameters
    ----------
    tensor
        Tensor on any device.

    Returns
    -------
    bool
        True on the CPU, for tensors that are not differentiated.
    """
    return tensor.device.type == "cpu" and not tensor.requires_grad


class Rows:
    """Which rows of a tensor belong to which structure.

    Parameters
    ----------
    counts
        (structures,) number of rows of each structure; the rows of a structure are consecutive.
    device
        torch device of the tensors.
    """

    def __init__(self, counts: np.ndarray | Sequence[int], device: torch.device | str = "cpu") -> None:
        self.counts, self.device = np.asarray(counts, dtype=np.int64), torch.device(device)
        self.starts = np.cumsum(self.counts) - self.counts

    @cached_property
    def total(self) -> int:
        """Number of rows."""
        return int(self.counts.sum())

    @cached_property
    def offsets(self) -> Tensor:
        """(structures + 1,) int64 first row of each structure, and the number of rows."""
        return to_device(np.append(self.starts, self.total), self.device)

    @cached_property
    def owner(self) -> Tensor:
        """(rows,) int64 structure of each row."""
        return to_device(np.repeat(np.arange(len(self.counts)), self.counts), self.device)

    def of(self, structures: Sequence[int] | np.ndarray) -> Tensor:
        """The rows of some structures.

        Parameters
        ----------
        structures
            Numbers of structures, in any order.

        Returns
        -------
        Tensor
            (rows of these,) int64 row numbers, in the order of `structures`.
        """
        chosen = np.asarray(structures, dtype=np.int64)
        counts = self.counts[chosen]
        first = np.cumsum(counts) - counts
        rows = np.repeat(self.starts[chosen] - first, counts) + np.arange(int(counts.sum()))
        return to_device(rows, self.device)

    def reduce(self, values: Tensor, operation: Literal["sum", "max", "min"] = "sum", initial: float = 0.0) -> Tensor:
        """Sum, maximum or minimum over the rows of each structure.

        Parameters
        ----------
        values
            (rows,) or (rows, k) floating-point values.
        operation
            What is computed.
        initial
            Where the operation starts: the result for structures without rows, and a bound of a maximum or minimum.

        Returns
        -------
        Tensor
            (structures,) or (structures, k).
        """
        if not len(self.counts):
            return values.new_zeros(0, *values.shape[1:])
        if operation != "sum" and values.ndim == 1 and self._by_numpy(values):
            extremum = np.maximum if operation == "max" else np.minimum
            return torch.from_numpy(extremum(extremum.reduceat(values.numpy(), self.starts), initial))
        # Without checks of the offsets, for which torch would wait for the device.
        return torch.segment_reduce(values, operation, offsets=self.offsets, unsafe=True, initial=initial)

    def count(self, mask: Tensor) -> Tensor:
        """How many rows of each structure are true.

        Parameters
        ----------
        mask
            (rows,) bool.

        Returns
        -------
        Tensor
            (structures,) float64 whole numbers.
        """
        if self._by_numpy(mask):
            return torch.from_numpy(np.add.reduceat(mask.numpy(), self.starts, dtype=np.float64))
        return self.reduce(mask.double())

    def _by_numpy(self, values: Tensor) -> bool:
        """Whether numpy, which is several times faster than torch on a CPU, can take the rows of each structure."""
        return on_host(values) and len(self.counts) > 0 and self._has_no_gap

    @cached_property
    def _has_no_gap(self) -> bool:
        return bool(self.counts.all())

    def dot(self, x: Tensor, y: Tensor) -> Tensor:
        """Inner products over the rows of each structure.

        Parameters
        ----------
        x, y
            (rows, 3).

        Returns
        -------
        Tensor
            (structures,).
        """
        return self.reduce(squared_sum(x, y))

    def longest(self, x: Tensor) -> Tensor:
        """Length of the longest row of each structure.

        Parameters
        ----------
        x
            (rows, 3).

        Returns
        -------
        Tensor
            (structures,).
        """
        return self.reduce(squared_sum(x, x), "max").sqrt()

    def spread(self, values: Tensor) -> Tensor:
        """The value of its structure for each row.

        Parameters
        ----------
        values
            (structures, ...).

        Returns
        -------
        Tensor
            (rows, ...), or (rows, 1) for one value per structure.
        """
        spread = values.index_select(0, self.owner)
        return spread.unsqueeze(1) if values.ndim == 1 else spread


def squared_sum(x: Tensor, y: Tensor) -> Tensor:
    """Inner product of each pair of rows; faster than torch's reduction of a dimension of three.

    Parameters
    ----------
    x, y
        (rows, 3).

    Returns
    -------
    Tensor
        (rows,).
    """
    product = x * y
    return product[:, 0] + product[:, 1] + product[:, 2]
