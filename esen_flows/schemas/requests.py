"""What is asked for, as a chain of keyed requests: known before anything is computed, without torch or a database.

A property is a chain of steps. Each step's key holds its parent's, so that the key of the last one is known at once and
says whether there is anything to do. Force calls (relax, forces) and what follows from them (phonon, conductivity) are
steps of their own: another mesh or temperature shares the forces.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from esen_flows.schemas.documents import Kind
from esen_flows.schemas.keys import result_key
from esen_flows.schemas.lattice_versions import lattice_versions
from esen_flows.schemas.protocols import (
    ConductivityProtocol,
    DisplacementProtocol,
    Frozen,
    HarmonicProtocol,
    NumericSettings,
    Parity,
    PhononProtocol,
    RelaxProtocol,
    TransportProtocol,
)
from esen_flows.schemas.training import RANDOM_WEIGHTS, EvaluationProtocol, LabellingProtocol, TrainingProtocol

# Raised by hand when a step's numbers change for the same input; old results then stay, under their old keys.
NUMERICS_REVISION: dict[Kind, int] = {
    "relax": 1, "forces": 1, "phonon": 1, "conductivity": 1, "labelling": 1, "training": 1, "evaluation": 1,
}  # fmt: skip

STEP_PROTOCOLS: dict[str, type[Frozen]] = {
    "relax": RelaxProtocol,
    "forces": DisplacementProtocol,
    "phonon": HarmonicProtocol,
    "conductivity": TransportProtocol,
    "labelling": LabellingProtocol,
    "training": TrainingProtocol,
    "evaluation": EvaluationProtocol,
}
Protocol = (
    RelaxProtocol
    | DisplacementProtocol
    | HarmonicProtocol
    | TransportProtocol
    | LabellingProtocol
    | TrainingProtocol
    | EvaluationProtocol
)


class ResultRequest(BaseModel):
    """One step that somebody asks for; `key` is where its result is stored.

    `model_dump(mode="json")` is a small dictionary that jobs carry; `model_validate` restores it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    kind: Kind
    protocol: Protocol
    parent_key: str
    structure_key: str
    model_key: str
    numeric: NumericSettings
    numerics_revision: int

    @model_validator(mode="before")
    @classmethod
    def _protocol_of_kind(cls, values: Any) -> Any:
        """Read a plain dictionary as the protocol of its kind, never as a look-alike."""
        if isinstance(values, Mapping) and isinstance(values.get("protocol"), Mapping):
            step = STEP_PROTOCOLS.get(values["kind"])
            if step is not None:
                return {**values, "protocol": step.model_validate(values["protocol"])}
        return values

    @cached_property
    def key(self) -> str:
        """The result key."""
        return result_key(
            self.kind,
            self.protocol.hash(),
            self.parent_key,
            self.model_key,
            self.numeric.key_fields(),
            self.numerics_revision,
        )


def relax_request(
    structure_key: str, model_key: str, protocol: RelaxProtocol, numeric: NumericSettings
) -> ResultRequest:
    """A relaxation of an input structure."""
    return _request("relax", protocol, structure_key, structure_key, model_key, _of_forces(numeric))


def phonon_requests(
    structure_key: str, model_key: str, protocol: PhononProtocol, numeric: NumericSettings
) -> tuple[ResultRequest, ResultRequest, ResultRequest]:
    """The steps to harmonic phonons: relax, forces, phonon."""
    relax, forces = _force_steps(structure_key, model_key, protocol.relax, protocol.displacement, numeric)
    derived = HarmonicProtocol.of(protocol)
    phonon = _request("phonon", derived, forces.key, structure_key, model_key, _derived(numeric, "phonon"))
    return relax, forces, phonon


def conductivity_requests(
    structure_key: str, model_key: str, protocol: ConductivityProtocol, numeric: NumericSettings
) -> tuple[ResultRequest, ResultRequest, ResultRequest]:
    """The steps to lattice thermal conductivity: relax, forces, conductivity."""
    relax, forces = _force_steps(structure_key, model_key, protocol.relax, protocol.displacement, numeric)
    derived = TransportProtocol.of(protocol)
    numeric = _derived(numeric, "conductivity")
    return relax, forces, _request("conductivity", derived, forces.key, structure_key, model_key, numeric)


def property_requests(
    structure_key: str,
    model_key: str,
    protocol: RelaxProtocol | PhononProtocol | ConductivityProtocol,
    numeric: NumericSettings,
) -> tuple[ResultRequest, ...]:
    """The steps to the property that a protocol is of; the last one is the answer."""
    if isinstance(protocol, RelaxProtocol):
        return (relax_request(structure_key, model_key, protocol, numeric),)
    if isinstance(protocol, PhononProtocol):
        return phonon_requests(structure_key, model_key, protocol, numeric)
    return conductivity_requests(structure_key, model_key, protocol, numeric)


def labelling_request(
    structures_key: str, model_key: str, protocol: LabellingProtocol, numeric: NumericSettings
) -> ResultRequest:
    """Labels of structures, which are known by `keys.sha256_of` over all of theirs."""
    return _request("labelling", protocol, structures_key, structures_key, model_key, _of_forces(numeric))


def training_request(
    protocol: TrainingProtocol,
    *,
    parent: tuple[str, str] | None = None,
    initial_model_key: str | None = None,
) -> ResultRequest:
    """One training stage.

    Parameters
    ----------
    protocol
        its settings and data; precision is one of its settings.
    parent
        result key and `model_key` of the training whose network this one starts from.
    initial_model_key
        of the force field to start from, without a parent; None: random weights.
    """
    data = protocol.datasets[0][0]
    parent_key, model_key = parent or (data, initial_model_key or RANDOM_WEIGHTS)
    numeric = NumericSettings(dtype=protocol.config.get("dtype", "float32"))
    return _request("training", protocol, parent_key, data, model_key, numeric)


def evaluation_request(
    dataset_key: str, model_key: str, protocol: EvaluationProtocol, numeric: NumericSettings
) -> ResultRequest:
    """Errors of a force field on a dataset."""
    return _request("evaluation", protocol, dataset_key, dataset_key, model_key, _of_forces(numeric))


def _force_steps(
    structure_key: str,
    model_key: str,
    relax: RelaxProtocol,
    displacement: DisplacementProtocol,
    numeric: NumericSettings,
) -> tuple[ResultRequest, ResultRequest]:
    relaxation = relax_request(structure_key, model_key, with_parity(relax, displacement.parity), numeric)
    numeric = _of_forces(numeric)
    return relaxation, _request("forces", displacement, relaxation.key, structure_key, model_key, numeric)


def with_parity(relax: RelaxProtocol, parity: Parity) -> RelaxProtocol:
    """The relaxation with the parity of its displacements: all force calls of a flow see one energy surface."""
    return relax.model_copy(update={"parity": parity})


def _of_forces(numeric: NumericSettings) -> NumericSettings:
    # Force calls know nothing of phonopy: its next release must not ask for them again.
    return numeric.model_copy(update={"phonopy": None, "phono3py": None, "lattice_backend": None})


def _derived(numeric: NumericSettings, kind: Kind) -> NumericSettings:
    versions = lattice_versions()
    if kind == "phonon":
        versions = {name: value for name, value in versions.items() if name == "phonopy"}
    return numeric.model_copy(update=versions)


def _request(
    kind: Kind, protocol: Frozen, parent_key: str, structure_key: str, model_key: str, numeric: NumericSettings
) -> ResultRequest:
    return ResultRequest.model_validate(
        {
            "kind": kind,
            "protocol": protocol,
            "parent_key": parent_key,
            "structure_key": structure_key,
            "model_key": model_key,
            "numeric": numeric,
            "numerics_revision": NUMERICS_REVISION[kind],
        }
    )
