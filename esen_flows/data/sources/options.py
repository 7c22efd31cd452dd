"""Names and units that a user may give for a source; the same for all formats."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from esen_flows.data.sources.conventions import CONVENTIONS, Convention
from esen_flows.data.sources.vocabulary import EnergyUnit, StressOrder, StressUnit


@dataclass(frozen=True)
class SourceOptions:
    """Names and units that a source does not give itself; None takes those of its format.

    Labels under other names than the format's are never guessed, because a file can hold two calculations.

    Attributes
    ----------
    energy_key
        Name of the energy.
    forces_key
        Name of the forces.
    stress_key
        Name of the stress; "none" leaves out the stresses of the source.
    group_key
        Name of the entry that gives the subset.
    material_key
        Name of the entry that gives the material.
    group
        Subset of records that do not give one.
    energy_unit
        Unit of energies; forces are in this unit over the format's unit of length.
    stress_unit
        Unit of stresses with their sign.
    stress_order
        Order of stresses of six numbers.
    keep_unconverged
        Whether steps whose electronic loop did not converge are kept, and only counted.
    """

    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    group_key: str | None = None
    material_key: str | None = None
    group: str = ""
    energy_unit: EnergyUnit | None = None
    stress_unit: StressUnit | None = None
    stress_order: StressOrder | None = None
    keep_unconverged: bool = False

    def convention(self, source_format: str) -> Convention:
        """Units and signs of a source.

        Parameters
        ----------
        source_format
            Format of the source.

        Returns
        -------
        Convention
            Convention of the format, with the units that these options give.
        """
        given: dict[str, Any] = {
            "energy": self.energy_unit, "stress": self.stress_unit, "stress_order": self.stress_order,
        }  # fmt: skip
        return replace(CONVENTIONS[source_format], **{name: unit for name, unit in given.items() if unit is not None})

    def names(self, found: Mapping[str, Any]) -> tuple[str, str]:
        """Group and material of a record.

        Parameters
        ----------
        found
            Entries of the record beside structure and labels.

        Returns
        -------
        tuple[str, str]
            Name of the group and name of the material, "" where there is none.
        """
        group = found.get(self.group_key or "group")
        material = found.get(self.material_key or "material")
        return self.group if group is None else str(group), "" if material is None else str(material)

    def given(self) -> dict[str, Any]:
        """Options that are given.

        Returns
        -------
        dict[str, Any]
            Values by name, without those that are None, "" or false.
        """
        return {name: value for name, value in asdict(self).items() if value}
