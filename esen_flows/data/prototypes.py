"""Perfect crystals of the structure types that recipes name, with one or two elements."""

from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii

from esen_flows.errors import InputError

# Number of elements of each structure type.
PROTOTYPES = {
    "diamond": 1,
    "hexagonal_diamond": 1,
    "beta_tin": 1,
    "fcc": 1,
    "bcc": 1,
    "sc": 1,
    "rocksalt": 2,
    "zincblende": 2,
    "wurtzite": 2,
}
_NOT_CUBIC = ("hexagonal_diamond", "beta_tin", "wurtzite")
# The lattice constant over the length of a bond, of the structure types whose geometry a force field can be asked for.
LATTICE_OVER_BOND = {"diamond": 4 / 3**0.5, "zincblende": 4 / 3**0.5, "rocksalt": 2.0, "wurtzite": (8 / 3) ** 0.5}


@dataclass(frozen=True)
class Crystal:
    """A crystal with its equilibrium geometry.

    Attributes
    ----------
    name
        Name of the crystal, such as "GaN_wurtzite".
    prototype
        One of PROTOTYPES.
    species
        One or two chemical symbols; of two, the first is at the origin.
    lattice_angstrom
        Lattice constant a in Angstrom: edge of the cubic cell, or of the hexagonal or tetragonal base. None: unknown,
        to be found by a relaxation.
    c_over_a
        Ratio c/a of hexagonal_diamond, beta_tin and wurtzite; None for the ideal one (0.55 for beta_tin).
    u
        Internal parameter of wurtzite, the length of the bond along c over c; None for bonds of equal length.
    """

    name: str
    prototype: str
    species: tuple[str, ...]
    lattice_angstrom: float | None
    c_over_a: float | None = None
    u: float | None = None


def perfect(crystal: Crystal, cubic: bool = False) -> Atoms:
    """The primitive cell of a crystal, or its cubic cell.

    Parameters
    ----------
    crystal
        The crystal.
    cubic
        Whether the conventional cubic cell is made.

    Returns
    -------
    Atoms
        The cell, periodic in three directions.

    Raises
    ------
    InputError
        The prototype is unknown or has no cubic cell, the number of species is wrong, or the lattice constant is
        unknown or not positive.

    Examples
    --------
    >>> perfect(Crystal("GaAs", "zincblende", ("Ga", "As"), 5.65), cubic=True).get_chemical_formula()
    'As4Ga4'
    """
    name, prototype, a = crystal.name, crystal.prototype, crystal.lattice_angstrom
    if prototype not in PROTOTYPES:
        raise InputError(f"{name!r}: unknown prototype {prototype!r}; known are {list(PROTOTYPES)}")
    if len(crystal.species) != PROTOTYPES[prototype]:
        raise InputError(f"{name!r}: {prototype} takes {PROTOTYPES[prototype]} species, got {list(crystal.species)}")
    if a is None:
        raise InputError(
            f"{name!r} has no lattice_angstrom; give one, or make the structures with `esen-flows label`, which "
            "relaxes the crystal with the labelling force field"
        )
    if a <= 0.0:
        raise InputError(f"{name!r}: lattice_angstrom must be positive, got {a}")
    if not 1.0 <= a <= 100.0:
        raise InputError(f"{name!r}: lattice_angstrom must be from 1 to 100, got {a:g}; no crystal has another one")
    if cubic and prototype in _NOT_CUBIC:
        raise InputError(f"{name!r}: {prototype} has no cubic cell; leave cubic out")
    if prototype == "beta_tin":
        return _beta_tin(crystal.species[0], a, crystal.c_over_a or 0.55)
    if prototype == "hexagonal_diamond":
        return _hexagonal_diamond(crystal.species[0], a, crystal.c_over_a or float(np.sqrt(8 / 3)))
    symbols = "".join(crystal.species)
    if prototype == "wurtzite":
        return bulk(symbols, prototype, a=a, covera=crystal.c_over_a or float(np.sqrt(8 / 3)), u=crystal.u)
    return bulk(symbols, prototype, a=a, cubic=cubic and prototype != "sc")


def guessed(crystal: Crystal) -> Crystal:
    """A crystal with bonds as long as the sum of covalent radii, from which a relaxation can start.

    Parameters
    ----------
    crystal
        Crystal of any geometry.

    Returns
    -------
    Crystal
        The crystal with ideal c/a and u, and with no number of a table of lattice constants.

    Raises
    ------
    InputError
        There is no such guess for the prototype, or `perfect` refuses the crystal.
    """
    if crystal.prototype not in LATTICE_OVER_BOND:
        raise InputError(
            f"{crystal.name!r}: give lattice_angstrom; it is found by relaxation for {list(LATTICE_OVER_BOND)} only"
        )
    pair = (crystal.species[0], crystal.species[-1])
    bond = sum(float(covalent_radii[atomic_numbers[symbol]]) for symbol in pair)
    lattice = bond * LATTICE_OVER_BOND[crystal.prototype]
    found = replace(crystal, lattice_angstrom=lattice, c_over_a=None, u=None)
    perfect(found)
    return found


def with_geometry_of(crystal: Crystal, atoms: Atoms) -> Crystal:
    """A crystal with the lattice constant of a primitive cell, and with c/a and u for wurtzite.

    Parameters
    ----------
    crystal
        Crystal of a prototype in `LATTICE_OVER_BOND`.
    atoms
        Primitive cell with the order of atoms of `perfect`.

    Returns
    -------
    Crystal
        The crystal with this geometry.
    """
    if crystal.prototype != "wurtzite":
        return replace(crystal, lattice_angstrom=float(np.cbrt(4.0 * atoms.get_volume())))
    a, _, c = (float(length) for length in atoms.cell.lengths())
    z = atoms.get_scaled_positions()[:, 2]
    u = float(np.mean([(z[0] - z[3]) % 1.0, (z[2] - z[1]) % 1.0]))
    return replace(crystal, lattice_angstrom=a, c_over_a=c / a, u=u)


def _beta_tin(element: str, a: float, c_over_a: float) -> Atoms:
    """I4_1/amd, site 4a; conventional tetragonal cell of four atoms."""
    scaled = [[0, 0, 0], [0.5, 0, 0.25], [0.5, 0.5, 0.5], [0, 0.5, 0.75]]
    return Atoms(f"{element}4", scaled_positions=scaled, cell=[a, a, a * c_over_a], pbc=True)


def _hexagonal_diamond(element: str, a: float, c_over_a: float) -> Atoms:
    """P6_3/mmc, site 4f with the ideal z = 1/16; four atoms."""
    cell = [[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, a * c_over_a]]
    scaled = [[1 / 3, 2 / 3, z] for z in (1 / 16, 7 / 16)] + [[2 / 3, 1 / 3, z] for z in (9 / 16, 15 / 16)]
    return Atoms(f"{element}4", scaled_positions=scaled, cell=cell, pbc=True)
