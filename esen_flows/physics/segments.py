"""Rows of many structures in one array, and reductions over the rows of each."""

import numpy as np


class Segments:
    """Which rows of an array belong to which structure.

    Parameters
    ----------
    counts
        (structures,) rows of each, at least one; those of one structure follow one another.
    """

    def __init__(self, counts: np.ndarray) -> None:
        self.counts = counts
        self.starts = np.concatenate(([0], np.cumsum(counts)[:-1])).astype(np.intp)
        self.owner = np.repeat(np.arange(len(counts)), counts)

    def dot(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(structures,) inner products of (rows, 3) with (rows, 3)."""
        return self._reduce(np.add, (x * y).sum(axis=1))

    def longest(self, x: np.ndarray) -> np.ndarray:
        """(structures,) length of the longest row of (rows, 3)."""
        return np.sqrt(self._reduce(np.maximum, (x * x).sum(axis=1)))

    def spread(self, values: np.ndarray) -> np.ndarray:
        """(rows, 1) of (structures,): the value of the structure that a row belongs to."""
        return values[self.owner][:, None]

    def of(self, keep: np.ndarray) -> np.ndarray:
        """(rows,) bool: the rows of the structures that `keep`, (structures,) bool, says."""
        return keep[self.owner]

    def _reduce(self, operation: np.ufunc, values: np.ndarray) -> np.ndarray:
        return operation.reduceat(values, self.starts) if len(self.counts) else np.zeros(0)
