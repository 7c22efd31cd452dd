"""A campaign: one property of many structures by some force fields, as its specification says it in one flat file.

Each structure and force field is a member. What a member asks for is known, and keyed, before anything is computed: the
requests are those of a single command with the same protocol and `--set`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from ase import Atoms
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from esen_flows.errors import InputError
from esen_flows.schemas.documents import Kind
from esen_flows.schemas.keys import canonical_json, result_key, sha256_of
from esen_flows.schemas.named_protocols import (
    FC2_SUPERCELL,
    FC3_SUPERCELL,
    MESH,
    check_supercells,
    conductivity_protocol,
    phonon_protocol,
)
from esen_flows.schemas.protocol_fields import with_values
from esen_flows.schemas.protocols import (
    ConductivityProtocol,
    NumericSettings,
    PhononProtocol,
    RelaxProtocol,
    principal_conductivity,
)
from esen_flows.schemas.requests import ResultRequest, property_requests

Property = Literal["relax", "phonon", "conductivity"]
# conservative, differentiable and o3 are what a force field declares; covers_elements: it was trained on all elements
# of all structures.
Requirement = Literal["conservative", "differentiable", "o3", "covers_elements"]
PublishedSet = Literal["wbm", "phonondb-103", "mdr"]
AnyProtocol = RelaxProtocol | PhononProtocol | ConductivityProtocol
GENERAL = "general"
# What a structure may say of its own supercells and mesh; published protocols take it.
OWN_SETTINGS = (FC2_SUPERCELL, FC3_SUPERCELL, MESH)


class Closed(BaseModel):
    """A part of a specification: frozen, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def _several(value: Any) -> Any:
    """One name in the place of a list of them."""
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_several)]


class StructureQuery(Closed):
    """Structures that are stored: input structures, or the relaxed structures of finished relaxations.

    The other fields are the filters of `esen_flows.store.queries.query`.
    """

    of: Literal["structures", "relax"] = "structures"
    chemsys: str | None = None
    formula: str | None = None
    elements: Names = ()
    spacegroup: int | str | None = None
    campaign: str | None = None
    where: str | None = None
    sort: str | None = None
    limit: PositiveInt | None = None
    model: str | None = None  # of relaxations

    @model_validator(mode="after")
    def _model_of_relaxations(self) -> "StructureQuery":
        if self.model is not None and self.of == "structures":
            raise ValueError("input structures have no force field; leave `model` out, or write `of: relax`")
        return self

    def filters(self) -> dict[str, Any]:
        """The filters that are given, as `esen_flows.store.queries.query` takes them."""
        return {name: value for name, value in self.model_dump(exclude={"of"}).items() if value not in (None, ())}


class StructureSource(Closed):
    """Where the structures are: files, a query of the store, or a published set."""

    file: Names = ()  # FILE@3 is one structure of a file with several
    query: StructureQuery | None = None
    published: PublishedSet | None = None
    folder: str | None = None  # that holds the published set; None: where esen-flows keeps its downloads

    @model_validator(mode="after")
    def _exactly_one(self) -> "StructureSource":
        given = [name for name in ("file", "query", "published") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"give exactly one of file, query and published, got {', '.join(given) or 'none'}")
        if self.folder is not None and self.published is None:
            raise ValueError("`folder` is where a published set is; leave it out")
        return self


class CampaignSpec(Closed):
    """All that a campaign is.

    Two specifications with the same `sha256` are the same campaign; comments and the order of fields do not count.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")
    description: str = ""
    property: Property
    structures: StructureSource
    models: Names = Field(min_length=1)  # names of cards, or paths of checkpoints
    protocol: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)  # fields of the protocol, as a command's --set
    dtype: Literal["float32", "float64"] = "float64"
    tags: Names = ()  # that structures and results carry, besides the name of the campaign
    require: Annotated[tuple[Requirement, ...], BeforeValidator(_several)] = ()
    duplicates: Literal["refuse", "merge"] = "refuse"
    target_minutes: PositiveFloat = 30.0  # of work in a firework

    @field_validator("models")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({model for model in value if value.count(model) > 1})
        if twice:
            raise ValueError(f"each force field once, got {', '.join(twice)} more than once")
        return value

    @cached_property
    def sha256(self) -> str:
        """Of all fields but the description."""
        return sha256_of(self.model_dump(mode="json", exclude={"description"}))

    @cached_property
    def all_tags(self) -> tuple[str, ...]:
        """What structures and results of the campaign carry: its name first."""
        return tuple(dict.fromkeys((self.name, *self.tags)))

    @cached_property
    def takes_own_settings(self) -> bool:
        """Whether the protocol depends on what each structure says of its supercells and mesh."""
        return self.protocol not in (None, GENERAL)

    @cached_property
    def _asked(self) -> "dict[str, tuple[AnyProtocol, tuple[StepIdentity, ...]]]":
        """Protocol and steps by what a structure says of itself; most campaigns have one entry."""
        return {}


@dataclass(frozen=True)
class StepIdentity:
    """What the key of a step is made of, apart from structure and force field."""

    kind: Kind
    protocol_hash: str
    numeric: Mapping[str, Any]
    numerics_revision: int


def answer_summary_field(spec: CampaignSpec) -> str:
    """The number that tables of a campaign show, among the summary of its results.

    A conductivity is the one nearest to 300 K, in the relaxation-time approximation if that is asked for.
    """
    if spec.property == "relax":
        return "energy_per_atom_ev"
    if spec.property == "phonon":
        return "max_frequency_thz"
    given = [item for item in spec.settings.items() if item[0] == "methods"]
    return principal_conductivity(with_values(ConductivityProtocol(), given).methods)


def own_settings(info: Mapping[str, Any]) -> dict[str, Any]:
    """What `atoms.info` says of supercells and mesh, as plain lists; `protocol_for` takes it."""
    return {name: np.asarray(info[name]).astype(int).tolist() for name in OWN_SETTINGS if name in info}


def base_protocol(property: Property, name: str | None, info: Mapping[str, Any]) -> AnyProtocol:
    """A protocol by its name, before any settings.

    Raises
    ------
    InputError
        the property has no protocol of that name.
    """
    if property == "conductivity":
        return conductivity_protocol(name or GENERAL, Atoms(info=dict(info)))
    if property == "phonon":
        return phonon_protocol(name or GENERAL, info)
    if name not in (None, GENERAL):
        raise InputError(f"no protocol {name!r} of a relaxation; there is {GENERAL}, and `settings`")
    return RelaxProtocol()


def protocol_for(spec: CampaignSpec, info: Mapping[str, Any]) -> AnyProtocol:
    """The protocol of a member.

    Parameters
    ----------
    info
        what the structure says of its own supercells and mesh (`own_settings`).

    Raises
    ------
    InputError
        no such protocol, settings that it refuses, or supercells that nobody has said.
    """
    return _asked(spec, info)[0]


def numeric_of(spec: CampaignSpec) -> NumericSettings:
    """How all members are computed."""
    return NumericSettings(dtype=spec.dtype)


def member_requests(
    spec: CampaignSpec, structure_key: str, model_key: str, info: Mapping[str, Any]
) -> tuple[ResultRequest, ...]:
    """What a member asks for, step by step; the last one is the answer.

    Raises
    ------
    InputError
        see `protocol_for`.
    """
    return property_requests(structure_key, model_key, protocol_for(spec, info), numeric_of(spec))


def member_keys(spec: CampaignSpec, structure_key: str, model_key: str, info: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of `member_requests`, without making these: 30 microseconds where they take a millisecond.

    Raises
    ------
    InputError
        see `protocol_for`.
    """
    steps = _asked(spec, info)[1]
    keys: list[str] = []
    parent = structure_key
    for step in steps:
        parent = result_key(step.kind, step.protocol_hash, parent, model_key, step.numeric, step.numerics_revision)
        keys.append(parent)
    return tuple(keys)


def _asked(spec: CampaignSpec, info: Mapping[str, Any]) -> tuple[AnyProtocol, tuple[StepIdentity, ...]]:
    """Protocol and steps of a member, made once for all that ask alike."""
    said = canonical_json(dict(info)) if spec.takes_own_settings else ""
    found = spec._asked.get(said)
    if found is None:
        protocol = _protocol(spec, info)
        requests = property_requests("", "", protocol, numeric_of(spec))
        steps = tuple(
            StepIdentity(request.kind, request.protocol.hash(), request.numeric.key_fields(), request.numerics_revision)
            for request in requests
        )
        found = spec._asked[said] = protocol, steps
    return found


def _protocol(spec: CampaignSpec, info: Mapping[str, Any]) -> AnyProtocol:
    protocol = with_values(base_protocol(spec.property, spec.protocol, info), spec.settings.items())
    if isinstance(protocol, ConductivityProtocol):
        if protocol.displacement.order != 3:
            raise InputError("displacement.order: a conductivity needs third-order force constants, so it is 3")
        try:
            check_supercells(protocol, spec.protocol or GENERAL)
        except InputError:
            raise InputError(
                f"the protocol {spec.protocol} takes each structure's own supercells and mesh "
                f"({', '.join(OWN_SETTINGS)} in an extended XYZ file), and this one has none; give them to all by "
                "settings: displacement.fc2_supercell, displacement.fc3_supercell, mesh"
            ) from None
    return protocol
