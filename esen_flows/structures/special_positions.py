"""Thirds and sixths that a file rounds to three or four digits, put on the special positions that they mean."""

import numpy as np
from ase import Atoms

from esen_flows.structures.identity import symmetry_dataset

_SIXTHS = np.array([1, 2, 4, 5]) / 6
MOST_ATOMS = 1000  # symmetry searches of larger cells take minutes
SYMPREC_ANGSTROM = 1e-5  # phonopy's: rounded thirds break the symmetry, exact ones do not


def with_exact_thirds(atoms: Atoms, notes: list[str]) -> Atoms:
    """The structure with exact thirds and sixths where it is more symmetric with them.

    Parameters
    ----------
    atoms
        The structure as its file gives it.
    notes
        What was decided where the file leaves something open; a line is appended if the structure is changed.

    Returns
    -------
    Atoms
        The same structure, or a copy with other positions.
    """
    if not atoms.pbc.all() or atoms.cell.rank < 3 or len(atoms) > MOST_ATOMS:
        return atoms
    fractions = atoms.cell.scaled_positions(atoms.positions)
    rounded, exact = _rounded_thirds(fractions)
    if not rounded.any():
        return atoms
    result = atoms.copy()
    result.positions = np.where(rounded, exact, fractions) @ atoms.cell.array
    before, after = (symmetry_dataset(each, SYMPREC_ANGSTROM) for each in (atoms, result))
    if before is None or after is None or len(after.rotations) <= len(before.rotations):
        return atoms
    values = ", ".join(f"{value:g}" for value in np.unique(np.round(fractions[rounded], 4) % 1.0)[:6])
    notes.append(
        f"the coordinates {values} were read as thirds or sixths, with which the crystal has {len(after.rotations)} "
        f"symmetry operations instead of {len(before.rotations)}"
    )
    return result


def _rounded_thirds(fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which coordinates are thirds or sixths rounded to three or four digits, and the exact values of all."""
    inside = fractions % 1.0
    nearest = _SIXTHS[np.abs(inside[..., None] - _SIXTHS).argmin(axis=-1)]
    found = np.zeros(fractions.shape, dtype=bool)
    for digits in (3, 4):
        unit = 10.0**-digits
        # Also cut off instead of rounded: 0.666.
        is_short = np.abs(inside / unit - np.round(inside / unit)) < 1e-6
        found |= is_short & (np.abs(inside - nearest) < unit)
    return found, fractions - inside + nearest
