"""Planning of a campaign: its structures and members are stored, and stored results are found."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from ase import Atoms

from esen_flows.campaigns.cost import CostModel, member_cost
from esen_flows.campaigns.identifying import Identifier
from esen_flows.campaigns.plan_checks import PlanChecks
from esen_flows.campaigns.precision import hours_in_words, pending_hours, precision_advice
from esen_flows.campaigns.sources import PlannedStructure, planned_structures
from esen_flows.campaigns.spec import check_requirements
from esen_flows.schemas.campaign import CampaignSpec, answer_summary_field, member_keys, protocol_for
from esen_flows.schemas.card import ModelReference, resolve_model
from esen_flows.store.bulk import batches, put_structures
from esen_flows.store.campaign_progress import counts, refresh_states
from esen_flows.store.campaigns import (
    campaign_of,
    create_campaign,
    delete_campaign,
    exclusive_lock,
    forget_members,
    insert_members,
    note_warnings,
    set_campaign_state,
)
from esen_flows.store.database import Row
from esen_flows.store.results import Store
from esen_flows.store.structures import add_tags, stored_identities
from esen_flows.store.timings import DeviceKind

_AHEAD = 2  # batches that are read before the first of them is stored


@dataclass(frozen=True)
class Planned:
    """A planned campaign; as a string, a few lines.

    Attributes
    ----------
    name
        Name of the campaign.
    structures
        Number of structures in its source; repeated ones are counted once.
    repeated
        Number of structures that repeat an earlier one (`duplicates: merge`).
    stored
        Number of structures that were in the store before.
    members
        Number of members by state: pending, finished, failed. The latter two are stored already.
    new
        Number of members that this plan has added.
    pending_cost
        Predicted edge evaluations of the pending members.
    pending_hours
        Predicted hours on one device, by "device in precision", such as "cuda in float64"; only those on which all
        force fields were measured.
    device
        Kind of device that was asked for; None: all kinds.
    dtype
        Precision of the campaign.
    doubtful
        The first structures that will probably fail, and why.
    doubtful_count
        Number of structures that will probably fail.
    outside
        The first structures whose elements a force field never saw together.
    outside_count
        Number of pairs of such a structure and a force field.
    bad
        The first structures that were left out because they cannot be used, and why.
    bad_count
        Number of structures that were left out.
    precision
        What the campaign's precision costs, where a lower one is enough; otherwise empty.
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
    outside: tuple[str, ...] = ()
    outside_count: int = 0
    bad: tuple[str, ...] = ()
    bad_count: int = 0
    precision: str = ""
    device: DeviceKind | None = None
    dtype: str = "float64"

    def __str__(self) -> str:
        states = ", ".join(f"{number} {state}" for state, number in self.members.items())
        lines = [
            f"campaign {self.name}: {sum(self.members.values())} members ({states}), {self.new} of them new",
        ]
        if self.structures:
            merged = f"; {self.repeated} repeated ones merged" if self.repeated else ""
            lines.append(f"structures: {self.structures}, {self.stored} of them stored before{merged}")
        if self.members.get("pending"):
            lines.append(f"pending: {self.pending_cost:.3g} edge evaluations, {self._hours}")
            lines += [self.precision] if self.precision else []
        return "\n".join([*lines, *self.warnings])

    @property
    def _hours(self) -> str:
        return hours_in_words(self.pending_hours, self.dtype, self.device)

    @property
    def warnings(self) -> list[str]:
        """Lines on structures that will probably fail, and on those that were left out."""
        lists = (
            ("will probably fail", self.doubtful_count, self.doubtful),
            ("outside of what the force field was trained on", self.outside_count, self.outside),
            ("left out", self.bad_count, self.bad),
        )
        lines = []
        for words, count, first in lists:
            if count:
                more = [f"  and {count - len(first)} more"] if count > len(first) else []
                lines += [f"{count} {words}:", *(f"  {text}" for text in first), *more]
        return lines


def plan(
    store: Store,
    spec: CampaignSpec,
    spec_text: str,
    on_progress: Callable[[int], None] | None = None,
    *,
    skip_bad: bool = False,
    device: DeviceKind | None = None,
) -> Planned:
    """Store the structures of a campaign and its members; if it is repeated, only new structures are added.

    Parameters
    ----------
    store
        Store that gets the campaign.
    spec
        Specification.
    spec_text
        Text that the specification was read from, which is kept for people.
    on_progress
        Called with the number of structures so far.
    skip_bad
        Whether structures that cannot be read or have no meaning are left out instead of refused.
    device
        Kind of device for which hours are predicted, in both precisions; None: all kinds, in that of the campaign.

    Returns
    -------
    Planned
        Numbers of structures and members, and predicted cost.

    Raises
    ------
    InputError
        A force field does not fit, another campaign has this name, or structures cannot be read (all are named), are
        repeated (`duplicates: refuse`) or break `require: covers_elements` or `inside_domain`. No campaign and no new
        member is left behind, but structures stay.
    ModelError
        A force field is not on this machine.
    ClaimedElsewhereError
        Another process is planning the campaign.
    """
    models = [resolve_model(name) for name in spec.models]
    check_requirements(spec, models)
    planning = _Planning(store, spec, [(model, CostModel.of(model)) for model in models])
    # Of two processes that plan at once, one that fails would delete what the other one has planned.
    with exclusive_lock(store, f"campaign {spec.name} plan", f"another process is planning {spec.name!r}; wait for it"):
        create_campaign(store, campaign_document(spec, spec_text, planning.models()))
        # A plan that was killed leaves the state `planning`. The next plan completes it.
        unfinished = campaign_of(store, spec.name)["state"] == "planning"
        try:
            planning.add_all(on_progress or (lambda done: None))
            planning.checks.require_sound(skip_bad=skip_bad)
        except BaseException:
            if unfinished:
                delete_campaign(store, spec.name)
            else:
                forget_members(store, spec.name, planning.id)
            raise
        add_tags(store, (key.hex() for key in planning.keys), spec.all_tags)
        refresh_states(store, spec.name, answer_summary_field(spec))
        found = planning.result(device)
        note_warnings(store, spec.name, found.warnings)
        if unfinished:
            set_campaign_state(store, spec.name, "planned")
        return found


def campaign_document(spec: CampaignSpec, spec_text: str, models: list[Row]) -> Row:
    """Document of a campaign of which no members are stored yet.

    Parameters
    ----------
    spec
        Specification.
    spec_text
        Text that the specification was read from.
    models
        Label, key, location and cutoff_angstrom of each force field.

    Returns
    -------
    Row
        Document for `create_campaign`.
    """
    return {
        "_id": spec.name,
        "spec": spec.model_dump(mode="json"),
        "spec_text": spec_text,
        "spec_sha256": spec.sha256,
        "state": "planning",
        "models": models,
    }


@dataclass(frozen=True)
class _Batch:
    """Structures of which some are stored, with their identities, while those of the others are being found."""

    structures: list[PlannedStructure]
    stored: Mapping[str, Mapping[str, Any]]
    new: list[PlannedStructure]
    identities: Callable[[], list[dict[str, Any]]]


class _Planning:
    """One run of `plan`: stores structures and members a batch at a time, and counts them."""

    def __init__(self, store: Store, spec: CampaignSpec, models: Sequence[tuple[ModelReference, CostModel]]) -> None:
        self.id = uuid4().hex  # noted in the members that it adds
        self.checks = PlanChecks(spec)
        self.keys: set[bytes] = set()  # of structures; a third of the size of their text
        self._store = store
        self._spec = spec
        self._models = models
        self._structures = self._stored = self._new = 0

    def models(self) -> list[Row]:
        """Force fields, as the document of the campaign lists them."""
        return [
            {name: getattr(model, name) for name in ("label", "key", "location")}
            | {"cutoff_angstrom": cost.cutoff_angstrom}
            for model, cost in self._models
        ]

    def add_all(self, on_progress: Callable[[int], None]) -> None:
        """Store all structures and members; the next batches are read while symmetries are being found."""
        if self._spec.of_models:
            self._add_models()
            return
        waiting: deque[_Batch] = deque()

        def add_oldest() -> None:
            self._add(waiting.popleft())
            on_progress(self._structures)

        with Identifier() as identifier:
            for structures in batches(planned_structures(self._spec, self._store, self.checks.bad.add)):
                usable = [one for one in structures if self.checks.is_usable(one)]
                new = [one for one in usable if self.checks.is_new(one, self._models[0][0])]
                waiting.append(self._look_up(new, identifier))
                if len(waiting) > _AHEAD:
                    add_oldest()
            while waiting:
                add_oldest()

    def _look_up(self, structures: list[PlannedStructure], identifier: Identifier) -> _Batch:
        """Find out which structures are stored, and begin to identify the others."""
        known = {one.key: one.known for one in structures if one.known is not None}
        stored = stored_identities(self._store, [one.key for one in structures if one.key not in known]) | known
        new = [one for one in structures if one.key not in stored]
        for one in structures:  # also those that are stored: a campaign that is planned again has the same warnings
            self.checks.note_faults(one)
        self._stored += len(structures) - len(new)
        return _Batch(structures, stored, new, identifier.begin([one.atoms for one in new]))

    def _add(self, batch: _Batch) -> None:
        """Store a batch of structures and its members."""
        identities = self._store_structures(batch)
        rows = []
        for structure in batch.structures:
            protocol = protocol_for(self._spec, structure.own)
            identity = identities[structure.key]
            for model, cost in self._models:
                steps = member_keys(self._spec, structure.key, model.key, structure.own)
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
                        "info": structure.own if self._spec.takes_own_settings else {},
                        "cost": member_cost(structure.atoms, protocol, cost),
                        "plan": self.id,
                    }
                )
                self.checks.note_elements(structure, model)
            self.keys.add(bytes.fromhex(structure.key))
        self._structures += len(batch.structures)
        self._new += insert_members(self._store, self._spec.name, rows)

    def _add_models(self) -> None:
        """Store the members of a property of force fields: one for each."""
        protocol = protocol_for(self._spec, {})
        rows = []
        for model, cost in self._models:
            steps = member_keys(self._spec, model.key, model.key, {})
            rows.append(
                {
                    "key": steps[-1],
                    "steps": list(steps),
                    "label": model.label,
                    "structure_key": model.key,
                    "model_key": model.key,
                    "model_label": model.label,
                    "formula": "",
                    "nsites": 0,
                    "info": {},
                    "cost": member_cost(Atoms(), protocol, cost),
                    "plan": self.id,
                }
            )
        self._new += insert_members(self._store, self._spec.name, rows)

    def _store_structures(self, batch: _Batch) -> dict[str, Mapping[str, Any]]:
        """Store the new structures of a batch and new material ids; the identities of all structures by their keys."""
        writes: list[tuple[Atoms, Mapping[str, Any]]] = []
        identities = dict(batch.stored)
        for one, identity in zip(batch.new, batch.identities(), strict=True):
            identities[one.key] = identity
            writes.append((one.atoms, {**identity, "material_ids": one.material_ids}))
        for one in batch.structures:
            stored = batch.stored.get(one.key)
            if stored is not None and not set(one.material_ids) <= set(stored["material_ids"]):
                writes.append((one.atoms, {**stored, "material_ids": one.material_ids}))
        put_structures(self._store, writes)
        return identities

    def result(self, device: DeviceKind | None) -> Planned:
        """Numbers of structures and members, and predicted cost."""
        states = dict.fromkeys(("pending", "finished", "failed"), 0)
        cost = dict.fromkeys((model.label for model, _ in self._models), 0.0)
        for row in counts(self._store, self._spec.name):
            states[row["state"]] += row["members"]
            if row["state"] == "pending":
                cost[row["model_label"]] += row["cost"]
        hours = pending_hours(self._store, self._models, cost, self._spec.dtype, device)
        return Planned(
            name=self._spec.name,
            structures=self._structures,
            repeated=self.checks.repeated.count,
            stored=self._stored,
            members=states,
            new=self._new,
            pending_cost=sum(cost.values()),
            pending_hours=hours,
            doubtful=tuple(self.checks.doubtful.first),
            doubtful_count=self.checks.doubtful.count,
            outside=tuple(self.checks.outside.first),
            outside_count=self.checks.outside.count,
            bad=tuple(self.checks.bad.first),
            bad_count=self.checks.bad.count,
            precision=precision_advice(self._spec, [model for model, _ in self._models], device or "cpu", hours),
            device=device,
            dtype=self._spec.dtype,
        )
