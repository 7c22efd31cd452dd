"""The names that people type in conditions, orders and columns, and where their values are stored.

A name is a field of the document (`nsites`), a value of its summary (`energy_per_atom_ev`), that value without its
unit (`energy_per_atom`), or one with a temperature in it (`kappa_300K`): then only results of that temperature count.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal, get_args

from esen_flows.errors import InputError
from esen_flows.schemas.documents import Kind
from esen_flows.structures.identity import canonical_chemsys, canonical_formula

Type = Literal["number", "text", "boolean", "date", "list"]
# What can be asked for. Of those that are no `Kind` yet other versions may have stored results; here none are found.
KINDS = tuple(dict.fromkeys((*get_args(Kind), "static", "stability", "md", "training")))


@dataclass(frozen=True)
class Field:
    """Where a value is stored.

    Attributes
    ----------
    path
        in the document.
    type
        what it can be compared with; a list holds texts.
    only_if
        path and value that the document must have for this name to mean anything.
    true_text
        the stored text that makes a boolean true.
    canonical
        brings what is typed into the form that is stored.
    """

    path: str
    type: Type = "text"
    only_if: tuple[str, float] | None = None
    true_text: str | None = None
    canonical: Callable[[str], str] | None = None

    def value(self, document: Mapping[str, Any]) -> Any:
        """The value in a document (as a dictionary), None where it has none."""
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
    "key": Field("key"),
    "parent_key": Field("parent_key"),
    "structure_key": Field("structure_key"),
    "model": Field("model_label"),
    "model_label": Field("model_label"),
    "model_key": Field("model_key"),
    "state": Field("state"),
    "attempt": Field("attempt", "number"),
    "error": Field("failure.error"),
    "message": Field("failure.message"),
    "final": Field("failure.final", "boolean"),
    "dtype": Field("numeric.dtype"),
    "device": Field("provenance.device"),
    "host": Field("provenance.host"),
    "seconds": Field("provenance.seconds", "number"),
    "force_evaluations": Field("provenance.force_evaluations", "number"),
    # Lattice results exist only where the relaxation that they start from converged: otherwise they have failed.
    "converged": Field("state", "boolean", true_text="finished"),
}
_LATTICE = {
    "a_angstrom": "number",
    "b_angstrom": "number",
    "c_angstrom": "number",
    "space_group": "text",
}
_ERRORS = {
    "energy_mae_mev_per_atom": "number",
    "energy_rmse_mev_per_atom": "number",
    "force_mae_mev_per_angstrom": "number",
    "force_rmse_mev_per_angstrom": "number",
    "stress_mae_mev_per_angstrom3": "number",
}
# What esen_flows.makers.summaries writes; a test compares.
SUMMARIES: dict[str, dict[str, Type]] = {
    "relax": {
        "energy_per_atom_ev": "number",
        "volume_per_atom_angstrom3": "number",
        **_LATTICE,  # type: ignore[dict-item]
        "pressure_gpa": "number",
        "fmax_ev_per_angstrom": "number",
        "n_steps": "number",
        "converged": "boolean",
        "space_group_initial": "number",
        "space_group_final": "number",
    },
    "forces": {
        "displacements_fc2": "number",
        "atoms_fc2": "number",
        "displacements_fc3": "number",
        "atoms_fc3": "number",
        "parity_averaged": "boolean",
        "force_constants": "text",
    },
    "phonon": {
        "verdict": "text",
        "max_frequency_thz": "number",
        "min_frequency_thz": "number",
        **_LATTICE,  # type: ignore[dict-item]
        "temperature_kelvin": "number",
        "free_energy_kj_per_mol": "number",
        "entropy_j_per_k_mol": "number",
        "heat_capacity_j_per_k_mol": "number",
    },
    "conductivity": {
        "temperature_kelvin": "number",
        "kappa_rta_w_per_m_k": "number",
        "kappa_wigner_w_per_m_k": "number",
        "kappa_lbte_w_per_m_k": "number",
        **_LATTICE,  # type: ignore[dict-item]
        "max_frequency_thz": "number",
        "min_frequency_thz": "number",
        "mesh": "text",
        "phono3py": "text",
    },
    "labelling": {"dataset_key": "text", "dataset_name": "text", "structures": "number", "atoms": "number"},
    "training": {
        "name": "text",
        "model_key": "text",
        "structures": "number",
        "steps": "number",
        "training_seconds": "number",
        **_ERRORS,  # type: ignore[dict-item]
    },
    "evaluation": {"dataset_name": "text", "structures": "number", **_ERRORS},  # type: ignore[dict-item]
}
_UNITS = (
    "_mev_per_atom", "_mev_per_angstrom3", "_mev_per_angstrom", "_ev_per_angstrom", "_kj_per_mol", "_j_per_k_mol",
    "_w_per_m_k", "_angstrom3", "_angstrom", "_kelvin", "_gpa", "_thz", "_ev",
)  # fmt: skip
_WITH_TEMPERATURE = ("_kj_per_mol", "_j_per_k_mol", "_w_per_m_k")
_ROOM_TEMPERATURE = ("summary.temperature_kelvin", 300.0)


@cache
def fields_of(kind: str) -> dict[str, Field]:
    """All names of a kind of result, or of "structures"."""
    if kind == "structures":
        return dict(_OF_STRUCTURES)
    fields = dict(_OF_RESULTS)
    for name, value_type in SUMMARIES.get(kind, {}).items():
        fields[name] = Field(f"summary.{name}", value_type)
        unit = next((unit for unit in _UNITS if name.endswith(unit)), None)
        if unit is None:
            continue
        short = name.removesuffix(unit)
        fields[short] = fields[name]
        if unit in _WITH_TEMPERATURE:
            fields[f"{short}_300K"] = Field(f"summary.{name}", value_type, only_if=_ROOM_TEMPERATURE)
    if kind == "phonon":
        fields["stable"] = Field("summary.verdict", "boolean", true_text="stable")
        fields["unstable"] = Field("summary.verdict", "boolean", true_text="unstable")
    if kind == "conductivity":
        fields["kappa"], fields["kappa_300K"] = fields["kappa_rta"], fields["kappa_rta_300K"]
    return fields


def find_field(kind: str, name: str) -> Field:
    """The field that a name means.

    Raises
    ------
    InputError
        there is none; the message names those that exist.
    """
    fields = fields_of(kind)
    if name in fields:
        return fields[name]
    near = get_close_matches(name[:80], fields, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise InputError(f"{kind} has no value {name[:80]!r}; {hint}there are {', '.join(sorted(fields))}")


def _at(document: Mapping[str, Any], path: str) -> Any:
    found: Any = document
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
