"""Rows of many structures in one array, and reductions over the rows of each structure."""

import numpy as np


class Segments:
    """Which rows of an array belong to which structure.

    Parameters
    ----------
    counts
        (structures,) rows of each structure, at least one; the rows of a structure are consecutive.
    """

    def __init__(self, counts: np.ndarray) -> None:
        self.counts = counts
        self.starts = np.concatenate(([0], np.cumsum(counts)[:-1])).astype(np.intp)
        self.owner = np.repeat(np.arange(len(counts)), counts)

    def dot(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Inner products over the rows of each structure.

        Parameters
        ----------
        x, y
            (rows, 3).

        Returns
        -------
        np.ndarray
            (structures,).
        """
        return self._reduce(np.add, (x * y).sum(axis=1))

    def longest(self, x: np.ndarray) -> np.ndarray:
        """Length of the longest row of each structure.

        Parameters
        ----------
        x
            (rows, 3).

        Returns
        -------
        np.ndarray
            (structures,).
        """
        return np.sqrt(self._reduce(np.maximum, (x * x).sum(axis=1)))

    def spread(self, values: np.ndarray) -> np.ndarray:
        """The value of its structure for each row.

        Parameters
        ----------
        values
            (structures,).

        Returns
        -------
        np.ndarray
            (rows, 1).
        """
        return values[self.owner][:, None]

    def of(self, keep: np.ndarray) -> np.ndarray:
        """The rows of selected structures.

        Parameters
        ----------
        keep
            (structures,) bool.

        Returns
        -------
        np.ndarray
            (rows,) bool.
        """
        return keep[self.owner]

    def _reduce(self, operation: np.ufunc, values: np.ndarray) -> np.ndarray:
        return operation.reduceat(values, self.starts) if len(self.counts) else np.zeros(0)
