"""Crystals of CIF files: symmetry, sites and orbits. What the file leaves open is said, and what is wrong refused.

Coordinates that a file rounds to three digits (0.333 for a third) are put on the special position that they mean.
"""

import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.formula import Formula
from scipy.spatial import cKDTree

from esen_flows.errors import InputError, StructureError
from esen_flows.structures.checks import LARGEST_ANGSTROM, MOST_ATOMS
from esen_flows.structures.cif_symmetry import Operations, operations_of
from esen_flows.structures.cif_text import CifBlock
from esen_flows.structures.numbers import is_unknown, number_of
from esen_flows.structures.symbols import element_of_label, element_of_type, numbers_and_masses, with_isotopes

# An operation that moves a site by less belongs to the special position that rounded coordinates mean.
ROUNDING = 1.6e-3  # of a lattice vector: 0.333 and 0.667 are 1/3 and 2/3 within 0.001
SNAP_ANGSTROM = 0.1
SAID = 1e-4  # of a lattice vector: a snapped coordinate that moves by more is reported
ONE_PLACE_ANGSTROM = 0.1  # sites that are nearer are on one place
MOST_MEETING_SITES = 1000
_LENGTHS = tuple(f"_cell_length_{axis}" for axis in "abc")
_ANGLES = tuple(f"_cell_angle_{angle}" for angle in ("alpha", "beta", "gamma"))
_FRACTIONS = tuple(f"_atom_site_fract_{axis}" for axis in "xyz")


@dataclass(eq=False)
class _Site:
    label: str
    element: str
    fractions: np.ndarray
    orbit: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))


def has_crystal(block: CifBlock) -> bool:
    """Whether a data block holds a crystal, not only the text of a publication.

    Parameters
    ----------
    block
        The block.

    Returns
    -------
    bool
        True if it has atoms or a cell.
    """
    return any(tag.startswith(("_atom_site_", "_cell_length_")) for tag in block.values)


def crystal_of_block(block: CifBlock, notes: list[str]) -> Atoms:
    """The crystal of a data block.

    Parameters
    ----------
    block
        The block.
    notes
        What was decided where the file leaves something open; lines are appended.

    Returns
    -------
    Atoms
        The crystal, its atoms in the order of the sites.

    Raises
    ------
    InputError
        Something is missing or cannot be read.
    StructureError
        The crystal is disordered, or a site is not an element.
    """
    _refuse_other_kinds(block)
    cell = _cell(block)
    sites = _sites(block, notes)
    if not sites:
        raise InputError("the file lists no atoms with coordinates (_atom_site_fract_x)")
    choices = operations_of(block, cell, notes)
    if len(sites) * max(len(each.rotations) for each in choices) > MOST_ATOMS:
        raise InputError(f"{len(sites)} sites are more than can be computed")
    operations = choices[0] if len(choices) == 1 else _by_evidence(block, sites, choices, cell, notes)
    for site in sites:
        _complete(site, operations, cell, notes)
    atoms, masses = _merged(sites, cell, notes)
    return with_isotopes(atoms, masses)


def _refuse_other_kinds(block: CifBlock) -> None:
    if block.one("_cell_modulation_dimension") not in (None, "0"):
        raise InputError("the crystal is modulated (_cell_modulation_dimension); give a commensurate approximant")
    hydrogens = block.column("_atom_site_attached_hydrogens") or []
    if any(not is_unknown(value) and value.strip("0") for value in hydrogens):
        raise InputError(
            "atoms carry hydrogens without places (_atom_site_attached_hydrogens); give a structure with them"
        )


def _cell(block: CifBlock) -> np.ndarray:
    """(3, 3) lattice vectors in Angstrom."""
    parameters = []
    for tag in (*_LENGTHS, *_ANGLES):
        column = block.column(tag)
        if column is None:
            raise InputError(f"{tag} is missing")
        parameters.append(number_of(column[0], tag))
    if not all(0 < value <= LARGEST_ANGSTROM for value in parameters[:3]):
        raise InputError(
            f"the lengths of the cell have to be between 0 and {LARGEST_ANGSTROM:g} Angstrom: {parameters[:3]}"
        )
    cosines = np.cos(np.radians(parameters[3:]))
    volume = 1.0 - (cosines**2).sum() + 2.0 * cosines.prod()
    if not all(0 < value < 180 for value in parameters[3:]) or volume < 1e-6:
        raise InputError(f"the angles {parameters[3:]} of the cell enclose no volume")
    return np.array(Cell.fromcellpar(parameters).array)


def _sites(block: CifBlock, notes: list[str]) -> list[_Site]:
    columns = [block.column(tag) for tag in _FRACTIONS]
    if any(column is None for column in columns):
        if block.column("_atom_site_cartn_x") is not None:
            raise InputError("the file gives Cartesian coordinates alone; give fractional ones (_atom_site_fract_x)")
        raise InputError("the file lists no atoms with coordinates (_atom_site_fract_x)")
    count = len(columns[0] or ())
    labels, elements = _elements(block, count, notes)
    flags = block.column("_atom_site_calc_flag") or ["."] * count
    sites: list[_Site] = []
    for row in range(count):
        if flags[row].lower() == "dum":
            notes.append(f"{labels[row]} is a dummy site (_atom_site_calc_flag dum) and was left out")
            continue
        _refuse_partial(block, row, labels[row])
        texts = [(column or [])[row] for column in columns]
        names = [f"coordinate {axis} of {labels[row]}" for axis in "xyz"]
        sites.append(
            _Site(labels[row], elements[row], np.array([number_of(*pair) for pair in zip(texts, names, strict=True)]))
        )
        if np.abs(sites[-1].fractions).max() > 1e3:
            raise InputError(f"the coordinates of {labels[row]} are far outside of the cell: {texts}")
    return sites


def _refuse_partial(block: CifBlock, row: int, label: str) -> None:
    """Refuse an occupancy that is not one; `?` and `.` mean the dictionary's default, which is one."""
    column = block.column("_atom_site_occupancy")
    if column is None or is_unknown(column[row]):
        return
    occupancy = number_of(column[row], f"the occupancy of {label}")
    if abs(occupancy - 1.0) > 1e-3:
        raise StructureError(
            f"{label} has partially occupied sites (occupancy {occupancy:g}); give an ordered structure"
        )


def _elements(block: CifBlock, count: int, notes: list[str]) -> tuple[list[str], list[str]]:
    """Labels and elements of the sites."""
    symbols = block.column("_atom_site_type_symbol")
    labels = block.column("_atom_site_label") or symbols
    if labels is None:
        raise InputError("the file names no elements (_atom_site_type_symbol)")
    if len(labels) != count or (symbols is not None and len(symbols) != count):
        raise InputError("the coordinates and the symbols of the atoms are in loops of different lengths")
    if symbols is not None and not all(is_unknown(symbol) for symbol in symbols):
        elements = [element_of_type(symbol, label) for symbol, label in zip(symbols, labels, strict=True)]
        for label, symbol, element in zip(labels, symbols, elements, strict=True):
            if element == "H" and re.fullmatch(r"[DT]\d*", label):
                notes.append(f"{label} has the type symbol {symbol!r} and was read as hydrogen of natural mass")
        return labels, elements
    formula = set(re.findall(r"[A-Z][a-z]?", block.one("_chemical_formula_sum") or ""))
    capitals = not any(letter.islower() for label in labels for letter in label)
    elements = [element_of_label(label, formula, capitals) for label in labels]
    read = dict.fromkeys(f"{label} as {element}" for label, element in zip(labels, elements, strict=True))
    shown = ", ".join(list(read)[:8]) + (", ..." if len(read) > 8 else "")
    notes.append(f"there are no type symbols, so that elements were read from the labels: {shown}")
    return labels, elements


def _by_evidence(
    block: CifBlock, sites: list[_Site], choices: list[Operations], cell: np.ndarray, notes: list[str]
) -> Operations:
    """The origin with which the multiplicities or the formula of the file come true.

    Raises
    ------
    InputError
        They are not given, or fit none or several.
    """
    fitting = [each for each in choices if _agrees(block, sites, each, cell)]
    if len(fitting) != 1:
        names = " or ".join(repr(each.name) for each in choices)
        raise InputError(
            f"the space group has two origins, and the file does not say which is meant; write the symbol {names}, or "
            "list the symmetry operations"
        )
    notes.append(f"the space group was read as {fitting[0].name}, with which multiplicities or formula come true")
    return fitting[0]


def _agrees(block: CifBlock, sites: list[_Site], operations: Operations, cell: np.ndarray) -> bool:
    """Whether the file gives multiplicities or a formula, and they come true."""
    sizes = [len(_orbit(_special(site.fractions, operations, cell), operations)) for site in sites]
    given = block.column("_atom_site_symmetry_multiplicity", "_atom_site_site_symmetry_multiplicity")
    if given is not None and len(given) == len(sites) and all(value.isdigit() for value in given):
        return [int(value) for value in given] == sizes
    formula, units = block.one("_chemical_formula_sum"), block.one("_cell_formula_units_z")
    if formula is None or units is None or not units.isdigit():
        return False
    wanted: dict[str, int] = {}
    with suppress(ValueError):
        wanted = Formula(formula.replace(" ", ""), strict=True).count()
    found: Counter[str] = Counter()
    for site, size in zip(sites, sizes, strict=True):
        found[site.element] += size
    return bool(wanted) and found == Counter({element: number * int(units) for element, number in wanted.items()})


def _complete(site: _Site, operations: Operations, cell: np.ndarray, notes: list[str]) -> None:
    """Put a site on the special position that its coordinates mean, and find its orbit."""
    special = _special(site.fractions, operations, cell)
    if np.abs(special - site.fractions).max() > SAID:
        before, after = (", ".join(f"{x:.6g}" for x in place) for place in (site.fractions, special))
        notes.append(f"{site.label} at ({before}) was put on the special position ({after})")
    site.fractions, site.orbit = special, _orbit(special, operations)


def _special(fractions: np.ndarray, operations: Operations, cell: np.ndarray) -> np.ndarray:
    """Coordinates averaged over the operations that leave them in place, up to rounding in the file."""
    moves = operations.rotations @ fractions + operations.translations - fractions
    moves -= np.round(moves)
    stays = (np.abs(moves).max(axis=1) < ROUNDING) & (np.linalg.norm(moves @ cell, axis=1) < SNAP_ANGSTROM)
    mean = moves[stays].mean(axis=0)
    return fractions if np.abs(mean).max() < 1e-9 else fractions + mean


def _orbit(fractions: np.ndarray, operations: Operations) -> np.ndarray:
    """(n, 3) different images of a site, in the cell."""
    images = (operations.rotations @ fractions + operations.translations) % 1.0
    images[images > 1.0 - 1e-9] = 0.0  # rounding of what should be 0
    apart = images[:, None] - images[None]
    same = (np.abs(apart - np.round(apart)) < 1e-5).all(axis=2)
    return np.asarray(images[same.argmax(axis=1) == np.arange(len(images))])


def _merged(sites: list[_Site], cell: np.ndarray, notes: list[str]) -> tuple[Atoms, list[float]]:
    """The atoms of all orbits and their own masses; sites that repeat others are left out, two elements refused."""
    meeting = _meeting_others(sites, cell)
    if len(meeting) > MOST_MEETING_SITES:
        raise StructureError(f"{len(meeting)} sites are on the places of others; give each atom once")
    kept: list[_Site] = []
    for number, site in enumerate(sites):
        earlier = (sites[other] for other in meeting if other < number) if number in meeting else ()
        twin = next(
            (one for one in earlier if one in kept and _nearest(site.fractions, one.orbit, cell) < ONE_PLACE_ANGSTROM),
            None,
        )
        if twin is None:
            kept.append(site)
        elif twin.element != site.element:
            raise StructureError(
                f"{twin.label} and {site.label} ({twin.element} and {site.element}) are on one place: the crystal is "
                "disordered, or a site is wrong; give an ordered structure"
            )
        else:
            notes.append(f"{site.label} repeats an atom of {twin.label} and was left out")
    symbols = [site.element for site in kept for _ in site.orbit]
    numbers, masses = numbers_and_masses(symbols)
    orbits = np.concatenate([site.orbit for site in kept])
    return Atoms(numbers, scaled_positions=orbits, cell=cell, pbc=True), masses


def _meeting_others(sites: list[_Site], cell: np.ndarray) -> list[int]:
    """Indices of the sites with an atom on or near the place of another site's atom."""
    owners = np.repeat(np.arange(len(sites)), [len(site.orbit) for site in sites])
    places = np.concatenate([site.orbit for site in sites]) % 1.0
    # A distance is at least the difference of fractional coordinates times the smallest height of the cell.
    reach = ONE_PLACE_ANGSTROM * np.linalg.norm(np.linalg.inv(cell), axis=0).max()
    if reach > 0.5:
        return list(range(len(sites)))
    distances, others = cKDTree(places % 1.0, boxsize=1.0).query(places, k=2, p=np.inf, distance_upper_bound=reach)
    near = np.isfinite(distances) & (
        np.where(others < len(owners), owners[others % len(owners)], -1) != owners[:, None]
    )
    return np.unique(owners[near.any(axis=1)]).tolist()


def _nearest(fractions: np.ndarray, orbit: np.ndarray, cell: np.ndarray) -> float:
    apart = orbit - fractions
    return float(np.linalg.norm((apart - np.round(apart)) @ cell, axis=1).min())
