"""The symmetry operations of a CIF: those that it lists, or those of the setting that its symbols name."""

import re
from dataclasses import dataclass

import numpy as np

from esen_flows.errors import InputError
from esen_flows.structures.cif_text import CifBlock
from esen_flows.structures.numbers import number_of
from esen_flows.structures.space_groups import fits_metric, named_settings, setting_of

_LISTED = (
    "_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz_",
)  # fmt: skip
_SYMBOL = (
    "_space_group_name_h-m_alt", "_symmetry_space_group_name_h-m", "_space_group_name_h-m_ref",
    "_symmetry_space_group_name_h-m_alt", "_space_group_name_h-m_full", "_space_group_name_h-m",
)  # fmt: skip
_NUMBER = ("_space_group_it_number", "_symmetry_int_tables_number", "_space_group_number")
_HALL = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
_TERM = re.compile(r"([+-]?)(?:(\d+(?:\.\d*)?(?:/\d+)?|\.\d+)\*?)?([xyz]?)")
MOST_OPERATIONS = 192  # of a cubic group with a centred cell


@dataclass(frozen=True)
class Operations:
    """Symmetry operations of fractional coordinates.

    Attributes
    ----------
    rotations
        (n, 3, 3) integers.
    translations
        (n, 3).
    name
        Name of the setting for messages.
    """

    rotations: np.ndarray
    translations: np.ndarray
    name: str


def operations_of(block: CifBlock, cell: np.ndarray, notes: list[str]) -> list[Operations]:
    """The symmetry operations of a data block.

    Parameters
    ----------
    block
        The block.
    cell
        (3, 3) lattice vectors in Angstrom, as rows.
    notes
        What was decided where the file leaves something open; lines are appended.

    Returns
    -------
    list[Operations]
        One entry, or one for each origin that the symbol leaves possible.

    Raises
    ------
    InputError
        Operations cannot be read or are no group, symbols are unknown or contradict each other, or the cell does not
        have their shape.
    """
    symbol, hall = block.one(*_SYMBOL), block.one(*_HALL)
    number_text = block.one(*_NUMBER)
    number = None if number_text is None else round(number_of(number_text, "the number of the space group"))
    listed = block.column(*_LISTED)
    if listed is not None:
        operations = _listed(listed, cell)
        _compare(operations, symbol, number, hall, notes)
        return [operations]
    if any(tag.startswith("_space_group_symop_magn") for tag in block.values):
        raise InputError(
            "the file lists magnetic operations alone; list those of the crystal (_space_group_symop_operation_xyz)"
        )
    if symbol is None and number is None and hall is None:
        notes.append("the file names no space group and lists no operations, so that it was read as P 1")
        return [Operations(np.eye(3, dtype=int)[None], np.zeros((1, 3)), "P 1")]
    return [Operations(*one.operations(), one.name) for one in setting_of(symbol, number, hall, cell)]


def _listed(texts: list[str], cell: np.ndarray) -> Operations:
    """The operations of a list, checked to be a group that keeps the cell."""
    texts = list(dict.fromkeys(texts))
    if len(texts) > MOST_OPERATIONS:
        raise InputError(
            f"the file lists {len(texts)} symmetry operations; a space group has at most {MOST_OPERATIONS}"
        )
    parsed = [_operation(text) for text in texts]
    rotations, translations = np.array([r for r, _ in parsed]), np.array([t for _, t in parsed])
    if not fits_metric(rotations, cell):
        raise InputError(
            "the symmetry operations do not keep the shape of the cell; correct the cell or the operations"
        )
    _refuse_no_group(rotations, translations)
    return Operations(rotations, translations, f"the {len(texts)} operations of the file")


def _operation(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and translation of `-y, x-y, z+1/3`."""
    rotation, translation = np.zeros((3, 3), dtype=int), np.zeros(3)
    rows = re.sub(r"\s", "", text.lower()).split(",")
    fault = InputError(f"{text[:60]!r} is not a symmetry operation such as '-y, x-y, z+1/3'")
    if len(rows) != 3:
        raise fault
    for axis, row in enumerate(rows):
        end = 0
        for match in _TERM.finditer(row):
            sign, value, variable = match.groups()
            if not (value or variable):
                continue
            if match.start() != end or (end and not sign):
                raise fault
            end = match.end()
            amount = number_of(value, "a symmetry operation") if value else 1.0
            amount = -amount if sign == "-" else amount
            if variable and not amount.is_integer():
                raise fault
            if variable:
                rotation[axis, "xyz".index(variable)] += int(amount)
            else:
                translation[axis] += amount
        if end != len(row) or not row:
            raise fault
    if abs(round(float(np.linalg.det(rotation)))) != 1 or np.abs(rotation).max() > 2:
        raise fault
    # Thirds and sixths written with three or four digits.
    exact = np.round(translation * 24) / 24
    return rotation, np.where(np.abs(translation - exact) < 1e-3, exact, translation) % 1.0


def _refuse_no_group(rotations: np.ndarray, translations: np.ndarray) -> None:
    """Refuse a list from which operations are missing: the product of two has to be one of them."""
    flat = rotations.reshape(-1, 9)
    products = (rotations[:, None] @ rotations[None]).reshape(-1, 9)
    shifts = (rotations[:, None] @ translations[None, :, :, None])[..., 0] + translations[:, None]
    shifts = shifts.reshape(-1, 3)
    known = np.zeros(len(products), dtype=bool)
    for rotation, translation in zip(flat, translations, strict=True):
        apart = shifts - translation
        known |= (products == rotation).all(axis=1) & (np.abs(apart - np.round(apart)) < 2e-3).all(axis=1)
    if not known.all():
        raise InputError(
            "the symmetry operations of the file are no group: some are missing or wrong; correct the list"
        )


def _compare(
    operations: Operations, symbol: str | None, number: int | None, hall: str | None, notes: list[str]
) -> None:
    """Note that the listed operations, which count, are not those of the symbols."""
    try:
        sizes = {len(one.operations()[0]) for one in named_settings(symbol, number, hall)}
    except InputError:  # a symbol that no table has says nothing about the list
        return
    if (symbol or number or hall) and len(operations.rotations) not in sizes:
        named = symbol or hall or number
        notes.append(
            f"the file lists {len(operations.rotations)} symmetry operations, but its space group {named} has "
            f"{max(sizes)}; those of the list were taken"
        )
