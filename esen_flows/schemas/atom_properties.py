"""What a structure may have beyond elements and places: masses of its own (isotopes), and coordinates that stay fixed.

They enter the structure key, and everything that carries a structure carries them. Where a structure has none, its key
and its documents are as if they did not exist.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_masses_legacy, chemical_symbols

from esen_flows.errors import StructureError

# Masses in u of the isotopes that have symbols of their own, to the digits that extended XYZ keeps. AME2020: Wang et
# al., Chinese Phys. C 45, 030003 (2021).
HYDROGEN_ISOTOPES = {"D": 2.01410178, "T": 3.01604928}
# Standard atomic weights of other years, which phonopy and pymatgen use and other programs write.
_OTHER_STANDARD_WEIGHTS = {
    "C": 12.0107, "S": 32.065, "Cl": 35.453, "Zn": 65.409, "Ge": 72.64, "Mo": 95.96, "Cd": 112.411, "Tl": 204.3833,
}  # fmt: skip
_SAME_WEIGHT_U = 1e-4  # less than the mass of any single isotope differs from the standard atomic weight


@dataclass(frozen=True)
class AtomProperties:
    """Masses and fixed coordinates of the atoms of a structure; each is None where no atom has one.

    Attributes
    ----------
    masses_u
        (n,) masses in u of the atoms that have one of their own, and 0 for atoms with that of the natural element.
    fixed_cartesian
        (n, 3) bool: Cartesian components x, y, z that stay as they are.
    fixed_fractional
        (n, 3) bool: components along the lattice vectors (fractional coordinates) that stay as they are, of atoms of
        which some components are free.
    """

    masses_u: np.ndarray | None = None
    fixed_cartesian: np.ndarray | None = None
    fixed_fractional: np.ndarray | None = None

    @classmethod
    def of_fields(cls, data: Mapping[str, Any]) -> "AtomProperties":
        """The properties in plain values.

        Parameters
        ----------
        data
            What `lists` or `fields` gave, possibly among other entries, which are ignored.

        Returns
        -------
        AtomProperties
            The properties.
        """
        kinds: dict[str, type] = {"masses_u": float, "fixed_cartesian": bool, "fixed_fractional": bool}
        found: dict[str, Any] = {
            name: np.asarray(data[name], dtype=kind) for name, kind in kinds.items() if data.get(name) is not None
        }
        return cls(**found)

    @property
    def is_constrained(self) -> bool:
        """Whether a coordinate is fixed."""
        return self.fixed_cartesian is not None or self.fixed_fractional is not None

    def fields(self) -> dict[str, np.ndarray]:
        """The properties that there are.

        Returns
        -------
        dict[str, np.ndarray]
            By the names of the attributes; empty for most structures.
        """
        return {name: value for name, value in vars(self).items() if value is not None}

    def lists(self) -> dict[str, list[Any]]:
        """The properties that there are, as plain values for JSON.

        Returns
        -------
        dict[str, list[Any]]
            Lists by the names of the attributes; empty for most structures.
        """
        return {name: value.tolist() for name, value in self.fields().items()}

    def attach(self, atoms: Atoms) -> Atoms:
        """Give these properties to a structure.

        Parameters
        ----------
        atoms
            Structure with the same atoms; it is changed.

        Returns
        -------
        Atoms
            The same structure.

        Raises
        ------
        StructureError
            The properties are those of another number of atoms.
        """
        if any(len(value) != len(atoms) for value in self.fields().values()):
            raise StructureError(f"masses or fixed coordinates are not those of the structure's {len(atoms)} atoms")
        if self.masses_u is not None:
            atoms.set_masses(np.where(self.masses_u > 0, self.masses_u, atomic_masses[atoms.numbers]))
        constraints: list[Any] = []
        for name in ("fixed_cartesian", "fixed_fractional"):
            if (fixed := getattr(self, name)) is not None:
                constraints += _by_mask(fixed, name)
        if constraints:
            atoms.set_constraint(constraints)
        return atoms


def properties_of(atoms: Atoms) -> AtomProperties:
    """Masses and fixed coordinates of an ASE structure, in one way of writing them.

    Parameters
    ----------
    atoms
        The structure, with ASE's masses and constraints.

    Returns
    -------
    AtomProperties
        The properties. A mass that is the standard atomic weight of the element counts as none.

    Raises
    ------
    StructureError
        A constraint does not fix components of single atoms, and cannot be obeyed.

    Examples
    --------
    >>> from ase.build import bulk
    >>> crystal = bulk("LiH", "rocksalt", a=4.08)
    >>> properties_of(crystal).fields()
    {}
    >>> crystal.set_masses([None, 2.0141])
    >>> properties_of(crystal).masses_u.tolist()
    [0.0, 2.0141]
    """
    cartesian, fractional = _fixed(atoms)
    return AtomProperties(
        masses_u=own_masses(atoms.numbers, atoms.arrays["masses"]) if atoms.has("masses") else None,
        fixed_cartesian=cartesian if cartesian.any() else None,
        fixed_fractional=fractional if fractional.any() else None,
    )


def own_masses(numbers: Sequence[int] | np.ndarray, masses: Sequence[float] | np.ndarray) -> np.ndarray | None:
    """Masses that are not the standard atomic weight of their element.

    Parameters
    ----------
    numbers
        (n,) atomic numbers.
    masses
        (n,) masses in u.

    Returns
    -------
    np.ndarray | None
        (n,) masses in u, 0 where a mass is the standard atomic weight; None if all are.
    """
    own = [0.0 if _is_standard(int(z), float(m)) else float(m) for z, m in zip(numbers, masses, strict=True)]
    return np.array(own) if any(own) else None


def species_numbers(numbers: np.ndarray, masses_u: np.ndarray | None) -> np.ndarray:
    """Numbers that tell atoms apart by element and mass, for symmetry searches.

    Parameters
    ----------
    numbers
        (n,) atomic numbers.
    masses_u
        (n,) own masses in u, 0 where there is none; None: no atom has one.

    Returns
    -------
    np.ndarray
        (n,) atomic numbers; where an element has several masses, each but the first gets the number of an element that
        is not in the structure.

    Raises
    ------
    StructureError
        There are more kinds of atoms than elements.
    """
    result = np.array(numbers)
    if masses_u is None:
        return result
    unused = [number for number in range(len(chemical_symbols) - 1, 0, -1) if number not in result]
    for number in np.unique(numbers):
        for mass in np.unique(masses_u[numbers == number])[1:]:
            if not unused:
                raise StructureError("the structure has more different masses than there are elements")
            result[(numbers == number) & (masses_u == mass)] = unused.pop()
    return result


def _is_standard(number: int, mass: float) -> bool:
    if not 0 < number < len(atomic_masses):
        return True  # not an element, which other checks refuse
    other = _OTHER_STANDARD_WEIGHTS.get(chemical_symbols[number])
    legacy = atomic_masses_legacy[number] if number < len(atomic_masses_legacy) else np.nan
    known = [atomic_masses[number], legacy, np.nan if other is None else other]
    if any(abs(mass - weight) < _SAME_WEIGHT_U for weight in known):
        return True
    decimals = len(repr(mass).partition(".")[2])  # many files round weights to two or three decimals
    return 2 <= decimals <= 4 and round(float(atomic_masses[number]), decimals) == mass


def _fixed(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Fixed Cartesian and fractional components, each (n, 3); atoms that are fixed altogether are in the first."""
    cartesian, fractional = np.zeros((len(atoms), 3), dtype=bool), np.zeros((len(atoms), 3), dtype=bool)
    if not atoms.constraints:
        return cartesian, fractional
    # These load much of SciPy: half of the time in which a command starts.
    from ase.constraints import FixAtoms, FixCartesian, FixedLine, FixedPlane, FixScaled

    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            cartesian[constraint.index] = True
        elif isinstance(constraint, FixCartesian):
            cartesian[constraint.index] |= constraint.mask
        elif isinstance(constraint, FixScaled):
            fractional[constraint.index] |= constraint.mask
        elif isinstance(constraint, FixedPlane | FixedLine) and (np.abs(constraint.dir) > 1 - 1e-12).any():
            along = np.abs(constraint.dir) > 1 - 1e-12
            cartesian[constraint.index] |= along if isinstance(constraint, FixedPlane) else ~along
        else:
            raise StructureError(
                f"{atoms.get_chemical_formula()} has a constraint {type(constraint).__name__}, which is not one of "
                "fixed atoms or components along the axes or lattice vectors; remove it: atoms.set_constraint()"
            )
    whole = cartesian.all(axis=1) | fractional.all(axis=1)
    cartesian[whole], fractional[whole] = True, False
    return cartesian, fractional


def _by_mask(fixed: np.ndarray, name: str) -> list[Any]:
    """Constraints of ASE: FixAtoms for atoms that are fixed altogether, else one for each combination."""
    from ase.constraints import FixAtoms, FixCartesian, FixScaled

    kind = FixCartesian if name == "fixed_cartesian" else FixScaled
    found: list[Any] = []
    for mask in np.unique(fixed[fixed.any(axis=1)], axis=0):
        indices = np.flatnonzero((fixed == mask).all(axis=1)).tolist()
        found.append(FixAtoms(indices) if mask.all() else kind(indices, mask.tolist()))
    return found
