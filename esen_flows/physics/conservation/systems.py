"""The crystals and molecules of audits, by name, and the choice among the crystals for a force field."""

from collections.abc import Collection

from ase import Atoms
from ase.build import molecule
from ase.collections import g2
from ase.data import atomic_numbers, chemical_symbols, reference_states

from esen_flows.data.prototypes import Crystal, perfect
from esen_flows.errors import InputError, UnknownElementError
from esen_flows.schemas.audit import AuditProtocol
from esen_flows.schemas.card import ModelReference
from esen_flows.schemas.domain import chemical_system
from esen_flows.schemas.frozen import Frozen
from esen_flows.structures.checks import check_elements

# In the order in which they are chosen: metals, covalent and ionic crystals early. Lattice constants are experimental
# ones, rounded: an audit needs reasonable cells, not relaxed ones.
_CRYSTALS = (
    Crystal("Cu", "fcc", ("Cu",), 3.61), Crystal("Si", "diamond", ("Si",), 5.43),
    Crystal("NaCl", "rocksalt", ("Na", "Cl"), 5.64), Crystal("W", "bcc", ("W",), 3.16),
    Crystal("MgO", "rocksalt", ("Mg", "O"), 4.21), Crystal("GaAs", "zincblende", ("Ga", "As"), 5.65),
    Crystal("Al", "fcc", ("Al",), 4.05), Crystal("LiF", "rocksalt", ("Li", "F"), 4.03),
    Crystal("C", "diamond", ("C",), 3.57), Crystal("Ge", "diamond", ("Ge",), 5.66),
    Crystal("AlN", "zincblende", ("Al", "N"), 4.37), Crystal("CaO", "rocksalt", ("Ca", "O"), 4.81),
    Crystal("ZnS", "zincblende", ("Zn", "S"), 5.41), Crystal("ZnSe", "zincblende", ("Zn", "Se"), 5.67),
    Crystal("SiC", "zincblende", ("Si", "C"), 4.36), Crystal("GaP", "zincblende", ("Ga", "P"), 5.45),
    Crystal("AlP", "zincblende", ("Al", "P"), 5.46), Crystal("AlAs", "zincblende", ("Al", "As"), 5.66),
    Crystal("GaN", "zincblende", ("Ga", "N"), 4.52), Crystal("ZnO", "zincblende", ("Zn", "O"), 4.57),
    Crystal("KCl", "rocksalt", ("K", "Cl"), 6.29), Crystal("LiCl", "rocksalt", ("Li", "Cl"), 5.13),
    Crystal("NaF", "rocksalt", ("Na", "F"), 4.62), Crystal("KF", "rocksalt", ("K", "F"), 5.35),
)  # fmt: skip
CRYSTALS = {crystal.name: crystal for crystal in _CRYSTALS}
_CUBIC = ("fcc", "bcc", "sc", "diamond")
SMALLEST = 4  # atoms of a cell, so that not all of its symmetry is that of the lattice


def crystal(name: str) -> Atoms:
    """A perfect crystal of the audits.

    Parameters
    ----------
    name
        One of `CRYSTALS`, or the symbol of an element that crystallises in a simple cubic structure.

    Returns
    -------
    Atoms
        A cell of at least four atoms.

    Raises
    ------
    InputError
        There is no such crystal.

    Examples
    --------
    >>> crystal("NaCl").get_chemical_formula()
    'Cl2Na2'
    """
    found = CRYSTALS.get(name) or _of_element(name)
    if found is None:
        raise InputError(
            f"no audit system {name!r}; there are {', '.join(CRYSTALS)}, and elements with a cubic structure; "
            "trajectories (nve.systems) take the molecules of ase.collections.g2 too, such as H2O or CH4"
        )
    cell = perfect(found)
    return cell.repeat((1, 1, 2)) if len(cell) > 1 else cell.repeat((1, 2, 2))


def crystal_or_molecule(name: str) -> Atoms:
    """A perfect crystal of the audits, or else a molecule.

    Parameters
    ----------
    name
        A name that `crystal` takes, or of a molecule of ASE's set G2; where it is both, such as NaCl, the crystal.

    Returns
    -------
    Atoms
        A cell, or a molecule of at least two atoms without one.

    Raises
    ------
    InputError
        There is no such crystal or molecule.

    Examples
    --------
    >>> [str(crystal_or_molecule(name).symbols) for name in ("NaCl", "CH4")]
    ['NaClNaCl', 'CH4']
    """
    if name in CRYSTALS or _of_element(name) is not None or name not in g2.names or len(g2[name]) == 1:
        return crystal(name)
    found: Atoms = molecule(name)
    return found


def check_named_systems(protocol: Frozen, model: ModelReference) -> None:
    """Refuse named systems that a force field cannot compute: trajectories come after all measurements.

    Parameters
    ----------
    protocol
        Protocol of an audit; others have no systems.
    model
        Force field.

    Raises
    ------
    InputError
        There is no such system.
    UnknownElementError
        The force field does not know the elements of one.
    """
    if not isinstance(protocol, AuditProtocol):
        return
    measured, nve = protocol.measurements.systems or (), protocol.nve
    run = nve.systems if nve is not None and not isinstance(nve.systems, str) else ()
    for field, names, make in (("measurements", measured, crystal), ("nve", run, crystal_or_molecule)):
        for name in names:
            try:
                check_elements(make(name), model)
            except UnknownElementError as error:
                raise UnknownElementError(f"{field}.systems: {name}: {error}, or leave {name} out") from error


def _of_element(symbol: str) -> Crystal | None:
    state = reference_states[atomic_numbers[symbol]] if symbol in atomic_numbers else None
    if state is None or state["symmetry"] not in _CUBIC:
        return None
    return Crystal(symbol, state["symmetry"], (symbol,), float(state["a"]))


def choose_systems(
    elements: Collection[int] | None, chemical_systems: Collection[str] | None, count: int
) -> tuple[str, ...]:
    """Crystals that a force field covers.

    Parameters
    ----------
    elements
        Atomic numbers of its training data; None: any.
    chemical_systems
        Exact sets of elements of its training structures, such as "As-Ga"; None: not known.
    count
        Largest number of crystals.

    Returns
    -------
    tuple[str, ...]
        Their names.

    Raises
    ------
    InputError
        It covers none of the crystals.

    Examples
    --------
    >>> choose_systems(None, None, 2)
    ('Cu', 'Si')
    """

    def covered(species: Collection[str]) -> bool:
        known = elements is None or all(atomic_numbers[symbol] in elements for symbol in species)
        return known and (chemical_systems is None or chemical_system(species) in chemical_systems)

    found = [one.name for one in _CRYSTALS if covered(one.species)]
    if not found:
        symbols = [chemical_symbols[number] for number in sorted(elements or ())]
        found = [symbol for symbol in symbols if covered([symbol]) and _of_element(symbol) is not None]
    if not found:
        raise InputError(
            "the force field covers none of the crystals of audits; name some of its elements: --set systems=Fe,Ni "
            "(elements with a cubic structure)"
        )
    return tuple(found[:count])
