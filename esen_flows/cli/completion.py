"""What the completion of a shell offers for arguments and options; the tables behind it are read when it is asked.

Install it once with `esen-flows --install-completion`.
"""

from collections.abc import Iterable

import typer


def model_names(incomplete: str) -> list[str]:
    """Names of model cards.

    Parameters
    ----------
    incomplete
        What has been typed.

    Returns
    -------
    list[str]
        The names that continue it.
    """
    from esen_flows.schemas.card import list_cards

    return _continuing(list_cards(), incomplete)


def properties(incomplete: str) -> list[str]:
    """Names of property commands.

    Parameters
    ----------
    incomplete
        What has been typed.

    Returns
    -------
    list[str]
        The names that continue it.
    """
    from esen_flows.schemas.properties import OFFERED, PROPERTIES

    return _continuing((PROPERTIES[kind].command for kind in OFFERED), incomplete)


def assignments(context: typer.Context, incomplete: str) -> list[str]:
    """Fields of the protocol of a command as `FIELD=`, for --set and --vary.

    Parameters
    ----------
    context
        The command line so far.
    incomplete
        What has been typed.

    Returns
    -------
    list[str]
        The fields that continue it; none for a command that is not about one property.
    """
    from esen_flows.schemas.properties import PROPERTIES
    from esen_flows.schemas.property_lookup import COMMANDS, kind_named
    from esen_flows.schemas.protocol_fields import field_names

    command = _subject(context, "what")
    if command not in COMMANDS:
        return []
    return _continuing((f"{name}=" for name in field_names(PROPERTIES[kind_named(command)].protocol())), incomplete)


def protocols(context: typer.Context, incomplete: str) -> list[str]:
    """Named protocols of a command's property.

    Parameters
    ----------
    context
        The command line so far.
    incomplete
        What has been typed.

    Returns
    -------
    list[str]
        The names that continue it.
    """
    from esen_flows.schemas.properties import PROPERTIES
    from esen_flows.schemas.property_lookup import COMMANDS, GENERAL, kind_named

    command = _subject(context, "what")
    published = PROPERTIES[kind_named(command)].published if command in COMMANDS else ()
    return _continuing((GENERAL, *published), incomplete)


def columns(context: typer.Context, incomplete: str) -> list[str]:
    """Names of values in conditions, columns and orders of `query`.

    Parameters
    ----------
    context
        The command line so far, whose argument names the kind of results.
    incomplete
        What has been typed: one name, or several with commas between.

    Returns
    -------
    list[str]
        The texts that continue it.
    """
    from esen_flows.schemas.properties import PROPERTIES
    from esen_flows.schemas.property_lookup import COMMANDS, kind_named
    from esen_flows.store.queries.fields import fields_of

    kind = _subject(context, "kind")
    if kind not in (*PROPERTIES, *COMMANDS, "structures"):
        return []
    names = fields_of(kind if kind == "structures" else kind_named(kind))
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in _continuing(sorted(names), last)]


def _subject(context: typer.Context, argument: str) -> str:
    """The first argument of a command that has one of this name, else the command itself."""
    # Behind an option without its value yet, arguments are not assigned to their names.
    if any(each.name == argument for each in context.command.params):
        return str(context.params.get(argument) or next(iter(context.args), ""))
    return str(context.info_name)


def _continuing(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
