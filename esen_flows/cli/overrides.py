"""`--set key=value`: one field of a protocol, nested ones with dots, checked against the protocol's own schema."""

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from esen_flows.errors import InputError
from esen_flows.schemas.protocols import Frozen

Protocol = TypeVar("Protocol", bound=Frozen)


class UsageError(InputError):
    """The command itself is wrong, rather than a file that it names."""

    exit_code = 2


def with_overrides(protocol: Protocol, assignments: list[str]) -> Protocol:
    """The protocol with `key=value` assignments applied, in order.

    Values are JSON, a bare word, or several of them separated by commas: `0.01`, `fix`, `9,9,9`, `[9, 9, 9]`.

    Raises
    ------
    UsageError : no `=`, an unknown field (the valid ones are listed), or a value that the field refuses.
    """
    values = protocol.model_dump()
    valid = field_names(protocol)
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        name = name.strip()
        if not separator or not text.strip():
            raise UsageError(f"--set {assignment!r} is not key=value; for example --set {next(iter(valid))}=...")
        if name not in valid:
            raise UsageError(f"--set {name}: no such field; valid fields: {', '.join(valid)}")
        _assign(values, name.split("."), parse_value(text.strip()))
    try:
        return type(protocol).model_validate(values)
    except ValidationError as error:
        faults = "; ".join(
            f"{_field(fault['loc'], valid)}: {fault['msg']} (got {fault['input']!r})"
            if fault["loc"]
            else fault["msg"].removeprefix("Value error, ")  # fields that contradict each other
            for fault in error.errors()
        )
        raise UsageError(f"--set {faults}") from error


def field_names(protocol: BaseModel, prefix: str = "") -> list[str]:
    """Dotted names of all fields that can be set, nested protocols opened."""
    names: list[str] = []
    for name in type(protocol).model_fields:
        value = getattr(protocol, name)
        names += field_names(value, f"{prefix}{name}.") if isinstance(value, BaseModel) else [prefix + name]
    return names


def parse_value(text: str) -> Any:
    """JSON if it is, else a list if there are commas, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    if "," in text and text[0] not in "[{":
        return [parse_value(part.strip()) for part in text.split(",")]
    return text


def _assign(values: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        values = values[name]
    values[path[-1]] = value


def _field(location: tuple[Any, ...], valid: list[str]) -> str:
    """The settable field that a validation error is about, without the index inside of it."""
    parts = [str(part) for part in location]
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in valid), ".".join(parts))
