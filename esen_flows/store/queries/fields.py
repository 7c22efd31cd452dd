"""The names that users type in conditions, orders and columns, and where their values are stored.

A name is a field of the document (`nsites`), a value of its summary (`energy_per_atom_ev`), such a value without its
unit (`energy_per_atom`), or such a value with a temperature (`kappa_300K`, `entropy_500K`), which only results at that
temperature have. Results of earlier versions have values at 300 K only.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal

from esen_flows.errors import InputError
from esen_flows.schemas.property_lookup import entry_of
from esen_flows.structures.identity import canonical_chemsys, canonical_formula

FieldType = Literal["number", "text", "boolean", "date", "list"]


@dataclass(frozen=True)
class Field:
    """Where a value is stored.

    Attributes
    ----------
    path
        Place in the document, with dots between the names.
    type
        Type of the value, which decides what it can be compared with; a list holds texts.
    only_if
        Path and value that a document must have to have this field; None: no condition.
    true_text
        Stored text that makes a boolean true; None: the boolean itself is stored.
    canonical
        Function that turns user input into the form that is stored; None: the input is stored as it is.
    """

    path: str
    type: FieldType = "text"
    only_if: tuple[str, float] | None = None
    true_text: str | None = None
    canonical: Callable[[str], str] | None = None

    def value(self, document: Mapping[str, Any]) -> Any:
        """The value in a document.

        Parameters
        ----------
        document
            Document as a dictionary.

        Returns
        -------
        object
            Value; None where the document has none.
        """
        if self.only_if is not None and _at(document, self.only_if[0]) != self.only_if[1]:
            return None
        found = _at(document, self.path)
        return found if self.true_text is None or found is None else found == self.true_text


_OF_BOTH = {
    "formula": Field("formula", canonical=canonical_formula),
    "chemsys": Field("chemsys", canonical=canonical_chemsys),
    "elements": Field("elements", "list"),
    "nsites": Field("nsites", "number"),
    "space_group_number": Field("space_group_number", "number"),
    "space_group_symbol": Field("space_group_symbol"),
    "spacegroup": Field("space_group_number", "number"),
    "material_ids": Field("material_ids", "list"),
    "tags": Field("tags", "list"),
    "created_at": Field("created_at", "date"),
    "created": Field("created_at", "date"),
}
_OF_STRUCTURES = {**_OF_BOTH, "key": Field("_id"), "charge": Field("charge", "number"), "spin": Field("spin", "number")}
_OF_RESULTS = {
    **_OF_BOTH,
    **{name: Field(name) for name in ("key", "parent_key", "structure_key", "model_label", "model_key", "state")},
    "model": Field("model_label"),
    "attempt": Field("attempt", "number"),
    "error": Field("failure.error"),
    "message": Field("failure.message"),
    "final": Field("failure.final", "boolean"),
    "dtype": Field("numeric.dtype"),
    "device": Field("provenance.device"),
    "host": Field("provenance.host"),
    "seconds": Field("provenance.seconds", "number"),
    "force_evaluations": Field("provenance.force_evaluations", "number"),
    # A lattice result that starts from a relaxation which did not converge has failed.
    "converged": Field("state", "boolean", true_text="finished"),
}
_UNITS = (
    "_mev_per_atom", "_mev_per_angstrom3", "_mev_per_angstrom", "_ev_per_angstrom", "_kj_per_mol", "_j_per_k_mol",
    "_w_per_m_k", "_angstrom3", "_angstrom", "_kelvin", "_gpa", "_thz", "_ev",
)  # fmt: skip
_WITH_TEMPERATURE = ("_kj_per_mol", "_j_per_k_mol", "_w_per_m_k")
_TEMPERATURE = re.compile(r"(\w+)_(\d{1,5})K", re.ASCII)
_ROOM_TEMPERATURE = ("summary.temperature_kelvin", 300.0)


@cache
def fields_of(kind: str) -> dict[str, Field]:
    """All names of a kind of result, or of structures.

    Parameters
    ----------
    kind
        Kind of result, or "structures".

    Returns
    -------
    dict
        Fields by name.
    """
    if kind == "structures":
        return dict(_OF_STRUCTURES)
    fields = dict(_OF_RESULTS)
    for value in entry_of(kind).summary:
        name = value.name
        fields[name] = Field(f"summary.{name}", value.type)
        for text in value.conditions:
            fields[text] = Field(f"summary.{name}", "boolean", true_text=text)
        unit = next((unit for unit in _UNITS if name.endswith(unit)), None)
        if unit is None:
            continue
        for short in filter(None, (name.removesuffix(unit), value.alias)):
            fields[short] = fields[name]
            if unit in _WITH_TEMPERATURE:
                fields[f"{short}_300K"] = Field(f"summary.{name}", value.type, only_if=_ROOM_TEMPERATURE)
    return fields


def find_field(kind: str, name: str) -> Field:
    """The field of a name.

    Parameters
    ----------
    kind
        Kind of result, or "structures".
    name
        Name as the user types it.

    Returns
    -------
    Field
        Where the value is stored.

    Raises
    ------
    InputError
        There is no such name; the message lists the names that exist.

    Examples
    --------
    >>> find_field("relax", "energy_per_atom").path
    'summary.energy_per_atom_ev'
    >>> find_field("phonon", "entropy_300K").only_if
    ('summary.temperature_kelvin', 300.0)
    >>> find_field("conductivity", "kappa_450K").path
    'summary.kappa_rta_w_per_m_k_at_450K'
    >>> find_field("conductivity", "kappa_xx_450K").path
    'summary.kappa_rta_xx_w_per_m_k_at_450K'
    """
    fields = fields_of(kind)
    if name in fields:
        return fields[name]
    found = _TEMPERATURE.fullmatch(name[:80])
    base = fields.get(found[1]) if found else None
    if found is not None and base is not None and base.path.endswith(_WITH_TEMPERATURE):
        return Field(f"{base.path}_at_{int(found[2])}K", base.type)
    near = get_close_matches(name[:80], fields, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise InputError(f"{kind} has no value {name[:80]!r}; {hint}there are {', '.join(sorted(fields))}")


def is_at_temperature(name: str) -> bool:
    """Whether a value of a summary is one of many temperatures, which tables show on request only.

    Parameters
    ----------
    name
        Name in the summary.

    Returns
    -------
    bool
        True for names such as "entropy_j_per_k_mol_at_500K".
    """
    return re.search(r"_at_\d+K$", name) is not None


def _at(document: Mapping[str, Any], path: str) -> Any:
    found: Any = document
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
