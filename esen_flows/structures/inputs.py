"""Structures as people have them: pymatgen structures, ASE Atoms and file paths, one or many."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from ase import Atoms

from esen_flows.errors import StructureError
from esen_flows.structures.conversion import as_atoms, is_pymatgen

if TYPE_CHECKING:
    from pymatgen.core import Molecule, Structure

AnyStructure: TypeAlias = Union[Atoms, "Structure", "Molecule", str, Path]
AnyStructures: TypeAlias = AnyStructure | Iterable[AnyStructure]


def given_structures(given: AnyStructures) -> tuple[list[Atoms], bool]:
    """Structures that a function was given, and whether it was given one or many.

    Parameters
    ----------
    given
        ASE Atoms, a pymatgen Structure or Molecule, the path of a structure file, or several of these. A file with
        several structures counts as all of them; `FILE@3` is one of them.

    Returns
    -------
    list[Atoms]
        The structures, in their order.
    bool
        Whether one structure was given, not a list and not a file with several.

    Raises
    ------
    StructureError
        Something is not a structure, or has partially occupied sites.
    InputError
        A file cannot be read as structures.

    Examples
    --------
    >>> from ase.build import bulk
    >>> structures, is_one = given_structures([bulk("Si"), bulk("Cu")])
    >>> [atoms.get_chemical_formula() for atoms in structures], is_one
    (['Si2', 'Cu'], False)
    """
    if isinstance(given, str | Path):
        from esen_flows.structures.files import read_structures  # a bare machine has no use for its parsers

        structures = list(read_structures(Path(given)))
        return structures, len(structures) == 1
    if isinstance(given, Atoms) or is_pymatgen(given):
        return [as_atoms(given)], True
    if isinstance(given, dict | bytes) or not isinstance(given, Iterable):
        return [as_atoms(given)], True  # which says what it got
    return [atoms for one in given for atoms in _structures_of(one)], False


def as_structures(given: AnyStructures) -> list[Atoms]:
    """The structures that a function was given, one or many.

    Parameters
    ----------
    given
        As for `given_structures`.

    Returns
    -------
    list[Atoms]
        The structures, in their order.

    Raises
    ------
    InputError
        As for `given_structures`.
    """
    return given_structures(given)[0]


def _structures_of(one: Any) -> list[Atoms]:
    if isinstance(one, list | tuple):
        raise StructureError("structures were given as a list of lists; give one list")
    return given_structures(one)[0]
