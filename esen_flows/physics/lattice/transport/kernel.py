"""The compiled functions of `kernel.cpp` with the arrays that they read, and numpy where there is no compiler."""

import ctypes
from functools import cache
from typing import Any

import numpy as np
import torch

from esen_flows.native import NativeSource, load
from esen_flows.physics.lattice.transport.collisions import (
    Phonons,
    collision_sum,
    in_parts,
    integration_weights,
    interactions,
)
from esen_flows.physics.lattice.transport.grid import Grid, Triplets
from esen_flows.physics.lattice.transport.isotopes import isotope_sum, isotope_weights
from esen_flows.physics.lattice.transport.vertices import VertexTransform

LANES = 8  # tetrahedra in a vector of the source
NUMPY_BYTES = 64e6  # of the largest temporary array of the numpy version
# n: a number, p: an array. Both begin with five sizes and the eight arrays of the phonons.
_PHONONS = "nnnnn" + "pppppppp"
SIGNATURES = {"linewidths_of_point": _PHONONS + "nnnnn" + "pppppppp", "isotope_sums_of_point": _PHONONS + "n" + "ppp"}
SOURCE = NativeSource.beside(
    __file__, "kernel", "linewidths of phonons take as long as with phono3py", functions=tuple(SIGNATURES)
)


@cache
def _functions() -> dict[str, Any] | None:
    library = load(SOURCE)
    if library is None:
        return None
    functions = {name: getattr(library, name) for name in SIGNATURES}
    for name, function in functions.items():
        function.argtypes = [ctypes.c_int64 if letter == "n" else ctypes.c_void_p for letter in SIGNATURES[name]]
        function.restype = None
    return functions


def _call(function: Any, *arguments: "int | np.ndarray | torch.Tensor") -> None:
    """Pass arrays, which have to be contiguous, by their addresses; the interpreter is free meanwhile."""
    values = []
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            assert argument.flags.c_contiguous
            values.append(argument.ctypes.data)
        else:
            values.append(argument.data_ptr() if isinstance(argument, torch.Tensor) else argument)
    function(*values)


def _by_mode(vectors: np.ndarray) -> np.ndarray:
    """(size, mode, re/im, cartesian) of (size, cartesian, mode) complex: the order of the source."""
    return np.ascontiguousarray(np.stack([vectors.real, vectors.imag], axis=-1).transpose(0, 2, 3, 1))


class Kernel:
    """Sums over the triplets and over the isotopes of one q-point after another; threads may share it.

    Parameters
    ----------
    grid
        The grid.
    phonons
        Phonons on it.
    eigenvectors
        (size, n, n) with the mode as last index.
    """

    def __init__(self, grid: Grid, phonons: Phonons, eigenvectors: np.ndarray) -> None:
        self._grid, self._phonons, self._eigenvectors = grid, phonons, eigenvectors
        self._functions = _functions()
        if self._functions is None:
            return
        tetrahedra = phonons.tetrahedra
        padding = -len(tetrahedra.weights) % LANES
        self._vectors = _by_mode(eigenvectors)
        # Numbers and arrays in the order of `Phonons` in the source.
        self._arguments = (
            phonons.frequencies.shape[1],
            grid.size,
            len(tetrahedra.steps),
            len(tetrahedra.weights) + padding,
            len(phonons.occupations),
            np.ascontiguousarray(phonons.frequencies),
            _by_mode(phonons.modes),
            np.ascontiguousarray(phonons.occupations),
            np.ascontiguousarray(phonons.plus, dtype=np.int32),
            np.ascontiguousarray(phonons.minus, dtype=np.int32),
            np.ascontiguousarray(phonons.blocks, dtype=np.int32),
            np.ascontiguousarray(np.pad(tetrahedra.corners, ((0, padding), (0, 0))).T, dtype=np.int32),
            np.pad(tetrahedra.weights, (0, padding)),
        )

    def linewidths(
        self, transform: VertexTransform, partial: torch.Tensor, triplets: Triplets, bands: slice
    ) -> np.ndarray:
        """Linewidths of some modes of q0 in the unit of `collisions.linewidth_unit`.

        Parameters
        ----------
        transform
            The transform that made `partial`.
        partial
            (D1, D2, 2, box3, m, n, n) tensor of q0 in these modes.
        triplets
            All triplets of q0.
        bands
            The m modes.

        Returns
        -------
        np.ndarray
            (n_temperatures, n), zero for other modes.
        """
        result = np.zeros((len(self._phonons.occupations), transform.bands))
        if self._functions is None:
            for part in in_parts(triplets, max(1, int(NUMPY_BYTES / 16 / transform.bands**3))):
                squares = interactions(
                    partial.numpy(), transform.last_phases, transform.order, self._grid, part, self._phonons.modes
                )
                weights = integration_weights(self._phonons, part)[:, :, bands]
                result[:, bands] += collision_sum(self._phonons, part, squares, weights)
            return result
        address = self._grid.addresses[triplets.third][:, list(transform.order)]
        rows = address[:, 0] * transform.divisions[1] + address[:, 1]
        order = np.argsort(rows, kind="stable")  # what lies together in memory comes one after the other
        columns = (triplets.second, triplets.third, rows, address[:, 2])
        _call(
            self._functions["linewidths_of_point"],
            *self._arguments,
            triplets.first,
            bands.start,
            bands.stop - bands.start,
            transform.box[2],
            len(order),
            partial.contiguous(),
            transform.last_phases,
            *(np.ascontiguousarray(column[order], dtype=np.int64) for column in columns),
            np.ascontiguousarray(triplets.weights[order], dtype=np.float64),
            result,
        )
        return result

    def isotope_sums(self, point: int, variances: np.ndarray) -> np.ndarray:
        """Sums of weights, mass variances and overlaps of a q-point.

        Parameters
        ----------
        point
            Index of q0.
        variances
            (n_primitive,) relative mass variances.

        Returns
        -------
        np.ndarray
            (n,) in 1/THz, see `isotopes.isotope_sum`.
        """
        if self._functions is None:
            weights = isotope_weights(self._phonons, point)
            return isotope_sum(self._eigenvectors, variances, point, weights)
        sums = np.zeros(self._phonons.frequencies.shape[1])
        variances = np.ascontiguousarray(variances, dtype=np.float64)
        _call(self._functions["isotope_sums_of_point"], *self._arguments, point, self._vectors, variances, sums)
        return sums
