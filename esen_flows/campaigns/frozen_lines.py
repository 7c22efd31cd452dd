"""The lines of a frozen campaign's files, each checked against its schema as it is read."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from ase import Atoms
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from esen_flows.errors import InputError
from esen_flows.schemas.atom_properties import AtomProperties
from esen_flows.schemas.keys import atoms_key

MOST_LINE_BYTES = 50_000_000  # a structure of 100,000 atoms has 10 MB
_Key = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Vector = tuple[FiniteFloat, FiniteFloat, FiniteFloat]
_Line = TypeVar("_Line", bound="FrozenLine")


class FrozenLine(BaseModel):
    """Base of the lines: fields of later versions are not read."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class FrozenMember(FrozenLine):
    """A member of a frozen campaign, with the fields that its row has in the database.

    Attributes
    ----------
    label
        Name of the material, or of the force field if the property is one of force fields.
    formula
        Its formula; empty for a force field.
    nsites
        Number of its atoms; 0 for a force field itself.
    structure_key
        Key of its structure, or of the force field.
    model_key
        Key of its force field.
    model_label
        Label of its force field.
    info
        Supercells and mesh of the structure.
    cost
        Predicted cost.
    key
        Key of its answer.
    steps
        Keys of its steps, the last one that of its answer.
    state
        Whether it was finished, failed or pending.
    failure
        Name of the error of a failed one.
    value
        Its principal number.
    """

    label: str
    formula: str
    nsites: int = Field(ge=0)
    structure_key: _Key
    model_key: _Key
    model_label: str
    info: dict[str, Any]
    cost: FiniteFloat = Field(ge=0)
    key: _Key
    steps: list[_Key] = Field(min_length=1)
    state: Literal["finished", "failed", "pending"]
    failure: str | None
    value: float | None


class FrozenStructure(FrozenLine):
    """An input structure of a frozen campaign.

    Attributes
    ----------
    key
        Structure key.
    material_ids
        Ids of the material in other databases.
    numbers
        Atomic numbers.
    positions
        Cartesian positions in Angstrom.
    cell
        Lattice vectors in Angstrom.
    pbc
        Periodicity along the lattice vectors.
    charge
        Charge in elementary charges.
    spin
        Spin.
    masses_u
        Own masses in u, 0 for those of the natural elements; None: none.
    fixed_cartesian
        Fixed Cartesian components; None: none.
    fixed_fractional
        Fixed components along the lattice vectors; None: none.
    """

    key: _Key
    material_ids: list[str]
    numbers: list[Annotated[int, Field(ge=0, le=118)]] = Field(min_length=1)
    positions: list[_Vector]
    cell: tuple[_Vector, _Vector, _Vector]
    pbc: tuple[bool, bool, bool]
    charge: FiniteFloat
    spin: FiniteFloat
    masses_u: list[FiniteFloat] | None = None
    fixed_cartesian: list[tuple[bool, bool, bool]] | None = None
    fixed_fractional: list[tuple[bool, bool, bool]] | None = None

    def atoms(self) -> Atoms:
        """The structure, with charge and spin in `info` where they are not 0.

        Returns
        -------
        Atoms
            The structure, with its own masses and constraints.

        Raises
        ------
        ValueError
            The structure is not the one of its key, or its lists have different lengths.
        """
        count = len(self.numbers)
        lists = (self.positions, self.masses_u, self.fixed_cartesian, self.fixed_fractional)
        if any(one is not None and len(one) != count for one in lists):
            raise ValueError(f"has lists that are not all of {count} atoms; restore it")
        info = {name: value for name, value in (("charge", self.charge), ("spin", self.spin)) if value}
        atoms = Atoms(self.numbers, positions=self.positions, cell=np.array(self.cell), pbc=self.pbc, info=info)
        AtomProperties.of_fields(self.model_dump()).attach(atoms)
        if atoms_key(atoms) != self.key:
            raise ValueError(
                f"is structure {atoms_key(atoms)[:16]}..., but says that it is {self.key[:16]}...; it was changed "
                "after it was frozen, restore it"
            )
        return atoms


def read_lines(path: Path, count: int, line_class: type[_Line]) -> Iterator[_Line]:
    """The lines of a file, in little memory.

    Parameters
    ----------
    path
        File compressed by gzip, with one JSON object in a line.
    count
        Number of lines that the manifest names.
    line_class
        Schema of a line.

    Yields
    ------
    _Line
        A line.

    Raises
    ------
    InputError
        The file is damaged, has another number of lines, or a line does not fit the schema.
    """
    number = 0
    try:
        with gzip.open(path, "rb") as stream:
            while line := stream.readline(MOST_LINE_BYTES):
                number += 1
                if number > count:
                    raise InputError(f"{path} has more than the {count} lines that the manifest names; restore it")
                yield _parsed(line, line_class, f"{path}: line {number}")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged ({error}); restore it from its source") from None
    if number != count:
        raise InputError(f"{path} has {number} lines, but the manifest names {count}; restore it from its source")


def _parsed(line: bytes, line_class: type[_Line], name: str) -> _Line:
    try:
        return line_class.model_validate(json.loads(line))
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "(line)"
        raise InputError(f"{name}: {where}: {fault['msg']}; restore the file from its source") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is no JSON ({error}); restore the file from its source") from None
