"""Relaxed structures against DFT's: distance of the atoms, and change of the space group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from esen_flows.errors import InputError

# What a pair of structures that do not match counts as.
NO_MATCH_RMSD = 1.0
# The leaderboard's tolerances of symmetry in Angstrom, as it writes them.
TOLERANCES = ("1e-2", "1e-5")


@dataclass(frozen=True)
class Symmetry:
    """Symmetry of one structure at one tolerance.

    Attributes
    ----------
    space_group
        Number of the space group.
    n_operations
        Number of symmetry operations of the cell.
    """

    space_group: int
    n_operations: int


@dataclass(frozen=True)
class GeometryRow:
    """Comparison of one relaxed structure with DFT's.

    Attributes
    ----------
    rmsd
        Root mean square displacement in units of (volume per atom)^(1/3); None where the structures do not match.
    predicted
        Symmetry of the relaxed structure; None where it could not be found.
    reference
        Symmetry of DFT's structure; None where it could not be found.
    """

    rmsd: float | None
    predicted: Symmetry | None
    reference: Symmetry | None


def structure_rmsd(predicted: Structure, reference: Structure) -> float | None:
    """Root mean square displacement of the atoms after the best alignment, without scaling the volumes.

    Parameters
    ----------
    predicted
        Structure that the force field relaxed.
    reference
        Structure that DFT relaxed.

    Returns
    -------
    float or None
        Distance in units of (volume per atom)^(1/3); None where the structures do not match.
    """
    found = StructureMatcher(stol=1.0, scale=False).get_rms_dist(predicted, reference)
    return None if found is None else float(found[0])


def symmetry(structure: Structure, symprec_angstrom: float) -> Symmetry | None:
    """Symmetry of a structure by moyopy, which the leaderboard uses.

    Parameters
    ----------
    structure
        Structure.
    symprec_angstrom
        Tolerance in Angstrom: the leaderboard has 1e-2 and 1e-5.

    Returns
    -------
    Symmetry or None
        None where no symmetry can be found.

    Raises
    ------
    InputError
        moyopy is not installed.
    """
    try:
        from moyopy import Cell, MoyoDataset
    except ImportError:
        raise InputError(
            "symmetry as the leaderboard finds it needs moyopy: pip install 'esen_flows[symmetry]'"
        ) from None
    cell = Cell(
        basis=structure.lattice.matrix.tolist(),
        positions=structure.frac_coords.tolist(),
        numbers=[site.specie.Z for site in structure],
    )
    try:
        dataset = MoyoDataset(cell, symprec=symprec_angstrom)
    except ValueError:
        return None
    return Symmetry(int(dataset.number), len(dataset.operations))


def compare_structures(predicted: Structure, reference: Structure) -> dict[str, GeometryRow]:
    """Comparison of a relaxed structure with DFT's.

    Parameters
    ----------
    predicted
        Structure that the force field relaxed.
    reference
        Structure that DFT relaxed.

    Returns
    -------
    dict
        Distance and symmetries by tolerance, for each of `TOLERANCES`.

    Raises
    ------
    InputError
        moyopy is not installed.
    """
    rmsd = structure_rmsd(predicted, reference)
    return {
        name: GeometryRow(rmsd, symmetry(predicted, float(name)), symmetry(reference, float(name)))
        for name in TOLERANCES
    }


def flat_geometry_metrics(rows: Mapping[str, Sequence[GeometryRow]]) -> dict[str, float]:
    """Metrics of the geometry task under the names of the table of published results, such as `rmsd_1e-2`.

    Parameters
    ----------
    rows
        Comparisons of the relaxed structures, by tolerance.

    Returns
    -------
    dict
        Metrics of `geometry_metrics` with the tolerance behind their names; empty without structures.
    """
    return {
        f"{name}_{tolerance}": value
        for tolerance, found in rows.items()
        if found
        for name, value in geometry_metrics(found).items()
    }


def geometry_metrics(rows: Sequence[GeometryRow]) -> dict[str, float]:
    """Metrics of the geometry task, under the keys of the leaderboard's model cards.

    Parameters
    ----------
    rows
        Comparisons of the structures that were relaxed. The leaderboard does not count structures without a row.

    Returns
    -------
    dict
        "rmsd" (a pair without a match counts as 1), "n_sym_ops_mae", "symmetry_decrease", "symmetry_match" and
        "symmetry_increase" (fractions: another space group with fewer operations, the same space group, another with
        more), and "n_structures" with a symmetry.

    Raises
    ------
    InputError
        There is no row.
    """
    if not rows:
        raise InputError("no relaxed structure to compare")
    pairs = [(row.predicted, row.reference) for row in rows if row.predicted and row.reference]
    change = np.array([ours.n_operations - theirs.n_operations for ours, theirs in pairs], dtype=float)
    same = np.array([ours.space_group == theirs.space_group for ours, theirs in pairs], dtype=bool)
    return {
        "rmsd": float(np.mean([NO_MATCH_RMSD if row.rmsd is None else row.rmsd for row in rows])),
        "n_sym_ops_mae": _mean(np.abs(change)),
        "symmetry_decrease": _mean(~same & (change < 0)),
        "symmetry_match": _mean(same),
        "symmetry_increase": _mean(~same & (change > 0)),
        "n_structures": float(len(pairs)),
    }


def _mean(values: NDArray[np.float64] | NDArray[np.bool_]) -> float:
    return float(values.mean()) if values.size else float("nan")


def cumulative_distances(rmsd: Sequence[float | None], n_points: int = 100) -> tuple[list[float], list[float], float]:
    """Cumulative distribution of the distances between 0 and 0.15, as the leaderboard draws it.

    Parameters
    ----------
    rmsd
        Distance of each structure; None for no match.
    n_points
        Number of points of the curve.

    Returns
    -------
    tuple
        Distances, fraction of the structures below each, and the area under the curve divided by 0.15.
    """
    values = np.array([NO_MATCH_RMSD if value is None else value for value in rmsd], dtype=float)
    grid = np.linspace(0, 0.15, n_points)
    fraction = np.array([(values <= limit).mean() for limit in grid]) if values.size else np.zeros(n_points)
    return grid.tolist(), fraction.tolist(), float(np.trapezoid(fraction, grid) / 0.15)
