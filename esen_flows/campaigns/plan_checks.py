"""Checks of a campaign's structures while it is planned: repeated ones, unknown elements, and those that will fail."""

from dataclasses import dataclass, field

import numpy as np
from ase.data import chemical_symbols

from esen_flows.campaigns.sources import PlannedStructure
from esen_flows.errors import InputError, StructureError, UnknownElementError
from esen_flows.schemas.campaign import CampaignSpec, member_keys, protocol_for
from esen_flows.schemas.card import ModelReference
from esen_flows.structures.checks import check_elements, check_start, check_structure, outside_of

SHOWN = 10  # lines of a list in a message


@dataclass
class ShortList:
    """The first few of many lines, and their number.

    Attributes
    ----------
    count
        Number of lines.
    first
        The first `SHOWN` lines.
    """

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Add a line.

        Parameters
        ----------
        text
            The line.
        """
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(text)

    def __str__(self) -> str:
        more = [] if self.count <= SHOWN else [f"and {self.count - SHOWN} more"]
        return "\n".join(f"  {line}" for line in (*self.first, *more))


class PlanChecks:
    """Collects the faults of a campaign's structures, one structure after the other.

    Parameters
    ----------
    spec
        Specification of the campaign.

    Attributes
    ----------
    repeated
        Structures that lead to the same members as an earlier one.
    foreign
        Elements that a force field was not trained on, if `require` asks for all.
    outside
        Structures whose elements a force field never saw together.
    doubtful
        Structures that will probably fail, and why.
    bad
        Structures that cannot be read or have no meaning, and why.
    """

    def __init__(self, spec: CampaignSpec) -> None:
        self.repeated, self.foreign, self.outside = ShortList(), ShortList(), ShortList()
        self.doubtful, self.bad = ShortList(), ShortList()
        self._spec = spec
        self._labels: dict[bytes, str] = {}  # label of the first structure with a member key
        self._faulty: set[str] = set()  # keys of structures that will probably fail with any force field
        self._has_sound_member = False  # whether at least one member has no known fault

    def is_usable(self, structure: PlannedStructure) -> bool:
        """Whether a structure has a meaning: atoms, finite numbers, and the supercells that the protocol needs.

        Parameters
        ----------
        structure
            Structure.

        Returns
        -------
        bool
            False if the structure is bad, which is noted.
        """
        atoms = structure.atoms
        if len(atoms) == 0 or not np.isfinite(atoms.positions.sum() + atoms.cell.array.sum()):
            self.bad.add(f"{structure.label}: it has no atoms, or NaN positions or cell vectors")
            return False
        try:
            protocol_for(self._spec, structure.own)
        except InputError as error:
            self.bad.add(f"{structure.label}: {error}")
            return False
        return True

    def is_new(self, structure: PlannedStructure, model: ModelReference) -> bool:
        """Whether no earlier structure leads to the same members.

        Parameters
        ----------
        structure
            Structure.
        model
            One of the force fields.

        Returns
        -------
        bool
            False if the structure repeats an earlier one.
        """
        key = bytes.fromhex(member_keys(self._spec, structure.key, model.key, structure.own)[-1])
        if key in self._labels:
            self.repeated.add(f"{structure.label} is the same as {self._labels[key]}")
            return False
        self._labels[key] = structure.label
        return True

    def note_faults(self, structure: PlannedStructure) -> None:
        """Check whether a structure will probably fail with any force field.

        Parameters
        ----------
        structure
            Structure.
        """
        atoms, protocol = structure.atoms, protocol_for(self._spec, structure.own)
        try:
            check_structure(atoms, structure.label)
            check_start(atoms, structure.label, self._spec.property, protocol)
        except StructureError as error:
            self.doubtful.add(str(error))
            self._faulty.add(structure.key)

    def note_elements(self, structure: PlannedStructure, model: ModelReference) -> None:
        """Check whether a force field was trained on the elements of a structure, and on structures with all of them.

        Parameters
        ----------
        structure
            Structure.
        model
            Force field.
        """
        try:
            check_elements(structure.atoms, model)
        except UnknownElementError:
            foreign = sorted(set(structure.atoms.numbers.tolist()) - (model.elements or set()))
            symbols = ", ".join(chemical_symbols[z] for z in foreign)
            found = self.foreign if "covers_elements" in self._spec.require else self.doubtful
            found.add(f"{structure.label}: {model.label} never saw {symbols}")
            if "inside_domain" not in self._spec.require:
                return  # one warning is enough
        else:
            self._has_sound_member = self._has_sound_member or structure.key not in self._faulty
        if (reason := outside_of(structure.atoms, model)) is not None:
            self.outside.add(f"{structure.label} with {model.label}: {reason}")

    def require_sound(self, *, skip_bad: bool = False) -> None:
        """Refuse a campaign with faults that only show when all structures were seen.

        Parameters
        ----------
        skip_bad
            Whether bad structures are left out instead of refused.

        Raises
        ------
        InputError
            There are no structures, bad ones, repeated ones, elements that a force field does not know (alone or
            together), or no structure that can be computed; the message lists the first ten of each.
        """
        faults = []
        if self.bad.count and not skip_bad:
            faults.append(
                f"{self.bad.count} structures cannot be used; correct them, or leave them out by --skip-bad:\n"
                f"{self.bad}"
            )
        elif not self._labels and not self._spec.of_models:
            faults.append("its source holds no structures; check `structures`")
        if self.repeated.count and self._spec.duplicates == "refuse":
            faults.append(
                f"{self.repeated.count} structures occur more than once; take them out, or write `duplicates: merge` "
                f"to compute each once:\n{self.repeated}"
            )
        if self.foreign.count:
            faults.append(
                f"`require: covers_elements` is not met {self.foreign.count} times; take these structures out, choose "
                f"another force field, or leave the requirement out:\n{self.foreign}"
            )
        if self.outside.count and "inside_domain" in self._spec.require:
            faults.append(
                f"`require: inside_domain` is not met {self.outside.count} times; take these structures out, choose "
                f"another force field, or leave the requirement out:\n{self.outside}"
            )
        if self.doubtful.count and not self._has_sound_member:
            faults.append(f"none of the structures can be computed:\n{self.doubtful}")
        if faults:
            raise InputError("\n".join(f"campaign {self._spec.name}: {fault}" for fault in faults))
