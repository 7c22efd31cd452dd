"""Requests of results as chains of keyed steps, known before anything is computed, without torch or a database.

A property is a chain of steps. The key of each step contains that of its parent, so that the key of the last step is
known at once and tells whether there is anything to do. Force calls (relax, forces) and the steps that follow from them
(phonon, conductivity) are separate steps: another mesh or temperature uses the same forces.
"""

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any, get_args

from pydantic import model_validator

from esen_flows.schemas.documents import Kind
from esen_flows.schemas.frozen import Closed, Frozen
from esen_flows.schemas.keys import result_key
from esen_flows.schemas.lattice_versions import TRANSPORT_BACKEND, lattice_versions
from esen_flows.schemas.protocols import (
    AnyProtocol,
    ConductivityProtocol,
    DisplacementProtocol,
    HarmonicProtocol,
    NumericSettings,
    PhononProtocol,
    RelaxProtocol,
    TransportProtocol,
)
from esen_flows.schemas.training import RANDOM_WEIGHTS, EvaluationProtocol, LabellingProtocol, TrainingProtocol

# Raised by hand when the numbers of a step change for the same input. Old results then keep their old keys.
NUMERICS_REVISION: dict[Kind, int] = {
    "relax": 1, "forces": 1, "phonon": 1, "conductivity": 1, "labelling": 1, "training": 1, "evaluation": 1,
}  # fmt: skip

# Protocols of the steps, in the order of `Kind`.
Protocol = (
    RelaxProtocol
    | DisplacementProtocol
    | HarmonicProtocol
    | TransportProtocol
    | LabellingProtocol
    | TrainingProtocol
    | EvaluationProtocol
)
STEP_PROTOCOLS: dict[str, type[Frozen]] = dict(zip(get_args(Kind), get_args(Protocol), strict=True))


class ResultRequest(Closed):
    """One requested step.

    `model_dump(mode="json")` is a small dictionary that jobs carry; `model_validate` restores the request.

    Attributes
    ----------
    kind
        Kind of the step.
    protocol
        Protocol of the step.
    parent_key
        Key of the input structure or dataset, or of the result, from which the step starts.
    structure_key
        Key of the input structure, or the dataset, at the root of the chain.
    model_key
        Key of the force field.
    numeric
        Numeric settings of the step.
    numerics_revision
        Revision of the step's numerics.
    """

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
        """Read a plain dictionary as the protocol of its kind, never as another protocol with the same fields."""
        if isinstance(values, Mapping) and isinstance(values.get("protocol"), Mapping):
            step = STEP_PROTOCOLS.get(values["kind"])
            if step is not None:
                return {**values, "protocol": step.model_validate(values["protocol"])}
        return values

    @cached_property
    def key(self) -> str:
        """Key under which the result is stored."""
        numeric = self.numeric.key_fields()
        return result_key(
            self.kind, self.protocol.hash(), self.parent_key, self.model_key, numeric, self.numerics_revision
        )


def relax_request(
    structure_key: str, model_key: str, protocol: RelaxProtocol, numeric: NumericSettings
) -> ResultRequest:
    """Request of the relaxation of an input structure.

    Parameters
    ----------
    structure_key
        Key of the structure.
    model_key
        Key of the force field.
    protocol
        Protocol of the relaxation.
    numeric
        Numeric settings.

    Returns
    -------
    ResultRequest
        The request.
    """
    return _request("relax", protocol, structure_key, structure_key, model_key, numeric)


def lattice_requests(
    structure_key: str, model_key: str, protocol: PhononProtocol | ConductivityProtocol, numeric: NumericSettings
) -> tuple[ResultRequest, ResultRequest, ResultRequest]:
    """Requests of the steps to harmonic phonons or to lattice thermal conductivity.

    Parameters
    ----------
    structure_key
        Key of the structure.
    model_key
        Key of the force field.
    protocol
        Protocol of the phonons or of the conductivity.
    numeric
        Numeric settings.

    Returns
    -------
    tuple[ResultRequest, ResultRequest, ResultRequest]
        Relaxation, forces, and phonons or conductivity.
    """
    displacement = protocol.displacement
    # With the parity of the displacements, so that all force calls of a flow see one energy surface.
    relaxation = protocol.relax.model_copy(update={"parity": displacement.parity})
    relax = relax_request(structure_key, model_key, relaxation, numeric)
    forces = _request("forces", displacement, relax.key, structure_key, model_key, numeric)
    versions = lattice_versions(numeric.lattice_backend or TRANSPORT_BACKEND)
    last = partial(_request, parent_key=forces.key, structure_key=structure_key, model_key=model_key)
    if isinstance(protocol, PhononProtocol):
        # Harmonic phonons do not use phono3py, so that its next version must not change their keys.
        numeric = numeric.model_copy(update={"phonopy": versions["phonopy"], "lattice_backend": None})
        return relax, forces, last("phonon", HarmonicProtocol.of(protocol), numeric=numeric)
    numeric = numeric.model_copy(update=versions)
    return relax, forces, last("conductivity", TransportProtocol.of(protocol), numeric=numeric)


def property_requests(
    structure_key: str, model_key: str, protocol: AnyProtocol, numeric: NumericSettings
) -> tuple[ResultRequest, ...]:
    """Requests of the steps to the property of a protocol; the last one is the answer.

    Parameters
    ----------
    structure_key
        Key of the structure.
    model_key
        Key of the force field.
    protocol
        Protocol of the property.
    numeric
        Numeric settings.

    Returns
    -------
    tuple[ResultRequest, ...]
        One request for each step.
    """
    if isinstance(protocol, RelaxProtocol):
        return (relax_request(structure_key, model_key, protocol, numeric),)
    return lattice_requests(structure_key, model_key, protocol, numeric)


def labelling_request(
    structures_key: str, model_key: str, protocol: LabellingProtocol, numeric: NumericSettings
) -> ResultRequest:
    """Request of labels for structures.

    Parameters
    ----------
    structures_key
        `keys.sha256_of` the list of the structures' keys.
    model_key
        Key of the force field that labels.
    protocol
        Protocol of the labelling.
    numeric
        Numeric settings.

    Returns
    -------
    ResultRequest
        The request.
    """
    return _request("labelling", protocol, structures_key, structures_key, model_key, numeric)


def training_request(
    protocol: TrainingProtocol, *, parent: tuple[str, str] | None = None, initial_model_key: str | None = None
) -> ResultRequest:
    """Request of one training stage.

    Parameters
    ----------
    protocol
        Settings and data of the stage; the precision is one of its settings.
    parent
        Result key and `model_key` of the training whose network is the start of this one.
    initial_model_key
        Key of the force field from which a training without a parent starts; None for random weights.

    Returns
    -------
    ResultRequest
        The request.
    """
    data = protocol.datasets[0][0]
    parent_key, model_key = parent or (data, initial_model_key or RANDOM_WEIGHTS)
    numeric = NumericSettings(dtype=protocol.config.get("dtype", "float32"))
    return _request("training", protocol, parent_key, data, model_key, numeric)


def evaluation_request(
    dataset_key: str, model_key: str, protocol: EvaluationProtocol, numeric: NumericSettings
) -> ResultRequest:
    """Request of the errors of a force field on a dataset.

    Parameters
    ----------
    dataset_key
        Key of the dataset.
    model_key
        Key of the force field.
    protocol
        Protocol of the evaluation.
    numeric
        Numeric settings.

    Returns
    -------
    ResultRequest
        The request.
    """
    return _request("evaluation", protocol, dataset_key, dataset_key, model_key, numeric)


def _request(
    kind: Kind, protocol: Protocol, parent_key: str, structure_key: str, model_key: str, numeric: NumericSettings
) -> ResultRequest:
    if kind not in ("phonon", "conductivity"):
        # Other steps do not use phonopy, so that its next version must not change their keys.
        numeric = numeric.model_copy(update={"phonopy": None, "phono3py": None, "lattice_backend": None})
    return ResultRequest(
        kind=kind,
        protocol=protocol,
        parent_key=parent_key,
        structure_key=structure_key,
        model_key=model_key,
        numeric=numeric,
        numerics_revision=NUMERICS_REVISION[kind],
    )
