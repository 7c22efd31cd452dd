"""Single fields of a protocol by their dotted names, as `--set` and specifications of campaigns give them."""

import json
from collections.abc import Iterable
from difflib import get_close_matches
from functools import reduce
from operator import getitem
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from esen_flows.errors import InputError
from esen_flows.schemas.frozen import Frozen

Protocol = TypeVar("Protocol", bound=Frozen)


class FieldError(InputError):
    """Fields that a protocol does not have, or values that it refuses.

    Parameters
    ----------
    faults
        Pairs of a field and the reason. For fields that contradict each other, the first entry is the protocol to which
        they belong, None for the outermost one.
    """

    def __init__(self, faults: list[tuple[str | None, str]]) -> None:
        super().__init__("; ".join(text if field is None else f"{field}: {text}" for field, text in faults))
        self.faults = tuple(faults)


def with_values(protocol: Protocol, values: Iterable[tuple[str, Any]]) -> Protocol:
    """A protocol with changed fields.

    Parameters
    ----------
    protocol
        The protocol before the changes.
    values
        Dotted names of fields with their values, in the order in which they are set; text is read by `parse_value`. A
        field of a part that the protocol leaves out adds this part with its defaults.

    Returns
    -------
    Protocol
        The changed protocol.

    Raises
    ------
    FieldError
        A field is not known (the message lists the valid ones), or refuses its value.

    Examples
    --------
    >>> from esen_flows.schemas.protocols import PhononProtocol
    >>> with_values(PhononProtocol(), [("mesh", "9,9,9"), ("relax.max_steps", 200)]).mesh
    (9, 9, 9)
    """
    values = list(values)
    protocol = _with_parts(protocol, (name for name, _ in values))
    content, valid = protocol.model_dump(), field_names(protocol)
    faults: list[tuple[str | None, str]] = []
    for name, value in values:
        if name in valid:
            *parts, field = name.split(".")
            reduce(getitem, parts, content)[field] = parse_value(value) if isinstance(value, str) else value
        else:
            near = _nearest(name, valid)
            hint = f"did you mean {near}? " if near else ""
            faults.append((name, f"no such field; {hint}valid fields: {', '.join(valid)}"))
    if faults:
        raise FieldError(faults)
    try:
        return type(protocol).model_validate(content)
    except ValidationError as error:
        for fault in error.errors():
            field = _field(fault["loc"], valid)
            if field in valid:
                faults.append((field, f"{_words(fault)} (got {fault['input']!r})"))
            else:  # fields that contradict each other
                faults.append((field or None, _words(fault)))
        raise FieldError(list(dict.fromkeys(faults))) from error  # several entries of a list may have the same fault


def _with_parts(protocol: Protocol, names: Iterable[str]) -> Protocol:
    """A protocol with the parts that it leaves out and of which fields are named, such as `nve` for `nve.seeds`."""
    for name in names:
        part, _, field = name.partition(".")
        known = type(protocol).model_fields.get(part)
        if not field or known is None or getattr(protocol, part) is not None:
            continue
        for kind in get_args(known.annotation):
            if isinstance(kind, type) and issubclass(kind, Frozen) and not _required(kind):
                whole = kind.model_construct()  # validated with the values
                if field in field_names(whole):
                    protocol = protocol.model_copy(update={part: whole})
    return protocol


def _required(kind: type[BaseModel]) -> bool:
    """Whether there is a field without a default."""
    return any(field.is_required() for field in kind.model_fields.values())


def _nearest(name: str, valid: list[str]) -> str | None:
    """The field that a misspelt or shortened name most plausibly means; None if there is no such field.

    Of fields with the same last part it is the least nested one, and the first of those.
    """
    name = name[:80].lower()
    by_depth = sorted(valid, key=lambda field: field.count("."))
    by_last_part = {field.rpartition(".")[2]: field for field in reversed(by_depth)}
    last = name.rpartition(".")[2]
    if close := get_close_matches(last, by_last_part, n=1, cutoff=0.7):
        return by_last_part[close[0]]
    if close := get_close_matches(name, valid, n=1, cutoff=0.7):
        return close[0]
    beginning = [field for part, field in by_last_part.items() if last and part.startswith(last)]
    return beginning[0] if len(beginning) == 1 else None


def field_names(protocol: BaseModel, prefix: str = "") -> list[str]:
    """Dotted names of all fields that can be set, those of nested protocols included.

    Parameters
    ----------
    protocol
        The protocol.
    prefix
        Text before each name.

    Returns
    -------
    list[str]
        The names.
    """
    names: list[str] = []
    for name in type(protocol).model_fields:
        value = getattr(protocol, name)
        names += field_names(value, f"{prefix}{name}.") if isinstance(value, BaseModel) else [prefix + name]
    return names


def parse_value(text: str) -> Any:
    """A value from text: JSON if possible, else a list if there are commas, else the text itself.

    Parameters
    ----------
    text
        Text that a user gave.

    Returns
    -------
    Any
        The value.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if "," in text and text[0] not in "[{":
        return [parse_value(part.strip()) for part in text.split(",")]
    return text


def _words(fault: Any) -> str:
    """Reason why a value is refused, without the names of Python's types that pydantic uses."""
    plain = {"tuple_type": "several values are needed, with commas between", "missing": "too few values"}
    return plain.get(fault["type"]) or str(fault["msg"]).removeprefix("Value error, ")


def _field(location: tuple[Any, ...], valid: list[str]) -> str:
    """The field to which a validation error belongs, without an index inside of the field."""
    parts = [str(part) for part in location]
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in valid), ".".join(parts))
