"""Differences of two campaigns, as `campaign diff` and `campaign reproduce` print them."""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Column, Table

from esen_flows.cli.output.json_output import print_json
from esen_flows.cli.output.tables import show

if TYPE_CHECKING:
    from esen_flows.campaigns.compare import CampaignDifference
    from esen_flows.campaigns.member_differences import Changed, Difference, Moved

SHOWN = 20  # materials that changed class in a table; json and csv have all of them
_COLUMNS = ("what", "label", "formula", "model", "old", "new", "absolute", "relative")


def print_difference(found: "CampaignDifference", form: str) -> None:
    """Print what differs between two campaigns.

    Parameters
    ----------
    found
        Differences in settings and results.
    form
        "table" for people, "json", or "csv" with one line per difference.
    """
    if form == "json":
        settings = [{"name": name, "old": old, "new": new} for name, old, new in found.settings]
        names = {"old": found.old, "new": found.new, "field": found.field}
        print_json({**names, "settings": settings, **members_content(found.members)})
    elif form == "csv":
        _write_csv(found)
    else:
        table = Table("setting", found.old, found.new, title="settings that differ", title_justify="left")
        for name, old, new in found.settings:
            table.add_row(name, _text(old), _text(new))
        if found.settings:
            show(table)
        else:
            typer.echo("no setting differs")
        print_members(found.members, found.field)


def print_members(found: "Difference", field: str) -> None:
    """Print how the results of the same members differ in two campaigns.

    Parameters
    ----------
    found
        Differences in results.
    field
        Summary field of the principal number, which names its unit.
    """
    remarks = {"pending and not compared": found.pending, "only before": found.only_old, "only now": found.only_new}
    counts = [f"{count} {remark}" for remark, count in remarks.items() if count]
    typer.echo(", ".join((f"{found.matched} members in both", *counts)))
    if found.unmatched:
        typer.echo("in one campaign only: " + ", ".join(found.unmatched))
    if found.changed:
        _print_changes(found)
    if not found.moved:
        typer.echo(f"{field}: the same for all {found.compared} members that have one")
        return
    largest = found.moved[0]
    typer.echo(
        f"{field}: mean absolute change {found.mean_absolute:.3g}, largest {abs(largest.absolute):.3g} "
        f"({largest.label}), among {found.compared} members"
    )
    _print_moves(found.moved, f"largest changes of {field}")
    if {each.label for each in found.moved} != {each.label for each in found.moved_relatively}:
        _print_moves(found.moved_relatively, f"largest relative changes of {field}")


def _print_changes(found: "Difference") -> None:
    title = ", ".join(f"{count} {old} → {new}" for (old, new), count in found.transitions.items())
    more = len(found.changed) - SHOWN
    caption = f"and {more} more" if more > 0 else None
    table = Table("material", "before", "now", title=title, title_justify="left", caption=caption)
    for each in found.changed[:SHOWN]:
        table.add_row(_name(each), each.old, each.new)
    show(table)


def _print_moves(moves: "Sequence[Moved]", title: str) -> None:
    columns = [Column(name, justify="right") for name in ("before", "now", "change", "relative")]
    table = Table("material", *columns, title=title, title_justify="left")
    for each in moves:
        numbers = (f"{each.old:.8g}", f"{each.new:.8g}", f"{each.absolute:+.3g}", f"{each.relative:+.3%}")
        table.add_row(_name(each), *numbers)
    show(table)


def _name(each: "Changed | Moved") -> str:
    """Material, formula, and the force field if there are several."""
    return " ".join(part for part in (each.label, each.formula, each.model) if part)


def members_content(members: "Difference") -> dict[str, Any]:
    """Differences in results for `--json`.

    Parameters
    ----------
    members
        Differences in results.

    Returns
    -------
    dict[str, Any]
        Values by name.
    """
    content = asdict(members)
    transitions = members.transitions.items()
    content |= {
        "transitions": [{"old": old, "new": new, "members": count} for (old, new), count in transitions],
        "moved": [_move(each) for each in members.moved],
        "moved_relatively": [_move(each) for each in members.moved_relatively],
        "is_within": members.is_within,
    }
    return content


def _move(move: "Moved") -> dict[str, Any]:
    relative = move.relative if move.old else None  # JSON has no infinity
    return {**asdict(move), "absolute": move.absolute, "relative": relative}


def _write_csv(found: "CampaignDifference") -> None:
    writer = csv.DictWriter(sys.stdout, _COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for name, old, new in found.settings:
        writer.writerow({"what": "setting", "label": name, "old": _text(old), "new": _text(new)})
    for changed in found.members.changed:
        writer.writerow({"what": "class", **asdict(changed)})
    for move in found.members.moved:
        writer.writerow({"what": found.field, **_move(move)})


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
