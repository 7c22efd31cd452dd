"""What a user may say of a source; the same for all formats."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from esen_flows.data.sources.conventions import CONVENTIONS, Convention
from esen_flows.data.sources.vocabulary import EnergyUnit, StressUnit


@dataclass(frozen=True)
class SourceOptions:
    """Names and units that a source does not say itself; None: the format's own.

    Attributes
    ----------
    energy_key, forces_key, stress_key
        under which name the labels are. Nothing is guessed: two calculations may stand
        side by side in a file.
    group_key, material_key
        under which name the subset and the material are.
    group
        of the records that name none.
    energy_unit
        of energies; forces are in this over the format's length.
    stress_unit
        with its sign.
    """

    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    group_key: str | None = None
    material_key: str | None = None
    group: str = ""
    energy_unit: EnergyUnit | None = None
    stress_unit: StressUnit | None = None

    def convention(self, source_format: str) -> Convention:
        """Units and signs of a format, with what was said otherwise."""
        convention = CONVENTIONS[source_format]
        if self.energy_unit is not None:
            convention = replace(convention, energy=self.energy_unit)
        if self.stress_unit is not None:
            convention = replace(convention, stress=self.stress_unit)
        return convention

    def names(self, found: Mapping[str, Any]) -> tuple[str, str]:
        """Group and material of a record whose further entries are `found`."""
        group = found.get(self.group_key or "group")
        material = found.get(self.material_key or "material")
        return self.group if group is None else str(group), "" if material is None else str(material)

    def said(self) -> dict[str, Any]:
        """What differs from saying nothing."""
        return {name: value for name, value in asdict(self).items() if value}
