"""`esen-flows fields PROPERTY`: the fields that --set changes, with their values and meaning."""

import inspect
import re
from difflib import get_close_matches
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.table import Column, Table

from esen_flows.cli import completion
from esen_flows.cli.output.json_output import JsonOption, print_json
from esen_flows.cli.output.tables import show
from esen_flows.cli.usage import UsageError
from esen_flows.schemas.properties import OFFERED, PROPERTIES

PropertyArgument = Annotated[
    str,
    typer.Argument(
        help="Name of a property command, such as kappa.", metavar="PROPERTY", autocompletion=completion.properties
    ),
]


def fields(what: PropertyArgument, as_json: JsonOption = False) -> None:
    """List the fields of a protocol, which --set and campaigns change."""
    commands = {PROPERTIES[kind].command: kind for kind in OFFERED}
    if what not in commands:
        near = get_close_matches(what[:80], commands, n=1)
        meant = f"did you mean {near[0]}? properties:" if near else "choose one of"
        raise UsageError(f"no property {what!r}; {meant} {', '.join(commands)}")
    rows = _rows(PROPERTIES[commands[what]].protocol())
    if as_json:
        print_json([{"field": name, "value": value, "meaning": meaning} for name, value, meaning in rows])
        return
    table = Table(Column("field", no_wrap=True), "value", "meaning", caption="to change one: --set FIELD=VALUE")
    for name, value, meaning in rows:
        table.add_row(name, _text(value), meaning)
    show(table)


def _rows(protocol: BaseModel, prefix: str = "") -> list[tuple[str, Any, str]]:
    """Dotted name, value and first sentence of the description of every field."""
    meanings: dict[str, str] = {}
    for each in reversed(type(protocol).__mro__):  # fields that a protocol shares with others are described there
        meanings |= attribute_descriptions(each)
    rows = []
    for name in type(protocol).model_fields:
        value = getattr(protocol, name)
        if isinstance(value, BaseModel):
            rows += _rows(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, value, meanings.get(name, "")))
    return rows


def attribute_descriptions(model: type) -> dict[str, str]:
    """First sentences of the descriptions in the Attributes section of a class.

    Parameters
    ----------
    model
        Class with a numpydoc docstring.

    Returns
    -------
    dict[str, str]
        Descriptions by name of the attribute; empty where Python runs without docstrings.
    """
    section = re.search(r"Attributes\n-+\n(.*)", inspect.cleandoc(model.__doc__ or ""), flags=re.DOTALL)
    entries = re.findall(r"^(\w[\w, ]*)\n((?:    .*(?:\n|$)|\n)+)", section[1] if section else "", flags=re.MULTILINE)
    return {
        name.strip(): re.split(r"(?<=[.;])\s+(?=[A-Z])", " ".join(text.split()), maxsplit=1)[0]
        for names, text in entries
        for name in names.split(",")
    }


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
