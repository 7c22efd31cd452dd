"""The table of properties by kind, by name and by protocol; what it does not hold is refused."""

from collections.abc import Mapping
from typing import Any, cast

from esen_flows.errors import InputError, ModelError
from esen_flows.schemas.card import ModelReference
from esen_flows.schemas.forces import slow_interval
from esen_flows.schemas.frozen import Frozen
from esen_flows.schemas.named_protocols import FC2_SUPERCELL, FC3_SUPERCELL, MESH
from esen_flows.schemas.properties import OFFERED, PROPERTIES, Kind
from esen_flows.schemas.property_entry import Property

GENERAL = "general"
# Kinds that users ask for, by the names of their commands.
COMMANDS: dict[str, Kind] = {PROPERTIES[kind].command: kind for kind in OFFERED}


def entry_of(kind: str) -> Property:
    """The entry of a kind of result.

    Parameters
    ----------
    kind
        Kind of result.

    Returns
    -------
    Property
        Its entry in the table.

    Raises
    ------
    InputError
        There is no such kind; the message lists those that there are.

    Examples
    --------
    >>> entry_of("phonon").category
    'cpu'
    """
    if kind not in PROPERTIES:
        raise InputError(f"unknown kind of result {kind!r}; there are {', '.join(PROPERTIES)}")
    return PROPERTIES[kind]


def offered_entry(kind: str) -> Property:
    """The entry of a property that users can ask for.

    Parameters
    ----------
    kind
        Kind of result.

    Returns
    -------
    Property
        Its entry in the table.

    Raises
    ------
    InputError
        There is no such kind, or it is only a step or belongs to training.
    """
    if kind not in OFFERED:
        raise InputError(f"no property {kind!r}; there are {', '.join(OFFERED)}")
    return PROPERTIES[kind]


def kind_named(name: str) -> Kind:
    """A kind by its own name or by that of its command, such as kappa.

    Parameters
    ----------
    name
        Name of the kind or of its command.

    Returns
    -------
    Kind
        The kind.

    Raises
    ------
    InputError
        There is no such kind.
    """
    kind = COMMANDS.get(name, name)
    entry_of(kind)
    return cast(Kind, kind)


def kind_of(protocol: Frozen) -> Kind:
    """The property that a protocol is of.

    Parameters
    ----------
    protocol
        Protocol of a property that users can ask for.

    Returns
    -------
    Kind
        Its kind.

    Raises
    ------
    InputError
        It is the protocol of no such property.
    """
    for kind in OFFERED:
        if type(protocol) is PROPERTIES[kind].protocol:
            return kind
    raise InputError(f"a {type(protocol).__name__} is the protocol of no property; there are {', '.join(OFFERED)}")


def named_protocol(kind: str, name: str | None, info: Mapping[str, Any]) -> Frozen:
    """A published protocol by its name, before any settings.

    Parameters
    ----------
    kind
        The property.
    name
        Name of the protocol; None for "general".
    info
        Supercells and mesh of the structure, from `atoms.info`.

    Returns
    -------
    Frozen
        The protocol, of the class that belongs to the property.

    Raises
    ------
    InputError
        There is no such property, or it has no protocol of that name; the message lists those that there are.
    """
    entry = offered_entry(kind)
    if name in (None, GENERAL):
        return entry.protocol()
    if name not in entry.published:
        known = ", ".join((GENERAL, *entry.published))
        raise InputError(f"no protocol {name!r} of the property {kind}; there are {known}")
    return entry.published[name](info)


def is_exact(protocol: Frozen) -> bool:
    """Whether a property needs exact second derivatives of the energy.

    Parameters
    ----------
    protocol
        Protocol of the property.

    Returns
    -------
    bool
        True if one of its steps asks for force constants by automatic differentiation.
    """
    steps = entry_of(kind_of(protocol)).steps(protocol)
    return any(getattr(step.protocol, "force_constants", None) == "autodiff" for step in steps)


def forces_used(protocol: Frozen) -> frozenset[str]:
    """Kinds of forces that the steps to a property use.

    Parameters
    ----------
    protocol
        Protocol of the property.

    Returns
    -------
    frozenset[str]
        Values of the field `forces` of its steps: "conservative", "direct" or "mts(M)".
    """
    steps = entry_of(kind_of(protocol)).steps(protocol)
    return frozenset(getattr(step.protocol, "forces", "conservative") for step in steps)


def require_forces(model: ModelReference, protocol: Frozen, purpose: str) -> None:
    """Refuse a force field without the forces that a property or its protocol needs, before it is loaded.

    Parameters
    ----------
    model
        The force field.
    protocol
        Protocol of the property.
    purpose
        Property or step that needs them, for the message.

    Raises
    ------
    NotConservativeError
        The forces are not declared to be the gradient of the energy, and the protocol does not accept direct ones.
    ModelError
        The protocol names direct forces, and the force field has none.
    """
    used = forces_used(protocol)
    is_split = any(map(slow_interval, used))
    if is_split or (entry_of(kind_of(protocol)).conservative and "direct" not in used):
        model.require_conservative(purpose)
    if (is_split or "direct" in used) and not model.direct:
        raise ModelError(
            f"{model.label!r} has no heads that predict forces directly, only the gradient of its energy; leave forces "
            "out, or use a force field with both"
        )


def require_settings(kind: str, name: str | None, protocol: Frozen, remedy: str) -> None:
    """Refuse a published protocol without what it takes from each structure.

    Parameters
    ----------
    kind
        The property.
    name
        Name of the protocol; None for "general", which takes nothing from structures.
    protocol
        The protocol for a structure.
    remedy
        End of the message, which says how the fields can be given.

    Raises
    ------
    InputError
        The structure does not give the supercells, and they are not set.
    """
    fields = offered_entry(kind).settings_of_structures
    values = protocol.model_dump()
    if name not in (None, GENERAL) and any(_at(values, field) is None for field in fields):
        raise InputError(
            f"the protocol {name} takes each structure's own supercells and mesh ({FC2_SUPERCELL}, {FC3_SUPERCELL} and "
            f"{MESH} in an extended XYZ file), and this one has none; give {remedy}"
        )


def _at(values: Any, path: str) -> Any:
    for part in path.split("."):
        values = values[part]
    return values
