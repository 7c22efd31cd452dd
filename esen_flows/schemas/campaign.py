"""A campaign: one property of many structures by some force fields, as one flat specification.

Each pair of a structure and a force field is a member. The requests of a member are known, and have their keys, before
anything is computed: they are those of a single command with the same protocol and `--set`.
"""

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from esen_flows.schemas.declarations import Dtype
from esen_flows.schemas.frozen import Closed, Frozen
from esen_flows.schemas.keys import canonical_json, result_key, sha256_of
from esen_flows.schemas.lattice_versions import TransportBackend
from esen_flows.schemas.properties import OFFERED, Kind
from esen_flows.schemas.property_entry import Step
from esen_flows.schemas.property_lookup import GENERAL, named_protocol, offered_entry, require_settings
from esen_flows.schemas.protocol_fields import field_names, with_values
from esen_flows.schemas.protocol_types import one_or_more
from esen_flows.schemas.protocols import NumericSettings
from esen_flows.schemas.requests import ResultRequest, parents_key, property_requests
from esen_flows.schemas.structure_source import Names, StructureSource

# A force field declares conservative, differentiable and o3; covers_elements: it was trained on all elements of all
# structures; inside_domain: on structures with exactly the elements of each structure; audit: it passed an audit in the
# precision of the campaign, which is asked when the campaign is submitted.
Requirement = Literal["conservative", "differentiable", "o3", "covers_elements", "inside_domain", "audit"]
Benchmark = Literal["kappa-103", "discovery", "mdr-phonons", "diatomics", "md", "static-errors"]
# What each benchmark judges.
JUDGED: dict[Benchmark, Kind] = {
    "kappa-103": "conductivity",
    "discovery": "relax",
    "mdr-phonons": "phonon",
    "diatomics": "diatomics",
    "md": "md",
    "static-errors": "static",
}
# Field of protocols with displaced supercells that earlier versions did not have.
SETTING = "displacement.setting"


def _offered(value: Kind) -> Kind:
    if value not in OFFERED:
        raise ValueError(f"choose from {', '.join(OFFERED)}, got {value!r}")
    return value


# Fields that commit e87b9cb did not have.
ADDED_LATER = frozenset({"benchmark", "energy_corrections", "lattice_backend"})
_ADDED_TO_STRUCTURES = {"dataset", "sample"}


class CampaignSpec(Closed):
    """Everything that defines a campaign.

    Two specifications with the same `sha256` are the same campaign; comments and the order of fields do not count.

    Attributes
    ----------
    name
        Name of the campaign: letters, digits, "_", "." and "-", at most 63.
    description
        Purpose of the campaign in words; not part of its identity.
    property
        Property that is computed.
    structures
        Source of the structures; None for a property of force fields.
    models
        Force fields: names of cards, or paths of checkpoints.
    protocol
        Name of a published protocol; None, the default, is "general", this package's own.
    settings
        Fields of the protocol by their dotted names, as a command's `--set`. Specifications that were stored before
        there was a choice displace cells as they were given; `read_spec` writes the setting of the general protocol
        into those of a file that says nothing.
    dtype
        Floating-point type of the force fields; float64 as for a single command.
    tags
        Tags of structures and results besides the name of the campaign.
    require
        Properties that every force field must have.
    duplicates
        Whether a structure that occurs twice is refused, the default because it is usually a mistake, or merged.
    benchmark
        Benchmark that judges the results in `campaign metrics` and `campaign report`.
    energy_corrections
        For the benchmark "discovery": whether corrections of MP2020 have to be added to the energies of the force
        fields ("add": they were trained on uncorrected energies), or are part of them ("contained", as for CHGNet).
    lattice_backend
        Implementation of the linewidths of conductivities. Specifications that were stored before there was a choice
        mean "Rust"; a file that says nothing means "native".
    target_minutes
        Predicted work of a firework in minutes: long against the start of a worker, short against a queue's walltime.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")
    description: str = ""
    property: Annotated[Kind, BeforeValidator(_offered)]
    structures: StructureSource | None = Field(default=None, validate_default=True)
    models: Names = Field(min_length=1)
    protocol: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    dtype: Dtype = "float64"
    tags: Names = ()
    require: Annotated[tuple[Requirement, ...], BeforeValidator(one_or_more)] = ()
    duplicates: Literal["refuse", "merge"] = "refuse"
    benchmark: Benchmark | None = None
    energy_corrections: Literal["add", "contained"] | None = None
    lattice_backend: TransportBackend = "Rust"
    target_minutes: PositiveFloat = 30.0

    @field_validator("models")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({model for model in value if value.count(model) > 1})
        if twice:
            raise ValueError(f"each force field once, got {', '.join(twice)} more than once")
        return value

    @field_validator("structures")
    @classmethod
    def _of_subject(cls, value: StructureSource | None, info: ValidationInfo) -> StructureSource | None:
        kind = info.data.get("property")
        if kind is None:  # which has a fault of its own
            return value
        of_models = offered_entry(kind).subject == "model"
        if of_models and value is not None:
            raise ValueError(f"{kind} is a property of force fields, which has no structures; leave this out")
        if not of_models and value is None:
            raise PydanticCustomError("missing", "Field required")
        return value

    @model_validator(mode="after")
    def _benchmark_of_property(self) -> "CampaignSpec":
        if self.benchmark is not None and self.property != JUDGED[self.benchmark]:
            raise ValueError(f"benchmark {self.benchmark} judges property: {JUDGED[self.benchmark]}")
        if self.benchmark == "static-errors" and self.structures is not None and not self.structures.dataset:
            raise ValueError("benchmark static-errors compares with labels; write structures: dataset: ...")
        if (self.benchmark == "discovery") != (self.energy_corrections is not None):
            raise ValueError(
                "benchmark: discovery and energy_corrections belong together; write energy_corrections: add for force "
                "fields trained on uncorrected energies, or contained for energies with the corrections of MP2020"
            )
        return self

    @cached_property
    def sha256(self) -> str:
        """Identity of the campaign: hash of all fields except the description.

        Fields that were added later are left out at their default, so that the identity of older campaigns stays.
        """
        fields = type(self).model_fields
        left_out: dict[str, Any] = dict.fromkeys(
            ("description", *(name for name in ADDED_LATER if getattr(self, name) == fields[name].default)), True
        )
        if self.structures is not None and not self.structures.dataset:
            left_out["structures"] = _ADDED_TO_STRUCTURES
        return sha256_of(self.model_dump(mode="json", exclude=left_out))

    @cached_property
    def numeric(self) -> NumericSettings:
        """Numeric settings of all members."""
        backend = self.lattice_backend if "lattice_backend" in offered_entry(self.property).versions else None
        return NumericSettings(dtype=self.dtype, lattice_backend=backend)

    @cached_property
    def all_tags(self) -> tuple[str, ...]:
        """Tags of structures and results of the campaign: its name first."""
        return tuple(dict.fromkeys((self.name, *self.tags)))

    @cached_property
    def of_models(self) -> bool:
        """Whether the property is one of force fields, so that each force field is one member."""
        return offered_entry(self.property).subject == "model"

    @cached_property
    def takes_own_settings(self) -> bool:
        """Whether the protocol takes supercells and mesh from each structure."""
        return self.protocol not in (None, GENERAL)

    @cached_property
    def _members(self) -> "dict[str, tuple[Frozen, tuple[StepKey, ...]]]":
        """Protocols and keys of steps by the structures' own settings; most campaigns have one entry."""
        return {}


# Roles and numbers of the earlier steps on which a step builds, and its key from that of its parents and that of the
# force field.
StepKey = tuple[tuple[tuple[str, int], ...], Callable[[str, str], str]]


def answer_summary_field(spec: CampaignSpec) -> str:
    """Field of the results' summary that tables of a campaign show.

    Parameters
    ----------
    spec
        The campaign.

    Returns
    -------
    str
        Name of the field.
    """
    # The protocol without a structure's own settings, on which no choice of a field depends.
    protocol = with_values(base_protocol(spec, {}), spec.settings.items())
    return offered_entry(spec.property).principal(protocol)


def base_protocol(spec: CampaignSpec, info: Mapping[str, Any]) -> Frozen:
    """The protocol of a campaign before its settings.

    Displacements are those of cells as they are given: another setting is in the settings of the campaign, so that
    specifications of earlier versions keep their meaning.

    Parameters
    ----------
    spec
        The campaign.
    info
        Supercells and mesh of the structure (`own_settings`).

    Returns
    -------
    Frozen
        The protocol, of the class that belongs to the property.

    Raises
    ------
    InputError
        The property has no protocol of that name.
    """
    protocol = named_protocol(spec.property, spec.protocol, info)
    return with_values(protocol, [(SETTING, "as_given")]) if SETTING in field_names(protocol) else protocol


def protocol_for(spec: CampaignSpec, info: Mapping[str, Any]) -> Frozen:
    """The protocol of a member.

    Parameters
    ----------
    spec
        The campaign.
    info
        Supercells and mesh of the structure (`own_settings`).

    Returns
    -------
    Frozen
        The protocol with the settings of the campaign.

    Raises
    ------
    InputError
        There is no such protocol, it refuses the settings, or nothing gives the supercells that it needs.
    """
    return _member(spec, info)[0]


def member_requests(
    spec: CampaignSpec, structure_key: str, model_key: str, info: Mapping[str, Any]
) -> tuple[ResultRequest, ...]:
    """The requests of a member, step by step; the last one is the answer.

    Parameters
    ----------
    spec
        The campaign.
    structure_key
        Key of the structure.
    model_key
        Key of the force field.
    info
        Supercells and mesh of the structure (`own_settings`).

    Returns
    -------
    tuple[ResultRequest, ...]
        One request for each step.

    Raises
    ------
    InputError
        As for `protocol_for`.
    """
    return property_requests(structure_key, model_key, protocol_for(spec, info), spec.numeric)


def member_keys(spec: CampaignSpec, structure_key: str, model_key: str, info: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of `member_requests` without the requests, in 30 microseconds instead of a millisecond.

    Parameters
    ----------
    spec
        The campaign.
    structure_key
        Key of the structure.
    model_key
        Key of the force field.
    info
        Supercells and mesh of the structure (`own_settings`).

    Returns
    -------
    tuple[str, ...]
        One key for each step.

    Raises
    ------
    InputError
        As for `protocol_for`.
    """
    keys: list[str] = []
    for parents, step_key in _member(spec, info)[1]:
        parent_key = parents_key({role: keys[number] for role, number in parents}) if parents else structure_key
        keys.append(step_key(parent_key, model_key))
    return tuple(keys)


def _member(spec: CampaignSpec, info: Mapping[str, Any]) -> tuple[Frozen, tuple[StepKey, ...]]:
    """Protocol and keys of the steps, made once for all members with the same settings of their structures."""
    name = canonical_json(dict(info)) if spec.takes_own_settings else ""
    if name not in spec._members:
        protocol = _protocol(spec, info)
        steps = offered_entry(spec.property).steps(protocol)
        requests = property_requests("", "", protocol, spec.numeric)
        spec._members[name] = protocol, tuple(map(_step_key, steps, requests))
    return spec._members[name]


def _step_key(step: Step, request: ResultRequest) -> StepKey:
    numeric, revision = request.numeric.key_fields(), request.numerics_revision
    key = partial(result_key, step.kind, step.protocol.hash(), numeric=numeric, numerics_revision=revision)
    return step.parents, key


def _protocol(spec: CampaignSpec, info: Mapping[str, Any]) -> Frozen:
    protocol = with_values(base_protocol(spec, info), spec.settings.items())
    remedy = "them to all by settings: displacement.fc2_supercell, displacement.fc3_supercell, mesh"
    require_settings(spec.property, spec.protocol, protocol, remedy)
    return protocol
