"""Conversion of structures: to ASE Atoms, and to the small dictionaries of plain numbers that jobs carry."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from esen_flows.errors import StructureError
from esen_flows.schemas.atom_properties import HYDROGEN_ISOTOPES, AtomProperties, properties_of

if TYPE_CHECKING:
    from pymatgen.core import Molecule, Structure


def is_pymatgen(value: Any) -> bool:
    """Whether a value is a pymatgen Structure or Molecule, without an import of pymatgen.

    Parameters
    ----------
    value
        Any value.

    Returns
    -------
    bool
        True if it has sites with Cartesian coordinates as pymatgen's structures have them.
    """
    return hasattr(value, "cart_coords") and hasattr(value, "is_ordered")


def as_atoms(structure: "Atoms | Structure | Molecule") -> Atoms:
    """ASE Atoms of an ASE or pymatgen structure, with its order of atoms.

    Parameters
    ----------
    structure
        ASE Atoms, which are returned as they are, or a pymatgen Structure or Molecule.

    Returns
    -------
    Atoms
        The structure; `info["charge"]` is the total charge where a pymatgen structure has one. Its isotopes D and T and
        its site properties "selective_dynamics", "fixed_cartesian" and "masses_u" are masses and constraints of ASE.
        A Molecule has no cell.

    Raises
    ------
    StructureError
        The value is none of these, or a pymatgen structure has partially occupied sites or dummy atoms.
    """
    if isinstance(structure, Atoms):
        return structure
    if not is_pymatgen(structure):
        raise StructureError(
            f"a structure must be ASE Atoms, a pymatgen Structure or the path of a structure file, got "
            f"{type(structure).__name__}{_hint(structure)}"
        )
    if not structure.is_ordered:
        raise StructureError(f"{structure.formula} has partially occupied sites; give an ordered structure")
    # The name of an isotope is D or T, its symbol H.
    symbols = [str(getattr(site.specie, "name", site.specie.symbol)) for site in structure]
    dummies = sorted(set(symbols) - set(chemical_symbols[1:]) - HYDROGEN_ISOTOPES.keys())
    if dummies:
        raise StructureError(f"{structure.formula} has sites that are not elements ({', '.join(dummies)}); remove them")
    lattice = getattr(structure, "lattice", None)
    numbers = [atomic_numbers["H" if symbol in HYDROGEN_ISOTOPES else symbol] for symbol in symbols]
    periodic = {} if lattice is None else {"cell": lattice.matrix, "pbc": lattice.pbc}
    atoms = Atoms(numbers, positions=structure.cart_coords, **periodic)
    _site_properties(structure, symbols).attach(atoms)
    charge = structure.as_dict()["charge"]  # as given; `.charge` would sum guessed oxidation states
    if charge:
        atoms.info["charge"] = float(charge)
    return atoms


def to_pymatgen(atoms: Atoms) -> "Structure | Molecule":
    """A structure as a pymatgen object, with its charge, isotopes and fixed coordinates.

    Parameters
    ----------
    atoms
        Structure of any periodicity.

    Returns
    -------
    Structure or Molecule
        Atoms in the same order; a Molecule if no direction is periodic. Deuterium and tritium are pymatgen's elements D
        and T. The site properties "selective_dynamics" (along the lattice vectors), "fixed_cartesian" and "masses_u"
        are there where they are needed; `as_atoms` reads them.

    Raises
    ------
    StructureError
        A constraint does not fix components of single atoms.

    Examples
    --------
    >>> from ase.build import bulk
    >>> to_pymatgen(bulk("GaAs", "zincblende", a=5.65)).composition.reduced_formula
    'GaAs'
    """
    from pymatgen.core import Lattice, Molecule, Structure

    properties = properties_of(atoms)
    symbols, charge = atoms.get_chemical_symbols(), atoms.info.get("charge")
    sites: dict[str, list[Any]] = {}
    if properties.masses_u is not None:
        sites["masses_u"] = properties.masses_u.tolist()
        symbols = [_isotope(*pair) for pair in zip(symbols, properties.masses_u, strict=True)]
    if properties.is_constrained:
        none = np.zeros((len(atoms), 3), dtype=bool)
        cartesian = none if properties.fixed_cartesian is None else properties.fixed_cartesian
        fractional = none if properties.fixed_fractional is None else properties.fixed_fractional
        whole = cartesian.all(axis=1, keepdims=True)
        sites["selective_dynamics"] = (~(fractional | whole)).tolist()
        if (cartesian & ~whole).any():
            sites["fixed_cartesian"] = cartesian.tolist()
    if not atoms.pbc.any():
        return Molecule(symbols, atoms.positions, charge=charge or 0.0, site_properties=sites or None)
    lattice = Lattice(atoms.cell.array, pbc=tuple(atoms.pbc.tolist()))
    return Structure(
        lattice, symbols, atoms.positions, coords_are_cartesian=True, charge=charge, site_properties=sites or None
    )


def _isotope(symbol: str, mass_u: float) -> str:
    """Symbol D or T for hydrogen of about that mass, else the symbol itself."""
    near = (name for name, mass in HYDROGEN_ISOTOPES.items() if symbol == "H" and abs(mass_u - mass) < 0.01)
    return next(near, symbol)


def _site_properties(structure: "Structure", symbols: Sequence[str]) -> AtomProperties:
    """Masses and fixed coordinates of a pymatgen structure."""
    sites = structure.site_properties
    masses = [HYDROGEN_ISOTOPES.get(symbol, 0.0) for symbol in symbols]
    if sites.get("masses_u"):
        masses = [own or mass for own, mass in zip(sites["masses_u"], masses, strict=True)]
    free = [(True,) * 3 if row is None else row for row in sites.get("selective_dynamics", ())]
    found = {
        "masses_u": np.array(masses) if any(masses) else None,
        "fixed_fractional": ~np.array(free, dtype=bool) if free else None,
        "fixed_cartesian": sites.get("fixed_cartesian"),
    }
    return AtomProperties.of_fields(found)


def atoms_to_json(atoms: Atoms) -> dict[str, Any]:
    """A structure as plain values.

    Python floats keep every bit in JSON, so that the key of the structure stays the same.

    Parameters
    ----------
    atoms
        The structure.

    Returns
    -------
    dict[str, Any]
        Atomic numbers, positions and cell (Angstrom), periodicity, and charge, spin, own masses and fixed coordinates
        where they are set.
    """
    return {
        "numbers": atoms.numbers.tolist(),
        "positions_angstrom": atoms.positions.tolist(),
        "cell_angstrom": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
        "info": {name: float(atoms.info[name]) for name in ("charge", "spin") if name in atoms.info},
        **properties_of(atoms).lists(),
    }


def atoms_from_json(data: dict[str, Any]) -> Atoms:
    """The structure of plain values.

    Parameters
    ----------
    data
        Result of `atoms_to_json`.

    Returns
    -------
    Atoms
        The structure, with the same key.
    """
    atoms = Atoms(
        np.asarray(data["numbers"], dtype=int),
        positions=np.asarray(data["positions_angstrom"], dtype=float).reshape(-1, 3),
        cell=np.asarray(data["cell_angstrom"], dtype=float),
        pbc=data["pbc"],
        info=dict(data["info"]),
    )
    return AtomProperties.of_fields(data).attach(atoms)


def _hint(value: Any) -> str:
    """What to give instead of the whole output of a job."""
    if hasattr(value, "structure") or (isinstance(value, Mapping) and "structure" in value):
        return "; of a job's output, give its structure: job.output.structure"
    return ""
