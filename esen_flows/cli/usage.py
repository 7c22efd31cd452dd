"""Checks of what a user typed, made before anything is opened or computed."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from esen_flows.errors import InputError
from esen_flows.schemas.protocol_fields import parse_value


class UsageError(InputError):
    """The command itself is wrong, rather than a file that it names."""

    exit_code = 2


def split_assignments(assignments: Iterable[str], example: str, option: str = "--set") -> list[tuple[str, str]]:
    """Names and values of `key=value` texts.

    Parameters
    ----------
    assignments
        Texts as they were typed.
    example
        A valid assignment, for the error message.
    option
        Option that the assignments were given with, for the error message.

    Returns
    -------
    list[tuple[str, str]]
        Names and values in the order given, without surrounding blanks.

    Raises
    ------
    UsageError
        A text has no `=` or no value.

    Examples
    --------
    >>> split_assignments(["mesh=9,9,9", "relax.max_steps = 50"], "mesh=9,9,9")
    [('mesh', '9,9,9'), ('relax.max_steps', '50')]
    """
    pairs = []
    for assignment in assignments:
        name, separator, value = (part.strip() for part in assignment.partition("="))
        if not separator or not value:
            raise UsageError(f"{option} {assignment!r} is not key=value; for example {option} {example}")
        pairs.append((name, value))
    return pairs


def parse_assignments(assignments: Iterable[str], example: str) -> dict[str, Any]:
    """Parsed values by name of `--set key=value` options.

    Parameters
    ----------
    assignments
        Texts as they were typed.
    example
        A valid assignment, for the error message.

    Returns
    -------
    dict[str, Any]
        Values as JSON would give them, lists of values separated by commas, or bare words.

    Raises
    ------
    UsageError
        A text has no `=` or no value.

    Examples
    --------
    >>> parse_assignments(["epochs=20", "loss=absolute"], "epochs=20")
    {'epochs': 20, 'loss': 'absolute'}
    """
    return {name: parse_value(value) for name, value in split_assignments(assignments, example)}


def split_names(text: str | None) -> list[str] | None:
    """Names in a text, separated by commas or blanks.

    Parameters
    ----------
    text
        Value of an option; None if it was not given.

    Returns
    -------
    list[str] | None
        Names in the order given; None without a text.

    Examples
    --------
    >>> split_names("Si, O")
    ['Si', 'O']
    """
    return text.replace(",", " ").split() if text else None


def check_device(device: str) -> None:
    """Refuse a text that is not the name of a device; whether this machine has the device is found out when it is used.

    Parameters
    ----------
    device
        Value of --device.

    Raises
    ------
    UsageError
        The text is not cpu, cuda or cuda:N.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise UsageError(f"--device {device!r} is not one of cpu, cuda, cuda:0, cuda:1, ...")


def check_folder(folder: Path, option: str = "--output") -> None:
    """Refuse a folder that cannot be made or written to, before the computation rather than after it.

    Parameters
    ----------
    folder
        Folder that results will be written to; it need not exist.
    option
        Option that chooses another folder, for the error message.

    Raises
    ------
    InputError
        The folder, or the nearest one above it that exists, is a file or not writable.
    """
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {folder}: {existing} is not a folder that you may write to; use {option}")


def refuse_ignored(options: Mapping[str, object], how: str, remedy: str = "leave it out") -> None:
    """Refuse options that would have no effect.

    Parameters
    ----------
    options
        Values by option name; None or False for an option that was not given.
    how
        With or without which other option these have no effect, such as "with --submit".
    remedy
        What to do instead.

    Raises
    ------
    UsageError
        An option was given.
    """
    if given := [name for name, value in options.items() if value is not None and value is not False]:
        verb = "has" if len(given) == 1 else "have"
        raise UsageError(f"{', '.join(given)} {verb} no effect {how}; {remedy}")
