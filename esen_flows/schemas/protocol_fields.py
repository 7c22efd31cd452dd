"""Single fields of a protocol by their dotted names, as `--set` and campaign specs give them."""

import json
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from esen_flows.errors import InputError
from esen_flows.schemas.frozen import Frozen

Protocol = TypeVar("Protocol", bound=Frozen)


class FieldError(InputError):
    """Fields that a protocol does not have, or values that it refuses.

    Attributes
    ----------
    faults
        field, or the protocol inside of it whose fields contradict each other (None: its own), and what is wrong.
    """

    def __init__(self, faults: list[tuple[str | None, str]]) -> None:
        super().__init__("; ".join(text if field is None else f"{field}: {text}" for field, text in faults))
        self.faults = tuple(faults)


def with_values(protocol: Protocol, values: Iterable[tuple[str, Any]]) -> Protocol:
    """The protocol with fields set, in order; texts are read by `parse_value`.

    Raises
    ------
    FieldError
        unknown fields (the valid ones are listed), or values that their fields refuse.
    """
    content, valid = protocol.model_dump(), field_names(protocol)
    faults: list[tuple[str | None, str]] = []
    for name, value in values:
        if name in valid:
            _assign(content, name.split("."), parse_value(value) if isinstance(value, str) else value)
        else:
            faults.append((name, f"no such field; valid fields: {', '.join(valid)}"))
    if faults:
        raise FieldError(faults)
    try:
        return type(protocol).model_validate(content)
    except ValidationError as error:
        for fault in error.errors():
            field = _field(fault["loc"], valid)
            if field in valid:
                faults.append((field, f"{_words(fault)} (got {fault['input']!r})"))
            else:  # fields of a protocol, or of one inside of it, that contradict each other
                faults.append((field or None, _words(fault)))
        raise FieldError(list(dict.fromkeys(faults))) from error  # what several entries of a list share, once


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


def _words(fault: Any) -> str:
    """What is wrong with a value; pydantic speaks of Python's types, and whoever types a value does not."""
    if fault["type"] == "tuple_type":
        return "several values are needed, with commas between"
    if fault["type"] == "missing":
        return "too few values"
    return str(fault["msg"]).removeprefix("Value error, ")


def _assign(values: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        values = values[name]
    values[path[-1]] = value


def _field(location: tuple[Any, ...], valid: list[str]) -> str:
    """The settable field that a validation error is about, without the index inside of it."""
    parts = [str(part) for part in location]
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in valid), ".".join(parts))
