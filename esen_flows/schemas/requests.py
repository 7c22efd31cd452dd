"""Requests of results as keyed steps, known before anything is computed, without torch or a database.

A property is a chain of steps, or a graph of them where a step builds on several others. The key of each step contains
those of its parents, so that the key of the last step is known at once and tells whether there is anything to do. Force
calls (relax, forces) and the steps that follow from them (phonons, transport) are separate steps: another mesh or
temperature uses the same forces.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, cast

from pydantic import Field, SerializeAsAny, model_validator

from esen_flows.schemas.frozen import Closed, Frozen
from esen_flows.schemas.keys import result_key, sha256_of
from esen_flows.schemas.lattice_versions import TRANSPORT_BACKEND, lattice_versions
from esen_flows.schemas.properties import Kind
from esen_flows.schemas.property_lookup import entry_of, kind_of
from esen_flows.schemas.protocols import NumericSettings
from esen_flows.schemas.training import RANDOM_WEIGHTS, EvaluationProtocol, LabellingProtocol, TrainingProtocol


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
        Key of the input structure, dataset or force field, or of the result, from which the step starts; `parents_key`
        of several.
    structure_key
        Key of the input structure, dataset or force field at the root of the chain.
    model_key
        Key of the force field.
    numeric
        Numeric settings of the step.
    numerics_revision
        Revision of the step's numerics.
    parents
        Keys of several results on which the step builds, by their roles; empty for a single one.
    """

    kind: Kind
    protocol: SerializeAsAny[Frozen]
    parent_key: str
    structure_key: str
    model_key: str
    numeric: NumericSettings
    numerics_revision: int
    parents: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _protocol_of_kind(cls, values: Any) -> Any:
        """Read a plain dictionary as the protocol of its kind, never as another protocol with the same fields."""
        if isinstance(values, Mapping) and isinstance(values.get("protocol"), Mapping):
            step = entry_of(values["kind"]).step_protocol
            return {**values, "protocol": step.model_validate(values["protocol"])}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> "ResultRequest":
        step = entry_of(self.kind).step_protocol
        if type(self.protocol) is not step:
            raise ValueError(f"{self.kind} has a {step.__name__}, got a {type(self.protocol).__name__}")
        if self.parents and self.parent_key != parents_key(self.parents):
            raise ValueError("parent_key is not the key of `parents`")
        return self

    @property
    def starts_from_input(self) -> bool:
        """Whether the step starts from the input structure rather than from another result."""
        return self.parent_key == self.structure_key

    @cached_property
    def key(self) -> str:
        """Key under which the result is stored."""
        numeric = self.numeric.key_fields()
        return result_key(
            self.kind, self.protocol.hash(), self.parent_key, self.model_key, numeric, self.numerics_revision
        )


def parents_key(parents: Mapping[str, str]) -> str:
    """Key of several parents, over the pairs of role and key sorted by role.

    Parameters
    ----------
    parents
        Keys of results by their roles.

    Returns
    -------
    str
        The key of a single parent without a role; otherwise a hexadecimal sha256.
    """
    if list(parents) == [""]:
        return parents[""]
    return sha256_of([[role, key] for role, key in sorted(parents.items())])


def property_requests(
    structure_key: str, model_key: str, protocol: Frozen, numeric: NumericSettings
) -> tuple[ResultRequest, ...]:
    """Requests of the steps to the property of a protocol; the last one is the answer.

    Parameters
    ----------
    structure_key
        Key of the structure; that of the force field again for a property of the force field itself.
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

    Raises
    ------
    InputError
        It is not the protocol of a property that can be asked for.
    """
    requests: list[ResultRequest] = []
    for step in entry_of(kind_of(protocol)).steps(protocol):
        parents = {role: requests[number].key for role, number in step.parents}
        parent_key = parents_key(parents) if parents else structure_key
        several = {} if list(parents) == [""] else parents
        requests.append(_request(step.kind, step.protocol, parent_key, structure_key, model_key, numeric, several))
    return tuple(requests)


def following_request(of: ResultRequest, kind: str, protocol: Frozen, parents: Mapping[str, str]) -> ResultRequest:
    """Request of a step that builds on results which are known only while another step is computed.

    Parameters
    ----------
    of
        Request of the other step, whose structure, force field and numeric settings are shared.
    kind
        Kind of the step.
    protocol
        Its protocol.
    parents
        Keys of the results on which it builds, by their roles; the role of a single one is empty. No key for a step
        that starts from the input structure.

    Returns
    -------
    ResultRequest
        The request.
    """
    parent_key = parents_key(parents) if parents else of.structure_key
    several = {} if list(parents) == [""] else parents
    return _request(kind, protocol, parent_key, of.structure_key, of.model_key, of.numeric, several)


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
    kind: str,
    protocol: Frozen,
    parent_key: str,
    structure_key: str,
    model_key: str,
    numeric: NumericSettings,
    parents: Mapping[str, str] | None = None,
) -> ResultRequest:
    entry = entry_of(kind)
    # The next version of phonopy must change no key of a step that does not use it.
    versions: dict[str, str | None] = dict.fromkeys(("phonopy", "phono3py", "lattice_backend"))
    if entry.versions:
        here = lattice_versions(numeric.lattice_backend or TRANSPORT_BACKEND)
        versions |= {name: here[name] for name in entry.versions}
    return ResultRequest(
        kind=cast(Kind, kind),
        protocol=protocol,
        parent_key=parent_key,
        structure_key=structure_key,
        model_key=model_key,
        numeric=numeric.model_copy(update=versions),
        numerics_revision=entry.numerics_revision,
        parents=dict(parents or {}),
    )
