"""Linewidths of the modes of one q-point in numpy: the same steps as in `kernel.cpp`, under the same names."""

from dataclasses import dataclass

import numpy as np
from phonopy.physical_units import get_physical_units

from esen_flows.physics.lattice.transport.grid import Grid, Triplets
from esen_flows.physics.lattice.transport.tetrahedra import Tetrahedra, spline

# Modes below do not scatter, and modes closer than this are taken as degenerate: phono3py's values.
CUTOFF_THZ = 1e-4
DEGENERACY_THZ = 1e-4


@dataclass(frozen=True)
class Phonons:
    """Phonons on a grid, and what is the same for all triplets.

    Attributes
    ----------
    frequencies
        (size, n) in THz, ascending at each point.
    modes
        (size, n, n) complex in the lattice-periodic gauge, see `vertices.periodic_modes`.
    occupations
        (n_temperatures, size, n) Bose-Einstein, zero below the cutoff.
    plus
        (size, n_steps) indices of the points at a step of the tetrahedra.
    minus
        (size, n_steps) indices of the points at minus that step.
    blocks
        (size, n) index of the first band of the degenerate set that a band belongs to.
    tetrahedra
        The tetrahedra around a point.
    """

    frequencies: np.ndarray
    modes: np.ndarray
    occupations: np.ndarray
    plus: np.ndarray
    minus: np.ndarray
    blocks: np.ndarray
    tetrahedra: Tetrahedra


def phonons_on_grid(
    grid: Grid, tetrahedra: Tetrahedra, frequencies: np.ndarray, modes: np.ndarray, temperatures: np.ndarray
) -> Phonons:
    """Tables of occupations, neighbours and degenerate sets.

    Parameters
    ----------
    grid
        The grid.
    tetrahedra
        Its different tetrahedra.
    frequencies
        (size, n) in THz.
    modes
        (size, n, n) in the lattice-periodic gauge.
    temperatures
        (n_temperatures,) in K.

    Returns
    -------
    Phonons
        The tables, with the phonons.
    """
    steps = tetrahedra.steps[None]
    return Phonons(
        frequencies,
        modes,
        np.stack([occupation(frequencies, temperature) for temperature in temperatures]),
        grid.indices(grid.addresses[:, None] + steps),
        grid.indices(grid.addresses[:, None] - steps),
        degenerate_blocks(frequencies),
        tetrahedra,
    )


def occupation(frequencies: np.ndarray, temperature: float) -> np.ndarray:
    """Bose-Einstein occupation.

    Parameters
    ----------
    frequencies
        In THz.
    temperature
        In K.

    Returns
    -------
    np.ndarray
        Of the shape of the frequencies; zero at 0 K and below the cutoff.
    """
    units = get_physical_units()
    if temperature <= 0:
        return np.zeros_like(frequencies)
    moves = frequencies > CUTOFF_THZ
    energies = np.where(moves, frequencies, 1.0) * units.THzToEv
    with np.errstate(over="ignore"):
        return np.where(moves, 1.0 / np.expm1(energies / (units.KB * temperature)), 0.0)


def degenerate_blocks(frequencies: np.ndarray) -> np.ndarray:
    """First band of each band's degenerate set; sets are chains of bands of which neighbours are closer than the limit.

    Parameters
    ----------
    frequencies
        (..., n) in THz, ascending.

    Returns
    -------
    np.ndarray
        (..., n) integers.
    """
    n = frequencies.shape[-1]
    begins = np.concatenate(
        [np.ones((*frequencies.shape[:-1], 1), dtype=bool), np.diff(frequencies, axis=-1) >= DEGENERACY_THZ], axis=-1
    )
    return np.maximum.accumulate(np.where(begins, np.arange(n), 0), axis=-1)


def averaging(blocks: np.ndarray) -> np.ndarray:
    """Matrices that replace values of bands by the means of their degenerate sets.

    Parameters
    ----------
    blocks
        (..., n) as `degenerate_blocks` gives them.

    Returns
    -------
    np.ndarray
        (..., n, n).
    """
    same = blocks[..., :, None] == blocks[..., None, :]
    return np.asarray(same / same.sum(axis=-1, keepdims=True))


def linewidth_unit(size: int) -> float:
    """Factor from |V|^2 g, in eV^2 Angstrom^-6 u^-3 THz^-3 THz^-1, to a linewidth in THz.

    gamma = 18 pi / hbar^2 sum |Phi|^2 delta(omega), with |Phi|^2 = hbar^3 / (36 8 N) |V|^2, and linewidth and delta
    function in THz instead of angular frequencies.

    Parameters
    ----------
    size
        Number of grid points.

    Returns
    -------
    float
        The factor, with the constants that phonopy uses.
    """
    units = get_physical_units()
    angular = 2 * np.pi * units.THz
    strength = (units.EV / units.Angstrom**3) ** 2 / (units.AMU**3 * angular**3)
    hbar = units.Hbar * units.EV
    return float(18 * np.pi * hbar / (36 * 8 * size) * strength / angular**2)


def interactions(
    twice: np.ndarray,
    last_phases: np.ndarray,
    order: tuple[int, ...],
    grid: Grid,
    triplets: Triplets,
    modes: np.ndarray,
) -> np.ndarray:
    """Squared moduli of the interaction of all modes of the triplets.

    Parameters
    ----------
    twice
        (D1, D2, 2, box3, m, n, n) as `VertexTransform.to_grid` gives it.
    last_phases
        (D3, 2, box3) phases of the axis that is left.
    order
        The axes of the grid in the order of `twice`.
    grid
        The grid.
    triplets
        (t) triplets of the q-point.
    modes
        (size, n, n) in the lattice-periodic gauge.

    Returns
    -------
    np.ndarray
        (t, m, n, n) in eV^2 Angstrom^-6 u^-3 THz^-3.
    """
    address = grid.addresses[triplets.third][:, list(order)]
    phases = last_phases[:, 0] + 1j * last_phases[:, 1]
    partial = twice[address[:, 0], address[:, 1]]
    tensor = np.einsum("tr,trabc->tabc", phases[address[:, 2]], partial[:, 0] + 1j * partial[:, 1])
    return np.asarray(
        np.abs(np.einsum("tabc,tbs,tcu->tasu", tensor, modes[triplets.second], modes[triplets.third], optimize=True))
        ** 2
    )


def integration_weights(phonons: Phonons, triplets: Triplets) -> np.ndarray:
    """Weights of the tetrahedron method for the three delta functions, averaged over degenerate modes of q1 and q2.

    Parameters
    ----------
    phonons
        Phonons on the grid.
    triplets
        (t) triplets of a q-point.

    Returns
    -------
    np.ndarray
        (2, t, n, n, n) in 1/THz: delta(w0 - w1 - w2), and delta(w0 + w1 - w2) - delta(w0 - w1 + w2).
    """
    frequencies, tetrahedra = phonons.frequencies, phonons.tetrahedra
    n = frequencies.shape[1]
    at_first = frequencies[triplets.first]
    at_second = frequencies[phonons.plus[triplets.second]]
    at_third = frequencies[phonons.minus[triplets.third]]
    weights = np.zeros((2, len(triplets.second), n, n, n))
    for s1 in range(n):
        for s2 in range(n):
            total = at_third[:, :, s2] + at_second[:, :, s1]
            difference = at_third[:, :, s2] - at_second[:, :, s1]
            for s0, x in enumerate(at_first):
                for kind, values, y, sign in ((0, total, x, 1), (1, difference, x, 1), (1, difference, -x, -1)):
                    reached = (values.min(axis=1) < y) & (values.max(axis=1) > y)
                    if reached.any():
                        found = values[reached]
                        splines = spline(y, found[:, :1], found[:, tetrahedra.corners])
                        weights[kind, reached, s0, s1, s2] += sign * (splines @ tetrahedra.weights)
    second, third = averaging(phonons.blocks[triplets.second]), averaging(phonons.blocks[triplets.third])
    return np.einsum("ktasu,tsp,tuv->ktapv", weights, second, third, optimize=True)


def collision_sum(phonons: Phonons, triplets: Triplets, squares: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Linewidths in the unit of `linewidth_unit`, not yet averaged over degenerate modes of q0.

    Parameters
    ----------
    phonons
        Phonons on the grid.
    triplets
        (t) triplets of a q-point.
    squares
        (t, n, n, n) squared interactions.
    weights
        (2, t, n, n, n) integration weights in 1/THz.

    Returns
    -------
    np.ndarray
        (n_temperatures, n).
    """
    second = phonons.occupations[:, triplets.second][:, :, :, None]
    third = phonons.occupations[:, triplets.third][:, :, None, :]
    count = triplets.weights
    decay = np.einsum("t,tasu,Ttsu->Ta", count, squares * weights[0], second + third + 1.0, optimize=True)
    return np.asarray(decay + np.einsum("t,tasu,Ttsu->Ta", count, squares * weights[1], second - third, optimize=True))


def in_parts(triplets: Triplets, size: int) -> list[Triplets]:
    """The triplets in parts of bounded size.

    Parameters
    ----------
    triplets
        Triplets of a q-point.
    size
        The largest number in a part.

    Returns
    -------
    list of Triplets
        In the same order.
    """
    cuts = range(size, len(triplets.second), size)
    columns = (np.split(column, cuts) for column in (triplets.second, triplets.third, triplets.weights))
    return [Triplets(triplets.first, *part) for part in zip(*columns, strict=True)]
