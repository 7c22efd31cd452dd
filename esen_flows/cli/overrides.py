"""`--set key=value`: one field of a protocol, nested ones with dots, checked against the protocol's own schema."""

from typing import TypeVar

from esen_flows.errors import InputError
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.protocol_fields import FieldError, field_names, with_values

Protocol = TypeVar("Protocol", bound=Frozen)


class UsageError(InputError):
    """The command itself is wrong, rather than a file that it names."""

    exit_code = 2


def with_overrides(protocol: Protocol, assignments: list[str], option: str = "--set") -> Protocol:
    """The protocol with `key=value` assignments applied, in order; messages name the option that they came by.

    Values are JSON, a bare word, or several of them separated by commas: `0.01`, `fix`, `9,9,9`, `[9, 9, 9]`.

    Raises
    ------
    UsageError
        no `=`, an unknown field (the valid ones are listed), or a value that the field refuses.
    """
    values = []
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or not text.strip():
            first = next(iter(field_names(protocol)))
            raise UsageError(f"{option} {assignment!r} is not key=value; for example {option} {first}=...")
        values.append((name.strip(), text.strip()))
    try:
        return with_values(protocol, values)
    except FieldError as error:
        raise UsageError(f"{option} {error}") from error
