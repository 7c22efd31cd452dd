"""From a specification to the members of a campaign in the store: what is to be computed, and what is there already."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from esen_flows.campaigns.cost import CostModel, member_cost, seconds_per_unit
from esen_flows.campaigns.identifying import Identifier
from esen_flows.campaigns.sources import PlannedStructure, planned_structures
from esen_flows.campaigns.spec import check_requirements
from esen_flows.errors import InputError, StructureError, UnknownElementError
from esen_flows.schemas.campaign import CampaignSpec, answer_summary_field, member_keys, protocol_for
from esen_flows.schemas.card import ModelReference, resolve_model
from esen_flows.schemas.protocols import RelaxProtocol
from esen_flows.store.bulk import batches, put_structures
from esen_flows.store.campaigns import (
    campaign_of,
    counts,
    create_campaign,
    delete_campaign,
    exclusive_lock,
    forget_members,
    insert_members,
    refresh_states,
    set_campaign_state,
)
from esen_flows.store.results import Store
from esen_flows.store.structures import add_tags, stored_identities
from esen_flows.structures.checks import check_cell_relaxation, check_crystal, check_elements, check_structure

BATCH = 1000
AHEAD = 2  # batches that are read before the first of them is stored
SHOWN = 10  # of what is listed
DEVICE_KINDS = ("cuda", "cpu")
T = TypeVar("T")


@dataclass(frozen=True)
class Planned:
    """A planned campaign; as a string, in a few lines.

    Attributes
    ----------
    name
        of the campaign.
    structures
        in its source, repeated ones counted once.
    repeated
        structures that the source has again (`duplicates: merge`).
    stored
        structures that were in the store before.
    members
        by state: pending, finished, failed; the latter two are there already.
    new
        members that this plan has added.
    pending_cost
        predicted edge evaluations of the pending ones.
    pending_hours
        hours on one device by its kind, where all force fields have been measured on it.
    doubtful
        structures that will probably fail, and why, as far as one can see.
    doubtful_count
        how many they are.
    """

    name: str
    structures: int
    repeated: int
    stored: int
    members: Mapping[str, int]
    new: int
    pending_cost: float
    pending_hours: Mapping[str, float]
    doubtful: tuple[str, ...]
    doubtful_count: int

    def __str__(self) -> str:
        states = ", ".join(f"{number} {state}" for state, number in self.members.items())
        lines = [
            f"campaign {self.name}: {sum(self.members.values())} members ({states}), {self.new} of them new",
            f"structures: {self.structures}, {self.stored} of them stored before"
            + (f"; {self.repeated} repeated ones merged" if self.repeated else ""),
        ]
        hours = " or ".join(f"{hours:.2g} {kind} hours" for kind, hours in self.pending_hours.items())
        if self.members.get("pending"):
            lines.append(f"pending: {self.pending_cost:.3g} edge evaluations, {hours or 'not measured yet'}")
        if self.doubtful_count:
            lines += [f"{self.doubtful_count} will probably fail:", *(f"  {text}" for text in self.doubtful)]
        return "\n".join(lines)


@dataclass
class _Listed:
    """The first few of many, and how many there are."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(text)

    def lines(self) -> str:
        more = [] if self.count <= SHOWN else [f"and {self.count - SHOWN} more"]
        return "\n".join(f"  {line}" for line in (*self.first, *more))


@dataclass
class _Notes:
    """What is noticed on the way through the structures."""

    plan: str = field(default_factory=lambda: uuid4().hex)  # noted in the members that it adds
    structures: int = 0
    stored: int = 0
    new: int = 0
    labels: dict[bytes, str] = field(default_factory=dict)  # of the first structure with that member key
    keys: set[bytes] = field(default_factory=set)  # of structures; a third of the size of their text
    faulty: set[str] = field(default_factory=set)  # keys of structures that will probably fail with any force field
    sound: int = 0  # members of which nothing bad is known
    repeated: _Listed = field(default_factory=_Listed)
    foreign: _Listed = field(default_factory=_Listed)
    doubtful: _Listed = field(default_factory=_Listed)


def plan(store: Store, spec: CampaignSpec, spec_text: str, on_progress: Callable[[int], None] | None = None) -> Planned:
    """Store the structures of a campaign and its members; repeating it adds nothing but what is new in the source.

    Parameters
    ----------
    spec_text
        what the specification was read from, kept for people.
    on_progress
        called with the number of structures so far.

    Raises
    ------
    InputError
        a force field that does not fit, another campaign of that name, structures that cannot be read, that
        are repeated (`duplicates: refuse`) or have foreign elements (`require: covers_elements`); no campaign or new
        member is left behind, but structures stay.
    ModelError
        a force field that is not on this machine.
    ClaimedElsewhereError
        another process is planning it.
    """
    models = [resolve_model(name) for name in spec.models]
    check_requirements(spec, models)
    costs = [CostModel.of(model) for model in models]
    # Of two at once, one that fails would delete what the other one plans.
    with exclusive_lock(store, f"campaign {spec.name} plan", f"another process is planning {spec.name!r}; wait for it"):
        return _plan(store, spec, spec_text, models, costs, on_progress or (lambda done: None))


def _plan(
    store: Store,
    spec: CampaignSpec,
    spec_text: str,
    models: Sequence[ModelReference],
    costs: Sequence[CostModel],
    on_progress: Callable[[int], None],
) -> Planned:
    create_campaign(store, _document(spec, spec_text, models, costs))
    # A plan that was killed leaves this state; whoever plans it again completes it.
    begun = campaign_of(store, spec.name)["state"] == "planning"
    notes = _Notes()
    try:
        _add_all(store, spec, list(zip(models, costs, strict=True)), notes, on_progress)
        _check(spec, notes)
    except BaseException:
        if begun:
            delete_campaign(store, spec.name)
        else:
            forget_members(store, spec.name, notes.plan)
        raise
    add_tags(store, (key.hex() for key in notes.keys), spec.all_tags)
    refresh_states(store, spec.name, answer_summary_field(spec))
    if begun:
        set_campaign_state(store, spec.name, "planned")
    return _planned(store, spec, models, notes)


def _document(
    spec: CampaignSpec, text: str, models: Sequence[ModelReference], costs: Sequence[CostModel]
) -> dict[str, Any]:
    return {
        "_id": spec.name,
        "spec": spec.model_dump(mode="json"),
        "spec_text": text,
        "spec_sha256": spec.sha256,
        "state": "planning",
        "models": [
            {
                "label": model.label,
                "key": model.key,
                "location": model.location,
                "cutoff_angstrom": cost.cutoff_angstrom,
            }
            for model, cost in zip(models, costs, strict=True)
        ],
    }


@dataclass(frozen=True)
class _Batch:
    """Structures on their way: those that are stored with what they are called, and what will say it of the others."""

    structures: list[PlannedStructure]
    stored: Mapping[str, Mapping[str, Any]]
    new: list[PlannedStructure]
    identities: Callable[[], list[dict[str, Any]]]


def _add_all(
    store: Store,
    spec: CampaignSpec,
    models: Sequence[tuple[ModelReference, CostModel]],
    notes: _Notes,
    on_progress: Callable[[int], None],
) -> None:
    """Store all structures and members, a batch at a time; the next ones are read while symmetries are looked for."""
    waiting: deque[_Batch] = deque()
    with Identifier() as identifier:
        for structures in batches(planned_structures(spec, store), BATCH):
            fresh = [one for one in structures if _is_first(spec, one, models[0][0], notes)]
            waiting.append(_look_up(store, spec, fresh, identifier, notes))
            if len(waiting) > AHEAD:
                _add(store, spec, waiting.popleft(), models, notes)
                on_progress(notes.structures)
        while waiting:
            _add(store, spec, waiting.popleft(), models, notes)
            on_progress(notes.structures)


def _add(
    store: Store,
    spec: CampaignSpec,
    batch: _Batch,
    models: Sequence[tuple[ModelReference, CostModel]],
    notes: _Notes,
) -> None:
    """Store a batch of structures and its members."""
    identities = _store_structures(store, batch)
    rows = []
    for structure in batch.structures:
        protocol, own = protocol_for(spec, structure.own), structure.own if spec.takes_own_settings else {}
        identity = identities[structure.key]
        for model, cost in models:
            steps = member_keys(spec, structure.key, model.key, structure.own)
            rows.append(
                {
                    "key": steps[-1],
                    "steps": list(steps),
                    "label": structure.label,
                    "structure_key": structure.key,
                    "model_key": model.key,
                    "model_label": model.label,
                    "formula": identity["formula"],
                    "nsites": identity["nsites"],
                    "info": own,
                    "cost": member_cost(structure.atoms, protocol, cost),
                    "plan": notes.plan,
                }
            )
            covered = _note_elements(spec, structure, model, notes)
            notes.sound += covered and structure.key not in notes.faulty
        notes.keys.add(bytes.fromhex(structure.key))
    notes.structures += len(batch.structures)
    notes.new += insert_members(store, spec.name, rows)


def _is_first(spec: CampaignSpec, structure: PlannedStructure, model: ModelReference, notes: _Notes) -> bool:
    """Whether no structure before has led to the same members.

    Raises
    ------
    InputError
        the structure does not say what the protocol needs to know of it.
    """
    try:
        key = bytes.fromhex(member_keys(spec, structure.key, model.key, structure.own)[-1])
    except InputError as error:
        raise InputError(f"{structure.label}: {error}") from error
    if key in notes.labels:
        notes.repeated.add(f"{structure.label} is the same as {notes.labels[key]}")
        return False
    notes.labels[key] = structure.label
    return True


def _look_up(
    store: Store, spec: CampaignSpec, structures: list[PlannedStructure], identifier: Identifier, notes: _Notes
) -> _Batch:
    """See which structures are stored, and begin to identify the others."""
    known = {one.key: one.known for one in structures if one.known is not None}
    stored = stored_identities(store, [one.key for one in structures if one.key not in known]) | known
    new = [one for one in structures if one.key not in stored]
    for one in new:
        _note_faults(spec, one, notes)
    notes.stored += len(structures) - len(new)
    return _Batch(structures, stored, new, identifier.begin([one.atoms for one in new]))


def _store_structures(store: Store, batch: _Batch) -> dict[str, Mapping[str, Any]]:
    """What the structures of a batch are called, by key, after those that were not stored are."""
    writes: list[tuple[Atoms, Mapping[str, Any]]] = []
    identities = dict(batch.stored)
    for one, identity in zip(batch.new, batch.identities(), strict=True):
        identities[one.key] = identity
        writes.append((one.atoms, {**identity, "material_ids": one.material_ids}))
    for one in batch.structures:
        stored = batch.stored.get(one.key)
        if stored is not None and not set(one.material_ids) <= set(stored["material_ids"]):
            same = {name: value for name, value in stored.items() if name != "material_ids"}
            writes.append((one.atoms, {**same, "material_ids": one.material_ids}))
    put_structures(store, writes)
    return identities


def _note_faults(spec: CampaignSpec, structure: PlannedStructure, notes: _Notes) -> None:
    """Look at a structure that is new to the store.

    Raises
    ------
    InputError
        it is none at all.
    """
    atoms, protocol = structure.atoms, protocol_for(spec, structure.own)
    if len(atoms) == 0 or not np.isfinite(atoms.positions.sum() + atoms.cell.array.sum()):
        raise InputError(f"{structure.label} has no atoms, or NaN positions or cell vectors; correct it or take it out")
    try:
        check_structure(atoms, structure.label)
        if not isinstance(protocol, RelaxProtocol):
            check_crystal(atoms, structure.label, spec.property)
        elif protocol.relax_cell:
            check_cell_relaxation(atoms, structure.label)
    except StructureError as error:
        notes.doubtful.add(str(error))
        notes.faulty.add(structure.key)


def _note_elements(spec: CampaignSpec, structure: PlannedStructure, model: ModelReference, notes: _Notes) -> bool:
    """Notice elements that a force field was not trained on; whether there are none."""
    try:
        check_elements(structure.atoms, model)
    except UnknownElementError:
        foreign = sorted(set(structure.atoms.numbers.tolist()) - (model.elements or set()))
        text = f"{structure.label}: {model.label} never saw {', '.join(chemical_symbols[z] for z in foreign)}"
        (notes.foreign if "covers_elements" in spec.require else notes.doubtful).add(text)
        return False
    return True


def _check(spec: CampaignSpec, notes: _Notes) -> None:
    """Refuse what can only be seen of all structures together.

    Raises
    ------
    InputError
        with the first ten and their number.
    """
    if notes.structures == 0:
        raise InputError(f"campaign {spec.name}: its source holds no structures; check `structures`")
    faults = []
    if notes.repeated.count and spec.duplicates == "refuse":
        faults.append(
            f"{notes.repeated.count} structures are there more than once; take them out, or write `duplicates: merge` "
            f"to compute each once:\n{notes.repeated.lines()}"
        )
    if notes.foreign.count:
        faults.append(
            f"`require: covers_elements` is not met {notes.foreign.count} times; take these structures out, choose "
            f"another force field, or leave the requirement out:\n{notes.foreign.lines()}"
        )
    if notes.doubtful.count and not notes.sound:
        faults.append(f"none of the structures can be computed:\n{notes.doubtful.lines()}")
    if faults:
        raise InputError("\n".join(f"campaign {spec.name}: {fault}" for fault in faults))


def _planned(store: Store, spec: CampaignSpec, models: Sequence[ModelReference], notes: _Notes) -> Planned:
    rows = counts(store, spec.name)
    states = dict.fromkeys(("pending", "finished", "failed"), 0)
    cost = dict.fromkeys((model.label for model in models), 0.0)
    for row in rows:
        states[row["state"]] += row["members"]
        if row["state"] == "pending":
            cost[row["model_label"]] += row["cost"]
    hours = {}
    for kind in DEVICE_KINDS:
        rates = [seconds_per_unit(store, model.key, kind) for model in models]
        known = [rate * cost[model.label] for rate, model in zip(rates, models, strict=True) if rate is not None]
        if len(known) == len(models):
            hours[kind] = sum(known) / 3600.0
    return Planned(
        name=spec.name,
        structures=notes.structures,
        repeated=notes.repeated.count,
        stored=notes.stored,
        members=states,
        new=notes.new,
        pending_cost=sum(cost.values()),
        pending_hours=hours,
        doubtful=tuple(notes.doubtful.first),
        doubtful_count=notes.doubtful.count,
    )
