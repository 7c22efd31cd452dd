"""`--set key=value`: one field of a protocol, nested fields with dots, checked against the protocol's own schema."""

from typing import TypeVar

from esen_flows.cli.usage import UsageError, split_assignments
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.protocol_fields import FieldError, field_names, with_values

Protocol = TypeVar("Protocol", bound=Frozen)


def with_overrides(protocol: Protocol, assignments: list[str], option: str = "--set") -> Protocol:
    """A protocol with `key=value` assignments applied in order.

    Parameters
    ----------
    protocol
        Protocol to start from; it is not changed.
    assignments
        Dotted field names and values. A value is JSON, a bare word, or several of them separated by commas: `0.01`,
        `fix`, `9,9,9`, `[9, 9, 9]`.
    option
        Option that the assignments were given with, for error messages.

    Returns
    -------
    Protocol
        A protocol of the same class.

    Raises
    ------
    UsageError
        An assignment has no `=`, a field is unknown (the message lists the valid ones), or a field refuses its value.

    Examples
    --------
    >>> from esen_flows.schemas.protocols import ConductivityProtocol
    >>> changed = with_overrides(ConductivityProtocol(), ["mesh=9,9,9", "relax.max_steps=50"])
    >>> changed.mesh, changed.relax.max_steps
    ((9, 9, 9), 50)
    """
    values = split_assignments(assignments, f"{next(iter(field_names(protocol)))}=...", option)
    try:
        return with_values(protocol, values)
    except FieldError as error:
        raise UsageError(f"{option} {error}") from error
