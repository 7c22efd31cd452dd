"""Two campaigns, member by member: which settings differ, which outcomes changed, which numbers moved and how far."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from esen_flows.campaigns.member_differences import EXACT, Difference, Side, Tolerance, compare_members
from esen_flows.campaigns.records import member_rows, refreshed_campaign
from esen_flows.errors import InputError
from esen_flows.schemas.campaign import CampaignSpec, answer_summary_field, base_protocol
from esen_flows.schemas.protocol_fields import with_values
from esen_flows.store.results import Store

# Fields of a specification that do not affect numbers, or are compared in another way (protocol, models).
_LEFT_OUT = frozenset(("name", "description", "tags", "target_minutes", "settings", "models", "protocol"))


@dataclass(frozen=True)
class CampaignDifference:
    """What differs between two campaigns.

    Attributes
    ----------
    old
        Name of the old campaign.
    new
        Name of the new campaign.
    field
        Name of the principal number, with its unit.
    settings
        Settings that differ: dotted name, old value, new value.
    members
        What differs between the members.
    """

    old: str
    new: str
    field: str
    settings: tuple[tuple[str, Any, Any], ...]
    members: Difference


def compare_campaigns(
    store: Store, old: str, new: str, tolerance: Tolerance = EXACT, most: int = 10
) -> CampaignDifference:
    """What differs between two campaigns of one property.

    Members are matched by their structures, by their labels if several have the same structure, and by the labels of
    their force fields if a campaign has several.

    Parameters
    ----------
    store
        Store of both campaigns.
    old
        Name of the old campaign.
    new
        Name of the new campaign.
    tolerance
        How far numbers may move without being counted.
    most
        Number of the largest moves to list.

    Returns
    -------
    CampaignDifference
        Settings and members that differ.

    Raises
    ------
    InputError
        There is no such campaign, or the two compute different quantities.
    """
    campaigns = [refreshed_campaign(store, name) for name in (old, new)]
    fields = [answer_summary_field(spec) for _, spec in campaigns]
    if fields[0] != fields[1]:
        raise InputError(f"{old!r} gives {fields[0]} and {new!r} {fields[1]}; compare campaigns of one quantity")
    with_model = any(len(campaign["models"]) > 1 for campaign, _ in campaigns)
    before, after = ((Side.of(row, with_model=with_model) for row in member_rows(store, name)) for name in (old, new))
    of_old, of_new = (settings_of(spec, campaign["models"]) for campaign, spec in campaigns)
    names = sorted(of_old.keys() | of_new.keys())
    return CampaignDifference(
        old=old,
        new=new,
        field=fields[0],
        settings=tuple(
            (name, of_old.get(name), of_new.get(name)) for name in names if of_old.get(name) != of_new.get(name)
        ),
        members=compare_members(before, after, tolerance, most),
    )


def settings_of(spec: CampaignSpec, models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All that the numbers of a campaign depend on, with settings at their defaults, which may be written or not.

    Parameters
    ----------
    spec
        Specification of the campaign.
    models
        Label and key of its force fields.

    Returns
    -------
    dict[str, Any]
        Values by dotted names.
    """
    protocol = with_values(base_protocol(spec, {}), spec.settings.items())
    found = dict(flat(spec.model_dump(mode="json", exclude=set(_LEFT_OUT))))
    found["protocol"] = spec.protocol or "general"
    found |= dict(flat(protocol.model_dump(mode="json"), "settings."))
    return found | {f"models.{model['label']}": model["key"][:16] for model in models}


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values of nested mappings by dotted names.

    Parameters
    ----------
    values
        Values and mappings by name.
    prefix
        Begin of every name.

    Yields
    ------
    tuple[str, Any]
        Dotted name and value.
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
